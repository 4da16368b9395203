"""Do the scattered writers of a mix share no page if they fit beside each other?"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpusim import Config, MixConfig, VmConfig, WriterConfig
from gpusim.config.scenario import resolve
from gpusim.errors import ConfigError
from gpusim.stream import Purpose, Stream

PAGE, VM_PAGES = 4096, 2**14 + 3


def written_pages(sizes: list[tuple[int, int]], seed: int = 1) -> list[list[int]]:
    """Return the guest pages of writers, given the pages of each and of its granule."""
    writers = {
        f"writer{number}": WriterConfig(working_set=pages * PAGE, granule=granule * PAGE)
        for number, (pages, granule) in enumerate(sizes)
    }
    vm = VmConfig(memory=VM_PAGES * PAGE)
    made = resolve(Config(vm=vm, workload=MixConfig(writers=writers), seed=seed)).writers
    found = []
    for writer, (pages, _) in zip(made, sizes, strict=True):
        own_first, guest_first, length = writer.placement.cut(np.zeros(0, np.int64))
        assert (own_first[0], length.sum()) == (0, pages)
        found.append([p for first, n in zip(guest_first, length, strict=True)
                      for p in range(first, first + n)])  # fmt: skip
    return found


@st.composite
def mixes(draw: st.DrawFn) -> list[tuple[int, int]]:
    """Draw writers in any order whose granules together fit the VM."""
    left, sizes = VM_PAGES // 2048 * 2048, []
    for granule in sorted(draw(st.lists(st.sampled_from([1, 2, 16, 512, 2048]), min_size=2,
                                        max_size=6)), reverse=True):  # fmt: skip
        if left < granule:
            break
        pages = draw(st.integers(1, left // granule * granule))
        left -= -(-pages // granule) * granule
        sizes.append((pages, granule))
    return draw(st.permutations(sizes))


@given(mixes(), st.integers(1, 9))
@settings(deadline=None, max_examples=40)
def test_writers_that_fit_beside_each_other_share_no_page(
    sizes: list[tuple[int, int]], seed: int
) -> None:
    pages = [page for writer in written_pages(sizes, seed) for page in writer]
    assert len(set(pages)) == len(pages)
    assert min(pages) >= 0
    assert max(pages) < VM_PAGES


def test_a_full_vm_has_a_place_for_every_granule() -> None:
    sizes = [(3, 1), (1024, 1), (4096, 16), (3072, 512), (8192, 2048)]
    pages = [page for writer in written_pages(sizes) for page in writer]
    assert sorted(pages) == list(range(VM_PAGES))


def test_writers_of_one_granule_are_placed_one_after_the_other() -> None:
    """Each draws from what those before it left, with the stream of its own number."""
    sizes, count = [(1024, 8), (800, 8), (4096, 8)], VM_PAGES // 8
    free = np.arange(count)
    for number, pages in enumerate(written_pages(sizes)):
        random = np.random.Generator(Stream(1, number, Purpose.PLACEMENT).bits)
        places = free[random.choice(len(free), size=sizes[number][0] // 8, replace=False)]
        assert pages[::8] == (places * 8).tolist()
        free = np.setdiff1d(free, places)


def test_writers_that_do_not_fit_are_placed_anywhere() -> None:
    first, second = written_pages([(12_000, 16), (12_000, 1)])
    assert set(first) & set(second)
    assert len(set(second)) == len(second)


RANGE = {"start": 100 * PAGE, "granule_range": 1000 * PAGE}  # granules 25 to 274 of four pages


def placed(**writers: WriterConfig) -> list[set[int]]:
    """Return the guest pages of each writer."""
    config = Config(vm=VmConfig(memory=VM_PAGES * PAGE), workload=MixConfig(writers=dict(writers)))
    found = []
    for writer in resolve(config).writers:
        _, first, length = writer.placement.cut(np.zeros(0, np.int64))
        found.append(
            {p for a, n in zip(first, length, strict=True) for p in range(int(a), int(a + n))}
        )
    return found


def test_a_range_holds_all_granules() -> None:
    """Two writers fill the range. They share no page, and one without a range stays beside them."""
    half = WriterConfig(working_set=500 * PAGE, granule=4 * PAGE, **RANGE)
    first, second, other = placed(
        a=half, b=half, c=WriterConfig(working_set=800 * PAGE, granule=4 * PAGE)
    )
    assert first | second == set(range(100, 1100))
    assert not first & second
    assert not other & (first | second)


def test_a_single_writer_keeps_to_its_range() -> None:
    (pages,) = placed(a=WriterConfig(working_set=500 * PAGE, granule=4 * PAGE, **RANGE))
    assert len(pages) == 500
    assert pages < set(range(100, 1100))


@pytest.mark.parametrize(
    ("keys", "names"),
    [
        ({"granule": 4 * PAGE, "start": 100 * PAGE}, "granule_range"),
        ({"granule_range": 1000 * PAGE}, "granule"),
        ({"granule": 4 * PAGE, "granule_range": 400 * PAGE}, "100 granules|125 granules"),
        ({"granule": 4 * PAGE, "granule_range": VM_PAGES * PAGE, "start": PAGE}, "ends after"),
    ],
)
def test_a_range_that_makes_no_sense_is_refused(keys: dict[str, int], names: str) -> None:
    with pytest.raises(ConfigError, match=names):
        placed(a=WriterConfig(working_set=500 * PAGE, **keys))
