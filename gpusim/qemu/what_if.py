"""Rules that no QEMU has: alternatives to the fallback sync for long passes.

Each rule extends a merged rule, so that a run with it differs from `qemu_9_2` only in this rule.
"""

from __future__ import annotations

from gpusim.qemu.parameters import Parameters
from gpusim.qemu.sync import FIRST_PASS_COUNT, Period
from gpusim.qemu.sync_timer import SyncTimerRule
from gpusim.qemu.throttle import ThrottleRule


class FirstPassSyncTimerRule(SyncTimerRule):
    """The timer may also force a sync in the first pass, after the setup's sync."""

    syncs_from_count = FIRST_PASS_COUNT


class ResponsiveThrottleRule(ThrottleRule):
    """A second criterion besides two high periods: the dirty bytes per sent byte do not fall.

    The ratio of a period is its dirty bytes in whole percent of its sent bytes. A period is rising
    if its ratio exceeds the threshold and is not below the ratio of the period before, which must
    not be 0. Every second rising period takes a step if it is high, without a second high period.

    Source: migration/ram.c:migration_dirty_ratio_high and migration_trigger_throttle, in the mail
    3a383e56...1727630000.git.yong.huang@smartx.com ("PATCH v2 3/3", 2024-09-30), the parameter
    cpu-throttle-responsive. The series dropped it. The mail keeps its count in a static variable.
    Here the count restarts with each migration.
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
    """Scales a period's dirty bytes up to a VM without pending pages.

    Only clean pages can become dirty. A period is high if the dirtied share of the clean RAM
    exceeds the threshold's percentage of the sent share of all RAM. If no page is pending, the rule
    equals QEMU's own.
    """

    def _dirty_bytes(self, period: Period) -> int:
        return period.dirty_bytes * period.ram_bytes // max(period.clean_bytes, 1)
