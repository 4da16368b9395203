"""Parse the texts of QEMU's human monitor, line by line. A damaged table is refused.

Each line is matched as a whole and once, so the time grows with the length of the text.
Source: QEMU 7.2, 10.0 and 11.1, system/physmem.c:ram_block_format, system/memory.c:
mtree_print_flatview and monitor/hmp-cmds-target.c:memory_dump.
"""

from __future__ import annotations

import re
from typing import NoReturn

from gpusim.monitor.errors import LiveError

PAGE_BYTES = 4096  # a target page of x86, and of most others
WORDS = PAGE_BYTES // 8
UNITS = ("KiB", "MiB", "GiB")
HUGE_PAGES = {"2 MiB": "hugetlb_2m", "1 GiB": "hugetlb_1g"}
HEX = re.compile(r"0x[0-9a-f]{16}")
VIEW = re.compile(r"FlatView #[0-9]+")
ROW = re.compile(r"  ([0-9a-f]{16})-([0-9a-f]{16}) \(prio -?[0-9]{1,10}, ([a-z/-]+)\): .*")
DUMPED = re.compile(r"([0-9a-f]{8,16}): 0x([0-9a-f]{16}) 0x([0-9a-f]{16})")  # 11.1 prints 8 digits
MOST_BYTES = 2**60


def parse_blocks(text: str) -> dict[str, int]:
    """Return the used bytes of each RAM block from "info ramblock".

    Raises:
        LiveError: a line is no row, a name occurs twice, or there is no RAM.
    """
    return {name: used for name, (used, _) in _blocks(text).items()}


def parse_backing(text: str) -> str | None:
    """Return what `vm.backing` is if the largest RAM block of "info ramblock" is of hugetlbfs.

    None: it is not. QEMU does not show transparent huge pages.

    Raises:
        LiveError: as `parse_blocks`.
    """
    _, page_size = max(_blocks(text).values(), key=lambda block: block[0])
    return HUGE_PAGES.get(page_size)


def _blocks(text: str) -> dict[str, tuple[int, str]]:
    """Return used bytes and page size of each RAM block."""
    blocks: dict[str, tuple[int, str]] = {}
    lines = text.splitlines()
    if not lines or not lines[0].split()[:2] == ["Block", "Name"]:
        raise LiveError("no_ram", answer=repr(text[:80]))
    for number, line in enumerate(lines[1:], 2):
        if line:
            name, used, page_size = _block(line) or _refuse("info ramblock", number, line)
            if name in blocks:
                _refuse("info ramblock", number, line)
            blocks[name] = used, page_size
    if not 0 < sum(used for used, _ in blocks.values()) <= MOST_BYTES:
        raise LiveError("no_ram", answer=repr(text[:80]))
    return blocks


def _block(line: str) -> tuple[str, int, str] | None:
    """Return name, used bytes and page size of a row.

    A row is NAME SIZE UNIT OFFSET USED TOTAL [HVA [RO]].
    """
    fields = line.split()
    if fields[-1:] in (["ro"], ["rw"]):  # QEMU 8.1 and newer, after the host's address
        fields.pop()
    numbers: list[int] = []
    while fields and len(numbers) < 4 and HEX.fullmatch(fields[-1]):
        numbers.insert(0, int(fields.pop(), 16))
    if len(numbers) < 3 or len(fields) < 3 or not line.isprintable():
        return None
    *name, size, unit = fields
    if unit not in UNITS or not re.fullmatch("[0-9]{1,4}", size) or numbers[1] > numbers[2]:
        return None
    return " ".join(name), numbers[1], f"{size} {unit}"


def parse_ranges(text: str) -> tuple[tuple[int, int], ...]:
    """Return the ranges of RAM in the guest's address space, as (first, end), from "info mtree -f".

    Empty: the monitor does not show the address space.

    Raises:
        LiveError: a line of the address space is no row, or rows are not in order.
    """
    ranges: list[tuple[int, int]] = []
    is_memory, reached = False, 0
    for number, line in enumerate(text.splitlines(), 1):
        if VIEW.fullmatch(line):
            is_memory = False
        elif line.startswith(' AS "memory", '):
            is_memory, reached = not ranges, 0  # the view of the vCPUs, once
        elif is_memory and line.startswith("  ") and line != "  No rendered FlatView":
            row = ROW.fullmatch(line)
            if row is None:
                _refuse("info mtree -f", number, line)
            first, end = int(row[1], 16), int(row[2], 16) + 1
            if not reached <= first < end:
                _refuse("info mtree -f", number, line)
            reached = end
            if row[3] == "ram":
                ranges.append((first, end))
    return tuple(ranges)


def parse_page(text: str, address: int) -> list[int]:
    """Return the words of a page from "xp /512gx".

    Raises:
        LiveError: the text is not the dump of that page.
    """
    words: list[int] = []
    for line in text.splitlines():
        row = DUMPED.fullmatch(line)
        if row is None or int(row[1], 16) != address + 8 * len(words):
            break
        words += int(row[2], 16), int(row[3], 16)
    if len(words) != WORDS or len(text.splitlines()) != WORDS // 2:
        raise LiveError("no_memory_dump", answer=repr(text[:80]))
    return words


def _refuse(command: str, number: int, line: str) -> NoReturn:
    raise LiveError("wrong_table", command=command, line=number, answer=repr(line[:80]))
