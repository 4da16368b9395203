"""When the throttle rises. A period is high if it dirties more than a share of the sent bytes."""

from __future__ import annotations

from gpusim.qemu.parameters import Parameters
from gpusim.qemu.sync import Period, Sync


class ThrottleRule:
    """Auto-converge: every second high period takes one step. They need not be consecutive.

    Args:
        parameters: migration parameters.

    Attributes:
        parameters: migration parameters. They may be replaced at any time.
        high_periods: number of high periods per step.
        dirty_rate_high_cnt: high periods since the last step.
        percent: the throttle. It falls only if max_cpu_throttle is lowered during the migration.

    Source: migration/ram.c:migration_trigger_throttle [7.2 to 10.1].
    """

    high_periods = 2

    def __init__(self, parameters: Parameters) -> None:
        self.parameters = parameters
        self.dirty_rate_high_cnt = 0
        self.percent = 0

    def on_sync(self, sync: Sync) -> bool:
        """Return False, because QEMU's throttle rises only at the end of a period."""
        return False

    def on_period(self, period: Period) -> bool:
        """Return whether a period triggers the throttle, which sets `percent`.

        QEMU then emits the trace event migration_throttle.
        """
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
        """The bytes that QEMU compares with the share of the sent bytes."""
        return period.dirty_bytes

    def _suffices_alone(self, period: Period) -> bool:
        """Whether this period takes a step without a second high period, if it is high."""
        return False

    @property
    def exhausted(self) -> bool:
        """Whether the throttle cannot rise any more, see rules.ThrottlePolicy."""
        return not self.parameters.auto_converge or self.percent >= self.parameters.max_cpu_throttle


class EarlyThrottleRule(ThrottleRule):
    """QEMU 2.6: every third high period takes a step, but only after a period with dirty pages.

    QEMU 2.6 reads the rate of the period before, which is 0 in the first period. So the end of the
    first pass never counts. The share of 50 % is part of QEMU's code.

    Source: migration/ram.c:migration_bitmap_sync [2.6].
    """

    high_periods = 3

    def __init__(self, parameters: Parameters) -> None:
        super().__init__(parameters)
        self._dirty_pages_rate = 0

    def _dirty_bytes(self, period: Period) -> int:
        """0 if the period before had a rate of 0, so that this period does not count."""
        rate_before, self._dirty_pages_rate = self._dirty_pages_rate, period.dirty_pages_rate
        return period.dirty_bytes if rate_before else 0


def next_percent(
    percent: int, dirty_bytes: int, threshold_bytes: int, parameters: Parameters
) -> int:
    """Return the throttle after the next step.

    With tailslow, a step is not larger than needed to bring the dirty bytes down to the threshold.
    QEMU computes that share in double precision and truncates it.

    Args:
        percent: the throttle now. 0: none.
        dirty_bytes: dirty bytes of the period.
        threshold_bytes: dirty bytes above which a period is high.
        parameters: migration parameters.

    Source: migration/ram.c:mig_throttle_guest_down [2.6 to 10.1, tailslow since 5.1].
    """
    if percent == 0:
        return parameters.cpu_throttle_initial
    increment = parameters.cpu_throttle_increment
    if parameters.cpu_throttle_tailslow:
        cpu_now = 100 - percent
        cpu_ideal = int(cpu_now * (threshold_bytes / dirty_bytes))
        increment = min(cpu_now - cpu_ideal, increment)
    return min(percent + increment, parameters.max_cpu_throttle)
