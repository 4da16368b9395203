"""Runs alike in all but the seed, as one: how many converged, and the quantiles of those.

Owns the grouping and the statistics. A run that did not converge has no total time of a migration,
so it counts in the share beside the quantiles and in none of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from gpusim.results.sweeps.runs import Run
from gpusim.results.sweeps.swept import SEED, Value, is_no_input, order, value, varying

QUANTITIES = (
    "total_time_s",
    "downtime_ms",
    "guest_cpu_lost_s",
    "guest_cpu_lost_percent",
    "write_faults",
    "guest_fault_s",
    "max_throttle_percent",
    "dirty_sync_count",
    "transferred_bytes",
)
QUANTILES = {"p5": 0.05, "median": 0.5, "p95": 0.95}


@dataclass(frozen=True, kw_only=True)
class Ensemble:
    """Runs alike in all but the seed, one a seed."""

    runs: tuple[Run, ...]

    @property
    def converged(self) -> list[Run]:
        """Those whose numbers are of a whole migration."""
        return [run for run in self.runs if run.converged]

    @property
    def share(self) -> str:
        """How many converged, for people."""
        return f"{len(self.converged)} of {len(self.runs)}"

    def value(self, key: str) -> Value:
        """The value of a config key, which they share."""
        return value(self.runs[0], key)

    def quantiles(self, key: str) -> tuple[float, float, float] | None:
        """5 %, median and 95 % of a summary's number over the converged runs, numpy's linear ones."""
        numbers = [n for run in self.converged if (n := run.number(key)) is not None]
        if not numbers:
            return None
        low, middle, high = np.quantile(numbers, list(QUANTILES.values())).tolist()
        return low, middle, high

    def median(self, key: str) -> float | None:
        """The median of the converged runs."""
        found = self.quantiles(key)
        return None if found is None else found[1]


def ensembles(runs: Iterable[Run]) -> list[Ensemble]:
    """Group runs that have a config by all of it that changes a result, but the seed.

    A seed that was simulated twice, say on two backends, counts once, so that it weighs no more
    than the others; a run that came to an end goes before one that failed. Groups are in the order
    of their values.
    """
    groups: dict[tuple[tuple[str, str], ...], dict[object, Run]] = {}
    for run in runs:
        if not run.config:
            continue
        inputs = [(k, repr(v)) for k, v in run.config.items() if not is_no_input(k) and k != SEED]
        seeds = groups.setdefault(tuple(sorted(inputs)), {})
        seed = run.config.get(SEED)
        if seed not in seeds or (seeds[seed].summary["status"] != "ok" == run.summary["status"]):
            seeds[seed] = run
    found = [Ensemble(runs=tuple(seeds.values())) for seeds in groups.values()]
    keys = [key for key in varying(group.runs[0] for group in found) if key != SEED]
    orders = {key: order(group.value(key) for group in found) for key in keys}
    return sorted(found, key=lambda group: [orders[key].index(group.value(key)) for key in keys])
