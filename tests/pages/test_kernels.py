"""Do the kernels paint what the documented hash says, on every thread count, merged as documented?

Cells come as integers, so nothing here depends on floats or on numpy's random stream. The digests
are the same for every device and every backend.
"""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from gpusim.layout import CHUNK_PAGES, CHUNK_SHIFT, CHUNK_WORDS, IntArray
from gpusim.pages.draw import Cells
from gpusim.pages.numpy_kernels import FEW, THREADS_FROM, NumpyKernels, Op
from tests.pages.naive import Bits

MASK = 2**64 - 1
GOLDEN = 0x9E3779B97F4A7C15
RESIDUAL = 0xBF58476D1CE4E5B9  # keys the residual's hashes apart from the planes'


def splitmix(z: int) -> int:
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & MASK
    return z ^ (z >> 31)


def hash_of(key: int, i: int) -> int:
    return splitmix((key + i * GOLDEN) & MASK)


def naive_tile(cells: list[tuple], chunk: int) -> Bits:
    """The pages that the cells of a chunk mark, one page and one hash at a time."""
    tile = np.zeros(CHUNK_PAGES, np.bool_)
    for first, last, threshold, count, key, inverted in cells:
        if first >> CHUNK_SHIFT != chunk:
            continue
        low, high = first - (chunk << CHUNK_SHIFT), last - (chunk << CHUNK_SHIFT)
        marks = dict.fromkeys(range(low, high), False)
        for word in range(low // 64, (high - 1) // 64 + 1) if threshold else ():
            bits = 0
            for plane in range(8):  # from the low bit of the threshold up
                random = hash_of(key, plane * CHUNK_WORDS + word + 1)
                bits = bits | random if threshold >> plane & 1 else bits & random
            for page in range(max(low, 64 * word), min(high, 64 * word + 64)):
                marks[page] = bool(bits >> page % 64 & 1)
        for i in range(1, count + 1):
            random = hash_of(key ^ RESIDUAL, i)
            marks[low + ((random >> 18) * (high - low) >> 46)] = True
        tile[low:high] |= [mark != inverted for mark in marks.values()]
    return tile


def cells_from(rows: list[tuple]) -> Cells:
    columns = list(zip(*rows, strict=True)) if rows else [()] * 6
    first, last, threshold, count = (np.array(c, dtype=np.int64) for c in columns[:4])
    return Cells(
        first=first,
        last=last,
        threshold=threshold,
        count=count,
        key=np.array(columns[4], dtype=np.uint64),
        inverted=np.array(columns[5], dtype=np.bool_),
    )


C = CHUNK_PAGES
# first, last, threshold, count, key, inverted: over all of chunks 0 and 1, a part of 2, none of 3.
WRITTEN = [
    (0, 1, 0, 0, 11, True),
    (1, 64, 255, 0, 2**64 - 1, False),
    (64, 65, 128, 1, 12, False),
    (65, 50_000, 0, FEW, 13, False),
    (50_000, 120_001, 1, FEW + 1, 14, True),
    (120_001, C, 181, 40_000, 15, False),
    (C, 2 * C, 77, 5000, 0, True),
    (2 * C + 130, 2 * C + 300, 128, 3, 16, False),
    (2 * C + 300, 2 * C + 333, 0, 0, 17, False),
    (2 * C + 200, 2 * C + 210, 0, 0, 18, True),
]
REWRITTEN = [
    (0, C, 0, 900, 21, False),
    (C, 2 * C - 1, 2, 0, 22, False),
    (2 * C + 63, 2 * C + 129, 64, 5, 23, True),
    (2 * C + 128, 2 * C + 256, 0, 90, 24, False),
]
CHUNKS = np.arange(4)
EAGER_DIGEST = "e7689d9b6f3929138fdc1d6f7ff9d683d8f8084bde760f37e756b748887a1b69"
LAZY_DIGEST = "c27d27812da647b2a727ac7f9493f10c838e1ef59c3234d426cf2d892562cdf5"


def start(*, log: bool) -> NumpyKernels:
    """Four chunks, the last two partial, with runs that are dirty, in the log, or zero."""
    kernels = NumpyKernels(4, log=log, zero=True, threads=1)
    kernels.fill(kernels.dirty, np.array([100, C + 7]), np.array([90_000, C + 8]))
    assert kernels.zero is not None
    kernels.fill(kernels.zero, np.array([63, 2 * C]), np.array([C - 1, 2 * C + 300]))
    if kernels.log is not None:
        kernels.fill(kernels.log, np.array([5, 2 * C + 64]), np.array([5000, 2 * C + 250]))
    return kernels


def bits(bitmap: np.ndarray | None) -> Bits:
    assert bitmap is not None
    return np.unpackbits(bitmap.view(np.uint8), bitorder="little").view(np.bool_)


def digest(*arrays: np.ndarray | None) -> str:
    sha = hashlib.sha256()
    for array in arrays:
        assert array is not None
        sha.update(array.tobytes())
    return sha.hexdigest()


def tiles(rows: list[tuple]) -> Bits:
    return np.concatenate([naive_tile(rows, chunk) for chunk in range(4)])


def by_chunk(marks: Bits) -> list[int]:
    return marks.reshape(4, C).sum(axis=1).tolist()


def test_merge_of_the_eager_modes() -> None:
    kernels, tile = start(log=False), tiles(WRITTEN)
    dirty, zero = bits(kernels.dirty), bits(kernels.zero)
    new, unzeroed = kernels.paint(Op.MERGE, cells_from(WRITTEN), CHUNKS)
    assert np.array_equal(bits(kernels.dirty), dirty | tile)
    assert np.array_equal(bits(kernels.zero), zero & ~tile)
    assert new.tolist() == by_chunk(tile & ~dirty)
    assert unzeroed.tolist() == by_chunk(tile & dirty & zero)
    assert digest(kernels.dirty, kernels.zero, new, unzeroed) == EAGER_DIGEST


def test_clear_log_then_merge_log_of_the_lazy_mode() -> None:
    kernels, early, late = start(log=True), tiles(WRITTEN), tiles(REWRITTEN)
    dirty, log, zero = bits(kernels.dirty), bits(kernels.log), bits(kernels.zero)
    first = kernels.paint(Op.CLEAR_LOG, cells_from(WRITTEN), CHUNKS)
    assert np.array_equal(bits(kernels.dirty), dirty)
    assert np.array_equal(bits(kernels.log), early & ~log)
    assert [part.tolist() for part in first] == [[0] * 4, by_chunk(early & dirty & zero)]
    second = kernels.paint(Op.MERGE_LOG, cells_from(REWRITTEN), CHUNKS)
    log, zero = (early & ~log) | late, zero & ~early
    assert np.array_equal(bits(kernels.log), log)
    assert np.array_equal(bits(kernels.dirty), dirty | log)
    assert np.array_equal(bits(kernels.zero), zero & ~late)
    expected = [by_chunk(log & ~dirty), by_chunk(late & dirty & zero)]
    assert [part.tolist() for part in second] == expected
    assert digest(kernels.dirty, kernels.log, kernels.zero, *first, *second) == LAZY_DIGEST


def many_cells(chunks: int) -> Cells:
    """A few hundred cells, in most chunks of many."""
    random = np.random.Generator(np.random.Philox(5))
    first = np.unique(random.integers(0, chunks * C, 3 * chunks))
    last = np.append(first[1:], chunks * C)
    return Cells(
        first=first,
        last=np.minimum(last, ((first >> CHUNK_SHIFT) + 1) << CHUNK_SHIFT),
        threshold=random.integers(0, 256, len(first)),
        count=random.integers(0, 2000, len(first)),
        key=random.integers(0, 2**64, len(first), dtype=np.uint64),
        inverted=random.integers(0, 2, len(first)).astype(np.bool_),
    )


def painted(op: Op, threads: int, cells: Cells, chunks: IntArray, total: int) -> tuple:
    kernels = NumpyKernels(total, log=True, zero=True, threads=threads)
    for seed, bitmap in enumerate((kernels.dirty, kernels.log, kernels.zero)):
        assert bitmap is not None
        random = np.random.Generator(np.random.Philox(seed))
        bitmap[:] = random.integers(0, 2**64, bitmap.shape, dtype=np.uint64)
    counts = kernels.paint(op, cells, chunks)
    return (*counts, kernels.dirty, kernels.log, kernels.zero)


@pytest.mark.parametrize("op", Op)
def test_threads_do_not_change_a_bit(op: Op) -> None:
    total = THREADS_FROM + 7
    cells, chunks = many_cells(total), np.arange(total)
    one = digest(*painted(op, 1, cells, chunks, total))
    for threads in (2, 5):
        assert digest(*painted(op, threads, cells, chunks, total)) == one


@pytest.mark.parametrize("op", Op)
def test_chunks_left_out_change_nothing_elsewhere(op: Op) -> None:
    total, some = 9, np.array([0, 3, 4, 8])
    cells = many_cells(total)
    every = painted(op, 1, cells, np.arange(total), total)
    part = painted(op, 1, cells, some, total)
    untouched = painted(op, 1, cells, np.zeros(0, np.int64), total)
    for all_counts, counts in zip(every[:2], part[:2], strict=True):
        assert np.array_equal(all_counts[some], counts)
    rest = np.setdiff1d(np.arange(total), some)
    for all_bits, bitmap, before in zip(every[2:], part[2:], untouched[2:], strict=True):
        assert np.array_equal(all_bits[some], bitmap[some])
        assert np.array_equal(bitmap[rest], before[rest])


def test_a_full_chunk_may_be_left_out_of_a_merge() -> None:
    """Eager, nothing clean and nothing zero in it: painting it changes neither bits nor counts."""
    kernels = NumpyKernels(1, log=False, zero=True, threads=1)
    kernels.dirty[:] = MASK
    new, unzeroed = kernels.paint(Op.MERGE, many_cells(1), np.zeros(1, np.int64))
    assert (new[0], unzeroed[0]) == (0, 0)
    assert (kernels.dirty == MASK).all()


def test_a_tile_does_not_depend_on_what_was_drawn_before() -> None:
    """Scratch buffers are used again; nothing of one chunk may leak into the next."""
    cells = many_cells(6)
    together = NumpyKernels(6, log=False, zero=False, threads=1)
    together.paint(Op.MERGE, cells, np.arange(6))
    for chunk in range(6):
        alone = NumpyKernels(6, log=False, zero=False, threads=1)
        alone.paint(Op.MERGE, cells, np.array([chunk]))
        assert np.array_equal(alone.dirty[chunk], together.dirty[chunk])


@pytest.mark.parametrize(
    ("first", "last"), [(0, 1), (0, 64), (63, 65), (1, C), (0, C), (C - 1, C), (64, 128), (7, 7)]
)
def test_fill_sets_a_run_and_nothing_else(first: int, last: int) -> None:
    kernels = NumpyKernels(2, log=False, zero=False, threads=1)
    kernels.fill(kernels.dirty, np.array([C + first]), np.array([C + last]))
    assert np.array_equal(np.flatnonzero(bits(kernels.dirty)), np.arange(C + first, C + last))


@pytest.mark.parametrize("seed", range(20))
def test_many_small_cells_are_drawn_together_as_one_by_one(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Granules of a scattered working set: whole words or not, every method, inverted or not."""
    random = np.random.default_rng(seed)
    granule = int(random.choice([64, 100, 128, 512, 1024]))
    first = np.sort(random.choice(CHUNK_PAGES // granule, size=60, replace=False)) * granule
    shorter = np.where(random.random(60) < 0.2, random.integers(0, granule // 2, 60), 0)
    cells = Cells(
        first=first,
        last=first + granule - shorter,
        threshold=random.choice([0, 0, 1, 16, 77, 128, 255], 60).astype(np.int64),
        count=random.choice([0, 1, 30, 500], 60).astype(np.int64),
        key=random.integers(0, 2**63, 60).astype(np.uint64),
        inverted=random.random(60) < 0.5,
    )
    drawn = []
    for together_from in (0, 60):
        monkeypatch.setattr("gpusim.pages.numpy_kernels.TOGETHER_FROM", together_from)
        kernels = NumpyKernels(1, log=False, zero=False, threads=1)
        kernels.paint(Op.MERGE, cells, np.array([0]))
        drawn.append(kernels.dirty.copy())
    assert drawn[0].any()
    np.testing.assert_array_equal(drawn[0], drawn[1])
