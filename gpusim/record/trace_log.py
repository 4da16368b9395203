"""QEMU's trace events as its log backend prints them."""

from __future__ import annotations

import re
from dataclasses import dataclass

# trace/simpletrace has another format; Debian's QEMU logs. `pid@seconds.micros:` stands there with
# -msg timestamp=on (Source: QEMU scripts/tracetool/backend/log.py:generate_h, 7.2 and 10.0).
LINE = re.compile(r"(?:\d+@(\d+\.\d+):)?([a-z][a-z0-9_]+)(?: (.*))?")

# What a recording holds of them: state, syncs, the throttle, what decides about the end.
# QEMU 7.2 has no cpu_throttle_set and no migrate_pending_exact; it warns and goes on.
EVENTS = (
    "migrate_set_state",
    "migration_thread_setup_complete",
    "migration_bitmap_sync_start",
    "migration_bitmap_sync_end",
    "migration_throttle",
    "cpu_throttle_set",
    "migrate_pending_exact",
    "migration_thread_low_pending",
    "migration_completion_vm_stop",
)


@dataclass(frozen=True, kw_only=True)
class TraceLine:
    """One event; `time_s` is the wall clock's."""

    time_s: float
    name: str
    arguments: str


def parsed(line: str, arrival_s: float) -> TraceLine | None:
    """The event that a line tells, or None: QEMU's other words come on the same way.

    Args:
        arrival_s: the event's time where the line bears none.
    """
    match = LINE.fullmatch(line.strip())
    if match is None or match[2] not in EVENTS:
        return None
    time_s = float(match[1]) if match[1] else arrival_s
    return TraceLine(time_s=time_s, name=match[2], arguments=(match[3] or "").strip())
