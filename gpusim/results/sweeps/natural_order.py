"""The order of names of runs: seed=9 before seed=10, and memory=512MiB before memory=1GiB.

Names of folders and presets write units in their own way: Gbitps for Gbit/s, and small letters.
"""

from __future__ import annotations

import re
from fractions import Fraction

from gpusim.units import DURATIONS, SIZE_UNITS

_SIZES = {unit.lower(): size for unit, size in SIZE_UNITS.items() if unit != "B"}
_BITS = {f"{prefix}bit": 10 ** (3 * power) for power, prefix in enumerate("kmgt", start=1)}
# Unit in small letters -> bytes, thousandths of bits per second, or nanoseconds.
_UNITS: dict[str, int] = {
    **_SIZES,
    **{f"{size}ps": 8000 * factor for size, factor in _SIZES.items()},
    **{f"{bits}{end}": 1000 * factor for bits, factor in _BITS.items() for end in ("", "ps")},
    **DURATIONS,
}
_LONGEST_FIRST = "|".join(sorted(_UNITS, key=len, reverse=True))
_QUANTITY = rf"[0-9]{{1,30}}(?:\.[0-9]{{1,30}})?(?:{_LONGEST_FIRST})(?![A-Za-z0-9])"
_PARTS = re.compile(rf"({_QUANTITY}|[0-9]+)", re.IGNORECASE | re.ASCII)
_NUMBER_AND_UNIT = re.compile(r"([0-9.]+)([A-Za-z]+)")


def natural(name: str) -> list[tuple[int, str]]:
    """Return a sort key that treats digits as numbers, and sizes, rates and times by their amount."""
    key: list[tuple[int, str]] = []
    for place, part in enumerate(_PARTS.split(name)):
        if place % 2:  # what the pattern found
            quantity = _NUMBER_AND_UNIT.fullmatch(part)
            amount = _amount(quantity[1], quantity[2]) if quantity else part
            number = amount.lstrip("0")
            key.append((len(number), number))
        elif part:
            key.append((-1, part))
    return key


def _amount(number: str, unit: str) -> str:
    """Return digits: bytes, thousandths of bits per second, or nanoseconds."""
    return str(round(Fraction(number) * _UNITS[unit.lower()]))
