"""How close simulations come to recordings: rows, and a summary over them.

It computes with the quantities of recordings and runs. It starts no run and opens no file.
accuracy_text.py prints the results.
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
from gpusim.validation.replay import replay_source

Mode: TypeAlias = Literal["replay", "predict"]
CLOSE_DOWNTIME = 2.0  # a downtime within this factor is near
CLOSE_PERCENT = 3.0  # nine replays in ten shall have a smaller error of the total time
BAND_PERCENT = (5, 50, 95)  # percentiles of an ensemble's total times


@dataclass(frozen=True, kw_only=True)
class Case:
    """One recording and its runs.

    Attributes:
        recording: the recorded migration.
        measured: QEMU's quantities.
        runs: mode -> quantities of each seed, in order. The first seed makes the rows.
    """

    recording: Recording
    measured: Quantities
    runs: dict[Mode, list[Quantities]] = field(default_factory=dict)


def list_rows(cases: Sequence[Case]) -> list[dict[str, Any]]:
    """Return one row per case, mode and quantity. Errors are in percent of the measured value."""
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
    """Return the error in percent of the measured value.

    It is None for a missing value or a boolean.
    """
    if measured is None or simulated is None or isinstance(measured, bool):
        return None
    if measured == 0:
        return 0.0 if simulated == 0 else None
    return 100 * (simulated - measured) / measured


def summarize(cases: Sequence[Case]) -> dict[str, Any]:
    """Return the figures over all cases: CPU-bound guests by mode, ensembles, QEMU's own spread."""
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
    """Return the figures of all replays but those of CPU-bound guests, and which are not judged.

    A burst of a paced or full-speed guest ends before the next sample of its counter. Only a fine
    counter, or the page counts of the syncs, show when such a guest wrote.
    """
    found: dict[str, Any] = {}
    for source in ("counter", "syncs"):
        judged = [
            case
            for case in cases
            if replay_source(case.recording) == source and _kind(case) != "cpu_bound"
        ]
        if judged:
            found[source] = _figures(judged, "replay")
    left_out = [case.recording.case for case in cases if not is_judged(case, "replay")]
    return found | ({"not_judged": left_out} if left_out else {})


def is_judged(case: Case, mode: Mode) -> bool:
    """Return whether a run of this mode judges the simulator.

    A replay must know the guest's bursts.
    """
    bursts_unseen = replay_source(case.recording) == "samples" and _kind(case) != "cpu_bound"
    return mode != "replay" or not bursts_unseen


def _kind(case: Case) -> str:
    return "unknown" if case.recording.guest is None else case.recording.guest.kind


def cpu_bound_figures(cases: Sequence[Case], mode: Mode) -> dict[str, Any]:
    """Return the figures of the CPU-bound guests."""
    return _figures([case for case in cases if _kind(case) == "cpu_bound"], mode)


def replay_figures(cases: Sequence[Case]) -> dict[str, Any]:
    """Return the figures of the replays of all cases."""
    return _figures(cases, "replay")


def _figures(judged: Sequence[Case], mode: Mode) -> dict[str, Any]:
    """Return the figures of a group of cases.

    A run that should have completed and did not has an infinite error. The 90th percentile is the
    error of a case: nine cases in ten have at most this error.
    """
    done = [case for case in judged if case.measured.converged]
    stalled = [case for case in judged if not case.measured.converged]
    errors = [_total_time_error(case, mode) for case in done]
    steps = [_throttle_steps_apart(case, mode) for case in done]
    return {
        "completed": len(done),
        "completed_simulated_to": sum(math.isfinite(error) for error in errors),
        "median_abs_total_time_error_percent": _median(errors),
        "p90_abs_total_time_error_percent": _percentile(errors, 90),
        "within_3_percent_share": _share([error <= CLOSE_PERCENT for error in errors]),
        "max_throttle_equal_share": _equal_share(done, mode, "max_throttle_percent"),
        "largest_throttle_difference_steps": max(steps, default=None),
        "syncs_made_equal_share": _equal_share(judged, mode, "syncs_made"),
        "dirty_sync_count_equal_share": _equal_share(judged, mode, "dirty_sync_count"),
        "downtime_within_factor_2_share": _share(
            [near for case in done if (near := _downtime_is_near(case, mode)) is not None]
        ),
        "not_converged": len(stalled),
        "not_converged_simulated_not_to": sum(not case.runs[mode][0].converged for case in stalled),
    }


def _equal_share(cases: Sequence[Case], mode: Mode, name: str) -> float | None:
    """Return the share of the cases in which a run has QEMU's value of a quantity."""
    return _share([getattr(c.runs[mode][0], name) == getattr(c.measured, name) for c in cases])


def _total_time_error(case: Case, mode: Mode) -> float:
    error = error_percent(case.measured.total_time_s, case.runs[mode][0].total_time_s)
    return math.inf if error is None else abs(error)


def _downtime_is_near(case: Case, mode: Mode) -> bool | None:
    """Return whether the downtime is within a factor of two. None: one of them is not known."""
    measured, simulated = case.measured.downtime_ms, case.runs[mode][0].downtime_ms
    if measured is None or simulated is None:
        return None
    return measured / CLOSE_DOWNTIME <= simulated <= measured * CLOSE_DOWNTIME


def _throttle_steps_apart(case: Case, mode: Mode) -> int:
    """Return the difference of the highest throttles in increments.

    A smaller tailslow step counts as one.
    """

    def step(percent: int) -> int:
        if percent == 0:
            return 0
        above = percent - int(case.recording.parameters["cpu-throttle-initial"])
        return 1 + -(-above // int(case.recording.parameters["cpu-throttle-increment"]))

    return abs(
        step(case.runs[mode][0].max_throttle_percent) - step(case.measured.max_throttle_percent)
    )


def _median(values: Sequence[float]) -> float | None:
    """Return the median, or None if it is infinite or there are no values."""
    found = statistics.median(values) if values else math.inf
    return found if math.isfinite(found) else None


def _percentile(values: Sequence[float], percent: float) -> float | None:
    """Return the smallest value that `percent` of the values do not exceed.

    It is None if it is infinite or there are no values.
    """
    if not values:
        return None
    found = float(np.percentile(values, percent, method="inverted_cdf"))
    return found if math.isfinite(found) else None


def _share(hits: Sequence[bool]) -> float | None:
    return sum(hits) / len(hits) if hits else None


def _ensemble(case: Case) -> dict[str, Any]:
    """Return the total times of all seeds of one prediction beside QEMU's."""
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
    """Return QEMU's own spread: total times of one scenario's repeats with one version of QEMU."""
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
