"""The parser of every command line but Hydra's, and the types of its arguments.

A mistake is an error of one line. A type is a function from an argument's text to its value, for
`add_argument(type=...)`. It has one check and one text, and argparse names the option before it.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from gpusim.errors import UsageError, one_line
from gpusim.text import did_you_mean
from gpusim.units import LONGEST_NS, MOST_BYTES, NS_PER_S, parse_bytes, parse_ns
from gpusim.version import __version__

LONGEST_SHOWN = 40  # characters of an argument in its error, so that the line keeps what is allowed
MOST_DIGITS = 20  # of a whole number
LONGEST_PATH, LONGEST_NAME = 4096, 255  # bytes, Linux's PATH_MAX and NAME_MAX
LONGEST_STEM = 200  # bytes of a file's name without what gpusim adds
LONGEST_S = LONGEST_NS // NS_PER_S


class Parser(argparse.ArgumentParser):
    """A parser with `--version` that raises its errors, so that `run_command` shows them."""

    def __init__(self, **named: Any) -> None:
        super().__init__(**named)
        self.add_argument("--version", action="version", version=f"%(prog)s {__version__}")

    def error(self, message: str) -> NoReturn:
        """Refuse the command line.

        Raises:
            UsageError: always.
        """
        unknown = re.match(r"unrecognized arguments: (--[\w-]+)", message)
        meant = did_you_mean(unknown[1], self._option_string_actions) if unknown else ""
        if meant:
            message += f" ({meant.strip().replace('Did', 'did')})"
        raise UsageError("usage", message=message, command=self.prog)


def whole(low: int, high: int) -> Callable[[str], int]:
    """Return the type of a whole number in low <= number <= high."""

    def parse(text: str) -> int:
        number = parse_digits(text)
        if number is None or not low <= number <= high:
            refuse(text, f"a whole number from {low} to {high}")
        return number

    return parse


def parse_digits(text: str) -> int | None:
    """Return the number of a text of ASCII digits, or None for any other text."""
    is_plain = text.isascii() and text.isdigit() and len(text) <= MOST_DIGITS
    return int(text) if is_plain else None


def seconds(text: str) -> float:
    """Return a number of seconds above 0, without a unit."""
    allowed = f"a number of seconds above 0 and at most {LONGEST_S:g}"
    return (
        _parsed(text, lambda text: parse_ns(_without_unit(text)), 1, LONGEST_NS, allowed) / NS_PER_S
    )


def duration_ns(text: str) -> int:
    """Return the nanoseconds of a duration above 0."""
    allowed = f'a time such as "20min" or a number of seconds, above 0 and at most {LONGEST_S:g} s'
    return _parsed(text, parse_ns, 1, LONGEST_NS, allowed)


def short_ns(text: str) -> int:
    """Return the nanoseconds of a duration whose unit nobody can guess: 300 is ms to QEMU."""
    found_ns = duration_ns(text)
    if not text.strip().endswith(("s", "n", "h")):  # the last letters of all units of time
        refuse(text, f'a time with its unit. Write "{text}ms" or "{text}s"')
    return found_ns


def percent(text: str) -> float:
    """Return a percentage above 0 and at most 100, with or without its sign."""
    allowed = 'a percentage above 0 and at most 100, such as "5%"'
    try:
        value = float(text.strip().removesuffix("%"))
    except ValueError:
        value = 0.0
    if not 0 < value <= 100:
        refuse(text, allowed)
    return value


def size_bytes(text: str) -> int:
    """Return the bytes of a size above 0."""
    allowed = 'a size such as "16GiB" or a number of bytes, above 0 and at most 1 PiB'
    return _parsed(text, parse_bytes, 1, MOST_BYTES, allowed)


def _without_unit(text: str) -> str:
    if any(letter.isalpha() and letter not in "eE" for letter in text):
        raise ValueError("has a unit")
    return text


def _parsed(text: str, parse: Callable[[str], int], low: int, high: int, allowed: str) -> int:
    try:
        value = parse(text)
    except (ValueError, OverflowError) as error:
        value = low - 1
        _, mark, meant = str(error).partition("Did you mean ")  # of gpusim.units
        allowed += f" ({mark[0].lower()}{mark[1:]}{meant})" if mark else ""
    if not low <= value <= high:
        refuse(text, allowed)
    return value


def input_path(text: str) -> Path:
    """Return the path of something to read. It need not exist."""
    return _path(text)


def output_path(text: str) -> Path:
    """Return the path of something to write. It holds no control characters."""
    if any(ord(letter) < ord(" ") or letter == "\x7f" for letter in text):
        refuse(text, "a path without control characters")
    return _path(text)


def path_text(text: str) -> str:
    """Return the path of a socket or a program, as a text. It need not exist."""
    return str(_path(text))


def file_name(text: str) -> str:
    """Return the name of a file to write, without a folder and with room for what gpusim adds."""
    is_plain = text.isprintable() and "/" not in text and not text.startswith((".", "-", " "))
    if not (is_plain and 1 <= len(os.fsencode(text)) <= LONGEST_STEM):
        refuse(
            text,
            f"a name of 1 to {LONGEST_STEM} bytes without a folder (--out), that does not begin "
            "with ., - or a space",
        )
    return text


def _path(text: str) -> Path:
    size = len(os.fsencode(text)) if text.strip() and "\0" not in text else 0
    names = os.fsencode(text).split(b"/") if size else []
    if not 0 < size < LONGEST_PATH or max(map(len, names)) > LONGEST_NAME:
        refuse(
            text, f"a path of 1 to {LONGEST_PATH - 1} bytes, with names of {LONGEST_NAME} at most"
        )
    return Path(text)


def is_file(text: str) -> bool:
    """Tell whether a text is the path of an existing regular file."""
    try:
        return Path(text).is_file()
    except (OSError, ValueError):  # too long
        return False


def refuse(text: str, allowed: str) -> NoReturn:
    """Refuse an argument.

    Raises:
        argparse.ArgumentTypeError: always.
    """
    shown = one_line(text, LONGEST_SHOWN) or "an empty text"
    raise argparse.ArgumentTypeError(f"{shown}: must be {allowed}")
