"""Do the kernels of every device draw by the documented hash and merge as documented?

Cells are integers, so no result depends on floats or on numpy's random stream. The digests are the
same for every device. numpy is compared with a loop over pages, the others with both.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest

from gpusim.layout import CHUNK_PAGES, CHUNK_SHIFT, CHUNK_WORDS, IntArray
from gpusim.pages.budget import Budget
from gpusim.pages.draw import Cells
from gpusim.pages.host_kernels import THREADS_FROM, WRITES_TOGETHER
from gpusim.pages.numpy_kernels import BIT_BY_BIT, NumpyKernels
from gpusim.pages.primitives import Counts, Kernels, Op, Step
from tests.parity.devices import (
    DEVICES,
    GPU,
    OTHERS,
    cells_from,
    load,
    make,
    random_cells,
    random_chunks,
    random_words,
    state,
)

Bits = np.ndarray
MASK = 2**64 - 1
GOLDEN = 0x9E3779B97F4A7C15
RESIDUAL = 0xBF58476D1CE4E5B9  # separates the residual's hashes from those of the planes


def splitmix(z: int) -> int:
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & MASK
    return z ^ (z >> 31)


def hash_of(key: int, i: int) -> int:
    return splitmix((key + i * GOLDEN) & MASK)


def naive_tile(cells: list[tuple], chunk: int) -> Bits:
    """Return the pages that the cells of a chunk mark, one page and one hash at a time."""
    tile = np.zeros(CHUNK_PAGES, np.bool_)
    for first, last, threshold, count, key, inverted in cells:
        if first >> CHUNK_SHIFT != chunk:
            continue
        low, high = first - (chunk << CHUNK_SHIFT), last - (chunk << CHUNK_SHIFT)
        marks = dict.fromkeys(range(low, high), False)
        for word in range(low // 64, (high - 1) // 64 + 1) if threshold else ():
            bits = 0
            for plane in range(8):  # from the lowest bit of the threshold up
                random = hash_of(key, plane * CHUNK_WORDS + word + 1)
                bits = bits | random if threshold >> plane & 1 else bits & random
            for page in range(max(low, 64 * word), min(high, 64 * word + 64)):
                marks[page] = bool(bits >> page % 64 & 1)
        for i in range(1, count + 1):
            random = hash_of(key ^ RESIDUAL, i)
            marks[low + ((random >> 18) * (high - low) >> 46)] = True
        tile[low:high] |= [mark != inverted for mark in marks.values()]
    return tile


C = CHUNK_PAGES
# first, last, threshold, count, key, inverted: over all of chunks 0 and 1, a part of 2, none of 3.
WRITTEN = [
    (0, 1, 0, 0, 11, True),
    (1, 64, 255, 0, 2**64 - 1, False),
    (64, 65, 128, 1, 12, False),
    (65, 50_000, 0, 128, 13, False),
    (50_000, 120_001, 1, 129, 14, True),
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


def start(device: str, *, log: bool) -> Kernels:
    """Make four chunks, two of them partial, with runs that are dirty, in the log, or zero."""
    kernels = make(device, 4, log=log, zero=True)
    kernels.fill(kernels.dirty, np.array([100, C + 7]), np.array([90_000, C + 8]))
    kernels.fill(kernels.zero, np.array([63, 2 * C]), np.array([C - 1, 2 * C + 300]))
    if log:
        kernels.fill(kernels.log, np.array([5, 2 * C + 64]), np.array([5000, 2 * C + 250]))
    return kernels


def bits(kernels: Kernels, bitmap: Any, chunks: int = 4) -> Bits:
    words = np.ascontiguousarray(kernels.read(bitmap, 0, chunks))
    return np.unpackbits(words.view(np.uint8), bitorder="little").view(np.bool_).reshape(-1)


def digest(*arrays: np.ndarray) -> str:
    sha = hashlib.sha256()
    for array in arrays:
        sha.update(array.tobytes())
    return sha.hexdigest()


def tiles(rows: list[tuple]) -> Bits:
    return np.concatenate([naive_tile(rows, chunk) for chunk in range(4)])


def by_chunk(marks: Bits) -> list[int]:
    return marks.reshape(4, C).sum(axis=1).tolist()


@pytest.mark.parametrize("device", DEVICES)
def test_merge_of_the_eager_modes(device: str) -> None:
    kernels, tile = start(device, log=False), tiles(WRITTEN)
    dirty, zero = bits(kernels, kernels.dirty), bits(kernels, kernels.zero)
    ((new, unzeroed),) = kernels.paint([Step(Op.MERGE, cells_from(WRITTEN), CHUNKS)])
    assert np.array_equal(bits(kernels, kernels.dirty), dirty | tile)
    assert np.array_equal(bits(kernels, kernels.zero), zero & ~tile)
    assert new.tolist() == by_chunk(tile & ~dirty)
    assert unzeroed.tolist() == by_chunk(tile & dirty & zero)
    assert digest(*state(kernels, 4), new, unzeroed) == EAGER_DIGEST


@pytest.mark.parametrize("device", DEVICES)
def test_clear_log_then_merge_log_of_the_lazy_mode(device: str) -> None:
    kernels, early, late = start(device, log=True), tiles(WRITTEN), tiles(REWRITTEN)
    dirty, log, zero = (bits(kernels, b) for b in (kernels.dirty, kernels.log, kernels.zero))
    first, second = kernels.paint(
        [
            Step(Op.CLEAR_LOG, cells_from(WRITTEN), CHUNKS),
            Step(Op.MERGE_LOG, cells_from(REWRITTEN), CHUNKS),
        ]
    )
    assert [part.tolist() for part in first] == [[0] * 4, by_chunk(early & dirty & zero)]
    log, zero = (early & ~log) | late, zero & ~early
    assert np.array_equal(bits(kernels, kernels.log), log)
    assert np.array_equal(bits(kernels, kernels.dirty), dirty | log)
    assert np.array_equal(bits(kernels, kernels.zero), zero & ~late)
    expected = [by_chunk(log & ~dirty), by_chunk(late & dirty & zero)]
    assert [part.tolist() for part in second] == expected
    assert digest(*state(kernels, 4), *first, *second) == LAZY_DIGEST


@pytest.mark.parametrize("device", DEVICES)
def test_a_written_page_is_left_zero_if_the_mask_has_it(device: str) -> None:
    """A second step of the same writes. It changes neither the dirty bitmap nor the log."""
    kernels, tile, mask = start(device, log=True), tiles(WRITTEN), tiles(REWRITTEN)
    dirty, log, zero = (bits(kernels, b) for b in (kernels.dirty, kernels.log, kernels.zero))
    step = Step(Op.ZERO, cells_from(WRITTEN), CHUNKS, cells_from(REWRITTEN))
    ((new, unzeroed),) = kernels.paint([step])
    assert np.array_equal(bits(kernels, kernels.dirty), dirty)
    assert np.array_equal(bits(kernels, kernels.log), log)
    assert np.array_equal(bits(kernels, kernels.zero), zero | (tile & mask))
    assert new.tolist() == [0] * 4
    assert unzeroed.tolist() == [-count for count in by_chunk(tile & mask & dirty & ~zero)]


@pytest.mark.parametrize("device", DEVICES)
def test_a_page_of_the_log_may_be_new_and_zero(device: str) -> None:
    """It was written before the clear and left zero. The merge counts it as a zero page."""
    kernels = make(device, 2, log=True, zero=True)
    run = np.array([64]), np.array([5000])
    for bitmap in (kernels.log, kernels.zero):
        kernels.fill(bitmap, *run)
    cells = cells_from([(0, 100, 0, 0, 0, True)])
    ((new, unzeroed),) = kernels.paint([Step(Op.MERGE_LOG, cells, np.arange(2))])
    assert new.tolist() == [5000, 0]
    assert unzeroed.tolist() == [-4900, 0]


def painted(
    device: str, op: Op, cells: Cells, chunks: IntArray, total: int, threads: int = 1
) -> list[np.ndarray]:
    """Return counts and bitmaps after one step over bitmaps of random bits."""
    kernels = make(device, total, log=True, zero=True, threads=threads)
    for seed, bitmap in enumerate((kernels.dirty, kernels.log, kernels.zero)):
        load(bitmap, random_words(total, seed))
    mask = random_cells(total, 77, cells_a_chunk=5) if op is Op.ZERO else None
    (counts,) = kernels.paint([Step(op, cells, chunks, mask)])
    return [*counts, *state(kernels, total)]


def same(ours: list[np.ndarray], theirs: list[np.ndarray]) -> None:
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.dtype == other.dtype
        np.testing.assert_array_equal(mine, other)


@pytest.mark.parametrize("device", OTHERS)
@pytest.mark.parametrize("op", Op)
@pytest.mark.parametrize("seed", range(4))
def test_every_merge_of_every_kind_of_cell_is_numpys(device: str, op: Op, seed: int) -> None:
    """Random borders, certain runs over drawn cells, few and many cells, omitted chunks."""
    total = 12
    cells = random_cells(total, seed, cells_a_chunk=(1, 3, 40, 0.3)[seed])
    chunks = random_chunks(total, seed)
    same(painted(device, op, cells, chunks, total), painted("numpy", op, cells, chunks, total))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("count", [1, 40, 400, BIT_BY_BIT, BIT_BY_BIT + 1])
def test_few_writes_are_set_as_in_a_tile(device: str, count: int) -> None:
    """Two cells per chunk with residual writes only. Some pages are dirty, some are zero."""
    total = max(3, 3 * WRITES_TOGETHER // (count * 50)) if device != "shim" else 3
    total = min(total, 40)
    rows = []
    for chunk in range(total):
        rows.append((chunk * C + 5, chunk * C + 700, 0, count, 31 + chunk, False))
        rows.append((chunk * C + 700, (chunk + 1) * C, 0, chunk % 3, 77 + chunk, False))
    ours = painted(device, Op.MERGE, cells_from(rows), np.arange(total), total)
    dirty, zero = (random_words(total, seed) for seed in (0, 2))
    for chunk in range(3):
        tile = np.packbits(naive_tile(rows, chunk), bitorder="little").view(np.uint64)
        assert ours[0][chunk] == np.bitwise_count(tile & ~dirty[chunk]).sum()
        assert ours[1][chunk] == np.bitwise_count(tile & dirty[chunk] & zero[chunk]).sum()
        assert np.array_equal(ours[2][chunk], dirty[chunk] | tile)
        assert np.array_equal(ours[4][chunk], zero[chunk] & ~tile)
    same(ours, painted("numpy", Op.MERGE, cells_from(rows), np.arange(total), total))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("first", [0, 3, C - 70, 130])
def test_neighbours_drawn_alike_are_drawn_one_by_one(device: str, first: int) -> None:
    """numpy draws neighbouring chunks with equal cells together, and the bits stay the same."""
    total = 11
    rows = [
        (chunk * C + first, chunk * C + min(first + 9000, C), 90, 40 * chunk, 5 + chunk, True)
        for chunk in range(total)
        if chunk != 6
    ]
    together = painted(device, Op.MERGE_LOG, cells_from(rows), np.arange(total), total)
    for chunk in (0, 1, 7, 10):
        own = np.array([chunk])
        alone = painted("numpy", Op.MERGE_LOG, cells_from(rows), own, total)
        assert alone[0][0] == together[0][chunk]
        assert np.array_equal(alone[3][chunk], together[3][chunk])


@pytest.mark.parametrize("device", ["numpy", "numba"])
@pytest.mark.parametrize("op", Op)
def test_threads_do_not_change_a_bit(device: str, op: Op) -> None:
    total = THREADS_FROM + 7
    cells, chunks = random_cells(total, 5), np.arange(total)
    one = painted(device, op, cells, chunks, total)
    for threads in (2, 5):
        same(painted(device, op, cells, chunks, total, threads), one)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("op", Op)
def test_chunks_left_out_change_nothing_elsewhere(device: str, op: Op) -> None:
    total, some = 9, np.array([0, 3, 4, 8])
    cells = random_cells(total, 6)
    every = painted(device, op, cells, np.arange(total), total)
    part = painted(device, op, cells, some, total)
    untouched = [random_words(total, seed) for seed in range(3)]
    for all_counts, counts in zip(every[:2], part[:2], strict=True):
        assert np.array_equal(all_counts[some], counts)
    rest = np.setdiff1d(np.arange(total), some)
    for all_bits, bitmap, before in zip(every[2:], part[2:], untouched, strict=True):
        assert np.array_equal(all_bits[some], bitmap[some])
        assert np.array_equal(bitmap[rest], before[rest])


@pytest.mark.parametrize("device", OTHERS)
def test_many_draws_of_few_places_are_numpys(device: str) -> None:
    """Each draw writes to a few places of a chunk, and the log holds bits of earlier draws."""
    random = np.random.Generator(np.random.Philox(4))
    both = [make(one, 3, log=True, zero=True) for one in (device, "numpy")]
    for draw in range(40):
        rows = []
        for chunk in range(3):
            starts = np.unique(random.integers(0, 16, 3)) * (C // 16)
            for first in (starts + chunk * C).tolist():
                rows.append((first, first + int(random.integers(1, C // 16)), 3, 9, draw, False))
        some = np.flatnonzero(random.integers(0, 2, 3))
        op = Op(int(random.choice([Op.MERGE, Op.CLEAR_LOG, Op.MERGE_LOG, Op.MERGE_LOG])))
        (ours,), (numpys,) = (one.paint([Step(op, cells_from(rows), some)]) for one in both)
        assert np.array_equal(ours.new, numpys.new)
        assert np.array_equal(ours.unzeroed, numpys.unzeroed)
        same(state(both[0], 3), state(both[1], 3))
        for one in both:
            one.clear_chunks(0, 2)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("pages", [1, 64, 65, C // 64, C // 64 + 1, C // 2 + 1, C])
def test_a_cell_may_end_anywhere_in_a_chunk(device: str, pages: int) -> None:
    """At either end of the chunk, with one page more or less than the words that kernels group."""
    for first in (0, C - pages):
        kernels = make(device, 1)
        cells = cells_from([(first, first + pages, 0, 0, 1, True)])
        (counts,) = kernels.paint([Step(Op.MERGE, cells, np.array([0]))])
        assert counts.new.tolist() == [pages]


@pytest.mark.parametrize("device", DEVICES)
def test_no_chunk_and_no_cell(device: str) -> None:
    """A draw may have no cell, and a cleared chunk no write."""
    kernels = make(device, 2, log=True)
    load(kernels.log, random_words(2, 1))
    none = cells_from([])
    empty, cleared, merged = kernels.paint(
        [
            Step(Op.MERGE, none, np.zeros(0, np.int64)),
            Step(Op.CLEAR_LOG, none, np.array([1])),
            Step(Op.MERGE_LOG, none, np.array([0, 1])),
        ]
    )
    assert (len(empty.new), cleared.new.tolist()) == (0, [0])
    assert merged.new.tolist() == [int(np.bitwise_count(random_words(2, 1)[0]).sum()), 0]


@pytest.mark.parametrize("device", DEVICES)
def test_a_full_chunk_may_be_left_out_of_a_merge(device: str) -> None:
    """With eager tracking, a chunk without clean and zero pages cannot change."""
    kernels = make(device, 1, zero=True)
    load(kernels.dirty, np.full((1, CHUNK_WORDS), MASK, np.uint64))
    ((new, unzeroed),) = kernels.paint([Step(Op.MERGE, random_cells(1, 1), np.zeros(1, np.int64))])
    assert (new[0], unzeroed[0]) == (0, 0)
    assert (kernels.read(kernels.dirty, 0, 1) == MASK).all()


@pytest.mark.parametrize("device", DEVICES)
def test_a_tile_does_not_depend_on_what_was_drawn_before(device: str) -> None:
    """Buffers are reused, and no chunk or draw may change the next."""
    cells = random_cells(6, 8)
    together = make(device, 6)
    together.paint([Step(Op.MERGE, cells, np.arange(6))])
    alone = make(device, 6)
    for chunk in range(6):
        alone.paint([Step(Op.MERGE, cells, np.array([chunk]))])
    same(state(alone, 6), state(together, 6))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    ("first", "last"), [(0, 1), (0, 64), (63, 65), (1, C), (0, C), (C - 1, C), (64, 128)]
)
def test_fill_sets_a_run_and_nothing_else(device: str, first: int, last: int) -> None:
    kernels = make(device, 2)
    kernels.fill(kernels.dirty, np.array([C + first]), np.array([C + last]))
    marked = np.flatnonzero(bits(kernels, kernels.dirty, 2))
    assert np.array_equal(marked, np.arange(C + first, C + last))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("seed", range(6))
def test_many_small_cells(device: str, seed: int) -> None:
    """Granules of a scattered working set, with whole words or not, in every method."""
    random = np.random.default_rng(seed)
    granule = int(random.choice([64, 100, 128, 512, 1024]))
    first = np.sort(random.choice(CHUNK_PAGES // granule, size=60, replace=False)) * granule
    shorter = np.where(random.random(60) < 0.2, random.integers(0, granule // 2, 60), 0)
    rows = list(
        zip(
            first.tolist(),
            (first + granule - shorter).tolist(),
            random.choice([0, 0, 1, 16, 77, 128, 255], 60).tolist(),
            random.choice([0, 1, 30, 500], 60).tolist(),
            random.integers(0, 2**63, 60).tolist(),
            (random.random(60) < 0.5).tolist(),
            strict=True,
        )
    )
    kernels = make(device, 1)
    kernels.paint([Step(Op.MERGE, cells_from(rows), np.array([0]))])
    assert np.array_equal(bits(kernels, kernels.dirty, 1), naive_tile(rows, 0))


FULL = 8193  # chunks with more than 2^31 pages
FAR = 40_000  # a chunk after 2^33 pages


@pytest.mark.parametrize("device", DEVICES)
def test_slots_above_2_to_the_33(device: str) -> None:
    """The last chunk of a VM of 39 TiB has a partial last word."""
    low = FAR * C
    rows = [(low, low + C - 77, 77, 5000, 9, True), (low + C - 70, low + C - 7, 0, 1, 10, True)]
    kernels, near = make(device, FAR + 1), make("numpy", 1)
    (far,) = kernels.paint([Step(Op.MERGE, cells_from(rows), np.array([FAR]))])
    moved = cells_from([(first - low, last - low, *rest) for first, last, *rest in rows])
    (here,) = near.paint([Step(Op.MERGE, moved, np.array([0]))])
    assert far.new.tolist() == here.new.tolist()
    same([kernels.read(kernels.dirty, FAR, FAR + 1)], [near.read(near.dirty, 0, 1)])
    assert kernels.clear_in_chunk(FAR, 0, [Budget(10, 1, 1)])[1:3] == (10, 0)
    kernels.clear_chunks(FAR, FAR + 1)
    assert not kernels.read(kernels.dirty, FAR, FAR + 1).any()


@pytest.mark.parametrize("device", [d for d in DEVICES if d != "shim"])  # it takes a minute there
def test_counts_above_2_to_the_31(device: str) -> None:
    chunks = np.arange(FULL)
    rows = [(chunk * C, chunk * C + C, 0, 0, 0, True) for chunk in range(FULL)]
    kernels = make(device, FULL)
    (counts,) = kernels.paint([Step(Op.MERGE, cells_from(rows), chunks)])
    assert isinstance(counts, Counts)
    assert counts.new.dtype == counts.unzeroed.dtype == np.int64
    assert int(counts.new.sum()) == FULL * C > 2**31
    (again,) = kernels.paint([Step(Op.MERGE, cells_from(rows), chunks)])
    assert not again.new.any()


@pytest.mark.parametrize("device", ["shim", "numba", GPU])
@pytest.mark.parametrize("with_zero", [False, True])
def test_clear_in_chunk_is_numpys(device: str, with_zero: bool) -> None:
    """From random pages, with one to four budgets, in sparse and full words."""
    random = np.random.Generator(np.random.Philox(3))
    for density in (0, 0, 1, 2, 6):
        words = random_words(1, 20 + density)
        for more in range(density):
            words &= random_words(1, 30 + more)
        if density == 6:
            words[:] = MASK
        for _ in range(6):
            ours, numpys = (
                make(device, 2, zero=with_zero),
                NumpyKernels(2, log=False, zero=with_zero, threads=1),
            )
            both = np.concatenate([random_words(1, 50), words])
            for kernels in (ours, numpys):
                load(kernels.dirty, both)
                if with_zero:
                    load(kernels.zero, random_words(2, 51))
            budgets = [
                Budget(int(random.integers(0, 2**19)), *random.integers(0, 3, 2).tolist()),
                Budget(int(random.integers(0, 2**59)), 2**40, 2**39),
                Budget(2**61, 0, 1),
                Budget(0, 0, 0),
            ][: int(random.integers(1, 5))]
            page = int(random.choice([0, 1, 63, 64, 5000, C - 1]))
            taken = [kernels.clear_in_chunk(1, page, budgets) for kernels in (ours, numpys)]
            assert taken[0] == taken[1]
            same(state(ours, 2), state(numpys, 2))


@pytest.mark.parametrize("device", ["shim", "numba", GPU])
@pytest.mark.parametrize("with_zero", [False, True])
def test_a_take_may_end_in_its_first_word(device: str, with_zero: bool) -> None:
    """Pages of that word behind the cursor stay. No page of an empty chunk is taken."""
    for words in (
        random_words(1, 60),
        random_words(1, 61) & random_words(1, 62),
        np.zeros((1, CHUNK_WORDS)),
    ):
        for page in (0, 1, 40, 63, 64 * 7 + 33):
            for limit in (0, 1, 2, 9, 70):
                ours, numpys = (
                    make(device, 1, zero=with_zero),
                    NumpyKernels(1, log=False, zero=with_zero, threads=1),
                )
                for kernels in (ours, numpys):
                    load(kernels.dirty, words.astype(np.uint64))
                    if with_zero:
                        load(kernels.zero, random_words(1, 63))
                budgets = [Budget(limit, 1, 2), Budget(2**61, 1, 1)]
                taken = [kernels.clear_in_chunk(0, page, budgets) for kernels in (ours, numpys)]
                assert taken[0] == taken[1]
                same(state(ours, 1), state(numpys, 1))


@pytest.mark.parametrize("device", DEVICES)
def test_clear_chunks(device: str) -> None:
    kernels = make(device, 5)
    load(kernels.dirty, random_words(5, 9))
    kernels.clear_chunks(1, 4)
    expected = random_words(5, 9)
    expected[1:4] = 0
    assert np.array_equal(kernels.read(kernels.dirty, 0, 5), expected)
