"""Do Pages and the per-page state machine of QEMU and KVM agree in every bit?

Both get random schedules of writes, takes and syncs. The machine gets every write when it happens.
Pages gets the writes at the sync, split at each chunk's clear. Afterwards all bits must be equal.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpusim.layout import CHUNK_PAGES, FloatArray, IntArray, Layout, Writes
from gpusim.pages.draw import cells_of
from gpusim.pages.numpy_kernels import NumpyKernels
from gpusim.pages.pages import Pages
from gpusim.pages.primitives import Op, Step
from tests.pages.naive import SLOW_MACHINE, Bits, Budgets, NaivePages, bits_of

EMPTY = np.zeros(0, np.int64)
SMALL = ((300,), (300, 70, 70), (64, 129, 1, 300, 63))
LARGE = ((CHUNK_PAGES + 77, 300), (CHUNK_PAGES, 129))
MODES = {
    "eager": (False, False),
    "lazy": (True, False),
    "lazy, initially set": (True, True),
}

fraction = st.floats(0, 1, exclude_max=True)
run = st.tuples(fraction, st.one_of(st.just(1e-9), st.floats(0, 0.6), st.just(1.0)))
runs = st.lists(run, max_size=4)
cost = st.tuples(st.integers(0, 9), st.integers(0, 9))
budget = st.tuples(st.floats(0, 1.5), cost)
event = st.one_of(
    st.tuples(st.just("write"), runs),
    st.tuples(st.just("write"), runs),
    st.tuples(st.just("take"), st.lists(budget, min_size=1, max_size=2)),
    st.tuples(st.just("sync"), st.none()),
)


def pages_of(layout: Layout, parts: list[tuple[float, float]]) -> list[tuple[int, int]]:
    """Convert runs given as fractions of the VM to runs of guest pages."""
    found = []
    for start, length in parts:
        first = int(start * layout.pages)
        found.append((first, min(layout.pages, first + max(1, int(length * layout.pages)))))
    return found


def marked(layout: Layout, found: list[tuple[int, int]]) -> Bits:
    bits = np.zeros(layout.pages, np.bool_)
    for first, last in found:
        bits[first:last] = True
    return bits


def certain(layout: Layout, bits: Bits) -> Writes:
    """Return writes that certainly write these pages."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], bits.view(np.int8), [0]])))
    first, last, _ = layout.cut(edges[0::2], edges[1::2])
    return Writes(first=EMPTY, last=EMPTY, mean=np.zeros(0), certain_first=first, certain_last=last)


@dataclass
class Both:
    """Pages and the naive machine, side by side."""

    layout: Layout
    pages: Pages
    naive: NaivePages

    @classmethod
    def of(cls, blocks: tuple[int, ...], mode: str, zero: list[tuple[float, float]]) -> Both:
        layout = Layout(blocks)
        lazy, initially_set = MODES[mode]
        bits = marked(layout, pages_of(layout, zero))
        edges = np.flatnonzero(np.diff(np.concatenate([[0], bits.view(np.int8), [0]])))
        pages = Pages(
            layout,
            zero_first=edges[0::2],
            zero_last=edges[1::2],
            lazy=lazy,
            initially_set=initially_set,
            seed=1,
            threads=1,
        )
        naive = NaivePages(layout, lazy, initially_set, bits.copy())
        pages.start()
        naive.sync()
        both = cls(layout, pages, naive)
        both.assert_same()
        return both

    def take(self, budgets: Budgets) -> list[int]:
        """Take from both. Return the cleared chunks."""
        taken, expected = self.pages.take(budgets), self.naive.take(budgets)
        assert (taken.normal, taken.zero) == (expected.normal, expected.zero)
        clears = zip(
            taken.cleared.tolist(),
            taken.normal_before.tolist(),
            taken.zero_before.tolist(),
            strict=True,
        )
        assert list(clears) == expected.clears
        self.assert_same()
        return taken.cleared.tolist()

    def assert_same(self) -> None:
        """Compare every bit and count that both keep between syncs."""
        pages, naive, layout = self.pages, self.naive, self.layout
        assert np.array_equal(bits_of(pages.kernels.dirty, layout), naive.dirty)
        for counts, bits in (
            (pages.counts.normal, naive.dirty & ~naive.zero),
            (pages.counts.zero, naive.dirty & naive.zero),
        ):
            expected = np.bincount(naive.chunk, weights=bits, minlength=layout.chunks)
            assert np.array_equal(counts, expected)
        assert pages.pending == naive.pending
        assert (pages.cursor.guest_page, pages.cursor.wraps) == (naive.cursor, naive.wraps)

    def assert_same_log(self) -> None:
        """Compare the log and the zero pages, which are only equal after a sync."""
        if self.pages.kernels.log is not None:
            assert np.array_equal(bits_of(self.pages.kernels.log, self.layout), self.naive.log)
        if self.pages.kernels.zero is not None:
            assert np.array_equal(bits_of(self.pages.kernels.zero, self.layout), self.naive.zero)


def play(blocks: tuple[int, ...], mode: str, zero: list, schedule: list) -> None:
    """Run a schedule on both, and compare after every step."""
    both = Both.of(blocks, mode, zero)
    layout, lazy = both.layout, MODES[mode][0]
    before, after = np.zeros((2, layout.pages), np.bool_)
    cleared = np.zeros(layout.chunks, np.bool_)
    for kind, what in [*schedule, ("sync", None)]:
        if kind == "write":
            bits = marked(layout, pages_of(layout, what))
            both.naive.write(bits)
            after |= bits
        elif kind == "take":
            budgets = [(int(part * layout.pages * max(costs)), *costs) for part, costs in what]
            for chunk in both.take(budgets):
                inside = both.naive.chunk == chunk
                assert not cleared[chunk], "a chunk is cleared once between two syncs"
                before[inside], after[inside], cleared[chunk] = after[inside], False, True
        else:
            writes = certain(layout, before) if lazy else None
            assert both.pages.sync(certain(layout, after), writes) == both.naive.sync()
            both.assert_same()
            both.assert_same_log()
            before[:], after[:], cleared[:] = False, False, False


@pytest.mark.parametrize("mode", MODES)
@given(st.sampled_from(SMALL), runs, st.lists(event, max_size=14))
@settings(SLOW_MACHINE, max_examples=80)
def test_schedules_on_small_blocks(
    mode: str, blocks: tuple[int, ...], zero: list, schedule: list
) -> None:
    play(blocks, mode, zero, schedule)


@pytest.mark.parametrize("mode", MODES)
@given(st.sampled_from(LARGE), runs, st.lists(event, min_size=4, max_size=10))
@settings(SLOW_MACHINE, max_examples=6)
def test_schedules_over_whole_chunks(
    mode: str, blocks: tuple[int, ...], zero: list, schedule: list
) -> None:
    play(blocks, mode, zero, schedule)


def random_writes(layout: Layout, random: np.random.Generator) -> Writes:
    """Return cells and certain runs over the whole VM."""
    borders = np.unique(np.concatenate([[0, layout.pages], random.integers(0, layout.pages, 9)]))
    first, last, _ = layout.cut(borders[:-1], borders[1:])
    mean: FloatArray = random.choice([0, 0.001, 0.04, 0.3, 0.7, 4, np.inf], len(first))
    some: IntArray = random.integers(0, layout.pages, 2)
    certain_first, certain_last, _ = layout.cut(some, np.minimum(some + 90, layout.pages))
    return Writes(
        first=first,
        last=last,
        mean=mean,
        certain_first=certain_first,
        certain_last=certain_last,
    )


def drawn(layout: Layout, writes: Writes, seed: int, draw: int, step: int) -> Bits:
    """Return the pages that a draw of these writes marks in an empty bitmap."""
    kernels = NumpyKernels(layout.chunks, log=False, zero=False, threads=1)
    cells = cells_of(writes, seed, draw, step)
    kernels.paint([Step(Op.MERGE, cells, np.arange(layout.chunks))])
    return bits_of(kernels.dirty, layout)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("seed", range(4))
def test_drawn_writes_are_merged_like_writes(mode: str, seed: int) -> None:
    """Drawn pages, written page by page into the machine, give the same bits."""
    random = np.random.Generator(np.random.Philox(seed))
    blocks = (LARGE[0], SMALL[1])[seed % 2]
    both = Both.of(blocks, mode, [(random.random(), 0.3)] if seed % 3 else [])
    layout, lazy = both.layout, MODES[mode][0]
    for draw in range(1, 5):
        early, late = random_writes(layout, random), random_writes(layout, random)
        limit = int(random.integers(0, 2 * layout.pages))
        if lazy:  # early writes count only in chunks that this take will clear
            trial = NaivePages(layout, True, False, both.naive.zero.copy())
            trial.dirty, trial.cursor = both.naive.dirty.copy(), both.naive.cursor
            trial.clear_due[:] = True
            chunks = [clear[0] for clear in trial.take([(limit, 2, 1)]).clears]
            both.naive.write(drawn(layout, early, 1, draw, 1) & np.isin(both.naive.chunk, chunks))
        both.take([(limit, 2, 1)])
        both.naive.write(drawn(layout, late, 1, draw, 0))
        assert both.pages.sync(late, early if lazy else None) == both.naive.sync()
        both.assert_same()
        both.assert_same_log()
