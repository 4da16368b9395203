"""When a migration is given up: gpusim's own rule, as QEMU has none."""

from __future__ import annotations

from gpusim.units import NS_PER_S

STUCK_NS, STUCK_PASSES, STUCK_SHARE = 60 * NS_PER_S, 10, 0.98


class Stuck:
    """Whether a migration has stopped getting anywhere.

    Once the throttle cannot rise: over 60 s and ten passes, the smallest remaining after a sync has
    fallen by less than 2 % against the smallest before them. A guest that will change, as its
    windows open and close, is waited for.
    """

    def __init__(self, vm_pages: int, from_ns: int | None) -> None:
        self.given_up = False
        self.smallest = vm_pages
        self._from_ns = from_ns
        self._since: tuple[int, int] | None = None  # ns and passes
        self._smallest_before = vm_pages

    def after_sync(self, now_ns: int, passes: int, pending: int, exhausted: bool) -> None:
        """Look at what remains after a sync."""
        self.smallest = min(self.smallest, pending)
        if not exhausted or self._from_ns is None or now_ns < self._from_ns:
            return
        if self._since is None:
            self._since, self._smallest_before = (now_ns, passes), self.smallest
        elif now_ns - self._since[0] >= STUCK_NS and passes - self._since[1] >= STUCK_PASSES:
            self.given_up = self.smallest > STUCK_SHARE * self._smallest_before
            self._since, self._smallest_before = (now_ns, passes), self.smallest
