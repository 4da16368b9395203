"""Simulated migrations side by side, each until it ends or time is up: what advice is made of.

Owns the processes and which of two ways a run is simulated; it knows nothing of why it is wanted.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import Executor, Future
from contextlib import ExitStack
from dataclasses import replace
from time import monotonic
from types import TracebackType

from gpusim.config.scenario import resolve
from gpusim.config.schema import BackendConfig, Config
from gpusim.engine.attempts import simulate
from gpusim.engine.expected_run import expected_run
from gpusim.engine.records import Summary
from gpusim.errors import ConfigError
from gpusim.explore.workers import processes
from gpusim.units import NS_PER_S

SMALL_BYTES = 2**32  # up to which real bitmaps take no longer than expected shares


def outcome(config: Config, until_s: float) -> Summary | None:
    """What comes of a config: over bitmaps where the VM is small, else over expected shares.

    Args:
        until_s: by `monotonic`, which all processes of a machine share.

    Returns:
        None if there is no time to see it end, or if it cannot be simulated.
    """
    left_s = until_s - monotonic()
    if left_s <= 0:
        return None
    config = replace(config, backend=BackendConfig(name="numpy"))  # it compiles and loads nothing
    try:
        scenario = resolve(config)
        if scenario.layout.pages * scenario.page_bytes > SMALL_BYTES:
            summary, _ = expected_run(scenario, round(left_s * NS_PER_S))
        else:
            limit = replace(config.limit, wall=left_s)
            summary = simulate(replace(config, limit=limit)).summary
    except ConfigError:  # a value of a ladder that this VM or this machine does not allow
        return None
    return summary if summary.status == "ok" else None


class Workers:
    """Processes that simulate, one a core; a context.

    Attributes:
        at_a_time: how many there are.

    Args:
        count: of processes; 0: this one does it all. None: one a core.
    """

    def __init__(self, count: int | None = None) -> None:
        self._count = len(os.sched_getaffinity(0)) if count is None else count
        self.at_a_time = max(1, self._count)
        self._pool: Executor | None = None
        self._stack = ExitStack()

    def __enter__(self) -> Workers:
        if self._count:
            self._pool = self._stack.enter_context(processes(self._count))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def start(self, config: Config, until_s: float) -> Future[Summary | None]:
        """Begin one; see `outcome`."""
        if self._pool is not None:
            return self._pool.submit(outcome, config, until_s)
        done: Future[Summary | None] = Future()
        done.set_result(outcome(config, until_s))
        return done

    def all(self, configs: Sequence[Config], until_s: float) -> list[Summary | None]:
        """What comes of each."""
        return [future.result() for future in [self.start(one, until_s) for one in configs]]
