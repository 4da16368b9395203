"""Proxmox VE's loop of a live migration, which doubles the downtime limit until QEMU switches over.

The loop polls every second, and every 0.1 s once little memory is left. A poll counts if more memory
is left than at the poll before, or none. The sixth such poll doubles the limit.

Source: proxmox/qemu-server, src/PVE/QemuMigrate.pm:phase2 (096a1ac228). Default: qm.conf,
migrate_downtime.
"""

from __future__ import annotations

from gpusim.policies.arguments import check_number
from gpusim.qemu.parameters import MOST_DOWNTIME_LIMIT_MS
from gpusim.qemu.rules import Orders, Shown
from gpusim.units import NS_PER_MS, NS_PER_S

RISES = 6
SLOW_NS, FAST_NS = NS_PER_S, 100 * NS_PER_MS


class Proxmox:
    """The loop of `qm migrate`. There is no timeout.

    Args:
        migrate_downtime: the first downtime limit in s, as in qm.conf, 0.001 to 2000.

    Attributes:
        first_ms: the first downtime limit.

    Raises:
        ValueError: the argument is out of range.
    """

    def __init__(self, migrate_downtime: float = 0.1) -> None:
        check_number("migrate_downtime", migrate_downtime, 0.001, MOST_DOWNTIME_LIMIT_MS / 1000)
        self.first_ms = self._limit_ms = int(1000 * migrate_downtime)
        self._due_ns, self._every_ns = SLOW_NS, SLOW_NS
        self._polls = self._rises = 0
        self._last_sent = self._last_left = 0  # bytes at the poll before

    def look(self, shown: Shown) -> Orders:
        """Set the first limit at once, and poll when that is due."""
        if shown.time_ns < self._due_ns:
            is_start = self._polls == 0 and shown.downtime_limit_ms != self.first_ms
            settings = {"downtime_limit": self.first_ms} if is_start else {}
            return Orders(set=settings, again_ns=self._due_ns)
        is_doubled = self._poll(shown)
        self._due_ns = shown.time_ns + self._every_ns
        settings = {"downtime_limit": self._limit_ms} if is_doubled else {}
        return Orders(set=settings, again_ns=self._due_ns)

    def _poll(self, shown: Shown) -> bool:
        """Return whether the limit doubles. A poll at which nothing was sent counts for nothing."""
        self._polls += 1
        mean_sent, left = self._last_sent / self._polls, shown.remaining_bytes
        if shown.transferred_bytes == self._last_sent:
            return False
        if left < mean_sent:
            self._every_ns = FAST_NS
        self._rises += (0 < self._last_left < left) or left == 0
        self._last_sent, self._last_left = shown.transferred_bytes, left
        if self._rises < RISES:
            return False
        self._rises = 0
        doubled_ms = min(2 * self._limit_ms, MOST_DOWNTIME_LIMIT_MS)
        self._limit_ms, before_ms = doubled_ms, self._limit_ms
        return doubled_ms != before_ms
