"""Live migration of Cloud Hypervisor, and auto-converge as in the fork of Cyberus Technology.

An iteration sends all pages that one read of the dirty log has found. Then it reads the log again.
Cloud Hypervisor itself has a timeout and no throttle. In the fork the throttle rises at every
second iteration, whatever the guest has dirtied.

Source of the loop and the timeout: github.com/cloud-hypervisor/cloud-hypervisor, vmm/src/lib.rs:
do_memory_iterations and is_precopy_converged, as on its main branch in 2026. Defaults:
VmSendMigrationData.

Source of auto-converge: github.com/cyberus-technology/cloud-hypervisor, commit 002a074582, vmm/src/lib.rs:
can_increase_autoconverge_step, memory_copy_iterations and the constants AUTO_CONVERGE_... Its pull
request 13 (2025-08-18) had a delay of four iterations instead of two.
"""

from __future__ import annotations

from gpusim.policies.arguments import check_name, check_whole
from gpusim.qemu.parameters import MOST_DOWNTIME_LIMIT_MS, Parameters
from gpusim.qemu.rules import Orders, Shown
from gpusim.qemu.sync import Period, Sync
from gpusim.qemu.throttle import ThrottleRule
from gpusim.text import format_duration
from gpusim.units import NS_PER_S

MOST_S = 10**9
STRATEGIES = ("cancel", "ignore")


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


class CloudHypervisor:
    """The timeout of `send-migration`. The downtime limit is `migration.downtime_limit`.

    Cloud Hypervisor looks at its clock at the end of an iteration. With timeout_strategy=cancel the
    simulation ends at the timeout itself, up to one iteration earlier.

    Args:
        timeout_s: of the migration in s, 1 or more.
        timeout_strategy: cancel, or ignore. The latter stops the VM at the end of the iteration,
            whatever the downtime will be.

    Attributes:
        timeout_s, at_timeout: the timeout, and what happens then: abort or pause.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(self, timeout_s: int = 3600, timeout_strategy: str = "cancel") -> None:
        check_whole("timeout_s", timeout_s, 1, MOST_S)
        check_name("timeout_strategy", timeout_strategy, STRATEGIES)
        self.timeout_s = timeout_s
        self.at_timeout = "abort" if timeout_strategy == "cancel" else "pause"

    def look(self, shown: Shown) -> Orders:
        """Act once the timeout has passed."""
        due_ns = self.timeout_s * NS_PER_S
        if shown.time_ns < due_ns:
            return Orders(again_ns=due_ns)
        if self.at_timeout == "abort":
            why = f"the timeout of {format_duration(self.timeout_s)} is over"
            return Orders(do="cancel", why=why)
        if shown.downtime_limit_ms == MOST_DOWNTIME_LIMIT_MS:
            return Orders()
        return Orders(set={"downtime_limit": MOST_DOWNTIME_LIMIT_MS})
