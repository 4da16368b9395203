"""Errors that a user can mend, and the check for an optional package.

Every message is one line: what is wrong, what is allowed, what to type.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

LONGEST_VALUE = 160  # characters of one value in the line that a user reads


class CodedError(Exception):
    """An error with a code and data. It becomes one line of text only when it is shown.

    A subclass per package holds the texts: code -> a line with the keys of the data in braces.

    Attributes:
        code: a stable name. Tests and programs compare codes, never texts.
        data: the values that the line needs, with units in their names.
    """

    texts: ClassVar[Mapping[str, str]] = {}

    def __init__(self, code: str, /, **data: Any) -> None:
        super().__init__(code)
        self.code, self.data = code, data

    def __str__(self) -> str:
        return self.texts[self.code].format_map(
            {key: _shorten(value) for key, value in self.data.items()}
        )

    def __reduce__(self) -> tuple[Any, tuple[()]]:
        """Return what pickle needs to rebuild the error from a worker process."""
        return partial(type(self), self.code, **self.data), ()


def _shorten(value: object) -> object:
    """Return a number as it is, and everything else as bounded text on one line."""
    if isinstance(value, int | float):
        return value
    text = " ".join(str(value).split())
    return text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 3]}..."


class ConfigError(ValueError):
    """A value that cannot be simulated: `KEY = VALUE: what is allowed, what to do`."""

    def __init__(self, key: str, value: object, message: str) -> None:
        self.key, self.value, self.message = key, value, message
        super().__init__(f"{key} = {value}: {message}")

    def moved(self, old: str, new: str) -> ConfigError:
        """The same error, of a key that stands elsewhere: under `new` instead of under `old`."""
        return ConfigError(new + self.key.removeprefix(old), self.value, self.message)

    def __reduce__(self) -> tuple[type[ConfigError], tuple[str, object, str]]:
        """It comes back whole from a worker process."""
        return ConfigError, (self.key, self.value, self.message)


class ResultsError(Exception):
    """Results cannot be written, drawn or read; the message is one line for the user."""


def is_installed(package: str) -> bool:
    """Whether a package can be imported; it is not."""
    try:
        return importlib.util.find_spec(package) is not None
    except ValueError:  # blocked by None in sys.modules
        return False


def require(package: str, extra: str, wanted: str = "") -> None:
    """Check that an optional package is there, before anything is computed or written.

    Args:
        package: to import.
        extra: of gpusim, which brings it.
        wanted: what it is for, as the user asked for it.

    Raises:
        ResultsError: it is not installed.
    """
    if not is_installed(package):
        hint = f"install gpusim's extra: pip install '.[{extra}]'"
        raise ResultsError(f"{wanted}{package} is missing: {hint}")
