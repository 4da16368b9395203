"""Profiles that --measure did not make: what virsh printed, and earlier migrations.

Owns what each of them tells of distinct pages, and what it does not. It knows no fit.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from gpusim.predict.profile import (
    LEAST_PERIODS,
    LONGEST_S,
    MIB,
    MODES,
    SHORTEST_S,
    Measurement,
    Profile,
    ProfileError,
    load_profile,
)
from gpusim.validation.recording import (
    READERS,
    Recording,
    RecordingError,
    load_recording,
    uncompressed,
)
from gpusim.validation.sync_record import PAGE_BYTES, Sync, sent_pages, syncs, zero_pages

MEASURED = (
    "2",
    "measured",
)  # libvirt's VIR_DOMAIN_DIRTYRATE_MEASURED, and its first version's word
PAIR = re.compile(r"\s*([\w.-]+)=(.*?)\s*")
DOMINFO = re.compile(r"\s*(CPU\(s\)|Max memory|Used memory):\s+(\d+)(?: KiB)?\s*")
DOMAIN = re.compile(r"\s*Domain: '(.*)'\s*")
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
        ProfileError: neither, or it says nothing of its VM.
    """
    if not _is_recording(path):
        return load_profile(path)
    try:
        recording = load_recording(path)
    except RecordingError as error:
        raise ProfileError(path, str(error).removeprefix(f"{path}: ")) from None
    return recording.profile or from_recording(recording)


def _is_recording(path: Path) -> bool:
    """By its name, and its content where a profile has that name, too."""
    if not path.name.endswith(tuple(READERS)) or not path.is_file():
        return False
    try:
        return path.suffix != ".json" or b'"scenario"' in uncompressed(path)
    except RecordingError:
        return False


def load_domstats(path: Path, memory_bytes: int | None, vcpus: int | None) -> Profile:
    """Of a log of virsh's.

    Raises:
        ProfileError: it cannot be read, or says nothing of its VM.
    """
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "no text"
        raise ProfileError(path, f"cannot be read ({reason}); expected virsh's log") from None
    return from_domstats(text, path, memory_bytes, vcpus)


def from_domstats(
    text: str, path: str | Path, memory_bytes: int | None = None, vcpus: int | None = None
) -> Profile:
    """What `virsh domstats --dirtyrate` printed, once behind each `virsh domdirtyrate-calc`.

    Formats: libvirt's docs/manpages/virsh.rst (domstats --dirtyrate, --balloon, --vcpu; domdirtyrate-calc) and
    tools/virsh-domain-monitor.c (dominfo). libvirt asks QEMU for whole seconds, and samples QEMU's default of
    512 pages a GiB.

    Args:
        memory_bytes, vcpus: of the VM; None: as `virsh dominfo` or domstats in the same log say.

    Raises:
        ProfileError: no measurements, or of several VMs, or the VM's size is not there.
    """
    names = {found[1] for line in text.splitlines() if (found := DOMAIN.fullmatch(line))}
    if len(names) > 1:
        raise ProfileError(path, f"tells of {', '.join(sorted(names))}; expected one VM")
    told = _told(text)
    memory_bytes = memory_bytes or 1024 * int(
        told.get("Max memory", told.get("balloon.maximum", 0))
    )
    if not memory_bytes:
        raise ProfileError(
            path,
            "does not say how large the VM is; expected --memory, or `virsh dominfo` in the same log",
        )
    runs = _runs(path, text)
    mode = runs[-1].get("dirtyrate.calc_mode", MODES[0])
    if any(run.get("dirtyrate.calc_mode", MODES[0]) != mode for run in runs) or mode not in MODES:
        raise ProfileError(path, f"measured in several modes; expected one of {', '.join(MODES)}")
    start = min(_number(path, run, "calc_start_time", 0.0) for run in runs)
    profile = Profile(
        source=f"virsh domstats of {', '.join(names) or 'a VM'}",
        memory_bytes=memory_bytes,
        vcpus=vcpus or int(told.get("CPU(s)", told.get("vcpu.current", 1))),
        mode=mode,
        sample_pages=512 if mode == "page-sampling" else None,
        measurements=tuple(
            Measurement(
                seconds=_number(path, run, "calc_period"),
                dirty_rate=_number(path, run, "megabytes_per_second"),
                at_s=_number(path, run, "calc_start_time", start) - start,
            )
            for run in runs
        ),
        notes=("virsh tells neither the parameters of a migration nor how many pages are zero",),
    )
    return _several_periods(path, profile, "one domdirtyrate-calc for each of 1, 2, 5, 10 and 30 s")


def _told(text: str) -> dict[str, str]:
    """What dominfo and domstats say of the VM, the last word of each."""
    found = {}
    for line in text.splitlines():
        if pair := DOMINFO.fullmatch(line) or PAIR.fullmatch(line):
            found[pair[1]] = pair[2]
    return found


def _runs(path: str | Path, text: str) -> list[dict[str, str]]:
    """The measurements that were done, each once however often it was printed."""
    runs: list[dict[str, str]] = []
    for line in text.splitlines():
        pair = PAIR.fullmatch(line)
        if pair is None or not pair[1].startswith("dirtyrate."):
            continue
        if not runs or pair[1] in runs[-1]:
            runs.append({})
        runs[-1][pair[1]] = pair[2]
    done = [run for run in runs if run.get("dirtyrate.calc_status") in MEASURED]
    if not done:
        raise ProfileError(
            path,
            "no dirtyrate.calc_status=2 (measured); expected `virsh domstats --dirtyrate` after each "
            "`virsh domdirtyrate-calc` has ended",
        )
    once = {tuple(sorted(run.items())): run for run in done}
    return list(once.values()) if all("dirtyrate.calc_start_time" in run for run in done) else done


def _number(
    path: str | Path, run: Mapping[str, str], key: str, default: float | None = None
) -> float:
    value = run.get(f"dirtyrate.{key}", default)
    try:
        found = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        found = -1.0
    limits = (SHORTEST_S, LONGEST_S) if key == "calc_period" else (0.0, 1e12)
    if not limits[0] <= found <= limits[1]:
        raise ProfileError(
            path,
            f"dirtyrate.{key} is {value}; expected a number from {limits[0]:g} to {limits[1]:g}",
        )
    return found


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
    return _several_periods(path, profile, "a migration of three passes or more")


def _periods(
    recording: Recording, found: Sequence[Sync], pages: int, *, first: bool
) -> Iterator[Measurement]:
    """From each sync to the next, where that tells of distinct pages."""
    times_s, sent = sent_pages(recording)
    written = max((sync.newly_dirty_pages for sync in found), default=0)
    newly, since_s = 0, 0.0
    for number, sync in enumerate(found):
        seconds = sync.time_s - since_s
        waiting = pages + newly - float(np.interp(sync.time_s, times_s, sent))
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


def _several_periods(path: str | Path, profile: Profile, expected: str) -> Profile:
    periods = {round(one.seconds, 1) for one in profile.measurements}
    if len(periods) < LEAST_PERIODS:
        raise ProfileError(
            path,
            f"{len(periods)} different periods that tell of distinct pages; expected {expected}",
        )
    return profile
