"""Logs of nova-compute: a "Migration running" line every 30 s, or every 5 s with debug.

Nova prints neither a dirty rate nor a count of syncs. Two lines tell what became dirty between them.
Source: Nova's nova/virt/libvirt/driver.py:_live_migration_monitor and
nova/virt/libvirt/migration.py:update_downtime. Older releases print the line without the disk.
"""

from __future__ import annotations

import re

from gpusim.formats.migration_log import (
    CANCELLED,
    COMPLETED,
    FAILED,
    RUNNING,
    MigrationLog,
    Progress,
    number,
)

KIND = "nova"
INSTANCE = re.compile(r"\[instance: ([0-9a-f-]{1,40})\]")
LINE = re.compile(
    r"Migration running for ([0-9]{1,12}) secs, memory ([0-9]{1,4})% remaining;? ?"
    r"\(bytes processed=([0-9]{1,18}), ?remaining=([0-9]{1,18}), ?total=([0-9]{1,18})\)",
    re.ASCII,
)
LIMIT = re.compile(
    r"Increasing downtime to ([0-9]{1,10}) ms after ([0-9]{1,10}) sec elapsed", re.ASCII
)
ENDS = (
    ("Migration operation has completed", COMPLETED),
    ("Migration operation has aborted", FAILED),
    ("Migration operation was cancelled", CANCELLED),
)
TIMEOUT = re.compile(r"Live migration not completed after [0-9]{1,10} sec")


def read_nova(text: str) -> MigrationLog | None:
    """Return the last migration of a log. None: no line is whole.

    One log has many instances. The instance whose line comes last counts.
    """
    lines = [line for line in text.split("\n") if "igration" in line or "downtime" in line]
    instances = [
        (found[1] if (found := INSTANCE.search(line)) else "")
        for line in lines
        if LINE.search(line)
    ]
    if not instances:
        return None
    own = [line for line in lines if instances[-1] in line]
    runs: list[list[str]] = [[]]
    before_s = -1
    for line in own:
        if match := LINE.search(line) or LIMIT.search(line):
            seconds = int(match[1] if match.re is LINE else match[2])
            if seconds < before_s:
                runs.append([])
            before_s = seconds
        runs[-1].append(line)
    runs = [run for run in runs if any(LINE.search(line) for line in run)]
    return _migration(runs[-1], len(runs) + len(set(instances)) - 1)


def _migration(lines: list[str], migrations: int) -> MigrationLog:
    reports, limits, outcome, reason = [], [], RUNNING, ""
    for line in lines:
        if match := LINE.search(line):
            sent, remaining, total = map(int, match.groups()[2:])
            reports.append(
                Progress(
                    time_s=number(match[1]),
                    transferred_bytes=sent,
                    remaining_bytes=remaining if total else None,
                    total_bytes=total or None,  # not known before the first answer
                )
            )
        elif match := LIMIT.search(line):
            limits.append((float(match[2]), int(match[1])))
        elif match := TIMEOUT.search(line):
            reason = match[0]
        else:
            outcome = next((found for mark, found in ENDS if mark in line), outcome)
    return MigrationLog(
        kind=KIND,
        reports=tuple(reports),
        outcome=outcome,
        reason="" if outcome == COMPLETED else reason,
        seconds=reports[-1].time_s,
        limits=tuple(limits),
        migrations=migrations,
    )
