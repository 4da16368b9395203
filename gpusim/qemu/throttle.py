"""Why the throttle rises: a high period is one that dirtied more than a share of what was sent."""

from __future__ import annotations

from gpusim.qemu.parameters import Parameters
from gpusim.qemu.sync import Period, Sync


class ThrottleRule:
    """Auto-converge: every second high period, in a row or not, takes one step.

    Attributes:
        parameters: may be replaced at any time.
        high_periods: so many take a step.
        dirty_rate_high_cnt: high periods since the last step.
        percent: the throttle; it falls only where max_cpu_throttle is lowered meanwhile.

    Source: migration/ram.c:migration_trigger_throttle [7.2 to 10.1].
    """

    high_periods = 2

    def __init__(self, parameters: Parameters) -> None:
        self.parameters = parameters
        self.dirty_rate_high_cnt = 0
        self.percent = 0

    def on_sync(self, sync: Sync) -> bool:
        """Nothing: QEMU's throttle looks at periods."""
        return False

    def on_period(self, period: Period) -> bool:
        """A period has closed. Whether it triggers (trace migration_throttle); `percent` is then new."""
        dirty_bytes = self._dirty_bytes(period)
        threshold_bytes = period.xfer_bytes * self.parameters.throttle_trigger_threshold // 100
        alone = self._suffices_alone(period)
        if dirty_bytes <= threshold_bytes:
            return False
        self.dirty_rate_high_cnt += 1
        enough = self.dirty_rate_high_cnt >= self.high_periods
        if enough:
            self.dirty_rate_high_cnt = 0
        if not self.parameters.auto_converge or not (enough or alone):
            return False
        self.percent = next_percent(self.percent, dirty_bytes, threshold_bytes, self.parameters)
        return True

    def _dirty_bytes(self, period: Period) -> int:
        """What is compared with the share of what was sent."""
        return period.dirty_bytes

    def _suffices_alone(self, period: Period) -> bool:
        """Whether this period, if high, takes a step without a second one."""
        return False

    @property
    def exhausted(self) -> bool:
        """Whether the throttle cannot rise any more."""
        return not self.parameters.auto_converge or self.percent >= self.parameters.max_cpu_throttle


class EarlyThrottleRule(ThrottleRule):
    """QEMU 2.6: every third high period takes a step, and only after a period that dirtied something.

    It asks for the rate of the period before, which is 0 at the first: the end of the first pass never
    counts. A share of one half is part of the code.

    Source: migration/ram.c:migration_bitmap_sync [2.6].
    """

    high_periods = 3

    def __init__(self, parameters: Parameters) -> None:
        super().__init__(parameters)
        self._dirty_pages_rate = 0

    def _dirty_bytes(self, period: Period) -> int:
        """Nothing, where the period before had no rate: this one does not count then."""
        rate_before, self._dirty_pages_rate = self._dirty_pages_rate, period.dirty_pages_rate
        return period.dirty_bytes if rate_before else 0


def next_percent(
    percent: int, dirty_bytes: int, threshold_bytes: int, parameters: Parameters
) -> int:
    """The step after `percent`.

    With tailslow no larger than what would bring the dirty bytes down to the threshold, as QEMU
    computes it: the share in double precision, then truncated.

    Source: migration/ram.c:mig_throttle_guest_down [2.6 to 10.1; tailslow since 5.1].
    """
    if percent == 0:
        return parameters.cpu_throttle_initial
    increment = parameters.cpu_throttle_increment
    if parameters.cpu_throttle_tailslow:
        cpu_now = 100 - percent
        cpu_ideal = int(cpu_now * (threshold_bytes / dirty_bytes))
        increment = min(cpu_now - cpu_ideal, increment)
    return min(percent + increment, parameters.max_cpu_throttle)
