"""Measures the host's part of a sync on a GPU, for docs/explanation/performance.md.

`python -m tests.parity.host_time` prints the table. It repeats the first sync of a migration that
draws writes, through the real CuPy on the played device, with kernels that do nothing. Times are
CPU times of the thread, as the first quartile of the repeats. They include the functions of the
played device, which are Python.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from gpusim.config.compose import composed_config
from gpusim.engine.attempts import simulate
from gpusim.pages import pages as module
from gpusim.pages.pages import Pages
from tests.parity.fake_cuda import machine  # before CuPy

CASES = {
    "25 %, eager": [],
    "90 %, eager": ["workload.working_set_percent=90"],
    "25 %, lazy (two merges)": ["tracking=kvm_manual"],
}
REPEATS = 400


class _Measured(BaseException):
    """Ends a migration. No handler of the engine stops it."""


def timed(work: Callable[..., Any], times_us: list[float]) -> Callable[..., Any]:
    """Return a function that does the same and notes its CPU time."""

    def call(*arguments: Any) -> Any:
        start = time.thread_time()
        result = work(*arguments)
        times_us.append(1e6 * (time.thread_time() - start))
        return result

    return call


def measure(pages: Pages, sync: Callable[..., int], arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the cells of a sync, its time and the time of its integers, in microseconds."""
    all_us: list[float] = []
    integers_us: list[float] = []
    due, drawing = pages._clears.due.copy(), module.cells_of
    for repeat in range(2 * REPEATS):
        pages._clears.due[:] = due
        pages.counts.normal[:] = 0  # a chunk of which all pages are pending is not drawn
        if repeat % 2:
            timed(sync, all_us)(pages, *arguments)
        else:
            of_steps: list[float] = []
            module.cells_of = timed(drawing, of_steps)
            sync(pages, *arguments)
            module.cells_of = drawing
            integers_us.append(sum(of_steps))
    first_quartiles = (sorted(one)[REPEATS // 4] for one in (all_us, integers_us))
    return len(arguments[0].first), *first_quartiles


def measured(overrides: list[str]) -> tuple[Any, ...]:
    """Return what `measure` finds in a migration of 10 TB."""
    found: list[tuple[Any, ...]] = []
    sync = Pages.sync

    def watched(pages: Pages, writes: Any, before_clear: Any = None) -> int:
        if not len(writes.first):
            return sync(pages, writes, before_clear)
        machine.skip = True
        found.append(measure(pages, sync, (writes, before_clear)))
        raise _Measured

    Pages.sync = watched  # type: ignore[method-assign]
    try:
        simulate(composed_config(["experiment=peter_xu_10tb", "backend=cupy", *overrides]))
    except _Measured:
        return found[0]
    finally:
        Pages.sync = sync  # type: ignore[method-assign]
        machine.skip = False
    raise AssertionError("the migration drew no writes")


def main() -> None:
    """Print the table."""
    print("| 10 TB | cells | host, us | of this for the integers, us |\n|---|---|---|---|")
    for name, overrides in CASES.items():
        cells, all_us, integers_us = measured(overrides)
        print(f"| {name} | {cells} | {all_us:.0f} | {integers_us:.0f} |", flush=True)


if __name__ == "__main__":
    main()
