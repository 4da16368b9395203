"""Auto-converge of Cloud Hypervisor, as in the fork of Cyberus Technology.

An iteration sends all pages that one read of the dirty log has found. Then it reads the log again.
The throttle rises at every second iteration, whatever the guest has dirtied.

Source: github.com/cyberus-technology/cloud-hypervisor, commit 002a074582, vmm/src/lib.rs:
can_increase_autoconverge_step, memory_copy_iterations and the constants AUTO_CONVERGE_... Its pull
request 13 (2025-08-18) had a delay of four iterations instead of two.
"""

from __future__ import annotations

from gpusim.qemu.parameters import Parameters
from gpusim.qemu.sync import Period, Sync
from gpusim.qemu.throttle import ThrottleRule


class IterationThrottle(ThrottleRule):
    """Takes a step at the start of iteration `delay` and of every `every`-th iteration after it.

    Iteration 0 sends all of RAM. The rule ignores QEMU's throttle parameters. The simulation
    differs in two ways: vCPUs sleep in QEMU's slices instead of slices of 500 ms, and the throttle
    rises after the sync instead of before.

    Args:
        parameters: migration parameters.
        delay: the first iteration with a step, 1 or more.
        every: iterations from one step to the next, 1 or more.
        step: percent per step, 1 or more.
        most: the highest throttle, 1 to 99 percent.

    Raises:
        ValueError: an argument is out of range.
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
            raise ValueError(
                f"delay={delay}, every={every}, step={step}, most={most}: "
                "delay, every and step must be 1 or more, and most 1 to 99"
            )
        self._delay, self._every, self._step, self._most = delay, every, step, most
        self._iteration = 0

    def on_sync(self, sync: Sync) -> bool:
        """Return whether an iteration begins that takes a step."""
        if sync.kind != "exact":
            return False
        self._iteration += 1
        since = self._iteration - self._delay
        if since < 0 or since % self._every or self.percent >= self._most:
            return False
        self.percent = min(self.percent + self._step, self._most)
        return True

    def on_period(self, period: Period) -> bool:
        """Return False, because the rule ignores periods."""
        return False

    @property
    def exhausted(self) -> bool:
        """Whether the throttle cannot rise any more."""
        return self.percent >= self._most


class WholeIterations:
    """Syncs only at the end of an iteration, and then compares the pending memory with the limit.

    Cloud Hypervisor uses the bandwidth of the iteration before. The simulation uses the bandwidth
    of the last window of 100 ms. Both are equal on a link with constant bandwidth.
    """

    def wants_sync(self, estimate_bytes: int, threshold_bytes: int) -> bool:
        """Return whether everything has been sent."""
        return estimate_bytes == 0

    def ready(self, pending_bytes: int, threshold_bytes: int) -> bool:
        """Return whether the pending memory fits the downtime limit."""
        return pending_bytes <= threshold_bytes

    def acts(self, estimate_bytes: int, threshold_bytes: int) -> bool:
        """Return whether the iteration has ended."""
        return estimate_bytes == 0
