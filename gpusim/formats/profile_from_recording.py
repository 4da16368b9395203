"""A profile from an earlier migration: the distinct pages that its syncs found.

If the recording holds a profile that was measured before the migration, that profile is returned.
This module does not know how a guest is fitted to a profile.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from gpusim.formats.profile import (
    MIB,
    Measurement,
    Outcome,
    Profile,
    check_plausible,
    load_profile,
)
from gpusim.formats.recording import Recording
from gpusim.formats.recording_file import SUFFIXES, load_recording
from gpusim.formats.sync_record import MBIT, PAGE_BYTES, Sync, count_zero_pages, find_syncs
from gpusim.reading import ReadingError, read_bytes

# A sync does not count a write to a page that already waits to be sent. A period is used only if
# few pages wait at its end: at most WAITING of all pages that the guest writes, and at most
# WAITING_OF_FOUND of the pages that the sync found, because the waiting pages may be the hot ones.
WAITING, WAITING_OF_FOUND = 0.15, 0.5
CHUNK_BYTES = 2**30  # of KVM's log, with x-clear-bitmap-shift 18
LEAST_S = 0.3  # samples say how many pages were sent only every 0.2 s
USUAL_RATE = 90  # percent of the samples. Those with zero pages are slower
LEAST_RUNNING = 0.05  # a guest that runs less shows the slices of its throttle
LAZY_NOTE = (
    "KVM's log is cleared chunk by chunk during a pass, and a page that was dirty before is "
    "watched only from then on. Syncs find up to a fifth fewer pages if the guest writes a page "
    "about once a pass. The first pass, which watches no page at its start, is left out"
)
THROTTLED_NOTE = (
    "measured while a throttle held the vCPUs back, and assumed that they did nothing else. A "
    "guest that catches up after a throttle is taken as busier than it is"
)


def load(path: Path) -> Profile:
    """Return a profile from its file, or from a recording.

    A recording gives the profile that was measured before its migration. Without one, it gives the
    profile that its syncs found.

    Raises:
        ProfileError: not a profile, or one that says too little of its VM.
        RecordingError: a damaged recording.
    """
    if not _is_recording(path):
        return load_profile(path)
    recording = load_recording(path)
    if recording.profile is None:
        return from_recording(recording)
    return replace(recording.profile, outcome=outcome_of(recording))


def outcome_of(recording: Recording) -> Outcome:
    """Return how the recorded migration ended."""
    rates = [sample.mbps for sample in recording.samples if sample.mbps > 0]
    return Outcome(
        completed=recording.completed,
        seconds=recording.total_time_s or recording.limit_s,
        max_throttle_percent=max(s.cpu_throttle_percentage for s in recording.samples),
        bytes_per_s=float(np.percentile(rates, USUAL_RATE)) * MBIT / 8 if rates else 0.0,
    )


def _is_recording(path: Path) -> bool:
    """Decide by the name, and by the content if a profile can have the same name."""
    if not path.name.endswith(SUFFIXES) or not path.is_file():
        return False
    try:
        return path.suffix != ".json" or b'"scenario"' in read_bytes(path)
    except ReadingError:
        return False


def from_recording(recording: Recording) -> Profile:
    """Return the distinct pages that the syncs of an earlier migration found, as a profile.

    A sync finds the pages written since the sync before, except those that already waited to be
    sent. At the end of a pass few pages wait, so the sync's count is the number of distinct pages
    written in between. In the middle of a pass many pages wait. Such a sync, for example a fallback
    sync, begins a period but ends none. Rates keep their fractions, unlike those of
    calc-dirty-rate. Source: migration/ram.c:migration_bitmap_sync counts only pages that become
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
    measurements = tuple(_periods(recording, found, pages, first=not lazy))
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
        notes=tuple(_notes(lazy, measurements)),
    )
    expected = "Name a recording of a migration with three passes or more"
    if not recording.counts_every_sync and "postcopy-ram" in recording.scenario["capabilities"]:
        expected += ", without the capability postcopy-ram, which makes QEMU 11.1 sync all the time"
    check_plausible(path, profile, expected)
    return profile


def _periods(
    recording: Recording, found: Sequence[Sync], pages: int, *, first: bool
) -> Iterator[Measurement]:
    """Yield the periods from one sync to the next that count distinct pages."""
    written = max((sync.newly_dirty_pages for sync in found), default=0)
    newly, since_s = 0, 0.0
    for number, sync in enumerate(found):
        seconds = sync.time_s - since_s
        waiting = pages + newly - sync.sent_pages
        newly, began_s, since_s = newly + sync.newly_dirty_pages, since_s, sync.time_s
        running = _running(recording, began_s, sync.time_s)
        if number == 0 and not first:
            continue
        if seconds < LEAST_S or running < LEAST_RUNNING:
            continue
        share = max(waiting, 0) / max(written, 1)
        if share > WAITING or waiting > WAITING_OF_FOUND * sync.newly_dirty_pages:
            continue
        dirtied = sync.newly_dirty_pages / (1 - share)
        rate = dirtied * PAGE_BYTES / MIB / seconds
        yield Measurement(seconds=seconds, dirty_rate=rate, at_s=began_s, running=running)


def _running(recording: Recording, since_s: float, until_s: float) -> float:
    """Return the share of a time span in which the throttle let the vCPUs run."""
    times_s = np.array([0.0, *(sample.time_s for sample in recording.samples)])
    held = np.array([0, *(sample.cpu_throttle_percentage for sample in recording.samples)]) / 100
    edges = np.clip(np.append(times_s, np.inf), since_s, until_s)
    return 1.0 - float(np.diff(edges) @ held) / (until_s - since_s)


def _notes(lazy: bool, measurements: Sequence[Measurement]) -> Iterator[str]:
    if lazy:
        yield LAZY_NOTE
    if any(one.running < 1 for one in measurements):
        yield THROTTLED_NOTE
