"""A profile from an earlier migration: the distinct pages that its syncs found.

This module does not know how a guest is fitted to a profile.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from gpusim.formats.migration_history import Outcome, SyncHistory, SyncPeriod
from gpusim.formats.profile import Measurement, Profile, check_plausible
from gpusim.formats.recording import Recording
from gpusim.formats.sync_record import MBIT, PAGE_BYTES, Sync, count_zero_pages, find_syncs
from gpusim.units import MIB

# A sync does not count a write to a page that already waits to be sent. A period is used only if
# few pages wait at its end: at most WAITING of all pages that the guest writes.
WAITING = 0.15
EAGER = ((1.0, 1.0),)  # all pages are watched from the start of the first pass
SHORTEST_S = 1e-6  # a period, so that its rate is finite
TINY = 1e-9  # pages, to divide by
CHUNK_BYTES = 2**30  # of KVM's log, with x-clear-bitmap-shift 18
HOVERING = 10  # syncs after the first pass, from which a migration may hover
# Two stretches of the time after the first pass. The load is steady if both find about as much. The
# beginning is left out, because the first passes differ, and the end, in which the load may end.
EARLIER, LATER = (0.4, 0.65), (0.65, 0.9)
FALLEN = 2 / 3  # of the usual pages per second: the guest writes less than before
LEAST_GAP_S = 0.05  # between two samples whose pages tell a speed
LEAST_ZERO = 0.01  # of RAM: zero pages between two samples that tell a speed
BUSY = 0.8  # of max-bandwidth: a sender that sends less does not wait for the limit
LEAST_S = 0.1  # a shorter period is no measurement
USUAL_RATE = 90  # percent of the samples. Those with zero pages are slower
LEAST_RUNNING = 0.05  # a guest that runs less shows the slices of its throttle
PLACE_NOTE = "the pages that the guest writes are taken to lie all over the memory"


def outcome_of(recording: Recording) -> Outcome:
    """Return how the recorded migration ended."""
    rates = [sample.mbps for sample in recording.samples if sample.mbps > 0]
    return Outcome(
        completed=recording.completed,
        seconds=recording.total_time_s or recording.limit_s,
        max_throttle_percent=max(s.cpu_throttle_percentage for s in recording.samples),
        bytes_per_s=float(np.percentile(rates, USUAL_RATE)) * MBIT / 8 if rates else 0.0,
    )


def from_recording(recording: Recording) -> Profile:
    """Return the distinct pages that the syncs of an earlier migration found, as a profile.

    A sync finds the pages written since the sync before, except those that already waited to be
    sent. At the end of a pass few pages wait, and the sync counts as a measurement. In the middle
    of a pass, for example at a fallback sync, many pages wait, and it does not count. `history` has
    all syncs in order. Source: migration/ram.c:migration_bitmap_sync counts only pages that become
    dirty anew.

    Raises:
        ProfileError: too few such periods.
    """
    path = f"{recording.case}, as a profile"
    lazy = recording.accelerator == "kvm" and recording.ram_bytes > CHUNK_BYTES
    end_s = min(recording.stop_s or np.inf, recording.total_time_s or np.inf)
    found = [s for s in find_syncs(recording) if s.time_s < end_s]
    at_end, others = count_zero_pages(recording)
    pages = -(-recording.ram_bytes // PAGE_BYTES)
    ended_s = find_load_end(recording, found)
    starts_s = [0.0, *(sync.time_s for sync in found)][: len(found)]
    running = _running(recording)
    history = SyncHistory(
        periods=tuple(_periods(recording, found, pages, ended_s, running)),
        chunks=-(-recording.ram_bytes // CHUNK_BYTES) if lazy else 1,
        first_pass=tuple(_first_pass(recording, found[0].time_s)) if lazy and found else EAGER,
    )
    measurements = tuple(
        Measurement(
            seconds=sync.time_s - began_s,
            dirty_rate=sync.newly_dirty_pages * PAGE_BYTES / MIB / (sync.time_s - began_s),
            at_s=began_s,
            running=running(began_s, sync.time_s),
        )
        for began_s, sync, period in zip(starts_s, found, history.periods, strict=True)
        if period.counts
    )
    profile = Profile(
        source=f"the migration {recording.case}",
        memory_bytes=recording.ram_bytes,
        vcpus=recording.vcpus,
        accelerator=recording.accelerator,
        qemu=(*recording.qemu, 0),
        mode="dirty-bitmap",
        measurements=measurements,
        zero_sampled=pages,
        zero_found=min(at_end + others, pages),
        parameters=recording.parameters,
        capabilities=tuple(map(str, recording.scenario["capabilities"])),
        outcome=outcome_of(recording),
        history=history,
        zero_page_speed=zero_page_speed(recording),
        load_ended_s=ended_s,
        notes=(PLACE_NOTE,) if lazy else (),
    )
    expected = "Name a recording of a migration with three passes or more"
    if not recording.counts_every_sync and "postcopy-ram" in recording.scenario["capabilities"]:
        expected += ", without the capability postcopy-ram, which makes QEMU 11.1 sync all the time"
    check_plausible(path, profile, expected)
    return profile


def _periods(
    recording: Recording,
    found: Sequence[Sync],
    pages: int,
    load_ended_s: float | None,
    running: Callable[[float, float], float],
) -> Iterator[SyncPeriod]:
    """Yield the periods from one sync to the next. `running` is that of `_running`."""
    written = max((sync.newly_dirty_pages for sync in found), default=0)
    deviation_s = _deviation_s(recording)
    newly, since_s, dirty = 0, 0.0, float(pages)
    for sync in found:
        waiting = max(pages + newly - sync.sent_pages, 0.0)
        newly, began_s, since_s = newly + sync.newly_dirty_pages, since_s, sync.time_s
        seconds, ran = since_s - began_s, running(began_s, since_s)
        counts = seconds >= LEAST_S and ran >= LEAST_RUNNING
        counts &= waiting <= WAITING * max(written, 1)
        counts &= load_ended_s is None or sync.time_s < load_ended_s
        yield SyncPeriod(
            seconds=max(seconds, SHORTEST_S),
            pages=sync.newly_dirty_pages,
            left=min(waiting / max(dirty, 1.0), 1.0),
            running=max(ran, 0.0),
            deviation_s=deviation_s,
            counts=bool(counts),
        )
        dirty = waiting + sync.newly_dirty_pages


def _deviation_s(recording: Recording) -> float:
    """Return the standard deviation of a period whose ends lie anywhere between two samples."""
    if recording.events or recording.passes_s:
        return 0.0
    gaps_s = np.diff([sample.time_s for sample in recording.samples])
    return float(np.median(gaps_s)) / math.sqrt(6)


def zero_page_speed(recording: Recording) -> tuple[float, float] | None:
    """Return bounds of the speed of finding zero pages, bytes per second. None: no zero page.

    Between two samples the sender was at least as fast as it found zero pages. If it sent less than
    max-bandwidth allows, then it was busy with them, and it was not much faster.
    """
    limit = recording.parameters["max-bandwidth"]
    low, high = 0.0, math.inf
    for before, here in itertools.pairwise(recording.samples):
        if before.ram is None or here.ram is None or here.status != "active":
            continue
        seconds = here.time_s - before.time_s
        zero = (here.ram.zero_pages - before.ram.zero_pages) * PAGE_BYTES
        sent = here.ram.transferred_bytes - before.ram.transferred_bytes
        if seconds < LEAST_GAP_S or zero < LEAST_ZERO * recording.ram_bytes:
            continue
        low = max(low, zero / seconds)
        if limit and sent < BUSY * limit * seconds:
            high = min(high, zero / seconds / (1 - sent / limit / seconds))
    return (low, max(low, high)) if low else None


def _first_pass(recording: Recording, end_s: float) -> Iterator[tuple[float, float]]:
    """Yield each chunk's share of the pages that are not zero, and the share of the pass after it.

    The first pass sends all pages in order, so the counters tell when it came to a chunk.
    """
    rams = [(s.time_s, s.ram) for s in recording.samples if s.ram is not None]
    rams = [(time_s, ram) for time_s, ram in rams if time_s <= end_s]
    times_s = [0.0, *(time_s for time_s, _ in rams)]
    sent = [0, *(ram.sent_pages for _, ram in rams)]
    not_zero = [0, *(ram.sent_pages - ram.zero_pages for _, ram in rams)]
    edges = np.arange(-(-recording.ram_bytes // CHUNK_BYTES) + 1) * (CHUNK_BYTES // PAGE_BYTES)
    cleared_s = np.interp(edges[:-1], sent, times_s)
    pages = np.maximum(np.diff(np.interp(edges, sent, not_zero)), TINY)
    shares = np.clip(1 - cleared_s / max(end_s, SHORTEST_S), 0, 1)
    yield from zip((pages / pages.sum()).tolist(), shares.tolist(), strict=True)


def find_load_end(recording: Recording, found: Sequence[Sync]) -> float | None:
    """Return when the guest's load ended, in seconds, if that alone let the migration complete.

    Such a migration hovers: its syncs find as much per second as before, until the last ones find
    much less. A throttle explains an end too, so throttled migrations are left out.
    """
    throttled = any(sample.cpu_throttle_percentage for sample in recording.samples)
    later = found[1:]
    if recording.total_time_s is None or throttled or len(later) < HOVERING:
        return None
    times_s = np.array([sync.time_s for sync in found])
    pages = np.cumsum([sync.newly_dirty_pages for sync in found])

    def rate(since: float, until: float) -> float:
        """Return the pages found per second between two shares of the time after the first pass."""
        edges_s = times_s[0] + np.array([since, until]) * (times_s[-1] - times_s[0])
        return float(np.diff(np.interp(edges_s, times_s, pages))[0] / np.diff(edges_s)[0])

    before, usual = rate(*EARLIER), rate(*LATER)
    if usual < FALLEN * before:
        return None
    # Shorter periods find more pages per second, unless the guest writes less.
    ends_s = None
    for place in range(len(found) - 1, 0, -1):
        seconds = times_s[-1] - times_s[place - 1]
        fewer = pages[-1] - pages[place - 1] < FALLEN * usual * seconds
        last = found[place].newly_dirty_pages < FALLEN * usual * (
            times_s[place] - times_s[place - 1]
        )
        if not (fewer and last):
            break
        busy_s = found[place].newly_dirty_pages / usual
        ends_s = float(min(times_s[place - 1] + busy_s, times_s[place]))
    return ends_s


def _running(recording: Recording) -> Callable[[float, float], float]:
    """Return the function (since_s, until_s) -> share of that time in which the throttle let vCPUs run."""
    times_s = np.array([0.0, *(sample.time_s for sample in recording.samples), np.inf])
    held = np.array([0, *(sample.cpu_throttle_percentage for sample in recording.samples)]) / 100
    if not held.any():
        return lambda since_s, until_s: 1.0

    def share(since_s: float, until_s: float) -> float:
        until_s = max(until_s, since_s + SHORTEST_S)  # samples may place two syncs at one time
        edges = np.clip(times_s, since_s, until_s)
        return 1.0 - float(np.diff(edges) @ held) / (until_s - since_s)

    return share
