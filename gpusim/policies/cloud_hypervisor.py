"""Cloud Hypervisor's auto-converge, as its fork by Cyberus Technology has it.

An iteration sends what one read of the dirty log found, to its last page, and only then reads it anew.
Every second one the throttle rises, whatever was dirtied.

Source: github.com/cyberus-technology/cloud-hypervisor, commit 002a074582, vmm/src/lib.rs:
can_increase_autoconverge_step, memory_copy_iterations and the constants AUTO_CONVERGE_...; its pull
request 13 (2025-08-18) began with a delay of four iterations instead of two.
"""

from __future__ import annotations

from gpusim.qemu.parameters import Parameters
from gpusim.qemu.sync import Period, Sync
from gpusim.qemu.throttle import ThrottleRule


class IterationThrottle(ThrottleRule):
    """A step at the start of iteration `delay`, and of every `every`-th after it, up to 99 %.

    Iteration 0 sends all of RAM. QEMU's parameters of the throttle do not count; vCPUs sleep in QEMU's
    slices, not in Cloud Hypervisor's of 500 ms. It raises the throttle before it reads the log, and the
    simulation when the sync has ended: the difference is the sync's own time.

    Args:
        delay, every: iterations.
        step, most: percent.
    """

    def __init__(
        self,
        parameters: Parameters,
        delay: int = 2,
        every: int = 2,
        step: int = 10,
        most: int = 99,
    ) -> None:
        super().__init__(parameters)
        if min(delay, every, step, most) < 1 or most > 99:
            raise ValueError("delay, every and step are 1 or more, most is 1 to 99")
        self._delay, self._every, self._step, self._most = delay, every, step, most
        self._iteration = 0

    def on_sync(self, sync: Sync) -> bool:
        """Whether an iteration begins that takes a step."""
        if sync.kind != "exact":
            return False
        self._iteration += 1
        since = self._iteration - self._delay
        if since < 0 or since % self._every or self.percent >= self._most:
            return False
        self.percent = min(self.percent + self._step, self._most)
        return True

    def on_period(self, period: Period) -> bool:
        """Nothing: it does not look at what was dirtied."""
        return False

    @property
    def exhausted(self) -> bool:
        """Whether the throttle cannot rise any more."""
        return self.percent >= self._most


class WholeIterations:
    """The log is read when all that the last read found has been sent; then the rest may be small enough.

    Cloud Hypervisor compares with the bandwidth of the iteration before, the simulation with that of the
    last window of 100 ms: the same where the wire is steady.
    """

    def wants_sync(self, estimate_bytes: int, threshold_bytes: int) -> bool:
        """Whether everything has been sent."""
        return estimate_bytes == 0

    def ready(self, pending_bytes: int, threshold_bytes: int) -> bool:
        """Whether what the log held fits the downtime limit."""
        return pending_bytes <= threshold_bytes

    def acts(self, estimate_bytes: int, threshold_bytes: int) -> bool:
        """Only at the end of an iteration."""
        return estimate_bytes == 0
