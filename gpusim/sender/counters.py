"""The totals of everything that the sender has sent."""

from __future__ import annotations

from dataclasses import dataclass, field

from gpusim.sender.link import UNITS


@dataclass
class Counters:
    """Totals since the start of the migration.

    Attributes:
        normal_pages, zero_pages: pages sent.
        sent_units: 1/128 bytes queued on the link, headers included.
        remote_clears, remote_clear_ps: number of remote clears, and their time.
        pass_ends_ns: each time at which the cursor wrapped to the first page.
    """

    normal_pages: int = 0
    zero_pages: int = 0
    sent_units: int = 0
    remote_clears: int = 0
    remote_clear_ps: int = 0
    pass_ends_ns: list[int] = field(default_factory=list)

    @property
    def transferred_bytes(self) -> int:
        """Bytes queued on the link, headers included."""
        return self.sent_units // UNITS
