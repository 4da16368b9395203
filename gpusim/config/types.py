"""The types of every key, checked once against the annotations of schema.py.

Hydra checks most types of a command line. This module checks the rest: configs made in Python,
results of interpolations, and values in lists. It knows no range and no unit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from functools import cache
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np

from gpusim.config.checks import reject_key
from gpusim.config.schema import PATTERNS, PolicyConfig
from gpusim.errors import ConfigError

Part = TypeVar("Part")
DEEPEST = 16  # lists in lists
POLICY_FORM = "must name a class as its target"
LARGEST = 2**64  # a whole number must lie below it
NAMES = {int: "a whole number", float: "a number", str: "a text", bool: "true or false",
         type(None): "null", list: "a list", dict: "names and values"}  # fmt: skip


def checked(config: Part, kind: type[Part], key: str = "") -> Part:
    """Return a copy of a data class with plain values, after checking the type of each.

    A numpy scalar becomes Python's number. A tuple or an array becomes a list. A whole number may
    stand for a float. Nothing else is converted: a bool is no number, and a text is no bool.

    Args:
        config: made by a user.
        kind: the data class that it must be.
        key: of the data class in the whole config. Empty: it is the whole config.

    Raises:
        ConfigError: a value has another type, is not finite, or has no such key.
    """
    allowed = set(PATTERNS.values()) if kind in PATTERNS.values() else {kind}
    if type(config) not in allowed:
        if kind is PolicyConfig:
            raise _refusal(key, config, f"{POLICY_FORM}, such as {{target: my_rules:MyRule}}")
        names = " or ".join(sorted(one.__name__ for one in allowed))
        raise _refusal(key or "config", config, f"must be an instance of {names}")
    found_kind: Any = type(config)
    types, values = _types(found_kind), vars(config)
    if unknown := sorted(values.keys() - types.keys()):
        raise ConfigError(f"{key}{unknown[0]}", "...", "no such key. Remove it", "unknown_key")
    # The user's class decides about the values of its arguments. plugins.py checks their names.
    found = {
        name: values[name]
        if isinstance(config, PolicyConfig) and name == "args"
        else _value(f"{key}{name}", getattr(config, name), types[name])
        for name in types
    }
    return replace(config, **found)  # type: ignore[type-var]


def changed(config: Part, values: Mapping[str, Any], key: str, owner: str) -> Part:
    """Return a copy of a data class with some values replaced, after checking them as `checked` does.

    Args:
        config: the data class to start from.
        values: by name.
        key: of the values in the whole config.
        owner: what has these values, for the message.

    Raises:
        ConfigError: there is no such key, or a value has another type.
    """
    kind: Any = type(config)
    known = _types(kind)
    for name, value in values.items():
        if name not in known:
            reject_key(key, name, value, known, owner)
    return checked(replace(config, **values), type(config), f"{key}.")  # type: ignore[type-var]


@cache
def _types(kind: Any) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in fields(kind)}


def _value(key: str, value: Any, annotation: Any, depth: int = 0) -> Any:
    if depth > DEEPEST:
        raise ConfigError(key, "...", f"has more than {DEEPEST} levels", "wrong_format")
    value = _plain(key, value)
    is_union = get_origin(annotation) in (Union, UnionType)
    choices = get_args(annotation) if is_union else (annotation,)
    kinds = [get_origin(choice) or choice for choice in choices]
    if annotation is Any:
        kinds, choices = [*NAMES, type(value)], (*NAMES, type(value))
    if type(value) is int and float in kinds and int not in kinds:
        return value
    for kind, choice in zip(kinds, choices, strict=True):
        if is_dataclass(kind) and value is not None and isinstance(kind, type):
            known = type(value) if annotation is Any and is_dataclass(value) else kind
            return checked(value, known, f"{key}.")
        if kind is type(value) and kind is list:
            inner = (get_args(choice) or (Any,))[0]
            return [_value(f"{key}[{n}]", one, inner, depth + 1) for n, one in enumerate(value)]
        if kind is type(value) and kind is dict:
            if get_args(choice) and not all(isinstance(name, str) for name in value):
                raise ConfigError(key, "...", "every name must be a text", "wrong_type")
            inner = (get_args(choice) or (str, Any))[1]
            return {n: _value(f"{key}.{n}", one, inner, depth + 1) for n, one in value.items()}
        if kind is type(value):
            return value
    names = [NAMES.get(kind, getattr(kind, "__name__", "")) for kind in kinds]
    numeric = set(kinds) <= {int, float, type(None)}
    allowed = f"must be {' or '.join(names)}"
    raise _refusal(
        key, value, allowed, "not_a_number" if numeric and value is not None else "wrong_type"
    )


def _plain(key: str, value: Any) -> Any:
    """Return Python's own value for a numpy value or a subclass, and refuse what has no meaning."""
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    for kind in (str, int, float):
        if isinstance(value, kind) and not isinstance(value, bool) and type(value) is not kind:
            value = kind.__str__(value) if kind is str else kind(value)
    if isinstance(value, tuple):
        return list(value)
    if isinstance(value, dict) and type(value) is not dict:
        return dict(value)
    if type(value) is int and abs(value) >= LARGEST:
        raise ConfigError(key, f"{value.bit_length()} bits", "must fit 64 bits", "out_of_range")
    if isinstance(value, float) and not np.isfinite(value):
        raise ConfigError(key, value, "must be a finite number", "out_of_range")
    if isinstance(value, str) and any("\ud800" <= letter <= "\udfff" for letter in value):
        raise ConfigError(key, ascii(value), "must be valid text", "wrong_format")
    return value


def _refusal(key: str, value: object, allowed: str, code: str = "wrong_type") -> ConfigError:
    plain = value is None or isinstance(value, float | str)
    plain = plain or (isinstance(value, int) and abs(value) < LARGEST)
    is_empty = isinstance(value, Mapping | list) and not value
    name = value.__name__ if isinstance(value, type) else f"a {type(value).__name__}"
    shown = value if plain or is_empty else name
    return ConfigError(key.rstrip("."), shown, allowed, code)
