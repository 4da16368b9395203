"""A verdict from progress reports alone: the link, one dirty rate, and how the migration ended.

It knows no guest: one rate of one period does not tell how many pages the guest writes, nor how often.
So it says yes, no or nothing. Values to set are estimates (coarse_values.py). Data only.

A page counts once per period. So a shorter period has the same rate or a higher one, and two statements
hold for every steady guest. If a period dirties as much as the link carries meanwhile, then no later pass
is shorter than that period. If it dirties much less, then the next pass is shorter by that factor.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

from gpusim.config.checks import parse_rate
from gpusim.config.override import split
from gpusim.config.schema import MigrationConfig
from gpusim.explore.bounds import NO_BOUNDS, Bounds
from gpusim.formats.migration_log import COMPLETED, MigrationLog
from gpusim.predict.coarse_values import (
    ONE_THREAD_BYTES_PER_S,
    SHRINKS,
    CoarseValue,
    values_to_converge,
    values_to_keep,
)

HOVERS = 0.9  # of the link: passes do not get shorter
FILLS = 0.95  # of the link: the threads are fast enough
LAST_RATES = 5  # reports whose median is the dirty rate
MOST_PASSES = 1000
YES, PROBABLY_YES, UNKNOWN = "yes", "probably_yes", "unknown"
PROBABLY_NO, NO = "probably_no", "no"


@dataclass(frozen=True, kw_only=True)
class CoarseBound:
    """Whether one limit of the user is kept.

    Attributes:
        name: of the field of Summary.
        most: the largest allowed value.
        value: seen or expected. None: the reports do not tell it.
        code: yes, probably_yes, unknown, probably_no or no.
    """

    name: str
    most: float
    value: float | None
    code: str


@dataclass(frozen=True, kw_only=True)
class Coarse:
    """The verdict.

    Attributes:
        log: the reports.
        code: yes, probably_yes, unknown, probably_no or no: does the migration converge?
        link_bytes_per_s: what the link carries. None: no report tells it.
        dirty_bytes_per_s: the dirty rate, at the end of the reports. None: no report tells it.
        is_stated: whether the user stated the link, so the verdict is for the next migration.
        sender_bytes_per_s: what the slowest host sends over a stated link, with its threads. None: the
            link is not stated.
        limit_ms: the downtime limit that the user states, or else the last one of the reports.
        left_s: time until the end if the dirty rate stays as it is. None: no end, or unknown.
        bounds: whether the limits of the user are kept.
        values: to set. Each of them alone may be enough.
    """

    log: MigrationLog
    code: str
    link_bytes_per_s: float | None
    dirty_bytes_per_s: float | None
    is_stated: bool = False
    sender_bytes_per_s: float | None = None
    limit_ms: float = MigrationConfig.downtime_limit
    left_s: float | None = None
    bounds: tuple[CoarseBound, ...] = ()
    values: tuple[CoarseValue, ...] = ()

    @property
    def ratio(self) -> float | None:
        """Return the dirty rate as a share of the link. None: unknown."""
        if self.link_bytes_per_s is None or self.dirty_bytes_per_s is None:
            return None
        return self.dirty_bytes_per_s / self.link_bytes_per_s

    @property
    def is_short_of_threads(self) -> bool:
        """Return whether the threads of a slow host do not fill a stated link."""
        link, sender = self.link_bytes_per_s, self.sender_bytes_per_s
        return link is not None and sender is not None and sender < FILLS * link

    @property
    def is_seen(self) -> bool:
        """Return whether the reports show the answer, so that nothing was computed."""
        return self.log.outcome == COMPLETED and not self.is_stated

    @property
    def is_in_postcopy(self) -> bool:
        """Return whether the answer is for a migration that has switched to post-copy."""
        return self.log.is_in_postcopy and not self.is_stated


def coarse_verdict(
    log: MigrationLog, overrides: Sequence[str] = (), bounds: Bounds = NO_BOUNDS
) -> Coarse:
    """Return the verdict on a migration, or on the next one over a link that the user states.

    Args:
        log: the reports.
        overrides: as gpusim takes them. Only the link and the downtime limit count.
        bounds: what the user allows.

    Raises:
        ConfigError: an override cannot be composed.
    """
    stated, sender = _stated(overrides)
    link = stated if stated is not None else _link(log)
    dirty = _dirty(log)
    plain = Coarse(
        log=log,
        code=UNKNOWN,
        link_bytes_per_s=link,
        dirty_bytes_per_s=dirty,
        is_stated=stated is not None,
        sender_bytes_per_s=sender,
        limit_ms=_limit_ms(log, overrides),
    )
    slow = replace(plain, link_bytes_per_s=sender) if plain.is_short_of_threads else plain
    code = YES if plain.is_seen else _code(plain)
    if _code(slow) != _code(plain):
        code = UNKNOWN
    left_s = None if code in (NO, PROBABLY_NO) or plain.is_seen else _left_s(slow)
    if plain.is_in_postcopy:
        code = NO if log.is_paused else YES
        left_s = None if log.is_paused else _postcopy_left_s(plain)
    kept = tuple(_bound(plain, code, left_s, name, most) for name, most in bounds.items())
    found = replace(plain, code=code, left_s=left_s, bounds=kept)
    return replace(found, values=_values(found, bounds))


def _values(found: Coarse, bounds: Bounds) -> tuple[CoarseValue, ...]:
    """Return values to set, if the migration fails as it is, or does not keep the limits."""
    link, dirty = found.link_bytes_per_s, found.dirty_bytes_per_s
    if found.is_in_postcopy:
        return ()  # no parameter of precopy counts any more
    if found.is_seen:
        return values_to_keep(found.log, link, dirty, bounds)
    is_kept = all(one.code not in (NO, PROBABLY_NO) for one in found.bounds)
    if link is None or dirty is None or (found.code == PROBABLY_YES and is_kept):
        return ()
    return values_to_converge(found.log, link, dirty, bounds)


def _stated(overrides: Sequence[str]) -> tuple[float | None, float | None]:
    """Return the link that the user states, and what the slowest host sends over it, bytes per second."""
    from gpusim.config.compose import composed_config
    from gpusim.predict.host_config import check_overrides

    check_overrides(overrides)
    if not any(one.lstrip("+").startswith("link") for one in overrides):
        return None, None
    config = composed_config(overrides)
    rate = parse_rate("link.bandwidth", config.link.bandwidth)
    if math.isinf(rate):
        return None, None
    threads = max(config.migration.multifd_channels, 1)
    return rate, min(rate, threads * ONE_THREAD_BYTES_PER_S)


def _limit_ms(log: MigrationLog, overrides: Sequence[str]) -> float:
    from gpusim.config.compose import composed_config

    if any(split(one).key == "migration.downtime_limit" for one in overrides):
        return composed_config(overrides).migration.downtime_limit
    return log.limits[-1][1] if log.limits else MigrationConfig.downtime_limit


def _link(log: MigrationLog) -> float | None:
    """Return what the link carries: the upper quartile, because the last window may be cut."""
    rates = sorted(log.rates)
    return rates[3 * len(rates) // 4] if rates else None


def _dirty(log: MigrationLog) -> float | None:
    rates = log.dirty_rates
    return statistics.median(rates[-LAST_RATES:]) if rates else None


def _code(found: Coarse) -> str:
    ratio = found.ratio
    if ratio is None:
        return UNKNOWN
    if ratio >= 1:
        return NO
    if ratio >= HOVERS:
        return PROBABLY_NO
    return PROBABLY_YES if ratio <= SHRINKS else UNKNOWN


def _left_s(found: Coarse) -> float | None:
    """Return the time until the rest fits the downtime limit, at the dirty rate of the last period."""
    ratio, link = found.ratio, found.link_bytes_per_s
    if ratio is None or link is None or ratio >= HOVERS:
        return None
    log = found.log
    left = log.total_bytes if found.is_stated else log.last_value("remaining_bytes")
    if left is None:
        return None
    seconds, left = 0.0, float(left) * (1 - (log.zero_share or 0.0) * found.is_stated)
    for _ in range(MOST_PASSES):
        if left <= link * found.limit_ms / 1000:
            break
        seconds += left / link
        left *= ratio
    return seconds


def _postcopy_left_s(found: Coarse) -> float | None:
    """Return the time until the last page is sent. After the switch each page is sent once."""
    left, link = found.log.last_value("remaining_bytes"), found.link_bytes_per_s
    return None if left is None or not link else left / link


def _bound(found: Coarse, code: str, left_s: float | None, name: str, most: float) -> CoarseBound:
    log = found.log
    value: float | None = None
    if name == "total_time_s":
        if found.is_seen:
            value = log.seconds
        elif left_s is not None:
            value = left_s if found.is_stated else left_s + (log.seconds or 0.0)
        if code in (NO, PROBABLY_NO):
            return CoarseBound(name=name, most=most, value=None, code=code)
    elif name == "downtime_ms" and (found.is_seen or found.is_in_postcopy):
        value = log.downtime_ms
    if value is None:
        return CoarseBound(name=name, most=most, value=None, code=UNKNOWN)
    is_kept = value <= most
    is_known = found.is_seen or name == "downtime_ms"
    answers = (YES, NO) if is_known else (PROBABLY_YES, PROBABLY_NO)
    if not found.is_seen and is_kept and code == UNKNOWN:
        return CoarseBound(name=name, most=most, value=value, code=UNKNOWN)
    return CoarseBound(name=name, most=most, value=value, code=answers[not is_kept])
