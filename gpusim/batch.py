"""Thousands of small migrations in one process, one after the other, or in a few.

Owns how many processes there are and in which order results come; it knows neither files nor Hydra.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import TypeVar

from gpusim.config import Config
from gpusim.records import Result
from gpusim.simulation import simulate

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")


def simulate_many(configs: Iterable[Config], *, workers: int = 1) -> Iterator[Result | Exception]:
    """Simulate many migrations; one that cannot be simulated does not stop the others.

    Args:
        configs: of the migrations; one worker asks for them one by one, several for all at once.
        workers: processes; 1: this one alone, 0: one a core. A program that asks for several must
            guard its start by `if __name__ == "__main__"`, as multiprocessing demands.

    Yields:
        in the order of `configs` what `simulate` returns, or the exception that it raised.

    Raises:
        ValueError: `workers` is negative.
    """
    return in_turn(_outcome, configs, workers)


def in_turn(
    function: Callable[[Item], Outcome], items: Iterable[Item], workers: int
) -> Iterator[Outcome]:
    """`map`, in this process or in several; see `simulate_many` for the arguments."""
    if workers < 0:
        raise ValueError(f"workers = {workers}: must be 1 or more, or 0 for one a core")
    return map(function, items) if workers == 1 else _in_processes(function, items, workers)


def _in_processes(
    function: Callable[[Item], Outcome], items: Iterable[Item], workers: int
) -> Iterator[Outcome]:
    # spawn: a forked child of a process that holds threads or a GPU may hang
    processes = workers or len(os.sched_getaffinity(0))
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        yield from pool.map(function, items)


def _outcome(config: Config) -> Result | Exception:
    try:
        return simulate(config)
    except Exception as error:
        return error
