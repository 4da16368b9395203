"""The lines that the command `gpusim` prints about a run, before it starts and after it has ended."""

from __future__ import annotations

from collections.abc import Iterator

from gpusim.config.costs import zero_costs_text
from gpusim.config.scenario import Scenario
from gpusim.engine.records import EvacuationSummary, Result, Summary
from gpusim.results.bottleneck import run_line
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
    yield f"verdict: {OUTCOMES[outcome_code(summary.status, summary.verdict)].label}"
    if line := run_line(vars(summary)):
        yield line
    yield summary.reason
    if isinstance(summary, Summary):
        yield _migration_numbers(summary)
    else:
        yield _evacuation_numbers(summary)


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
