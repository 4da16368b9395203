"""The lines that the command `gpusim` prints about a run, before it starts and after it has ended."""

from __future__ import annotations

from collections.abc import Iterator

from gpusim.config.costs import zero_costs_text
from gpusim.config.scenario import Scenario
from gpusim.engine.records import EvacuationSummary, Result, Summary
from gpusim.results.bottleneck import run_line
from gpusim.results.summary_fields import SUMMARY_FIELDS
from gpusim.results.turning_points import has_recovered
from gpusim.results.verdicts import OUTCOMES, outcome_code
from gpusim.units import format_bytes


def start_lines(scenario: Scenario) -> Iterator[str]:
    """Yield what makes a run long, and which costs it leaves out, before it starts."""
    if text := zero_costs_text(scenario.config):
        yield f"costs: {text}"
    limit = scenario.config.limit
    if scenario.manager is not None and limit.stop_when_stuck and not limit.skip_waiting:
        yield (
            "if the migration stalls, then the wait for the manager is simulated, which may take "
            "minutes. To skip it, add limit.skip_waiting=true"
        )


def attempt_lines(scenario: Scenario, result: Result) -> Iterator[str]:
    """Yield how each attempt before the last ended."""
    count = len(scenario.attempts)
    for number, attempt in enumerate(result.before, start=1):
        yield f"attempt {number} of {count}: {attempt.result.summary.reason}"
    if count > 1:
        yield f"the results are those of attempt {result.summary.attempt} of {count}"


def outcome_lines(summary: Summary | EvacuationSummary) -> Iterator[str]:
    """Yield the verdict, the bottleneck, the reason and the main numbers."""
    code = outcome_code(summary.status, summary.verdict, summary.reason_code)
    yield f"verdict: {OUTCOMES[code].label}"
    if line := run_line(vars(summary)):
        yield line
    yield summary.reason
    if isinstance(summary, Summary):
        yield _migration_numbers(summary)
        yield from postcopy_lines(summary)
    else:
        yield _evacuation_numbers(summary)


def postcopy_lines(summary: Summary) -> Iterator[str]:
    """Yield the switch to post-copy and what it cost the guest, if there was one."""
    if summary.postcopy_start_s is None:
        return

    def text(key: str) -> str:
        return SUMMARY_FIELDS[key].format(getattr(summary, key))

    yield (
        f"switch: after {text('postcopy_start_s')}, the guest stood still for "
        f"{text('postcopy_blackout_ms')}, {text('postcopy_bytes')} were missing at the target"
    )
    recovered = "never slowed"
    if not has_recovered(summary):
        recovered = "not recovered"
    elif summary.postcopy_recovery_s:
        recovered = f"recovered in {text('postcopy_recovery_s')}"
    waits = "no request"
    if summary.postcopy_requests:
        count = summary.postcopy_requests
        requests = "1 request" if count == 1 else f"{count:,} requests"
        waits = f"{requests} of {text('postcopy_latency_ms')} on average"
    yield (
        f"guest at the target: {recovered}, lost {text('postcopy_stall_vcpu_s')}, {waits}, all vCPUs "
        f"blocked for {text('postcopy_blocktime_ms')}"
    )


def _migration_numbers(summary: Summary) -> str:
    downtime = "" if summary.downtime_ms is None else f", downtime {summary.downtime_ms:.0f} ms"
    reported = ""
    if summary.dirty_sync_count != summary.bitmap_sync_count:
        reported = f", QEMU reports {summary.dirty_sync_count}"
    skipped = ""
    if summary.skipped_s:
        skipped = f" (apart from {summary.skipped_s:.1f} s that were not simulated)"
    return (
        f"{summary.total_time_s:.1f} s{downtime}, {summary.bitmap_sync_count} syncs "
        f"({summary.fallback_sync_count} fallback{reported}), throttle up to "
        f"{summary.max_throttle_percent} %, {format_bytes(summary.transferred_bytes)} sent, "
        f"guest CPU lost {summary.guest_cpu_lost_percent:.1f} %{skipped}, "
        f"computed in {summary.wall_time_s:.1f} s"
    )


def _evacuation_numbers(summary: EvacuationSummary) -> str:
    return (
        f"guest CPU lost {summary.guest_cpu_lost_s:.0f} vCPU s, throttle up to "
        f"{summary.max_throttle_percent} %, {format_bytes(summary.transferred_bytes)} sent, "
        f"{summary.simulated_runs} migrations simulated in {summary.wall_time_s:.1f} s"
    )
