"""Turn a recording into a Config: to replay it, or to predict it.

A replay takes the guest's recorded writes and the recorded rate of the link, so that only QEMU's
decisions are judged. If the guest is unknown, it takes writes that explain QEMU's page counts
(unseen_guest.py). A prediction takes only facts that were known before the migration.
"""

from __future__ import annotations

import itertools
import math
import random
import statistics
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from gpusim.config.checks import rate_limit
from gpusim.config.schema import (
    BackendConfig,
    Config,
    HotColdConfig,
    LimitConfig,
    LinkConfig,
    MigrationConfig,
    SequentialConfig,
    TrackingConfig,
    VmConfig,
    WriterConfig,
)
from gpusim.formats import sync_record
from gpusim.formats.recording import (
    GUEST_STARTS_MIB,
    UNFILLED_END_MIB,
    RecordedGuest,
    Recording,
    Sample,
)
from gpusim.qemu.names import POSTCOPY
from gpusim.qemu.versions import nearest
from gpusim.units import MIB
from gpusim.validation.unseen_guest import explain_writes

PAGES_PER_MIB = 256

# How fast a paced guest catches up under TCG on the recordings' machine. data/README.md gives
# only a range, so a prediction takes its geometric mean.
CATCH_UP_PAGE_WRITES_PER_S = (1.3e6, 2.4e6)

# If a replay outlasts its record, the link goes on as in the record's last TAIL_S seconds. The
# guest goes on at the speed that it had in these seconds while it ran.
TAIL_S = 3.0
BEYOND_LIMIT_S = 60.0

LEAST_FINAL_BYTES = 2**20  # after the stop. Fewer bytes say nothing about the link's speed.

# In a replay with a fine counter, a vCPU sleeps if it writes slower than this share of its rate
# before the migration, for at least this time. The counter is read every 2 ms, and its breakpoints
# miss it by the writes of a millisecond.
AWAKE_SHARE = 0.25
SHORTEST_SLEEP_S = 0.005

# A full window holds its budget and at most one flush more. QEMU prints whole milliseconds.
WINDOW_MS = 100
FULL_WINDOW = 1.1
ROUNDING_MS = 0.01
STALLED_MS = 105  # a longer window is a stall, which the recorded bytes already contain


def replay_source(recording: Recording) -> Literal["counter", "samples", "syncs"]:
    """Return the source of a replay's writes.

    It is the guest's fine counter, the counter in the samples, or the page counts of the syncs.
    """
    if recording.guest is None:
        return "syncs"
    return "counter" if recording.counter else "samples"


def replay_config(recording: Recording, seed: int = 1) -> Config:
    """Return a Config with the recorded writes and the recorded link."""
    if recording.guest is None:
        config = _unseen(recording, seed)
    else:
        guest = recording.guest
        writes = _recorded_writes(recording)
        first_write = round(_writes_at_start(recording))
        writer = _writer(guest, _recorded_pace(recording, writes), first_write)
        config = _config(recording, writer, _zero_ranges(recording, guest), seed)
    if recording.counter and config.tracking.mode == "tcg":
        config.tracking.recorded_sleeps = _recorded_sleeps(recording)
    config.link.recorded = _recorded_link(recording)
    config.link.bandwidth, config.link.non_ram_downtime_ms = _final_stage(recording)
    config.link.wakeup_latency_us = _window_overrun_us(recording)
    return config


def predict_config(recording: Recording, seed: int = 1, first_write_cost_ns: float = 0.0) -> Config:
    """Return a Config of facts that were known before the migration.

    The position of a sequential writer at the start was not known, so the seed draws it.
    """
    guest, before = recording.guest, recording.page_writes_per_s_before
    assert guest is not None and before is not None, "only a recording that is predictable"
    pace: dict[str, Any] = {"pace": "cpu_bound", "page_writes_per_s": before}
    if guest.paced:
        rate = guest.page_writes_per_s or before
        flat_out = recording.flat_out_page_writes_per_s
        catch_up = max(flat_out or math.sqrt(math.prod(CATCH_UP_PAGE_WRITES_PER_S)), rate)
        pace = {"pace": "paced", "page_writes_per_s": rate, "catch_up_page_writes_per_s": catch_up}
    phase = random.Random(seed).randrange(guest.size_mib * PAGES_PER_MIB)
    writer = _writer(guest, pace, phase)
    config = _config(recording, writer, _zero_ranges(recording, guest), seed)
    config.tracking.first_write_cost_ns = first_write_cost_ns
    return config


def _unseen(recording: Recording, seed: int) -> Config:
    """Return a Config whose writes explain the page counts of the syncs.

    The writes are spread evenly over all memory that is not zero. The place of zero pages matters
    only at the end of the first pass, which they shorten.
    """
    pages = recording.ram_bytes // sync_record.PAGE_BYTES
    at_end, others = sync_record.count_zero_pages(recording)
    written = range(min(others, pages - 1), max(pages - at_end, others + 1))
    syncs = _without_resent_zero_pages(sync_record.find_syncs(recording), at_end + others)
    lazy = recording.accelerator == "kvm"
    writes = explain_writes(syncs, pages, written, lazy, _recorded_link(recording))
    pairs = [[0.0, 0.0], *([s.time_s, done] for s, done in zip(syncs, writes, strict=True))]
    if not syncs:  # it ended in its first pass, and no sync counted writes
        pairs.append([samples_before_stop(recording)[-1].time_s, 0.0])
    writer = WriterConfig(
        working_set=len(written) * sync_record.PAGE_BYTES,
        start=written.start * sync_record.PAGE_BYTES,
        **_recorded_pace(recording, _rising(pairs)),
    )
    runs = [(0, written.start), (written.stop, pages)]
    ranges = [[a * sync_record.PAGE_BYTES, b * sync_record.PAGE_BYTES] for a, b in runs if b > a]
    return _config(recording, writer, ranges, seed)


def _without_resent_zero_pages(
    syncs: Sequence[sync_record.Sync], first_pass_zero_pages: int
) -> list[sync_record.Sync]:
    """Return the syncs as if no page was sent as a zero page after the first pass.

    A page that the guest writes and leaves zero takes no time on the link. Such a page counts
    neither as newly dirty at the sync before it is sent, nor as sent. So at each sync the remaining
    pages are those of the record, and the simulated writer writes only pages with content.
    """
    found = []
    resent = [max(0.0, sync.zero_pages - first_pass_zero_pages) for sync in syncs]
    owed = 0.0
    for sync, before, after in zip(syncs, resent, [*resent[1:], *resent[-1:]], strict=True):
        owed += after - before
        left_out = min(round(owed), sync.newly_dirty_pages)
        owed -= left_out
        found.append(
            replace(
                sync,
                newly_dirty_pages=sync.newly_dirty_pages - left_out,
                sent_pages=sync.sent_pages - before,
            )
        )
    return found


def _recorded_pace(recording: Recording, writes: list[list[float]]) -> dict[str, Any]:
    """Return the keys of a writer that follows the record, and then goes on as at its end."""
    awake = 1 - samples_before_stop(recording)[-1].cpu_throttle_percentage / 100
    rate = _last_slope(writes) / awake
    return {"pace": "recorded", "recorded": writes, "page_writes_per_s": rate}


def _config(
    recording: Recording, writer: WriterConfig, zero_ranges: Sequence[Sequence[int]], seed: int
) -> Config:
    """Return what both modes share. Only the link costs time, and the run uses one thread."""
    return Config(
        vm=VmConfig(
            memory=recording.ram_bytes,
            vcpus=recording.vcpus,
            zero_ranges=[list(run) for run in zero_ranges],
        ),
        workload=writer,
        link=LinkConfig(
            bandwidth="unlimited",
            zero_page_scan="unlimited",
            page_cost_ns=0.0,
            queue_cost_ns=0.0,
            non_ram_downtime_ms=0.0,
        ),
        migration=_migration(recording),
        tracking=TrackingConfig(
            mode="kvm_manual" if recording.accelerator == "kvm" else "tcg",
            log_sync_ns_per_gib=0.0,
            merge_ns_per_gib=0.0,
            protect_ns_per_page=0.0,
            start_ns_per_page=0.0,
            split_ns_per_page=0.0,
            first_write_cost_ns=0.0,
        ),
        backend=BackendConfig(threads=1),
        limit=LimitConfig(simulated=recording.limit_s, stop_when_stuck=False),
        seed=seed,
        plot=False,
    )


def _migration(recording: Recording) -> MigrationConfig:
    """Return QEMU's parameters, and the nearest simulated version."""
    parameters = recording.parameters
    return MigrationConfig(
        version=nearest(recording.qemu),
        auto_converge=recording.auto_converge,
        multifd_channels=recording.multifd_channels,
        max_bandwidth=rate_limit(parameters["max-bandwidth"]),
        postcopy_ram=POSTCOPY in recording.scenario["capabilities"],
        downtime_limit=parameters["downtime-limit"],
        avail_switchover_bandwidth=parameters.get("avail-switchover-bandwidth", 0),
        throttle_trigger_threshold=parameters["throttle-trigger-threshold"],
        cpu_throttle_initial=parameters["cpu-throttle-initial"],
        cpu_throttle_increment=parameters["cpu-throttle-increment"],
        cpu_throttle_tailslow=bool(parameters["cpu-throttle-tailslow"]),
        max_cpu_throttle=parameters["max-cpu-throttle"],
    )


def _zero_ranges(recording: Recording, guest: RecordedGuest) -> list[list[int]]:
    """Return the ranges that the guest leaves zero, in bytes: at the start and after `fill`."""
    mem_mib, fill = recording.ram_bytes // MIB, guest.fill_mib
    end = mem_mib - UNFILLED_END_MIB if fill is None else GUEST_STARTS_MIB + fill
    ranges = [(0, GUEST_STARTS_MIB), (end, mem_mib)]
    return [[first * MIB, last * MIB] for first, last in ranges if last > first]


def _writer(guest: RecordedGuest, pace: dict[str, Any], first_write: int) -> WriterConfig:
    pages = guest.size_mib * PAGES_PER_MIB
    where: dict[str, Any] = {
        "working_set": guest.size_mib * MIB,
        "start": guest.base_mib * MIB,
        "vcpus": 1,
    }
    if guest.sequential:
        return SequentialConfig(**where, **pace, threads=1, first_write=first_write % pages)
    if guest.hot_mib is None or guest.hot_percent is None:
        return WriterConfig(**where, **pace)
    hot_percent = 100 * guest.hot_mib / guest.size_mib
    return HotColdConfig(
        **where, **pace, hot_percent=hot_percent, hot_writes_percent=guest.hot_percent
    )


def _counted_writes(recording: Recording) -> list[tuple[float, int]]:
    """Return (seconds, page writes since the guest's boot) from the fine counter or the samples."""
    if recording.counter:
        return list(recording.counter)
    return [(s.time_s, s.writes) for s in recording.samples if s.writes is not None]


def _writes_at_start(recording: Recording) -> float:
    """Return the guest's counter at the start of the migration."""
    counted = _counted_writes(recording)
    first_s, first = counted[0]
    if first_s <= 0:
        return float(np.interp(0.0, [t for t, _ in counted], [float(done) for _, done in counted]))
    return first - (recording.page_writes_per_s_before or 0.0) * first_s


def samples_before_stop(recording: Recording) -> list[Sample]:
    """Return the samples before QEMU stopped the VM."""
    stop_s = math.inf if recording.stop_s is None else recording.stop_s
    return [sample for sample in recording.samples if sample.time_s < stop_s]


def _recorded_writes(recording: Recording) -> list[list[float]]:
    """Return [[seconds, page writes since the start], ...].

    The VM is stopped when a migration completes, so the last counter value is that of the stop.
    """
    before, counted = _writes_at_start(recording), _counted_writes(recording)
    stop_s = math.inf if recording.stop_s is None else recording.stop_s
    pairs = [[0.0, 0.0]]
    pairs += [[time_s, writes - before] for time_s, writes in counted if 0 < time_s < stop_s]
    last_s, last = counted[-1]
    if recording.stop_s is not None and last_s >= recording.stop_s > pairs[-1][0]:
        pairs.append([recording.stop_s, last - before])
    return _rising(pairs)


def _recorded_sleeps(recording: Recording) -> list[list[float]]:
    """Return when the fine counter almost stopped.

    A sync waits for the throttle's ticks, which drift.
    """
    least = AWAKE_SHARE * (recording.page_writes_per_s_before or 0.0)
    sleeps: list[list[float]] = []
    for (since_s, before), (until_s, after) in itertools.pairwise(recording.counter):
        if since_s < 0 or after - before >= least * (until_s - since_s):
            continue
        if sleeps and sleeps[-1][1] == since_s:
            sleeps[-1][1] = until_s
        else:
            sleeps.append([since_s, until_s])
    return [sleep for sleep in sleeps if sleep[1] - sleep[0] >= SHORTEST_SLEEP_S]


def _recorded_link(recording: Recording) -> list[list[float]]:
    """Return [[seconds, sent bytes], ...] while active. The final stage has no rate limit."""
    pairs = [[0.0, 0.0]]
    for sample in samples_before_stop(recording):
        if sample.status == "active" and sample.transferred_bytes is not None:
            pairs.append([sample.time_s, float(sample.transferred_bytes)])
    rising = _rising(pairs)
    end_s, end = rising[-1]
    far_s = max(recording.limit_s, end_s) + BEYOND_LIMIT_S
    return [*rising, [far_s, end + _last_slope(rising) * (far_s - end_s)]]


def _final_stage(recording: Recording) -> tuple[float | str, float]:
    """Return the link's bytes per second after the VM's stop, and the downtime without RAM in ms.

    The record does not divide the downtime. So the speed is that of all bytes in all of the
    downtime, and only the amount of memory that is left at the stop is simulated. If QEMU does not
    count these bytes alone, they are those since the last sample, less those sent before the stop.
    Without such bytes no RAM was left, and all of the downtime has other reasons.
    """
    downtime_s, stop_s = recording.downtime_s, recording.stop_s
    if downtime_s is None or stop_s is None or downtime_s <= 0:
        return "unlimited", 0.0
    pairs = _recorded_link(recording)[:-1]
    end = max(sample.transferred_bytes or 0 for sample in recording.samples)
    sent = end - pairs[-1][1]
    counted = recording.downtime_bytes
    if counted is not None and counted <= sent:
        sent = counted
    else:  # a VM that its user had paused sends all bytes while it is stopped
        sent -= _last_slope(pairs) * (stop_s - pairs[-1][0])
    if sent < LEAST_FINAL_BYTES:
        return "unlimited", 1000 * downtime_s
    return sent / downtime_s, 0.0


def _window_overrun_us(recording: Recording) -> float:
    """Return how much longer than 100 ms the recorded windows were on average, in microseconds.

    QEMU's bandwidth sample is a window's bytes divided by its whole milliseconds. With a rate limit
    most windows hold equal bytes, so the samples give the lengths. Their fractions cancel in the
    mean. A window with a few zero pages holds some bytes more, so each length is rounded.
    """
    samples = [sample.mbps for sample in samples_before_stop(recording) if sample.mbps > 0]
    usual = statistics.mode(samples) if samples else 0.0
    limit_mbps = recording.parameters["max-bandwidth"] * 8 / 1e6
    if not limit_mbps < usual < limit_mbps * FULL_WINDOW:
        return LinkConfig.wakeup_latency_us
    lengths_ms = [WINDOW_MS * usual / mbps for mbps in samples]
    full = [
        round(ms)
        for ms in lengths_ms
        if WINDOW_MS - 0.5 < ms < STALLED_MS + 0.5 and abs(ms - round(ms)) < ROUNDING_MS
    ]
    return 1000 * (statistics.mean(full) - WINDOW_MS)


def _rising(pairs: list[list[float]]) -> list[list[float]]:
    """Return the pairs at rising times, with totals that never fall."""
    rising = [pairs[0]]
    for time_s, total in pairs[1:]:
        if time_s > rising[-1][0]:
            rising.append([time_s, max(total, rising[-1][1])])
    return rising


def _last_slope(rising: list[list[float]]) -> float:
    """Return the growth per second over the last TAIL_S seconds."""
    end_s, end = rising[-1]
    since_s, since = next(
        pair for pair in reversed(rising[:-1]) if end_s - pair[0] >= TAIL_S or pair is rising[0]
    )
    return (end - since) / (end_s - since_s)
