"""Why the throttle rises: a high period is one that dirtied more than a share of what was sent."""

from __future__ import annotations

from gpusim.qemu.parameters import Parameters
from gpusim.qemu.sync import Period

HIGH_PERIODS = 2


class ThrottleRule:
    """Auto-converge: every second high period, in a row or not, takes one step.

    Attributes:
        parameters: may be replaced at any time.
        dirty_rate_high_cnt: high periods since the last step.
        percent: the throttle; it never falls during a migration.

    Source: migration/ram.c:migration_trigger_throttle [7.2 to 10.1].
    """

    def __init__(self, parameters: Parameters) -> None:
        self.parameters = parameters
        self.dirty_rate_high_cnt = 0
        self.percent = 0

    def on_period(self, period: Period) -> bool:
        """A period has closed. Whether it triggers (trace migration_throttle); `percent` is then new."""
        threshold_bytes = period.xfer_bytes * self.parameters.throttle_trigger_threshold // 100
        if period.dirty_bytes <= threshold_bytes:
            return False
        self.dirty_rate_high_cnt += 1
        if self.dirty_rate_high_cnt < HIGH_PERIODS:
            return False
        self.dirty_rate_high_cnt = 0
        if self.parameters.auto_converge:
            self.percent = next_percent(
                self.percent, period.dirty_bytes, threshold_bytes, self.parameters
            )
        return self.parameters.auto_converge

    @property
    def exhausted(self) -> bool:
        """Whether the throttle cannot rise any more."""
        return not self.parameters.auto_converge or self.percent >= self.parameters.max_cpu_throttle


def next_percent(
    percent: int, dirty_bytes: int, threshold_bytes: int, parameters: Parameters
) -> int:
    """The step after `percent`.

    With tailslow no larger than what would bring the dirty bytes down to the threshold, as QEMU
    computes it: the share in double precision, then truncated.

    Source: migration/ram.c:mig_throttle_guest_down [7.2 to 10.1].
    """
    if percent == 0:
        return parameters.cpu_throttle_initial
    increment = parameters.cpu_throttle_increment
    if parameters.cpu_throttle_tailslow:
        cpu_now = 100 - percent
        cpu_ideal = int(cpu_now * (threshold_bytes / dirty_bytes))
        increment = min(cpu_now - cpu_ideal, increment)
    return min(percent + increment, parameters.max_cpu_throttle)
