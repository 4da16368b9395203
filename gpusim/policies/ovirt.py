"""vdsm's monitor of a live migration under a migration policy of oVirt.

The monitor polls every 10 s. If more memory is left than at the poll before, a new iteration has
begun. The policy is a list of actions, each with a number of iterations. A new iteration executes
the first action that is left, if more iterations than its number have begun.

Source: oVirt/vdsm, lib/vdsm/virt/migration.py:MonitorThread (00b36bae44), migration_monitor_interval.
oVirt/ovirt-engine, packaging/dbscripts/upgrade/pre_upgrade/0000_config.sql:MigrationPolicies for
cluster level 4.3 (00520f66af).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from gpusim.policies.arguments import check_name, check_whole
from gpusim.qemu.rules import Orders, Shown
from gpusim.units import NS_PER_S

# The table gives a policy's last items no number. Assumed: any new iteration executes the next one.
AT_ONCE = -1
FIRST_MS = 100


class Item(NamedTuple):
    """An action and the number of iterations that must be over. A limit of 0 ms is no limit."""

    iterations: int
    action: str
    limit_ms: int = 0


def _limits(*items: tuple[int, int]) -> tuple[Item, ...]:
    return tuple(Item(count, "set", limit_ms) for count, limit_ms in items)


_RISING = _limits((1, 150), (2, 200), (3, 300), (4, 400), (6, 500))
_ABORT = Item(AT_ONCE, "abort")
POLICIES = {
    "minimal_downtime": (*_RISING, _ABORT),
    "suspend_workload": (*_RISING, *_limits((AT_ONCE, 5000)), _ABORT),
    "post_copy": (*_limits((1, 150), (2, 200)), Item(AT_ONCE, "post_copy"), _ABORT),
}


class OVirt:
    """vdsm's monitor. It has no timeout, only actions per iteration.

    Args:
        migration_policy: minimal_downtime, suspend_workload or post_copy.
        monitor_interval: s between two polls, 1 to 3600.

    Attributes:
        migration_policy: its name.
        items: the policy's actions, first one first.
        required_settings: keys of `migration` that oVirt sets, and their values.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(
        self, migration_policy: str = "minimal_downtime", monitor_interval: int = 10
    ) -> None:
        check_name("migration_policy", migration_policy, POLICIES)
        check_whole("monitor_interval", monitor_interval, 1, 3600)
        self.migration_policy = migration_policy
        self.items = POLICIES[migration_policy]
        switches = any(item.action == "post_copy" for item in self.items)
        self.required_settings: Mapping[str, bool] = {"postcopy_ram": True} if switches else {}
        self._has_switched = False  # to post-copy
        self._left = list(self.items)
        self._every_ns = monitor_interval * NS_PER_S
        self._due_ns = self._every_ns
        self._iterations, self._last_bytes = 0, 0

    def look(self, shown: Shown) -> Orders:
        """Set the first limit at once, and poll when that is due. Do nothing in post-copy."""
        if self._has_switched:
            return Orders()
        if shown.time_ns < self._due_ns:
            is_start = shown.dirty_sync_count <= 1 and shown.downtime_limit_ms != FIRST_MS
            settings = {"downtime_limit": FIRST_MS} if is_start else {}
            return Orders(set=settings, again_ns=self._due_ns)
        self._due_ns = shown.time_ns + self._every_ns
        begins = 0 < self._last_bytes < shown.remaining_bytes
        self._last_bytes = shown.remaining_bytes
        self._iterations += begins
        if not begins or not self._left or self._left[0].iterations >= self._iterations:
            return Orders(again_ns=self._due_ns)
        return self._execute(self._left.pop(0))

    def _execute(self, item: Item) -> Orders:
        if item.action == "set":
            return Orders(set={"downtime_limit": item.limit_ms}, again_ns=self._due_ns)
        if item.action == "post_copy":
            self._has_switched = True
            return Orders(do="start-postcopy")
        return Orders(do="cancel", why=f"no convergence after {self._iterations} iterations")
