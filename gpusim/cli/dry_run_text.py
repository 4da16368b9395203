"""The plan of a dry run as text: one aligned line per fact."""

from __future__ import annotations

from collections.abc import Mapping

from gpusim.cli.run_text import postcopy_lines
from gpusim.config.backend import Backend
from gpusim.config.costs import zero_costs_text
from gpusim.config.scenario import Scenario
from gpusim.engine.records import EvacuationSummary, Summary
from gpusim.explore.dry_run import EvacuationPlan, RunPlan
from gpusim.layout import CHUNK_PAGES
from gpusim.pages.backends import device_name
from gpusim.results.bottleneck import run_line
from gpusim.results.verdicts import OUTCOMES, outcome_code
from gpusim.sender.link import Link
from gpusim.text import count_noun, text_table
from gpusim.units import NS_PER_S, format_bytes


def plan_text(plan: RunPlan | EvacuationPlan) -> str:
    """Return the lines of a plan."""
    lines = _run_lines(plan) if isinstance(plan, RunPlan) else _evacuation_lines(plan)
    return text_table(list(lines.items()), left_columns=(0, 1))


def _sending_text(link: Link, summary: Summary) -> str:
    """Return what sets the sending rate. If it is the link, return how many threads send."""
    channels = link.multifd.channels if link.multifd else 0
    threads = count_noun(channels, "multifd channel") if channels else "one thread"
    return run_line(vars(summary)) or threads


def _run_lines(plan: RunPlan) -> Mapping[str, str]:
    scenario, estimate = plan.scenario, plan.estimate
    layout, summary = scenario.layout, estimate.summary
    interval_ns = scenario.parameters.fallback_sync_interval_ns
    timer = "no fallback sync"
    if interval_ns is not None:
        timer = f"fallback sync {interval_ns / NS_PER_S:g} s"
    expected = f"{summary.simulated_looks} draws, {summary.total_time_s:.0f} s simulated"
    lines = {
        "vm": f"{format_bytes(scenario.vm_bytes)}, {layout.pages} pages of "
        f"{scenario.page_bytes} bytes in {count_noun(layout.chunks, 'chunk')}",
        "workload": count_noun(len(scenario.writers), "writer"),
        "attempts": "",
        "qemu": f"{scenario.version}, {timer}",
        "policies": scenario.policies,
        "sending": _sending_text(scenario.link, summary),
        "costs": zero_costs_text(scenario.config),
        "backend": _backend_text(plan.backend),
        "bitmaps": f"{format_bytes(scenario.bitmap_bytes)}: {_bitmaps_text(plan)}",
        "page tables": _page_tables_text(scenario),
        "memory free": f"{format_bytes(plan.free_bytes)} ({device_name(plan.backend.name)}), "
        f"enough for a VM of up to {format_bytes(plan.largest_vm_bytes)}",
        "expected": f"{expected}: {_outcome_text(summary)}"
        if estimate.is_complete
        else f"more than {expected}",
        **dict(line.split(": ", 1) for line in postcopy_lines(summary)),
        "wall time": _wall_text(plan),
    }
    if len(scenario.attempts) > 1:
        lines["attempts"] = f"{len(scenario.attempts)}. The lines below describe the last attempt"
    return {name: text for name, text in lines.items() if text}


def _bitmaps_text(plan: RunPlan) -> str:
    scenario = plan.scenario
    kinds = ["dirty"] + ["clear log"] * scenario.tracking.lazy
    kinds += ["zero"] * scenario.has_zero_bitmap
    size = format_bytes(scenario.layout.chunks * CHUNK_PAGES // 8)
    return ", ".join(f"{kind} {size}" for kind in kinds)


def _page_tables_text(scenario: Scenario) -> str:
    """Return what the migration adds to the source host's page tables. Empty: nothing."""
    size = format_bytes(scenario.page_table_bytes)
    if not scenario.page_table_bytes:
        return ""
    if scenario.config.tracking.eager_page_split:
        return f"{size} more on the source host, where KVM splits huge pages"
    return f"up to {size} more on the source host, where first writes split huge pages"


def _wall_text(plan: RunPlan) -> str:
    wall_s, slow_s = plan.estimate.wall_s, plan.estimate.slow_memory_wall_s
    text = f"{'about' if plan.estimate.is_complete else 'more than'} {_two_digits(wall_s)} s"
    text += ", without the picture"
    if slow_s > 1.5 * wall_s:
        text += f". Up to {_two_digits(slow_s)} s if the machine has to find memory first"
    limit_ns = plan.scenario.wall_limit_ns
    if limit_ns is not None and wall_s > limit_ns / NS_PER_S:
        text += f". limit.wall stops it after {limit_ns / NS_PER_S:g} s"
    return text


def _evacuation_lines(plan: EvacuationPlan) -> Mapping[str, str]:
    summary = plan.summary
    left = f", {', '.join(summary.left_behind)} left behind" * bool(summary.left_behind)
    lines = {
        "guests": f"{summary.guests}, {format_bytes(summary.vm_bytes)}, "
        f"{min(summary.at_a_time, summary.guests)} at a time",
        "order": f"{summary.order}: {', '.join(plan.guests)}",
        "policies": plan.scenario.policies,
        "backend": _backend_text(plan.backend),
        "bitmaps": f"{format_bytes(plan.scenario.bitmap_bytes)} at most, for {plan.largest_guest}",
        "memory free": f"{format_bytes(plan.free_bytes)} ({device_name(plan.backend.name)})",
        "sending": run_line(vars(summary)),
        "expected": f"{summary.total_time_s:.0f} s simulated: "
        f"{_outcome_text(summary)}{left}, guest CPU lost "
        f"{summary.guest_cpu_lost_percent:.1f} %, throttle up to {summary.max_throttle_percent} %",
        "wall time": f"about {_two_digits(plan.wall_s)} s for "
        f"{summary.simulated_runs} simulated migrations",
    }
    return {name: text for name, text in lines.items() if text}


def _outcome_text(summary: Summary | EvacuationSummary) -> str:
    code = outcome_code(summary.status, summary.verdict, summary.reason_code)
    return OUTCOMES[code].label


def _backend_text(backend: Backend) -> str:
    return f"{backend.name} ({backend.reason}), {count_noun(backend.threads, 'thread')}"


def _two_digits(seconds: float) -> str:
    """Return two digits, because an estimate is not better than that."""
    return f"{float(f'{seconds:.2g}'):g}"
