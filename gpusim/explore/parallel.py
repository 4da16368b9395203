"""Many independent runs, spread over processes, with one bar."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

from tqdm import tqdm

Task = TypeVar("Task")
Found = TypeVar("Found")


def spread(function: Callable[[Task], Found], tasks: Sequence[Task]) -> Iterator[Found]:
    """`function` of each task, in their order; in parallel where there is more than one core."""
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    workers = min(cores, len(tasks))
    if workers < 2:
        yield from _with_bar(map(function, tasks), len(tasks))
        return
    spawn = multiprocessing.get_context("spawn")  # tqdm's thread and fork do not go together
    with ProcessPoolExecutor(workers, mp_context=spawn) as pool:
        yield from _with_bar(pool.map(function, tasks), len(tasks))


def _with_bar(results: Iterator[Found], total: int) -> Iterator[Found]:
    yield from tqdm(results, total=total, unit="run", disable=None, leave=False)
