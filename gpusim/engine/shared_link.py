"""The link of a host, which the migrations that run at the same time share evenly."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import replace

from gpusim.sender.link import Link
from gpusim.units import NS_PER_S

Steps = list[tuple[int, float]]  # (ns, value from then on), rising, the first at 0


class SharedLink:
    """A link and how many migrations use it over time.

    Args:
        link: with the bandwidth that the whole host has.

    Attributes:
        bandwidth_steps: (ns, bytes per second) of the whole link. The bandwidth may be infinite.
    """

    def __init__(self, link: Link) -> None:
        self.bandwidth_steps: Steps = [(0, link.bandwidth), *link.changes]
        if self.bandwidth_steps[1:] and self.bandwidth_steps[1][0] == 0:
            del self.bandwidth_steps[0]
        self._users: Steps = []

    @property
    def lowest_bandwidth(self) -> float:
        """The lowest bandwidth that the whole link ever has."""
        return min(bandwidth for _, bandwidth in self.bandwidth_steps)

    def set_users(self, now_ns: int, count: int) -> None:
        """Share the link between `count` migrations from now on."""
        if self._users and self._users[-1][0] == now_ns:
            self._users.pop()
        if not self._users or self._users[-1][1] != count:
            self._users.append((now_ns, count))

    def share(self, at_ns: int) -> float:
        """Return the bandwidth of each migration at a time, bytes per second."""
        return _value_at(self.bandwidth_steps, at_ns) / _value_at(self._users, at_ns)

    def seen_from(self, link: Link, start_ns: int) -> Link:
        """Return a link with the share of a migration that starts at `start_ns`, on its clock."""
        bandwidth = before = self.share(start_ns)
        changes = []
        for at_ns in sorted({at_ns for at_ns, _ in (*self.bandwidth_steps, *self._users)}):
            share = self.share(at_ns) if at_ns > start_ns else before
            if share != before:
                changes.append((at_ns - start_ns, share))
            before = share
        return replace(link, bandwidth=bandwidth, changes=tuple(changes))

    def capacity_bytes(self, until_ns: int) -> float:
        """Return how much the whole link can send up to a time."""
        ends = [at_ns for at_ns, _ in self.bandwidth_steps[1:]] + [until_ns]
        return sum(
            bandwidth * (min(end_ns, until_ns) - at_ns) / NS_PER_S
            for (at_ns, bandwidth), end_ns in zip(self.bandwidth_steps, ends, strict=True)
            if at_ns < until_ns  # a later bandwidth may be infinite
        )


def _value_at(steps: Steps, at_ns: int) -> float:
    return steps[bisect_right(steps, at_ns, key=lambda step: step[0]) - 1][1]
