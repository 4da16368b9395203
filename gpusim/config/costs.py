"""Which costs of a real host a configuration leaves out."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from gpusim.config.schema import Config, LinkConfig, TrackingConfig
from gpusim.text import join_words

# Every host pays them, under every kind of dirty tracking.
_COSTS = {
    "link": (LinkConfig, ("page_cost_ns", "wakeup_latency_us", "non_ram_downtime_ms")),
    "tracking": (TrackingConfig, ("log_sync_ns_per_gib", "merge_ns_per_gib")),
}
_ZERO = (0, "0", "unlimited")


def zero_costs(config: Config) -> list[str]:
    """Return the keys of costs that are 0, although every host has such a cost."""
    return [
        f"{group}.{name}"
        for group, (kind, names) in _COSTS.items()
        for name in names
        if _value(config, group, name) in _ZERO and _default(kind, name) not in _ZERO
    ]


def zero_costs_text(config: Config) -> str:
    """Return which costs are 0, and what follows. Empty if the host has costs."""
    found = zero_costs(config)
    return f"{join_words(found)} set to 0, so a real host takes longer" if found else ""


def _value(config: Config, group: str, name: str) -> Any:
    return getattr(getattr(config, group), name)


def _default(kind: Any, name: str) -> Any:
    return next(field.default for field in fields(kind) if field.name == name)
