"""Does the reader stop at every limit, and before it takes the memory or waits?"""

from __future__ import annotations

import gzip
import json
import lzma
import os
import random
import socket
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from gpusim import reading
from gpusim.reading import (
    Limits,
    ReadingError,
    parse_json,
    parse_yaml,
    read_bytes,
    read_json,
    read_text,
    read_yaml,
)
from gpusim.units import MIB

SMALL = Limits(bytes=1000, decompressed_bytes=2000, depth=4, nodes=30)


def code_of(function: Callable[..., object], *arguments: Any, **named: Any) -> str:
    with pytest.raises(ReadingError) as caught:
        function(*arguments, **named)
    line = str(caught.value)
    assert line.isprintable() and len(line) <= 2000
    return caught.value.code


def file(tmp_path: Path, content: bytes, name: str = "x") -> Path:
    path = tmp_path / name
    path.write_bytes(content)
    return path


def test_a_whole_file_is_read_packed_or_not(tmp_path: Path) -> None:
    text = "größe\r\n1\r2\n"
    for name, pack in (("x", bytes), ("x.xz", lzma.compress), ("x.gz", gzip.compress)):
        path = file(tmp_path, pack(text.encode()), name)
        assert read_bytes(path) == text.encode()
        assert read_text(str(path)) == "größe\n1\n2\n"


def test_only_a_regular_file_is_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        for name in ("pipe", "link", "socket", "."):
            assert code_of(read_bytes, tmp_path / name) == "not_a_file"
    assert code_of(read_bytes, "/dev/zero") == "not_a_file"


def test_a_pipe_that_takes_the_place_of_a_file_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.setattr(reading.os, "stat", lambda _: os.lstat(file(tmp_path, b"", "regular")))
    assert code_of(read_bytes, tmp_path / "pipe") == "not_a_file"


@pytest.mark.parametrize(
    "name", ["missing", "missing/x", "a\0b", "\ud800", "", "n" * 300, "\udcff"]
)
def test_a_name_without_a_file(tmp_path: Path, name: str) -> None:
    assert code_of(read_bytes, f"{tmp_path}/no/{name}") in ("no_such_file", "unreadable")


def test_a_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = file(tmp_path, b"x")

    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(reading.os, "open", refuse)
    assert code_of(read_bytes, path) == "unreadable"
    monkeypatch.undo()
    monkeypatch.setattr(reading.os, "read", refuse)
    assert code_of(read_bytes, path) == "unreadable"


def test_a_loop_of_links_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    assert code_of(read_bytes, tmp_path / "loop") == "unreadable"


def test_the_size_of_a_file_is_bounded_whatever_its_inode_says(tmp_path: Path) -> None:
    assert len(read_bytes(file(tmp_path, b"x" * 1000), SMALL)) == 1000
    assert code_of(read_bytes, file(tmp_path, b"x" * 1001), SMALL) == "too_large"
    with (tmp_path / "sparse").open("wb") as sparse:
        sparse.truncate(2**40)
    assert code_of(read_bytes, tmp_path / "sparse") == "too_large"
    assert len(read_bytes("/proc/self/status")) > 100  # its inode says 0 bytes
    assert code_of(read_bytes, "/proc/self/status", Limits(bytes=10)) == "too_large"


@pytest.mark.parametrize(("name", "pack"), [("x.xz", lzma.compress), ("x.gz", gzip.compress)])
def test_compressed_files(tmp_path: Path, name: str, pack: Callable[[bytes], bytes]) -> None:
    whole = pack(b"x" * 2000)
    assert read_bytes(file(tmp_path, whole, name), SMALL) == b"x" * 2000
    for place in range(len(whole)):
        damaged = file(tmp_path, whole[:place], name)
        assert code_of(read_bytes, damaged, SMALL) == "damaged_compression"
    for rest in (b"x", whole, b"\0" * 4):
        assert code_of(read_bytes, file(tmp_path, whole + rest, name)) == "damaged_compression"
    assert code_of(read_bytes, file(tmp_path, b"plain", name)) == "damaged_compression"
    assert (
        code_of(read_bytes, file(tmp_path, pack(b"x" * 2001), name), SMALL) == "too_large_unpacked"
    )


@pytest.mark.parametrize(("name", "pack"), [("x.xz", lzma.compress), ("x.gz", gzip.compress)])
def test_a_bomb_takes_no_memory(tmp_path: Path, name: str, pack: Callable[[bytes], bytes]) -> None:
    path = file(tmp_path, pack(bytes(64 * MIB)), name)
    tracemalloc.start()
    assert code_of(read_bytes, path, Limits(decompressed_bytes=MIB)) == "too_large_unpacked"
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 24 * MIB  # the dictionary of xz has 8 MiB


def test_an_xz_that_asks_for_a_huge_dictionary_is_refused(tmp_path: Path) -> None:
    filters = [{"id": lzma.FILTER_LZMA2, "dict_size": 256 * MIB, "preset": 0}]
    path = file(tmp_path, lzma.compress(b"x", filters=filters), "x.xz")
    assert code_of(read_bytes, path) == "damaged_compression"


def test_text_is_utf8_unless_a_log_may_be_damaged(tmp_path: Path) -> None:
    path = file(tmp_path, b"\xef\xbb\xbfa\xff")
    assert code_of(read_text, path) == "not_utf8"
    assert read_text(path, errors="replace") == "a\ufffd"


PARSERS: list[Callable[..., object]] = [parse_json, parse_yaml]
SAME = {  # in both languages
    '{"a": [1, -2.5, "x", null, true], "b": {}}': {"a": [1, -2.5, "x", None, True], "b": {}},
    "[9223372036854775807, -9223372036854775808]": [2**63 - 1, -(2**63)],
    '["\\ud83d\\ude00"]': None,  # a pair of surrogates is one character of JSON
    "[1.5e300]": None,
}
REFUSED = {
    "[NaN]": {"not_finite", ""},
    "[-Infinity]": {"not_finite", ""},
    "[.nan]": {"not_finite", "not_json"},
    "[-.inf]": {"not_finite", "not_json"},
    "[1e999]": {"not_finite"},
    "[-1.0e+400]": {"not_finite"},
    f"[{'9' * 400}.0]": {"not_finite"},
    "[9223372036854775809]": {"integer_too_large"},
    f"[{10**400}]": {"integer_too_large"},
    f"[{'9' * 5000}]": {"integer_too_large"},
    f"[-{'9' * 5000}]": {"integer_too_large"},
    '["\\ud800"]': {"not_unicode", "not_yaml"},
    '{"\\udfff": 1}': {"not_unicode", "not_yaml"},
    '["\ud800"]': {"not_unicode"},
    '{"\udfff": 1}': {"not_unicode"},
    '{"a": 1, "b": 2, "a": 3}': {"repeated_key"},
    "[" * 100_000: {"too_deep", "not_yaml"},
    '{"a":' * 100_000: {"too_deep", "not_yaml"},
    "[" * 51 + "]" * 51: {"too_deep"},
    "[": {"not_json", "not_yaml"},
    '"': {"not_json", "not_yaml"},
    "{]": {"not_json", "not_yaml"},
    "\0": {"not_json", "not_yaml"},
}


@pytest.mark.parametrize("parse", PARSERS)
@pytest.mark.parametrize("text", SAME, ids=range(len(SAME)))
def test_values_of_both_languages(parse: Callable[..., object], text: str) -> None:
    if SAME[text] is not None:
        assert parse(text) == SAME[text]
    elif parse is parse_json:
        assert parse(text) == json.loads(text)


@pytest.mark.parametrize("parse", PARSERS)
@pytest.mark.parametrize("text", REFUSED, ids=range(len(REFUSED)))
def test_what_no_file_may_hold(parse: Callable[..., object], text: str) -> None:
    if "" in REFUSED[text] and parse is parse_yaml:
        assert isinstance(parse(text), list)  # NaN is a word of YAML
        return
    assert code_of(parse, text) in REFUSED[text]


@pytest.mark.parametrize("parse", PARSERS)
def test_depth_and_values_are_bounded(parse: Callable[..., object]) -> None:
    assert parse("[[[[1]]]]", SMALL) == [[[[1]]]]
    assert code_of(parse, "[[[[[1]]]]]", SMALL) == "too_deep"
    assert parse(json.dumps([1] * 28), SMALL) == [1] * 28
    assert code_of(parse, json.dumps([1] * 31), SMALL) == "too_many_values"
    assert code_of(parse, json.dumps([[]] * 31), SMALL) == "too_many_values"


def test_bytes_of_json_are_utf8() -> None:
    assert parse_json('["ä"]'.encode()) == ["ä"]
    assert code_of(parse_json, b'["\xff"]') == "not_utf8"
    assert code_of(parse_json, '["ä"]'.encode("utf-16")) == "not_utf8"


def test_scalars_of_yaml_are_plain_data() -> None:
    text = """
    words: [plain, 'quoted', "1", '', 1:30, 010, 2026-11-29, 1.2.3, 0x10, <<, =, .5x, 1e, -]
    numbers: [0, -7, 1_000, 1.5, .5, 1., 1e3, +2E-2]
    others: [null, ~, Yes, off, TRUE]
    yes: {1: a, 1.50: b, null: c}
    empty:
    """
    assert parse_yaml(text) == {
        "words": [
            *("plain", "quoted", "1", "", "1:30", "010", "2026-11-29", "1.2.3", "0x10"),
            *("<<", "=", ".5x", "1e", "-"),
        ],
        "numbers": [0, -7, 1000, 1.5, 0.5, 1.0, 1000.0, 0.02],
        "others": [None, None, True, False, True],
        "yes": {"1": "a", "1.50": "b", "null": "c"},
        "empty": None,
    }
    assert parse_yaml("") is None
    assert parse_yaml("a: ${oc.env:HOME}\nb: '${a}'") == {"a": "${oc.env:HOME}", "b": "${a}"}


def test_aliases_are_counted_with_their_values() -> None:
    assert parse_yaml("a: &x [1, 2]\nb: *x\nc: &y z\nd: *y") == {
        "a": [1, 2],
        "b": [1, 2],
        "c": "z",
        "d": "z",
    }
    bomb = "a0: &a0 [1,1,1,1,1,1,1,1,1]\n" + "".join(
        f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 30)
    )
    assert code_of(parse_yaml, bomb) == "too_many_values"
    deep = "a0: &a0 [1]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 60))
    assert code_of(parse_yaml, deep) == "too_deep"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("a: &a [*a]", "not_a_tree"),
        ("&a {b: *a}", "not_a_tree"),
        ("a: &a 1\nb: &a [*a]", "not_a_tree"),
        ("a: *b", "not_a_tree"),
        ("!!python/object/apply:os.system [ls]", "tag"),
        ("a: !!str 1", "tag"),
        ("a: !x {}", "tag"),
        ("!!binary aGk=", "tag"),
        ("? [1]\n: 2", "key_not_text"),
        ("? {a: 1}\n: 2", "key_not_text"),
        ("a: 1\na: 2", "repeated_key"),
        ("a: 1\n---\nb: 2", "not_yaml"),
        ("a: b: c", "not_yaml"),
        ("\t- a", "not_yaml"),
        ("a: \x07", "not_yaml"),
        ('"\\UFFFFFFFF"', "not_yaml"),
        ("%YAML 99999999999999999999.1\n---\na", "not_yaml"),
    ],
)
def test_what_yaml_may_not_say(text: str, code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert code_of(parse_yaml, text) == code
    monkeypatch.delattr(yaml, "CSafeLoader", raising=False)
    assert code_of(parse_yaml, text) == code


def test_errors_of_files_name_them(tmp_path: Path) -> None:
    path = file(tmp_path, b"[", "\x1b[31m\udcff.json")
    for read in (read_json, read_yaml):
        with pytest.raises(ReadingError) as caught:
            read(path)
        assert "\\x1b[31m\\xff.json: not " in str(caught.value)
        assert caught.value.reason.startswith("not ")
    assert read_json(file(tmp_path, b"[1]")) == read_yaml(file(tmp_path, b"- 1")) == [1]


ADVERSARIAL = ["1", "-", "[1,", '{"a":', '"\\"', "a: ", "- ", "&a ", "*a ", "? ", "# ", "'", '"', "\n ", "\t",
               ": ", "1_", "1e", "!", "|\n ", "%", "\\", "[]", "{},", "é", "\u2028", "_", ".1", "- - "]  # fmt: skip


@pytest.mark.parametrize("parse", PARSERS)
@pytest.mark.parametrize("part", ADVERSARIAL)
def test_a_long_text_takes_no_longer_than_its_length(
    parse: Callable[..., object], part: str
) -> None:
    for text in (part * (200_000 // len(part)), f'"{part * (200_000 // len(part))}"'):
        try:
            parse(text)
        except ReadingError as error:
            assert len(str(error)) < 500


def test_mutated_texts_give_a_value_or_the_one_error() -> None:
    draw = random.Random(1)
    seeds = ['{"a": [1, 2.5e3, "\\u00e4", null], "b": {"c": true}}', "a: &x [1, {b: 'c'}]\nd: *x\n"]
    parts = "[]{}:,\"'\\&*!|>%#?- \n\t0123456789eE.~\ud800\0\u2028ä"
    for _ in range(3000):
        text = list(draw.choice(seeds))
        for _ in range(draw.choice((1, 1, 2, 5))):
            text[draw.randrange(len(text))] = draw.choice(parts)
        for parse in PARSERS:
            try:
                parse("".join(text))
            except ReadingError as error:
                assert str(error).isprintable()
