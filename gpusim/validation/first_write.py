"""Fit the cost of the first write to a page after a sync to the guests' own counters.

The fit uses the writes before the first throttle, and the write rate of the four seconds before the
migration. It does not use total times. The predictions of a scenario use the cost from the other
half of the scenarios. All repeats and versions of QEMU of a scenario are in the same half.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from gpusim.config.scenario import Scenario, resolve
from gpusim.formats.quantities import throttle_steps
from gpusim.formats.recording import Recording, Sample
from gpusim.guest.guest import Guest
from gpusim.guest.run_time import RunTime
from gpusim.units import NS_PER_S
from gpusim.validation.errors import ValidationError
from gpusim.validation.replay import predict_config, samples_before_stop

HIGHEST_NS = 20_000.0  # the highest cost that is tried, as much as about twenty exits from KVM
FIT_STEPS = 24  # of the search, which narrow it to about 0.2 ns
LEAST_S = 2.0  # a shorter throttle lets the guest run only a few slices


@dataclass(frozen=True)
class Stretch:
    """The part of a recording before the first throttle, from its first sample to its last.

    Attributes:
        scenario: the recorded guest and tracking.
        since_ns: time of the first sample.
        until_ns: time of the last sample.
        syncs_ns: times of the syncs.
        writes: the guest's counted writes.
    """

    scenario: Scenario
    since_ns: int
    until_ns: int
    syncs_ns: tuple[int, ...]
    writes: int

    def expected_writes(self, cost_ns: float) -> float:
        """Return the expected writes at the earlier rate if a first write costs so much."""
        scenario = self.scenario
        protection = replace(scenario.tracking.protection, cost_ns=cost_ns)
        guest = Guest(scenario.layout, scenario.writers, RunTime(), protection)
        for sync_ns in (*self.syncs_ns, self.until_ns):
            guest.settle(sync_ns, np.full(scenario.layout.chunks, -1))
        ends = np.array([self.since_ns, self.until_ns])
        return float(np.diff(scenario.writers[0].writes(ends, guest.faults.clocks[0]))[0])


def find_stretch(recording: Recording) -> Stretch:
    """Return the part of a recording before the first throttle."""
    events, samples = recording.until_stop(), _samples(recording)
    since_ns, until_ns = (round(samples[i].time_s * NS_PER_S) for i in (0, -1))
    syncs = [e.time_s for e in events if e.name == "migration_bitmap_sync_start"]
    syncs_ns = (round(time_s * NS_PER_S) for time_s in syncs)
    return Stretch(
        resolve(predict_config(recording)),
        since_ns,
        until_ns,
        tuple(sync_ns for sync_ns in syncs_ns if 0 < sync_ns < until_ns),
        _writes(recording),
    )


def _samples(recording: Recording) -> list[Sample]:
    """Return the samples up to the first throttle."""
    events = recording.until_stop()
    throttled_s = next((e.time_s for e in events if e.name == "migration_throttle"), math.inf)
    return [sample for sample in samples_before_stop(recording) if sample.time_s <= throttled_s]


def _writes(recording: Recording) -> int:
    """Return the counted writes up to the first throttle, or 0 if they were not measured."""
    samples = _samples(recording)
    if not samples or not recording.page_writes_per_s_before:
        return 0
    return (samples[-1].writes or 0) - (samples[0].writes or 0)


def error(stretches: Sequence[Stretch], cost_ns: float) -> float:
    """Return the root mean square of ln(expected writes / counted writes)."""
    logs = [math.log(s.expected_writes(cost_ns) / s.writes) for s in stretches]
    return math.sqrt(sum(log * log for log in logs) / len(logs))


def fit(stretches: Sequence[Stretch]) -> float:
    """Return the cost with the least error, ns.

    The error has one minimum, so golden section finds it.
    """
    ratio = (math.sqrt(5) - 1) / 2
    low, high = 0.0, HIGHEST_NS
    inner = [high - ratio * (high - low), low + ratio * (high - low)]
    errors = [error(stretches, cost_ns) for cost_ns in inner]
    for _ in range(FIT_STEPS):
        if errors[0] <= errors[1]:
            high = inner[1]
            inner = [high - ratio * (high - low), inner[0]]
            errors = [error(stretches, inner[0]), errors[0]]
        else:
            low = inner[0]
            inner = [inner[1], low + ratio * (high - low)]
            errors = [errors[1], error(stretches, inner[1])]
    return round(low if low == 0 else (low + high) / 2)


def halves(recordings: Sequence[Recording]) -> tuple[list[Recording], list[Recording]]:
    """Return two halves of the recordings, with alternate scenarios in alphabetical order.

    Paced and unknown guests are left out, and guests that did not write. A paced guest does its
    work whatever its writes cost.
    """
    usable = [r for r in recordings if r.guest and r.guest.kind != "paced" and _writes(r) > 0]
    names = sorted({_scenario(recording) for recording in usable})
    left = set(names[::2])
    return (
        [recording for recording in usable if _scenario(recording) in left],
        [recording for recording in usable if _scenario(recording) not in left],
    )


def fit_costs(recordings: Sequence[Recording]) -> dict[str, float]:
    """Return case -> the cost of a first write that fits the other half of the scenarios, ns.

    Raises:
        ValidationError: fewer than two scenarios can be used.
    """
    left, right = halves(recordings)
    if not (left and right):
        raise ValidationError(
            "too_few_scenarios", scenarios=len({_scenario(r) for r in left + right})
        )
    return _cross_fit(recordings, fit)


def cross_fit_speeds(recordings: Sequence[Recording]) -> dict[str, float]:
    """Return case -> the guests' speed in the other half, relative to that before the migration."""
    return _cross_fit(recordings, _speed)


def _speed(stretches: Sequence[Stretch]) -> float:
    logs = [math.log(s.writes / s.expected_writes(0)) for s in stretches]
    return math.exp(sum(logs) / len(logs))


def _cross_fit(
    recordings: Sequence[Recording], fitted: Callable[[Sequence[Stretch]], float]
) -> dict[str, float]:
    left, right = halves(recordings)
    found = [fitted([find_stretch(recording) for recording in half]) for half in (left, right)]
    in_left = {_scenario(recording) for recording in left}
    return {r.case: found[_scenario(r) in in_left] for r in recordings}


def _scenario(recording: Recording) -> str:
    return recording.case.split(".")[0]


def awake_speeds(recording: Recording) -> list[tuple[int, float]]:
    """Return (percent, speed) of each throttle that lasted LEAST_S.

    The speed is that of a running guest, relative to the speed before the first throttle. The
    result is empty if the guest was throttled too early to measure that speed.
    """
    counts = [
        (s.time_s, float(s.writes)) for s in samples_before_stop(recording) if s.writes is not None
    ]
    times_s, counted = zip(*counts, strict=True)
    steps = [(0.0, 0), *throttle_steps(recording)]
    ends_s = [*(at_s for at_s, _ in steps[1:]), times_s[-1]]
    run_time, speeds = RunTime(), []
    for (since_s, percent), until_s in zip(steps, ends_s, strict=True):
        since_ns, until_ns = (round(time_s * NS_PER_S) for time_s in (since_s, until_s))
        if percent:
            run_time.throttle(since_ns, percent)
        awake_s = (run_time.at_ns(until_ns) - run_time.at_ns(since_ns)) / NS_PER_S
        writes = np.interp([since_s, until_s], times_s, counted)
        if until_s - since_s >= LEAST_S:
            speeds.append((percent, float(writes[1] - writes[0]) / awake_s))
    if not speeds or speeds[0][0]:
        return []
    return [(percent, speed / speeds[0][1]) for percent, speed in speeds[1:]]
