"""Are pages that are tracked as one drawn together, with the law of their writes?"""

from __future__ import annotations

import numpy as np
import pytest

from gpusim.layout import CHUNK_PAGES, CHUNK_SHIFT, Writes
from gpusim.pages.draw import draw_groups

EMPTY = np.zeros(0, np.int64)
SIZE = 512
Z = 5.0  # standard deviations


def groups(mean: list[float], *, count: int = 300, size: int = SIZE) -> Writes:
    """Return cells of `count` groups each. They cross no chunk, and the second ends one."""
    first = np.arange(len(mean)) * count * size
    first[1:] += CHUNK_PAGES - 2 * count * size
    return Writes(
        first=first,
        last=first + count * size,
        mean=np.array(mean),
        certain_first=np.array([7 * size]),
        certain_last=np.array([8 * size]),
        pages_together=size,
    )


@pytest.mark.parametrize("mean", [0.0, 1e-3, 0.05, 0.7, 3.0, 40.0, np.inf])
def test_a_group_is_hit_by_the_law_of_its_writes(mean: float) -> None:
    writes, seeds = groups([0.3, mean], count=200), 100
    hits = 0
    for seed in range(seeds):
        drawn = draw_groups(writes, seed, 1, 0)
        first, last = drawn.certain_first[:-1], drawn.certain_last[:-1]
        assert (first % SIZE == 0).all()
        assert (last % SIZE == 0).all()
        assert (last > first).all()
        assert (first[1:] > last[:-1]).all()  # neighbours are one run
        second = first >= writes.first[1]
        hits += int((last - first)[second].sum()) // SIZE
    n, p = seeds * 200, -np.expm1(-mean)
    assert abs(hits - n * p) <= Z * np.sqrt(n * p * (1 - p))


def test_runs_end_with_their_chunk() -> None:
    """All groups are hit. The runs meet at the end of a chunk."""
    count = 300
    drawn = draw_groups(groups([np.inf] * 3, count=count), 1, 1, 0)
    first, last = drawn.certain_first, drawn.certain_last
    assert ((first >> CHUNK_SHIFT) == ((last - 1) >> CHUNK_SHIFT)).all()
    assert int((last - first)[:-1].sum()) == 3 * count * SIZE
    assert (first[-1], last[-1]) == (7 * SIZE, 8 * SIZE)  # certain before


def test_draws_differ_by_seed_number_and_step() -> None:
    writes = groups([0.7])
    drawn = [draw_groups(writes, *key) for key in [(1, 1, 0), (2, 1, 0), (1, 2, 0), (1, 1, 1)]]
    again = draw_groups(writes, 1, 1, 0)
    texts = {one.certain_first.tobytes() for one in drawn}
    assert len(texts) == 4
    assert again.certain_first.tobytes() == drawn[0].certain_first.tobytes()


def test_single_pages_are_left_to_the_devices() -> None:
    writes = groups([0.7], size=1)
    assert draw_groups(writes, 1, 1, 0) is writes
    nothing = Writes(first=EMPTY, last=EMPTY, mean=np.zeros(0), certain_first=EMPTY,
                     certain_last=EMPTY, pages_together=SIZE)  # fmt: skip
    assert draw_groups(nothing, 1, 1, 0) is nothing
    assert len(draw_groups(groups([0.0]), 1, 1, 0).certain_first) == 1
