"""Numbers, lists and tables as text for people, and the message type that every layer shares.

A layer that has something to tell creates a `Message`: a code and its data. Exactly one module per
package turns codes into sentences, just before they are shown. No code reads a sentence.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

_TIMES = (("h", 3600.0), ("min", 60.0), ("s", 1.0), ("ms", 1e-3))
SIZES = (("TiB", 2.0**40), ("GiB", 2.0**30), ("MiB", 2.0**20), ("KiB", 2.0**10), ("B", 1.0))
LONGEST_NAME = 40  # characters of a version or a class in a title
_RATES = (("TB/s", 1e12), ("GB/s", 1e9), ("MB/s", 1e6), ("kB/s", 1e3), ("B/s", 1.0))


SIMILAR = 0.6  # difflib's ratio of a name that was probably meant
SAME_START = 3  # letters
LONGEST_MISTAKE = 60  # characters of a name that is compared with others


@dataclass(frozen=True)
class Message:
    """A warning, an assumption, a reason or an error before it becomes a sentence.

    Attributes:
        code: a stable name such as "throttle_at_maximum". Tests and programs compare codes.
        data: the values that the sentence needs, with units in their names.
    """

    code: str
    data: Mapping[str, Any] = field(default_factory=dict)


def _unit(largest: float, units: tuple[tuple[str, float], ...]) -> tuple[str, float]:
    """Return the largest unit that fits at least twice, so that an axis has readable ticks."""
    return next((unit for unit in units if largest >= 2 * unit[1]), units[-1])


def time_unit(longest_s: float) -> tuple[str, float]:
    """Return the unit and its seconds for an axis that ends at `longest_s`.

    From one second to two the unit is the second.
    """
    return _TIMES[2] if 1 <= longest_s < 2 else _unit(longest_s, _TIMES)


def size_unit(largest_bytes: float) -> tuple[str, float]:
    """Return the unit and its bytes for an axis that ends at `largest_bytes`."""
    return _unit(largest_bytes, SIZES)


def rate_unit(largest_bytes_per_s: float) -> tuple[str, float]:
    """Return the unit and its bytes per second for an axis that ends at `largest_bytes_per_s`."""
    return _unit(largest_bytes_per_s, _RATES)


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """Return " Did you mean NAME?" with the most similar known name, or "" if none is similar."""
    plain = str(name)[:LONGEST_MISTAKE].lower().replace("-", "_")
    by_plain = {one.lower().replace("-", "_"): one for one in known}
    close = get_close_matches(plain, by_plain, 1, SIMILAR)
    if not close:  # a name with the same beginning, if there is only one
        alike = [one for one in by_plain if one[:SAME_START] == plain[:SAME_START]]
        close = alike if len(alike) == 1 else []
    if not close:  # a version without its name: 8.2 is qemu_8_2
        close = [one for one in by_plain if one.endswith(f"_{plain.replace('.', '_')}")][:1]
    return f" Did you mean {by_plain[close[0]]}?" if close else ""


def format_number(value: float) -> str:
    """Return three significant digits without an exponent: 0.123, 4.57, 89.1, 1234."""
    if value >= 100:
        return f"{value:.0f}"
    text = f"{value:.3g}"
    return f"{value:.3f}".rstrip("0").rstrip(".") if "e" in text else text


def format_duration(time_s: float, like_s: float | None = None) -> str:
    """Return a duration for people: 0.05 becomes "50 ms", 1234 becomes "20.6 min".

    Args:
        time_s: the duration in seconds.
        like_s: if given, use the unit that suits this duration.
    """
    name, seconds = time_unit(time_s if like_s is None else like_s)
    return f"{format_number(time_s / seconds)} {name}"


def format_moment(time_s: float, total_s: float) -> str:
    """Return a time in a run, in the unit of the run's picture: "16.68 min"."""
    name, seconds = time_unit(total_s)
    text = f"{time_s / seconds:.2f}".rstrip("0").rstrip(".")
    return f"{text} {name}"


def version_name(version: str) -> str:
    """Return a version as people write it: "qemu_9_2" becomes "QEMU 9.2", "seed_v2" "seed v2"."""
    if version.startswith("qemu_"):
        return f"QEMU {version.removeprefix('qemu_').replace('_', '.')}"
    return version.replace("_", " ")


def count_noun(count: int, noun: str, plural: str = "") -> str:
    """Return "1 sync" or "3 syncs".

    Args:
        count: how many.
        noun: the singular.
        plural: if it is not the singular with an s.
    """
    return f"{count} {noun if count == 1 else plural or noun + 's'}"


def capitalized(text: str) -> str:
    """Return a text with its first letter in upper case and the rest unchanged."""
    return text[:1].upper() + text[1:]


def shorten(text: str, longest: int) -> str:
    """Return a text, cut to `longest` characters with an ellipsis at the end."""
    return text if len(text) <= longest else f"{text[: longest - 3]}..."


def sentences(*parts: str) -> str:
    """Return the parts as sentences, without a full stop at the end."""
    return " ".join(part if part.endswith("?") else f"{part}." for part in parts).rstrip(".")


def join_words(words: Sequence[str], last: str = "and") -> str:
    """Return "a", "a and b" or "a, b and c"."""
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} {last} {words[-1]}"


def wrap_texts(texts: Iterable[str], width: int, indent: str = "", mark: str = "") -> list[str]:
    """Return each text on as many rows as it needs, without breaking names.

    Args:
        texts: each begins on a row of its own.
        width: the most characters of a row.
        indent: before each row.
        mark: behind the indent of the first row of a text.
    """
    return [
        row
        for text in texts
        for row in textwrap.wrap(
            text,
            width,
            initial_indent=indent + mark,
            subsequent_indent=indent + " " * len(mark),
            break_long_words=False,
            break_on_hyphens=False,
        )
    ]


def text_table(
    rows: Iterable[Sequence[str]], *, left_columns: Iterable[int] = (0,), indent: str = ""
) -> str:
    """Return rows as aligned columns, two spaces apart, without trailing spaces.

    Args:
        rows: the cells of each row, the head first. All rows have the same length.
        left_columns: columns that are aligned left. All others are aligned right.
        indent: before each row.
    """
    cells, left = [tuple(row) for row in rows], set(left_columns)
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        indent
        + "  ".join(
            cell.ljust(width) if place in left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    )
