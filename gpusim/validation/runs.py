"""The runs of a validation: one replay per recording, and a prediction of it for each seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeAlias

from gpusim.config.backend import choose_backend
from gpusim.config.scenario import resolve
from gpusim.config.schema import Config
from gpusim.engine.attempts import simulate
from gpusim.errors import ConfigError
from gpusim.explore.workers import map_with_bar
from gpusim.formats.quantities import Quantities, simulated_quantities
from gpusim.validation.accuracy import Case, Mode
from gpusim.validation.errors import ValidationError
from gpusim.validation.replay import predict_config, replay_config

Task: TypeAlias = tuple[int, Mode, Config]  # place of the case, mode, what to run


def plan_runs(
    cases: Sequence[Case],
    modes: Sequence[Mode],
    seeds: int,
    first_write_costs_ns: Mapping[str, float] | None = None,
) -> list[Task]:
    """Return every run to make: one replay per case, and a prediction of it for each seed.

    A recording of an unknown guest is only replayed.

    Args:
        cases: the recordings.
        modes: replay, predict or both.
        seeds: number of seeds for each prediction.
        first_write_costs_ns: cost of a first write in the predictions, by case. 0 if it is missing.

    Raises:
        ValidationError: a recording that cannot be simulated.
    """
    tasks: list[Task] = []
    for place, case in enumerate(cases):
        for mode in modes:
            if mode == "predict" and not case.recording.predictable:
                continue
            cost_ns = (first_write_costs_ns or {}).get(case.recording.case, 0.0)
            predict = partial(predict_config, first_write_cost_ns=cost_ns)
            build: Callable[..., Config] = replay_config if mode == "replay" else predict
            try:
                choose_backend(resolve(build(case.recording)))
            except ConfigError as error:
                name = case.recording.case
                raise ValidationError("cannot_simulate", case=name, reason=error) from None
            runs = 1 if mode == "replay" else seeds
            tasks += [(place, mode, build(case.recording, seed)) for seed in range(1, runs + 1)]
    return tasks


def make_runs(cases: Sequence[Case], tasks: Sequence[Task]) -> None:
    """Make the runs in parallel processes, and add their quantities to the cases."""
    for (place, mode, _), found in zip(tasks, map_with_bar(_run, tasks), strict=True):
        cases[place].runs.setdefault(mode, []).append(found)


def _run(task: Task) -> Quantities:
    found = simulated_quantities(simulate(task[2]))
    if task[2].link.bandwidth == "unlimited":
        return replace(found, downtime_ms=None)
    return found
