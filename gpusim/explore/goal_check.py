"""Whether settings that help one guest help the guests of a whole prediction.

A search for settings sees one guest and tries dozens of them, so its winner may suit that guest by
chance. This module owns when settings are good enough for all guests. It searches nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import mean
from typing import Any

from gpusim.config.schema import Config
from gpusim.engine.records import Summary
from gpusim.explore.bounds import Bounds
from gpusim.explore.run_pool import RunPool


@dataclass(frozen=True, kw_only=True)
class GoalCheck:
    """All simulated migrations with the present and with other settings.

    Attributes:
        members: how many migrations.
        keeping_now, keeping: how many converge within the bounds, with the present settings and with
            the others.
        value_now, value: means of the quantity of the goal, over the migrations that converge with
            both. None: there is none.
    """

    members: int
    keeping_now: int
    keeping: int
    value_now: float | None
    value: float | None

    def helps(self, least_gain: float) -> bool:
        """Return whether more migrations keep the bounds, or as many with a gain of a share."""
        if self.keeping != self.keeping_now:
            return self.keeping > self.keeping_now
        if self.value is None or self.value_now is None:
            return False
        return self.value < (1 - least_gain) * self.value_now


def check_goal(
    members: Sequence[tuple[Config, Summary]],
    settings: Mapping[str, Any],
    quantity: str,
    bounds: Bounds,
    pool: RunPool,
) -> GoalCheck:
    """Simulate all migrations of a prediction with other settings.

    Args:
        members: each migration with the present settings. At least one.
        settings: keys of `migration` and their values.
        quantity: field of Summary that the goal minimises.
        bounds: what the user allows.
        pool: where runs are simulated.
    """
    changed = [
        replace(config, migration=replace(config.migration, **settings)) for config, _ in members
    ]
    now = [summary for _, summary in members]
    then = pool.run_all(changed)
    pairs = [
        (getattr(before, quantity), getattr(after, quantity))
        for before, after in zip(now, then, strict=True)
        if after is not None and before.verdict == after.verdict == "converged"
    ]
    return GoalCheck(
        members=len(members),
        keeping_now=sum(not bounds.excess(one) for one in now),
        keeping=sum(one is not None and not bounds.excess(one) for one in then),
        value_now=mean(before for before, _ in pairs) if pairs else None,
        value=mean(after for _, after in pairs) if pairs else None,
    )
