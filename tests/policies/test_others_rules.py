"""Do KubeVirt's and Cloud Hypervisor's rules decide as their documents and code do?"""

from __future__ import annotations

from typing import Any

import pytest

from gpusim import simulate
from gpusim.policies import Orders, Shown, Sync
from gpusim.policies.cloud_hypervisor import IterationThrottle, WholeIterations
from gpusim.policies.kubevirt import DowntimeRamp, StallDetector
from tests.policies.test_plug_ins import with_policies
from tests.policies.test_runs import RULES, busy
from tests.qemu.parameters import DEFAULTS

MB = 10**6


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


def test_the_ramp_follows_the_documents_timetable() -> None:
    """VEP 291: 150 ms at once, iteration 3 at about 75 s, 300 ms at 85 s, ... 1050 ms at 135 s."""
    ramp = DowntimeRamp()
    assert ramp.look(shown(0, 1)) == Orders(set={"downtime_limit": 150})
    assert ramp.look(shown(70, 2)) == Orders()
    orders = ramp.look(shown(75, 3))
    assert orders == Orders(again_ns=85_200_000_000)  # found by the poll at 75.2 s
    steps = []
    while orders.again_ns:
        at_s = orders.again_ns / 1e9
        assert ramp.look(shown(at_s - 1, 9)) == Orders(again_ns=orders.again_ns)
        orders = ramp.look(shown(at_s, 9, why="time"))
        steps.append((round(at_s, 1), orders.set["downtime_limit"]))
    assert steps == [(85.2 + 10 * n, 300 + 150 * n) for n in range(6)]
    assert ramp.look(shown(900, 99)) == Orders()


@pytest.mark.parametrize(
    "wrong", [{"steps": 1}, {"initial_ms": 0}, {"initial_ms": 2000}, {"cooldown_s": 0}]
)
def test_a_ramp_names_the_argument_that_is_out_of_range(wrong: dict[str, Any]) -> None:
    ((name, value),) = wrong.items()
    with pytest.raises(ValueError, match=f"{name} = {value}: must be "):
        DowntimeRamp(**wrong)


def poll_all(detector: StallDetector, *iterations: tuple[float, int]) -> list[Orders]:
    return [
        detector.look(shown(at_s, count, megabytes * MB))
        for count, (at_s, megabytes) in enumerate(iterations, start=1)
    ]


def test_progress_is_no_stall() -> None:
    """Each iteration leaves 10 % less, which exceeds the margin of 4 %."""
    falling = [(20.0 * n, round(8000 * 0.9**n)) for n in range(12)]
    assert {orders.do for orders in poll_all(StallDetector(), *falling)} == {None}


def test_a_stall_with_too_much_memory_is_cancelled_at_once() -> None:
    """500 MB take 5 s, and 1.35 s are possible. 41 s after 510 MB, 500 MB are within 4 %."""
    *calm, last = poll_all(StallDetector(), (0, 8000), (80, 510), (100, 900), (121, 500))
    assert {orders.do for orders in calm} == {None}
    assert last.do == "cancel"
    assert "5000 ms" in last.why and "1350 ms" in last.why


def test_it_waits_for_a_local_minimum() -> None:
    """If more than the window's minimum remains, the rule waits until the minimum comes again."""
    *_, high, low = poll_all(StallDetector(), (0, 8000), (80, 100), (121, 150), (125, 103))
    assert high.do is None and not high.set
    assert low.set == {"downtime_limit": 900}
    assert low.again_ns == 185_200_000_000
    at_once = poll_all(StallDetector(search_local_minima=False), (0, 8000), (80, 100), (121, 101))
    assert at_once[-1].set == {"downtime_limit": 900}


def test_a_minimum_that_does_not_come_again_is_given_up() -> None:
    """After 40 s the least since the stall is enough: 120 MB."""
    found = poll_all(
        StallDetector(), (0, 8000), (80, 100), (121, 150), (140, 120), (160, 130), (162, 124)
    )
    assert [bool(orders.set) for orders in found] == [False] * 5 + [True]


def test_it_cancels_if_qemu_does_not_switch_over() -> None:
    detector = StallDetector()
    poll_all(detector, (0, 8000), (80, 100), (121, 100))
    assert detector.look(shown(150, 9)).do is None
    assert detector.look(shown(181.2, 9, why="time")).do == "cancel"


def test_the_completion_timeout_counts_the_vms_memory() -> None:
    """150 s per GiB for 8 GiB."""
    detector = StallDetector()
    assert detector.look(shown(0, 1)).again_ns == 1_200_000_000_000
    assert detector.look(shown(1200, 1, why="time")).do == "cancel"


def test_a_limit_below_qemus_holds_from_the_start() -> None:
    assert StallDetector(max_downtime_ms=200).look(shown(0, 1)).set == {"downtime_limit": 200}


@pytest.mark.parametrize(
    ("rule", "args", "message"),
    [
        (StallDetector, {"completion_s_per_gib": float("inf")}, "completion_s_per_gib = inf"),
        (StallDetector, {"progress_timeout_s": float("nan")}, "progress_timeout_s = nan"),
        (StallDetector, {"max_downtime_ms": 900.5}, "max_downtime_ms = 900.5"),
        (StallDetector, {"possible_factor": -1}, "possible_factor = -1"),
        (DowntimeRamp, {"steps": 10**9}, "steps = 1000000000: must be 2 to 1000"),
        (DowntimeRamp, {"initial_ms": 2000}, "initial_ms = 2000: must be 1 to ceiling_ms"),
        (DowntimeRamp, {"ceiling_ms": 3_000_000}, "ceiling_ms = 3000000: must be at most 2000000"),
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
