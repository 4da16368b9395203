"""Are the tables of QEMU's human monitor parsed as QEMU prints them, and damaged ones refused?"""

from __future__ import annotations

import pytest

from gpusim.monitor.errors import LiveError
from gpusim.monitor.hmp import parse_backing, parse_blocks, parse_page, parse_ranges
from tests.monitor.fake_qmp import MTREE, RAMBLOCK, page_dump

GIB = 2**30
HEAD = RAMBLOCK.splitlines()[0] + "\r\n"
ROW = "   pc.ram    4 KiB  0x0000000000000000 0x0000000040000000 0x0000000040000000\r\n"
MEMORY = 'FlatView #0\n AS "memory", root: system\n'


def test_qemus_tables() -> None:
    expected = {"pc.ram": GIB, "/objects/mem two": 2 * 2**20, "pc.bios": 2**18}
    assert parse_blocks(RAMBLOCK) == expected
    assert parse_blocks(HEAD + ROW) == {"pc.ram": GIB}  # QEMU 7.2 prints no host addresses
    assert parse_ranges(MTREE) == ((0, 0xC0000), (0x100000, GIB))
    assert parse_ranges("") == ()
    dump = page_dump(8192, last_word=5)
    assert parse_page(dump, 8192) == [0] * 511 + [5]
    short = "\n".join(line[8:] for line in dump.splitlines())  # 11.1 prints 8 digits of an address
    assert parse_page(short, 8192) == [0] * 511 + [5]


@pytest.mark.parametrize(
    ("size", "backing"),
    [("4 KiB", None), ("64 KiB", None), ("2 MiB", "hugetlb_2m"), ("1 GiB", "hugetlb_1g")],
)
def test_the_largest_block_says_what_backs_the_ram(size: str, backing: str | None) -> None:
    other = ROW.replace("pc.ram    4 KiB", "pc.bios    2 MiB").replace("40000000", "00040000")
    assert parse_backing(HEAD + other + ROW.replace("4 KiB", size)) == backing


@pytest.mark.parametrize(
    "row",
    [
        ROW.replace("0x0000000040000000", "0xzzzz"),
        ROW.replace("0x0000000040000000 0x", "0x"),
        ROW.replace("KiB", "kB"),
        ROW.replace("4 KiB", "KiB"),
        ROW.replace("pc.ram", ""),
        ROW.replace("pc.ram", "\x1b[2Jpc.ram"),
        ROW.replace("0x0000000040000000 0x0", "0x0000000040000001 0x0"),  # used exceeds total
        ROW.replace("0x00000000", "0x" + "f" * 300),
        ROW[:60],
        ROW + ROW,
        ROW + "and more\n",
    ],
)
def test_a_damaged_row_of_a_block_is_refused(row: str) -> None:
    with pytest.raises(LiveError) as caught:
        parse_blocks(HEAD + row)
    assert caught.value.code == "wrong_table"


@pytest.mark.parametrize(
    "text", ["", "x", HEAD, HEAD + ROW.replace("40000000", "00000000"), ROW, "\n" + HEAD + ROW]
)
def test_no_ram_is_refused(text: str) -> None:
    with pytest.raises(LiveError) as caught:
        parse_blocks(text)
    assert caught.value.code == "no_ram"


@pytest.mark.parametrize(
    "rows",
    [
        "  zzzz-qqqq (prio 0, ram): x\n",
        "  0000000000002000-0000000000001fff (prio 0, ram): x\n",
        "  0000000000000000-0000000000001fff (prio 0, ram): x\n" * 2,
        "  0000000000000000-00000000000000001fff (prio 0, ram): x\n",
        "  0000000000000000-0000000000001fff (prio 0, ram\n",
        "  0000000000000000-0000000000001fff\n",
    ],
)
def test_a_damaged_row_of_the_address_space_is_refused(rows: str) -> None:
    with pytest.raises(LiveError) as caught:
        parse_ranges(MEMORY + rows)
    assert caught.value.code == "wrong_table"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0x" * 1000,
        page_dump(0),
        page_dump(4096)[:-10],
        page_dump(4096) + "x",
        page_dump(4096).replace("0x", "0X"),
    ],
)
def test_a_damaged_dump_is_refused(text: str) -> None:
    with pytest.raises(LiveError) as caught:
        parse_page(text, 4096)
    assert caught.value.code == "no_memory_dump"


@pytest.mark.timeout(20)
@pytest.mark.parametrize("unit", ["\n", " ", "a 4 KiB ", "a  1 ", "x 4 KiB 0xzz 0xzz 0xzz rw\n"])
def test_a_megabyte_of_other_text_is_refused_at_once(unit: str) -> None:
    text = unit * (10**6 // len(unit)) + "x"
    for parse in (lambda: parse_blocks(HEAD + text), lambda: parse_ranges(MEMORY + "  " + text)):
        with pytest.raises(LiveError) as caught:
            parse()
        assert caught.value.code == "wrong_table"
