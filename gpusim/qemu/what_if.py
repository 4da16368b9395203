"""Rules that no QEMU has, for docs/study.md: what else could have been done about long passes.

They extend the rules as merged, so that a run under one of them differs from `qemu_9_2` in it alone.
"""

from __future__ import annotations

from gpusim.qemu.parameters import Parameters
from gpusim.qemu.sync import Period
from gpusim.qemu.sync_timer import FIRST_PASS_COUNT, SyncTimerRule
from gpusim.qemu.throttle import ThrottleRule


class FirstPassSyncTimerRule(SyncTimerRule):
    """The first pass is not exempt: the timer may force a sync as soon as the setup's is over."""

    syncs_from_count = FIRST_PASS_COUNT


class ResponsiveThrottleRule(ThrottleRule):
    """A second criterion beside the two high periods: what is dirtied a byte sent does not fall.

    The ratio of a period is its dirty bytes in whole percent of what it sent. A period is rising if its
    ratio exceeds the threshold and is not below that of the period before, which must not be 0. Every
    second rising period takes a step if it is high, without waiting for a second high one.

    Source: migration/ram.c:migration_dirty_ratio_high and migration_trigger_throttle, in the mail
    3a383e56...1727630000.git.yong.huang@smartx.com ("PATCH v2 3/3", 2024-09-30), the parameter
    cpu-throttle-responsive; the series dropped it. Its count is a function's static there, and ours
    starts anew with a migration.
    """

    def __init__(self, parameters: Parameters) -> None:
        super().__init__(parameters)
        self._ratio_percent = 0
        self._rising_periods = 0

    def _suffices_alone(self, period: Period) -> bool:
        if period.xfer_bytes == 0:
            return False
        before, ratio = self._ratio_percent, 100 * period.dirty_bytes // period.xfer_bytes
        self._ratio_percent = ratio
        if before == 0:
            return False
        self._rising_periods += (
            ratio > self.parameters.throttle_trigger_threshold and ratio >= before
        )
        if self._rising_periods < 2:
            return False
        self._rising_periods = 0
        return True


class OverCleanThrottleRule(ThrottleRule):
    """A period's dirty bytes are scaled up to a RAM that is all clean, as only clean pages can count.

    High is thus a period in which a larger share of the clean RAM was dirtied than the threshold's
    percentage of the share of all RAM that was sent. Where nothing is pending it is QEMU's own rule.
    """

    def _dirty_bytes(self, period: Period) -> int:
        return period.dirty_bytes * period.ram_bytes // max(period.clean_bytes, 1)
