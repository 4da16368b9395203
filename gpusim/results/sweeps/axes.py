"""Which config keys a sweep varied, and which of them is the axis of its figures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from gpusim.results.sweeps.config_values import ABSENT, SEED, Value, value_of
from gpusim.results.sweeps.runs import Run

_NOT_INPUTS = ("plot", "dry_run", "objective", "limit.wall")  # beside all of backend.*


def varying_keys(runs: Iterable[Run]) -> list[str]:
    """Return the config keys that differ among the runs with a config, in the config's order."""
    configs = [run.config for run in runs if run.config]
    keys = dict.fromkeys(key for config in configs for key in config)
    return [
        key
        for key in keys
        if is_input(key) and len({_identity(config.get(key, ABSENT)) for config in configs}) > 1
    ]


def is_input(key: str) -> bool:
    """Return whether a config key can change a result."""
    return not key.startswith("backend.") and key not in _NOT_INPUTS


def _identity(value: Any) -> tuple[bool, Any]:
    return isinstance(value, bool), value  # True == 1, but a flag is not a number


@dataclass(frozen=True, kw_only=True)
class Axes:
    """How the figures of a sweep show its config keys.

    Attributes:
        x: the key along the axis. None if nothing but the seed differs.
        is_numeric: every value of x is a number.
        series: the keys whose values are separate lines. Keys that follow from x and from each
            other are left out.
    """

    x: str | None
    is_numeric: bool
    series: list[str]


def choose_axes(runs: Sequence[Run], wanted: str | None = None) -> Axes:
    """Choose the wanted key, else the numeric key with the most values, else the key with the most.

    Args:
        runs: runs without a config are ignored.
        wanted: the axis that sweep.json names. It is ignored if it does not vary.
    """
    runs = [run for run in runs if run.config]
    keys = [key for key in varying_keys(runs) if key != SEED]
    columns = {key: [value_of(run, key) for run in runs] for key in keys}
    keys = [key for key in keys if len(set(columns[key])) > 1]
    if not keys:
        return Axes(x=None, is_numeric=False, series=[])
    counts = {key: len(set(columns[key])) for key in keys}
    numeric = [key for key in keys if all(v.number is not None for v in columns[key])]
    x = wanted if wanted in keys else max(numeric or keys, key=lambda key: counts[key])
    series: list[str] = []
    rest = [key for key in keys if key != x]
    # Each sampled value occurs once, so that every key seems to follow from x.
    if x in numeric:
        series += [key for key in rest if key in numeric and _is_sampled(columns, x, key)]
    while rest := [key for key in rest if not _follows(columns, [x, *series], key)]:
        series.append(max(rest, key=lambda key: counts[key]))
    return Axes(x=x, is_numeric=x in numeric, series=sorted(series, key=keys.index))


def _is_sampled(columns: dict[str, list[Value]], x: str, key: str) -> bool:
    """Return whether the numbers of a key that follows from x both rise and fall along x."""
    if not _follows(columns, [x], key):
        return False
    pairs = zip(columns[x], columns[key], strict=True)
    numbers = [
        other for _, other in sorted((one.number or 0.0, to.number or 0.0) for one, to in pairs)
    ]
    return numbers not in (sorted(numbers), sorted(numbers, reverse=True))


def _follows(columns: dict[str, list[Value]], causes: list[str], key: str) -> bool:
    """Return whether the values of the causes determine the value of `key`."""
    known: dict[tuple[Value, ...], Value] = {}
    for *cause, effect in zip(*(columns[name] for name in (*causes, key)), strict=True):
        if known.setdefault(tuple(cause), effect) != effect:
            return False
    return True
