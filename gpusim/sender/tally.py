"""What set the sender's rate, and for how long: a tally of the time in which it sends.

It counts pages at the cost that they have at the time, so it stays right when the link changes. The
time of syncs and of locks is not sending time.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from gpusim.sender.link import PS_PER_S, UNITS, Bound, Link


@dataclass(frozen=True, kw_only=True)
class Sending:
    """The sending time of one or more migrations.

    Attributes:
        time_s: seconds for which each bound set the rate. Together they are the sending time.
        sent_bytes: bytes sent in that time, headers of pages included.
        capacity_bytes: bytes that the link could carry in that time. It may be infinite.
    """

    time_s: Mapping[Bound, float] = field(default_factory=dict)
    sent_bytes: float = 0.0
    capacity_bytes: float = 0.0

    @property
    def total_s(self) -> float:
        """The sending time in seconds."""
        return sum(self.time_s.values())

    def __add__(self, other: Sending) -> Sending:
        """Return the sending time of both together."""
        bounds = dict.fromkeys((*self.time_s, *other.time_s))
        return Sending(
            time_s={one: self.time_s.get(one, 0.0) + other.time_s.get(one, 0.0) for one in bounds},
            sent_bytes=self.sent_bytes + other.sent_bytes,
            capacity_bytes=self.capacity_bytes + other.capacity_bytes,
        )


class Tally:
    """Counts the sending time of one migration by what set the rate.

    A window that ends with a sleep counts as a whole for max-bandwidth. A recorded link has its own
    rate, which nothing here explains, so the tally stays empty.

    Args:
        link: the link.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._times_ps: Counter[Bound] = Counter()
        self._window_ps: Counter[Bound] = Counter()  # of the window under way
        self._sent_units = 0
        self._capacity_bytes = 0.0
        self._bandwidths = deque(bandwidth for _, bandwidth in link.changes)
        self._set_bandwidth(link.bandwidth)

    def count(self, normal: int, zero: int, clears_ps: int) -> None:
        """Count pages that were sent, and the time of remote clears between them."""
        if self._link.recorded is not None:
            return
        normal_units, zero_units = self._link.page_units
        self._sent_units += normal * normal_units + zero * zero_units
        for bound, time_ps in (
            (self._bounds[0], normal * self._page_ps[0]),
            (self._bounds[1], zero * self._page_ps[1]),
            ("remote_clear", clears_ps),
        ):
            self._window_ps[bound] += time_ps

    def end_windows(self, slept_ps: int | None = None) -> None:
        """End the window under way, or many equal ones that were counted as one.

        Args:
            slept_ps: their length if each ended with the sleep of the rate limit. None: it did not.
        """
        spent_ps = self._window_ps.total()
        if not spent_ps:  # the link is recorded, or unlimited and unused
            return
        if slept_ps is not None:
            spent_ps = max(slept_ps, spent_ps)
            self._window_ps = Counter({"max_bandwidth": spent_ps})
        self._times_ps += self._window_ps
        self._capacity_bytes += spent_ps / PS_PER_S * self._bandwidth
        self._window_ps = Counter()

    def change_link(self) -> None:
        """Let the link have its next bandwidth."""
        self.end_windows()
        self._set_bandwidth(self._bandwidths.popleft())

    def _set_bandwidth(self, bandwidth: float) -> None:
        self._bandwidth = bandwidth
        self._bounds, self._page_ps = self._link.bounds(bandwidth), self._link.page_ps(bandwidth)

    @property
    def sending(self) -> Sending:
        """The sending time so far. The window under way counts as one without a sleep."""
        self.end_windows()
        return Sending(
            time_s={bound: time_ps / PS_PER_S for bound, time_ps in self._times_ps.items()},
            sent_bytes=self._sent_units / UNITS,
            capacity_bytes=self._capacity_bytes,
        )
