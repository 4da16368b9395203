"""Are pages that a write leaves zero sent as zero pages, as many as the guest leaves?"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gpusim import (
    Config,
    LinkConfig,
    MixConfig,
    SequentialConfig,
    TrackingConfig,
    VmConfig,
    WithoutReplacementConfig,
    WriterConfig,
    simulate,
)
from gpusim.config.scenario import resolve
from gpusim.config.schema import BackendConfig, WorkloadConfig
from gpusim.layout import CHUNK_PAGES, CHUNK_SHIFT, Layout, Writes, ZeroShares
from gpusim.pages import backends
from gpusim.pages.pages import Pages

LAYOUT = Layout([CHUNK_PAGES + 50_000, 70_000])
NONE = np.zeros(0, np.int64)
LAZY = pytest.mark.parametrize("lazy", [False, True])


def pages(*, lazy: bool, backend: str = "numpy") -> Pages:
    return Pages(
        LAYOUT,
        zero_first=NONE,
        zero_last=NONE,
        lazy=lazy,
        initially_set=False,
        seed=1,
        zeroes=True,
        backend=backend,
    )


def written(mean: float, share: float) -> Writes:
    """Return even writes to every page, a share of which leaves its page zero."""
    first = np.arange(LAYOUT.chunks) << CHUNK_SHIFT
    last = first + LAYOUT.chunk_pages
    shares = np.full(LAYOUT.chunks, share)
    return Writes(
        first=first,
        last=last,
        mean=np.full(LAYOUT.chunks, mean),
        certain_first=NONE,
        certain_last=NONE,
        zeroed=ZeroShares(first=first, last=last, share=shares) if share else None,
    )


def zero_bits(made: Pages) -> int:
    """Return the pending zero pages by the bitmaps, and check the counts of all chunks."""
    dirty, zero = (
        made.kernels.read(bitmap, 0, LAYOUT.chunks)
        for bitmap in (made.kernels.dirty, made.kernels.zero)
    )
    both = np.bitwise_count(dirty & zero).sum(axis=1)
    assert made.counts.zero.tolist() == both.tolist()
    assert (made.counts.normal + made.counts.zero).tolist() == np.bitwise_count(dirty).sum(
        axis=1
    ).tolist()
    return int(both.sum())


@LAZY
@pytest.mark.parametrize("share", [0.003, 0.3, 1.0])
def test_a_share_of_the_written_pages_is_zero(lazy: bool, share: float) -> None:
    made = pages(lazy=lazy)
    made.start()
    made.take([(10**9, 1, 1)])
    assert not made.pending
    new = made.sync(written(0.4, share), written(0.0, 0.0) if lazy else None)
    expected = new * share
    assert zero_bits(made) == pytest.approx(
        expected, abs=5 * (expected * (1 - share)) ** 0.5 + 1e-9
    )


@LAZY
def test_counts_are_those_of_the_bitmaps_whatever_is_written_and_sent(lazy: bool) -> None:
    """A zero page gets content again, a page with content becomes zero, before and after clears."""
    made, random = pages(lazy=lazy), np.random.default_rng(5)
    made.start()
    for _ in range(30):
        made.take([(int(random.integers(0, 2 * LAYOUT.pages)), 1, int(random.integers(0, 2)))])
        early, late = (
            written(float(random.choice([0, 0.05, 0.5, 3])), float(random.choice([0, 0.2, 0.9])))
            for _ in range(2)
        )
        made.sync(late, early if lazy else None)
        assert made.pending == made.count_bits()
        zero_bits(made)


@LAZY
@pytest.mark.parametrize("share", [0.2, 0.8])
def test_a_dry_run_expects_as_many(lazy: bool, share: float) -> None:
    found = []
    for backend in ("numpy", backends.EXPECTED):
        made = pages(lazy=lazy, backend=backend)
        made.start()
        zeros = []
        for turn in range(8):
            made.take([(LAYOUT.pages // (1 + turn % 3), 1, 1)])
            made.sync(written(0.3, share), written(0.2, share) if lazy else None)
            zeros.append((made.counts.normal.sum(), made.counts.zero.sum()))
        found.append(zeros)
    assert np.array(found[1]) == pytest.approx(
        np.array(found[0]), rel=0.02, abs=0.01 * LAYOUT.pages
    )


def config(workload: WorkloadConfig, mode: str) -> Config:
    return Config(
        vm=VmConfig("256MiB", vcpus=2),
        workload=workload,
        link=LinkConfig("200Mbit/s"),
        tracking=TrackingConfig(mode=mode),
        backend=BackendConfig("numpy"),
    )


WRITERS = {
    "uniform": WriterConfig(working_set="64MiB", page_writes_per_s=2e3),
    "sequential": SequentialConfig(working_set="64MiB", page_writes_per_s=2e3, threads=2),
    "rounds": WithoutReplacementConfig(working_set="64MiB", page_writes_per_s=2e3),
    "drift": WriterConfig(
        working_set="64MiB", page_writes_per_s=2e3, drift_period=1.0, drift_step="8MiB"
    ),
}


@pytest.mark.parametrize("mode", ["kvm_legacy", "kvm_manual"])
@pytest.mark.parametrize("name", WRITERS)
def test_the_share_of_zero_pages_among_those_sent_again(name: str, mode: str) -> None:
    """The first pass sends no zero page, and later passes send the guest's share of them."""
    writer = replace(WRITERS[name], zeroed_percent=40.0)
    summary = simulate(config(writer, mode)).summary
    sent_again = summary.normal_pages + summary.zero_pages - 65536
    assert sent_again > 2000
    assert summary.zero_pages / sent_again == pytest.approx(0.4, abs=0.05)


def test_writers_share_a_page_by_their_writes() -> None:
    """Three of four writes are those of a writer that leaves nothing zero."""
    writers = {
        "frees": WriterConfig(working_set="64MiB", page_writes_per_s=500, zeroed_percent=100.0),
        "works": WriterConfig(working_set="64MiB", page_writes_per_s=1500),
    }
    summary = simulate(config(MixConfig(writers=writers), "kvm_legacy")).summary
    sent_again = summary.normal_pages + summary.zero_pages - 65536
    assert summary.zero_pages / sent_again == pytest.approx(0.25, abs=0.04)


def test_a_guest_that_leaves_nothing_zero_has_no_bitmap_for_it() -> None:
    scenario = resolve(config(WRITERS["uniform"], "kvm_legacy"))
    zeroing = resolve(config(replace(WRITERS["uniform"], zeroed_percent=1.0), "kvm_legacy"))
    assert zeroing.bitmap_bytes == 2 * scenario.bitmap_bytes
