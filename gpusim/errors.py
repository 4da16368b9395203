"""Errors that a user can mend, and the check for an optional package.

Every message is one line: what is wrong, what is allowed, what to type.
"""

from __future__ import annotations

import importlib.util


class ConfigError(ValueError):
    """A value that cannot be simulated: `KEY = VALUE: what is allowed, what to do`."""

    def __init__(self, key: str, value: object, message: str) -> None:
        self.key, self.value, self._message = key, value, message
        super().__init__(f"{key} = {value}: {message}")

    def moved(self, old: str, new: str) -> ConfigError:
        """The same error, of a key that stands elsewhere: under `new` instead of under `old`."""
        return ConfigError(new + self.key.removeprefix(old), self.value, self._message)

    def __reduce__(self) -> tuple[type[ConfigError], tuple[str, object, str]]:
        """It comes back whole from a worker process."""
        return ConfigError, (self.key, self.value, self._message)


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
