"""Thousands of small migrations in one process, one after the other, or in a few.

Owns how many processes there are and in which order results come; it knows neither files nor Hydra.
"""

from __future__ import annotations

import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from typing import Any, TypeVar

from gpusim.config.schema import Config
from gpusim.engine.attempts import simulate
from gpusim.engine.records import Result

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")


def simulate_many(configs: Iterable[Config], *, workers: int = 1) -> Iterator[Result | Exception]:
    """Simulate many migrations; one that cannot be simulated does not stop the others.

    Args:
        configs: of the migrations; one worker asks for them one by one, several for all at once.
        workers: processes; 1: this one alone, 0: one a core. A program that asks for several must
            guard its start by `if __name__ == "__main__"`, as multiprocessing demands.

    Yields:
        in the order of `configs` what `simulate` returns, or the exception that it raised;
        BrokenProcessPool where a worker was killed.

    Raises:
        ValueError: `workers` is negative.
    """
    return in_turn(_outcome, configs, workers, lambda _, error: error)


def in_turn(
    function: Callable[[Item], Outcome],
    items: Iterable[Item],
    workers: int,
    lost: Callable[[Item, Exception], Outcome],
) -> Iterator[Outcome]:
    """`map`, in this process or in several.

    Args:
        lost: what comes of an item whose process was killed; the others go on.
    """
    if workers < 0:
        raise ValueError(f"workers = {workers}: must be 1 or more, or 0 for one a core")
    return map(function, items) if workers == 1 else _in_processes(function, items, workers, lost)


def _in_processes(
    function: Callable[[Item], Outcome],
    items: Iterable[Item],
    workers: int,
    lost: Callable[[Item, Exception], Outcome],
) -> Iterator[Outcome]:
    left = deque(items)
    while left:
        with (
            suppress(BrokenProcessPool),
            processes(workers or len(os.sched_getaffinity(0))) as pool,
        ):
            for future in [pool.submit(function, item) for item in left]:
                outcome = future.result()
                left.popleft()
                yield outcome
        if left:  # one of those under way took its process down: the first of them is tried alone
            with processes(1) as pool:
                try:
                    outcome = pool.submit(function, left[0]).result()
                except BrokenProcessPool as error:
                    outcome = lost(left[0], error)
            left.popleft()
            yield outcome


class _Deaf(ProcessPoolExecutor):
    """Its processes never see an interrupt, from their first moment on: a child keeps what is blocked."""

    def submit(self, *arguments: Any, **named: Any) -> Future[Any]:
        """Begin one, in a process that is started now if there are too few."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        try:
            return super().submit(*arguments, **named)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def processes(count: int) -> Iterator[ProcessPoolExecutor]:
    """Processes that leave an interrupt to this one; on any error the rest is not begun."""
    # A forked child of one with threads or a GPU may hang.
    pool = _Deaf(count, mp_context=get_context("spawn"))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _outcome(config: Config) -> Result | Exception:
    try:
        return simulate(config)
    except Exception as error:
        return error
