"""The guest's RAM: its blocks and the pages that are zero at the start.

Owns the checks of the keys of `vm` that describe memory. It knows no writer's rule and no backend.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from gpusim.config.checks import check_choice, check_range, parse_page_count, reject
from gpusim.config.schema import VmConfig
from gpusim.guest.writer import Writer
from gpusim.layout import CHUNK_PAGES, IntArray, Layout
from gpusim.stream import Purpose, Stream
from gpusim.units import format_bytes

PAGE_SIZES = (4096, 8192, 16384, 65536)  # bytes
BACKINGS = {"4k": 4096, "thp": 4096, "hugetlb_2m": 2**21, "hugetlb_1g": 2**30}  # QEMU's page size
MOST_CHUNKS = 2**20
MOST_PLACES = 1024  # of zero pages. Few enough that each costs the sender next to nothing
ZERO_RANGES_FORM = 'must be [[from, until], ...], such as [["1GiB", "2GiB"]]'


def parse_layout(vm: VmConfig) -> Layout:
    """Return the RAM blocks of a VM.

    Raises:
        ConfigError: the page size is unknown, or the blocks do not add up to the RAM.
    """
    check_choice("vm.backing", vm.backing, BACKINGS)
    if vm.page_size not in PAGE_SIZES:
        allowed = "must be 4096, 8192, 16384 or 65536 bytes"
        reject("vm.page_size", vm.page_size, allowed, "unknown_choice")
    pages = parse_page_count("vm.memory", vm.memory, vm.page_size)
    if pages == 0:
        reject("vm.memory", vm.memory, "must be at least one page", "out_of_range")
    if vm.blocks is None:
        return Layout([pages])
    if not vm.blocks:
        hint = "must name at least one block. Set null for one block"
        reject("vm.blocks", vm.blocks, hint, "missing")
    blocks = [parse_page_count("vm.blocks", size, vm.page_size) for size in vm.blocks]
    if min(blocks) == 0:
        reject("vm.blocks", vm.blocks, "every block needs at least one page", "out_of_range")
    if sum(blocks) != pages:
        total = format_bytes(sum(blocks) * vm.page_size)
        allowed = f"the sizes must add up to vm.memory = {vm.memory}, not {total}"
        reject("vm.blocks", vm.blocks, allowed, "contradiction")
    if sum(-(-block // CHUNK_PAGES) for block in blocks) > MOST_CHUNKS:
        allowed = f"must have at most {MOST_CHUNKS} chunks of 2^18 pages in all"
        reject("vm.blocks", f"{len(blocks)} blocks", allowed, "out_of_range")
    return Layout(blocks)


def parse_host_pages(vm: VmConfig, layout: Layout) -> int:
    """Return the target pages of a host page, as QEMU sees it. 1: QEMU sends page by page.

    Raises:
        ConfigError: no RAM block holds a whole host page.
    """
    size = max(1, BACKINGS[vm.backing] // vm.page_size)
    if layout.blocks[0] < size:
        hint = f"the RAM must hold a whole page of {format_bytes(BACKINGS[vm.backing])}"
        reject("vm.backing", vm.backing, f"{hint}. Raise vm.memory", "does_not_fit_vm")
    return size


def find_zero_pages(
    vm: VmConfig, layout: Layout, writers: Sequence[Writer], seed: int
) -> tuple[IntArray, IntArray]:
    """Return the guest pages that are zero at the start. No writer covers such a page.

    Args:
        vm: has the share of zero pages, or their ranges.
        layout: the RAM blocks.
        writers: the guest's writers.
        seed: decides where the pages of a share lie.

    Returns:
        first and last: int64 [runs], a run is the guest pages first <= page < last.

    Raises:
        ConfigError: the share or the ranges do not fit the VM and its writers.
    """
    gap_first, gap_last = _find_uncovered(layout, writers)
    check_range("vm.zero_percent", vm.zero_percent, 0, 100)
    if vm.zero_ranges is None:
        first, last = _scatter(vm, layout, gap_first, gap_last, seed)
    else:
        first, last = _cut_to_ranges(vm, layout, gap_first, gap_last)
    return first[last > first], last[last > first]


def _find_uncovered(layout: Layout, writers: Sequence[Writer]) -> tuple[IntArray, IntArray]:
    """Return the runs of pages that no writer covers at the start."""
    covered = [run for writer in writers if writer.opens_at_start for run in writer.runs()]
    borders = np.array([(0, 0), *covered, (layout.pages, layout.pages)], dtype=np.int64)
    borders = borders[np.argsort(borders[:, 0], kind="stable")]
    ends = np.maximum.accumulate(borders[:, 1])
    first, last = ends[:-1], borders[1:, 0]
    return first[last > first], last[last > first]


def _scatter(
    vm: VmConfig, layout: Layout, first: IntArray, last: IntArray, seed: int
) -> tuple[IntArray, IntArray]:
    """Draw which uncovered pages are zero, in equal places of the RAM.

    The places are as small as MOST_PLACES allows, and a power of two of pages. Nobody knows where a
    guest's zero pages are. If they all came last, then an idle guest would have almost no downtime.
    """
    wanted = round(layout.pages * vm.zero_percent / 100)
    free = int((last - first).sum())
    if wanted > free:
        free_percent = 100 * free / layout.pages
        allowed = (
            f"the writers cover {100 - free_percent:.4g} % of the VM, and covered pages are "
            f"not zero. The largest value is {free_percent:.4g}"
        )
        reject("vm.zero_percent", vm.zero_percent, allowed, "out_of_range")
    if wanted == 0:
        return first[:0], last[:0]
    place_pages = 1 << (-(-layout.pages // MOST_PLACES) - 1).bit_length()
    borders = np.arange(0, layout.pages, place_pages)
    cuts = np.union1d(np.concatenate([first, last]), borders)
    run = np.searchsorted(first, cuts[:-1], side="right") - 1
    inside = (run >= 0) & (cuts[:-1] < last[run])  # the other pieces are covered
    first, last = cuts[:-1][inside], cuts[1:][inside]
    rank = Stream(seed, 0, Purpose.ZERO_PAGES).raw(len(borders))[first // place_pages]
    order = np.argsort(rank, kind="stable")
    before = np.zeros_like(first)
    before[order] = np.cumsum((last - first)[order]) - (last - first)[order]
    last = np.minimum(last, first + np.maximum(wanted - before, 0))
    first, last = first[last > first], last[last > first]
    joined = first[1:] == last[:-1]
    return first[np.append(True, ~joined)], last[np.append(~joined, True)]


def _cut_to_ranges(
    vm: VmConfig, layout: Layout, first: IntArray, last: IntArray
) -> tuple[IntArray, IntArray]:
    if vm.zero_percent:
        hint = "set either zero_percent or zero_ranges, and vm.zero_percent=0"
        reject("vm.zero_percent", vm.zero_percent, hint, "contradiction")
    ranges = []
    for pair in vm.zero_ranges or ():
        if not isinstance(pair, list) or len(pair) != 2:
            reject("vm.zero_ranges", vm.zero_ranges, ZERO_RANGES_FORM, "wrong_format")
        low, high = (parse_page_count("vm.zero_ranges", end, vm.page_size) for end in pair)
        if not low < high <= layout.pages:
            allowed = "each range must rise and end inside the VM"
            reject("vm.zero_ranges", pair, allowed, "out_of_range")
        ranges.append((low, high))
    ranges.sort()
    if any(a[1] > b[0] for a, b in pairwise(ranges)):
        reject("vm.zero_ranges", vm.zero_ranges, "the ranges must not overlap", "contradiction")
    pieces = [(np.maximum(first, low), np.minimum(last, high)) for low, high in ranges]
    if not pieces:
        return first[:0], last[:0]
    return np.concatenate([p[0] for p in pieces]), np.concatenate([p[1] for p in pieces])
