"""Does vm.backing give the costs and page tables that KVM's published figures give?"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from gpusim import (
    Config,
    ConfigError,
    MigrationConfig,
    TrackingConfig,
    VmConfig,
    WriterConfig,
    simulate,
)
from gpusim.cli.dry_run_text import plan_text
from gpusim.config.compose import composed_config
from gpusim.config.scenario import Scenario, resolve
from gpusim.engine.expected_run import expected_run
from gpusim.explore.dry_run import make_plan
from gpusim.units import NS_PER_S
from gpusim.wall_limit import WallLimit
from tests.engine.scenarios import FREE_LAZY, config

HUGE = ("thp", "hugetlb_2m", "hugetlb_1g")
GIB, TIB = 2**30, 2**40
GIB_PAGES = GIB // 4096


def scenario(backing: str = "thp", memory: object = "1TiB", **tracking: Any) -> Scenario:
    vm = VmConfig(memory=memory, backing=backing)  # type: ignore[arg-type]
    return resolve(Config(vm=vm, tracking=TrackingConfig(**tracking)))


@pytest.mark.parametrize("value", ["2m", "hugepages", "4K", "", None, 4096, True])
def test_an_unknown_backing_is_refused(value: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve(Config(vm=VmConfig(backing=value)))
    assert caught.value.key == "vm.backing"
    assert caught.value.code in ("unknown_choice", "wrong_type")


def test_page_tables_take_2_gib_per_tib() -> None:
    """An entry of 8 bytes per 4 KiB page. A page of 1 GiB gets a table above them, too."""
    found = {backing: scenario(backing).page_table_bytes for backing in ("4k", *HUGE)}
    assert found == {
        "4k": 0,
        "thp": 2 * GIB,
        "hugetlb_2m": 2 * GIB,
        "hugetlb_1g": 2 * GIB + 1024 * 4096,
    }
    assert scenario(mode="tcg").page_table_bytes == 0
    power = scenario(mode="kvm_legacy", page_size="16MiB", memory="64GiB")
    assert power.page_table_bytes == 0


def test_zero_pages_need_no_page_tables() -> None:
    half = resolve(Config(vm=VmConfig(memory="1TiB", zero_percent=50)))
    assert half.page_table_bytes == GIB


def test_a_dry_run_shows_the_page_tables() -> None:
    def line(backing: str, **tracking: Any) -> str:
        vm = VmConfig(memory="8GiB", backing=backing)
        plan = make_plan(Config(vm=vm, tracking=TrackingConfig(**tracking), dry_run=True))
        found = [row for row in plan_text(plan).splitlines() if row.startswith("page tables")]
        return "".join(found)

    assert "16 MiB" in line("thp")
    assert line("4k") == ""
    assert "up to 16 MiB" in line("hugetlb_2m", eager_page_split=False)


@pytest.mark.parametrize("backing", HUGE)
def test_the_first_clear_of_a_chunk_splits_and_later_ones_protect(backing: str) -> None:
    """A pass over 2 GiB, then clears of pages that are written again."""
    costs = replace(FREE_LAZY, protect_ns_per_page=10.0, split_ns_per_page=61.6)
    writer = WriterConfig(working_set="1GiB", page_writes_per_s=4e4)
    base = config("2GiB", writer, tracking=costs, bandwidth="2Gbit/s", max_bandwidth=0)
    found = {
        one: simulate(replace(base, vm=replace(base.vm, backing=one))).summary.remote_clear_s
        for one in ("4k", backing)
    }
    first_s = 2 * GIB_PAGES * 1e-9
    again_s = found["4k"] - first_s * 10
    assert again_s > 0.1 * first_s
    assert found[backing] == pytest.approx(first_s * 61.6 + again_s, rel=0.1)


@pytest.mark.parametrize(
    ("changes", "ns_per_page"),
    [
        ({"backing": "4k"}, 13.4),
        ({}, 61.6),
        ({"backing": "hugetlb_1g"}, 61.6),
        ({"backing": "hugetlb_1g", "eager_page_split": False}, 2.0),
        ({"backing": "4k", "eager_page_split": False}, 13.4),
        ({"mode": "tcg"}, 0.0),
    ],
)
@pytest.mark.parametrize("mode", ["kvm_legacy", "dirty_ring", "kvm_manual"])
def test_without_initially_set_the_start_splits(
    mode: str, changes: dict[str, Any], ns_per_page: float
) -> None:
    """96 GiB took 1.55 s in Linux a3fe5dbda0a4."""
    keys = {"memory": "96GiB", "initially_set": False, "mode": mode, **changes}
    tracking = scenario(**keys).tracking
    assert tracking.start_ns == round(96 * GIB_PAGES * ns_per_page)
    assert tracking.first_protect_ns in (0, 42.7, 61.6, 2.0)
    if ns_per_page == 61.6:
        assert tracking.start_ns / 1e9 == pytest.approx(1.55, rel=1e-3)


def test_the_first_pass_takes_a_fifth_longer_at_100_gbit() -> None:
    """A chunk of 1 GiB takes 86 ms at 100 Gbit/s, and its first clear 16 ms."""
    base = config("8GiB", tracking=FREE_LAZY, bandwidth="100Gbit/s", max_bandwidth=0)
    plain, splits = (
        simulate(replace(base, tracking=replace(FREE_LAZY, split_ns_per_page=ns))).summary
        for ns in (0.0, 61.6)
    )
    assert plain.total_time_s == pytest.approx(8 * 0.0861, rel=0.05)
    longer_s = splits.total_time_s - plain.total_time_s
    assert splits.remote_clear_s == pytest.approx(8 * 0.01615, rel=1e-3)
    assert longer_s == pytest.approx(8 * 0.01615, rel=0.05)


def test_without_eager_splitting_a_guest_pays_for_the_first_write_to_each_page() -> None:
    """The first writes to 2^18 pages cost 1186 ns each, and later ones 224 ns."""
    tracking = replace(FREE_LAZY, eager_page_split=False, first_write_cost_ns=224.0)
    writer = WriterConfig(working_set="1GiB", page_writes_per_s=4e5, vcpus=1)
    base = config("2GiB", writer, tracking=tracking, bandwidth="2Gbit/s", max_bandwidth=0,
                  auto_converge=False, limit_s=60)  # fmt: skip
    lazy, eager = (
        simulate(replace(base, tracking=replace(tracking, eager_page_split=one))).summary
        for one in (False, True)
    )
    assert eager.guest_fault_s == pytest.approx(eager.write_faults * 224e-9)
    first_s = GIB_PAGES * (1186 - 224) * 1e-9
    assert lazy.guest_fault_s == pytest.approx(lazy.write_faults * 224e-9 + first_s, rel=1e-3)
    on_4k = replace(base, vm=replace(base.vm, backing="4k"))
    assert simulate(on_4k).summary.guest_fault_s == pytest.approx(eager.guest_fault_s)


@pytest.mark.parametrize(
    ("backing", "channels", "gbit", "longest_ms"),
    [
        # A page of 1 GiB takes 86 ms at 100 Gbit/s and 8.6 s at 1 Gbit/s.
        ("hugetlb_1g", 8, 100, 86.1),
        ("hugetlb_1g", 0, 1, 8607.0),
        # The clock is read after 65 pages of 2 MiB, and 50 ms: 54 ms at 100 Gbit/s, 1.09 s at 1.
        ("hugetlb_2m", 8, 100, 54.0),
        ("hugetlb_2m", 0, 1, 1093.0),
        ("thp", 0, 1, 53.0),
    ],
)
def test_a_fallback_sync_waits_until_whole_host_pages_are_sent(
    backing: str, channels: int, gbit: int, longest_ms: float
) -> None:
    """The guest writes all of its memory, so all host pages are full."""
    tracking = replace(FREE_LAZY, waits_for_burst=True, mutex_win_percent=100.0)
    writer = WriterConfig(working_set="24GiB", page_writes_per_s=1e9, throttled=False)
    made = config("24GiB", writer, tracking=tracking, bandwidth=f"{gbit}Gbit/s", max_bandwidth=0,
                  fallback_sync_interval="1370ms", limit_s=60 if gbit == 100 else 600)  # fmt: skip
    made = replace(
        made,
        vm=replace(made.vm, backing=backing),
        migration=replace(made.migration, multifd_channels=channels),
    )
    waits_ms = [sync.duration_ms for sync in simulate(made).syncs if sync.kind == "fallback"]
    assert len(waits_ms) > 8
    assert 0.4 * longest_ms < max(waits_ms) <= longest_ms * 1.01


def test_qemu_2_6_knows_no_pages_of_hugetlbfs() -> None:
    """Blocks have a page size since 2.9, and the rate limit inside host pages came with 5.0."""
    vm = VmConfig(memory="4GiB", backing="hugetlb_1g")
    found = {
        version: resolve(
            Config(
                vm=vm,
                migration=MigrationConfig(version=version),
                tracking=TrackingConfig(mode="kvm_legacy"),
            )
        ).link.host_pages
        for version in ("qemu_2_6", "qemu_7_2", "qemu_11_1")
    }
    assert found == {"qemu_2_6": 1, "qemu_7_2": GIB_PAGES, "qemu_11_1": GIB_PAGES}


def test_the_ram_must_hold_a_host_page() -> None:
    with pytest.raises(ConfigError) as caught:
        scenario("hugetlb_1g", "512MiB")
    assert (caught.value.key, caught.value.code) == ("vm.backing", "does_not_fit_vm")
    assert scenario("hugetlb_2m", "512MiB").link.host_pages == 512


@pytest.mark.parametrize("backing", ["hugetlb_2m", "hugetlb_1g"])
def test_a_dry_run_sends_whole_host_pages_to_the_end(backing: str) -> None:
    """Over expected shares a chunk may hold a page less than its host pages seem to."""
    overrides = (
        "vm.memory=64GiB",
        f"vm.backing={backing}",
        "vm.zero_percent=0",
        "link=100gbit",
        "migration.multifd_channels=8",
        "workload=uniform",
        "workload.working_set_percent=20",
        "workload.page_writes_per_s=1e5",
    )
    config_of_run = composed_config(overrides)
    summary, _ = expected_run(resolve(config_of_run), WallLimit(20 * NS_PER_S))
    assert summary.verdict == "converged"
    simulated_s = simulate(config_of_run).summary.total_time_s
    assert summary.total_time_s == pytest.approx(simulated_s, rel=0.03)
