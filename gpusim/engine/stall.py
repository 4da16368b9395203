"""When to give up a migration that makes no progress: gpusim's own rule, because QEMU has none."""

from __future__ import annotations

from gpusim.units import NS_PER_S

STALL_NS, STALL_PASSES, STALL_SHARE = 60 * NS_PER_S, 10, 0.98
# An estimate expects the numbers of pages, so chance makes no pass much smaller than the others.
ESTIMATE_STALL_NS, ESTIMATE_STALL_PASSES = 5 * NS_PER_S, 20


class StallDetector:
    """Decides if a migration makes no progress any more.

    It is stalled if the throttle cannot rise and the remaining memory stopped falling: the smallest
    value after a sync fell by less than 2 % over 60 s, ten passes and a cycle of the guest. In an
    estimate 5 s, 20 passes and a cycle are enough as well.

    Args:
        vm_pages: pages of the VM.
        from_ns: when the guest's write pattern changes for the last time. None: never give up.
        cycle_ns: after so long the guest has very likely done all that it does. 0: it has no cycle.
        is_estimate: see Migration.

    Attributes:
        is_stalled: give up now.
        over: ns and passes over which it was found to be stalled.
        smallest_pages: the smallest number of dirty pages after a sync so far.
    """

    def __init__(
        self,
        vm_pages: int,
        from_ns: int | None,
        cycle_ns: int = 0,
        *,
        is_estimate: bool = False,
    ) -> None:
        self.is_stalled = False
        self.smallest_pages = vm_pages
        self._from_ns = from_ns
        self._since: tuple[int, int] | None = None  # ns and passes when this stretch started
        self._smallest_before = vm_pages
        self._cycle_ns = cycle_ns
        self._criteria = [(max(STALL_NS, cycle_ns), STALL_PASSES)]
        if is_estimate:
            self._criteria.append((max(ESTIMATE_STALL_NS, cycle_ns), ESTIMATE_STALL_PASSES))
        self.over = self._criteria[0]

    def start_again(self) -> None:
        """Ask whether the migration makes progress after an action that it has waited for.

        Ten passes and a cycle of the guest are enough to see that it still stalls.
        """
        self.is_stalled, self._since = False, None
        self._criteria = [(self._cycle_ns, STALL_PASSES)]

    def after_sync(
        self, now_ns: int, passes: int, pending_pages: int, *, throttle_is_final: bool
    ) -> None:
        """Take note of what remains after a sync."""
        self.smallest_pages = min(self.smallest_pages, pending_pages)
        if not throttle_is_final or self._from_ns is None or now_ns < self._from_ns:
            return
        if self._since is None:
            self._since, self._smallest_before = (now_ns, passes), self.smallest_pages
            return
        since_ns, first = self._since
        for least_ns, least_passes in self._criteria:
            if now_ns - since_ns >= least_ns and passes - first >= least_passes:
                self.is_stalled = self.smallest_pages > STALL_SHARE * self._smallest_before
                self.over = least_ns or now_ns - since_ns, least_passes
                self._since, self._smallest_before = (now_ns, passes), self.smallest_pages
                return
