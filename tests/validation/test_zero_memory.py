"""Recordings without a guest counter, of VMs of several GiB that are mostly zero."""

from gpusim.layout import CHUNK_PAGES
from gpusim.validation.unseen_guest import ExpectedBitmap


def test_zero_pages_before_a_chunk_hardly_delay_its_clear():
    pages, written = 4 * CHUNK_PAGES, range(2 * CHUNK_PAGES, 4 * CHUNK_PAGES)
    bitmap = ExpectedBitmap(pages, written, lazy=True)
    bitmap.send(pages)
    first = bitmap._left[(bitmap._chunk == 2)][0]
    second = bitmap._left[(bitmap._chunk == 3)][0]
    assert first > 0.99  # half of the pages came before, and almost no bytes
    assert abs(second - first / 2) < 0.01
