"""vCPU run time under QEMU's throttle: slices of running and sleeping, in integer nanoseconds.

At each tick of the throttle timer every vCPU sleeps, then runs until the next tick. All vCPUs sleep
in phase. The ticks and the ends of the sleeps need QEMU's big lock. While a thread holds it, no tick
fires and no vCPU wakes. Between two holds and two changes of the throttle the slices have a closed
form. A test compares it with a timer for each tick, and both give the same integers.

Source: migration/cpu-throttle.c:cpu_throttle_timer_tick and cpu_throttle_thread [7.2 to 11.1].
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from gpusim.guest.latency import WakeupLatency
from gpusim.layout import FloatArray, IntArray, rising
from gpusim.units import NEVER_NS, NS_PER_S

TIMESLICE_NS = 10_000_000  # CPU_THROTTLE_TIMESLICE_NS
STRETCH_NS = 5 * NS_PER_S  # the ticks of so long a time share one drawn latency


def slice_ns(percent: int) -> tuple[int, int]:
    """Return the period of the throttle's tick and the sleep in it, in ns.

    The arithmetic is C's double arithmetic, as in QEMU: 20 % is a period of 12.5 ms with a sleep of
    2.5 ms + 1 ns.

    Source: migration/cpu-throttle.c:cpu_throttle_timer_tick and cpu_throttle_thread [7.2 to 10.1].
    """
    share = percent / 100
    return int(TIMESLICE_NS / (1 - share)), int(share / (1 - share) * TIMESLICE_NS + 1)


@dataclass(frozen=True, kw_only=True)
class TickCost:
    """What a tick costs, because the vCPUs fall asleep one by one.

    The tick kicks one vCPU after the other under the big lock, and only then computes the next
    tick. Then each kicked vCPU needs the lock before it sleeps. So vCPU i writes until its kick at
    i x kick_ns, and its sleep begins at vcpus x kick_ns + i x turn_ns. It loses i x (turn_ns -
    kick_ns) of its slice. A vCPU that loses more than its slice still sleeps when the next tick
    kicks the others. Its flag is still set, so the tick skips it.

    All vCPUs share one clock, so gpusim uses the mean vCPU.

    Attributes:
        vcpus: number of vCPUs.
        kick_ns: time to kick a vCPU.
        turn_ns: time in which a vCPU takes the lock from the one before it, and begins to sleep.

    Source: migration/cpu-throttle.c:cpu_throttle_timer_tick and cpu_throttle_thread,
    cpu-common.c:queue_work_on_cpu [7.2 to 11.1].
    """

    vcpus: int = 0
    kick_ns: float = 0.0
    turn_ns: float = 0.0

    def slice_ns(self, percent: int) -> tuple[int, int]:
        """Return the period of the throttle's tick and the mean vCPU's sleep in it, in ns."""
        period_ns, sleep_ns = slice_ns(percent)
        if not self.kick_ns and not self.turn_ns:
            return period_ns, sleep_ns
        run_ns = period_ns - sleep_ns
        period_ns += round(self.vcpus * self.kick_ns)
        lost_ns = np.arange(1, self.vcpus + 1) * (self.turn_ns - self.kick_ns)
        skipped = np.ceil(np.maximum(lost_ns - run_ns, 0) / period_ns)  # ticks in a row
        mean_ns = ((skipped * period_ns + run_ns - lost_ns) / (skipped + 1)).mean()
        return period_ns, period_ns - round(float(mean_ns))


class VcpuClock(Protocol):
    """The clock of a writer: its run time by a time, and the ticks that interrupt it.

    Most questions are about one time, which needs no array.
    """

    def at(self, t_ns: IntArray) -> IntArray | FloatArray:
        """Return the run time at each time, in ns."""

    def at_ns(self, t_ns: int) -> float:
        """Return the run time at one time, in ns."""

    def tick_before(self, t_ns: IntArray) -> IntArray:
        """Return the last tick at or before each time, or 0 before the first tick."""

    def tick_before_ns(self, t_ns: int) -> int:
        """Return `tick_before` of one time."""

    def tick_after(self, t_ns: IntArray) -> IntArray:
        """Return the first tick after each time at the present throttle.

        If there is no tick, return the time itself.
        """

    def borders(self, since_ns: int = -1) -> IntArray:
        """Return times between which ticks are evenly spaced, and the last tick before each.

        Args:
            since_ns: return only times after this one.
        """

    def borders_between(self, since_ns: int, until_ns: int) -> list[int]:
        """Return the borders since_ns < t <= until_ns, in any order, and some of them twice."""


class WallTime:
    """The clock of device writes, which no throttle slows. It always runs."""

    def at(self, t_ns: IntArray) -> IntArray:
        return t_ns

    def at_ns(self, t_ns: int) -> float:
        return t_ns

    def tick_before(self, t_ns: IntArray) -> IntArray:
        return np.zeros_like(t_ns)

    def tick_before_ns(self, t_ns: int) -> int:
        return 0

    def tick_after(self, t_ns: IntArray) -> IntArray:
        return t_ns

    def borders(self, since_ns: int = -1) -> IntArray:
        return np.zeros(int(since_ns < 0), np.int64)

    def borders_between(self, since_ns: int, until_ns: int) -> list[int]:
        return [0] * (since_ns < 0)


@dataclass(frozen=True, kw_only=True)
class _Hold:
    """A thread that holds the big lock.

    Attributes:
        from_ns: when it took the lock.
        next_tick_ns: when the next tick would fire without it.
        is_kicked: a tick fired just before it, so the vCPUs fall asleep after it.
        slept_from_ns, wakes_ns: the sleep in progress. `wakes_ns` is not after `from_ns` if the
            vCPUs run.
        percent: the throttle before it.
        kept, later: number of stretches before it, and int64 [4, n], the stretches from then on as
            they would be without it.
    """

    from_ns: int
    next_tick_ns: int
    is_kicked: bool
    slept_from_ns: int
    wakes_ns: int
    percent: int
    kept: int
    later: IntArray


class RunTime:
    """Run time of the vCPUs since the migrate command, under a throttle that changes.

    A change takes effect at the first tick after it. The first throttle ticks at once.

    Args:
        latency: how late QEMU's main loop wakes for a tick, and a vCPU from its sleep. The ticks
            between two holds share one delay, the mean of their delays.

    Attributes:
        percent: the throttle that was set last. 0 before the first.
        ignores_throttle: the vCPUs never sleep, see qemu.process.Process.
        needs_big_lock: ticks and wake-ups wait for the big lock.
        tick_cost: what a tick costs the vCPUs.

    Source: migration/cpu-throttle.c:cpu_throttle_set [7.2 to 11.1]. The main loop holds the big
    lock while it runs timers (util/main-loop.c:os_host_main_loop_wait). A vCPU takes the lock again
    at the end of its sleep (cpu_throttle_thread, qemu_cond_timedwait_bql).
    """

    def __init__(self, latency: WakeupLatency | None = None) -> None:
        self.percent = 0
        self.ignores_throttle, self.needs_big_lock = False, True
        self.tick_cost = TickCost()
        self._latency = latency or WakeupLatency()
        self._late_ns = 0  # how late each tick and each wake-up comes
        self._slices = _Slices()
        self._hold: _Hold | None = None
        self._ticked_ns = -1  # a tick that fired under the big lock
        self._released_ns = -1  # when the last hold ended
        self._skipped_ns = -1  # first tick after a change that finds the vCPUs asleep. -1: none

    def throttle(self, now_ns: int, percent: int) -> None:
        """Set the throttle.

        Args:
            now_ns: the time, not before that of an earlier call.
            percent: the throttle, 1 to 99.
        """
        if percent == self.percent:
            return
        first, self.percent = self.percent == 0, percent
        if self.ignores_throttle:
            return
        if first:
            self._hold, self._ticked_ns = None, now_ns
            self._draw_latency()
            self._tick_from(now_ns)
        elif self._hold is None:
            last_ns = self.tick_before_ns(now_ns)
            wakes_ns = last_ns + self._slices.at(last_ns)[2]
            next_tick_ns = self._armed_tick_ns(self.tick_after_ns(now_ns), now_ns + 1)
            self._slices.cut(self._slices.count_before(now_ns + 1))
            self._draw_latency()
            self._arm(next_tick_ns, wakes_ns)

    def hold(self, now_ns: int, *, due_ns: int | None = None) -> None:
        """Let a thread take the big lock. No tick fires and no vCPU wakes until `release`.

        Args:
            now_ns: the time.
            due_ns: when the fallback timer was due, if its tick syncs. The main loop runs its timers
                in the order in which they are due. So a tick that was due later comes after the
                sync. A tick that was due earlier comes before it at the latest, and the vCPUs that
                it schedules wait for the lock. None: another thread has the lock.
        """
        if self.ignores_throttle or self.percent == 0 or not self.needs_big_lock:
            return
        late_ns, last_ns = self._late_ns, self.tick_before_ns(now_ns - 1)
        is_kicked = self._ticked_ns == now_ns or (due_ns is None and self.is_tick(now_ns))
        if is_kicked:
            last_ns = now_ns
        elif due_ns is not None and last_ns > self._released_ns and last_ns - late_ns >= due_ns:
            last_ns = self.tick_before_ns(last_ns - 1)
        _, _, sleep, _ = self._slices.at(last_ns)
        wakes_ns = last_ns + sleep
        is_past = is_kicked or due_ns is None
        next_ns = self._armed_tick_ns(self.tick_after_ns(last_ns), now_ns + is_past)
        kept = self._slices.count_before(min(now_ns + is_kicked, next_ns))
        later = self._slices.cut(kept)
        if due_ns is not None and not is_kicked and next_ns - late_ns < due_ns:
            period_ns, sleep_ns = self.tick_cost.slice_ns(self.percent)
            next_ns = now_ns + period_ns + late_ns
            if wakes_ns <= now_ns:
                is_kicked, last_ns, wakes_ns = True, now_ns, now_ns + sleep_ns + late_ns
        self._hold = _Hold(
            from_ns=now_ns,
            next_tick_ns=next_ns,
            is_kicked=is_kicked,
            slept_from_ns=last_ns,
            wakes_ns=wakes_ns,
            percent=self.percent,
            kept=kept,
            later=later,
        )
        if wakes_ns > now_ns:
            self._slices.append(last_ns, NEVER_NS, NEVER_NS)
        else:
            self._slices.append(min(now_ns, next_ns), NEVER_NS, 0)

    def release(self, now_ns: int, *, by_main_loop: bool) -> None:
        """Let the thread give the big lock back.

        Args:
            now_ns: the time, not before the hold.
            by_main_loop: the main loop gives it back. Its overdue tick then fires before a waiting
                vCPU wakes, and finds throttle_thread_scheduled still set. It lets such a vCPU
                alone, which runs until the next tick. If another thread gives the lock back, then
                the vCPUs are first, because they waited first.
        """
        hold, self._hold = self._hold, None
        if hold is None:
            return
        if now_ns == hold.from_ns:
            self._undo(hold)
            return
        wakes_ns = hold.wakes_ns
        if hold.is_kicked:
            wakes_ns += now_ns - hold.from_ns
        is_asleep, waits = wakes_ns > hold.from_ns, wakes_ns <= now_ns
        wakes_ns = max(wakes_ns, now_ns)
        if is_asleep:
            self._slices.cut(hold.kept)
            self._slices.append(hold.slept_from_ns, NEVER_NS, wakes_ns - hold.slept_from_ns)
        tick_ns = hold.next_tick_ns
        if tick_ns - self._late_ns <= now_ns:
            tick_ns = now_ns
        self._released_ns = now_ns
        self._draw_latency()
        is_first = is_asleep and waits and by_main_loop and tick_ns == now_ns
        wakes_ns = wakes_ns + is_first if is_asleep else 0
        if tick_ns == now_ns >= wakes_ns:  # it finds the vCPUs awake
            self._ticked_ns = now_ns
        self._arm(tick_ns, wakes_ns)

    def at(self, t_ns: IntArray) -> IntArray:
        """Return the run time at each time, in ns, int64 of any shape."""
        start, period, sleep, run = self._slices.at_times(t_ns)
        slices, since_tick = np.divmod(t_ns - start, period)
        return np.asarray(run + slices * (period - sleep) + np.maximum(since_tick - sleep, 0))

    def at_ns(self, t_ns: int) -> int:
        """Return the run time at one time, in ns."""
        return self._slices.run_ns(t_ns)

    def wakes_at_ns(self, t_ns: int) -> int:
        """Return when the vCPUs that sleep at a time wake, or the time itself if they run.

        A sleep that begins or ends exactly at the time does not count.
        """
        # A sync that waits for the vCPUs gives the lock back meanwhile, so they wake in its hold.
        if self._hold is not None and t_ns >= self._hold.from_ns:
            falls_asleep = self._hold.is_kicked and t_ns == self._hold.from_ns
            return t_ns if falls_asleep else max(t_ns, self._hold.wakes_ns)
        start, period, sleep, _ = self._slices.at(t_ns)
        since_tick = (t_ns - start) % period
        return t_ns + max(0, sleep - since_tick if since_tick else 0)

    def is_tick(self, t_ns: int) -> bool:
        """Return whether a tick puts the vCPUs to sleep at a time."""
        start, period, sleep, _ = self._slices.at(t_ns)
        return sleep > 0 and (t_ns - start) % period == 0

    def tick_before(self, t_ns: IntArray) -> IntArray:
        """Return the last tick at or before each time, or 0 before the first tick.

        The beginning and the end of a hold may stand for a tick.
        """
        start, period, _, _ = self._slices.at_times(t_ns)
        return np.asarray(start + (t_ns - start) // period * period)

    def tick_before_ns(self, t_ns: int) -> int:
        """Return the last tick at or before a time, see `tick_before`."""
        start, period, _, _ = self._slices.at(t_ns)
        return start + (t_ns - start) // period * period

    def tick_after_ns(self, t_ns: int) -> int:
        """Return the first tick after a time, see `tick_after`."""
        start, period, _, _ = self._slices.at(t_ns)
        after_ns = self._slices.next_start(t_ns)
        if period != NEVER_NS:
            after_ns = min(after_ns, start + ((t_ns - start) // period + 1) * period)
        return t_ns if after_ns == NEVER_NS else after_ns

    def tick_after(self, t_ns: IntArray) -> IntArray:
        """Return the first tick after each time at the present throttle, see VcpuClock."""
        starts, periods = self._slices.starts, self._slices.periods
        index = starts.searchsorted(t_ns, side="right") - 1
        start, period = starts[index], periods[index]
        is_regular = period != NEVER_NS
        rounds = (t_ns - start) // period + 1
        regular = np.where(is_regular, start + rounds * np.where(is_regular, period, 0), NEVER_NS)
        later = np.append(starts, NEVER_NS)[index + 1]
        after = np.minimum(regular, later)
        return np.where(after == NEVER_NS, t_ns, after)

    def borders(self, since_ns: int = -1) -> IntArray:
        """Return the starts of stretches with one throttle, and the last tick before each."""
        starts = self._slices.starts
        starts = starts[starts.searchsorted(since_ns, side="right") :]
        ticks = self.tick_before(np.maximum(starts - 1, 0))
        return rising(np.concatenate([starts, ticks[ticks > since_ns]]))

    def borders_between(self, since_ns: int, until_ns: int) -> list[int]:
        """Return the borders since_ns < t <= until_ns, see VcpuClock."""
        found = []
        for start in self._slices.starts_after(since_ns):
            tick_ns = self.tick_before_ns(max(start - 1, 0))
            found += [t for t in (start, tick_ns) if since_ns < t <= until_ns]
            if start > until_ns:  # the last tick before a later border is no earlier
                break
        return found

    def longest_sleep_ns(self, until_ns: int) -> int:
        """Return the longest single sleep that began before `until_ns`.

        A sleep ends at `until_ns` at the latest, because vm_stop wakes sleeping vCPUs.
        """
        starts, sleeps = self._slices.starts, self._slices.sleeps
        begun = np.searchsorted(starts, until_ns)
        return int(np.minimum(sleeps[:begun], until_ns - starts[:begun]).max(initial=0))

    def _draw_latency(self) -> None:
        self._late_ns = self._latency.draw_ns(
            STRETCH_NS // self.tick_cost.slice_ns(self.percent)[0]
        )

    def _tick_from(self, tick_ns: int) -> None:
        """Let the ticks from the one at `tick_ns` on be regular."""
        period, sleep = self.tick_cost.slice_ns(self.percent)
        self._slices.append(tick_ns, period + self._late_ns, sleep + self._late_ns)

    def _armed_tick_ns(self, next_ns: int, from_ns: int) -> int:
        """Return the first tick from a time on, also if the vCPUs will still sleep at it.

        Args:
            next_ns: the next tick that finds the vCPUs awake.
            from_ns: the time.
        """
        if self._skipped_ns < 0:
            return next_ns
        period_ns = self.tick_cost.slice_ns(self.percent)[0] + self._late_ns
        rounds = max(0, -(-(from_ns - self._skipped_ns) // period_ns))
        return min(next_ns, self._skipped_ns + rounds * period_ns)

    def _arm(self, tick_ns: int, wakes_ns: int) -> None:
        """Let the ticks from one on be regular, except for those at which the vCPUs still sleep.

        Args:
            tick_ns: the first tick.
            wakes_ns: when the sleep in progress ends. A tick at this time finds them awake.
        """
        period_ns = self.tick_cost.slice_ns(self.percent)[0] + self._late_ns
        self._skipped_ns = tick_ns if tick_ns < wakes_ns else -1
        while tick_ns < wakes_ns:
            tick_ns += period_ns
        self._tick_from(tick_ns)

    def _undo(self, hold: _Hold) -> None:
        """Let a hold without length change nothing."""
        self._slices.cut(hold.kept)
        self._slices.extend(hold.later)
        percent, self.percent = self.percent, hold.percent
        self.throttle(hold.from_ns, percent)


class _Slices:
    """Stretches of time with equal slices: int64 rows start, period, sleep and run time.

    A stretch lasts until the start of the next one. Each slice of it begins with the sleep. The run
    time is that by its start.
    """

    def __init__(self) -> None:
        self._rows = np.zeros((4, 64), np.int64)
        # The same once more, because one time is found in a list in a tenth of the time.
        self._starts: list[int] = []
        self._stretches: list[tuple[int, int, int, int]] = []
        self.append(0, NEVER_NS, 0)

    @property
    def _count(self) -> int:
        return len(self._starts)

    @property
    def starts(self) -> IntArray:
        return self._rows[0, : self._count]

    @property
    def periods(self) -> IntArray:
        return self._rows[1, : self._count]

    @property
    def sleeps(self) -> IntArray:
        return self._rows[2, : self._count]

    def at(self, t_ns: int) -> tuple[int, int, int, int]:
        """Return the stretch at a time."""
        return self._stretches[bisect.bisect_right(self._starts, t_ns) - 1]

    def next_start(self, t_ns: int) -> int:
        """Return the first start after a time, or NEVER_NS."""
        return next(self.starts_after(t_ns), NEVER_NS)

    def starts_after(self, t_ns: int) -> Iterator[int]:
        """Return the starts after a time, ascending."""
        return itertools.islice(self._starts, bisect.bisect_right(self._starts, t_ns), None)

    def at_times(self, t_ns: IntArray) -> tuple[IntArray, IntArray, IntArray, IntArray]:
        """Return the stretch at each time, four arrays of its shape."""
        index = self.starts.searchsorted(t_ns, side="right") - 1
        start, period, sleep, run = self._rows.take(index, axis=1)
        return start, period, sleep, run

    def run_ns(self, t_ns: int) -> int:
        """Return the run time at a time."""
        start, period, sleep, run = self.at(t_ns)
        slices, since_tick = divmod(t_ns - start, period)
        return run + slices * (period - sleep) + max(since_tick - sleep, 0)

    def append(self, start_ns: int, period_ns: int, sleep_ns: int) -> None:
        """Use other slices from a time on, which is not before the last start."""
        count, run_ns = self._count, self.run_ns(start_ns) if self._count else 0
        if count == self._rows.shape[1]:
            self._rows = np.concatenate([self._rows, np.zeros_like(self._rows)], axis=1)
        stretch = start_ns, period_ns, sleep_ns, run_ns
        self._rows[:, count] = stretch
        self._starts.append(start_ns)
        self._stretches.append(stretch)

    def count_before(self, t_ns: int) -> int:
        """Return the number of stretches that start before a time."""
        return bisect.bisect_left(self._starts, t_ns)

    def cut(self, kept: int) -> IntArray:
        """Keep the first stretches, and return the others, int64 [4, n]."""
        dropped: IntArray = self._rows[:, kept : self._count].copy()
        del self._starts[kept:], self._stretches[kept:]
        return dropped

    def extend(self, rows: IntArray) -> None:
        """Add stretches that `cut` returned."""
        for start, period, sleep, _ in rows.T.tolist():
            self.append(start, period, sleep)
