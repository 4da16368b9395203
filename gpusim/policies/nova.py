"""OpenStack Nova's monitor of a live migration: steps of the downtime limit, and a timeout.

Nova polls every 0.5 s. A step or a timeout is due at the first poll after its time. Times scale with
the memory of the flavour, and with the disks of a block migration, which gpusim does not simulate.

Source: openstack/nova, nova/virt/libvirt/migration.py:downtime_steps, update_downtime,
should_trigger_timeout_action, run_tasks (060445aa2f). nova/virt/libvirt/driver.py:
_live_migration_data_gb, _live_migration_monitor (000d6ff942). Defaults: nova/conf/libvirt.py
(009ffe4127).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from gpusim.policies.arguments import check_flag, check_name, check_whole
from gpusim.policies.vm_size import spec_bytes
from gpusim.qemu.parameters import MOST_DOWNTIME_LIMIT_MS
from gpusim.qemu.rules import Orders, Shown
from gpusim.units import GIB, NS_PER_MS, NS_PER_S

POLL_NS = 500 * NS_PER_MS
LEAST_GIB = 2  # the smallest size that a time is multiplied by
LEAST_DOWNTIME_MS, LEAST_STEPS, LEAST_DELAY_S = 100, 3, 3  # the smallest that nova.conf accepts
MOST_STEPS, MOST_S = 1000, 10**6
ACTIONS = ("abort", "force_complete")


class Step(NamedTuple):
    """A step of the downtime limit: seconds since Nova began to wait, and the limit in ms."""

    after_s: int
    limit_ms: int


def data_gib(total_bytes: int) -> float:
    """Return the GiB that Nova multiplies its times by.

    Args:
        total_bytes: guest memory that QEMU migrates.
    """
    return max(LEAST_GIB, spec_bytes(total_bytes) / GIB)


def downtime_steps(gib: float, downtime: int, steps: int, delay: int) -> list[Step]:
    """Return the timetable of the downtime limit, first step first.

    Args:
        gib: from `data_gib`.
        downtime: live_migration_downtime, ms.
        steps: live_migration_downtime_steps.
        delay: live_migration_downtime_delay, s per GiB.
    """
    wait_s, first_ms = int(delay * gib), downtime / steps
    rise_ms = (downtime - first_ms) / steps
    return [Step(wait_s * n, int(first_ms + rise_ms * n)) for n in range(steps + 1)]


class Nova:
    """Nova's monitor. The arguments are the options of nova.conf without `live_migration_`.

    Args:
        downtime: the last downtime limit, 100 ms or more.
        downtime_steps: number of steps from the first limit to the last, 3 or more. The first limit
            is downtime / downtime_steps.
        downtime_delay: s per GiB between two steps, 3 or more.
        completion_timeout: s per GiB for the whole migration. 0: no timeout.
        timeout_action: abort, or force_complete. The latter pauses the VM, or switches to post-copy
            if that is permitted.
        permit_post_copy: post-copy is permitted and available. Nova then does not use auto-converge.

    Attributes:
        required_settings: keys of `migration` that Nova sets, and their values.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(
        self,
        downtime: int = 500,
        downtime_steps: int = 10,
        downtime_delay: int = 75,
        completion_timeout: int = 800,
        timeout_action: str = "abort",
        permit_post_copy: bool = False,
    ) -> None:
        check_whole("downtime", downtime, LEAST_DOWNTIME_MS, MOST_DOWNTIME_LIMIT_MS)
        check_whole("downtime_steps", downtime_steps, LEAST_STEPS, MOST_STEPS)
        check_whole("downtime_delay", downtime_delay, LEAST_DELAY_S, MOST_S)
        check_whole("completion_timeout", completion_timeout, 0, MOST_S)
        check_name("timeout_action", timeout_action, ACTIONS)
        check_flag("permit_post_copy", permit_post_copy)
        self._downtime, self._steps, self._delay = downtime, downtime_steps, downtime_delay
        self._timeout, self._forces = completion_timeout, timeout_action == "force_complete"
        self._post_copy = permit_post_copy
        # driver.py:_parse_migration_flags: auto-converge only where post-copy is not permitted
        settings = {"postcopy_ram": True, "auto_converge": False} if permit_post_copy else {}
        self.required_settings: Mapping[str, bool] = settings
        self._left: list[Step] | None = None  # steps to come
        self._force_ns: int | None = None  # when to pause the VM, or to switch to post-copy
        self._is_late = False  # the timeout has passed
        self._has_switched = False  # to post-copy

    def steps(self, total_bytes: int) -> list[Step]:
        """Return the timetable of the downtime limit for a VM."""
        return downtime_steps(data_gib(total_bytes), self._downtime, self._steps, self._delay)

    def timeout_s(self, total_bytes: int) -> int:
        """Return the time that a migration of a VM may take, in s. 0: no timeout."""
        return int(self._timeout * data_gib(total_bytes))

    @property
    def at_timeout(self) -> str:
        """What Nova does at the timeout: abort, pause or post_copy."""
        if not self._forces:
            return "abort"
        return "post_copy" if self._post_copy else "pause"

    def look(self, shown: Shown) -> Orders:
        """Act if a poll is due, and ask for the next poll that has something to do.

        After the switch to post-copy Nova has no timeout, and QEMU no downtime limit to reach.
        """
        if self._has_switched:
            return Orders()
        if self._left is None:
            self._left = self.steps(shown.total_bytes)
        now_ns, timeout_s = shown.time_ns, self.timeout_s(shown.total_bytes)
        if self._force_ns is not None and now_ns >= self._force_ns:
            self._force_ns = None
            if self._post_copy:
                self._has_switched = True
                return Orders(do="start-postcopy")
            return Orders(do="pause", again_ns=self._next_ns(timeout_s))
        if timeout_s and not self._is_late and now_ns >= _due_ns(timeout_s):
            self._is_late = True
            if not self._forces:
                why = f"not completed within {timeout_s} s ({self._timeout} s per GiB)"
                return Orders(do="cancel", why=why)
            self._force_ns = _next_poll_ns(now_ns)  # run_tasks does it at the loop's next turn
        limit_ms = None
        while self._left and now_ns >= _due_ns(self._left[0].after_s):
            limit_ms = self._left.pop(0).limit_ms
        settings = {} if limit_ms is None else {"downtime_limit": limit_ms}
        return Orders(set=settings, again_ns=self._next_ns(timeout_s))

    def _next_ns(self, timeout_s: int) -> int | None:
        due_ns = [_due_ns(step.after_s) for step in (self._left or [])[:1]]
        if self._force_ns is not None:
            due_ns.append(self._force_ns)
        if timeout_s and not self._is_late:
            due_ns.append(_due_ns(timeout_s))
        return min(due_ns, default=None)


def _due_ns(after_s: int) -> int:
    return _next_poll_ns(after_s * NS_PER_S)


def _next_poll_ns(after_ns: int) -> int:
    """Return the time of the first poll that is later than `after_ns`."""
    return (after_ns // POLL_NS + 1) * POLL_NS
