"""Parse QEMU's trace events as its log backend prints them."""

from __future__ import annotations

import re
from dataclasses import dataclass

# trace/simpletrace has another format. Debian's QEMU uses the log backend. A line starts with
# `pid@seconds.micros:` if QEMU has -msg timestamp=on.
# Source: QEMU scripts/tracetool/backend/log.py:generate_h, 7.2 and 10.0.
LINE = re.compile(r"(?:[0-9]{1,18}@([0-9]{1,18}\.[0-9]{1,18}):)?([a-z][a-z0-9_]+)(?: (.*))?")

# A recording keeps these events: state, syncs, the throttle, and the decision to switch over.
# QEMU 7.2 has no cpu_throttle_set and no migrate_pending_exact. It warns and goes on.
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
    """One event. `time_s` is wall-clock time."""

    time_s: float
    name: str
    arguments: str


def parse_trace_line(line: str, arrival_s: float) -> TraceLine | None:
    """Return the event of a line, or None, because QEMU prints other lines there as well.

    Args:
        line: one line of QEMU's stderr or log.
        arrival_s: the event's time if the line has none.
    """
    match = LINE.fullmatch(line.strip())
    if match is None or match[2] not in EVENTS:
        return None
    time_s = float(match[1]) if match[1] else arrival_s
    return TraceLine(time_s=time_s, name=match[2], arguments=(match[3] or "").strip())
