"""Does any damaged or endless log end in one line, in time that is linear in its length?"""

from __future__ import annotations

import gzip
import lzma
import os
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from gpusim.formats import recording_from_answers
from gpusim.formats.profile import load_profile
from gpusim.formats.recording_file import load_recording, read_document
from gpusim.formats.recording_from_virsh import convert
from gpusim.formats.virsh import load_domstats
from gpusim.monitor.hmp import parse_blocks, parse_ranges
from gpusim.record.attached import read_last_migration
from gpusim.record.scenarios import load_scenario
from tests.formats.hostile import mutated, outcome, recording
from tests.formats.virsh_logs import logs
from tests.monitor.fake_qmp import MTREE, RAMBLOCK

MUTATIONS, SLOW_MUTATIONS = 150, 2000
MB = 10**6


def source() -> dict[str, object]:
    """Return the recording that virsh's logs are made from."""
    document = recording(known=True)
    rows = [
        row | {"dirty-pages-rate": 900, "expected-downtime": 60, "setup-time": 5}
        for row in document["samples"]
    ]
    return document | {"samples": rows}


def attack_logs(folder: Path, first: int, last: int) -> int:
    """Convert so many pairs of mutated logs. Return how many became a recording."""
    pairs = [logs(source(), raw=raw, stamped=raw) for raw in (True, False)]
    jobs, events = folder / "jobs.log", folder / "events.log"
    accepted = 0
    for seed in range(first, last):
        choose = random.Random(seed)
        text, other = pairs[seed % 2]
        if choose.random() < 0.7:
            text = mutated(choose, text)
        else:
            other = mutated(choose, other)
        jobs.write_text(text, errors="surrogatepass")
        events.write_text(other, errors="surrogatepass")
        with_events = events if choose.random() < 0.8 else None
        accepted += outcome(partial(convert, jobs, with_events)) == "accepted"
    return accepted


def test_mutated_logs_of_virsh(tmp_path: Path) -> None:
    assert 0 < attack_logs(tmp_path, 0, MUTATIONS) < MUTATIONS


@pytest.mark.slow
def test_many_mutated_logs_of_virsh(tmp_path: Path) -> None:
    assert 0 < attack_logs(tmp_path, MUTATIONS, SLOW_MUTATIONS) < SLOW_MUTATIONS


def test_the_logs_are_sound(tmp_path: Path) -> None:
    for name, text in zip(("jobs.log", "events.log"), logs(source()), strict=True):
        (tmp_path / name).write_text(text)
    found = read_document(convert(tmp_path / "jobs.log", tmp_path / "events.log"), "x")
    assert found.completed


def attack_tables(first: int, last: int) -> int:
    accepted = 0
    for seed in range(first, last):
        table, parse = ((RAMBLOCK, parse_blocks), (MTREE, parse_ranges))[seed % 2]
        text = mutated(random.Random(seed), table)
        accepted += outcome(partial(parse, text)) == "accepted"
    return accepted


def test_mutated_tables_of_hmp() -> None:
    assert 0 < attack_tables(0, 300) < 300


@pytest.mark.slow
def test_many_mutated_tables_of_hmp() -> None:
    assert attack_tables(300, 2 * SLOW_MUTATIONS) > 0


READERS: dict[str, Callable[[Path], object]] = {
    "x.json": load_recording,
    "profile.yaml": load_profile,
    "profile.json": load_profile,
    "domstats.log": lambda path: load_domstats(path, None, None),
    "jobs.log": lambda path: convert(path, None),
    "events.log": lambda path: convert(sound_jobs(path.parent), path),
    "answers.json": lambda path: recording_from_answers.convert(path, {}),
    "scenario.yaml": lambda path: load_scenario(str(path)),
    "trace.log": read_last_migration,
    "ramblock": lambda path: parse_blocks(path.read_text()),
    "mtree": lambda path: parse_ranges(path.read_text()),
}


def sound_jobs(folder: Path) -> Path:
    path = folder / "sound.log"
    path.write_text(logs(source())[0])
    return path


LONG: dict[str, str] = {
    "spaces": " " * MB + "x",
    "spaces after a key": "Memory total:" + " " * MB + "x",
    "a value with spaces": "dirtyrate.calc_status=" + "1 " * (MB // 2) + "x",
    "digits": "9" * MB,
    "digits and a letter": "memory: " + "1" * MB + "x",
    "digits and points": "1." * (MB // 2),
    "underscores": "memory: 1" + "_" * MB + "x",
    "brackets": "[" * MB,
    "pairs of brackets": "[]" * (MB // 2),
    "braces": '{"a":' * (MB // 5),
    "quotes": "Domain: '" + "' " * (MB // 2) + "x",
    "colons and braces": "event STOP at 1700000000.5 for domain x" + ": {" * (MB // 3) + "x",
    "clock": "1700000000." + "5" * MB,
    "words": "Job type:" + " word" * (MB // 5),
    "a trace": "1@1.5:migrate_set_state" + " x" * (MB // 2),
    "line ends": "\n" * MB,
    "short lines": "a: 1\n" * (MB // 5),
    "short lists": "- 1\n" * (MB // 4),
    "hexadecimal": "0x" + "f" * MB,
    "a row of RAM": "pc.ram " + "0x1 " * (MB // 4),
    "dashes": "address-space: memory\n" + "0-1 " * (MB // 4),
    "backslashes": '"' + "\\" * MB,
    "aliases": "a: &a [1]\nb: [" + "*a, " * (MB // 4) + "]",
}


TINY = {"line ends", "short lines", "short lists", "aliases"}  # a million values take seconds


@pytest.mark.parametrize(
    "text", [pytest.param(key, marks=pytest.mark.slow if key in TINY else ()) for key in LONG]
)
def test_a_long_text_takes_linear_time(tmp_path: Path, text: str) -> None:
    """A square of a million steps would take minutes. The guard ends the test."""
    for name, read in READERS.items():
        path = tmp_path / name
        path.write_text(LONG[text])
        outcome(partial(read, path))


def test_files_that_are_not_plain_text(tmp_path: Path) -> None:
    """Empty files, other encodings, bombs and pipes are one line for each format."""
    contents = {
        "": b"",
        "bom": b"\xef\xbb\xbf",
        "utf-16": '{"scenario": {}}'.encode("utf-16"),
        "utf-32": "a: 1\n".encode("utf-32"),
        "binary": bytes(range(256)) * 100,
        "nul": b"\0" * 1000,
        "nan": b"NaN",
        "number": b"1e999",
    }
    for name, read in READERS.items():
        if name in ("ramblock", "mtree"):
            continue
        path = tmp_path / name
        for content in contents.values():
            path.write_bytes(content)
            found = outcome(partial(read, path))
            assert found != "accepted" or name == "trace.log"
        path.unlink()
        os.mkfifo(path)
        assert outcome(partial(read, path)) != "accepted"
        path.unlink()


@pytest.mark.slow
@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress])
def test_bombs_are_refused(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    bomb = pack(b" " * 129 * 2**20)
    suffix = ".gz" if pack is gzip.compress else ".xz"
    assert len(bomb) < MB
    for name in ("x.json", "domstats.log", "jobs.log"):
        path = tmp_path / f"{name}{suffix}"
        path.write_bytes(bomb)
        assert outcome(partial(READERS[name], path)) == "unreadable"
