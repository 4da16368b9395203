"""Runs that answer "does this config converge?", in this process or in several.

This module owns how much work such a run may take, and which runs are known already. It
does not know why a run is wanted. No answer depends on the speed of the machine.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from concurrent.futures import Executor, Future
from contextlib import ExitStack
from dataclasses import replace
from types import TracebackType
from typing import TypeAlias

from gpusim.config.backend import Backend
from gpusim.config.checks import parse_duration_ns
from gpusim.config.schema import Config
from gpusim.engine.records import Summary
from gpusim.errors import ConfigError
from gpusim.explore.estimate import SMALL_BYTES, estimate
from gpusim.explore.workers import count_cores, processes
from gpusim.qemu.rules import RuleError
from gpusim.units import NS_PER_S

Outcome: TypeAlias = Summary | ConfigError | RuleError

NUMPY = Backend("numpy", reason="compiles and loads nothing", threads=1)
# Steps of the engine's loops in one run. Runs of a VM of 1 TiB that converge take 3,000 to 20,000. Runs
# that hover at the threshold for hundreds of passes take more.
MOST_STEPS = 40_000


def outcome(
    config: Config, most_steps: int = MOST_STEPS, small_bytes: float = SMALL_BYTES
) -> Outcome:
    """Simulate a config until it ends.

    Args:
        config: the config of the run. Its backend is ignored.
        most_steps: how many steps of the engine. A run that takes more, or more time than the
            config's `limit.wall`, has the status `incomplete` and no verdict.
        small_bytes: see `estimate`.

    Returns:
        the summary of the run without its cost, the error of a config that cannot be simulated or
        of a user's rule that fails.
    """
    try:
        found = estimate(config, backend=NUMPY, most_steps=most_steps, small_bytes=small_bytes)
    except (ConfigError, RuleError) as error:
        return error
    return replace(found.summary, wall_time_s=0.0, process_peak_rss_bytes=0)


class RunPool:
    """Processes that run configs, each config once. Use it as a context.

    Attributes:
        at_a_time: how many runs are simulated at once.

    Args:
        workers: how many processes. 0: run everything in this process. None: one per core.
        small_bytes, most_steps: see `outcome`.
    """

    def __init__(
        self,
        workers: int | None = None,
        small_bytes: float = SMALL_BYTES,
        most_steps: int = MOST_STEPS,
    ) -> None:
        self._workers = count_cores() if workers is None else workers
        self.at_a_time = max(1, self._workers)
        self._small_bytes, self._most_steps = small_bytes, most_steps
        self._executor: Executor | None = None
        self._stack = ExitStack()
        self._known: dict[str, list[tuple[float, Future[Outcome]]]] = {}
        self._when_idle: deque[Config] = deque()

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

    def start(self, config: Config) -> Future[Outcome]:
        """Start one run, or return the known one. `outcome` describes the result."""
        limit_s = parse_duration_ns("limit.simulated", config.limit.simulated) / NS_PER_S
        key = repr(replace(config, limit=replace(config.limit, simulated=0)))
        known = self._known.setdefault(key, [])
        for other_s, future in known:
            if other_s == limit_s or _ends_within(future, limit_s):
                return future
        known.append((limit_s, self._start(config)))
        return known[-1][1]

    def _start(self, config: Config) -> Future[Outcome]:
        if self._executor is not None:
            return self._executor.submit(outcome, config, self._most_steps, self._small_bytes)
        done: Future[Outcome] = Future()
        done.set_result(outcome(config, self._most_steps, self._small_bytes))
        return done

    def run_when_idle(self, configs: Iterable[Config]) -> None:
        """Remember runs that will be wanted later, for `start_when_idle`."""
        self._when_idle.extend(configs)

    def start_when_idle(self) -> Future[Outcome] | None:
        """Start the next run that will be wanted later, or return None if there is none."""
        return self.start(self._when_idle.popleft()) if self._when_idle else None

    def run_all(self, configs: Sequence[Config]) -> list[Summary | None]:
        """Run all configs and return their summaries. None: a wrong config, or a rule that fails."""
        futures = [self.start(config) for config in configs]
        found = [future.result() for future in futures]
        return [one if isinstance(one, Summary) else None for one in found]


def _ends_within(future: Future[Outcome], limit_s: float) -> bool:
    """Return whether a run has ended well within a time, so that no such limit changes it."""
    if not future.done() or future.exception() is not None:
        return False
    found = future.result()
    return (
        isinstance(found, Summary) and found.verdict == "converged" and found.total_time_s < limit_s
    )
