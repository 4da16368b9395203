"""Finds facts about the runs of a sweep, as codes and numbers. sentences.py makes the text.

Each finding states the numbers of the runs and draws no conclusion beyond them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from statistics import median
from typing import Any, TypeAlias

from gpusim.results.bottleneck import find_bottlenecks
from gpusim.results.sweeps.axes import Axes, varying_keys
from gpusim.results.sweeps.config_values import SEED, value_of
from gpusim.results.sweeps.ensembles import Ensemble, Series, series_of
from gpusim.results.sweeps.runs import Run
from gpusim.text import Message

MOST_SERIES = 4  # with more series, no finding says where each one converges
EQUAL = 0.01  # a smaller relative difference counts as none
GIVEN = ("vm.", "workload.")  # keys that nobody chooses, so that none of their values is the best
Settings: TypeAlias = list[tuple[str, str]]  # config keys and the texts of their values
_Point: TypeAlias = tuple[str, Ensemble]  # the text of a value on the axis, and its runs


def compute_findings(
    runs: Sequence[Run],
    groups: Sequence[Ensemble],
    axes: Axes,
    planned_runs: int | None = None,
) -> list[Message]:
    """Return what a sweep shows.

    The findings are how many runs converged, what set their sending rates, which run is best, where
    the sweep converges, and how two series differ.

    Args:
        runs: all runs.
        groups: the ensembles of the runs.
        axes: of the sweep.
        planned_runs: of the sweep, if it is known.
    """
    found = [count_outcomes(runs)]
    if planned_runs is not None and len(runs) < planned_runs:
        found.append(Message("missing_runs", {"runs": len(runs), "planned": planned_runs}))
    found += find_bottlenecks([run.summary for run in runs])
    found += _postcopy(runs)
    converged = [run for run in runs if run.converged]
    keys = [key for key in (axes.x, *axes.series) if key]
    if converged and len(runs) > 1 and not any(key.startswith(GIVEN) for key in keys):
        found += _best(converged, keys)
    if axes.x is not None:
        found += _changed_with(runs, axes, axes.x)
        by_series = {
            one: _along(groups, axes, axes.x, one) for one in series_of(groups, axes.series)
        }
        found += _converging(by_series, axes, axes.x) or _converging_series(groups, axes, axes.x)
    without_config = sum(not run.config for run in runs)
    if without_config:
        found.append(Message("no_config", {"runs": without_config}))
    repeated = len(runs) - without_config - sum(len(group.runs) for group in groups)
    if repeated:
        found.append(Message("repeated", {"runs": repeated}))
    if axes.x is not None and len(by_series) == 2:
        found += _differences(groups, axes, axes.x, by_series)
    return found


def count_outcomes(runs: Sequence[Run]) -> Message:
    """Return how many runs ended in which way."""
    return Message("outcomes", {"runs": len(runs), "counts": Counter(run.outcome for run in runs)})


def _postcopy(runs: Sequence[Run]) -> list[Message]:
    """Return what the switch to post-copy cost the guests of the runs that switched."""
    switched = [run for run in runs if run.number("postcopy_start_s") is not None]
    if not switched:
        return []
    ends = {
        key: [number for run in switched if (number := run.number(key)) is not None]
        for key in ("postcopy_blackout_ms", "postcopy_recovery_s", "postcopy_stall_vcpu_s")
    }
    data = {key: (min(numbers), max(numbers)) for key, numbers in ends.items() if numbers}
    return [Message("postcopy", {"runs": len(switched), "of_runs": len(runs), "ends": data})]


def _best(converged: Sequence[Run], keys: Sequence[str]) -> list[Message]:
    """Return the fastest run and the run that costs the guest least."""
    fastest = min(converged, key=_time_and_loss)
    found = [_run_message("fastest", fastest, keys)]
    runs = [run for run in converged if run.number("guest_cpu_lost_s") is not None]
    if not runs:
        return found
    limit_s = (1 + EQUAL) * (fastest.number("total_time_s") or 0.0)
    near = [run for run in runs if (run.number("total_time_s") or 0.0) <= limit_s]
    cheapest = min(runs, key=_loss_and_time)
    if near and (nearest := min(near, key=_loss_and_time)) not in (fastest, cheapest):
        found.append(_run_message("cheapest_near_fastest", nearest, keys, EQUAL))
    same = sum(_time_and_loss(run) == _time_and_loss(cheapest) for run in runs) - 1
    code = "fastest_is_cheapest" if cheapest is fastest else "cheapest"
    return [*found, _run_message(code, cheapest, keys, same)]


def _run_message(code: str, run: Run, keys: Sequence[str], value: float = 0) -> Message:
    settings = [(key, value_of(run, key).text) for key in keys] if run.config else []
    if SEED in run.config and not settings:
        settings = [(SEED, str(run.config[SEED]))]
    data = {
        "run": run.name,
        "outcome": run.outcome,
        "settings": settings,
        "total_time_s": run.number("total_time_s") or 0.0,
        "guest_cpu_lost_s": run.number("guest_cpu_lost_s") or 0.0,
        "guest_cpu_lost_percent": run.number("guest_cpu_lost_percent"),
        {"cheapest_near_fastest": "tolerance"}.get(code, "same_cost"): value,
    }
    return Message(code, data)


def _time_and_loss(run: Run) -> tuple[float, ...]:
    """Return total time and guest loss in seconds, rounded to milliseconds."""
    return tuple(round(run.number(key) or 0.0, 3) for key in ("total_time_s", "guest_cpu_lost_s"))


def _loss_and_time(run: Run) -> tuple[float, ...]:
    return _time_and_loss(run)[::-1]


def _along(groups: Sequence[Ensemble], axes: Axes, x: str, series: Series) -> list[_Point]:
    """Return the points of a series at numbers of the axis, sorted by the number."""
    points = [
        (value.number, value.text, group)
        for group in groups
        if group.series(axes.series) == series and (value := group.value(x)).number is not None
    ]
    return [(text, group) for _, text, group in sorted(points, key=lambda point: point[0])]


def _all_converged(group: Ensemble) -> bool:
    return all(run.converged for run in group.runs)


def _converging(by_series: dict[Series, list[_Point]], axes: Axes, x: str) -> list[Message]:
    """Return for each series the value of the axis from which, or up to which, all runs converge."""
    found = []
    for series, points in by_series.items():
        ends = [_all_converged(group) for _, group in points]
        if all(ends) or not any(ends) or len(ends) < 2:
            continue
        first, last = ends.index(True), len(ends) - 1 - ends[::-1].index(True)
        data: dict[str, Any] = {"series": list(zip(axes.series, series, strict=True)), "key": x}
        if all(ends[first:]) and first:
            found.append(Message("converges_from", data | {"value": points[first][0]}))
        elif all(ends[: last + 1]):
            found.append(Message("converges_up_to", data | {"value": points[last][0]}))
    return found if len(found) <= MOST_SERIES else []


def _converging_series(groups: Sequence[Ensemble], axes: Axes, x: str) -> list[Message]:
    """Return which series converge, if each converges at all values of the axis or at none."""
    if len(axes.series) != 1:
        return []
    (key,) = axes.series
    ends: dict[float, set[bool]] = {}
    texts: dict[float, str] = {}
    for group in groups:
        number = group.value(key).number
        if number is None:
            return []
        texts[number] = group.value(key).text
        ends.setdefault(number, set()).add(_all_converged(group))
    order = sorted(ends)
    good = [number for number in order if ends[number] == {True}]
    if not 0 < len(good) < len(order) or any(len(end) > 1 for end in ends.values()):
        return []
    data = {"key": key, "axis": x}
    if good == order[: len(good)]:
        values = {"value": texts[good[-1]], "next": texts[order[len(good)]]}
        return [Message("series_converge_up_to", data | values)]
    if good == order[-len(good) :]:
        return [Message("series_converge_from", data | {"value": texts[good[0]]})]
    return []


def _differences(
    groups: Sequence[Ensemble], axes: Axes, x: str, by_series: dict[Series, list[_Point]]
) -> list[Message]:
    """Compare two series at the same values of the axis."""
    points = [{g.value(x): g for g in groups if g.series(axes.series) == one} for one in by_series]
    series = [list(zip(axes.series, one, strict=True)) for one in by_series]
    both = [value for value in points[0] if value in points[1]]
    found = []
    for own, other in ((0, 1), (1, 0)):
        alone = [
            v.text for v in both if points[own][v].converged and not points[other][v].converged
        ]
        if alone:
            data = {"series": series[own], "other": series[other], "key": x}
            found.append(
                Message("converges_alone", data | {"values": alone, "compared": len(both)})
            )
    data = {"series": series[0], "other": series[1], "key": x}
    pairs = [
        (points[0][v].median("total_time_s"), points[1][v].median("total_time_s")) for v in both
    ]
    changes = [other / one - 1 for one, other in pairs if one and other is not None]
    if split := _split(*by_series.values()):
        found.append(Message("same_time_up_to", data | split))
    elif changes:
        numbers = {"lowest": min(changes), "median": median(changes), "highest": max(changes)}
        found.append(Message("time_change", data | numbers | {"values": len(changes)}))
    return [*found, *_loss_change(points, both, data)]


def _changed_with(runs: Sequence[Run], axes: Axes, x: str) -> list[Message]:
    """Return which other keys change with the axis, as the presets of a group do."""
    others = [
        key
        for key in varying_keys(runs)
        if key not in (x, SEED, *axes.series)
        and len({value_of(run, key).text for run in runs if run.config}) > 1
    ]
    return [Message("changed_with", {"key": x, "others": others})] if others else []


def _loss_change(
    points: Sequence[dict[Any, Ensemble]], both: Sequence[Any], data: dict[str, Any]
) -> list[Message]:
    """Return what the guests of the second series lose, compared with the first."""
    found = {
        key: [
            (one, other)
            for value in both
            if (one := points[0][value].median(key)) is not None
            and (other := points[1][value].median(key)) is not None
        ]
        for key in ("guest_cpu_lost_percent", "guest_cpu_lost_s")
    }
    percents, seconds = found.values()
    changed = [abs(other - one) > EQUAL * max(one, other) for one, other in (*percents, *seconds)]
    if not any(changed):
        return []
    ratios = [other / one for one, other in seconds if one and other]
    return [
        Message(
            "loss_change",
            data
            | {
                "values": len(seconds),
                "percent": [median(side) for side in zip(*percents, strict=True)],
                "lost_s": [median(side) for side in zip(*seconds, strict=True)],
                "lowest": min(ratios, default=None),
                "highest": max(ratios, default=None),
            },
        )
    ]


def _split(one: Sequence[_Point], other: Sequence[_Point]) -> dict[str, Any] | None:
    """Return the value up to which the times of two series are equal, and the changes after it."""
    others = {text: group.median("total_time_s") for text, group in other}
    pairs = [(text, group.median("total_time_s"), others.get(text)) for text, group in one]
    changes = [(text, b / a - 1) for text, a, b in pairs if a and b]
    equal = [abs(change) < EQUAL for _, change in changes]
    if len(changes) != len(pairs) or not any(equal) or all(equal):
        return None
    first = equal.index(False)
    rest = sorted((change for _, change in changes[first:]), key=abs)
    if first == 0 or any(equal[first:]) or min(rest) * max(rest) < 0:
        return None
    return {
        "value": changes[first - 1][0],
        "next": changes[first][0],
        "smallest": rest[0],
        "largest": rest[-1],
    }
