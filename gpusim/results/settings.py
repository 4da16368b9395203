"""Reading the config of a run as nested dicts, from a Config or from config.json."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeAlias

from gpusim.engine.records import Event

Settings: TypeAlias = Mapping[str, Any]  # dataclasses.asdict of a Config


def setting(settings: Settings | None, key: str, otherwise: Any = None) -> Any:
    """Return the value of a key such as "migration.version", or `otherwise` if it is unknown."""
    group, name = key.split(".")
    return ((settings or {}).get(group) or {}).get(name, otherwise)


def final_setting(events: Iterable[Event], settings: Settings | None, name: str) -> Any:
    """Return a parameter of `migration` after all changes during the run, or None if unknown."""
    value = setting(settings, f"migration.{name}")
    for event in events:
        if event.event == "qmp_enter_migrate_set_parameters":
            value = event.arguments.get(name, value)
    return value


def flat_settings(settings: Settings, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield dotted keys and their values. Lists and empty mappings become JSON.

    A policy has the name of its class as its value, and a key for each argument.
    """
    for key, value in settings.items():
        if _is_policy(value):
            yield f"{prefix}{key}", value["target"]
            yield from flat_settings(value["args"], f"{prefix}{key}.args.")
        elif isinstance(value, dict) and value:
            yield from flat_settings(value, f"{prefix}{key}.")
        else:
            plain = not isinstance(value, dict | list)
            yield f"{prefix}{key}", value if plain else json.dumps(value, ensure_ascii=False)


def _is_policy(value: object) -> bool:
    if not isinstance(value, dict) or value.keys() != {"target", "args"}:
        return False
    return isinstance(value["target"], str) and isinstance(value["args"], dict)
