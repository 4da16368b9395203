"""Values to set, estimated from one dirty rate: a link, a throttle or a downtime limit.

Each is where every pass would be half as long as the one before, or where all that waited would fit the
limit, if the dirty rate stays as it is. A little less may be enough. A page counts once per period, so shorter
periods may dirty more per second, and then more is needed. Data only.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from gpusim.config.schema import MigrationConfig
from gpusim.explore.bounds import Bounds
from gpusim.explore.changes import HIGHEST_THROTTLE, LONGEST_DOWNTIME_MS, rate_text
from gpusim.explore.setting_questions import LEAST_DOWNTIME_MS
from gpusim.formats.migration_log import AFTER_PASS, LAST_REPORTS, MigrationLog, Progress
from gpusim.formats.sync_record import PAGE_BYTES
from gpusim.predict.host_costs import PAGE_COST_NS
from gpusim.units import NS_PER_S

# Of the link: each pass is half as long as the one before. It is also QEMU's own mark,
# throttle-trigger-threshold, below which it is content.
SHRINKS = 0.5
ONE_THREAD_BYTES_PER_S = (
    PAGE_BYTES * NS_PER_S / max(PAGE_COST_NS)
)  # of the slowest host that is drawn
THROTTLE_STEP = 10  # percent, QEMU's cpu-throttle-increment


@dataclass(frozen=True, kw_only=True)
class CoarseValue:
    """A value to set. One of them alone may be enough.

    Attributes:
        name: bandwidth, throttle or downtime_limit.
        value: bytes per second, percent or ms.
        settings: the same as gpusim takes it.
    """

    name: str
    value: float
    settings: str


def values_to_converge(
    log: MigrationLog, link: float, dirty: float, bounds: Bounds
) -> tuple[CoarseValue, ...]:
    """Return the values with which a migration may converge that does not as it is.

    Args:
        log: the reports.
        link: bytes per second that the link carries.
        dirty: dirty rate, bytes per second.
        bounds: what the user allows.
    """
    found = (
        _throttle(log, link, dirty),
        _link(log, link, dirty, bounds),
        _limit(log, link, bounds),
    )
    return tuple(one for one in found if one is not None)


def values_to_keep(
    log: MigrationLog, link: float | None, dirty: float | None, bounds: Bounds
) -> tuple[CoarseValue, ...]:
    """Return the values with which a completed migration may keep limits that it did not keep.

    Args: as for `values_to_converge`. None: no report tells it.
    """
    return tuple(_kept(log, link, dirty, bounds))


def _kept(
    log: MigrationLog, link: float | None, dirty: float | None, bounds: Bounds
) -> Iterator[CoarseValue]:
    most_s, most_ms = bounds.total_time_s, bounds.downtime_ms
    if link is not None and most_s is not None and (log.seconds or 0.0) > most_s:
        faster = _link(log, link, dirty or 0.0, bounds)
        if faster is not None:
            yield faster
    seen_ms = log.downtime_ms
    if most_ms is not None and seen_ms is not None and seen_ms > most_ms:
        limit_ms = log.limits[-1][1] if log.limits else MigrationConfig.downtime_limit
        yield _downtime(max(math.floor(limit_ms * most_ms / seen_ms), LEAST_DOWNTIME_MS))


def _throttle(log: MigrationLog, link: float, dirty: float) -> CoarseValue | None:
    """Return the throttle with which the guest dirties half of what the link sends."""
    now = (log.last_value("throttle_percent") or 0.0) / 100
    needed = 1 - (1 - now) * SHRINKS * link / dirty
    percent = THROTTLE_STEP * math.ceil(100 * needed / THROTTLE_STEP)
    if percent <= 100 * now or needed > HIGHEST_THROTTLE / 100:
        return None
    percent = min(percent, HIGHEST_THROTTLE)
    settings = "migration.auto_converge=true"
    if percent > log.parameters.get("max-cpu-throttle", MigrationConfig.max_cpu_throttle):
        settings += f" migration.max_cpu_throttle={percent}"
    return CoarseValue(name="throttle", value=float(percent), settings=settings)


def _link(log: MigrationLog, link: float, dirty: float, bounds: Bounds) -> CoarseValue | None:
    """Return the bandwidth with which each pass is half as long, and the deadline is kept."""
    needed = dirty / SHRINKS
    if bounds.total_time_s is not None and log.total_bytes:
        first_pass = log.total_bytes * (1 - (log.zero_share or 0.0))
        needed = max(needed, dirty + first_pass / bounds.total_time_s)
    needed = _rounded_up(needed)
    if needed <= link:
        return None
    settings = f"link.bandwidth={rate_text(needed)}"
    if 0 < log.parameters.get("max-bandwidth", 0) < needed:
        settings += " migration.max_bandwidth=0"  # no limit
    channels = math.ceil(needed / ONE_THREAD_BYTES_PER_S)
    if channels > 1:
        settings += f" migration.multifd_channels={channels}"
    return CoarseValue(name="bandwidth", value=needed, settings=settings)


def _limit(log: MigrationLog, link: float, bounds: Bounds) -> CoarseValue | None:
    """Return the downtime limit in which everything that waited could be sent."""
    later = [one for one in log.reports if _is_later(log, one)][-LAST_REPORTS:]
    waiting = max((one.remaining_bytes or 0 for one in later), default=0)
    expected = max((one.expected_downtime_ms or 0.0 for one in later), default=0.0)
    needed = max(1000 * waiting / link, expected)
    most = (
        LONGEST_DOWNTIME_MS
        if bounds.downtime_ms is None
        else min(bounds.downtime_ms, LONGEST_DOWNTIME_MS)
    )
    now = log.limits[-1][1] if log.limits else MigrationConfig.downtime_limit
    if waiting == 0 or needed <= now:
        return None
    rounded = math.ceil(needed / 100) * 100
    return _downtime(rounded) if rounded <= most else None


def _is_later(log: MigrationLog, one: Progress) -> bool:
    """Return whether a report comes after the first pass."""
    if one.iteration is not None:
        return one.iteration > 1
    handled = (one.transferred_bytes or 0) + (one.remaining_bytes or 0)
    return log.total_bytes is not None and handled > AFTER_PASS * log.total_bytes


def _downtime(limit_ms: float) -> CoarseValue:
    settings = f"migration.downtime_limit={limit_ms:.0f}"
    return CoarseValue(name="downtime_limit", value=float(limit_ms), settings=settings)


def _rounded_up(bytes_per_s: float) -> float:
    """Return a rate with two significant digits of its bits per second."""
    bits = 8 * bytes_per_s
    if bits <= 0:
        return 0.0
    digit = 10.0 ** (math.floor(math.log10(bits)) - 1)
    return math.ceil(bits / digit - 1e-9) * digit / 8
