"""Which costs of a real host a configuration leaves out."""

from __future__ import annotations

from operator import attrgetter

from gpusim.config.schema import Config
from gpusim.text import join_words

# Every host pays them, under every kind of dirty tracking. None of them is 0 by default.
_COSTS = (
    "link.page_cost_ns",
    "link.wakeup_latency_us",
    "link.non_ram_downtime_ms",
    "tracking.log_sync_ns_per_gib",
    "tracking.merge_ns_per_gib",
)
_ZERO = (0, "0")


def zero_costs(config: Config) -> list[str]:
    """Return the keys of costs that are 0, although every host has such a cost."""
    return [key for key in _COSTS if attrgetter(key)(config) in _ZERO]


def zero_costs_text(config: Config) -> str:
    """Return which costs are 0, and what follows. Empty if the host has costs."""
    found = zero_costs(config)
    return f"{join_words(found)} set to 0, so a real host takes longer" if found else ""
