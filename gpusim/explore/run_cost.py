"""The wall time of a run, estimated before the run.

The migration runs over expected counts instead of bitmaps (pages/expected.py). This is quick, and
it decides as a run does, except for chance. Then some draws of this run are repeated for a moment
on the real backend over a few chunks, and their time is extrapolated.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np

from gpusim.config.backend import Backend
from gpusim.config.scenario import Scenario
from gpusim.engine.expected_run import expected_run
from gpusim.engine.records import Summary
from gpusim.layout import CHUNK_PAGES, CHUNK_SHIFT
from gpusim.pages import backends
from gpusim.pages.draw import certain_cells
from gpusim.pages.expected import ExpectedKernels
from gpusim.pages.primitives import Kernels, Op, Step
from gpusim.units import NS_PER_S
from gpusim.wall_limit import WallLimit

LONGEST_NS = 20 * NS_PER_S  # wall time of the run over expected counts
SAMPLE_CHUNKS = 2048  # bitmaps of the sample, if the VM has so many: more than a cache holds
DRAW_CHUNKS = {"cupy": 2048}  # chunks of a repeated draw. A GPU needs many at a time
DRAW_CHUNKS_ON_CPU = 128


@dataclass(frozen=True)
class Estimate:
    """The expected result and cost of a run.

    Attributes:
        summary: of the run over expected counts. Its status is `incomplete` if it took too long.
        wall_s: wall time of the run, to within a factor of two.
        slow_memory_wall_s: the same if the machine has to find the memory first.
    """

    summary: Summary
    wall_s: float
    slow_memory_wall_s: float

    @property
    def is_complete(self) -> bool:
        """Whether the run over expected counts ended. If not, then all times are lower bounds."""
        return self.summary.status == "ok"


def estimate_run(scenario: Scenario, backend: Backend) -> Estimate:
    """Return what to expect of a run. It takes seconds and a small part of the run's memory."""
    sample = min(SAMPLE_CHUNKS, scenario.layout.chunks)
    draw_chunks = min(DRAW_CHUNKS.get(backend.name, DRAW_CHUNKS_ON_CPU), sample)
    summary, expected = expected_run(scenario, WallLimit(LONGEST_NS), draw_chunks)
    kernels, first_s = _make_filled(backend, expected, sample)
    kernels.close()
    kernels, again_s = _make_filled(backend, expected, sample)
    rest_s = summary.wall_time_s - expected.spent_s + _measure_draws(kernels, expected, sample)
    kernels.close()
    times = scenario.layout.chunks / sample
    return Estimate(
        summary,
        wall_s=rest_s + min(first_s, again_s) * times,
        slow_memory_wall_s=rest_s + max(first_s, again_s) * times,
    )


def _measure_draws(kernels: Kernels, expected: ExpectedKernels, sample: int) -> float:
    """Return the seconds that all draws would take, loading the code included.

    Args:
        kernels: of `sample` chunks. The repeated draws follow each other in them.
        expected: has the draws that it kept.
        sample: number of chunks.
    """
    nothing = np.zeros(0, np.int64)
    empty = Step(Op.MERGE, certain_cells(nothing, nothing), nothing)
    _time_step(kernels, empty)
    call_s = _time_step(kernels, empty)
    kept = list(expected.kept)
    chunk_s: dict[int, list[float]] = {}  # seconds per chunk of each step of a kept draw
    spent_s, at = 0.0, 0
    for step in expected.kept.get(0, ()):  # twice: compiled code is loaded at its first use
        spent_s += max(0.0, _time_step(kernels, step) - _time_step(kernels, step))
    for draw in kept:
        chunk_s[draw] = []
        for step in expected.kept[draw]:
            at = at if at + len(step.chunks) <= sample else 0
            step_s = _time_step(kernels, _shift_step(step, at)) - call_s
            chunk_s[draw].append(max(0.0, step_s) / max(1, len(step.chunks)))
            at += len(step.chunks)
    for draw, chunks in enumerate(expected.chunks_drawn):  # costs as the next draw that was kept
        place = min(int(np.searchsorted(kept, draw)), len(kept) - 1)
        spent_s += call_s * len(chunks) + float(np.dot(chunks, chunk_s[kept[place]]))
    return spent_s


def _make_filled(backend: Backend, expected: ExpectedKernels, chunks: int) -> tuple[Kernels, float]:
    """Return bitmaps with every page set, and the seconds that setting them took."""
    kernels = backends.make_kernels(
        backend.name,
        chunks,
        log=expected.log is not None,
        zero=expected.zero is not None,
        threads=backend.threads,
    )
    start = time.perf_counter()
    first = np.arange(chunks) << CHUNK_SHIFT
    for bitmap in (kernels.dirty, kernels.log, kernels.zero):
        if bitmap is not None:
            kernels.fill(bitmap, first, first + CHUNK_PAGES)
    return kernels, time.perf_counter() - start


def _time_step(kernels: Kernels, step: Step) -> float:
    start = time.perf_counter()
    kernels.paint([step])
    return time.perf_counter() - start


def _shift_step(step: Step, chunks: int) -> Step:
    """Return the same step, `chunks` chunks further on."""
    pages = chunks << CHUNK_SHIFT
    cells, mask = (
        None if one is None else replace(one, first=one.first + pages, last=one.last + pages)
        for one in (step.cells, step.mask)
    )
    assert cells is not None
    return Step(step.op, cells, step.chunks + chunks, mask)
