"""A prediction: simulated migrations, and bands over them. Data only."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from gpusim.config.schema import Config, MixConfig
from gpusim.engine.records import Summary
from gpusim.explore.bounds import NO_BOUNDS, Bounds
from gpusim.explore.bounds_search import ChangeWithin
from gpusim.fit.estimates import Fit
from gpusim.formats.profile import Profile
from gpusim.predict.bands import HIGH, Band, band
from gpusim.predict.earlier_migration import EarlierMigration
from gpusim.predict.postcopy_comparison import PostcopyComparison
from gpusim.text import Message

# gpusim's own error. Nine in ten replays of the recordings of `short/`, whose guest is known and which
# judge no prediction, end within 1.06 % of QEMU (docs/validation/replays.md). So the band of the total
# time reaches that far beyond the members, which may agree to the last digit.
MODEL_ERROR = 0.0106


@dataclass(frozen=True, kw_only=True)
class Member:
    """One simulated migration.

    Attributes:
        config: the config of the run.
        summary: the summary of the run.
        throttle_s: throttle percentage -> when it was first set, s since the migrate command. The
            percentages rise.
    """

    config: Config
    summary: Summary
    throttle_s: dict[int, float]

    @property
    def converges(self) -> bool:
        return self.summary.verdict == "converged"

    @property
    def load_ends_s(self) -> float:
        """Return when the last writer stops, s. Infinite: the load does not end."""
        if not isinstance(self.config.workload, MixConfig):
            return math.inf
        windows = [one.get("windows") for one in self.config.workload.writers.values()]
        return max(one[-1][1] if one else math.inf for one in windows)

    @property
    def config_under_load(self) -> Config:
        """Return the config of the run with a load that does not end."""
        workload = self.config.workload
        if math.isinf(self.load_ends_s) or not isinstance(workload, MixConfig):
            return self.config
        writers = {name: one | {"windows": None} for name, one in workload.writers.items()}
        return replace(self.config, workload=replace(workload, writers=writers))


@dataclass(frozen=True, kw_only=True)
class ThrottleStep:
    """A throttle percentage: the share of the members that reach it, and when they do."""

    percent: int
    share: float
    time_s: Band


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """The expected migration of a VM.

    Attributes:
        profile: the profile of the VM.
        fit: the guest that fits the profile best. Each member has its own guest.
        members: the simulated migrations, in the order of their seeds. At least one.
        assumptions: what the profile and the user did not specify. `fit.warnings` holds the
            warnings about the profile.
        earlier: an earlier migration of the VM beside the model. None: none is known.
        bounds: what the user allows.
        change_within: a change with which the bounds are kept. None: nobody searched for one.
        ways: precopy beside post-copy. None: nobody compared them.
    """

    profile: Profile
    fit: Fit
    members: tuple[Member, ...]
    assumptions: tuple[Message, ...]
    earlier: EarlierMigration | None = None
    bounds: Bounds = NO_BOUNDS
    change_within: ChangeWithin | None = None
    ways: PostcopyComparison | None = None

    @property
    def probability(self) -> float:
        """Return the share of the members that converge."""
        return sum(member.converges for member in self.members) / len(self.members)

    @property
    def converges(self) -> bool:
        """Return whether more than half of the members converge."""
        return self.probability > 0.5

    def agreeing(self) -> list[Member]:
        """Return the members with the verdict of the prediction, by total time. At least one."""
        agreeing = [one for one in self.members if one.converges == self.converges]
        return sorted(agreeing, key=lambda one: one.summary.total_time_s)

    @property
    def ends_with_load(self) -> bool:
        """Return whether most members converge only after the guest's load has ended."""
        late = sum(one.summary.total_time_s > one.load_ends_s for one in self.members)
        return self.converges and late > len(self.members) / 2

    def band(self, quantity: str) -> Band | None:
        """Return the band of a Summary field over `agreeing`. None: half or more have no value.

        The band of the total time of migrations that converge also has gpusim's own error.
        """
        values = [getattr(one.summary, quantity) for one in self.agreeing()]
        known = [value for value in values if value is not None]
        if 2 * len(known) <= len(values):
            return None
        found = band(known)
        has_error = quantity == "total_time_s" and self.converges
        return found.widened(MODEL_ERROR) if has_error else found

    @property
    def median_member(self) -> Member:
        """Return the member of `agreeing` with the median total time. A report shows its run."""
        agreeing = self.agreeing()
        return agreeing[len(agreeing) // 2]

    @property
    def p95_member(self) -> Member:
        """Return the 95th-percentile member by total time. Non-converging members come last."""
        ranked = sorted(self.members, key=lambda m: (not m.converges, m.summary.total_time_s))
        return ranked[math.ceil(len(ranked) * HIGH / 100) - 1]

    @property
    def p95_within_bounds(self) -> Member:
        """Return the 95th-percentile member by how far it exceeds the bounds, and then by total time."""
        ranked = sorted(
            self.members,
            key=lambda m: (self.bounds.excess(m.summary), not m.converges, m.summary.total_time_s),
        )
        return ranked[math.ceil(len(ranked) * HIGH / 100) - 1]

    def throttle_steps(self) -> list[ThrottleStep]:
        """Return the percentages that members reach, rising."""
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
