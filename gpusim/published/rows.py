"""Rows of published tables, simulated: the config of a row's command, its runs, and what came out.

It judges nothing: report.py does. A fitted number is found here too, by trying all its candidates.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import mean

import numpy as np

from gpusim.config.backend import choose_backend
from gpusim.config.compose import composed_config
from gpusim.config.scenario import resolve
from gpusim.config.schema import Config
from gpusim.engine.attempts import simulate
from gpusim.explore.workers import map_with_bar
from gpusim.published.tables import FittedValue, Row, Table

WITHIN = 0.05  # of a row: what `holds` allows a fitted number; no table here tells less apart


@dataclass(frozen=True, kw_only=True)
class Run:
    """What one run of a row gave; quantities are named as a Row's."""

    converged: bool
    total_s: float
    first_pass_s: float | None
    downtime_ms: float | None
    syncs: int
    max_throttle_percent: int
    sent_mib: float


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A row beside its runs.

    Attributes:
        runs: one a seed; empty for a row that is not simulated.
    """

    table: Table
    row: Row
    runs: tuple[Run, ...]

    @property
    def judged(self) -> bool:
        """Whether it says how good the simulator is."""
        return self.table.judges(self.row)

    @property
    def converged(self) -> bool:
        """Every run did."""
        return bool(self.runs) and all(run.converged for run in self.runs)

    @property
    def measured_s(self) -> float | None:
        """Total time as published, the mean of its repeats."""
        return mean(self.row.total_s) if self.row.total_s else None

    @property
    def simulated_s(self) -> float | None:
        """Total time, the mean of the runs, rounded up where the source's are; None: did not converge."""
        if not self.converged:
            return None
        total_s = mean(run.total_s for run in self.runs)
        return float(math.ceil(total_s)) if self.table.rounded_up else total_s

    @property
    def error_percent(self) -> float | None:
        """Of the simulated total time; None unless there are two."""
        if self.measured_s is None or self.simulated_s is None:
            return None
        return 100 * (self.simulated_s / self.measured_s - 1)

    def means(self, quantity: str) -> tuple[float | None, float | None]:
        """Published and simulated means of another quantity."""
        values = getattr(self.row, quantity)
        ours = [found for run in self.runs if (found := getattr(run, quantity)) is not None]
        return mean(values) if values else None, mean(ours) if ours else None


def configs(row: Row) -> list[Config]:
    """Of the row's command, one a seed.

    Raises:
        HydraException, OmegaConfBaseException, ConfigError: the command cannot be run.
    """
    if not row.run:
        return []
    config = composed_config(row.overrides)
    return [replace(config, seed=seed) for seed in range(1, row.seeds + 1)]


def simulated(tables: Sequence[Table]) -> list[Outcome]:
    """All rows of some tables, in order; their runs in parallel processes.

    Raises:
        HydraException, OmegaConfBaseException, ConfigError: a command that cannot be run; before any is.
    """
    rows = [(table, row, configs(row)) for table in tables for row in table.rows]
    wanted = [config for _, _, own in rows for config in own]
    for config in wanted:
        choose_backend(resolve(config))
    found = map_with_bar(run, wanted)
    return [
        Outcome(table=table, row=row, runs=tuple(next(found) for _ in own))
        for table, row, own in rows
    ]


def run(config: Config) -> Run:
    """One run, in numbers that a Row has as well."""
    summary = simulate(config).summary
    return Run(
        converged=summary.verdict == "converged",
        total_s=summary.total_time_s,
        first_pass_s=summary.first_pass_s,
        downtime_ms=summary.downtime_ms,
        syncs=summary.dirty_sync_count,
        max_throttle_percent=summary.max_throttle_percent,
        sent_mib=summary.transferred_bytes / 2**20,
    )


def fitted(table: Table, value: FittedValue) -> tuple[float, list[float]]:
    """The candidate that comes nearest to its row, and those that hold it: lowest and highest.

    A candidate with which a run of the row does not converge is none. One holds the row if it lies within
    5 % of it, or within its repeats where those are further apart.
    """
    row = table.row(value.row)
    candidates = np.arange(value.low, value.high + value.step / 2, value.step)
    published = getattr(row, value.quantity)
    target = mean(published)
    low = min(*published, target * (1 - WITHIN))
    high = max(*published, target * (1 + WITHIN))
    tried = [
        replace(row, run=f"{row.run} {value.key}={candidate:.10g}") for candidate in candidates
    ]
    runs = map_with_bar(run, [config for one in tried for config in configs(one)])
    misses, holding = {}, []
    for candidate in map(float, candidates):
        own = [next(runs) for _ in range(row.seeds)]
        found = [getattr(one, value.quantity) for one in own]
        if not all(one.converged for one in own):
            continue
        misses[candidate] = abs(mean(found) - target)
        if low <= mean(found) <= high:
            holding.append(candidate)
    best = min(misses, key=lambda candidate: misses[candidate])
    return best, [holding[0], holding[-1]] if holding else []
