"""Measured beside simulated: the rows, the summary over them, and the table for a terminal.

It is pure arithmetic over what recordings and runs gave; it starts no run and opens no file.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal, TypeAlias

import numpy as np

from gpusim.formats.quantities import Quantities
from gpusim.formats.recording import Recording
from gpusim.validation.replay import replayed_from

Mode: TypeAlias = Literal["replay", "predict"]
CLOSE_PERCENT = 3.0  # the total time error that nine replays in ten shall keep
GROUPS = {
    "cpu_bound": "CPU-bound guests",
    "counter": "paced and full-speed guests with a fine counter",
    "syncs": "unknown guests, from what each sync found",
}
BAND_PERCENT = (5, 50, 95)  # of an ensemble's total times


@dataclass(frozen=True, kw_only=True)
class Case:
    """One recording and all that was run for it.

    Attributes:
        runs: mode -> what each seed gave, in the order of the seeds; the first one makes the rows.
    """

    recording: Recording
    measured: Quantities
    runs: dict[Mode, list[Quantities]] = field(default_factory=dict)


def rows(cases: Sequence[Case]) -> list[dict[str, Any]]:
    """One row a case, mode and quantity, with its error in percent of what was measured."""
    return [
        {
            "case": case.recording.case,
            "mode": mode,
            "quantity": spec.name,
            "measured": getattr(case.measured, spec.name),
            "simulated": getattr(runs[0], spec.name),
            "error_percent": error_percent(
                getattr(case.measured, spec.name), getattr(runs[0], spec.name)
            ),
        }
        for case in cases
        for mode, runs in case.runs.items()
        for spec in fields(Quantities)
    ]


def error_percent(measured: float | None, simulated: float | None) -> float | None:
    """Error in percent of the measured value; None without one, and for true and false."""
    if measured is None or simulated is None or isinstance(measured, bool):
        return None
    if measured == 0:
        return 0.0 if simulated == 0 else None
    return 100 * (simulated - measured) / measured


def summary(cases: Sequence[Case]) -> dict[str, Any]:
    """The figures over all cases: CPU-bound guests by mode, ensembles, QEMU's own spread."""
    found: dict[str, Any] = {}
    for mode in ("replay", "predict"):
        chosen = [case for case in cases if mode in case.runs]
        if chosen:
            found[mode] = {"cpu_bound": cpu_bound_figures(chosen, mode)}
    if "replay" in found:
        found["replay"] |= _other_replays(cases)
    if "predict" in found:
        predicted = [case for case in cases if "predict" in case.runs]
        found["predict"]["ensembles"] = [_ensemble(case) for case in predicted]
        found["predict"]["repeats"] = _repeats(predicted)
    return found


def _other_replays(cases: Sequence[Case]) -> dict[str, Any]:
    """The replays besides those of CPU-bound guests by their samples, and which are not judged.

    Bursts of a guest that is paced or goes flat out are over before the next sample of its counter:
    only a fine counter, or what the syncs found, says when it wrote.
    """
    found: dict[str, Any] = {}
    for source in ("counter", "syncs"):
        judged = [
            case
            for case in cases
            if replayed_from(case.recording) == source and _kind(case) != "cpu_bound"
        ]
        if judged:
            found[source] = _figures(judged, "replay")
    left_out = [case.recording.case for case in cases if not is_judged(case, "replay")]
    return found | ({"not_judged": left_out} if left_out else {})


def is_judged(case: Case, mode: Mode) -> bool:
    """Whether a run of this mode says how good the simulator is: a replay must know the guest's bursts."""
    bursts_unseen = replayed_from(case.recording) == "samples" and _kind(case) != "cpu_bound"
    return mode != "replay" or not bursts_unseen


def _kind(case: Case) -> str:
    return "unknown" if case.recording.guest is None else case.recording.guest.kind


def cpu_bound_figures(cases: Sequence[Case], mode: Mode) -> dict[str, Any]:
    """How well CPU-bound guests came out."""
    return _figures([case for case in cases if _kind(case) == "cpu_bound"], mode)


def replay_figures(cases: Sequence[Case]) -> dict[str, Any]:
    """How well the replays of all cases came out."""
    return _figures(cases, "replay")


def _figures(judged: Sequence[Case], mode: Mode) -> dict[str, Any]:
    """How well a group of cases came out.

    A run that did not complete, but should have, errs by infinity. Percentiles are
    cases: nine in ten err by at most the 90th.
    """
    done = [case for case in judged if case.measured.converged]
    stuck = [case for case in judged if not case.measured.converged]
    errors = [_total_time_error(case, mode) for case in done]
    steps = [_throttle_steps_apart(case, mode) for case in done]
    return {
        "completed": len(done),
        "completed_simulated_to": sum(math.isfinite(error) for error in errors),
        "median_abs_total_time_error_percent": _median(errors),
        "p90_abs_total_time_error_percent": _percentile(errors, 90),
        "within_3_percent_share": _share([error <= CLOSE_PERCENT for error in errors]),
        "max_throttle_equal_share": _share(
            [
                case.runs[mode][0].max_throttle_percent == case.measured.max_throttle_percent
                for case in done
            ]
        ),
        "largest_throttle_difference_steps": max(steps, default=None),
        "not_converged": len(stuck),
        "not_converged_simulated_not_to": sum(not case.runs[mode][0].converged for case in stuck),
    }


def _total_time_error(case: Case, mode: Mode) -> float:
    error = error_percent(case.measured.total_time_s, case.runs[mode][0].total_time_s)
    return math.inf if error is None else abs(error)


def _throttle_steps_apart(case: Case, mode: Mode) -> int:
    """Difference of the highest throttles in steps of the ladder; a tailslow step counts whole."""

    def step(percent: int) -> int:
        if percent == 0:
            return 0
        above = percent - int(case.recording.parameters["cpu-throttle-initial"])
        return 1 + -(-above // int(case.recording.parameters["cpu-throttle-increment"]))

    return abs(
        step(case.runs[mode][0].max_throttle_percent) - step(case.measured.max_throttle_percent)
    )


def _median(values: Sequence[float]) -> float | None:
    """The middle value, or the mean of the middle two; None if there is none, or it is infinite."""
    found = statistics.median(values) if values else math.inf
    return found if math.isfinite(found) else None


def _percentile(values: Sequence[float], percent: float) -> float | None:
    """The smallest value that `percent` of the values do not exceed; None if none, or infinite."""
    if not values:
        return None
    found = float(np.percentile(values, percent, method="inverted_cdf"))
    return found if math.isfinite(found) else None


def _share(hits: Sequence[bool]) -> float | None:
    return sum(hits) / len(hits) if hits else None


def _ensemble(case: Case) -> dict[str, Any]:
    """What the seeds of one prediction say together, beside what QEMU did."""
    runs = case.runs["predict"]
    times = [run.total_time_s for run in runs if run.total_time_s is not None]
    low, middle, high = (_percentile(times, percent) for percent in BAND_PERCENT)
    return {
        "case": case.recording.case,
        "guest": _kind(case),
        "seeds": len(runs),
        "measured_converged": case.measured.converged,
        "converged_share": _share([run.converged for run in runs]),
        "measured_total_time_s": case.measured.total_time_s,
        "total_time_p5_s": low,
        "total_time_p50_s": middle,
        "total_time_p95_s": high,
    }


def _repeats(cases: Sequence[Case]) -> list[dict[str, Any]]:
    """QEMU's own spread: total times of recordings of one scenario by one version of QEMU."""
    groups: dict[str, list[Case]] = {}
    for case in cases:
        key = json.dumps([case.recording.scenario, case.recording.qemu], sort_keys=True)
        groups.setdefault(key, []).append(case)
    found = []
    for group in groups.values():
        times = [
            case.measured.total_time_s for case in group if case.measured.total_time_s is not None
        ]
        if len(times) > 1:
            names = [case.recording.case for case in group]
            spread = 100 * (max(times) - min(times)) / float(np.mean(times))
            found.append({"cases": names, "measured_total_time_s": times, "spread_percent": spread})
    return found


def table(found: Sequence[dict[str, Any]]) -> str:
    """The rows, aligned for a terminal."""
    cells = [["case", "mode", "quantity", "measured", "simulated", "error %"]]
    for row in found:
        error = row["error_percent"]
        cells.append(
            [
                row["case"],
                row["mode"],
                row["quantity"],
                _shown(row["measured"]),
                _shown(row["simulated"]),
                "-" if error is None else f"{error:+.2f}",
            ]
        )
    return _aligned(cells, left=3)


def _shown(value: float | None) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def _aligned(cells: Sequence[Sequence[str]], left: int) -> str:
    """Columns of equal width, the first `left` of them flush left."""
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = (
        "  ".join(
            cell.ljust(width) if place < left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in cells
    )
    return "\n".join(lines)


def summary_text(found: dict[str, Any]) -> str:
    """The summary, for people."""
    parts = [
        _figures_text(f"{mode}, {title}", found[mode][group])
        for mode in found
        for group, title in GROUPS.items()
        if group in found[mode] and _cases(found[mode][group])
    ]
    left_out = found.get("replay", {}).get("not_judged", [])
    if left_out:
        parts.append(
            "replayed, not judged: bursts of these guests fall between the samples of their counter\n"
            + ", ".join(left_out)
        )
    if "predict" in found:
        parts.append(_ensembles_text(found["predict"]["ensembles"]))
        if found["predict"]["repeats"]:
            parts.append(_repeats_text(found["predict"]["repeats"]))
    return "\n\n".join(parts)


def _cases(figures: dict[str, Any]) -> int:
    return int(figures["completed"] + figures["not_converged"])


def _figures_text(title: str, figures: dict[str, Any]) -> str:
    def percent(key: str, scale: float = 1) -> str:
        return "-" if figures[key] is None else f"{figures[key] * scale:.2f} %"

    gap = _shown(figures["largest_throttle_difference_steps"])
    stuck = f"{figures['not_converged_simulated_not_to']} of {figures['not_converged']}"
    of_completed = [
        ["completed in QEMU", str(figures["completed"])],
        ["  of them simulated to", str(figures["completed_simulated_to"])],
        ["median |total time error|", percent("median_abs_total_time_error_percent")],
        ["nine in ten within", percent("p90_abs_total_time_error_percent")],
        [f"within {CLOSE_PERCENT:g} %", percent("within_3_percent_share", 100)],
        ["highest throttle equal", percent("max_throttle_equal_share", 100)],
        ["highest throttle, largest gap", f"{gap} steps"],
    ]
    of_others = [["not converged, simulated not to", stuck]]
    cells = of_completed * bool(figures["completed"]) + of_others * bool(figures["not_converged"])
    return f"{title}\n{_aligned(cells, left=1)}"


def _ensembles_text(ensembles: Sequence[dict[str, Any]]) -> str:
    cells = [
        ["case", "guest", "QEMU converged", "seeds that do", "QEMU s", "5 %", "median", "95 %"]
    ]
    for row in ensembles:
        share = f"{round(row['converged_share'] * row['seeds'])} of {row['seeds']}"
        times = (
            row["measured_total_time_s"],
            *(row[f"total_time_p{percent}_s"] for percent in BAND_PERCENT),
        )
        cells.append(
            [
                row["case"],
                row["guest"],
                _shown(row["measured_converged"]),
                share,
                *map(_shown, times),
            ]
        )
    return "predict, all seeds: total times in seconds\n" + _aligned(cells, left=2)


def _repeats_text(repeats: Sequence[dict[str, Any]]) -> str:
    cells = [["repeats", "QEMU's total times, s", "spread %"]]
    for row in repeats:
        times = " ".join(f"{time_s:.2f}" for time_s in row["measured_total_time_s"])
        cells.append([", ".join(row["cases"]), times, f"{row['spread_percent']:.1f}"])
    return "QEMU's own spread between repeats\n" + _aligned(cells, left=2)
