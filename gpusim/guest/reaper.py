"""The thread that empties KVM's dirty rings once per second and protects their pages again.

It sleeps for a second, takes the big lock, and holds it while it resets all rings. Between two
changes of the guest its reaps are alike, so many of them are one step.

Source: accel/kvm/kvm-all.c:kvm_dirty_ring_reaper_thread, kvm_dirty_ring_reap_locked [7.2 to 11.1].
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from gpusim.stream import Purpose, Stream
from gpusim.units import NEVER_NS, NS_PER_S

SLEEP_NS = NS_PER_S  # kvm_dirty_ring_reaper_thread
SINGLES = 4  # reaps after a sync, until their distance is right to about 0.1 ms


def first_wake_ns(seed: int) -> int:
    """Return when the thread first wakes after the migrate command. It runs since QEMU started."""
    return 1 + int(Stream(seed, 0, Purpose.REAPER_PHASE).uniform(1)[0] * SLEEP_NS)


class Holds(NamedTuple):
    """Equal holds of the big lock at equal distances, in the VM's time.

    Attributes:
        first_ns, every_ns: the first hold begins at first_ns, and each other one every_ns later.
        number: number of holds.
        held_ns: length of a hold.
    """

    first_ns: int
    every_ns: int
    number: int
    held_ns: int


class Reaper:
    """When the rings are emptied between syncs, and how long that holds the big lock.

    Args:
        first_ns: when the thread first wakes, in the VM's time.
        reset_ns: time to protect a page again.

    Attributes:
        wakes_ns: when the thread next asks for the big lock.
        held_until_ns: when it last released the big lock.
        holds: all holds so far, in order.
    """

    def __init__(self, first_ns: int, reset_ns: float) -> None:
        self._reset_ns = reset_ns
        self.wakes_ns, self.held_until_ns = first_ns, 0
        self.holds: list[Holds] = []
        self._asks_ns = first_ns  # when it wakes, even if a sync holds the lock then
        self._reaped_ns = -1  # time of the last reap, unless a sync came since
        self._singles, self._most_alike = 0, 1

    def next_reaps(self, now_ns: int, until_ns: int) -> tuple[int, int]:
        """Return the time of the last of the next reaps that are alike, and their number.

        After a sync the first reaps are single steps, in which the distance settles: each hold makes
        the next one longer. Then two reaps are a step, then four, and so on.

        Args:
            now_ns: the last reap, or a later time.
            until_ns: the next reap comes by then.
        """
        if now_ns != self._reaped_ns:
            return max(now_ns, self.wakes_ns), 1
        every_ns = self.wakes_ns - now_ns
        count = min(self._most_alike, (until_ns - now_ns) // every_ns)
        return now_ns + count * every_ns, count

    def reap(self, at_ns: int, count: int, pages: float) -> None:
        """Empty the rings `count` times, with `pages` in them each time, the last time at `at_ns`."""
        held_ns = round(pages * self._reset_ns)
        every_ns = self.wakes_ns - self._reaped_ns if count > 1 else 0
        self.holds.append(Holds(at_ns - (count - 1) * every_ns, every_ns, count, held_ns))
        self._singles += 1
        self._most_alike = 1 if self._singles < SINGLES else 2 * self._most_alike
        self._reaped_ns, self.held_until_ns = at_ns, at_ns + held_ns
        self.wakes_ns = self._asks_ns = self.held_until_ns + SLEEP_NS

    def begin_sync(self) -> None:
        """Let a sync take the big lock. It empties the rings, too."""
        self.wakes_ns, self._reaped_ns, self._singles = NEVER_NS, -1, 0

    def end_sync(self, at_ns: int) -> None:
        """Let a sync release the big lock. A thread that waited for it reaps at once."""
        self.wakes_ns = max(self._asks_ns, at_ns)

    def holds_by(self, until_ns: int) -> Iterator[tuple[int, int]]:
        """Yield the length and number of equal holds up to a time, which may cut the last hold."""
        for first_ns, every_ns, number, held_ns in self.holds:
            last_ns = first_ns + (number - 1) * every_ns
            cut_ns = max(0, min(held_ns, until_ns - last_ns))
            yield held_ns, number - 1
            yield cut_ns, 1
