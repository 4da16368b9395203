"""Tiny documents, and the values and changes that attack them. Every choice is seeded."""

from __future__ import annotations

import json
import random
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from gpusim.errors import LONGEST_MESSAGE, CodedError, ConfigError

DELETED = object()
VALUES: tuple[Any, ...] = (
    DELETED, None, True, "", 1e308, -1, 0, 0.5, 10**30, 2**63, [], {}, [[[[]]]], {"a": {"b": []}},
    "\ud800", "x" * 100_000, "NaN", float("nan"), float("-inf"), "5",
)  # fmt: skip
MIB = 2**20
LONGEST_S = 20  # a guard against hangs

PARAMETERS: dict[str, Any] = {
    "max-bandwidth": 100 * MIB,
    "downtime-limit": 60,
    "throttle-trigger-threshold": 50,
    "cpu-throttle-initial": 20,
    "cpu-throttle-increment": 10,
    "cpu-throttle-tailslow": False,
    "max-cpu-throttle": 99,
    "avail-switchover-bandwidth": 0,
}
PROFILE: dict[str, Any] = {
    "profile": 1,
    "source": "a test",
    "qemu": "10.0.2",
    "accelerator": "kvm",
    "memory": 64 * MIB,
    "page_size": 4096,
    "vcpus": 2,
    "blocks": {"pc.ram": 63 * MIB, "rom": MIB},
    "zero_pages": {"sampled": 100, "zero": 10},
    "utilisation": [1.0, 0.5],
    "mode": "page-sampling",
    "sample_pages": 512,
    "measurements": [
        {"seconds": 0.5, "dirty_rate": 20, "at_s": 0.0, "running": 1.0},
        {"seconds": 1, "dirty_rate": 15},
        {"seconds": 2, "dirty_rate": 9},
    ],
    "parameters": {**PARAMETERS, "multifd-compression": "none", "tls-creds": ""},
    "capabilities": ["auto-converge", "events"],
    "notes": ["a note"],
}


def recording(*, known: bool) -> dict[str, Any]:
    """Return a migration of 64 MiB in 0.9 s: two passes, then the VM's stop.

    Args:
        known: of a known guest, with a trace and a fine counter. Otherwise, of an unknown VM.
    """
    pages = 64 * 256
    rows = [
        {
            "t": round(0.1 * n, 3),
            "status": "active" if n < 9 else "completed",
            "transferred": 10 * MIB * min(n, 8),
            "remaining": (64 - 10 * n if n <= 6 else 16 - 7 * (n - 7)) * MIB if n < 9 else 0,
            "duplicate": 300 * min(n, 6),
            "normal": min(2400 * n, pages + 2000),
            "dirty-sync-count": 1 + (n > 6) + (n > 8),
            "total": 64 * MIB,
            "total-time": 100 * n,
            "cpu-throttle-percentage": 20 if n > 6 else 0,
            "mbps": 838.8608,
        }
        for n in range(10)
    ]
    rows[-1]["downtime"] = 40
    document: dict[str, Any] = {
        "scenario": {"mem_mib": 64, "capabilities": ["auto-converge"]},
        "qemu": {"major": 10, "minor": 0, "micro": 2},
        "accelerator": "kvm",
        "vcpus": 1,
        "parameters": dict(PARAMETERS),
        "events": [],
        "qmp_events": [
            [0.0, "MIGRATION", {"status": "setup"}],
            [0.01, "MIGRATION_PASS", {"pass": 1}],
            [0.65, "MIGRATION_PASS", {"pass": 2}],
            [0.86, "STOP", {}],
        ],
        "samples": rows,
    }
    if not known:
        return document
    names = (
        (0.0, "migrate_set_state", "new state setup"),
        (0.005, "migration_bitmap_sync_start", ""),
        (0.01, "migration_bitmap_sync_end", "dirty_pages 0"),
        (0.011, "migrate_set_state", "new state active"),
        (0.64, "migration_bitmap_sync_start", ""),
        (0.65, "migration_bitmap_sync_end", "dirty_pages 4000"),
        (0.66, "cpu_throttle_set", "set guest CPU throttled by 20%"),
        (0.86, "migration_completion_vm_stop", ""),
        (0.9, "migrate_set_state", "new state completed"),
    )
    guest = {"base": 32, "size": 16, "mode": 1, "rate": 8000, "paced": 0, "hot": 2, "hotpct": 50}
    return document | {
        "scenario": document["scenario"] | {"guest": guest | {"fill": 40}, "limit_s": 20},
        "accelerator": "tcg",
        "writes_per_s_before": 8000.0,
        "flat_out_writes_per_s": 900_000.0,
        "events": [list(row) for row in names],
        "counter": [[round(0.02 * n - 0.04, 3), 1000 + 160 * n] for n in range(47)],
        "samples": [row | {"writes": 1320 + 800 * n} for n, row in enumerate(rows)],
        "profile": PROFILE | {"accelerator": "tcg"},
    }


def places(document: Any, most: int = 4, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every key, and of at most so many rows of each list."""
    if place:
        yield place
    if isinstance(document, dict):
        for key, value in document.items():
            yield from places(value, most, (*place, key))
    elif isinstance(document, list):
        step = max(1, len(document) // most)
        for number in {*range(0, len(document), step), len(document) - 1} - {-1}:
            yield from places(document[number], most, (*place, number))


def changed(document: Any, place: tuple[Any, ...], value: Any) -> Any:
    """Return a copy with another value at a path, or without its key."""
    document = json.loads(json.dumps(document))
    holder = document
    for key in place[:-1]:
        holder = holder[key]
    if value is DELETED:
        del holder[place[-1]]
    else:
        holder[place[-1]] = value
    return document


def mutated(choose: random.Random, text: str, most: int = 3) -> str:
    """Return a text with one to `most` random changes: cut, splice, flip, repeat, swap, values."""
    for _ in range(choose.randint(1, most)):
        lines = text.split("\n")
        at, other = (choose.randrange(len(lines)) for _ in range(2))
        place, end = sorted(choose.randrange(len(text) + 1) for _ in range(2))
        kind = choose.randrange(10)
        if kind == 0:
            text = text[:end]
        elif kind == 1:
            text = text[:place] + text[end : end + 300] + text[place:]
        elif kind == 2 and text:
            place = min(place, len(text) - 1)
            text = (
                text[:place] + chr(ord(text[place]) ^ 1 << choose.randrange(7)) + text[place + 1 :]
            )
        elif kind == 3:
            text = "\n".join([*lines[:at], *lines[at : at + 1] * choose.randint(2, 5), *lines[at:]])
        elif kind == 4:
            lines[at], lines[other] = lines[other], lines[at]
            text = "\n".join(lines)
        elif kind == 5:
            text = "\n".join(lines[:at] + lines[at + 1 :])
        elif kind == 6:
            lines[at] = "".join(
                chr(choose.randrange(1, 0x250)) for _ in range(choose.randrange(50))
            )
            text = "\n".join(lines)
        else:
            text = _other_value(choose, text, place)
    return text


TOKENS = ("", "-1", "0", "1e308", "9" * 30, "9" * 5000, "nan", "inf", "null", "{}", "[]", '"x"',
          "true", "1.5", "\u0661\u0662", "\x00", "[" * 2000, '{"a":' * 2000, "0x10", "1_000")  # fmt: skip


def _other_value(choose: random.Random, text: str, place: int) -> str:
    """Replace the first number or quoted text after a place."""
    for at in range(place, min(place + 2000, len(text))):
        if text[at] in "-0123456789":
            end = at + 1
            while end < len(text) and text[end] in "0123456789.":
                end += 1
            return text[:at] + choose.choice(TOKENS) + text[end:]
    return text


@contextmanager
def no_hang() -> Iterator[None]:
    """Raise an error if the block takes LONGEST_S."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise AssertionError("hangs")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(LONGEST_S)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def outcome(act: Callable[[], object]) -> str:
    """Return "accepted", or the code of the error. An error is one bounded line.

    Any other exception passes.
    """
    with no_hang():
        try:
            act()
        except (CodedError, ConfigError) as error:
            line = str(error)
            assert line.isprintable(), error.code
            assert 0 < len(line) <= LONGEST_MESSAGE
            return error.code
    return "accepted"
