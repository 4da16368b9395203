"""Post-copy against closed forms, a naive model of single pages, and conservation."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpusim.config.backend import EXPECTED, choose_backend
from gpusim.config.compose import composed_config
from gpusim.config.scenario import resolve
from gpusim.engine.attempts import simulate
from gpusim.engine.migration import Migration
from gpusim.engine.postcopy_tally import BUCKETS, bucket_shares
from gpusim.engine.records import Result
from gpusim.errors import ConfigError
from tests.engine.naive_postcopy import send_naively

SMALL = (
    "vm.memory=64MiB",
    "vm.vcpus=4",
    "migration=qemu_10_2",
    "migration.postcopy_ram=true",
    "migration.start_postcopy=0s",
    "backend.name=numpy",
    "link.bandwidth=100Mbit/s",
)
BUSY = ("workload=uniform", "workload.working_set_percent=100", "workload.page_writes_per_s=2000")
PAGES = 2**14


def run(*overrides: str) -> Result:
    writes = () if any(one.startswith("workload=") for one in overrides) else BUSY
    return simulate(composed_config([*SMALL, *writes, *overrides]))


def states(result: Result) -> list[str]:
    return [e.arguments["new_state"] for e in result.events if e.event == "migrate_set_state"]


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("qemu_10_1", ["setup", "active", "device", "postcopy-active", "completed"]),
        (
            "qemu_10_2",
            ["setup", "active", "device", "postcopy-device", "postcopy-active", "completed"],
        ),
    ],
)
def test_the_states_are_those_of_the_version(version: str, expected: list[str]) -> None:
    result = run(f"migration={version}")
    assert states(result) == expected
    assert (result.summary.verdict, result.summary.reason_code) == ("converged", "postcopy")


def test_an_idle_guest_takes_what_is_missing_over_the_rate() -> None:
    result = run("workload=idle", "link.page_cost_ns=0")
    summary = result.summary
    assert summary.postcopy_bytes is not None
    sent = summary.postcopy_bytes / 4096 * 4104
    assert summary.postcopy_time_s == pytest.approx(sent / (100e6 / 8), rel=1e-4)
    assert summary.postcopy_requests == 0
    assert summary.guest_cpu_lost_s == 0


@pytest.mark.parametrize("limit", ["0", "2MiB/s"])
def test_the_switch_comes_at_the_next_turn_with_a_rate_limit_too(limit: str) -> None:
    """With a limit the thread sleeps behind each burst, and sees the flag when it wakes."""
    summary = run("migration.start_postcopy=1.03s", f"migration.max_bandwidth={limit}").summary
    assert summary.postcopy_start_s == pytest.approx(1.03 + 0.05, abs=0.0501)


def test_a_turn_with_an_exact_sync_switches_too() -> None:
    """QEMU 11.1 syncs on every turn if post-copy is permitted."""
    summary = run("migration=qemu_11_1", "migration.start_postcopy=1s").summary
    assert summary.postcopy_start_s == pytest.approx(1.05, abs=0.06)


@pytest.mark.parametrize(
    ("version", "code"), [("qemu_9_2", "converged"), ("qemu_10_1", "postcopy")]
)
def test_a_turn_that_may_complete_prefers_post_copy_since_10_1(version: str, code: str) -> None:
    """The order comes between the second turn and the first one that knows a threshold."""
    limit = ("migration.downtime_limit=100000", "migration.start_postcopy=100ms")
    result = run(f"migration={version}", *limit)
    assert result.summary.reason_code == code
    assert ("migration_thread_low_pending" in {e.event for e in result.events}) is (
        code == "converged"
    )


def test_requests_may_cost_nothing() -> None:
    nothing = ["postcopy.fault_us=0", "postcopy.request_us=0", "postcopy.socket_buffers=0"]
    summary = run(*nothing, "link.bandwidth=unlimited", "link.page_cost_ns=0").summary
    assert (summary.reason_code, summary.remaining_bytes) == ("postcopy", 0)


def test_a_lower_limit_makes_it_longer_in_proportion() -> None:
    slow = run("workload=idle", "migration.max_postcopy_bandwidth=1250000")
    fast = run("workload=idle")
    assert slow.summary.postcopy_time_s == pytest.approx(
        10 * (fast.summary.postcopy_time_s or 0), rel=1e-3
    )


@pytest.mark.parametrize(
    ("start", "event"),
    [("300ms", 0.3), ("1pass", None), ("5s_per_gib", 0.3125), ("throttle_20", None)],
)
def test_the_switch_comes_when_it_was_asked_for(start: str, event: float | None) -> None:
    result = run(
        f"migration.start_postcopy={start}",
        "workload.page_writes_per_s=1e6",
        "migration.downtime_limit=1",
    )
    order = next(e for e in result.events if e.event == "qmp_enter_migrate_start_postcopy")
    begun = next(e for e in result.events if e.event == "postcopy_start")
    assert 0 <= begun.time_s - order.time_s <= 0.11
    if event is not None:
        assert order.time_s == pytest.approx(event)
    elif start == "1pass":
        counted = [s.time_s + s.duration_ms / 1000 for s in result.syncs if s.kind != "setup"]
        assert order.time_s == pytest.approx(counted[0])
    else:
        assert result.summary.max_throttle_percent == 20


def test_a_schedule_starts_it() -> None:
    result = run("migration.start_postcopy=never", "schedule=[{at: 400ms, do: start-postcopy}]")
    assert result.summary.postcopy_start_s == pytest.approx(0.4, abs=0.11)
    assert not result.actions_not_done


@pytest.mark.parametrize(
    ("overrides", "key", "code"),
    [
        (("migration.postcopy_ram=false",), "migration.start_postcopy", "contradiction"),
        (("migration.start_postcopy=soon",), "migration.start_postcopy", "wrong_format"),
        (("migration.start_postcopy=0passes",), "migration.start_postcopy", "out_of_range"),
        (("migration.start_postcopy=throttle_100",), "migration.start_postcopy", "out_of_range"),
        (("migration.start_postcopy=1e9",), "migration.start_postcopy", "out_of_range"),
        (("vm.vfio_devices=1",), "migration.postcopy_ram", "contradiction"),
        (
            (
                "migration.postcopy_ram=false",
                "migration.start_postcopy=never",
                "schedule=[{at: 1s, do: start-postcopy}]",
            ),
            "migration.postcopy_ram",
            "contradiction",
        ),
        (
            ("migration=qemu_2_6", "migration.postcopy_preempt=true", "tracking=tcg"),
            "migration.postcopy_preempt",
            "not_supported",
        ),
        (("workload.read_working_set=1MiB",), "workload.read_working_set", "missing"),
        (
            ("workload.reads_per_s=9", "workload.read_working_set=1GiB"),
            "workload.read_working_set",
            "does_not_fit_vm",
        ),
        (("postcopy.fault_us=-1",), "postcopy.fault_us", "out_of_range"),
        (("postcopy.threads=0",), "postcopy.threads", "out_of_range"),
    ],
)
def test_what_cannot_be_is_refused(overrides: tuple[str, ...], key: str, code: str) -> None:
    with pytest.raises(ConfigError) as caught:
        run(*overrides)
    assert (caught.value.key, caught.value.code) == (key, code)


@pytest.mark.parametrize("start", ["throttle_120", "0passes"])
def test_a_refused_start_is_shown_as_it_was_typed(start: str) -> None:
    with pytest.raises(ConfigError) as caught:
        run(f"migration.start_postcopy={start}")
    assert caught.value.value == start


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_every_page_arrives_once(data: st.DataObject) -> None:
    draw = data.draw
    overrides = [
        f"workload={draw(st.sampled_from(['uniform', 'zipf', 'hot_cold', 'sequential', 'idle']))}",
        f"seed={draw(st.integers(0, 99))}",
        f"vm.memory={draw(st.sampled_from(['3MiB', '64MiB', '1030MiB']))}",
        f"vm.zero_percent={draw(st.sampled_from([0, 30, 100]))}",
        f"link.bandwidth={draw(st.sampled_from(['100Mbit/s', '10Gbit/s', 'unlimited']))}",
        f"migration.start_postcopy={draw(st.sampled_from(['0s', '300ms', '1pass']))}",
        f"migration.postcopy_preempt={draw(st.booleans())}",
        f"migration={draw(st.sampled_from(['qemu_7_2', 'qemu_8_2', 'qemu_10_1', 'qemu_11_1']))}",
    ]
    if "workload=idle" not in overrides:
        percent = draw(st.sampled_from([1, 50, 70]))
        if "vm.zero_percent=100" in overrides:
            overrides[3] = "vm.zero_percent=0"
        overrides += [
            f"workload.working_set_percent={percent}",
            f"workload.page_writes_per_s={draw(st.sampled_from([100, 1e5]))}",
        ]
    if "vm.memory=1030MiB" not in overrides:
        overrides.append(f"vm.backing={draw(st.sampled_from(['4k', 'thp']))}")
    result = simulate(composed_config([*SMALL, *overrides]))  # the audit counts the pages
    summary = result.summary
    assert summary.verdict == "converged"
    if summary.reason_code != "postcopy":
        return  # it converged before
    assert summary.remaining_bytes == 0
    requests = summary.postcopy_requests or 0
    assert requests <= (summary.postcopy_bytes or 0) // 4096
    assert sum(result.postcopy_latency_counts) == requests
    assert (summary.postcopy_stall_vcpu_s or 0) <= 4 * (summary.postcopy_time_s or 0) * (1 + 1e-9)
    left = [sample.missing_bytes for sample in result.postcopy]
    assert left == sorted(left, reverse=True)


@pytest.mark.parametrize(
    ("version", "preempt", "jumps"), [("qemu_8_2", True, False), ("qemu_10_2", False, True)]
)
def test_requests_are_those_of_single_pages(version: str, preempt: bool, jumps: bool) -> None:
    """The link is slow and the buffers are empty, so the naive model's latency is a constant."""
    result = run(
        f"migration={version}",
        f"migration.postcopy_preempt={str(preempt).lower()}",
        "postcopy.fault_us=5000",
        "postcopy.request_us=0",
        "postcopy.resume_ms=0",
        "link.non_ram_downtime_ms=0",
        "postcopy.socket_buffers=0",
        "postcopy.threads=4",
        "link.page_cost_ns=0",
        "workload.working_set_percent=50",
        "workload.page_writes_per_s=400",
    )
    page_s = 4104 * 8 / 100e6
    missing = np.zeros(PAGES, np.bool_)
    number = (result.summary.postcopy_bytes or 0) // 4096
    missing[PAGES - number :] = True  # the first pass had sent the first pages
    found = [
        send_naively(
            missing,
            touched=np.arange(PAGES // 2),
            touches_per_s=200,
            threads=4,
            page_s=page_s,
            latency_s=0.005 + (2 if preempt else 1.5) * page_s,
            jumps=jumps,
            seed=seed,
        )
        for seed in range(8)
    ]
    assert all((one.arrivals <= 1).all() and one.arrivals.sum() == number for one in found)
    requests = np.mean([one.requests for one in found])
    assert result.summary.postcopy_requests == pytest.approx(requests, rel=0.05)
    total_s = np.mean([one.total_s for one in found])
    assert result.summary.postcopy_time_s == pytest.approx(total_s, rel=0.01)


@pytest.mark.parametrize(
    "keys",
    [
        ("workload=uniform",),
        ("workload=zipf",),
        ("vm.blocks=[1500MiB,548MiB]", "vm.zero_percent=40"),
        ("workload.granule=2MiB",),
        ("vm.backing=hugetlb_2m",),
    ],
)
def test_a_dry_run_expects_the_same_switch(keys: tuple[str, ...]) -> None:
    big = ("vm.memory=2GiB", "link.bandwidth=1Gbit/s", "migration.start_postcopy=3s")
    scenario = resolve(composed_config([*SMALL, "workload=hot_cold", *big, *keys]))
    summaries = []
    for backend in (EXPECTED, choose_backend(scenario)):
        with closing(Migration(scenario, backend)) as migration:
            summaries.append(vars(migration.run().summary))
    dry, drawn = summaries
    for key in ("postcopy_bytes", "postcopy_discarded_runs", "postcopy_requests", "total_time_s"):
        assert dry[key] == pytest.approx(drawn[key], rel=0.05, abs=20), key


def test_a_page_with_its_own_channel_waits_for_no_buffer() -> None:
    fast, slow = (
        run(f"migration.postcopy_preempt={preempt}").summary.postcopy_latency_ms or 0
        for preempt in ("true", "false")
    )
    buffers_ms = 10 * 2**20 / (100e6 / 8) * 1e3
    assert slow - fast == pytest.approx(buffers_ms, rel=0.01)


def test_whole_host_pages_are_sent() -> None:
    """Half of the pages are dirty one by one, so nearly all of RAM is sent."""
    result = run(
        "vm.memory=256MiB",
        "vm.backing=hugetlb_2m",
        "migration.start_postcopy=1pass",
        "workload.page_writes_per_s=300",
        "migration.downtime_limit=1",
    )
    summary = result.summary
    assert (summary.postcopy_bytes or 0) % 2**21 == 0
    assert (summary.postcopy_added_pages or 0) > 0


@pytest.mark.parametrize(("mean_us", "spread"), [(170, 0.5), (170, 0.0), (1, 0.5), (1e9, 1.0)])
def test_latencies_fall_into_buckets_of_powers_of_two(mean_us: float, spread: float) -> None:
    shares = bucket_shares(mean_us * 1000, spread)
    assert len(shares) == BUCKETS
    assert shares.sum() == pytest.approx(1)
    if not spread:
        assert shares[7] == 1  # 128 to 256 us


def test_a_lost_link_stops_the_guest_until_somebody_recovers_it() -> None:
    lost, whole = (
        run(
            "workload.page_writes_per_s=20000",
            f"schedule=[{{at: 2s, do: lose-link}}, {{at: {at}, do: recover}}]",
        )
        for at in ("30s", "2.000001s")
    )
    assert states(lost)[-5:] == [
        "postcopy-active",
        "postcopy-paused",
        "postcopy-recover",
        "postcopy-active",
        "completed",
    ]
    longer_s = (lost.summary.total_time_s or 0) - (whole.summary.total_time_s or 0)
    assert longer_s == pytest.approx(28, abs=0.1)
    assert (lost.summary.postcopy_stall_vcpu_s or 0) > 4 * 25
    assert sum(lost.postcopy_latency_counts[-2:]) == 4  # each vCPU waits for one page


def test_a_lost_link_that_nobody_recovers_ends_at_the_limit() -> None:
    result = run("workload.page_writes_per_s=20000", "schedule=[{at: 2s, do: lose-link}]")
    assert result.summary.reason_code == "postcopy_paused"
    assert result.summary.verdict == "time_limit"
    assert len(result.postcopy) < 2000


def test_a_guest_that_misses_no_page_goes_on_without_a_link() -> None:
    """Its pages have arrived before. The time without a link takes few steps, however long it is."""
    result = run(
        "workload.working_set_percent=1",
        "workload.start=0",
        "migration.start_postcopy=300ms",
        "schedule=[{at: 2s, do: lose-link}]",
        "limit.simulated=1e8s",
    )
    assert result.summary.reason_code == "postcopy_paused"
    assert len(result.postcopy) < 1000
    assert result.summary.postcopy_recovery_s == 0


@pytest.mark.parametrize(
    ("action", "state"), [("lose-link", "postcopy-paused"), ("resume", ""), ("cancel", "")]
)
def test_an_action_during_the_switch_waits_until_it_is_over(action: str, state: str) -> None:
    result = run(
        "migration=qemu_10_1",
        "link.non_ram_downtime_ms=1000",
        f"schedule=[{{at: 500ms, do: {action}}}, {{at: 3s, do: recover}}]",
    )
    begun = states(result).index("postcopy-active")
    assert (state in states(result)[begun:]) is bool(state)
    assert (result.summary.verdict, result.summary.reason_code) == ("converged", "postcopy")
    assert "vm_state_notify" not in {event.event for event in result.events}
    assert result.summary.postcopy_blackout_ms == pytest.approx(1000 + 420, abs=30)


def test_a_slower_pace_takes_longer_steps() -> None:
    result = run(
        "schedule=[{at: 1s, set: {max_postcopy_bandwidth: 1Mbit/s}}]", "limit.simulated=1h"
    )
    assert result.summary.reason_code == "postcopy"
    assert len(result.postcopy) < 1000


def test_a_link_that_is_lost_before_the_switch_fails_the_migration() -> None:
    result = run("migration.start_postcopy=60s", "schedule=[{at: 1s, do: lose-link}]")
    assert states(result)[-1] == "failed"
    assert (result.summary.verdict, result.summary.reason_code) == ("cancelled", "link_lost")


def test_nobody_cancels_after_the_switch() -> None:
    result = run("schedule=[{at: 2s, do: cancel}, {at: 2s, do: resume}, {at: 2s, do: pause}]")
    assert (result.summary.verdict, result.summary.reason_code) == ("converged", "postcopy")


def test_the_same_command_gives_the_same_numbers() -> None:
    first, second = (vars(run("seed=3").summary) for _ in range(2))
    changing: dict[str, Any] = dict.fromkeys(("wall_time_s", "process_peak_rss_bytes"))
    assert {**first, **changing} == {**second, **changing}


@pytest.mark.parametrize("order_s", [0.201, 0.55, 2.3])
def test_the_switch_waits_for_the_end_of_a_rate_limited_window(order_s: float) -> None:
    """Recorded: orders at 0.201, 5.02 and 25.1 s stopped the VM at the next 100 ms, by the budget."""
    result = run(
        "migration.max_bandwidth=1MiB/s",
        f"migration.start_postcopy={order_s}s",
        "link.wakeup_latency_us=0",
        *BUSY,
    )
    stop_s = result.summary.postcopy_start_s or 0
    assert order_s <= stop_s <= order_s + 0.1
    assert stop_s == pytest.approx(round(stop_s, 1), abs=0.01)


def test_some_requests_wait_behind_zero_pages() -> None:
    """The buffers are 212 992 bytes of the socket and 32 768 of the stream, half full, at 9 bytes a page."""
    keys = (
        *BUSY,
        "link.bandwidth=unlimited",
        "link.page_cost_ns=15000",
        "vm.zero_percent=0",
        "vm.zero_ranges=[[32MiB,64MiB]]",
        "workload.working_set_percent=50",
        "postcopy.resume_ms=0",
        "link.non_ram_downtime_ms=0",
        "workload.page_writes_per_s=2e4",
    )
    usual, slow = (run(*keys, f"postcopy.waits_behind_zeros={count}") for count in (0, 10))
    zero_ms = (45_000 + 1.5 * 15_000 + (212_992 + 32_768) / 2 / 9 * 246) / 1e6
    before, after = usual.summary, slow.summary
    assert before.postcopy_requests == after.postcopy_requests
    requests = before.postcopy_requests or 0
    assert requests > 10
    mean_ms = before.postcopy_latency_ms or 0
    share = 10 / requests
    assert after.postcopy_latency_ms == pytest.approx(
        mean_ms + share * (zero_ms - mean_ms), rel=0.02
    )
    assert sum(slow.postcopy_latency_counts) == requests
