"""Do migrations over a link that changes take the time that its bandwidths add up to?"""

from __future__ import annotations

from dataclasses import replace

import pytest

from gpusim import Config, ConfigError, LinkConfig, Result, WorkloadConfig, simulate
from gpusim.config.backend import EXPECTED, choose_backend
from gpusim.config.scenario import resolve
from gpusim.engine.migration import Migration
from tests.engine.scenarios import FREE_EAGER, FREE_LAZY, config

PAGE_BYTES = 4104  # on the link
VM_BYTES = 2**32 // 4096 * PAGE_BYTES


def over(link: Config, changes: list[list[object]] | None) -> Config:
    return replace(link, link=replace(link.link, changes=changes))


def idle(bandwidth: str, changes: list[list[object]] | None) -> Config:
    return over(config(workload=WorkloadConfig(), bandwidth=bandwidth, max_bandwidth=0), changes)


def decisions(result: Result) -> tuple[object, ...]:
    return result.syncs, [e for e in result.events if e.event != "link_bandwidth"]


@pytest.mark.parametrize("at_s", [0, 3.21, 10, 1000])
@pytest.mark.parametrize(("first", "later"), [("200MB/s", "1GB/s"), ("1GB/s", "100MB/s")])
def test_an_idle_guest_takes_the_time_that_the_bandwidths_add_up_to(
    at_s: float, first: str, later: str
) -> None:
    """The tolerance is for 18 bytes per burst and for half a picosecond per page."""
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
def test_two_halves_of_equal_bandwidth_are_one(tracking: object) -> None:
    """The config drops a change without effect, and the sender ignores one."""
    whole = config(bandwidth="150MB/s", max_bandwidth=0, tracking=tracking, limit_s=120)
    constant = simulate(whole)
    halves = simulate(over(whole, [["30s", "150MB/s"], [60, "0.15GB/s"]]))
    assert (halves.syncs, halves.events) == (constant.syncs, constant.events)
    scenario = resolve(whole)
    kept = replace(scenario.link, changes=((30 * 10**9, 1.5e8), (60 * 10**9, 1.5e8)))
    migration = Migration(replace(scenario, link=kept), choose_backend(scenario))
    assert decisions(migration.run()) == decisions(constant)


def test_a_change_has_no_effect_before_its_time() -> None:
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


def test_the_final_pages_are_sent_at_the_bandwidth_of_their_time() -> None:
    """The link drops to a tenth at the switchover, so the downtime is ten times as long."""
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
def test_a_wrong_change_is_refused_in_one_line(changes: object) -> None:
    with pytest.raises(ConfigError, match=r"^link.changes = ") as caught:
        resolve(Config(link=LinkConfig(changes=changes)))  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_a_recorded_link_takes_no_changes() -> None:
    link = LinkConfig(recorded=[[0, 0], [1, 1e9]], changes=[[1, "1GB/s"]])
    with pytest.raises(ConfigError, match="recorded"):
        resolve(Config(link=link))


def test_unlimited_may_come_and_go() -> None:
    result = simulate(idle("100MB/s", [[1, "unlimited"]]))
    assert result.summary.total_time_s == pytest.approx(1, abs=0.2)
