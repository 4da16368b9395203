"""Parse QEMU's trace events as its log backend prints them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime

# trace/simpletrace has another format. Debian's QEMU uses the log backend. If QEMU has -msg
# timestamp=on, then a line starts with `pid@seconds.micros:` up to 10.0, and with the UTC time in
# ISO 8601 from 10.1 on.
# Source: QEMU scripts/tracetool/backend/log.py:generate_h, 7.2 and 10.0, and util/log.c:qemu_log,
# 10.1 (commit 012842c075).
LINE = re.compile(
    r"(?:[0-9]{1,18}@(?P<unix>[0-9]{1,18}\.[0-9]{1,18}):"
    r"|(?P<iso>[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6})Z )?"
    r"(?P<name>[a-z][a-z0-9_]+)(?: (?P<arguments>.*))?"
)

# A recording keeps these events: state, syncs, the throttle, and the decision to switch over.
# QEMU 7.2 has no cpu_throttle_set and no migrate_pending_exact, and 11.1 has
# qemu_savevm_query_pending instead of the latter. QEMU warns of a missing event and goes on.
QUERY_PENDING = "qemu_savevm_query_pending"
EXACT = re.compile(r"exact=1\b")  # 11.1 also traces each turn's fast query, which does not sync
EVENTS = (
    "migrate_set_state",
    "migration_thread_setup_complete",
    "migration_bitmap_sync_start",
    "migration_bitmap_sync_end",
    "migration_throttle",
    "cpu_throttle_set",
    "migrate_pending_exact",
    QUERY_PENDING,
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
    if match is None or match["name"] not in EVENTS:
        return None
    arguments = (match["arguments"] or "").strip()
    if match["name"] == QUERY_PENDING and not EXACT.match(arguments):
        return None
    try:
        time_s = _time_s(match, arrival_s)
    except ValueError:  # month 13
        return None
    return TraceLine(time_s=time_s, name=match["name"], arguments=arguments)


def _time_s(match: re.Match[str], arrival_s: float) -> float:
    if match["unix"]:
        return float(match["unix"])
    if match["iso"]:
        return datetime.fromisoformat(match["iso"]).replace(tzinfo=UTC).timestamp()
    return arrival_s
