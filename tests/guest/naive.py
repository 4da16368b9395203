"""Naive references of the guest: run time slice by slice, and a queue of work event by event.

All numbers are exact integers and fractions, and no event is skipped.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from typing import TypeAlias

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from gpusim.guest.run_time import slice_ns
from gpusim.guest.windows import Windows as ActiveWindows
from gpusim.stream import Purpose, Stream
from gpusim.units import NS_PER_S

History: TypeAlias = list[tuple[int, int]]  # (ns, percent set at that time), ascending
SLOW_MACHINE = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
Windows: TypeAlias = Sequence[tuple[int, int]] | None


def active(windows: Windows) -> ActiveWindows | None:
    return None if windows is None else ActiveWindows(windows)


def place_stream(seed: int) -> Stream:
    """Return the stream that places a working set."""
    return Stream(seed, 0, Purpose.PLACEMENT)


@st.composite
def histories(draw: st.DrawFn, min_size: int = 0) -> History:
    """Return rising throttles, set at a tick, between ticks, in a sleep, or twice before a tick."""
    percents = draw(
        st.lists(st.integers(1, 99), min_size=min_size, max_size=5, unique=True).map(sorted)
    )
    history: History = []
    now = 0
    for percent in percents:
        if not history:
            now = draw(st.integers(0, 3 * NS_PER_S))
        else:
            period, sleep = slice_ns(history[-1][1])
            last_tick = slices_of(history, now + 1)[-1][0]
            now = draw(
                st.one_of(
                    st.integers(now, now + 2 * NS_PER_S),
                    st.sampled_from([now, now + 1, now + period]),
                    st.integers(1, 30).map(lambda n, t=last_tick, p=period: t + n * p),
                    st.integers(1, 3).map(lambda n, t=last_tick, p=period, s=sleep: t + n * p + s),
                ).map(lambda t, now=now: max(t, now))
            )
        history.append((now, percent))
    return history


def slices_of(history: History, until_ns: int) -> list[tuple[int, int]]:
    """Return (tick, wake-up) of every slice that begins before a time.

    The first throttle ticks at once. Every tick uses the throttle that was set before it.
    """
    if not history:
        return []
    slices = []
    tick = history[0][0]
    while tick < until_ns:
        percent = history[0][1]
        for at_ns, later in history[1:]:
            if at_ns < tick:
                percent = later
        period, sleep = slice_ns(percent)
        slices.append((tick, tick + sleep))
        tick += period
    return slices


def queue(
    rate: int, capacity: int, history: History, windows: Windows, times: Sequence[int]
) -> list[Fraction]:
    """Return the work done by each time: it arrives at `rate` in windows, and is done while
    running.

    Between two events both flows are constant. The backlog is linear and never below 0.

    Args:
        rate, capacity: work per second.
        times: ns, ascending.
    """
    end = times[-1] + 1
    slices = slices_of(history, end)
    events = {0, *times}
    for tick, wake in slices:
        events |= {tick, wake}
    for low, high in windows or ():
        events |= {low, high}
    asleep = iter([*slices, (end, end)])
    sleep = next(asleep)
    points = sorted(t for t in events if t < end)
    done = {points[0]: Fraction(0)}
    backlog = total = Fraction(0)
    for now, then in pairwise(points):
        while now >= sleep[1] and sleep[0] < end:
            sleep = next(asleep)
        running = not sleep[0] <= now < sleep[1]
        open_now = windows is None or any(low <= now < high for low, high in windows)
        arrived = Fraction(rate * (then - now), NS_PER_S) if open_now else Fraction(0)
        allowed = Fraction(capacity * (then - now), NS_PER_S) if running else Fraction(0)
        served = min(backlog + arrived, allowed)
        backlog += arrived - served
        total += served
        done[then] = total
    return [done[t] for t in times]
