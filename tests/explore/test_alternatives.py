"""Each alternative, compared with a run over bitmaps.

The search runs over expected shares. The tests run the same configs over bitmaps, and also with the
next smaller value, which must not converge.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import pytest

from gpusim import (
    Config,
    LimitConfig,
    LinkConfig,
    MigrationConfig,
    VmConfig,
    WriterConfig,
    simulate,
)
from gpusim.config.scenario import resolve
from gpusim.config.schema import BackendConfig
from gpusim.engine.records import Alternative
from gpusim.explore import run_pool
from gpusim.explore.alternatives import alternatives
from gpusim.explore.changes import (
    DOWNTIME_FACTORS,
    LINK_FACTORS,
    postcopy_obstacle,
    set_key,
    single_changes,
)
from gpusim.units import parse_bytes_per_s


def config(rate: float = 4e4, **migration: Any) -> Config:
    """Return a VM of 256 MiB at 1 Gbit/s (30,500 pages per second). It writes half of it."""
    return Config(
        vm=VmConfig(memory="256MiB", vcpus=2),
        workload=WriterConfig(working_set="128MiB", page_writes_per_s=rate),
        link=LinkConfig(bandwidth="1Gbit/s"),
        migration=MigrationConfig(**migration),
        backend=BackendConfig(name="numpy"),
        limit=LimitConfig(simulated="30min"),
    )


def verdict(made: Config) -> str | None:
    return simulate(made).summary.verdict


def found(made: Config) -> dict[str, Alternative]:
    assert verdict(made) != "converged"
    return {change.key: change for change in alternatives(made, resolve(made))}


@cache
def found_for(name: str) -> dict[str, Alternative]:
    """Return `found` for one of STALLED. Search only once."""
    return found(STALLED[name])


def as_set(change: Alternative) -> object:
    """Return a value as the config takes it."""
    if change.value in ("true", "null"):
        return {"true": True, "null": None}[change.value]
    return int(change.value) if change.value.isdigit() else change.value


def with_change(made: Config, change: Alternative) -> Config:
    if change.also == "migration.postcopy_ram=true":
        made = set_key(made, "migration.postcopy_ram", True)
    return set_key(made, change.key, as_set(change))


def assert_true(made: Config, change: Alternative) -> None:
    """Assert that a run over bitmaps converges about as the alternative says."""
    real = simulate(with_change(made, change)).summary
    assert real.verdict == "converged", change
    assert real.total_time_s == pytest.approx(change.total_time_s, rel=0.15)
    assert real.max_throttle_percent == pytest.approx(change.max_throttle_percent, abs=20)


STALLED = {
    "no auto-converge": config(2e5, auto_converge=False),
    "a low ceiling": config(2e5, max_cpu_throttle=30, version="qemu_9_1"),
    "the timer off": config(2e5, max_cpu_throttle=20, fallback_sync_interval="never"),
}


@pytest.mark.parametrize(
    "name",
    [
        "no auto-converge",
        pytest.param("a low ceiling", marks=pytest.mark.slow),
        pytest.param("the timer off", marks=pytest.mark.slow),
    ],
)
def test_exactly_the_alternatives_that_converge_do_so_over_bitmaps(name: str) -> None:
    made, changes = STALLED[name], found_for(name)
    assert any(change.outcome == "converges" for change in changes.values())
    for change in changes.values():
        assert change.outcome != "not_tried"
        if change.outcome == "converges":
            assert_true(made, change)
        else:
            assert verdict(set_key(made, change.key, as_set(change))) != "converged"


@pytest.mark.slow
def test_auto_converge_is_proposed_only_if_it_is_off() -> None:
    assert found_for("no auto-converge")["migration.auto_converge"].outcome == "converges"
    others = found_for("a low ceiling")
    assert "migration.auto_converge" not in others
    assert others["migration.max_cpu_throttle"].value == "99"
    assert others["migration.version"].value == "qemu_9_2"
    assert "migration.max_cpu_throttle" not in found_for("no auto-converge")
    assert found_for("the timer off")["migration.fallback_sync_interval"].value == "null"


@pytest.mark.slow
def test_the_smallest_bandwidth_is_found() -> None:
    """The link has to carry 3e5 page writes per second without a throttle. 5 Gbit/s do not."""
    made = config(3e5, auto_converge=False)
    change = found(made)["link.bandwidth"]
    rates = [factor * 1.25e8 for factor in LINK_FACTORS]
    place = rates.index(parse_bytes_per_s(change.value))
    assert place > 0
    assert_true(made, change)
    assert verdict(set_key(made, "link.bandwidth", rates[place - 1])) != "converged"


@pytest.mark.slow
def test_the_smallest_downtime_limit_is_found() -> None:
    """The writer leaves its 128 MiB dirty, which take 1.08 s, so 2 x 300 ms are too short."""
    made = config(1e7, auto_converge=False, downtime_limit=300)
    change = found(made)["migration.downtime_limit"]
    limits = [factor * 300 for factor in DOWNTIME_FACTORS]
    place = limits.index(int(change.value))
    assert limits[place] == 1500
    assert_true(made, change)
    assert verdict(set_key(made, "migration.downtime_limit", limits[place - 1])) != "converged"


def test_the_rate_limit_is_raised_up_to_the_bandwidth_of_the_link() -> None:
    made = config(4e5, auto_converge=False, max_bandwidth="512Mbit/s")
    changes = found(made)
    assert "link.bandwidth" not in changes
    assert changes["migration.max_bandwidth"].outcome == "does_not"
    assert parse_bytes_per_s(changes["migration.max_bandwidth"].value) <= 1.25e8


@pytest.mark.slow
def test_channels_are_added_if_one_thread_is_slower_than_the_link() -> None:
    """6e5 page writes per second need 20 Gbit/s. The link has them, one thread does not."""
    made = config(6e5, auto_converge=False, downtime_limit=10)
    made = replace(made, link=replace(made.link, bandwidth="40Gbit/s"))
    changes = found(made)
    assert "link.bandwidth" not in changes
    assert_true(made, changes["migration.multifd_channels"])


def test_a_run_that_is_cut_is_not_called_insufficient() -> None:
    made = STALLED["no auto-converge"]
    changes = {one.key: one for one in alternatives(made, resolve(made), most_steps=0)}
    assert changes["migration.auto_converge"].outcome == "not_tried"
    assert all(one.outcome != "does_not" for one in changes.values())


@pytest.mark.slow
def test_a_value_is_not_called_the_smallest_if_the_run_below_it_is_cut(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Only the largest change of each key is simulated to its end."""
    made, real = STALLED["a low ceiling"], run_pool.outcome
    last = {
        repr(one.config_of(made, len(one.values) - 1))
        for one in single_changes(made, resolve(made))
    }

    def cut(one: Config, most_steps: int, small_bytes: float) -> run_pool.Outcome:
        return real(one, most_steps if repr(one) in last else 0, small_bytes)

    whole = found_for("a low ceiling")
    monkeypatch.setattr(run_pool, "outcome", cut)
    for key, change in found(made).items():
        if change.outcome == "converges":
            assert change.smallest <= (change.value == whole[key].value)
    assert not found(made)["link.bandwidth"].smallest


def test_a_recorded_link_has_no_bandwidth_to_raise() -> None:
    made = config(auto_converge=False)
    pace = [[float(second), 1.25e7 * second] for second in range(60)]
    recorded = replace(made, link=replace(made.link, recorded=pace))
    keys = {change.key for change in alternatives(recorded, resolve(recorded), most_steps=0)}
    others = {"migration.downtime_limit", "migration.start_postcopy"}
    assert keys == {"migration.auto_converge", *others}


def test_a_change_that_the_config_refuses_is_left_out() -> None:
    """QEMU 2.6 has no multifd: one thread stays slower than the link."""
    made = config(6e5, auto_converge=False, version="qemu_2_6", downtime_limit=10)
    made = replace(made, link=replace(made.link, bandwidth="40Gbit/s"))
    made = replace(made, tracking=replace(made.tracking, mode="kvm_legacy"))
    keys = {change.key for change in alternatives(made, resolve(made), most_steps=0)}
    assert "migration.multifd_channels" not in keys


def test_post_copy_keeps_one_thread_in_a_version_without_both() -> None:
    """QEMU refuses multifd beside postcopy-ram before 10.1. A faster link is proposed all the same."""
    made = config(auto_converge=False, version="qemu_9_2", postcopy_ram=True)
    keys = {change.key for change in alternatives(made, resolve(made), most_steps=0)}
    expected = {"migration.auto_converge", "link.bandwidth", "migration.downtime_limit"}
    assert keys == {*expected, "migration.start_postcopy"}


def test_post_copy_is_a_way_out_with_its_cost() -> None:
    """128 MiB are written all the time, and one pass of the rest is sent before the switch."""
    change = found_for("no auto-converge")["migration.start_postcopy"]
    assert (change.value, change.also) == ("1pass", "migration.postcopy_ram=true")
    assert change.outcome == "converges"
    assert change.guest_cpu_lost_percent is not None and change.guest_cpu_lost_percent > 0
    assert change.postcopy_time_s is not None and change.postcopy_time_s > 0
    assert change.postcopy_blackout_ms is not None and change.downtime_ms is not None
    assert change.postcopy_blackout_ms > change.downtime_ms + 420  # postcopy.resume_ms


@pytest.mark.parametrize(
    ("migration", "vfio", "obstacle"),
    [
        ({"version": "qemu_9_2", "multifd_channels": 8}, 0, "multifd"),
        ({"version": "qemu_10_1", "multifd_channels": 8}, 0, ""),
        ({"version": "qemu_10_1"}, 1, "vfio"),
    ],
)
def test_post_copy_is_left_out_where_qemu_refuses_it(
    migration: dict[str, Any], vfio: int, obstacle: str
) -> None:
    made = config(auto_converge=False, **migration)
    made = replace(made, vm=replace(made.vm, vfio_devices=vfio))
    keys = {change.key for change in single_changes(made, resolve(made))}
    assert postcopy_obstacle(made) == obstacle
    assert ("migration.start_postcopy" in keys) == (not obstacle)
