"""The short answer of a sweep in sentences, worked out from its runs.

Owns the words. It says what the numbers are and draws no conclusion beyond them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from statistics import median

from gpusim.results.plots.sweep import series_of
from gpusim.results.sweeps.ensembles import Ensemble
from gpusim.results.sweeps.runs import Run
from gpusim.results.sweeps.swept import SEED, Axes, label, named, value
from gpusim.results.verdicts import OUTCOMES
from gpusim.text import format_duration, format_number

MOST_SERIES = 4  # of which each gets a sentence
EQUAL = 0.01  # a difference below one per cent is none in words
GIVEN = ("vm.", "workload.")  # nobody chooses the guest, so none of them is the best


def sentences(runs: Sequence[Run], groups: Sequence[Ensemble], axes: Axes) -> list[str]:
    """What the runs say: how many converged, the best of them, and the difference of two series."""
    said = [counted(runs) + "."]
    converged = [run for run in runs if run.converged]
    keys = [key for key in (axes.x, *axes.series) if key]
    if converged and len(runs) > 1 and not any(key.startswith(GIVEN) for key in keys):
        said += _best(converged, keys)
    said += _where(groups, axes)
    if missing := sum(not run.config for run in runs):
        have = "1 run has" if missing == 1 else f"{missing} runs have"
        said.append(f"{have} no config.json: in no figure and no statistics, only in the table.")
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
    parts = [f"{ends[end]} {outcome.label}" for end, outcome in OUTCOMES.items() if ends[end]]
    many = "1 run" if len(runs) == 1 else f"{len(runs)} runs"
    return f"{many}: {', '.join(parts)}"


def _best(converged: Sequence[Run], keys: Sequence[str]) -> list[str]:
    fastest = min(converged, key=_cost)
    said = [
        f"The fastest that converged took {_time(fastest)} and cost {_loss(fastest)}{_with(fastest, keys)}."
    ]
    losing = [run for run in converged if run.number("guest_cpu_lost_s") is not None]
    if not losing:
        return said
    limit_s = (1 + EQUAL) * (fastest.number("total_time_s") or 0.0)
    near = [run for run in losing if (run.number("total_time_s") or 0.0) <= limit_s]
    sparing = min(losing, key=lambda run: _cost(run)[::-1])
    if near and (kind := min(near, key=lambda run: _cost(run)[::-1])) not in (fastest, sparing):
        said.append(
            f"Within {100 * EQUAL:.0f} % of its time, the one that cost least took {_time(kind)} and "
            f"cost {_loss(kind)}{_with(kind, keys)}."
        )
    alike = sum(_cost(run) == _cost(sparing) for run in losing) - 1
    also = f" (and {alike} more alike)" if alike else ""
    if sparing is fastest:
        said.append(f"It is also the one that cost least{also}.")
    else:
        said.append(
            f"The least that any cost, {_loss(sparing)}, took {_time(sparing)}"
            f"{_with(sparing, keys)}{also}."
        )
    return said


def _cost(run: Run) -> tuple[float, float]:
    """Total time and guest loss, seconds to the millisecond."""
    return tuple(round(run.number(key) or 0.0, 3) for key in ("total_time_s", "guest_cpu_lost_s"))  # type: ignore[return-value]


def _time(run: Run) -> str:
    return format_duration(run.number("total_time_s") or 0.0)


def _where(groups: Sequence[Ensemble], axes: Axes) -> list[str]:
    """For each series from which value of the axis on all converges, or up to which."""
    said = []
    for one in series_of(groups, axes.series):
        points = _along(groups, axes, one)
        ends = [all(run.converged for run in group.runs) for _, group in points]
        if all(ends) or not any(ends) or len(ends) < 2:
            continue
        first, last = ends.index(True), len(ends) - 1 - ends[::-1].index(True)
        name = ", ".join(map(named, axes.series, one))
        begin = f"With {name} it" if name else "It"
        if all(ends[first:]) and first:
            said.append(f"{begin} converges from {label(axes.x or '')} {points[first][0]} on.")
        elif all(ends[: last + 1]):
            said.append(f"{begin} converges up to {label(axes.x or '')} {points[last][0]}.")
    if said:
        return said if len(said) <= MOST_SERIES else []
    return _whichever(groups, axes)


def _whichever(groups: Sequence[Ensemble], axes: Axes) -> list[str]:
    """Where a series converges at all values of the axis or at none: up to which series it does."""
    if axes.x is None or len(axes.series) != 1:
        return []
    (key,) = axes.series
    ends: dict[float, set[bool]] = {}
    texts: dict[float, str] = {}
    for group in groups:
        number = group.value(key).number
        if number is None:
            return []
        texts[number] = group.value(key).text
        ends.setdefault(number, set()).add(all(run.converged for run in group.runs))
    order = [ends[number] for number in sorted(ends)]
    good = sum(end == {True} for end in order)
    if not 0 < good < len(order) or any(len(end) > 1 for end in order):
        return []
    whatever = f"whatever the {label(axes.x)}"
    if order[:good] == [{True}] * good:
        last, following = (texts[sorted(ends)[place]] for place in (good - 1, good))
        return [f"It converges up to {label(key)} {last}, {whatever}, and not from {following} on."]
    if order[-good:] == [{True}] * good:
        return [f"It converges from {label(key)} {texts[sorted(ends)[-good]]} on, {whatever}."]
    return []


def _along(
    groups: Sequence[Ensemble], axes: Axes, one: tuple[str, ...]
) -> list[tuple[str, Ensemble]]:
    """A series' points at numbers of the axis, in their order."""
    if axes.x is None:
        return []
    points = [
        (value.number, value.text, group)
        for group in groups
        if tuple(group.value(key).text for key in axes.series) == one
        and (value := group.value(axes.x)).number is not None
    ]
    return [(text, group) for _, text, group in sorted(points, key=lambda point: point[0] or 0.0)]


def _loss(run: Run) -> str:
    lost_s, percent = run.number("guest_cpu_lost_s"), run.number("guest_cpu_lost_percent")
    if not lost_s or round(lost_s, 3) == 0:
        return "no vCPU time"
    share = "" if percent is None else f" ({format_number(percent)} %)"
    return f"{format_duration(lost_s)} of vCPU time{share}"


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
        turn = _turn(_along(groups, axes, two[0]), _along(groups, axes, two[1]))
        if turn is not None:
            until, since, low, high = turn
            span = low if low == high else f"{low} to {high}"
            said.append(
                f"Up to {label(axes.x)} {until} it takes the same time with {names[0]} and with "
                f"{names[1]}; from {since} on {names[1]} takes {span}."
            )
        else:
            many = f"{len(pairs)} values" if len(pairs) > 1 else "one value"
            time = _ratio(pairs, "total_time_s", "longer", "shorter")
            said.append(
                f"At the {many} of {label(axes.x)} where both converge, {names[1]} against "
                f"{names[0]}: total time {time}."
            )
    return said


def _turn(
    one: Sequence[tuple[str, Ensemble]], other: Sequence[tuple[str, Ensemble]]
) -> tuple[str, str, str, str] | None:
    """Where two series part: the last value alike, the first that is not, the least and the most."""
    theirs = {text: group.median("total_time_s") for text, group in other}
    pairs = [(text, group.median("total_time_s"), theirs.get(text)) for text, group in one]
    changes = [(text, b / a - 1) for text, a, b in pairs if a and b]
    alike = [abs(change) < EQUAL for _, change in changes]
    if len(changes) != len(pairs) or not any(alike) or all(alike):
        return None
    first = alike.index(False)
    rest = [change for _, change in changes[first:]]
    if first == 0 or any(alike[first:]) or min(rest) * max(rest) < 0:
        return None
    low, high = sorted(rest, key=abs)[0], sorted(rest, key=abs)[-1]
    return changes[first - 1][0], changes[first][0], _longer(low), _longer(high)


def _longer(change: float) -> str:
    return f"{format_number(100 * abs(change))} % {'longer' if change > 0 else 'less'}"


def _ratio(pairs: Sequence[tuple[Ensemble, Ensemble]], key: str, more: str, less: str) -> str:
    """The second against the first: "12 % shorter (median; from 30 % shorter to 2 % longer)"."""
    values = [(one.median(key), other.median(key)) for one, other in pairs]
    changes = [other / one - 1 for one, other in values if one and other is not None]
    if not changes:
        return "none in either"

    def said(change: float) -> str:
        if abs(change) < EQUAL:
            return "the same"
        if change > 1:
            return f"{format_number(1 + change)} times"
        return f"{format_number(100 * abs(change))} % {more if change > 0 else less}"

    low, middle, high = said(min(changes)), said(median(changes)), said(max(changes))
    return middle if low == high else f"{middle} in the median ({low} to {high})"
