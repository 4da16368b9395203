"""Do distinct pages follow W (1 - exp(-n / W)), as in QEMU's own measurements of dirty rates?

Source: calc-dirty-rate, QEMU commit 34a68001. One thread writes 3 million random pages per second
into 1, 4 and 24 GiB, measured over different times. The result is close to n for 100 ms into 24
GiB, and all pages for 1000 ms into 1 GiB.
"""

from __future__ import annotations

import numpy as np
import pytest

from gpusim.guest.guest import Guest
from gpusim.guest.pace import CpuBound
from gpusim.guest.pattern import uniform
from gpusim.guest.placement import contiguous
from gpusim.guest.run_time import RunTime
from gpusim.guest.writer import Writer
from gpusim.layout import Layout
from gpusim.pages.pages import Pages
from gpusim.units import NS_PER_MS

RATE = 3e6
GIB_PAGES = 2**18
Z = 5.0
EMPTY = np.zeros(0, np.int64)


def dirty_pages(gib: int, ms: int, seed: int) -> int:
    """Return the newly dirty pages after some time, in a VM without pending pages."""
    layout = Layout([gib * GIB_PAGES])
    writer = Writer(
        name="random",
        pattern=uniform(layout.pages),
        pace=CpuBound(RATE),
        placement=contiguous(0, layout.pages),
        windows=None,
        throttled=True,
        vcpus=1,
    )
    pages = Pages(
        layout,
        zero_first=EMPTY,
        zero_last=EMPTY,
        lazy=False,
        initially_set=False,
        seed=seed,
        threads=1,
    )
    pages.take([(layout.pages, 1, 1)])
    return pages.sync(Guest(layout, [writer], RunTime()).writes(0, ms * NS_PER_MS))


@pytest.mark.parametrize("ms", [100, 250, 500, 750, 1000])
@pytest.mark.parametrize("gib", [1, 4, 24])
def test_distinct_pages(gib: int, ms: int) -> None:
    pages, writes = gib * GIB_PAGES, RATE * ms / 1000
    clean = np.exp(-writes / pages)
    deviation = np.sqrt(pages * clean * (1 - clean))
    assert abs(dirty_pages(gib, ms, seed=ms) - pages * (1 - clean)) < Z * deviation


def test_the_ends_of_the_curve() -> None:
    assert dirty_pages(24, 100, 1) == pytest.approx(RATE / 10, rel=0.03)
    assert dirty_pages(1, 1000, 1) == pytest.approx(GIB_PAGES, rel=1e-4)
