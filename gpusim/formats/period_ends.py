"""When periods ended, from query-migrate's `dirty-pages-rate`.

A sync that ends more than a second after the end of the last period ends this period. QEMU then
divides the pages that became dirty by the period's milliseconds. The samples hold the quotient and
the pages, so the period's length is known far finer than the time between two samples. Source:
migration/ram.c:migration_bitmap_sync, migration_update_rates.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

CLOCK_S = 0.001  # QEMU's clock of periods and of total-time has whole milliseconds
PAGE_UNDER_WAY = 1  # a sample is taken while the sender sends


@dataclass(frozen=True, kw_only=True)
class PeriodEnd:
    """The end of a period between two samples. The first one is the start of the first period.

    Attributes:
        earliest_s, latest_s: bounds of its time.
        fewest_pages, most_pages: bounds of the newly dirty pages since the migration began.
        dirty_pages_rate: of the period that ended.
    """

    earliest_s: float
    latest_s: float
    fewest_pages: int
    most_pages: int
    dirty_pages_rate: int = 0

    def length_bounds_s(self, before: PeriodEnd) -> tuple[float, float]:
        """Return the bounds of the length of the period since the end before."""
        fewest = self.fewest_pages - before.most_pages - PAGE_UNDER_WAY
        most = self.most_pages - before.fewest_pages + PAGE_UNDER_WAY
        shortest = fewest / (self.dirty_pages_rate + 1) - CLOCK_S
        longest = most / self.dirty_pages_rate if self.dirty_pages_rate else math.inf
        return shortest, longest + CLOCK_S

    def within(self, earliest_s: float, latest_s: float) -> PeriodEnd | None:
        """Return this end within bounds too, or None if they exclude each other."""
        earliest_s, latest_s = max(earliest_s, self.earliest_s), min(latest_s, self.latest_s)
        if earliest_s > latest_s:
            return None
        return replace(self, earliest_s=earliest_s, latest_s=latest_s)


def narrow(ends: Sequence[PeriodEnd]) -> list[PeriodEnd]:
    """Return the ends with the bounds that the lengths of the periods leave.

    A period between two ends whose length contradicts the samples tells nothing. Its rate equals
    that of another period, so that no sample shows where one ended.
    """
    found = [*ends[:1]]
    joined = []
    for end in ends[1:]:
        shortest, longest = end.length_bounds_s(found[-1])
        bounded = end.within(found[-1].earliest_s + shortest, found[-1].latest_s + longest)
        joined.append(bounded is not None)
        found.append(end if bounded is None else bounded)
    for place in range(len(found) - 2, -1, -1):
        here, after = found[place], found[place + 1]
        if joined[place]:
            shortest, longest = after.length_bounds_s(here)
            bounded = here.within(after.earliest_s - longest, after.latest_s - shortest)
            found[place] = here if bounded is None else bounded
    return found


def middle_s(end: PeriodEnd) -> float:
    """Return the middle of the bounds of an end."""
    return (end.earliest_s + end.latest_s) / 2


def place_between(
    since_s: float, until_s: float, count: int, known_s: Sequence[float]
) -> list[float]:
    """Return the times of syncs between two samples, some of which are known.

    The others are spread evenly. Each known one replaces the nearest of those that are left.
    """
    edges = [since_s + (until_s - since_s) * n / count for n in range(count + 1)]
    times = [(a + b) / 2 for a, b in itertools.pairwise(edges)]
    known_s = sorted(known_s)[:count]
    for at_s in known_s:
        times.remove(min(times, key=lambda time_s: abs(time_s - at_s)))
    return sorted([*times, *known_s])
