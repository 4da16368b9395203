"""Logs of oVirt's vdsm: a "Migration Progress" line every 10 s, and its convergence schedule.

Sizes are whole MiB, printed as MB. "zero pages" is a number of pages, though MB stands behind it.
Source: vdsm's lib/vdsm/virt/migration.py: Progress.__str__, MonitorThread and
SourceThread._startUnderlyingMigration, of several releases. Old ones print percentages only.
"""

from __future__ import annotations

import re

from gpusim.formats.migration_log import (
    CANCELLED,
    COMPLETED,
    FAILED,
    MigrationLog,
    Progress,
    first_end,
    last_run,
    number,
    whole,
)
from gpusim.formats.sync_record import PAGE_BYTES
from gpusim.units import MIB

KIND = "vdsm"
VM = re.compile(r"\bvmId=['`]([\w-]{1,80})['`]", re.ASCII)  # the back quotes are of old releases
LINE = re.compile(
    r"Migration Progress: ([0-9]{1,12}(?:\.[0-9]{1,12})?) seconds elapsed, "
    r"[0-9.]{1,12}% of data processed"
    r"(?:, total data: ([0-9]{1,12})MB, processed data: ([0-9]{1,12})MB, "
    r"remaining data: ([0-9]{1,12})MB, transfer speed ([0-9]{1,12})(MBps|Mbps), "
    r"zero pages: ([0-9]{1,15})MB, compressed: [0-9]{1,12}MB, dirty rate: (-?[0-9]{1,15}), "
    r"memory iteration: (-?[0-9]{1,12}))?",
    re.ASCII,
)
SPEEDS = {"MBps": MIB, "Mbps": MIB / 8}
LIMIT = re.compile(r"Setting downtime to ([0-9]{1,10})", re.ASCII)
ENDS = (
    (re.compile(r"migration took ([0-9]{1,10}) seconds to complete"), COMPLETED),
    (re.compile(r"Aborting migration|The migration took [0-9]{1,10} seconds which is "), CANCELLED),
    (re.compile(r"Failed to migrate|Migration is stuck: [^\n]{0,120}"), FAILED),
)


def read_vdsm(text: str) -> MigrationLog | None:
    """Return the last migration of a log. None: no line is whole.

    One log has many VMs, which may migrate at the same time. The VM whose line comes last counts.
    """
    text, others = _of_last_vm(text)
    lines = [(match.start(), _report(match)) for match in LINE.finditer(text)]
    if not lines:
        return None
    start, migrations = last_run([one for _, one in lines])
    began = lines[start - 1][0] if start else 0
    reports = tuple(one for _, one in lines[start:])
    reason, seconds = "", reports[-1].time_s
    outcome, end = first_end(text, ENDS, lines[start][0])
    if end is not None and outcome == COMPLETED:
        seconds = float(end[1])
    elif end is not None:
        reason = end[0]
    limits = tuple(
        (_time_before(lines[start:], match.start()), int(match[1]))
        for match in LIMIT.finditer(text)
        if match.start() > began
    )
    return MigrationLog(
        kind=KIND,
        reports=reports,
        outcome=outcome,
        reason=reason,
        seconds=seconds,
        limits=limits,
        migrations=migrations + others,
    )


def _of_last_vm(text: str) -> tuple[str, int]:
    """Return the text without the lines of other VMs, and how many other VMs report progress."""
    lines = text.split("\n")
    vms = [found[1] if (found := VM.search(line)) else "" for line in lines]
    migrating = [vm for line, vm in zip(lines, vms, strict=True) if vm and LINE.search(line)]
    if not migrating:
        return text, 0
    own = ("", migrating[-1])
    kept = [line for line, vm in zip(lines, vms, strict=True) if vm in own]
    return "\n".join(kept), len(set(migrating)) - 1


def _report(match: re.Match[str]) -> Progress:
    if match[2] is None:
        return Progress(time_s=number(match[1]))
    dirty, iteration = int(match[8]), int(match[9])
    return Progress(
        time_s=number(match[1]),
        total_bytes=whole(match[2], MIB),
        transferred_bytes=whole(match[3], MIB),
        remaining_bytes=whole(match[4], MIB),
        bytes_per_s=number(match[5], SPEEDS[match[6]]),
        zero_pages=whole(match[7]),
        dirty_bytes_per_s=None if dirty < 0 else float(dirty * PAGE_BYTES),
        iteration=None if iteration < 0 else iteration,
    )


def _time_before(lines: list[tuple[int, Progress]], place: int) -> float:
    """Return the time of the last report before a place in the text."""
    times = [one.time_s or 0.0 for at, one in lines if at < place]
    return times[-1] if times else 0.0
