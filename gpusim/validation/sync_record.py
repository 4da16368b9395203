"""How many pages became newly dirty at each sync of a recording, and when.

The number is exact whichever way a migration was watched, as QEMU's counters close: what is still to
be sent, with what was sent so far, is all of RAM and what became dirty anew (migration/ram.c:
migration_dirty_pages is raised by a sync and lowered by a page that is taken). Times are exact where
QEMU's trace or QMP told of the syncs, and known between two samples of query-migrate otherwise.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np

from gpusim.validation.recording import Recording

PAGE_BYTES = 4096
PERIOD_S = 1.0  # a sync later than this since the last period's end closes it, and its count


@dataclass(frozen=True, kw_only=True)
class Sync:
    """One sync.

    Attributes:
        newly_dirty_pages: clean in QEMU's bitmap before it, dirty behind it.
        sent_pages: since the migration began.
    """

    time_s: float
    newly_dirty_pages: int
    sent_pages: float


def syncs(recording: Recording) -> list[Sync]:
    """The syncs behind the setup's: by QEMU's trace, by its events, or by the samples alone."""
    if any(event.name == "migration_bitmap_sync_end" for event in recording.events):
        found = _traced(recording)
    else:
        found = _sampled(recording)
    times_s, sent = sent_pages(recording)
    return [
        Sync(
            time_s=time_s,
            newly_dirty_pages=pages,
            sent_pages=float(np.interp(time_s, times_s, sent)),
        )
        for time_s, pages in found
    ]


def sent_pages(recording: Recording) -> tuple[list[float], list[int]]:
    """Times, and pages sent by then."""
    known = [(s.time_s, s.ram.sent_pages) for s in recording.samples if s.ram is not None]
    return [0.0, *(time_s for time_s, _ in known)], [0, *(sent for _, sent in known)]


def _traced(recording: Recording) -> list[tuple[float, int]]:
    """(seconds, newly dirty pages) of each sync but the setup's.

    migration_bitmap_sync_end tells the count of the period so far. A sync that ends more than a second
    after the last period did ends this one, and the count starts anew; the first one starts with the
    first sync (migration/ram.c:migration_bitmap_sync).
    """
    found = []
    period_start_s, before = math.nan, 0
    for event in recording.events:
        if event.name == "migration_bitmap_sync_start" and math.isnan(period_start_s):
            period_start_s = event.time_s
        if event.name == "migration_bitmap_sync_end":
            so_far = int(event.arguments.split()[-1])
            # A period that ended on the edge of its second is seen by its count, which fell.
            found.append((event.time_s, so_far - (before if so_far >= before else 0)))
            before = so_far
            if event.time_s > period_start_s + PERIOD_S:
                period_start_s, before = event.time_s, 0
    return found[1:]


def _sampled(recording: Recording) -> list[tuple[float, int]]:
    """The same from samples, with QMP's times where it told them.

    What became dirty between two samples is shared among the syncs between them, by the time that
    each had to collect it.
    """
    found: list[tuple[float, int]] = []
    start = (0.0, 1, 0)  # seconds, syncs, pages dirtied anew
    last_s = 0.0
    for before, here in itertools.pairwise([start, *_closed_counts(recording)]):
        times_s = _between(recording, before, here)
        if not times_s:
            continue
        spans = np.diff([last_s, *times_s])
        shares = np.cumsum(spans) / max(spans.sum(), 1e-9)
        pages = np.diff(np.rint(shares * (here[2] - before[2])), prepend=0).astype(int)
        found += zip(times_s, pages.tolist(), strict=True)
        last_s = times_s[-1]
    return found


def _closed_counts(recording: Recording) -> list[tuple[float, int, int]]:
    """(seconds, syncs, pages dirtied anew since the start) of each sample; neither ever falls.

    A sample is taken while the sender sends, and may be off by the page under way.
    """
    total = recording.ram_bytes // PAGE_BYTES
    counts: list[tuple[float, int, int]] = []
    for sample in recording.samples:
        ram = sample.ram
        if ram is None or sample.status not in ("active", "completed", "device"):
            continue
        dirtied = ram.remaining_bytes // PAGE_BYTES + ram.sent_pages - total
        if ram.dirty_sync_count <= 1:
            total, dirtied = total + dirtied, 0  # with small blocks that mem_mib leaves out
        _, syncs_before, dirtied_before = counts[-1] if counts else (0.0, 1, 0)
        if ram.dirty_sync_count <= syncs_before:
            dirtied = dirtied_before
        counts.append(
            (
                sample.time_s,
                max(ram.dirty_sync_count, syncs_before),
                max(dirtied, dirtied_before),
            )
        )
    return counts


def _between(
    recording: Recording, before: tuple[float, int, int], here: tuple[float, int, int]
) -> list[float]:
    """Times of the syncs between two samples: those that QMP told, else evenly spread.

    The last one of a migration that completed is that of the VM's stop.
    """
    number = here[1] - before[1]
    told = [time_s for time_s in recording.passes_s if before[0] < time_s <= here[0]]
    if len(told) == number:
        return told
    until_s = here[0]
    if recording.stop_s is None or not before[0] < recording.stop_s <= here[0]:
        step_s = (until_s - before[0]) / max(number, 1)
        return [before[0] + (place + 0.5) * step_s for place in range(number)]
    step_s = (recording.stop_s - before[0]) / max(number, 1)
    return [before[0] + (place + 1) * step_s for place in range(number)]


def zero_pages(recording: Recording) -> tuple[int, int]:
    """Zero pages of the first pass: those that lay at its end, and all others.

    Until as many pages are sent as there are, each was sent for the first time, in order. The end is
    what was sent behind the last samples between which less than half was zero.
    """
    pages = recording.ram_bytes // PAGE_BYTES
    at_end = others = 0
    sent = zero = 0
    for sample in recording.samples:
        if sample.ram is None:
            continue
        sent_here, zero_here = sample.ram.sent_pages - sent, sample.ram.zero_pages - zero
        if 2 * zero_here > sent_here:
            at_end += zero_here
        elif sent_here:
            at_end, others = 0, others + at_end + zero_here
        sent, zero = sample.ram.sent_pages, sample.ram.zero_pages
        if sent >= pages:
            break
    return at_end, others
