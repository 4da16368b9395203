"""All process pools: many small migrations in this process, or in several.

Owns how many processes there are and in which order results come. It knows neither files nor Hydra.
"""

from __future__ import annotations

import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from multiprocessing import get_context
from typing import Any, TypeVar
from weakref import WeakSet

from gpusim.config.schema import Config
from gpusim.engine.attempts import simulate
from gpusim.engine.records import Result
from gpusim.parent import become_worker

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


class _Pool(ProcessPoolExecutor):
    """A pool whose processes die with this one, and never see an interrupt.

    One thread starts all of them. A child inherits the signals that this thread blocks, and the
    kernel kills the child if this thread ends.

    Args:
        count: number of processes.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._calls: WeakSet[Future[Any]] = WeakSet()
        # Python's resource tracker starts here, ignores only SIGINT and SIGTERM, and prints if it dies.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP])
        try:
            # A forked child of a process with threads or a GPU may hang.
            super().__init__(count, mp_context=get_context("spawn"), initializer=become_worker)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        blocked = [signal.SIGINT, signal.SIGHUP]  # a terminal sends both to the whole group
        self._starter = ThreadPoolExecutor(
            1, initializer=signal.pthread_sigmask, initargs=(signal.SIG_BLOCK, blocked)
        )
        _open_pools.add(self)

    def submit(self, *arguments: Any, **named: Any) -> Future[Any]:
        """Start one call. This may start a process, too."""
        future: Future[Any] = self._starter.submit(super().submit, *arguments, **named).result()
        self._calls.add(future)
        return future

    def calls(self) -> set[Future[Any]]:
        """Return the calls so far, except for those that nobody knows any more."""
        return set(self._calls)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Wait for the calls that run, and end the processes."""
        super().shutdown(wait, cancel_futures=cancel_futures)
        self._starter.shutdown(wait)

    def kill(self) -> None:
        """End the processes at once, in the middle of a call too."""
        self._starter.shutdown()  # no process starts after this
        for process in list((self._processes or {}).values()):
            process.kill()
        results = self._result_queue  # None after a shutdown
        if results is not None:  # whoever waits for the rest of a result reads that it ends
            results._writer.close()  # type: ignore[attr-defined]
        self.shutdown(cancel_futures=True)


_open_pools: WeakSet[_Pool] = WeakSet()


def _kill_pools() -> None:
    for pool in list(_open_pools):
        pool.kill()


# An exception keeps the frames that it passed, and with them a suspended `_map_in_processes`. When
# Python exits, ProcessPoolExecutor waits for all calls of such a pool. This runs before that.
threading._register_atexit(_kill_pools)  # type: ignore[attr-defined]


# The open pool of `kept_processes`.
_kept: ContextVar[_Pool | None] = ContextVar("_kept", default=None)


@contextmanager
def kept_processes(load: Callable[[], object]) -> Iterator[None]:
    """Keep one pool of one process per core, and let each `processes` call in this block use it.

    Args:
        load: is called once per process, importable by name, so that each loads what calls need.
            One process may take several of these calls.
    """
    count = count_cores()
    with processes(count) as pool:
        with suppress(BrokenProcessPool):  # the first call that matters tells
            for _ in range(count):
                pool.submit(load)
        token = _kept.set(pool if isinstance(pool, _Pool) else None)
        try:
            yield
        finally:
            _kept.reset(token)


@contextmanager
def processes(count: int) -> Iterator[ProcessPoolExecutor]:
    """Yield a pool of processes. They die with this one, and leave an interrupt to it.

    Calls that have not started when the block ends are cancelled. If the block ends with an error or
    an interrupt, then calls that run are killed too. Inside `kept_processes` a pool of one process
    per core is the kept one, whose processes go on after this block.
    """
    kept = _kept.get()
    is_kept = kept is not None and kept.count == count
    pool = kept if kept is not None and is_kept else _Pool(count)
    before = pool.calls()
    try:
        yield pool
        if is_kept:
            for call in pool.calls() - before:
                call.cancel()
        else:
            pool.shutdown(cancel_futures=True)
    except BaseException:
        if is_kept:
            _kept.set(None)
        pool.kill()
        raise
