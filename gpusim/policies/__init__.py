"""What whoever writes a rule needs, in one import; and rules of others' that were written that way.

docs/policies.md shows how; `gpusim.qemu.rules` says what each kind of rule is told and must answer.
"""

from gpusim.qemu.parameters import Parameters
from gpusim.qemu.rules import (
    Manager,
    Orders,
    Shown,
    SwitchoverPolicy,
    SyncTimerPolicy,
    ThrottlePolicy,
)
from gpusim.qemu.switchover import SwitchoverRule
from gpusim.qemu.sync import Period, Sync
from gpusim.qemu.sync_timer import SyncTimerRule, SyncTimerState
from gpusim.qemu.throttle import ThrottleRule, next_percent

__all__ = [
    "Manager",
    "Orders",
    "Parameters",
    "Period",
    "Shown",
    "SwitchoverPolicy",
    "SwitchoverRule",
    "Sync",
    "SyncTimerPolicy",
    "SyncTimerRule",
    "SyncTimerState",
    "ThrottlePolicy",
    "ThrottleRule",
    "next_percent",
]
