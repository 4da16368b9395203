"""Checks of single values: parse or refuse, naming the key, the value, what is allowed, a way out."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

import numpy as np

from gpusim.errors import ConfigError
from gpusim.layout import FloatArray
from gpusim.units import NS_PER_S, format_bytes, parse_bytes, parse_bytes_per_s, parse_ns

T = TypeVar("T")
MAX_BYTES = 2**50
LONGEST_NS = 10**8 * NS_PER_S  # three years
SLOWEST, FASTEST = 125_000, 1e15  # bytes a second: a page takes well under a second
LONGEST_COUNT = 2**53  # counts are exact in float64 up to here


def reject(key: str, value: object, message: str) -> NoReturn:
    """Raise ConfigError."""
    raise ConfigError(key, value, message)


def parsed(key: str, value: Any, parse: Callable[[Any], T], example: str) -> T:
    """What `parse` makes of a value."""
    try:
        return parse(value)
    except (ValueError, TypeError, OverflowError) as error:
        reject(key, value, f"{error}; write it as {example}")


def in_range(key: str, value: float, low: float, high: float, unit: str = "") -> None:
    """Refuse a number outside of low <= value <= high."""
    if not (isinstance(value, int | float) and low <= value <= high):  # NaN fails too
        reject(key, value, f"must lie between {low:g} and {high:g}{unit}")


def whole(key: str, value: object, low: int, high: int, unit: str = "") -> None:
    """Refuse what is not a whole number in low <= value <= high."""
    if not isinstance(value, int) or isinstance(value, bool):
        reject(key, value, "must be a whole number")
    in_range(key, value, low, high, unit)


def size_bytes(key: str, value: Any) -> int:
    """Bytes of a size."""
    size = parsed(key, value, parse_bytes, 'a size such as "4TiB" or "10TB"')
    if size > MAX_BYTES:
        reject(key, value, f"at most {format_bytes(MAX_BYTES)}")
    return size


def page_count(key: str, value: Any, page_bytes: int) -> int:
    """Pages of a size, rounded up as QEMU aligns RAM (system/physmem.c:qemu_ram_alloc_internal)."""
    return -(-size_bytes(key, value) // page_bytes)


def bytes_per_s(key: str, value: Any, *, zero_allowed: bool = False) -> float:
    """Bytes a second of a rate; infinite if unlimited."""
    rate = parsed(key, value, parse_bytes_per_s, '"10Gbit/s", "1GB/s" or "unlimited"')
    if rate == 0 and not zero_allowed:
        reject(key, value, 'must be above 0; "unlimited" lifts it')
    if 0 < rate < SLOWEST or FASTEST < rate < math.inf:
        reject(key, value, "between 1Mbit/s and 1e15 bytes a second; a bare number is bytes")
    return rate


def rate_limit(max_bandwidth: int) -> int:
    """A VM's max-bandwidth; 0, no limit, where no wire is so fast, as libvirt sets 2^63 less a MiB for none.

    Source: libvirt's src/qemu/qemu_domain.h:QEMU_DOMAIN_MIG_BANDWIDTH_MAX.
    """
    return 0 if max_bandwidth > FASTEST else max_bandwidth


def duration_ns(key: str, value: Any) -> int:
    """Nanoseconds of a duration above 0."""
    time_ns = parsed(key, value, parse_ns, '"5s", "20min" or a number of seconds')
    if not 0 < time_ns <= LONGEST_NS:
        reject(key, value, "must be above 0 and at most 1e8 seconds")
    return time_ns


def pairs_of(
    key: str,
    value: Any,
    first: Callable[[Any], float],
    second: Callable[[Any], float],
    example: str,
) -> list[tuple[float, float]]:
    """Pairs [a, b] of a list; both parsed."""
    try:
        return [(first(a), second(b)) for a, b in value]
    except (ValueError, TypeError, OverflowError) as error:
        reject(key, value, f"{error}; write it as {example}")


def rising(key: str, pairs: list[tuple[float, float]]) -> tuple[FloatArray, FloatArray]:
    """Seconds and totals of a record, both rising."""
    times = np.array([pair[0] for pair in pairs])
    values = np.array([pair[1] for pair in pairs])
    fine = len(pairs) >= 2 and np.isfinite(times).all() and np.isfinite(values).all()
    if (
        not fine
        or (np.diff(times) <= 0).any()
        or (np.diff(values) < 0).any()
        or not 0 <= values[0] <= values[-1] <= LONGEST_COUNT
        or not 0 <= times[0] <= times[-1] <= 1e8
    ):
        reject(
            key,
            f"[{len(pairs)} pairs]",
            "needs two or more pairs of finite numbers: seconds from 0 up, rising, and a total that never falls or exceeds 2^53",
        )
    return times, values
