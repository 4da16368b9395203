"""What the progress reports of a migration say, whoever printed them. It decides nothing.

A report may lack any number: Nova prints no dirty rate, and Proxmox VE no remaining memory.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gpusim.formats.sync_record import PAGE_BYTES

MBIT_BYTES = 1e6 / 8
LEAST_GAP_S = 0.5  # between two reports that tell a rate
# Shares of the first pass, between which the bytes sent tell the zero pages passed over.
LEAST_OF_PASS, MOST_OF_PASS = 0.1, 0.95
AFTER_PASS = 1.02  # what was sent and what remains, of the size: more than that became dirty anew
LAST_REPORTS = 10  # most of them must tell a dirty rate. Proxmox VE prints only a high one.
RUNNING, COMPLETED, FAILED, CANCELLED = "running", "completed", "failed", "cancelled"


@dataclass(frozen=True, kw_only=True)
class Progress:
    """One report. None: it does not tell.

    Attributes:
        time_s: since the migration began.
        total_bytes: of the RAM.
        transferred_bytes: on the link so far.
        remaining_bytes: waiting to be sent.
        bytes_per_s: on the link.
        dirty_bytes_per_s: newly dirty pages of QEMU's last period, as bytes per second.
        iteration: QEMU's dirty-sync-count.
        zero_pages: pages found to be zero.
        normal_pages: pages sent with their content.
        throttle_percent: of the vCPUs.
        expected_downtime_ms: QEMU's own estimate, if the VM was stopped now.
    """

    time_s: float | None = None
    total_bytes: int | None = None
    transferred_bytes: int | None = None
    remaining_bytes: int | None = None
    bytes_per_s: float | None = None
    dirty_bytes_per_s: float | None = None
    iteration: int | None = None
    zero_pages: int | None = None
    normal_pages: int | None = None
    throttle_percent: int | None = None
    expected_downtime_ms: float | None = None


@dataclass(frozen=True, kw_only=True)
class MigrationLog:
    """The reports of one migration.

    Attributes:
        kind: code of the kind of file.
        reports: in order. At least one.
        outcome: RUNNING if no line tells an end.
        reason: the line that tells why it ended so, or "".
        seconds: until the end, or until the last report. None: unknown.
        downtime_ms: of a completed migration.
        limits: (seconds or None, downtime limit in ms), in order.
        migrations: how many the file holds. The last one counts.
        postcopy_s: time of the first report after the switch to post-copy. None: no report shows one.
        parameters: of QEMU, under its names, as far as they are known.
        is_paused: the link was lost in post-copy, and nothing is sent until somebody resumes.
    """

    kind: str
    reports: tuple[Progress, ...]
    outcome: str = RUNNING
    reason: str = ""
    seconds: float | None = None
    downtime_ms: float | None = None
    limits: tuple[tuple[float | None, int], ...] = ()
    migrations: int = 1
    postcopy_s: float | None = None
    is_paused: bool = False
    parameters: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_in_postcopy(self) -> bool:
        """Return whether the guest runs at the target while its last pages are still on their way."""
        return self.postcopy_s is not None and self.outcome == RUNNING

    @property
    def last(self) -> Progress:
        return self.reports[-1]

    def last_value(self, name: str) -> float | None:
        """Return the last value of an attribute of `Progress` that is known."""
        known = (getattr(one, name) for one in reversed(self.reports))
        return next((value for value in known if value is not None), None)

    @property
    def total_bytes(self) -> int | None:
        found = self.last_value("total_bytes")
        return None if found is None else int(found)

    @property
    def zero_share(self) -> float | None:
        """Return the share of zero pages in the first pass, 0 to 1. None: no report tells it.

        The pages that were passed over are total minus remaining, until a page is dirty again.
        """
        found = None
        for one in self.reports:
            if one.zero_pages is not None and self.total_bytes:
                normal = one.normal_pages
                if normal is None:
                    normal = (one.transferred_bytes or 0) // PAGE_BYTES
                pages = one.zero_pages + normal
                found = one.zero_pages / pages if pages else found
                is_later = pages * PAGE_BYTES > self.total_bytes
                if is_later or (one.iteration or 0) > 1:  # the first pass is over
                    return min(one.zero_pages * PAGE_BYTES / self.total_bytes, 1.0)
            elif one.total_bytes and None not in (one.remaining_bytes, one.transferred_bytes):
                passed = one.total_bytes - (one.remaining_bytes or 0)
                sent = one.transferred_bytes or 0
                if passed > MOST_OF_PASS * one.total_bytes:
                    break
                if 0 < sent < passed and passed > LEAST_OF_PASS * one.total_bytes:
                    found = 1 - sent / passed
        return found

    @property
    def rates(self) -> list[float]:
        """Return the link's rates, bytes per second: as printed, or from two reports."""
        printed = [one.bytes_per_s for one in self.reports if one.bytes_per_s]
        return (
            printed
            or [
                (after.transferred_bytes - before.transferred_bytes) / seconds
                for before, after, seconds in self._pairs()
                if before.transferred_bytes is not None
                and after.transferred_bytes is not None
                and after.transferred_bytes > before.transferred_bytes
            ]
            or self._mean_rate()
        )

    def _mean_rate(self) -> list[float]:
        one = self.last
        return [one.transferred_bytes / one.time_s] if one.transferred_bytes and one.time_s else []

    @property
    def dirty_rates(self) -> list[float]:
        """Return the dirty rates after the first pass, bytes per second.

        If none is printed, then two reports tell one: what remains grows by what became dirty, and
        falls by what was sent. Their mean is the rate, because a sync may lie in either of two pairs.
        """
        printed = [one.dirty_bytes_per_s for one in self.reports if one.dirty_bytes_per_s]
        if printed:
            last = self.reports[-LAST_REPORTS:]
            known = sum(one.dirty_bytes_per_s is not None for one in last)
            return printed if 2 * known > len(last) else []
        dirtied, passed_s, total = 0.0, 0.0, self.total_bytes or 0
        for before, after, seconds in self._pairs():
            values = (
                before.transferred_bytes,
                after.transferred_bytes,
                before.remaining_bytes,
                after.remaining_bytes,
            )
            if None in values:
                continue
            began, ended, left_before, left = (float(one) for one in values if one is not None)
            sent = ended - began
            if total and began + left_before > AFTER_PASS * total and sent >= 0:
                dirtied, passed_s = dirtied + max(sent + left - left_before, 0), passed_s + seconds
        return [dirtied / passed_s] if passed_s else []

    def _pairs(self) -> Iterator[tuple[Progress, Progress, float]]:
        for before, after in itertools.pairwise(self.reports):
            if before.time_s is None or after.time_s is None:
                continue
            seconds = after.time_s - before.time_s
            if seconds >= LEAST_GAP_S:
                yield before, after, seconds


def number(text: str | None, factor: float = 1.0) -> float | None:
    """Return a decimal number times a factor. None stays None."""
    return None if text is None else float(text) * factor


def whole(text: str | None, factor: int = 1) -> int | None:
    """Return a whole number times a factor. None stays None."""
    return None if text is None else int(text) * factor


def first_end(
    text: str, marks: Sequence[tuple[re.Pattern[str], str]], after: int
) -> tuple[str, re.Match[str] | None]:
    """Return how a migration ended: by the first mark behind a place in the text.

    Args:
        text: of the log.
        marks: what a line of an end holds, and the outcome that it means.
        after: the place.

    Returns:
        The outcome and the match of the mark, or RUNNING and None.
    """
    ends = [
        (match.start(), outcome, match)
        for mark, outcome in marks
        for match in mark.finditer(text)
        if match.start() > after
    ]
    if not ends:
        return RUNNING, None
    _, outcome, match = min(ends, key=lambda end: end[0])
    return outcome, match


def last_run(reports: Sequence[Progress]) -> tuple[int, int]:
    """Return where the last migration begins, and how many there are. Each restarts its clock."""
    starts = [0]
    for place in range(1, len(reports)):
        before, here = reports[place - 1].time_s, reports[place].time_s
        if before is not None and here is not None and here < before:
            starts.append(place)
    return starts[-1], len(starts)
