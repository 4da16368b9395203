"""Runs that answer "does this config converge?", in this process or in several.

This module owns how such a run is simulated and how long it may take. It does not know why a run
is wanted.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor, Future
from contextlib import ExitStack
from dataclasses import replace
from time import monotonic
from types import TracebackType
from typing import TypeAlias

from gpusim.config.backend import Backend
from gpusim.config.scenario import resolve
from gpusim.config.schema import Config
from gpusim.engine.attempts import simulate_scenario
from gpusim.engine.expected_run import expected_run
from gpusim.engine.records import Summary
from gpusim.errors import ConfigError
from gpusim.explore.workers import count_cores, processes
from gpusim.qemu.rules import RuleError
from gpusim.units import NS_PER_S

Outcome: TypeAlias = Summary | ConfigError | RuleError | None

NUMPY = Backend("numpy", reason="compiles and loads nothing", threads=1)
SMALL_BYTES = 2**32  # up to this size real bitmaps take no longer than expected shares


def outcome(config: Config, until_s: float, small_bytes: float = SMALL_BYTES) -> Outcome:
    """Simulate a config until it ends or time is up.

    Args:
        config: the config of the run. Its backend and wall limit are ignored.
        until_s: a time of `monotonic`, which all processes of a machine share.
        small_bytes: a VM up to this size is simulated over bitmaps, a larger one over expected
            shares.

    Returns:
        the summary of a run that ended, the error of a config that cannot be simulated or of a
        user's rule that fails, or None if time was up.
    """
    left_ns = round((until_s - monotonic()) * NS_PER_S)
    if left_ns <= 0:
        return None
    try:
        scenario = resolve(config)
        if scenario.vm_bytes > small_bytes:
            summary, _ = expected_run(scenario, left_ns)
        else:
            earlier = tuple(
                replace(one, wall_limit_ns=left_ns) for one in scenario.earlier_attempts
            )
            limited = replace(scenario, wall_limit_ns=left_ns, earlier_attempts=earlier)
            summary = simulate_scenario(limited, NUMPY).summary
    except (ConfigError, RuleError) as error:
        return error
    return summary if summary.status == "ok" else None


class RunPool:
    """Processes that run configs. Use it as a context.

    Attributes:
        at_a_time: how many runs are simulated at once.

    Args:
        workers: how many processes. 0: run everything in this process. None: one per core.
        small_bytes: see `outcome`.
    """

    def __init__(self, workers: int | None = None, small_bytes: float = SMALL_BYTES) -> None:
        self._workers = count_cores() if workers is None else workers
        self.at_a_time = max(1, self._workers)
        self._small_bytes = small_bytes
        self._executor: Executor | None = None
        self._stack = ExitStack()

    def __enter__(self) -> RunPool:
        if self._workers:
            self._executor = self._stack.enter_context(processes(self._workers))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def start(self, config: Config, until_s: float) -> Future[Outcome]:
        """Start one run. `outcome` describes the result."""
        if self._executor is not None:
            return self._executor.submit(outcome, config, until_s, self._small_bytes)
        done: Future[Outcome] = Future()
        done.set_result(outcome(config, until_s, self._small_bytes))
        return done

    def run_all(self, configs: Sequence[Config], until_s: float) -> list[Summary | None]:
        """Run all configs and return their summaries. None: time was up, or a wrong config."""
        futures = [self.start(config, until_s) for config in configs]
        found = [future.result() for future in futures]
        return [one if isinstance(one, Summary) else None for one in found]
