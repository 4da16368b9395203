"""Do KubeVirt's and Cloud Hypervisor's rules decide as their documents and code do?"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from gpusim import ConfigError, simulate
from gpusim.config.compose import composed_config
from gpusim.config.scenario import resolve
from gpusim.errors import ArgumentError
from gpusim.policies import Orders, Shown, Sync
from gpusim.policies.cloud_hypervisor import CloudHypervisor, IterationThrottle, WholeIterations
from gpusim.policies.kubevirt import KubeVirt, KubeVirtStall, completion_timeout_s
from tests.policies.test_plug_ins import with_policies
from tests.policies.test_runs import RULES, busy
from tests.qemu.parameters import DEFAULTS

MB = 10**6
FORCED = {"downtime_limit": 2_000_000}


def shown(time_s: float, count: int, remaining: int = 10**9, why: Any = "sync") -> Shown:
    """Return a poll of a VM of 8 GiB on a link of 100 MB/s."""
    return Shown(
        why=why,
        time_ns=round(time_s * 1e9),
        dirty_sync_count=count,
        remaining_bytes=remaining,
        total_bytes=2**33,
        transferred_bytes=0,
        dirty_pages_rate=0,
        bandwidth_bytes_per_s=1e8,
        cpu_throttle_percentage=0,
        downtime_limit_ms=300,
        vm_runs=True,
    )


def polls(
    manager: KubeVirt, count_at: float = 0.0, memory: int = 2**33
) -> list[tuple[float, Orders]]:
    """Return (s, orders) of each poll that orders something. The third sync ends at `count_at`."""
    found: list[tuple[float, Orders]] = []
    orders = manager.look(replace(shown(0, 1), total_bytes=memory))
    while orders.again_ns is not None and orders.do != "cancel":
        at_s = orders.again_ns / 1e9
        if count_at and at_s >= count_at:
            at_s, count_at = count_at, 0.0
            orders = manager.look(replace(shown(at_s, 3), total_bytes=memory))
        else:
            why, count = "time", 2 if count_at else 3
            orders = manager.look(replace(shown(at_s, count, why=why), total_bytes=memory))
        if orders.set or orders.do:
            found.append((round(at_s, 1), orders))
    return found


def limits(found: list[tuple[float, Orders]]) -> list[tuple[float, int]]:
    return [(at_s, orders.set["downtime_limit"]) for at_s, orders in found if orders.set]


@pytest.mark.parametrize(
    ("memory", "timeout_s", "abort_s"),
    [
        (2 * 2**30, 450, 451.2),  # 2.15 GB count as 3. The first poll with 451 whole seconds
        (8 * 2**30, 1350, 1351.2),  # 8.59 GB count as 9
        (8 * 2**30 + 17 * 2**20, 1350, 1351.2),  # with video memory and ROMs
        (16 * 2**30, 2700, 2701.2),
        (2**40, 165_000, 165_001.2),
    ],
)
def test_kubevirts_timeout_counts_gb_rounded_up(
    memory: int, timeout_s: int, abort_s: float
) -> None:
    assert completion_timeout_s(memory, 150) == timeout_s
    ((at_s, orders),) = polls(KubeVirt(), memory=memory)
    assert (at_s, orders.do) == (abort_s, "cancel")
    assert f"{timeout_s} s" in orders.why


def test_the_ramp_rises_by_whole_ms_after_the_third_sync_and_a_cooldown() -> None:
    """150 to 900 ms in 7 steps of 107 ms. The third sync comes long after the first limit."""
    found = limits(polls(KubeVirt(downtime_tuning=True), count_at=75.1))
    assert found[0] == (0.4, 150)
    steps = [150 + 107 * n for n in range(1, 8)] + [900]
    assert found[1:] == [(round(75.2 + 10 * n, 1), ms) for n, ms in enumerate(steps)]


def test_a_ramp_whose_cooldown_is_longer_than_three_syncs_waits_for_it() -> None:
    ramp = KubeVirt(downtime_tuning=True, max_downtime_ms=450, steps=3, cooldown_s=10)
    found = limits(polls(ramp, count_at=3.0))
    assert found == [(0.4, 150), (10.4, 250), (20.4, 350), (30.4, 450)]


def test_kubevirt_pauses_if_disruption_is_allowed_and_aborts_at_twice_the_time() -> None:
    found = polls(KubeVirt(completion_timeout_per_gib=10, allow_workload_disruption=True))
    assert [(at_s, orders.do) for at_s, orders in found] == [(91.2, "pause"), (181.2, "cancel")]


POST_COPY = {"allow_workload_disruption": True, "allow_post_copy": True}


def test_post_copy_comes_at_the_timeout_and_nothing_after_it() -> None:
    """8 GiB count as 9 GB, so 10 s per GB are 90 s."""
    manager = KubeVirt(completion_timeout_per_gib=10, **POST_COPY)
    assert polls(manager) == [(91.2, Orders(do="start-postcopy"))]
    assert manager.look(shown(500, 9)) == Orders()


def test_a_stalled_migration_switches_to_post_copy() -> None:
    detector = KubeVirtStall(**POST_COPY)
    *calm, last = poll_all(detector, (0, 8000), (80, 510), (100, 900), (121, 500))
    assert {orders.do for orders in calm} == {None}
    assert last == Orders(do="start-postcopy")
    assert detector.look(shown(10_000, 9)) == Orders()


def test_the_stall_detector_switches_to_post_copy_at_the_timeout_too() -> None:
    """Memory that still falls is no stall. Sending 1 GB takes 10 s, and twice 90 s are allowed."""
    detector = KubeVirtStall(completion_timeout_per_gib=10, **POST_COPY)
    poll_all(detector, (0, 8000), (40, 4000))
    assert detector.look(shown(91.2, 2, 1000 * MB, "time")) == Orders(do="start-postcopy")


@pytest.mark.parametrize("preset", ["kubevirt_post_copy", "kubevirt_stall_post_copy"])
def test_a_preset_allows_post_copy_with_one_flag(preset: str) -> None:
    allowed = composed_config([f"policy={preset}"])
    resolve(allowed)
    assert allowed.migration.postcopy_ram
    base = composed_config([f"policy={preset.removesuffix('_post_copy')}"]).migration
    assert base.manager is not None
    assert allowed.migration.manager is not None
    assert allowed.migration.manager.args == base.manager.args | POST_COPY
    lacks = replace(allowed, migration=replace(allowed.migration, postcopy_ram=False))
    with pytest.raises(ConfigError, match=f"policy={preset}"):
        resolve(lacks)


def test_a_run_of_kubevirt_ends_in_post_copy() -> None:
    options = {"completion_timeout_per_gib": 10, **POST_COPY}
    made = busy(auto_converge=False, postcopy_ram=True)
    found = simulate(with_policies(made, manager=("gpusim.policies.kubevirt:KubeVirt", options)))
    assert found.summary.reason_code == "postcopy"
    assert found.summary.postcopy_start_s == pytest.approx(21.2, abs=0.2)  # 1 GiB counts as 2 GB


def poll_all(detector: KubeVirtStall, *iterations: tuple[float, int]) -> list[Orders]:
    return [
        detector.look(shown(at_s, count, megabytes * MB))
        for count, (at_s, megabytes) in enumerate(iterations, start=1)
    ]


def test_progress_is_no_stall() -> None:
    """Each iteration leaves 10 % less, which exceeds the margin of 4 %."""
    falling = [(20.0 * n, round(8000 * 0.9**n)) for n in range(12)]
    assert {orders.do for orders in poll_all(KubeVirtStall(), *falling)} == {None}


def test_a_stall_with_too_much_memory_is_cancelled_at_once() -> None:
    """500 MB take 5 s, and 1.35 s are possible. 41 s after 510 MB, 500 MB are within 4 %."""
    *calm, last = poll_all(KubeVirtStall(), (0, 8000), (80, 510), (100, 900), (121, 500))
    assert {orders.do for orders in calm} == {None}
    assert last.do == "cancel"
    assert "5000 ms" in last.why and "1350 ms" in last.why


def test_it_waits_for_a_local_minimum() -> None:
    """If more than the window's minimum remains, the rule waits until the minimum comes again."""
    *_, high, low = poll_all(KubeVirtStall(), (0, 8000), (80, 100), (121, 150), (125, 103))
    assert high.do is None and not high.set
    assert low.set == {"downtime_limit": 900}
    assert low.again_ns == 186_000_000_000  # more than 60 whole seconds after 125 s
    at_once = poll_all(KubeVirtStall(search_local_minima=False), (0, 8000), (80, 100), (121, 101))
    assert at_once[-1].set == {"downtime_limit": 900}


def test_a_minimum_that_does_not_come_again_is_given_up() -> None:
    """After 40 s the least since the stall is enough: 120 MB."""
    found = poll_all(
        KubeVirtStall(), (0, 8000), (80, 100), (121, 150), (140, 120), (160, 130), (162, 124)
    )
    assert [bool(orders.set) for orders in found] == [False] * 5 + [True]


def test_it_cancels_if_qemu_does_not_switch_over() -> None:
    detector = KubeVirtStall()
    poll_all(detector, (0, 8000), (80, 100), (121, 100))
    assert detector.look(shown(150, 9)).do is None
    assert detector.look(shown(182.0, 9, why="time")).do == "cancel"


def test_the_detector_has_the_released_monitors_timeout() -> None:
    detector = KubeVirtStall()
    assert detector.look(shown(0, 1)).again_ns == 1_351_200_000_000
    assert detector.look(shown(1351.2, 1, why="time")).do == "cancel"
    without = KubeVirtStall(completion_timeout_per_gib=0)
    assert without.look(shown(0, 1)).again_ns is None


def test_a_switchover_may_come_after_the_timeout() -> None:
    """The deadline moves to 60 s after the new limit, even beyond 1350 s."""
    detector = KubeVirtStall(completion_timeout_factor=2)
    found = poll_all(detector, (0, 8000), (1300, 100), (1345, 100))
    assert found[-1].set == {"downtime_limit": 900}
    assert found[-1].again_ns == 1_406_000_000_000


def test_disruption_forces_the_switchover_of_a_stalled_migration() -> None:
    """500 MB take 5 s, which is far beyond 900 ms."""
    detector = KubeVirtStall(allow_workload_disruption=True)
    assert poll_all(detector, (0, 8000), (80, 510), (121, 500))[-1].set == FORCED
    slow = KubeVirtStall(allow_workload_disruption=True, completion_timeout_per_gib=10)
    poll_all(slow, (0, 8000), (50, 4000))  # no stall, and 90 s are over
    late = slow.look(shown(91.2, 3, why="time"))
    assert (late.set, late.again_ns) == (FORCED, 152_000_000_000)


def test_a_rest_that_takes_longer_than_the_time_left_is_not_switched() -> None:
    """9 GB at 100 MB/s take 90 s. 2 * 9 * 8 s less 70 s are 74 s."""
    detector = KubeVirtStall(completion_timeout_per_gib=8, allow_workload_disruption=True)
    *_, last = poll_all(detector, (0, 9000), (20, 9000), (70, 9000))
    assert (last.set, last.do) == ({}, None)


def test_a_limit_below_qemus_holds_from_the_start() -> None:
    assert KubeVirtStall(max_downtime_ms=200).look(shown(0, 1)).set == {"downtime_limit": 200}


@pytest.mark.parametrize(
    ("rule", "args", "message"),
    [
        (KubeVirtStall, {"completion_timeout_per_gib": float("inf")}, "_per_gib = inf"),
        (KubeVirtStall, {"stall_progress_timeout": 0}, "stall_progress_timeout = 0"),
        (KubeVirtStall, {"max_downtime_ms": 900.5}, "max_downtime_ms = 900.5"),
        (KubeVirtStall, {"precopy_possible_factor": 0.5}, "precopy_possible_factor = 0.5"),
        (KubeVirtStall, {"ewma_alpha": float("nan")}, "ewma_alpha = nan"),
        (KubeVirtStall, {"patience_window_decay_factor": "1"}, "decay_factor = '1'"),
        (KubeVirtStall, {"search_local_minima": 1}, "search_local_minima = 1"),
        (KubeVirtStall, {"allow_post_copy": True}, "needs allow_workload_disruption"),
        (KubeVirt, {"allow_post_copy": True}, "needs allow_workload_disruption"),
        (KubeVirt, {"steps": 10**9}, "steps = 1000000000"),
        (KubeVirt, {"initial_ms": 2000}, "initial_ms = 2000"),
        (KubeVirt, {"max_downtime_ms": 3_000_000}, "max_downtime_ms = 3000000"),
        (KubeVirt, {"cooldown_s": True}, "cooldown_s = True"),
    ],
)
def test_arguments_out_of_range_are_refused(rule: type, args: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rule(**args)


def test_cloud_hypervisors_throttle_rises_every_second_iteration() -> None:
    """Iteration 0 is all of RAM. Iterations 2, 4, 6, ... take a step, up to 99 %."""
    rule, steps = IterationThrottle(DEFAULTS), []
    for iteration in range(1, 30):
        sync = Sync(
            kind="exact",
            time_ns=iteration,
            dirty_sync_count=iteration + 1,
            newly_dirty_bytes=0,
            remaining_bytes=0,
        )
        if rule.on_sync(sync):
            steps.append((iteration, rule.percent))
    assert steps == [(2 * n, 10 * n) for n in range(1, 10)] + [(20, 99)]
    assert rule.exhausted


def test_cloud_hypervisor_reads_the_log_when_all_is_sent() -> None:
    rule = WholeIterations()
    assert rule.wants_sync(0, 10) and not rule.wants_sync(1, 10)
    assert rule.ready(10, 10) and not rule.ready(11, 10)
    found = simulate(
        with_policies(
            busy(fallback_sync_interval="never", limit_s=300), **RULES["cloud_hypervisor"]
        )
    )
    assert found.summary.verdict == "converged"
    natural = [sync for sync in found.syncs if sync.kind == "exact"]
    assert all(s.newly_dirty_pages * 4096 == s.remaining_bytes for s in natural)
    steps = [sync.cpu_throttle_percentage for sync in natural]
    assert steps == [min(99, 10 * (n // 2)) for n in range(1, len(natural) + 1)]


@pytest.mark.parametrize(
    ("strategy", "verdict"), [("cancel", "cancelled"), ("ignore", "converged")]
)
def test_cloud_hypervisor_ends_at_its_timeout(strategy: str, verdict: str) -> None:
    rules: dict[str, Any] = {
        "switchover_rule": RULES["cloud_hypervisor"]["switchover_rule"],
        "manager": (
            "gpusim.policies.cloud_hypervisor:CloudHypervisor",
            {"timeout_s": 38, "timeout_strategy": strategy},
        ),
    }
    never = busy(fallback_sync_interval="never", limit_s=300, auto_converge=False)
    found = simulate(with_policies(never, **rules))
    assert found.summary.verdict == verdict
    if strategy == "cancel":
        assert found.summary.total_time_s == pytest.approx(38, abs=0.2)
        assert "by Cloud Hypervisor: the timeout" in found.summary.reason
    else:  # it sends the whole iteration first
        *_, before_s, after_s = [sync.time_s for sync in found.syncs if sync.kind == "exact"]
        assert before_s < 38 < after_s <= found.summary.total_time_s
        assert found.syncs[-1].remaining_bytes > 2**27


@pytest.mark.parametrize(("name", "value"), [("timeout_s", 0), ("timeout_strategy", "stop")])
def test_cloud_hypervisor_refuses_other_arguments(name: str, value: object) -> None:
    with pytest.raises(ArgumentError) as caught:
        CloudHypervisor(**{name: value})
    assert caught.value.name == name


def test_the_preset_has_cloud_hypervisors_defaults() -> None:
    migration = composed_config(["policy=cloud_hypervisor_upstream"]).migration
    assert migration.manager is not None
    assert vars(CloudHypervisor(**migration.manager.args)) == vars(CloudHypervisor())
    assert (migration.auto_converge, migration.downtime_limit) == (False, 300)


@pytest.mark.parametrize("name", ["kubevirt", "kubevirt_ramp", "kubevirt_stall"])
def test_the_presets_have_kubevirts_defaults(name: str) -> None:
    migration = composed_config([f"policy={name}"]).migration
    assert migration.manager is not None
    assert (migration.auto_converge, migration.multifd_channels) == (False, 8)
    rule = KubeVirtStall if name == "kubevirt_stall" else KubeVirt
    given = {"downtime_tuning": True} if name == "kubevirt_ramp" else {}
    assert vars(rule(**migration.manager.args)) == vars(rule(**given))
