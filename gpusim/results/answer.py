"""The short answer of a sweep in sentences, worked out from its runs.

Owns the words. It says what the numbers are and draws no conclusion beyond them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from statistics import median

from gpusim.results import style
from gpusim.results.ensembles import Ensemble
from gpusim.results.runs import Run
from gpusim.results.sweep_plot import series_of
from gpusim.results.swept import SEED, Axes, label, named, value

OUTCOMES = {
    "converged": "converged",
    "not_converged": "did not converge",
    "time_limit": "reached the time limit",
    "incomplete": "stopped without an outcome",
    "failed": "failed",
}
EQUAL = 0.005  # a difference below half a per cent is none in words


def sentences(runs: Sequence[Run], groups: Sequence[Ensemble], axes: Axes) -> list[str]:
    """What the runs say: how many converged, the best of them, and the difference of two series."""
    said = [counted(runs) + "."]
    converged = [run for run in runs if run.converged]
    keys = [key for key in (axes.x, *axes.series) if key]
    if converged and len(runs) > 1:
        said += _best(converged, keys)
    if missing := sum(not run.config for run in runs):
        said.append(f"Of {missing} there is no config.json: they are in the table alone.")
    repeated = len(runs) - missing - sum(len(group.runs) for group in groups)
    if repeated:
        said.append(
            f"{repeated} have the same config and seed as another run; statistics and figures count "
            "them once."
        )
    two = series_of(groups, axes.series)
    if axes.x and len(two) == 2:
        said += _difference(groups, axes, two)
    return said


def counted(runs: Sequence[Run]) -> str:
    """How the runs ended: "6 runs: 4 converged, 2 failed"."""
    ends = Counter(run.outcome for run in runs)
    parts = [f"{ends[end]} {words}" for end, words in OUTCOMES.items() if ends[end]]
    many = "1 run" if len(runs) == 1 else f"{len(runs)} runs"
    return f"{many}: {', '.join(parts)}"


def _best(converged: Sequence[Run], keys: Sequence[str]) -> list[str]:
    fastest = min(converged, key=lambda run: run.number("total_time_s") or 0.0)
    said = [
        f"The fastest that converged took {style.duration(fastest.number('total_time_s') or 0.0)} and "
        f"cost the guest {_loss(fastest)}{_with(fastest, keys)}."
    ]
    losses = [
        (loss, run) for run in converged if (loss := run.number("guest_cpu_lost_s")) is not None
    ]
    if not losses:
        return said
    least = min(loss for loss, _ in losses)
    sparing = [run for loss, run in losses if loss == least]
    best = min(sparing, key=lambda run: run.number("total_time_s") or 0.0)
    if best is fastest:
        said.append("It is also the one that cost the guest least.")
    elif len(sparing) > 1:
        said.append(
            f"{len(sparing)} cost the guest {_loss(best)}; the fastest of them took "
            f"{style.duration(best.number('total_time_s') or 0.0)}{_with(best, keys)}."
        )
    else:
        said.append(
            f"The one that cost the guest least, {_loss(best)}, took "
            f"{style.duration(best.number('total_time_s') or 0.0)}{_with(best, keys)}."
        )
    return said


def _loss(run: Run) -> str:
    lost_s, percent = run.number("guest_cpu_lost_s"), run.number("guest_cpu_lost_percent")
    if not lost_s:
        return "no vCPU time"
    share = "" if percent is None else f", {style.number(percent)} %"
    return f"{style.duration(lost_s)} of vCPU time{share}"


def _with(run: Run, keys: Sequence[str]) -> str:
    if not run.config:
        return f" ({run.name})"
    said = [named(key, value(run, key).text) for key in keys]
    if SEED in run.config and not said:
        said = [f"seed {run.config[SEED]}"]
    return f", with {', '.join(said)}" if said else ""


def _difference(
    groups: Sequence[Ensemble], axes: Axes, two: Sequence[tuple[str, ...]]
) -> list[str]:
    """Two series at the same values of the axis: who converges alone, and the medians' ratio."""
    assert axes.x is not None  # the caller has asked
    by_series = [
        {g.value(axes.x): g for g in groups if tuple(g.value(k).text for k in axes.series) == one}
        for one in two
    ]
    names = [", ".join(map(named, axes.series, one)) for one in two]
    both = [x for x in by_series[0] if x in by_series[1]]
    pairs = [
        (one, other)
        for x in both
        if (one := by_series[0][x]).converged and (other := by_series[1][x]).converged
    ]
    said = []
    for index in (0, 1):
        alone = [
            x.text
            for x in both
            if by_series[index][x].converged and not by_series[1 - index][x].converged
        ]
        if alone:
            where = ", ".join(alone[:4]) + (" and more" if len(alone) > 4 else "")
            said.append(
                f"With {names[index]} it converges at {len(alone)} of {len(both)} values of "
                f"{label(axes.x)} where it does not with {names[1 - index]}: {where}."
            )
    if pairs:
        many = f"{len(pairs)} values" if len(pairs) > 1 else "one value"
        time = _ratio(pairs, "total_time_s", "longer", "shorter")
        loss = _ratio(pairs, "guest_cpu_lost_s", "more", "less")
        said.append(
            f"At the {many} of {label(axes.x)} where both converge, {names[1]} against {names[0]}: "
            f"total time {time}; vCPU time lost {loss}."
        )
    return said


def _ratio(pairs: Sequence[tuple[Ensemble, Ensemble]], key: str, more: str, less: str) -> str:
    """The second against the first: "12 % shorter (median; from 30 % shorter to 2 % longer)"."""
    values = [(one.median(key), other.median(key)) for one, other in pairs]
    changes = [other / one - 1 for one, other in values if one and other is not None]
    gained = sum(1 for one, other in values if one == 0 and other)
    tail = f", and {gained} from none to some" if gained else ""
    if not changes:
        return f"none in either{tail}"

    def said(change: float) -> str:
        if abs(change) < EQUAL:
            return "the same"
        if change > 1:
            return f"{style.number(1 + change)} times"
        return f"{style.number(100 * abs(change))} % {more if change > 0 else less}"

    low, middle, high = said(min(changes)), said(median(changes)), said(max(changes))
    return (middle if low == high else f"{middle} in the median ({low} to {high})") + tail
