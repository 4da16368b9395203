"""Task logs of Proxmox VE: one line per second, and the downtime limit that Proxmox VE doubles.

A line has the bytes sent, the size and the speed, and the dirty rate only if it is above the speed. In
older releases it has bytes sent, remaining and total. Source: qemu-server's PVE/QemuMigrate.pm: phase2
and pve-guest-common's PVE/AbstractMigrate.pm: migrate, of several releases, and logs that users posted.
"""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import datetime, timedelta

from gpusim.formats.migration_log import (
    CANCELLED,
    COMPLETED,
    FAILED,
    RUNNING,
    MigrationLog,
    Progress,
)
from gpusim.units import SIZE_UNITS

KIND = "proxmox"
NO_YEAR = 2000  # stands for the year of a log without years. It has a 29 February.
CLOCK = re.compile(
    r"(?:(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)|([A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d)) ", re.ASCII
)
TELLING = re.compile(r"migrat|downtime|interrupt|TASK ERROR: ")  # lines that may be read
SIZE = r"([0-9]{1,12}(?:\.[0-9]{1,6})?) (B|KiB|MiB|GiB|TiB)"
ACTIVE = re.compile(
    rf"migration active, transferred {SIZE} of {SIZE} VM-state, {SIZE}/s"
    rf"(?:, VM dirties lots of memory: {SIZE}/s)?",
    re.ASCII,
)
OLDER = re.compile(
    r"migration status: active \(transferred ([0-9]{1,18}), remaining ([0-9]{1,18})\), "
    r"total ([0-9]{1,18})\)",
    re.ASCII,
)
LIMIT = re.compile(
    r"(?:migration downtime limit: |auto-increased downtime to continue migration: )"
    r"([0-9]{1,10})(?:\.[0-9]+)? ms",
    re.ASCII,
)
OLDER_LIMIT = re.compile(r"migrate_set_downtime: ([0-9]{1,6}(?:\.[0-9]{1,6})?)\b", re.ASCII)
STARTS = "start migrate command to "
DONE = re.compile(r"migration speed: [^\n]{1,60} - downtime ([0-9]{1,10}) ms", re.ASCII)
FINISHED = re.compile(r"migration finished success?ful?ly \(duration (\d\d):(\d\d):(\d\d)\)")
ABORTED = re.compile(r"migration aborted \(duration (\d{2,4}):(\d\d):(\d\d)\)(?:: ([^\n]{1,200}))?")
CANCELS = re.compile(r"migration status error: cancelled|interrupted by signal|received interrupt")
FAILS = re.compile(
    r"migration status error: failed(?: - ([^\n]{1,200}))?|online migrate failure|TASK ERROR: "
)


def read_proxmox(text: str) -> MigrationLog | None:
    """Return the last migration of a log. None: no line is whole.

    Only migrations with a whole line are counted.
    """
    runs: list[list[str]] = [[]]
    for line in text.split("\n"):
        if "starting migration of VM " in line:
            runs.append([])
        runs[-1].append(line)
    found = [one for run in runs if (one := _migration(run)) is not None]
    return replace(found[-1], migrations=len(found)) if found else None


def _migration(lines: list[str]) -> MigrationLog | None:
    reports: list[Progress] = []
    limits: list[tuple[float | None, int]] = []
    outcome, reason, downtime_ms, seconds = RUNNING, "", None, None
    start: datetime | None = None
    for line in lines:
        if start is not None and not TELLING.search(line):
            continue
        clock = _clock(line)
        if clock is not None and (start is None or STARTS in line):
            start, limits = clock, [(0.0, limit_ms) for _, limit_ms in limits]
        time_s = _since(start, clock)
        if match := ACTIVE.search(line):
            reports.append(_newer(match, time_s))
        elif match := OLDER.search(line):
            sizes = map(int, match.groups())
            transferred, remaining, total = sizes
            reports.append(
                Progress(
                    time_s=time_s,
                    transferred_bytes=transferred,
                    remaining_bytes=remaining,
                    total_bytes=total or None,
                )
            )
        elif match := LIMIT.search(line):
            limits.append((time_s, int(match[1])))
        elif match := OLDER_LIMIT.search(line):
            limits.append((time_s, round(1000 * float(match[1]))))
        elif match := DONE.search(line):
            outcome, downtime_ms, seconds = COMPLETED, float(match[1]), time_s
        elif match := ABORTED.search(line):
            outcome = FAILED if outcome == RUNNING else outcome
            reason = match[4] or reason
            seconds = seconds or time_s
        elif match := FINISHED.search(line):
            outcome = COMPLETED
        elif CANCELS.search(line):
            outcome = CANCELLED
        elif (match := FAILS.search(line)) and outcome == RUNNING:
            outcome = FAILED
            reason = reason or match[1] or line.partition("ERROR: ")[2][:200]
    if not reports:
        return None
    if seconds is None:
        seconds = reports[-1].time_s
    return MigrationLog(
        kind=KIND,
        reports=tuple(reports),
        outcome=outcome,
        reason="" if outcome == COMPLETED else reason,
        seconds=seconds,
        downtime_ms=downtime_ms,
        limits=tuple(limits),
    )


def _newer(match: re.Match[str], time_s: float | None) -> Progress:
    sizes = [
        None if match[place] is None else float(match[place]) * SIZE_UNITS[match[place + 1]]
        for place in (1, 3, 5, 7)
    ]
    transferred, total, speed, dirty = sizes
    assert transferred is not None and total is not None
    return Progress(
        time_s=time_s,
        transferred_bytes=round(transferred),
        total_bytes=round(total) or None,
        bytes_per_s=speed,
        dirty_bytes_per_s=dirty,
    )


def _clock(line: str) -> datetime | None:
    match = CLOCK.search(line)
    if match is None:
        return None
    try:
        if match[1]:
            return datetime.fromisoformat(match[1])
        return datetime.strptime(f"{NO_YEAR} {match[2]}", "%Y %b %d %H:%M:%S")
    except ValueError:  # month 13
        return None


def _since(start: datetime | None, clock: datetime | None) -> float | None:
    """Return the seconds from one line to a later one. None: unknown."""
    if start is None or clock is None:
        return None
    passed = clock - start
    if passed < timedelta(0):
        if start.year != NO_YEAR:  # the clock was set back, as at the end of summer time
            return None
        passed += timedelta(days=366)  # over the turn of the year
    return passed.total_seconds()
