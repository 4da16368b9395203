"""All process pools: many small migrations in this process, or in several.

Owns how many processes there are and in which order results come. It knows neither files nor Hydra.
"""

from __future__ import annotations

import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
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
    """Simulate many migrations. An error in one does not stop the others.

    Args:
        configs: one per migration. One worker reads them one by one, several workers all at once.
        workers: number of processes. 1 is this process alone, 0 is one process per core. A program
            that asks for several must guard its start with `if __name__ == "__main__"`, as
            multiprocessing demands.

    Yields:
        In the order of `configs`: what `simulate` returns, or the exception that it raises, or
        BrokenProcessPool if a worker was killed.

    Raises:
        ValueError: `workers` is negative.
    """
    return map_in_order(_simulate_one, configs, workers, lambda _, error: error)


def _simulate_one(config: Config) -> Result | Exception:
    try:
        return simulate(config)
    except Exception as error:
        return error


def map_in_order(
    function: Callable[[Item], Outcome],
    items: Iterable[Item],
    workers: int,
    lost: Callable[[Item, Exception], Outcome],
) -> Iterator[Outcome]:
    """Yield `function(item)` for each item in order, from this process or from several.

    Args:
        function: importable by name if there are several processes.
        items: its arguments.
        workers: as for `simulate_many`.
        lost: returns the outcome of an item if its process was killed. The other items go on.

    Raises:
        ValueError: `workers` is negative.
    """
    if workers < 0:
        raise ValueError(f"workers = {workers}: must be 1 or more, or 0 for one per core")
    if workers == 1:
        return map(function, items)
    return _map_in_processes(function, items, workers, lost)


def _map_in_processes(
    function: Callable[[Item], Outcome],
    items: Iterable[Item],
    workers: int,
    lost: Callable[[Item, Exception], Outcome],
) -> Iterator[Outcome]:
    left = deque(items)
    while left:
        with suppress(BrokenProcessPool), processes(workers or count_cores()) as pool:
            for future in [pool.submit(function, item) for item in left]:
                outcome = future.result()
                left.popleft()
                yield outcome
        if left:  # one of the running items killed its process: try the first of them alone
            with processes(1) as pool:
                try:
                    outcome = pool.submit(function, left[0]).result()
                except BrokenProcessPool as error:
                    outcome = lost(left[0], error)
            left.popleft()
            yield outcome


def map_with_bar(function: Callable[[Item], Outcome], items: Sequence[Item]) -> Iterator[Outcome]:
    """Yield `function(item)` for each item in order, with a progress bar on a terminal.

    Several cores run several items at once.
    """
    from tqdm import tqdm

    workers = min(count_cores(), len(items))
    if workers < 2:
        yield from tqdm(
            map(function, items), total=len(items), unit="run", disable=None, leave=False
        )
        return
    with processes(workers) as pool:
        outcomes = pool.map(function, items)
        yield from tqdm(outcomes, total=len(items), unit="run", disable=None, leave=False)


def count_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0))


class _PoolWithoutInterrupts(ProcessPoolExecutor):
    """A pool whose processes never see an interrupt: a child inherits the blocked signals."""

    def submit(self, *arguments: Any, **named: Any) -> Future[Any]:
        """Start one call. This may start a process, too."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        try:
            return super().submit(*arguments, **named)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def processes(count: int) -> Iterator[ProcessPoolExecutor]:
    """Yield a pool of processes that leave an interrupt to this one.

    If the block ends with an error, then calls that have not started are cancelled.
    """
    # A forked child of a process with threads or a GPU may hang.
    pool = _PoolWithoutInterrupts(count, mp_context=get_context("spawn"))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
