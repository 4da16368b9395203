"""Errors that a user can repair, and the check for an optional package.

Every message says what is wrong, what is allowed and what to type.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

LONGEST_VALUE = 160  # characters of a value that somebody else wrote
LONGEST_MESSAGE = 2000  # characters of a whole line, with its list of what is allowed
MOST_INTEGER = 10**LONGEST_VALUE  # that is shown with all its digits
FOREIGN = (  # keys of data that somebody else wrote
    *("address", "answer", "case", "command", "event", "key", "message", "name", "names"),
    *("qemu_line", "reason", "row", "value", "values"),
)
CODES = {  # of a ConfigError
    "backend_not_available": "the named backend cannot run on this machine",
    "cannot_import": "a user's module or class cannot be imported",
    "contradiction": "two values exclude each other",
    "does_not_fit_memory": "the bitmaps do not fit free memory",
    "does_not_fit_vm": "pages lie outside of the VM",
    "lacks_members": "a user's class lacks methods or attributes",
    "missing": "a value is needed and is not set",
    "not_composed": "Hydra cannot compose the config, and no other code fits",
    "not_a_number": "the value must be a number",
    "not_allowed": "any other reason",
    "not_installed": "an optional package is missing",
    "not_supported": "the chosen QEMU version or mode has no such feature",
    "not_used": "nothing would read the value",
    "out_of_range": "the value is too small or too large",
    "several_values": "a setting has several values outside of a sweep",
    "too_deep": "lists in lists or references have too many levels",
    "too_slow": "the wall-clock limit is over before the run begins",
    "unknown_choice": "the value is not one of the allowed names",
    "unknown_key": "there is no such key",
    "wrong_arguments": "a user's class cannot be made with these arguments",
    "wrong_format": "the text or list cannot be parsed",
    "wrong_reference": "a reference such as ${KEY} names nothing that exists",
    "wrong_type": "the value has another type",
}


class CodedError(Exception):
    """An error with a code and data. It becomes one line of text only when it is shown.

    A subclass per package holds the texts: code -> a line with the keys of the data in braces.

    Attributes:
        code: a stable name. Tests and programs compare codes, never texts.
        data: the values that the line needs, with units in their names.
        exit_code: of a command that ends with the error. 2 is wrong input.
    """

    texts: ClassVar[Mapping[str, str]] = {}
    exit_code: ClassVar[int] = 2

    def __init__(self, code: str, /, **data: Any) -> None:
        super().__init__(code)
        self.code, self.data = code, data

    def __str__(self) -> str:
        shown = {
            key: _shown(value, LONGEST_VALUE if key in FOREIGN else LONGEST_MESSAGE)
            for key, value in self.data.items()
        }
        return one_line(self.texts[self.code].format_map(shown))

    def __reduce__(self) -> tuple[Any, tuple[()]]:
        """Return what pickle needs to rebuild the error from a worker process."""
        return partial(type(self), self.code, **self.data), ()


def one_line(value: object, longest: int = LONGEST_MESSAGE) -> str:
    """Return a value as bounded text on one line that every terminal can print.

    Line ends and runs of white space become one space. Control characters, marks that change the
    direction of writing, and bytes of file names that are no UTF-8 are shown as "\\x1b".
    """
    try:
        text = value if isinstance(value, str) else str(value)
    except Exception:  # an integer of 5000 digits, a list that holds itself, a class of the user's
        text = f"<{type(value).__name__}>"
    text = " ".join(text[: 8 * longest].split())  # all that can be shown, and some white space
    if not text.isprintable():
        text = "".join(char if char.isprintable() else escape(char) for char in text)
    return text if len(text) <= longest else f"{text[: longest - 3]}..."


def escape(char: str) -> str:
    """Return a character as ASCII: "\\x1b", "\\u4e2d". A byte that is no UTF-8 is "\\xff"."""
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:  # how Python keeps a byte that is no UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return char.encode("ascii", "backslashreplace").decode() if code > 0x7F else f"\\x{code:02x}"


def _shown(value: object, longest: int) -> object:
    """Return a number as it is, for the text's own format, and everything else as one line."""
    if isinstance(value, float) or (isinstance(value, int) and abs(value) < MOST_INTEGER):
        return value
    return one_line(value, longest)


class ConfigError(ValueError):
    """A value that gpusim cannot simulate: `KEY = VALUE: what is allowed, what to type`.

    Attributes:
        key: of the value in the config.
        value: as the user set it.
        message: what is allowed, and what to type.
        code: one of CODES. Tests and programs compare codes.
    """

    exit_code: ClassVar[int] = 2

    def __init__(self, key: str, value: object, message: str, code: str = "not_allowed") -> None:
        if code not in CODES:
            raise ValueError(f"unknown code {code}")
        self.key, self.value, self.code, self.message = key, value, code, message
        super().__init__(f"{one_line(key)} = {one_line(value, LONGEST_VALUE)}: {one_line(message)}")

    def with_prefix(self, old: str, new: str) -> ConfigError:
        """Return the same error with `new` in place of `old` at the start of its key."""
        return ConfigError(new + self.key.removeprefix(old), self.value, self.message, self.code)

    def __reduce__(self) -> tuple[type[ConfigError], tuple[str, object, str, str]]:
        """A worker process sends the whole error back."""
        return ConfigError, (self.key, self.value, self.message, self.code)


class ArgumentError(ValueError):
    """A value that one of gpusim's own policies cannot be made with.

    Attributes:
        name: of the argument.
        value: as the user set it.
        problem: what is allowed.
    """

    def __init__(self, name: str, value: object, problem: str) -> None:
        self.name, self.value, self.problem = name, value, problem
        super().__init__(f"{name} = {value!r}: {problem}")


class UsageError(CodedError):
    """A command line that argparse cannot parse."""

    texts: ClassVar[Mapping[str, str]] = {"usage": "{message}. Type {command} --help"}


class ResultsError(Exception):
    """Results cannot be written, drawn or read. The message is one line for the user."""

    exit_code: ClassVar[int] = 2

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


def is_installed(package: str) -> bool:
    """Tell whether a package can be imported, without importing it."""
    try:
        return importlib.util.find_spec(package) is not None
    except ValueError:  # blocked by None in sys.modules
        return False


def install_command(extra: str) -> str:
    """Return what to type to install an extra. Without -e pip would replace an editable gpusim."""
    return f"pip install -e '.[{extra}]'"


def require(package: str, extra: str, wanted: str = "") -> None:
    """Check that an optional package is installed, before anything is computed or written.

    Args:
        package: the package to import.
        extra: the extra of gpusim that installs it.
        wanted: what the user asked for, as the start of the message.

    Raises:
        ResultsError: the package is not installed.
    """
    if not is_installed(package):
        hint = f"install gpusim's extra: {install_command(extra)}"
        raise ResultsError(f"{wanted}{package} is missing: {hint}")
