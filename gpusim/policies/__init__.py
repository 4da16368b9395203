"""Everything that a rule of your own needs, in one import.

The modules of this package are rules of other projects. docs/how-to/write-a-rule.md shows how to
write a rule.
`gpusim.qemu.rules` is the contract of each kind of rule.
"""

from gpusim.qemu.bandwidth import LastWindow
from gpusim.qemu.parameters import Parameters
from gpusim.qemu.rules import (
    BandwidthPolicy,
    Manager,
    Orders,
    RuleError,
    Shown,
    SwitchoverPolicy,
    SyncTimerPolicy,
    ThrottlePolicy,
    Windows,
)
from gpusim.qemu.switchover import SwitchoverRule
from gpusim.qemu.sync import Period, Sync
from gpusim.qemu.sync_timer import SyncTimerRule, SyncTimerState
from gpusim.qemu.throttle import ThrottleRule, next_percent

__all__ = [
    "BandwidthPolicy",
    "LastWindow",
    "Manager",
    "Orders",
    "Parameters",
    "Period",
    "RuleError",
    "Shown",
    "SwitchoverPolicy",
    "SwitchoverRule",
    "Sync",
    "SyncTimerPolicy",
    "SyncTimerRule",
    "SyncTimerState",
    "ThrottlePolicy",
    "ThrottleRule",
    "Windows",
    "next_percent",
]
