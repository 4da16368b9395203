"""What a first write costs the guest if nobody stated it: a range and a source for each key.

Each simulated migration draws one place between two hosts, which gives both keys of `tracking`. A
key that the user sets is not drawn. TCG has no lock, and a preset with its own cost.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace

from gpusim.config.schema import Config, TrackingConfig
from gpusim.predict.host_costs import Range
from gpusim.text import Message

RANGES = {
    # The cheapest host splits huge pages beforehand and logs writes in hardware: 2 vCPUs took 58.7
    # ms for 2^18 pages each (kvm list, 2022-02-03, D. Matlack). The dearest one takes a fault per
    # page under an exclusive lock: one ARM vCPU took 926 ms for 2^19 pages (2022-01-18, J. Zhang).
    "first_write_cost_ns": Range(low=224.0, high=1766.0),
    # The same hosts: 534 ns with 96 vCPUs (Linux a3fe5dbda0a4), and 78.2 us with 64 vCPUs.
    "first_write_serial_percent": Range(low=2.5, high=69.0),
}

DRAWN = {  # key of `tracking` -> code of the assumption
    "first_write_cost_ns": "first_write_cost_ns_drawn",
    "first_write_serial_percent": "first_write_serial_percent_drawn",
}


def ranges(config: Config, stated: Collection[str]) -> dict[str, Range]:
    """Return the range of each key of `tracking` that is drawn.

    Args:
        config: has the tracking, and the costs if a preset of the user sets them.
        stated: keys such as "tracking.first_write_cost_ns" that the user set. They are not drawn.
    """
    if config.tracking.mode == "tcg":
        return {}
    default = TrackingConfig()
    return {
        key: one
        for key, one in RANGES.items()
        if f"tracking.{key}" not in stated
        and getattr(config.tracking, key) == getattr(default, key)
    }


def drawn(
    tracking: TrackingConfig, costs: Mapping[str, Range], place: Callable[[str], float]
) -> TrackingConfig:
    """Return a tracking with its costs drawn between the cheapest and the dearest host.

    The place between them is one for all keys, because a host with a dear fault also has the longer
    lock. It is equally likely in each factor of two.

    Args:
        tracking: the tracking.
        costs: the ranges.
        place: returns a number from 0 to 1 for a name.
    """
    if not costs:
        return tracking
    between = place("first_write")
    values = {key: one.low * (one.high / one.low) ** between for key, one in costs.items()}
    return replace(tracking, **values)


def assumptions(costs: Mapping[str, Range]) -> Iterator[Message]:
    """Tell between which values the costs are drawn."""
    for key, one in costs.items():
        yield Message(DRAWN[key], {"low": one.low, "high": one.high})
