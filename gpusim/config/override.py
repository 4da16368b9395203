"""One override as a user typed it, and its refusal. This module does not import Hydra."""

from __future__ import annotations

from dataclasses import dataclass

from gpusim.errors import LONGEST_VALUE, ConfigError, one_line


@dataclass(frozen=True)
class Override:
    """What a user typed.

    Attributes:
        text: the whole override.
        key: without +, ~ and the package after an @.
        value: None if there is no "=".
    """

    text: str
    key: str
    value: str | None


def split(text: str) -> Override:
    """Return an override and its parts. Nothing is refused."""
    key, is_set, value = text.partition("=")
    return Override(text, key.lstrip("+~").partition("@")[0], value if is_set else None)


def refusal(given: Override | None, allowed: str, code: str) -> ConfigError:
    """Return the error of an override, which shows a removal and a text without "=" as a whole.

    Args:
        given: the override, or None if the error is about the whole config.
        allowed: what is allowed, and what to type.
        code: of the error.
    """
    if given is None:
        return ConfigError("config", "...", allowed, code)
    is_removal = given.text.startswith("~")
    if not given.key or (given.value is None and not is_removal):
        return ConfigError("KEY=VALUE", given.text, allowed, code)
    key = given.text.partition("=")[0].lstrip("+~")
    shown = given.text if is_removal else given.value
    return ConfigError(one_line(key, LONGEST_VALUE).lstrip("~"), shown, allowed, code)
