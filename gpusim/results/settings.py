"""What was simulated, as pictures and reports are told it: a Config as nested dicts.

So that results need no Config, and a folder's config.json serves as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

from gpusim.engine.records import Event

Settings: TypeAlias = Mapping[str, Any]  # dataclasses.asdict of a Config


def setting(settings: Settings | None, key: str, otherwise: Any = None) -> Any:
    """The value of a key such as "migration.version"; `otherwise` if it is not known."""
    group, name = key.split(".")
    return ((settings or {}).get(group) or {}).get(name, otherwise)


def at_the_end(events: Iterable[Event], settings: Settings | None, name: str) -> Any:
    """A parameter of `migration` as it was last set, by a schedule or from the start; None: not known."""
    value = setting(settings, f"migration.{name}")
    for event in events:
        if event.event == "qmp_enter_migrate_set_parameters":
            value = event.arguments.get(name, value)
    return value
