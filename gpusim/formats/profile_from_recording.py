"""A profile from an earlier migration: what its syncs found, where that tells of distinct pages.

A recording that holds a profile gives that. It knows no fit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from gpusim.formats.profile import (
    MIB,
    Measurement,
    Profile,
    check_plausible,
    load_profile,
)
from gpusim.formats.recording import (
    READERS,
    Recording,
    RecordingError,
    load_recording,
    uncompressed,
)
from gpusim.formats.sync_record import PAGE_BYTES, Sync, syncs, zero_pages

# A page that waits to be sent counts nothing when it is written. At the end of a period so large a share may
# wait of all pages that the guest writes, which are taken to be written as often as the others; and of those
# found, as they may be just the hot ones.
WAITING, WAITING_OF_FOUND = 0.15, 0.5
CHUNK_BYTES = 2**30  # of KVM's log; x-clear-bitmap-shift 18
LEAST_S = 0.3  # how many pages were sent is known every 0.2 s
LEAST_RUNNING = 0.05  # a guest that is held back more tells of its throttle's slices


def load(path: Path) -> Profile:
    """A profile from its file, or from a recording: what was measured before it, else what its syncs found.

    Raises:
        ProfileError: the profile is not usable.
        RecordingError: the recording is damaged.
    """
    if not _is_recording(path):
        return load_profile(path)
    recording = load_recording(path)
    return recording.profile or from_recording(recording)


def _is_recording(path: Path) -> bool:
    """By its name, and its content where a profile has that name, too."""
    if not path.name.endswith(tuple(READERS)) or not path.is_file():
        return False
    try:
        return path.suffix != ".json" or b'"scenario"' in uncompressed(path)
    except RecordingError:
        return False


def from_recording(recording: Recording) -> Profile:
    """What the syncs of an earlier migration found, as measurements of distinct pages.

    A sync finds the pages that were written since the one before, but for those that wait to be sent
    (migration/ram.c:migration_bitmap_sync counts what becomes dirty anew). Where few wait, as at the end of a
    pass, that is the number of distinct pages of the time between; syncs at which many wait, such as fallback
    syncs in the middle of a pass, begin a period but end none. Rates have fractions: nothing was rounded.

    Raises:
        ProfileError: too few such periods.
    """
    path = f"{recording.case}, as a profile"
    lazy = recording.accelerator == "kvm" and recording.ram_bytes > CHUNK_BYTES
    end_s = min(recording.stop_s or np.inf, recording.total_time_s or np.inf)
    found = [s for s in syncs(recording) if s.time_s < end_s]
    at_end, others = zero_pages(recording)
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
        notes=tuple(_notes(lazy, measurements)),
    )
    check_plausible(path, profile, "Name a recording of a migration with three passes or more")
    return profile


def _periods(
    recording: Recording, found: Sequence[Sync], pages: int, *, first: bool
) -> Iterator[Measurement]:
    """From each sync to the next, where that tells of distinct pages."""
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
    """Share of a time that the throttle let the vCPUs run."""
    times_s = np.array([0.0, *(sample.time_s for sample in recording.samples)])
    held = np.array([0, *(sample.cpu_throttle_percentage for sample in recording.samples)]) / 100
    edges = np.clip(np.append(times_s, np.inf), since_s, until_s)
    return 1.0 - float(np.diff(edges) @ held) / (until_s - since_s)


def _notes(lazy: bool, measurements: Sequence[Measurement]) -> Iterator[str]:
    if lazy:
        yield (
            "KVM's log is cleared chunk by chunk as a pass goes: what was dirty before is watched from then on "
            "only, so that up to a fifth fewer pages are found where a page is written about once a pass; the "
            "first pass, in which nothing is watched before, is left out"
        )
    if any(one.running < 1 for one in measurements):
        yield (
            "measured while a throttle held the vCPUs back, as if they did nothing else: a guest that catches "
            "up what it misses is taken as busier than it is"
        )
