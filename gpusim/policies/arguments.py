"""Checks of the arguments of gpusim's own managers."""

from __future__ import annotations

from collections.abc import Iterable

from gpusim.errors import ArgumentError


def check_whole(name: str, value: object, least: int, most: int) -> None:
    """Refuse all but a whole number in a range.

    Raises:
        ArgumentError: the value is something else.
    """
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    if not is_whole or not least <= value <= most:  # type: ignore[operator]
        raise ArgumentError(name, value, f"must be a whole number, {least} to {most}")


def check_number(name: str, value: object, least: float, most: float) -> None:
    """Refuse all but a number in a range.

    Raises:
        ArgumentError: the value is something else.
    """
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not least <= value <= most:  # type: ignore[operator]
        raise ArgumentError(name, value, f"must be a number, {least:g} to {most:g}")


def check_flag(name: str, value: object) -> None:
    """Refuse all but true and false.

    Raises:
        ArgumentError: the value is something else.
    """
    if not isinstance(value, bool):
        raise ArgumentError(name, value, "must be true or false")


def check_name(name: str, value: object, choices: Iterable[str]) -> None:
    """Refuse all but some names.

    Raises:
        ArgumentError: the value is something else.
    """
    names = list(choices)
    if value not in names:
        raise ArgumentError(name, value, f"must be one of {', '.join(names)}")
