"""Whole migrations over a wire that changes, against what the paces add up to."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gpusim import Config, ConfigError, LinkConfig, Result, WorkloadConfig, simulate
from gpusim.config.backend import EXPECTED, choose_backend
from gpusim.config.scenario import resolve
from gpusim.engine.migration import Migration
from tests.engine.scenarios import FREE_EAGER, FREE_LAZY, config

PAGE_BYTES = 4104  # of RAM on the wire
VM_BYTES = 2**32 // 4096 * PAGE_BYTES


def over(link: Config, changes: list[list[object]] | None) -> Config:
    return replace(link, link=replace(link.link, changes=changes))


def idle(bandwidth: str, changes: list[list[object]] | None) -> Config:
    return over(config(workload=WorkloadConfig(), bandwidth=bandwidth, max_bandwidth=0), changes)


def decisions(result: Result) -> tuple[object, ...]:
    return result.syncs, [e for e in result.events if e.event != "link_bandwidth"]


@pytest.mark.parametrize("at_s", [0, 3.21, 10, 1000])
@pytest.mark.parametrize(("first", "later"), [("200MB/s", "1GB/s"), ("1GB/s", "100MB/s")])
def test_an_idle_guest_takes_the_time_its_paces_add_up_to(
    at_s: float, first: str, later: str
) -> None:
    """Framing and rounding: 18 bytes a burst and half a picosecond a page."""
    paces = {"100MB/s": 1e8, "200MB/s": 2e8, "1GB/s": 1e9}
    sent = min(VM_BYTES, at_s * paces[first])
    wanted_s = sent / paces[first] + (VM_BYTES - sent) / paces[later]
    result = simulate(idle(first, [[at_s, later]]))
    assert result.summary.total_time_s == pytest.approx(wanted_s, rel=1e-5, abs=1e-4)
    changes = [event for event in result.events if event.event == "link_bandwidth"]
    assert [(e.time_s, e.arguments["bandwidth"]) for e in changes] == (
        [(at_s, paces[later])] if at_s < wanted_s else []
    )


@pytest.mark.parametrize("tracking", [FREE_EAGER, FREE_LAZY], ids=["eager", "lazy"])
def test_two_equal_halves_are_one_pace(tracking: object) -> None:
    """A busy guest, by changes that Config drops and by ones that the sender is left with."""
    whole = config(bandwidth="150MB/s", max_bandwidth=0, tracking=tracking, limit_s=120)
    constant = simulate(whole)
    halves = simulate(over(whole, [["30s", "150MB/s"], [60, "0.15GB/s"]]))
    assert (halves.syncs, halves.events) == (constant.syncs, constant.events)
    scenario = resolve(whole)
    kept = replace(scenario.link, changes=((30 * 10**9, 1.5e8), (60 * 10**9, 1.5e8)))
    migration = Migration(replace(scenario, link=kept), choose_backend(scenario))
    assert decisions(migration.run()) == decisions(constant)


def test_before_a_change_nothing_tells_that_it_will_come() -> None:
    whole = config(bandwidth="150MB/s", max_bandwidth=0, limit_s=60)
    changed = simulate(over(whole, [[40, "50MB/s"]]))
    constant = simulate(whole)
    for part in ("syncs", "events"):
        before, expected = (
            [row for row in getattr(result, part) if row.time_s < 40]
            for result in (changed, constant)
        )
        assert before == expected
        assert before
    assert changed.syncs != constant.syncs


def test_the_rest_is_sent_by_the_pace_of_its_time() -> None:
    """All that is left at the switchover goes at a tenth: the downtime overruns its limit tenfold."""
    slow = config(bandwidth="150MB/s", max_bandwidth=0, downtime_limit=2000)
    constant = simulate(slow).summary
    assert constant.downtime_ms is not None
    stop_s = constant.total_time_s - constant.downtime_ms / 1e3
    changed = simulate(over(slow, [[stop_s, "15MB/s"]])).summary
    assert changed.downtime_ms == pytest.approx(10 * constant.downtime_ms, rel=1e-3)


def test_a_dry_run_expects_the_change() -> None:
    whole = idle("200MB/s", [[3, "1GB/s"]])
    drawn = simulate(whole).summary.total_time_s
    migration = Migration(resolve(whole), EXPECTED)
    assert migration.run().summary.total_time_s == pytest.approx(drawn, rel=1e-6)


@pytest.mark.parametrize(
    "changes",
    [
        [],
        5,
        [5],
        [[1, "1GB/s"], [1, "2GB/s"]],
        [[2, "1GB/s"], ["1s", "2GB/s"]],
        [["soon", "1GB/s"]],
        [[-1, "1GB/s"]],
        [[1, 0]],
        [[1, "10 parsecs"]],
        [[2e8, "1GB/s"]],
        [[1, "1GB/s", 3]],
    ],
    ids=str,
)
def test_changes_that_make_no_sense_are_one_line(changes: object) -> None:
    with pytest.raises(ConfigError, match=r"^link.changes = ") as caught:
        resolve(Config(link=LinkConfig(changes=changes)))  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_a_recorded_wire_takes_no_changes() -> None:
    link = LinkConfig(recorded=[[0, 0], [1, 1e9]], changes=[[1, "1GB/s"]])
    with pytest.raises(ConfigError, match="recorded"):
        resolve(Config(link=link))


def test_unlimited_may_come_and_go() -> None:
    result = simulate(idle("100MB/s", [[1, "unlimited"]]))
    assert result.summary.total_time_s == pytest.approx(1, abs=0.2)
