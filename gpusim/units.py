"""Strings with units, parsed once: "4TiB", "100Gbit/s", "5s".

The engine works in integers: bytes, bytes per second and nanoseconds. Only this module knows how
people write them. Prefixes of bits are powers of ten. Bytes have powers of ten (GB) or two (GiB).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from fractions import Fraction
from typing import Literal, NamedTuple

NS_PER_S = 1_000_000_000
MIB, GIB, GB = 2**20, 2**30, 10**9  # bytes
NEVER_NS = 2**62  # later than any time
MOST_BYTES = 2**50  # of a VM or a rate of a user
MOST_COUNT = 2**53  # counts are exact in float64 up to here
MOST_VCPUS = 4096  # of a measured or recorded VM
LONGEST_NS = 10**8 * NS_PER_S  # of a time that a user sets: three years
NS_PER_MS = 1_000_000
NS_PER_US = 1_000
PS_PER_NS = 1_000

SIZE_UNITS = {"B": 1, "kB": 10**3, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12} | {
    prefix + "iB": 2 ** (10 * (power + 1)) for power, prefix in enumerate("KMGT")
}
RATE_UNITS = {f"{unit}/s": float(size) for unit, size in SIZE_UNITS.items()} | {
    f"{prefix}bit/s": factor / 8
    for prefix, factor in {"": 1, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}.items()
}
DURATIONS = {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9, "min": 60 * 10**9, "h": 3600 * 10**9}
# Other spellings, as a pattern -> the units that may be meant. {} is the prefix.
_SPELLINGS = {
    r"([kmgtKMGT])(?:[bB](?:ytes?)?)?": ("{}iB", "{}B"),  # QEMU's 4G is 4GiB
    r"([kmgtKMGT])[iI](?:[bB](?:ytes?)?)?": ("{}iB",),
    r"([kmgtKMGT]?)(?:[bB]its?(?:/s(?:ec)?)?|b/s|b?ps)?": ("{}bit/s",),
    r"([kmgtKMGT]?)B(?:ytes?)?(?:ps|/s(?:ec)?)?": ("{}B/s",),
    r"([kmgtKMGT])[iI][bB](?:ps|/s(?:ec)?)?": ("{}iB/s",),
    r"[sS](?:ecs?|econds?)?": ("s",),
    r"[mM][sS](?:ecs?)?|milliseconds?": ("ms",),
    r"[mM](?:ins?|inutes?)?": ("min",),
    r"[hH](?:rs?|ours?)?": ("h",),
}
_QUANTITY = re.compile(r"([0-9][0-9_]*(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?|\.[0-9]+)\s*([A-Za-z/]*)")


def _number(digits: str) -> Fraction | int:
    """Return the exact value of decimal digits: as a float, 1.009 kB is no whole number of bytes."""
    rough = float(digits)
    if not math.isfinite(rough):
        raise ValueError("not a finite number")
    return Fraction(digits) if rough else 0  # an exponent of -10^9 would take forever


def _parse(value: float | str, units: Mapping[str, float], bare: float) -> float | Fraction:
    number: float | Fraction
    if isinstance(value, str):
        match = _QUANTITY.fullmatch(value.strip())
        if not match or (match[2] and match[2] not in units):
            meant = " or ".join(f'"{one}"' for one in spelled_out(value, units))
            hint = f". Did you mean {meant}?" if meant else ""
            raise ValueError(f"not a number with one of the units {', '.join(units)}{hint}")
        scale = units[match[2]] if match[2] else bare
        number = _number(match[1].replace("_", ""))
    else:
        number, scale = value, bare
    if number < 0:
        raise ValueError("negative")
    quantity = number * scale
    if isinstance(quantity, float) and not math.isfinite(quantity):
        raise ValueError("not a finite number")
    return quantity


def spelled_out(text: str, units: Mapping[str, float]) -> list[str]:
    """Return what a number with a unit in another spelling may mean: "1T" is "1TiB" or "1TB".

    Args:
        text: any text.
        units: the units to choose from, such as SIZE_UNITS.
    """
    quantity = _QUANTITY.fullmatch(text.strip())
    found: list[str] = []
    if quantity is None:
        return found
    for pattern, meanings in _SPELLINGS.items():
        if match := re.fullmatch(pattern, quantity[2]):
            prefix = "".join(match.groups("")).upper()
            names = [meaning.format(prefix) for meaning in meanings]
            found += [f"{quantity[1]}{name}" for name in names if name in units]
    return found


def parse_bytes(value: float | str) -> int:
    """Return the bytes of "4TiB" (powers of 1024), "10TB" (powers of 1000) or a bare number of bytes.

    Raises:
        ValueError: not a number, an unknown unit, negative, or not a whole number of bytes.
    """
    size = _parse(value, SIZE_UNITS, 1)
    if size != int(size):
        unit = next(
            (unit for unit in ("GiB", "MiB", "KiB") if size >= 1024 * SIZE_UNITS[unit]), "B"
        )
        meant = f'Did you mean "{round(size / SIZE_UNITS[unit])}{unit}"?'
        raise ValueError(f"not a whole number of bytes. {meant}")
    return int(size)


def parse_bytes_per_s(value: float | str) -> float:
    """Return the bytes per second of "10Gbit/s", "128MiB/s" or a bare number. "unlimited" is inf.

    Raises:
        ValueError: not a number, an unknown unit, or negative.
    """
    return math.inf if value == "unlimited" else float(_parse(value, RATE_UNITS, 1))


def parse_ns(value: float | str, bare_unit: str = "s") -> int:
    """Return the nanoseconds of "5s", "300ms", "2h" or a bare number of `bare_unit`.

    Raises:
        ValueError: not a number, an unknown unit, or negative.
    """
    return round(_parse(value, DURATIONS, DURATIONS[bare_unit]))


def format_bytes(size: float) -> str:
    """Return a size for people, in powers of 1024: 4398046511104 is "4 TiB"."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if size >= SIZE_UNITS[unit]:
            return f"{size / SIZE_UNITS[unit]:.4g} {unit}"
    return f"{size:.0f} B"


class Quantity(NamedTuple):
    """A number with a unit.

    Attributes:
        dimension: "size", "rate" or "time".
        number: in bytes, bytes per second or seconds.
        text: digits and unit as the user typed them, with one space between: "4 TiB".
    """

    dimension: Literal["size", "rate", "time"]
    number: float
    text: str


def read_quantity(text: str) -> Quantity | None:
    """Return a text with a unit, such as "4TiB", as a quantity. Any other text gives None."""
    match = _QUANTITY.fullmatch(text)
    if not match:
        return None
    shown, unit = f"{match[1]} {match[2]}", match[2]
    try:
        if unit in SIZE_UNITS:
            return Quantity("size", float(_parse(text, SIZE_UNITS, 1)), shown)
        if unit in RATE_UNITS:
            return Quantity("rate", float(_parse(text, RATE_UNITS, 1)), shown)
        if unit in DURATIONS:
            return Quantity("time", float(_parse(text, DURATIONS, 1)) / NS_PER_S, shown)
    except (ValueError, OverflowError):  # too large for a float
        return None
    return None
