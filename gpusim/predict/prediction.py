"""What comes out of a prediction: bands over an ensemble of simulated migrations.

Data alone: ensemble.py makes it, terminal.py and report.py show it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gpusim.config.schema import Config
from gpusim.engine.records import Summary
from gpusim.fit.estimates import Fit
from gpusim.formats.profile import Profile
from gpusim.text import Message

LOW, MIDDLE, HIGH = 5, 50, 95  # percent of the members that a band's edges lie above


@dataclass(frozen=True, kw_only=True)
class Band:
    """A quantity over members: nine times in ten it lies between `low` and `high`."""

    low: float
    middle: float
    high: float


def band(values: Sequence[float]) -> Band:
    """The band of one value or more, in which a further one lies nine times in ten: all there are if few.

    Of n values in order the one of rank p (n + 1) has a share p of all migrations below it, on average
    (Weibull). numpy's own choice, 1 + p (n - 1), would hold 85 of 100 where n is 32. Of integers, such as a
    throttle's percent, it is the nearest value that there is.
    """
    edges = [float(np.percentile(values, p, method="weibull")) for p in (LOW, MIDDLE, HIGH)]
    if all(isinstance(value, int) for value in values):
        edges = [float(min(values, key=lambda value: abs(value - edge))) for edge in edges]
    return Band(low=edges[0], middle=edges[1], high=edges[2])


@dataclass(frozen=True, kw_only=True)
class Member:
    """One simulated migration.

    Attributes:
        config: what was simulated.
        summary: what came of it.
        throttle_s: throttle percent -> when it was first set, s since the migrate command; in rising order.
    """

    config: Config
    summary: Summary
    throttle_s: dict[int, float]

    @property
    def converges(self) -> bool:
        return self.summary.verdict == "converged"


@dataclass(frozen=True, kw_only=True)
class ThrottleStep:
    """A step of the throttle: how many members come to it, and when."""

    percent: int
    share: float
    time_s: Band


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What to expect of a migration.

    Attributes:
        profile: of the VM.
        fit: the guest that fits the profile best; each member has one of its own.
        members: simulated, in the order of their seeds.
        assumptions: what was not known and how it was taken; doubts about the profile are the fit's.
    """

    profile: Profile
    fit: Fit
    members: tuple[Member, ...]
    assumptions: tuple[Message, ...]

    @property
    def probability(self) -> float:
        """Share of the members that converge."""
        return sum(member.converges for member in self.members) / len(self.members)

    @property
    def converges(self) -> bool:
        """The verdict: whether more than half do."""
        return self.probability > 0.5

    def agreeing(self) -> list[Member]:
        """The members whose verdict is the prediction's, by total time: one or more."""
        agreeing = [one for one in self.members if one.converges == self.converges]
        return sorted(agreeing, key=lambda one: one.summary.total_time_s)

    def band(self, quantity: str) -> Band | None:
        """Of a numeric field of Summary, over the agreeing members; None where most have none."""
        values = [getattr(one.summary, quantity) for one in self.agreeing()]
        known = [value for value in values if value is not None]
        return band(known) if 2 * len(known) > len(values) else None

    @property
    def median_member(self) -> Member:
        """The agreeing member of median total time: the run that a report shows."""
        agreeing = self.agreeing()
        return agreeing[len(agreeing) // 2]

    @property
    def p95_member(self) -> Member:
        """The member that nineteen in twenty are no harder than: those that do not converge are hardest."""
        ranked = sorted(self.members, key=lambda m: (not m.converges, m.summary.total_time_s))
        return ranked[math.ceil(len(ranked) * HIGH / 100) - 1]

    def throttle_steps(self) -> list[ThrottleStep]:
        """Each percent that a member set, rising."""
        percents = sorted({percent for one in self.members for percent in one.throttle_s})
        steps = []
        for percent in percents:
            times = [one.throttle_s[percent] for one in self.members if percent in one.throttle_s]
            steps.append(
                ThrottleStep(
                    percent=percent, share=len(times) / len(self.members), time_s=band(times)
                )
            )
        return steps
