"""Simulate the rows of published tables: from a row's command to the outcome of its runs.

accuracy.py compares the outcomes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import mean

from gpusim.config.backend import choose_backend
from gpusim.config.compose import composed_config
from gpusim.config.scenario import resolve
from gpusim.config.schema import Config, SequentialConfig, WorkloadConfig
from gpusim.engine.attempts import simulate
from gpusim.explore.workers import map_with_bar
from gpusim.published.tables import Row, Table


@dataclass(frozen=True, kw_only=True)
class Run:
    """The quantities of one run of a row, under the names of a Row's."""

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
        table: the row's table.
        row: the published case.
        runs: one per seed and first write. Empty for a row that is not simulated.
    """

    table: Table
    row: Row
    runs: tuple[Run, ...]

    @property
    def judged(self) -> bool:
        """Return whether the row judges the simulator."""
        return self.table.judges(self.row)

    @property
    def converged(self) -> bool:
        """Return whether every run converged."""
        return bool(self.runs) and all(run.converged for run in self.runs)

    @property
    def measured_s(self) -> float | None:
        """Return the published total time, the mean of its repeats."""
        return mean(self.row.total_s) if self.row.total_s else None

    @property
    def simulated_s(self) -> float | None:
        """Return the mean total time of the runs, or None if they did not converge.

        It is rounded up if the source rounds up.
        """
        if not self.converged:
            return None
        total_s = mean(run.total_s for run in self.runs)
        return float(math.ceil(total_s)) if self.table.rounded_up else total_s

    @property
    def error_percent(self) -> float | None:
        """Return the error of the simulated total time, or None if one of the two is missing."""
        if self.measured_s is None or self.simulated_s is None:
            return None
        return 100 * (self.simulated_s / self.measured_s - 1)

    def means(self, quantity: str) -> tuple[float | None, float | None]:
        """Return the published and the simulated mean of another quantity."""
        values = getattr(self.row, quantity)
        ours = [found for run in self.runs if (found := getattr(run, quantity)) is not None]
        return mean(values) if values else None, mean(ours) if ours else None


def configs(row: Row) -> list[Config]:
    """Return the configs of the row's command, one per seed and first write.

    Raises:
        ConfigError: the command cannot be run.
    """
    if not row.run:
        return []
    config = composed_config(row.overrides)
    workloads: list[WorkloadConfig] = [config.workload]
    if row.first_writes:
        assert isinstance(config.workload, SequentialConfig), row.name
        workloads = [replace(config.workload, first_write=first) for first in row.first_writes]
    return [
        replace(config, seed=seed, workload=workload)
        for workload in workloads
        for seed in range(1, row.seeds + 1)
    ]


def simulate_tables(tables: Sequence[Table]) -> list[Outcome]:
    """Simulate all rows of some tables in parallel processes. Return the outcomes in order.

    Raises:
        ConfigError: a command cannot be run. All commands
            are checked before the first run.
    """
    rows = [(table, row, configs(row)) for table in tables for row in table.rows]
    wanted = [config for _, _, own in rows for config in own]
    for config in wanted:
        choose_backend(resolve(config))
    found = map_with_bar(simulate_row, wanted)
    return [
        Outcome(table=table, row=row, runs=tuple(next(found) for _ in own))
        for table, row, own in rows
    ]


def simulate_row(config: Config) -> Run:
    """Simulate one run of a row."""
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
