"""An earlier migration of the VM beside the model: same settings or not, and whether both agree.

An outcome that was seen is better evidence than any model. So a prediction states it first if the
settings are the same. If they differ, then a few migrations with the earlier settings check the
model. This module makes no text.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

from gpusim.config.checks import FASTEST, SLOWEST, parse_rate
from gpusim.config.schema import Config, MigrationConfig
from gpusim.engine.records import Summary
from gpusim.formats.migration_history import Outcome
from gpusim.formats.profile import Profile
from gpusim.predict.bands import Band, band

CHECKED = 8  # simulated migrations with the settings of the earlier one
NEAR = 0.2  # relative difference of rates that count as about the same
LIMITED = 0.9  # of max-bandwidth: a faster migration was limited by it and not by the link
# Repeats of a migration on one host differed by up to 8 % in QEMU itself (docs/validation/profiles.md).
REPEATS = 0.08


@dataclass(frozen=True, kw_only=True)
class EarlierMigration:
    """How an earlier migration ended, and what the model says about it.

    Attributes:
        outcome: as it was seen.
        differing: keys whose settings differ from those of the prediction. Empty: none does.
        converges: whether the model converges with the earlier settings. None: time was up.
        total_time_s: the band of the model. None: it does not converge, or time was up.
    """

    outcome: Outcome
    differing: tuple[str, ...]
    converges: bool | None
    total_time_s: Band | None

    @property
    def has_same_settings(self) -> bool:
        """Return whether the prediction is for the settings of the earlier migration."""
        return not self.differing

    @property
    def disagrees(self) -> bool:
        """Return whether the model contradicts the outcome by more than repeats of a migration.

        A migration that did not complete contradicts a model that ends earlier, and no other.
        """
        if self.converges is None:
            return False
        seconds, model = self.outcome.seconds, self.total_time_s
        if not self.outcome.completed:
            return model is not None and model.high < seconds * (1 - REPEATS)
        if model is None:
            return True
        return not model.low - REPEATS * seconds <= seconds <= model.high + REPEATS * seconds


def compare(
    outcome: Outcome, differing: Sequence[str], summaries: Sequence[Summary]
) -> EarlierMigration:
    """Return an earlier migration beside simulated ones with its settings.

    Args:
        outcome: of the earlier migration.
        differing: as in `EarlierMigration`.
        summaries: of the simulated migrations. Empty: time was up.
    """
    times = [one.total_time_s for one in summaries if one.verdict == "converged"]
    converges = 2 * len(times) > len(summaries) if summaries else None
    return EarlierMigration(
        outcome=outcome,
        differing=tuple(differing),
        converges=converges,
        total_time_s=band(times) if converges else None,
    )


def earlier_link(profile: Profile) -> list[str]:
    """Return the override for the link of the earlier migration.

    A migration that was as fast as max-bandwidth allows does not tell how fast its link is.
    """
    assert profile.outcome is not None
    rate, limit = profile.outcome.bytes_per_s, profile.parameters.get("max-bandwidth", 0)
    is_limited = isinstance(limit, int) and 0 < LIMITED * limit <= rate
    if is_limited or not rate:
        return ["link=unlimited"]
    return [f"link.bandwidth={min(max(rate, SLOWEST), FASTEST):.0f}"]


def differing_keys(config: Config, earlier: Config) -> Iterator[str]:
    """Yield the keys of `config` whose settings differ from those of an earlier migration.

    Args:
        config: of the prediction.
        earlier: of the earlier migration.
    """
    for one in fields(MigrationConfig):
        if one.name == "max_bandwidth":  # a part of the rate
            continue
        if getattr(config.migration, one.name) != getattr(earlier.migration, one.name):
            yield f"migration.{one.name}"
    if config.link.changes != earlier.link.changes:
        yield "link.changes"
    if config.schedule != earlier.schedule:
        yield "schedule"
    if not _is_near(_rate(config), _rate(earlier)):
        is_limit = config.migration.max_bandwidth != earlier.migration.max_bandwidth
        yield "migration.max_bandwidth" if is_limit else "link.bandwidth"


def _rate(config: Config) -> float:
    """Return the rate that link and max-bandwidth allow, bytes per second."""
    return min(
        _bytes_per_s(config.link.bandwidth),
        _bytes_per_s(config.migration.max_bandwidth) or math.inf,
    )


def _bytes_per_s(rate: int | float | str) -> float:
    return parse_rate("link.bandwidth", rate, zero_allowed=True)


def _is_near(one: float, other: float) -> bool:
    if math.isinf(one):
        return True  # nothing but the host limits it, as in the earlier migration
    return abs(one - other) <= NEAR * max(one, other)
