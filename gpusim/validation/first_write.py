"""What the first write to a page after a sync cost the recorded guests, read off their own counters.

A cost is fitted to the writes of the unthrottled part of recordings, given the write rate of the
four seconds before the migration; total times take no part in it. A scenario's predictions get the
cost that the other half of the scenarios gave, all repeats and versions of QEMU of a scenario being in
the same half.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from gpusim.config.scenario import Scenario, resolve
from gpusim.formats.quantities import throttles
from gpusim.formats.recording import Recording
from gpusim.guest.guest import Guest
from gpusim.guest.run_time import RunTime
from gpusim.units import NS_PER_S
from gpusim.validation.replay import predict_config, running

HIGHEST_NS = 20_000.0  # of the costs tried: that of about twenty exits from KVM
FIT_STEPS = 24  # of the search: to a thousandth of a microsecond
LEAST_S = 2.0  # of a throttle, or its speed is that of a few slices


@dataclass(frozen=True)
class Stretch:
    """The unthrottled part of a recording, from its first sample to its last.

    Attributes:
        looks_ns: its syncs.
        writes: that the guest counted.
    """

    scenario: Scenario
    since_ns: int
    until_ns: int
    looks_ns: tuple[int, ...]
    writes: int

    def expected_writes(self, cost_ns: float) -> float:
        """What the guest would have written at the rate of before, with such a cost."""
        scenario = self.scenario
        protection = replace(scenario.tracking.protection, cost_ns=cost_ns)
        guest = Guest(scenario.layout, scenario.writers, RunTime(), protection)
        for look_ns in (*self.looks_ns, self.until_ns):
            guest.settle(look_ns, np.full(scenario.layout.chunks, -1))
        ends = np.array([self.since_ns, self.until_ns])
        return float(np.diff(scenario.writers[0].writes(ends, guest.faults.clocks[0]))[0])


def stretch(recording: Recording) -> Stretch:
    """The unthrottled part of a recording."""
    events = recording.until_stop()
    throttled_s = next((e.time_s for e in events if e.name == "migration_throttle"), math.inf)
    samples = [sample for sample in running(recording) if sample.time_s <= throttled_s]
    since_ns, until_ns = (round(samples[i].time_s * NS_PER_S) for i in (0, -1))
    syncs = [e.time_s for e in events if e.name == "migration_bitmap_sync_start"]
    looks_ns = (round(time_s * NS_PER_S) for time_s in syncs)
    return Stretch(
        resolve(predict_config(recording)),
        since_ns,
        until_ns,
        tuple(look_ns for look_ns in looks_ns if 0 < look_ns < until_ns),
        (samples[-1].writes or 0) - (samples[0].writes or 0),
    )


def error(stretches: Sequence[Stretch], cost_ns: float) -> float:
    """Root mean square of ln(expected / counted writes)."""
    logs = [math.log(s.expected_writes(cost_ns) / s.writes) for s in stretches]
    return math.sqrt(sum(log * log for log in logs) / len(logs))


def fit(stretches: Sequence[Stretch]) -> float:
    """The cost with the least error, ns; by golden section, as the error has one valley."""
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
    """The recordings by scenario, in alphabetical order one to the left and one to the right.

    A paced guest tells nothing: it does its work whatever its writes cost. Nor does an unknown one.
    """
    speaking = [r for r in recordings if r.guest is not None and r.guest.kind != "paced"]
    names = sorted({_scenario(recording) for recording in speaking})
    left = set(names[::2])
    return (
        [recording for recording in speaking if _scenario(recording) in left],
        [recording for recording in speaking if _scenario(recording) not in left],
    )


def cross_fitted(recordings: Sequence[Recording]) -> dict[str, float]:
    """Case -> the cost that the other half gave, ns."""
    return _crossed(recordings, fit)


def cross_fitted_speeds(recordings: Sequence[Recording]) -> dict[str, float]:
    """Case -> the guest's speed in the other half, as a part of the one before the migration."""
    return _crossed(recordings, _speed)


def _speed(stretches: Sequence[Stretch]) -> float:
    logs = [math.log(s.writes / s.expected_writes(0)) for s in stretches]
    return math.exp(sum(logs) / len(logs))


def _crossed(
    recordings: Sequence[Recording], fitted: Callable[[Sequence[Stretch]], float]
) -> dict[str, float]:
    left, right = halves(recordings)
    found = [fitted([stretch(recording) for recording in half]) for half in (left, right)]
    in_left = {_scenario(recording) for recording in left}
    return {r.case: found[_scenario(r) in in_left] for r in recordings}


def _scenario(recording: Recording) -> str:
    return recording.case.split(".")[0]


def awake_speeds(recording: Recording) -> list[tuple[int, float]]:
    """(percent, speed awake) of each throttle that lasted LEAST_S, in parts of that before the first.

    Empty where the guest was throttled too soon to have one before.
    """
    counts = [(s.time_s, float(s.writes)) for s in running(recording) if s.writes is not None]
    times_s, counted = zip(*counts, strict=True)
    steps = [(0.0, 0), *throttles(recording)]
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
