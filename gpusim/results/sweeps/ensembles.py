"""Groups the runs that differ only in their seed, and gives their statistics.

A run that did not converge has no total time of a whole migration. It counts in the share of runs
that converged, but not in the quantiles.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from gpusim.results.sweeps.axes import is_input, varying_keys
from gpusim.results.sweeps.config_values import SEED, Value, sort_values, value_of
from gpusim.results.sweeps.runs import Run

QUANTILES = {"p5": 0.05, "median": 0.5, "p95": 0.95}
Series: TypeAlias = tuple[str, ...]  # the texts of the values of the series' keys


@dataclass(frozen=True, kw_only=True)
class Ensemble:
    """Runs that differ only in their seed, one run per seed."""

    runs: tuple[Run, ...]

    @property
    def converged(self) -> list[Run]:
        """The runs that converged."""
        return [run for run in self.runs if run.converged]

    @property
    def share(self) -> str:
        """How many runs converged: "3 of 4"."""
        return f"{len(self.converged)} of {len(self.runs)}"

    def value(self, key: str) -> Value:
        """Return the value of a config key, which all runs share."""
        return value_of(self.runs[0], key)

    def series(self, keys: Iterable[str]) -> Series:
        """Return the texts of the values of config keys."""
        return tuple(self.value(key).text for key in keys)

    def quantiles(self, key: str) -> tuple[float, float, float] | None:
        """Return the 5 %, 50 % and 95 % quantiles of a summary's number over the converged runs.

        They are numpy's linear quantiles. None if no converged run has the number.
        """
        numbers = [n for run in self.converged if (n := run.number(key)) is not None]
        if not numbers:
            return None
        low, middle, high = np.quantile(numbers, list(QUANTILES.values())).tolist()
        return low, middle, high

    def median(self, key: str) -> float | None:
        """Return the median of a summary's number over the converged runs."""
        found = self.quantiles(key)
        return None if found is None else found[1]


def ensembles(runs: Iterable[Run]) -> list[Ensemble]:
    """Group the runs that have a config by all its keys that change a result, except the seed.

    A seed that was simulated twice, for example on two backends, counts once. A finished run takes
    precedence over a failed one. The groups are sorted by their values.
    """
    groups: dict[tuple[tuple[str, str], ...], dict[object, Run]] = {}
    for run in runs:
        if not run.config:
            continue
        inputs = [(k, repr(v)) for k, v in run.config.items() if is_input(k) and k != SEED]
        seeds = groups.setdefault(tuple(sorted(inputs)), {})
        seed = run.config.get(SEED)
        if seed not in seeds or (seeds[seed].summary["status"] != "ok" == run.summary["status"]):
            seeds[seed] = run
    found = [Ensemble(runs=tuple(seeds.values())) for seeds in groups.values()]
    keys = [key for key in varying_keys(group.runs[0] for group in found) if key != SEED]
    orders = {key: sort_values(group.value(key) for group in found) for key in keys}
    return sorted(found, key=lambda group: [orders[key].index(group.value(key)) for key in keys])


def series_of(groups: Sequence[Ensemble], keys: Sequence[str]) -> list[Series]:
    """Return the combinations of values that occur. Numbers are sorted by size."""
    orders = [[v.text for v in sort_values(g.value(key) for g in groups)] for key in keys]
    return sorted(
        {group.series(keys) for group in groups},
        key=lambda series: [order.index(text) for order, text in zip(orders, series, strict=True)],
    )
