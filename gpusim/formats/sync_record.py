"""How many pages became newly dirty at each sync of a recording, and when.

The page counts are exact however the migration was observed, because QEMU's counters balance:
remaining pages + sent pages = all RAM + newly dirty pages. Source: migration/ram.c, where a sync
raises migration_dirty_pages and each page that is taken lowers it. Times are exact if QEMU's trace
or QMP reported the syncs. Otherwise each sync lies between two samples of query-migrate.
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter

import numpy as np

from gpusim.formats.period_ends import PeriodEnd, middle_s, narrow, place_between
from gpusim.formats.recording import Recording, Sample
from gpusim.qemu.sync_timer import FALLBACK_SYNC_INTERVAL_NS
from gpusim.sender.link import PS_PER_S
from gpusim.sender.windows import WINDOW_PS
from gpusim.units import NS_PER_S

PAGE_BYTES = 4096
PAGE_ON_LINK, ZERO_ON_LINK = PAGE_BYTES + 8, 9  # bytes of a normal and of a zero page
SENDING = ("active", "device", "completed")  # states in which the samples' counters hold
WINDOW_S = WINDOW_PS / PS_PER_S
FALLBACK_SYNC_INTERVAL_S = FALLBACK_SYNC_INTERVAL_NS / NS_PER_S
MBIT = 1e6
MULTIFD_PACKET_PAGES = 128  # migration/multifd.h:MULTIFD_PACKET_SIZE
PERIOD_S = 1.0  # the first sync that ends so long after the last period's end closes the period


def normal_pages(transferred_bytes: int, zero_pages: int) -> int:
    """Return how many pages were sent with their content, if only the bytes on the link are known."""
    return max(0, transferred_bytes - ZERO_ON_LINK * zero_pages) // PAGE_ON_LINK


@dataclass(frozen=True, kw_only=True)
class Sync:
    """One sync.

    Attributes:
        time_s: when it ended, or where it is assumed between two samples.
        newly_dirty_pages: pages that were clean in QEMU's bitmap before the sync and dirty after
            it.
        sent_pages: pages sent since the migration began.
        zero_pages: how many of them were zero.
    """

    time_s: float
    newly_dirty_pages: int
    sent_pages: float
    zero_pages: float = 0.0


def find_syncs(recording: Recording) -> list[Sync]:
    """Return all syncs but the setup's, from QEMU's trace, from its events, or from the samples."""
    if any(event.name == "migration_bitmap_sync_end" for event in recording.events):
        found = _traced(recording)
    else:
        found = _sampled(recording)
    sent = _sent_pages(recording, [time_s for time_s, _ in found])
    return [
        Sync(time_s=time_s, newly_dirty_pages=pages, sent_pages=sent_pages, zero_pages=zero_pages)
        for (time_s, pages), (sent_pages, zero_pages) in zip(found, sent, strict=True)
    ]


def _sent_pages(recording: Recording, times_s: Sequence[float]) -> Iterator[tuple[float, float]]:
    """Yield the pages sent by each time, and how many of them were zero.

    With a rate limit QEMU sends a window's budget at once and sleeps for the rest of the window. It
    syncs when it wakes, before it sends again. So the pages between two samples left in whole
    windows. On a link slower than the limit they left evenly. Source:
    migration/migration.c:migration_rate_limit, then migration_iteration_run.
    """
    known = [
        (s.time_s, s.ram.sent_pages, s.ram.zero_pages, s.mbps)
        for s in recording.samples
        if s.ram is not None
    ]
    known.insert(0, (0.0, 0, 0, 0.0))
    limit = recording.parameters["max-bandwidth"]
    for time_s in times_s:
        place = bisect.bisect_left(known, time_s, lo=1, key=itemgetter(0))
        before_s, before, zero_before, _ = known[place - 1]
        if place == len(known):
            yield float(before), float(zero_before)
            continue
        after_s, after, zero_after, mbps = known[place]
        if 0 < 8 * limit <= mbps * MBIT:
            windows_before = math.ceil((time_s - before_s) / WINDOW_S) - 1
            windows_after = 1 + math.floor((after_s - time_s) / WINDOW_S)
            share = windows_before / (windows_before + windows_after)
        else:  # two samples at one time tell the same
            share = (time_s - before_s) / (after_s - before_s) if after_s > before_s else 1.0
        yield before + share * (after - before), zero_before + share * (zero_after - zero_before)


def _traced(recording: Recording) -> list[tuple[float, int]]:
    """Return (seconds, newly dirty pages) of each sync but the setup's.

    The argument of migration_bitmap_sync_end is the count of the period so far. A sync that ends
    more than a second after the end of the last period ends this period, and the count restarts.
    The first period starts with the first sync. Source: migration/ram.c:migration_bitmap_sync.
    """
    found = []
    period_start_s, before = math.nan, 0
    for event in recording.events:
        if event.name == "migration_bitmap_sync_start" and math.isnan(period_start_s):
            period_start_s = event.time_s
        if event.name == "migration_bitmap_sync_end":
            so_far = int(event.arguments.split()[-1])
            # The count falls if a period ended just at the edge of its second.
            found.append((event.time_s, so_far - (before if so_far >= before else 0)))
            before = so_far
            if event.time_s > period_start_s + PERIOD_S:
                period_start_s, before = event.time_s, 0
    return found[1:]


@dataclass(kw_only=True)
class _Between:
    """The samples between two syncs.

    Attributes:
        syncs: number of syncs so far, the setup's included.
        dirty_sync_count: the count that QEMU reports.
        first_s: time of the first of these samples.
        last_s: time of the last of these samples.
        dirtied_pages: newly dirty pages since the start of the migration.
        is_uncounted: QEMU's count did not rise at the sync before these samples.
        is_stopped: the VM is stopped.
        counted_s: time of the last sample before QEMU's count rose. 0 before the first.
        dirty_pages_rate: of the last period that ended before the last of these samples.
        rated_s: time of the first of these samples that has this rate.
    """

    syncs: int
    dirty_sync_count: int
    first_s: float
    last_s: float
    dirtied_pages: int
    is_uncounted: bool = False
    is_stopped: bool = False
    counted_s: float = 0.0
    dirty_pages_rate: int = 0
    rated_s: float = 0.0


def _sampled(recording: Recording) -> list[tuple[float, int]]:
    """Return the same from the samples, with QMP's times if QMP reported them.

    Syncs between two samples share the pages that became dirty between these samples, in proportion
    to the time since the sync before.
    """
    found: list[tuple[float, int]] = []
    last_s = 0.0
    runs = _equal_runs(recording)
    ends_s = _period_ends_s(runs)
    for before, here in itertools.pairwise(runs):
        times_s = _times(recording, before, here, ends_s)
        spans = np.diff([last_s, *times_s])
        shares = np.cumsum(spans) / max(spans.sum(), 1e-9)
        dirtied = here.dirtied_pages - before.dirtied_pages
        pages = np.diff(np.rint(shares * dirtied), prepend=0).astype(int)
        found += zip(times_s, pages.tolist(), strict=True)
        last_s = times_s[-1]
    return found


def _equal_runs(recording: Recording) -> list[_Between]:
    """Return the runs of samples with an equal number of syncs, from the setup's sync on.

    Up to 11.0 QEMU counts a sync when it begins, and the sync's pages when it ends. So the last
    samples of a run have the right count. A sample is taken while the sender sends, so it can be
    one page off.
    """
    total = recording.ram_bytes // PAGE_BYTES
    slack_pages, counts_every_sync = _slack_pages(recording), recording.counts_every_sync
    found = [_Between(syncs=1, dirty_sync_count=1, first_s=0.0, last_s=0.0, dirtied_pages=0)]
    for sample in recording.samples:
        ram = sample.ram
        if ram is None or sample.status not in SENDING:
            continue
        dirtied = ram.remaining_bytes // PAGE_BYTES + ram.sent_pages - total
        if ram.dirty_sync_count <= 1:
            total, dirtied = total + dirtied, 0  # include the small ROM blocks, which mem_mib lacks
        here = found[-1]
        syncs = ram.dirty_sync_count - here.dirty_sync_count
        if not counts_every_sync:
            rises = dirtied > here.dirtied_pages + slack_pages
            if syncs == 1 and not rises and here.is_uncounted and here.first_s == here.last_s:
                here.dirty_sync_count, here.is_uncounted = ram.dirty_sync_count, False
                syncs = 0
            uncounted = _uncounted_syncs(recording, here, sample, rises=rises and syncs == 0)
            if rises and syncs + uncounted == 0:  # of a sync that QEMU is about to count
                dirtied = here.dirtied_pages
            syncs += uncounted
        if syncs > 0:
            here = _Between(
                syncs=here.syncs + syncs,
                dirty_sync_count=ram.dirty_sync_count,
                is_uncounted=ram.dirty_sync_count == here.dirty_sync_count,
                is_stopped=sample.status != "active",
                counted_s=(
                    here.counted_s if ram.dirty_sync_count == here.dirty_sync_count else here.last_s
                ),
                first_s=sample.time_s,
                last_s=sample.time_s,
                dirtied_pages=here.dirtied_pages,
            )
            found.append(here)
        here.last_s, here.dirtied_pages = sample.time_s, max(here.dirtied_pages, dirtied)
        # query-migrate shows no rate after the end.
        rate = ram.dirty_pages_rate if sample.status == "active" else here.dirty_pages_rate
        if rate != here.dirty_pages_rate or sample.time_s == here.first_s:
            here.dirty_pages_rate, here.rated_s = rate, sample.time_s
    return found


def _uncounted_syncs(recording: Recording, before: _Between, sample: Sample, *, rises: bool) -> int:
    """Return how many syncs that QEMU did not count came between two samples.

    Since 11.1 these are the fallback syncs and the final sync. Only a sync adds newly dirty pages. A
    tick of the fallback timer syncs only if the count has not risen since the tick before. If it
    has, then QEMU has added the pages of an exact sync and counts this sync next.

    Args:
        recording: of QEMU 11.1 or later.
        before: the samples before.
        sample: the next sample.
        rises: its newly dirty pages have risen, and its count has not.
    """
    if sample.status != "active":
        return int(not before.is_stopped)
    unchanged_s = sample.time_s - before.counted_s
    return int(rises and recording.auto_converge and unchanged_s > FALLBACK_SYNC_INTERVAL_S)


def _slack_pages(recording: Recording) -> int:
    """Return by how many pages a sample's newly dirty pages can be wrong.

    None become dirty in the first pass, so their spread there is an error, for example of rounded
    sizes. multifd channels count pages after they have sent them.
    """
    in_flight = 2 * recording.multifd_channels * MULTIFD_PACKET_PAGES
    first_pass = [
        sample.ram.remaining_bytes // PAGE_BYTES + sample.ram.sent_pages
        for sample in recording.samples
        if sample.ram is not None and sample.status == "active" and sample.ram.dirty_sync_count == 1
    ]
    spread = max(first_pass, default=0) - min(first_pass, default=0)
    return 2 * (1 + in_flight + spread)


def _period_ends_s(runs: Sequence[_Between]) -> list[float]:
    """Return when periods ended, as far as the samples' rates tell."""
    ends = [PeriodEnd(earliest_s=0.0, latest_s=0.0, fewest_pages=0, most_pages=0)]
    for before, here in itertools.pairwise(runs):
        if here.dirty_pages_rate != before.dirty_pages_rate:
            several = here.syncs > before.syncs + 1
            ends.append(
                PeriodEnd(
                    earliest_s=before.last_s,
                    latest_s=here.rated_s,
                    fewest_pages=before.dirtied_pages if several else here.dirtied_pages,
                    most_pages=here.dirtied_pages,
                    dirty_pages_rate=here.dirty_pages_rate,
                )
            )
    return [middle_s(end) for end in narrow(ends)[1:]]


def _times(
    recording: Recording, before: _Between, here: _Between, ends_s: Sequence[float]
) -> list[float]:
    """Return the times of the syncs between two runs: from QMP, or else evenly spread.

    A sync that ended a period has the time of this end. The last sync of a migration that completed
    is at the VM's stop.
    """
    count = here.syncs - before.syncs
    numbers = range(before.dirty_sync_count + 1, here.dirty_sync_count + 1)
    passes_s = [recording.passes_s[number] for number in numbers if number in recording.passes_s]
    stop_s, since_s, until_s = recording.stop_s or 0.0, before.last_s, here.first_s
    is_final = since_s < stop_s <= until_s
    if is_final and not recording.counts_every_sync and len(passes_s) == count - 1:
        passes_s.append(max([stop_s, *passes_s]))
    if len(passes_s) == count:
        return passes_s
    if is_final:
        return list(np.linspace(since_s, stop_s, count + 1)[1:])
    known_s = [end_s for end_s in ends_s if since_s < end_s <= max(until_s, here.rated_s)]
    return place_between(since_s, until_s, count, known_s)


def count_zero_pages(recording: Recording) -> tuple[int, int]:
    """Return the zero pages of the first pass: those at its end, and all others.

    The first pass sends every page once, in order. It lasts until as many pages were sent as RAM
    has. The zero pages at its end are those since the last two samples between which at least half
    of the pages were not zero.
    """
    pages = recording.ram_bytes // PAGE_BYTES
    at_end = others = sent = zero = 0
    for sample in recording.samples:
        if sample.ram is None:
            continue
        sent_here, zero_here = sample.ram.sent_pages - sent, sample.ram.zero_pages - zero
        if 2 * zero_here > sent_here:
            at_end += zero_here
        elif sent_here:
            at_end, others = zero_here, others + at_end
        sent, zero = sample.ram.sent_pages, sample.ram.zero_pages
        if sent >= pages:
            break
    return at_end, others
