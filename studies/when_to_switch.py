"""`python -m studies.when_to_switch` runs two sweeps and writes docs/studies/when-to-switch.md's tables.

A sweep computes only what is missing. Overrides after the command apply to both sweeps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gpusim.results.sweeps.runs import Run
from studies.fallback_interval import parser_of, runs_of
from studies.tables import table, with_tables

SMALL, HUGE = "when_to_switch", "when_to_switch_2mib"
STARTS = {
    "never": "never",
    "0s": "at once",
    "1pass": "after one pass",
    "3passes": "after three passes",
    "throttle_50": "at a throttle of 50 %",
}
GUESTS = {"uniform": "even", "hot_cold": "hot and cold"}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is missing of the sweeps and write their tables into the document."""
    options = parser_of(
        "studies.when_to_switch", __doc__, "docs/studies/when-to-switch.md"
    ).parse_args(arguments)
    runs = runs_of((SMALL, HUGE), options.runs, options.overrides)
    text = options.document.read_text()
    options.document.write_text(with_tables(text, tables(runs)))


def tables(runs: Mapping[str, Sequence[Run]]) -> dict[str, list[str]]:
    """Return the lines of each table by its name."""
    return {name: _table(runs[name]) for name in (SMALL, HUGE)}


def _table(runs: Sequence[Run]) -> list[str]:
    """Return one row per guest and switch."""
    found = {(_pattern(run), str(run.config["migration.start_postcopy"])): run for run in runs}
    rows = [
        [guest, start, *_figures(found[pattern, key])]
        for pattern, guest in GUESTS.items()
        for key, start in STARTS.items()
        if (pattern, key) in found
    ]
    head = [
        "guest",
        "switch",
        "switch at (s)",
        "total (s)",
        "discarded runs (million)",
        "blackout (s)",
        "guest CPU lost (vCPU s)",
        "recovered after (s)",
        "mean latency (ms)",
    ]
    return table(head, rows)


def _pattern(run: Run) -> str:
    return str(run.config["workload.pattern"])


def _figures(run: Run) -> list[str]:
    summary = run.summary
    if summary["postcopy_start_s"] is None:
        blackout_s = float(summary["downtime_ms"]) / 1000
        return [
            "-",
            f"{float(summary['total_time_s']):.0f}",
            "-",
            f"{blackout_s:.1f}",
            f"{float(summary['guest_cpu_lost_s']):.0f}",
            "-",
            "-",
        ]
    return [
        f"{float(summary['postcopy_start_s']):.0f}",
        f"{float(summary['total_time_s']):.0f}",
        f"{float(summary['postcopy_discarded_runs']) / 1e6:.1f}",
        f"{float(summary['postcopy_blackout_ms']) / 1000:.1f}",
        f"{float(summary['guest_cpu_lost_s']):.0f}",
        f"{float(summary['postcopy_recovery_s']):.0f}",
        f"{float(summary['postcopy_latency_ms'] or 0):.2f}",
    ]


if __name__ == "__main__":
    main()
