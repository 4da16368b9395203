"""report.html: the page of one run, which needs no other file and no network.

The page explains the run to a reader who does not know QEMU. This module prepares the values of the
template. narrative.py writes the sentences about the run.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpusim.config.plugins import KINDS
from gpusim.engine.records import Alternative, Result, Summary
from gpusim.explore.changes import DOWNTIME_FACTORS, LINK_FACTORS, LONGEST_DOWNTIME_MS
from gpusim.files import write_text
from gpusim.policies.names import decider_name
from gpusim.results.bottleneck import run_line
from gpusim.results.html.render import render
from gpusim.results.narrative import facts, narrate
from gpusim.results.settings import Settings, final_setting, flat_settings
from gpusim.results.summary_fields import POSTCOPY_KEYS, REPORT_KEYS, SUMMARY_FIELDS
from gpusim.results.verdicts import describe_outcome
from gpusim.text import (
    capitalized,
    count_noun,
    format_duration,
    format_number,
    join_words,
    shorten,
)
from gpusim.units import format_bytes

SIBLINGS = {
    "summary.json": "the results in numbers",
    "config.json": "the configuration of the run",
    "syncs.csv": "one row per dirty bitmap sync",
    "events.jsonl": "every decision, under the name of QEMU's trace event",
    "timeline.csv": "the state over time",
    "timeline.npz": "the state over time, for NumPy",
    "postcopy.csv": "one row per step after a switch to post-copy",
    "postcopy-latency.csv": "requests after the switch by their latency, in QEMU's buckets",
    "plot.png": "the picture of the run",
    "prediction.json": "the prediction in numbers",
    "prediction.png": "the picture of the prediction",
    "experiment/fitted.yaml": "this run as an experiment, for gpusim --config-dir",
    "trace.json.gz": "the run as a trace, for ui.perfetto.dev",
    "guestperf.json": "the run in the format of QEMU's guestperf-plot",
    "gpusim.log": "the log",
}
POLICIES = tuple(f"migration.{name}" for name in KINDS)
MAIN_SETTINGS = (
    "vm.memory",
    "vm.vcpus",
    "workload.pattern",
    "workload.working_set",
    "workload.working_set_percent",
    "workload.page_writes_per_s",
    "workload.writers",
    "link.bandwidth",
    "migration.version",
    "migration.auto_converge",
    "migration.max_bandwidth",
    "migration.downtime_limit",
    "migration.max_cpu_throttle",
    "migration.fallback_sync_interval",
    *POLICIES,
    "tracking.mode",
)
POSTCOPY_SETTINGS = (
    "migration.start_postcopy",
    "migration.postcopy_preempt",
    "migration.max_postcopy_bandwidth",
)
CHANGE_FIGURES = (
    "total_time_s",
    "downtime_ms",
    "max_throttle_percent",
    "guest_cpu_lost_percent",
)
MEANINGS = {  # of a change to a key
    "migration.auto_converge": "QEMU may throttle the guest",
    "migration.version": "a QEMU version with the fallback timer",
    "migration.fallback_sync_interval": "the fallback timer is on",
    "migration.max_cpu_throttle": "a higher maximum throttle",
    "link.bandwidth": "a faster link",
    "migration.max_bandwidth": "QEMU may use more of the link",
    "migration.downtime_limit": "a longer downtime is allowed, in ms",
    "migration.start_postcopy": "QEMU switches to post-copy when all of RAM has been sent once",
    **dict.fromkeys(POLICIES, "QEMU's own rule"),
    "migration.manager": "without the manager",
}
LONGEST_VALUE = 120  # characters of a setting. A recorded bandwidth has thousands.
PICTURE = (
    "Three panels over time. The first shows the memory left to send, with passes shaded and syncs "
    "as ticks. The second shows the throttle and the speed of the guest. The third compares the "
    "bytes dirtied per second with the bytes sent per second."
)
POSTCOPY_PICTURE = (
    " Two more panels show the time after the switch to post-copy: the speed of the guest with the "
    "memory that is missing, and how long requests took."
)
CAPTION = (
    "Every other pass is shaded. QEMU throttles the guest if the guest dirties memory too fast for the "
    "amount that is sent."
)
POSTCOPY_CAPTION = (
    " After the switch to post-copy the background is green, and the guest runs at the target."
)


@dataclass(frozen=True, kw_only=True)
class Introduction:
    """The first part of the page of a run that represents many runs.

    Attributes:
        title, subtitle: the heading of the page and the line under it, as text.
        html: rendered HTML sections.
    """

    title: str
    subtitle: str
    html: str


def write_report(
    result: Result,
    config: Settings | None,
    alternatives: Sequence[Alternative] | None,
    folder: Path,
    name: str,
    introduction: Introduction | None = None,
    narrow: bytes | None = None,
) -> None:
    """Write the page of a run after all other files of the run except summary.json.

    Args:
        result: the migration.
        config: the config of the run. If None, then the page does not show it.
        alternatives: changes that were simulated for a run that did not converge, or None.
        folder: the folder of the run. Its plot.png becomes part of the page.
        name: the file name of the page.
        introduction: shown before the run itself.
        narrow: the same picture for narrow pages, as a PNG.

    Raises:
        OSError: if the picture cannot be read or the page cannot be written.
    """
    picture = (folder / "plot.png").read_bytes()
    last = "summary.json"  # it is written after the page
    siblings = [name for name in SIBLINGS if name == last or (folder / name).is_file()]
    page = report_page(result, config, alternatives, picture, siblings, introduction, narrow)
    write_text(folder / name, page)


def report_page(
    result: Result,
    config: Settings | None,
    alternatives: Sequence[Alternative] | None,
    picture: bytes,
    siblings: Iterable[str],
    introduction: Introduction | None = None,
    narrow: bytes | None = None,
) -> str:
    """Return the page as HTML. See `write_report` for the arguments."""
    summary = result.summary
    converged = summary.verdict == "converged"
    ended = describe_outcome(
        summary.status, summary.verdict, summary.total_time_s, summary.reason_code
    )
    switched = summary.postcopy_start_s is not None
    main_keys = (*MAIN_SETTINGS, *POSTCOPY_SETTINGS) if switched else MAIN_SETTINGS
    outcome = capitalized(ended)
    vm = f"{format_bytes(summary.vm_bytes)} VM, {decider_name(summary.qemu_version, summary.policies)}"
    subtitle = f"{vm}: a live migration, simulated by gpusim {summary.gpusim_version}."
    heading = introduction.title if introduction else outcome
    by_outcome: dict[str, list[dict[str, Any]]] = {
        name: [_change(one) for one in alternatives or () if one.outcome == name and not converged]
        for name in ("converges", "does_not", "not_tried")
    }
    settings = {
        k: _setting_text(v) for k, v in flat_settings(config or {}) if v not in (None, "{}")
    }
    return render(
        "report.html",
        title=f"{heading} \u00b7 {vm} \u00b7 gpusim",
        header_class="converged" if converged else "",
        heading=heading,
        subtitle=introduction.subtitle if introduction else subtitle,
        bottleneck="" if introduction else run_line(vars(summary)),
        introduction=introduction.html if introduction else "",
        key_figures=_key_figures(result, config),
        picture=picture,
        narrow=narrow,
        picture_text=f"{PICTURE}{POSTCOPY_PICTURE if switched else ''} {outcome}: {', '.join(facts(summary))}.",
        caption=f"{CAPTION}{POSTCOPY_CAPTION if switched else ''} Full size:",
        narrative=narrate(result, config),
        alternatives=None if converged else alternatives,
        change_labels=[SUMMARY_FIELDS[key].label for key in CHANGE_FIGURES],
        link_factors=join_words([f"{factor:g}" for factor in LINK_FACTORS], "or"),
        downtime_factor=DOWNTIME_FACTORS[-1],
        longest_downtime=format_duration(LONGEST_DOWNTIME_MS / 1e3),
        helpful=by_outcome["converges"],
        insufficient=by_outcome["does_not"],
        untried=by_outcome["not_tried"],
        main_settings=[
            (key, value)
            for main in main_keys
            for key, value in settings.items()
            if key == main or key.startswith(f"{main}.")
        ],
        settings=list(settings.items()),
        files=[(name, SIBLINGS[name]) for name in siblings],
    )


def _change(one: Alternative) -> dict[str, Any]:
    cells = [SUMMARY_FIELDS[key].format(getattr(one, key)) for key in CHANGE_FIGURES]
    return {
        "key": one.key,
        "value": one.value,
        "also": one.also,
        "meaning": MEANINGS.get(one.key),
        "smallest": one.smallest,
        "cells": cells,
    }


def _key_figures(result: Result, config: Settings | None) -> list[tuple[str, str]]:
    """Return label and text of the most important numbers, with a detail behind some of them."""
    summary = result.summary
    limit_ms = final_setting(result.events, config, "downtime_limit")
    passes = count_noun(len(result.pass_ends_s) + 1, "pass", "passes")
    times_vm = format_number(summary.transferred_bytes / summary.vm_bytes)
    details = {
        "downtime_ms": "" if limit_ms is None else f" (limit {limit_ms} ms)",
        "bitmap_sync_count": f", {summary.fallback_sync_count or 'none'} by the fallback timer",
        "first_pass_s": f" ({passes} in total)",
        "write_faults": f", which took {_text(summary, 'guest_fault_s')}",
        "main_loop_stall_s": f" (longest stall {_text(summary, 'longest_main_loop_stall_ms')})",
        "transferred_bytes": f", {times_vm} times the VM memory",
    }
    if summary.max_throttle_percent:
        at_maximum = _text(summary, "time_at_max_throttle_s")
        details["max_throttle_percent"] = f", for {at_maximum}"
    return [
        (SUMMARY_FIELDS[key].label, _text(summary, key) + details.get(key, ""))
        for key in REPORT_KEYS
        if getattr(summary, key) or key not in ("paused_s", "skipped_s", "sending_gbit_per_s")
        if getattr(summary, key) is not None or key not in POSTCOPY_KEYS
    ]


def _text(summary: Summary, key: str) -> str:
    return SUMMARY_FIELDS[key].format(getattr(summary, key))


def _setting_text(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return shorten(text, LONGEST_VALUE)
