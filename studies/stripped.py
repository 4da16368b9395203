"""What a replay loses without the guest's counter: the tables of docs/validation/unknown-guests.md.

It replays each shipped recording from the counter, from the syncs of QEMU's trace, and from
query-migrate's samples alone.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gpusim.formats.quantities import recorded_quantities
from gpusim.formats.recording_file import find_recordings, load_recording, read_document
from gpusim.reading import read_bytes
from gpusim.validation.accuracy import Case, error_percent, replay_figures
from gpusim.validation.runs import make_runs, plan_runs
from gpusim.validation.shipped import SHIPPED
from studies.tables import table

SOURCES = ("counter", "trace", "samples")


def stripped(document: dict[str, Any], *, trace: bool) -> dict[str, Any]:
    """Return a recording without guest and counter, and without QEMU's trace unless `trace` is set."""
    scenario = {key: held for key, held in document["scenario"].items() if key != "guest"}
    samples = [
        {key: held for key, held in row.items() if key != "writes"} for row in document["samples"]
    ]
    kept = {key: document[key] for key in ("qemu", "parameters")}
    events = document["events"] if trace else []
    return kept | {"scenario": scenario, "samples": samples, "events": events}


def replayed(paths: Sequence[Path] = ()) -> dict[str, list[Case]]:
    """Return each source with all recordings, replayed from that source."""
    cases: dict[str, list[Case]] = {source: [] for source in SOURCES}
    for path in paths or find_recordings(SHIPPED):
        whole = load_recording(path)
        document = json.loads(read_bytes(path))
        for source in SOURCES:
            recording = whole
            if source != "counter":
                recording = read_document(stripped(document, trace=source == "trace"), whole.case)
            cases[source].append(Case(recording=recording, measured=recorded_quantities(whole)))
    for found in cases.values():
        make_runs(found, plan_runs(found, ["replay"], seeds=1))
    return cases


def summary_rows(cases: dict[str, list[Case]]) -> list[str]:
    """Return a table with one row per source: the figures over all recordings."""
    rows = []
    for source, found in cases.items():
        figures = replay_figures(found)
        apart = [
            abs(c.runs["replay"][0].dirty_sync_count - c.measured.dirty_sync_count) for c in found
        ]
        median, most = (
            figures[f"{name}_abs_total_time_error_percent"] for name in ("median", "p90")
        )
        rows.append(
            [
                source,
                _percent(median),
                _percent(most),
                f"{100 * figures['max_throttle_equal_share']:.0f} %",
                f"{sum(apart) / len(apart):.1f}",
                f"{figures['completed_simulated_to']} of {figures['completed']}",
                f"{figures['not_converged_simulated_not_to']} of {figures['not_converged']}",
            ]
        )
    errors = ["total time: median error", "nine in ten within", "highest throttle equal"]
    counts = ["syncs: mean difference", "completed, simulated to", "did not, simulated not to"]
    return table(["replayed from", *errors, *counts], rows)


def case_rows(cases: dict[str, list[Case]]) -> list[str]:
    """Return a table with one row per recording: error, syncs and throttle by each source."""
    rows = []
    for same in zip(*cases.values(), strict=True):
        real = same[0].measured
        cells = [
            f"{_seconds(real.total_time_s)}, {real.dirty_sync_count}, {real.max_throttle_percent} %"
        ]
        for case in same:
            done = case.runs["replay"][0]
            error = error_percent(real.total_time_s, done.total_time_s)
            shown = _seconds(done.total_time_s) if error is None else f"{error:+.2f} %"
            cells.append(f"{shown}, {done.dirty_sync_count}, {done.max_throttle_percent} %")
        rows.append([same[0].recording.case, *cells])
    sources = (f"from {source}" for source in cases)
    return table(["recording", "QEMU: s, syncs, throttle", *sources], rows)


def _seconds(total_time_s: float | None) -> str:
    return "did not converge" if total_time_s is None else f"{total_time_s:.2f}"


def _percent(error: float | None) -> str:
    return "-" if error is None else f"{error:.2f} %"
