"""Recordings without a guest counter, of VMs of several GiB that are mostly zero."""

import numpy as np

from gpusim.layout import CHUNK_PAGES
from gpusim.validation.unseen_guest import ExpectedBitmap

EVENLY = np.array([0.0, 1.0])


def test_zero_pages_before_a_chunk_hardly_delay_its_clear():
    pages, written = 4 * CHUNK_PAGES, range(2 * CHUNK_PAGES, 4 * CHUNK_PAGES)
    bitmap = ExpectedBitmap(pages, written, lazy=True)
    bitmap.send(pages, EVENLY, EVENLY)
    first = bitmap._left[(bitmap._chunk == 2)][0]
    second = bitmap._left[(bitmap._chunk == 3)][0]
    assert first > 0.99  # half of the pages came before, and almost no bytes
    assert abs(second - first / 2) < 0.01


def test_zero_pages_that_took_time_delay_the_clear():
    pages, written = 4 * CHUNK_PAGES, range(2 * CHUNK_PAGES, 4 * CHUNK_PAGES)
    bitmap = ExpectedBitmap(pages, written, lazy=True)
    # The link stood almost still for a third of the time, while QEMU searched the zero pages.
    zero_share = 9 / (9 + 4104)
    bitmap.send(pages, np.array([0.0, zero_share, 1.0]), np.array([0.0, 1 / 3, 1.0]))
    first = bitmap._left[(bitmap._chunk == 2)][0]
    assert abs(first - 2 / 3) < 0.01
