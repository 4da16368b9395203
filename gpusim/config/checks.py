"""Checks of single values. A check parses a value or refuses it with a ConfigError."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn, TypeVar

import numpy as np

from gpusim.errors import ConfigError
from gpusim.layout import FloatArray
from gpusim.text import did_you_mean, sentences
from gpusim.units import (
    LONGEST_NS,
    MOST_BYTES,
    MOST_COUNT,
    format_bytes,
    parse_bytes,
    parse_bytes_per_s,
    parse_ns,
)

T = TypeVar("T")
SLOWEST, FASTEST = 125_000, 1e15  # bytes per second: a page takes well under a second


def reject(key: str, value: object, message: str, code: str = "not_allowed") -> NoReturn:
    """Raise a ConfigError.

    Args:
        key: of the value in the config.
        value: as the user set it.
        message: what is allowed, and what to type.
        code: one of errors.CODES.
    """
    raise ConfigError(key, value, message, code)


def check_choice(key: str, value: object, choices: Iterable[str], meant: str | None = None) -> None:
    """Refuse a value that is not one of some names. `meant` is the name that it probably means."""
    names = list(choices)
    if value not in names:
        hint = did_you_mean(value, names) or f" Did you mean {meant}?" * (meant in names)
        reject(
            key, value, f"must be one of {', '.join(names)}{hint and '.'}{hint}", "unknown_choice"
        )


def reject_key(key: str, name: str, value: object, known: Iterable[str], owner: str) -> NoReturn:
    """Refuse a key that does not exist.

    Args:
        key: of the mapping that holds the key.
        name: of the key.
        value: of the key, as the user set it.
        known: the keys that exist.
        owner: what has these keys, for the message.
    """
    names = list(known)
    allowed = f"no such key.{did_you_mean(name, names)} {owner} has {', '.join(names)}"
    reject(f"{key}.{name}".removeprefix("."), value, allowed, "unknown_key")


def parse_value(key: str, value: Any, parse: Callable[[Any], T], example: str) -> T:
    """Return `parse(value)`, or refuse the value and show an example."""
    try:
        return parse(value)
    except (ValueError, TypeError, OverflowError) as error:
        reject(key, value, sentences(str(error), f"Write it as {example}"), "wrong_format")


def check_range(key: str, value: float, low: float, high: float, unit: str = "") -> None:
    """Refuse a number outside of low <= value <= high, and NaN."""
    if not low <= value <= high:
        reject(key, value, f"must lie between {low:g} and {high:g}{unit}", "out_of_range")


def check_whole(key: str, value: object, low: int, high: int, unit: str = "") -> None:
    """Refuse a value that is not a whole number in low <= value <= high."""
    if not isinstance(value, int) or isinstance(value, bool):
        reject(key, value, f"must be a whole number from {low} to {high}{unit}", "not_a_number")
    check_range(key, value, low, high, unit)


def parse_size(key: str, value: Any) -> int:
    """Return the bytes of a size."""
    size = parse_value(key, value, parse_bytes, 'a size such as "4TiB" or "10TB"')
    if size > MOST_BYTES:
        reject(key, value, f"must be at most {format_bytes(MOST_BYTES)}", "out_of_range")
    return size


def parse_page_count(key: str, value: Any, page_bytes: int) -> int:
    """Return the pages of a size, rounded up as QEMU aligns RAM.

    Source: system/physmem.c:qemu_ram_alloc_internal.
    """
    return -(-parse_size(key, value) // page_bytes)


def parse_rate(key: str, value: Any, *, zero_allowed: bool = False) -> float:
    """Return the bytes per second of a rate. "unlimited" is infinite."""
    rate = parse_value(key, value, parse_bytes_per_s, '"10Gbit/s", "1GB/s" or "unlimited"')
    if rate == 0 and not zero_allowed:
        reject(key, value, 'must be above 0. "unlimited" removes the limit', "out_of_range")
    if 0 < rate < SLOWEST or FASTEST < rate < math.inf:
        allowed = "must lie between 1Mbit/s and 1e15 bytes per second. A bare number is bytes"
        reject(key, value, allowed, "out_of_range")
    return rate


def rate_limit(max_bandwidth: int) -> int:
    """Return a VM's max-bandwidth, or 0 (no limit) if it is faster than every link.

    libvirt sets 2^63 less a MiB for "no limit".
    Source: libvirt's src/qemu/qemu_domain.h:QEMU_DOMAIN_MIG_BANDWIDTH_MAX.
    """
    return 0 if max_bandwidth > FASTEST else max_bandwidth


def parse_duration_ns(key: str, value: Any) -> int:
    """Return the nanoseconds of a duration above 0."""
    time_ns = parse_value(key, value, parse_ns, '"5s", "20min" or a number of seconds')
    if not 0 < time_ns <= LONGEST_NS:
        reject(key, value, "must be above 0 and at most 1e8 seconds", "out_of_range")
    return time_ns


def parse_pairs(
    key: str,
    value: Any,
    parse_first: Callable[[Any], float],
    parse_second: Callable[[Any], float],
    example: str,
) -> list[tuple[float, float]]:
    """Return the pairs of a list [[a, b], ...], both parsed."""
    try:
        return [(parse_first(first), parse_second(second)) for first, second in value]
    except (ValueError, TypeError, OverflowError) as error:
        reject(key, value, sentences(str(error), f"Write it as {example}"), "wrong_format")


def parse_record(key: str, pairs: Sequence[tuple[float, float]]) -> tuple[FloatArray, FloatArray]:
    """Return the times in seconds and the totals of a record. Both are float64 [samples].

    Raises:
        ConfigError: the times do not rise, or a total falls.
    """
    times_s = np.array([pair[0] for pair in pairs])
    totals = np.array([pair[1] for pair in pairs])
    is_finite = len(pairs) >= 2 and np.isfinite(times_s).all() and np.isfinite(totals).all()
    if (
        not is_finite
        or (np.diff(times_s) <= 0).any()
        or (np.diff(totals) < 0).any()
        or not 0 <= totals[0] <= totals[-1] <= MOST_COUNT
        or not 0 <= times_s[0] <= times_s[-1] <= 1e8
    ):
        allowed = (
            "must be two or more pairs [seconds, total]. Seconds must rise from 0 or later. "
            "A total must not fall or exceed 2^53"
        )
        reject(key, f"[{len(pairs)} pairs]", allowed, "out_of_range")
    return times_s, totals
