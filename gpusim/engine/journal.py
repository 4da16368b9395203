"""The journal of a run: when its threads hold what, and how many pages each has moved.

It is kept if the environment has GPUSIM_AUDIT=1, as the tests do. The audit reads it. No result
depends on it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import NamedTuple

from gpusim.guest.reaper import Holds


class SyncEntry(NamedTuple):
    """One dirty sync, cut or whole.

    Attributes:
        by_main_loop: the fallback timer's. If not, then the migration thread syncs.
        is_cut: the run ended inside the sync.
        start_ns, end_ns: while the big lock is held.
        mutex_from_ns, mutex_until_ns: while the bitmap's mutex is held.
        protect_ns: the time of write-protection, before the merge.
        pending_before, newly_dirty, pending_pages: pages before the merge, new ones, and after it.
        sent_pages: pages sent since the start of the run, when the sync merged.
    """

    by_main_loop: bool
    is_cut: bool
    start_ns: int
    end_ns: int
    mutex_from_ns: int
    mutex_until_ns: int
    protect_ns: int
    pending_before: int
    newly_dirty: int
    pending_pages: int
    sent_pages: int


@dataclass
class Journal:
    """What one run has done.

    Attributes:
        syncs: in the order in which they ended.
        reaper_holds: the reaper of dirty rings holds the big lock, in the VM's time.
        sends: (ps, ps): from when to when the sender sent pages or waited inside a burst.
        sent_pages, pending_pages, bitmap_pages: at the end: pages sent, pages that the host counts as
            dirty, and set bits of the bitmap.
    """

    syncs: list[SyncEntry] = field(default_factory=list)
    reaper_holds: list[Holds] = field(default_factory=list)
    sends: list[tuple[int, int]] = field(default_factory=list)
    sent_pages: int = 0
    pending_pages: int = 0
    bitmap_pages: int = 0


def is_audited() -> bool:
    """Return whether the environment asks for an audit of each run."""
    return os.environ.get("GPUSIM_AUDIT") == "1"
