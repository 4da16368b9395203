"""What was simulated, as pictures and reports are told it: a Config as nested dicts.

So that results need no Config, and a folder's config.json serves as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

Settings: TypeAlias = Mapping[str, Any]  # dataclasses.asdict of a Config


def setting(settings: Settings | None, key: str, otherwise: Any = None) -> Any:
    """The value of a key such as "migration.version"; `otherwise` if it is not known."""
    group, name = key.split(".")
    return ((settings or {}).get(group) or {}).get(name, otherwise)
