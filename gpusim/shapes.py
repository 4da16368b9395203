"""Shapes of data from outside: which keys there must be, of which types and in which ranges.

A module that owns a format declares its shape once, as a tree of the classes below. `check` reads
plain data by it, such as a value of reading.py, and names the first wrong value by its path
(`samples[3].remaining`). This module knows no format.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from functools import cache
from types import UnionType
from typing import Any, ClassVar, NoReturn, Protocol, get_args, get_origin, get_type_hints

from gpusim.errors import CodedError, one_line
from gpusim.text import did_you_mean, join_words

LARGEST = 2**63 - 1  # of a whole number
LONGEST_NAME = 60  # characters of a key in a path
LONGEST_PARSED = 100  # characters of a text that means a number
LONGEST_TEXT = 10_000  # characters


class ShapeError(CodedError):
    """A value without the shape that is needed.

    The data has the `key`, which is the path of the value, and what is `allowed`. If there is a
    value, the data has the `value` as text or as a number.
    """

    texts: ClassVar[Mapping[str, str]] = {
        "missing": "{key} is missing: {allowed}",
        "bad_value": "{key} = {value}: {allowed}",
        "unknown_key": "{key}: there is no such key. {allowed}",
    }

    def inside(self, step: str) -> ShapeError:
        """Return the same error for the list or mapping that holds the value."""
        key = self.data["key"]
        dot = "." if key and not key.startswith("[") else ""
        return ShapeError(self.code, **self.data | {"key": f"{step}{dot}{key}"})


class Shape(Protocol):
    """A rule for a value.

    Attributes:
        allowed: what a value must be, for people.
    """

    @property
    def allowed(self) -> str: ...

    def read(self, value: Any) -> Any:
        """Return the value, with defaults filled in. A refusal's key is the path below it.

        Raises:
            ShapeError: the value has another shape.
        """


def check(value: object, shape: Shape, key: str = "") -> Any:
    """Return a value after checking it against a shape.

    Args:
        value: plain data.
        shape: of the value.
        key: path of the value, for errors. Empty: it is the whole document.

    Raises:
        ShapeError: the value has another shape.
    """
    try:
        return shape.read(value)
    except ShapeError as error:
        found = error.inside(key) if key else error
        if not found.data["key"]:
            found.data["key"] = "the document"
        raise found from None


@dataclass(frozen=True)
class Anything:
    """Any value."""

    allowed: str = "may be any value"

    def read(self, value: Any) -> Any:
        return value


@dataclass(frozen=True)
class Flag:
    """True or false, or 1 or 0. It is read as a bool."""

    allowed: str = "must be true or false"

    def read(self, value: Any) -> bool:
        if type(value) not in (bool, int) or value not in (0, 1):
            refuse(value, self.allowed)
        return bool(value)


@dataclass(frozen=True)
class Whole:
    """A whole number from `low` to `high`. The unit is for people and begins with a space."""

    low: int = 0
    high: int = LARGEST
    unit: str = ""

    @property
    def allowed(self) -> str:
        return f"must be a whole number from {self.low} to {self.high}{self.unit}"

    def read(self, value: Any) -> int:
        if type(value) is not int or not self.low <= value <= self.high:
            refuse(value, self.allowed)
        return value


@dataclass(frozen=True)
class Number:
    """A finite number from `low` to `high`. It is read as a float.

    Attributes:
        low: least value.
        high: largest value.
        unit: for people. It begins with a space.
        above: whether `low` itself is refused.
    """

    low: float = 0.0
    high: float = 2.0**63
    unit: str = ""
    above: bool = False

    @property
    def allowed(self) -> str:
        start = f"above {self.low:g}, up to" if self.above else f"from {self.low:g} to"
        return f"must be a number {start} {self.high:g}{self.unit}"

    def read(self, value: Any) -> float:
        is_number = type(value) in (int, float) and self.low <= value <= self.high
        if not is_number or (self.above and value == self.low):
            refuse(value, self.allowed)
        return float(value)


@dataclass(frozen=True)
class Text:
    """A text of bounded length."""

    longest: int = LONGEST_TEXT

    @property
    def allowed(self) -> str:
        return f"must be a text of at most {self.longest} characters"

    def read(self, value: Any) -> str:
        if not isinstance(value, str) or len(value) > self.longest:
            refuse(value, self.allowed)
        return value


@dataclass(frozen=True)
class OneOf:
    """One of some texts or whole numbers."""

    choices: tuple[str | int, ...]

    @property
    def allowed(self) -> str:
        return f"must be {join_words(list(map(str, self.choices)), 'or')}"

    def read(self, value: Any) -> Any:
        if type(value) not in (str, int) or value not in self.choices:
            refuse(value, self.allowed)
        return value


@dataclass(frozen=True)
class Parsed:
    """A value that a function reads, such as "64GiB".

    Attributes:
        parse: returns what the value means. It raises ValueError, with the reason for people.
        allowed: what a value must be, for people.
    """

    parse: Callable[[Any], Any]
    allowed: str

    def read(self, value: Any) -> Any:
        is_text = isinstance(value, str) and len(value) <= LONGEST_PARSED
        if not (is_text or type(value) in (int, float)):
            refuse(value, self.allowed)
        try:
            return self.parse(value)
        except (ValueError, OverflowError) as error:
            refuse(value, f"{error}. It {self.allowed}")


@dataclass(frozen=True)
class Rows:
    """A list of values of one shape."""

    of: Shape
    allowed: str = "must be a list"
    least: int = 0

    def read(self, value: Any) -> list[Any]:
        if not isinstance(value, list) or len(value) < self.least:
            refuse(value, self.allowed)
        found: list[Any] = []
        read = self.of.read
        try:
            for one in value:
                found.append(read(one))
        except ShapeError as error:
            raise error.inside(f"[{len(found)}]") from None
        return found


@dataclass(frozen=True)
class Row:
    """A list with one value for each shape. It is read as a tuple."""

    of: tuple[Shape, ...]
    allowed: str

    def read(self, value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list) or len(value) != len(self.of):
            refuse(value, self.allowed)
        found: list[Any] = []
        try:
            for shape, one in zip(self.of, value, strict=True):
                found.append(shape.read(one))
        except ShapeError as error:
            raise error.inside(f"[{len(found)}]") from None
        return tuple(found)


@dataclass(frozen=True)
class Names:
    """A mapping of any names to values of one shape."""

    of: Shape
    allowed: str = "must be a mapping of names to values"

    def read(self, value: Any) -> dict[str, Any]:
        if not isinstance(value, Mapping):
            refuse(value, self.allowed)
        return {str(name): _read(self.of, one, name) for name, one in value.items()}


@dataclass(frozen=True)
class Keys:
    """A mapping with keys of its own. It is read with the defaults of the keys that are missing.

    Attributes:
        required: key -> shape.
        optional: key -> shape. A key with the value null counts as missing.
        defaults: values of optional keys that are missing. The value of all others is None.
        together: groups of optional keys. If one key of a group is there, all must be.
        refuse_others: whether there may be no other key. Otherwise, others are read as they are.
        allowed: what a value must be, for people.
    """

    required: Mapping[str, Shape] = field(default_factory=dict)
    optional: Mapping[str, Shape] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    together: tuple[tuple[str, ...], ...] = ()
    refuse_others: bool = False
    allowed: str = "must be a mapping of keys to values"

    def read(self, value: Any) -> dict[str, Any]:
        if not isinstance(value, Mapping):
            refuse(value, self.allowed)
        shapes = {**self.required, **self.optional}
        if self.refuse_others:
            for key in value:
                if key not in shapes:
                    hint = f"{did_you_mean(key, shapes)} ".lstrip()
                    allowed = f"{hint}The keys are {join_words(list(shapes))}"
                    shown = _shown(value[key])
                    raise ShapeError("unknown_key", key=_step(key), value=shown, allowed=allowed)
        found = {**value, **dict.fromkeys(self.optional), **self.defaults}
        for key, shape in shapes.items():
            one = value.get(key)
            if one is not None:
                found[key] = _read(shape, one, key)
            elif key in self.required:
                if key in value:
                    refuse(None, shape.allowed, key)
                raise ShapeError("missing", key=key, allowed=shape.allowed)
            elif isinstance(found[key], dict | list):  # a default that a caller may change
                found[key] = copy.deepcopy(found[key])
        for group in self.together:
            lacks = [key for key in group if value.get(key) is None]
            if lacks and len(lacks) < len(group):
                allowed = f"{join_words(group)} must be there together"
                raise ShapeError("missing", key=lacks[0], allowed=allowed)
        return found


@dataclass(frozen=True)
class Fields:
    """A mapping with the fields of a data class, by their annotations. It is read as an instance."""

    kind: Any  # the data class
    allowed: str = "must be a mapping of keys to values"

    def read(self, value: Any) -> Any:
        found: dict[str, Any] = _keys_of(self.kind).read(value)
        return self.kind(**{key: found[key] for key in value if value[key] is not None})


@cache
def _keys_of(kind: Any) -> Keys:
    types = get_type_hints(kind)
    shapes: dict[bool, dict[str, Shape]] = {True: {}, False: {}}
    for one in fields(kind):
        is_required = one.default is MISSING and one.default_factory is MISSING
        shapes[is_required][one.name] = _shape_of(types[one.name])
    return Keys(required=shapes[True], optional=shapes[False], refuse_others=True)


def _shape_of(annotation: Any) -> Shape:
    """Return the shape of an annotation of a data class, such as list[float] or int | None."""
    if get_origin(annotation) is UnionType:
        (annotation,) = (one for one in get_args(annotation) if one is not type(None))
    if is_dataclass(annotation):
        assert isinstance(annotation, type)
        return Fields(annotation)
    if get_origin(annotation) is list:
        return Rows(_shape_of(get_args(annotation)[0]))
    if get_origin(annotation) is dict:
        return Names(_shape_of(get_args(annotation)[1]))
    plain: dict[Any, Shape] = {
        str: Text(),
        bool: Flag(),
        int: Whole(-LARGEST),
        float: Number(-(2.0**63)),
        Any: Anything(),
    }
    return plain[annotation]


def refuse(value: object, allowed: str, key: str = "") -> NoReturn:
    """Raise the error of a value that is not allowed.

    Args:
        value: as it came.
        allowed: what it must be, for people.
        key: its path. Empty: the shapes around it add the path.

    Raises:
        ShapeError: always.
    """
    raise ShapeError("bad_value", key=key, value=_shown(value), allowed=allowed)


def _read(shape: Shape, value: Any, key: object) -> Any:
    try:
        return shape.read(value)
    except ShapeError as error:
        raise error.inside(_step(key)) from None


def _step(key: object) -> str:
    return one_line(key, LONGEST_NAME)


def _shown(value: object) -> str | int | float:
    """Return a short text for a value, or the number itself."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int | float):
        return value
    if isinstance(value, str):
        return f'"{value[:LONGEST_TEXT]}"'
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    if isinstance(value, Mapping):
        return f"a mapping of {len(value)} keys"
    return f"a {type(value).__name__}"
