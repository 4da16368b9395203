"""What post-copy costs if nobody stated it: a range and a source for each cost.

Each simulated migration that may switch to post-copy draws its own value. A key of `postcopy` that
the user sets is not drawn. No profile says what a guest reads, so reads are always drawn.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from typing import Any

from gpusim.config.schema import Config, MixConfig, PostcopyConfig
from gpusim.predict.host_costs import Range
from gpusim.text import Message

# Recorded migrations of one guest: PostgreSQL, 8 GiB, 4 vCPUs, July 2026,
# LordWicked/live-migration-thesis-code. The docstring of config/schema.py:PostcopyConfig says what
# they show. The lower end of resume_ms has no source: a target that activates no disks is faster.
RANGES = {
    "fault_us": Range(low=30.0, high=64.0),
    "request_us": Range(low=5.0, high=15.0),
    "discard_us": Range(low=1.2, high=2.3),
    "resume_ms": Range(low=50.0, high=470.0),
}
DRAWN = {  # key of `postcopy` -> code of the assumption
    "fault_us": "fault_us_drawn",
    "request_us": "request_us_drawn",
    "discard_us": "discard_us_drawn",
    "resume_ms": "resume_ms_drawn",
}
# Page reads per page write. No source: from a guest that mostly writes to one that mostly reads.
READS_PER_WRITE = Range(low=0.5, high=4.0)


def may_switch(config: Config) -> bool:
    """Return whether a migration may switch to post-copy."""
    migration = config.migration
    starts = migration.start_postcopy != "never" or migration.manager is not None
    return migration.postcopy_ram and (starts or bool(config.schedule))


def ranges(config: Config, stated: Collection[str]) -> dict[str, Range]:
    """Return the range of each key of `postcopy` that is drawn.

    Args:
        config: has the costs if a preset of the user sets them.
        stated: keys such as "postcopy.fault_us" that the user set. They are not drawn.
    """
    default = PostcopyConfig()
    return {
        key: one
        for key, one in RANGES.items()
        if f"postcopy.{key}" not in stated
        and getattr(config.postcopy, key) == getattr(default, key)
    }


def drawn(config: Config, costs: Mapping[str, Range], place: Callable[[str], float]) -> Config:
    """Return a config with each cost and the guest's reads drawn, equally likely in each factor of two.

    Args:
        config: of a migration that may switch to post-copy.
        costs: from `ranges`.
        place: returns a number from 0 to 1 for the name of a cost.
    """
    values: dict[str, Any] = {
        key: _between(one, place(f"postcopy {key}")) for key, one in costs.items()
    }
    reads = _between(READS_PER_WRITE, place("postcopy reads"))
    workload = config.workload
    if isinstance(workload, MixConfig):
        writers = {name: _with_reads(one, reads) for name, one in workload.writers.items()}
        workload = replace(workload, writers=writers)
    return replace(config, postcopy=replace(config.postcopy, **values), workload=workload)


def _with_reads(writer: Any, reads_per_write: float) -> Any:
    if not isinstance(writer, dict) or "page_writes_per_s" not in writer:
        return writer
    return writer | {"reads_per_s": reads_per_write * writer["page_writes_per_s"]}


def _between(one: Range, place: float) -> float:
    return one.low * math.exp(place * math.log(one.high / one.low))


def assumptions(costs: Mapping[str, Range]) -> Iterator[Message]:
    """Tell which costs are drawn, and between which values."""
    for key, one in costs.items():
        yield Message(DRAWN[key], {"low": one.low, "high": one.high})
    yield Message("reads_drawn", {"low": READS_PER_WRITE.low, "high": READS_PER_WRITE.high})
