"""A recording as a Config, in two modes: replayed, and predicted.

A replay takes the guest's own write counter and the recorded pace of the wire, so that QEMU's
decisions are what is judged. A prediction takes only what was known before the migration.
"""

from __future__ import annotations

import math
import random
import statistics
from typing import Any

from gpusim.config import (
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
from gpusim.validation.recording import Recording, Sample

MIB = 2**20
PAGES_PER_MIB = 256
LOADED_FROM_MIB = 16  # the guest's program; everything below is zero
UNFILLED_END_MIB = 2  # the default of `fill` leaves them out

# How fast a paced guest catches up under TCG on the recordings' machine: data/README.md gives a
# range only, so a prediction takes its geometric mean.
CATCH_UP_PAGE_WRITES_PER_S = (1.3e6, 2.4e6)

# Replay: where a run outlasts its record, the wire goes on as in the record's last seconds, and the
# guest at the speed it had in them while it ran.
TAIL_S = 3.0
BEYOND_LIMIT_S = 60.0

# A window that used its budget holds that and at most a flush more; QEMU prints whole milliseconds.
WINDOW_MS = 100
FULL_WINDOW = 1.1
ROUNDING_MS = 0.01
STALLED_MS = 105  # a longer one is a stall, which the recorded bytes tell


def replay_config(recording: Recording, seed: int = 1) -> Config:
    """The migration again, with the recorded writes and the recorded wire."""
    writes = _recorded_writes(recording)
    awake = 1 - running(recording)[-1].cpu_throttle_percentage / 100
    pace = {
        "pace": "recorded",
        "recorded": writes,
        "page_writes_per_s": _last_slope(writes) / awake,
    }
    first_write = round(_writes_at_start(recording))
    config = _config(recording, _writer(recording, pace, first_write), seed)
    config.link.recorded = _recorded_link(recording)
    config.link.wakeup_latency_us = _window_overrun_us(recording)
    return config


def predict_config(recording: Recording, seed: int = 1, first_write_cost_ns: float = 0.0) -> Config:
    """The migration as it could have been predicted.

    Where a sequential writer stood when the migration began was not known, so the seed says.
    """
    guest = recording.guest
    before = recording.page_writes_per_s_before
    pace: dict[str, Any] = {"pace": "cpu_bound", "page_writes_per_s": before}
    if guest.paced:
        rate = guest.page_writes_per_s or before
        catch_up = max(math.sqrt(math.prod(CATCH_UP_PAGE_WRITES_PER_S)), rate)
        pace = {"pace": "paced", "page_writes_per_s": rate, "catch_up_page_writes_per_s": catch_up}
    phase = random.Random(seed).randrange(guest.size_mib * PAGES_PER_MIB)
    config = _config(recording, _writer(recording, pace, phase), seed)
    config.tracking.first_write_cost_ns = first_write_cost_ns
    return config


def _config(recording: Recording, writer: WriterConfig, seed: int) -> Config:
    """All that both modes share: no cost but the wire's, on one thread."""
    return Config(
        vm=VmConfig(memory=recording.mem_mib * MIB, vcpus=1, zero_ranges=_zero_ranges(recording)),
        workload=writer,
        link=LinkConfig(bandwidth="unlimited", zero_page_scan="unlimited", page_cost_ns=0.0),
        migration=_migration(recording),
        tracking=TrackingConfig(
            mode="tcg", log_sync_ns_per_gib=0.0, merge_ns_per_gib=0.0, first_write_cost_ns=0.0
        ),
        backend=BackendConfig(threads=1),
        limit=LimitConfig(simulated=recording.limit_s, stop_when_stuck=False),
        seed=seed,
        plot=False,
    )


def _migration(recording: Recording) -> MigrationConfig:
    """QEMU's parameters, and the nearest version that is simulated."""
    if recording.qemu[0] < 8:
        version = "qemu_7_2"
    else:
        version = "qemu_9_2" if recording.qemu >= (9, 2) else "qemu_9_1"
    parameters = recording.parameters
    return MigrationConfig(
        version=version,
        auto_converge=recording.auto_converge,
        max_bandwidth=parameters["max-bandwidth"],
        downtime_limit=parameters["downtime-limit"],
        avail_switchover_bandwidth=parameters.get("avail-switchover-bandwidth", 0),
        throttle_trigger_threshold=parameters["throttle-trigger-threshold"],
        cpu_throttle_initial=parameters["cpu-throttle-initial"],
        cpu_throttle_increment=parameters["cpu-throttle-increment"],
        cpu_throttle_tailslow=bool(parameters["cpu-throttle-tailslow"]),
        max_cpu_throttle=parameters["max-cpu-throttle"],
    )


def _zero_ranges(recording: Recording) -> list[list[int]]:
    """What the guest's program leaves zero, in bytes: below itself and behind what it fills."""
    fill = recording.guest.fill_mib
    end = recording.mem_mib - UNFILLED_END_MIB if fill is None else LOADED_FROM_MIB + fill
    ranges = [(0, LOADED_FROM_MIB), (end, recording.mem_mib)]
    return [[first * MIB, last * MIB] for first, last in ranges if last > first]


def _writer(recording: Recording, pace: dict[str, Any], first_write: int) -> WriterConfig:
    guest = recording.guest
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


def _writes_at_start(recording: Recording) -> float:
    """The guest's counter when the migration began: the first sample's, less the rate before."""
    first = recording.samples[0]
    return first.writes - recording.page_writes_per_s_before * first.time_s


def running(recording: Recording) -> list[Sample]:
    """The samples before QEMU stopped the VM."""
    stop_s = math.inf if recording.stop_s is None else recording.stop_s
    return [sample for sample in recording.samples if sample.time_s < stop_s]


def _recorded_writes(recording: Recording) -> list[list[float]]:
    """[[seconds, page writes since the start], ...].

    The VM is stopped when a migration completes, so its counter then is that of the stop.
    """
    before = _writes_at_start(recording)
    pairs = [
        [0.0, 0.0],
        *([sample.time_s, sample.writes - before] for sample in running(recording)),
    ]
    last = recording.samples[-1]
    if recording.stop_s is not None and last.time_s >= recording.stop_s > pairs[-1][0]:
        pairs.append([recording.stop_s, last.writes - before])
    return _rising(pairs)


def _recorded_link(recording: Recording) -> list[list[float]]:
    """[[seconds, bytes on the wire], ...] while active: the final stage has no rate limit."""
    pairs = [[0.0, 0.0]]
    for sample in running(recording):
        if sample.status == "active" and sample.transferred_bytes is not None:
            pairs.append([sample.time_s, float(sample.transferred_bytes)])
    rising = _rising(pairs)
    end_s, end = rising[-1]
    far_s = max(recording.limit_s, end_s) + BEYOND_LIMIT_S
    return [*rising, [far_s, end + _last_slope(rising) * (far_s - end_s)]]


def _window_overrun_us(recording: Recording) -> float:
    """How much longer than 100 ms the recorded windows were, on average.

    QEMU's bandwidth sample is a window's bytes over its whole milliseconds. With a rate limit most
    windows hold the same bytes, so the samples tell the lengths, whose fractions cancel in the mean.
    """
    samples = [sample.mbps for sample in running(recording) if sample.mbps > 0]
    usual = statistics.mode(samples) if samples else 0.0
    limit_mbps = recording.parameters["max-bandwidth"] * 8 / 1e6
    if not limit_mbps < usual < limit_mbps * FULL_WINDOW:
        return LinkConfig.wakeup_latency_us
    lengths_ms = [WINDOW_MS * usual / mbps for mbps in samples]
    full = [
        ms
        for ms in lengths_ms
        if WINDOW_MS - 0.5 < ms < STALLED_MS + 0.5 and abs(ms - round(ms)) < ROUNDING_MS
    ]
    return 1000 * (statistics.mean(full) - WINDOW_MS)


def _rising(pairs: list[list[float]]) -> list[list[float]]:
    """The pairs at rising times, with totals that never fall."""
    rising = [pairs[0]]
    for time_s, total in pairs[1:]:
        if time_s > rising[-1][0]:
            rising.append([time_s, max(total, rising[-1][1])])
    return rising


def _last_slope(rising: list[list[float]]) -> float:
    """A second's growth over the last TAIL_S seconds."""
    end_s, end = rising[-1]
    since_s, since = next(
        pair for pair in reversed(rising[:-1]) if end_s - pair[0] >= TAIL_S or pair is rising[0]
    )
    return (end - since) / (end_s - since_s)
