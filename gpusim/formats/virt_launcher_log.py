"""Logs of KubeVirt's virt-launcher: a "Migration info" line about every 4 s.

The line has the figures of virsh domjobinfo, so its syncs can be found. Old releases divide by 8
where they should multiply, so their rates are 64 times too small. Source: KubeVirt's
pkg/virt-launcher/virtwrap/live-migration-source.go: logMigrationInfo and startMonitor, of several
releases.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from gpusim.formats.migration_log import (
    CANCELLED,
    COMPLETED,
    FAILED,
    MBIT_BYTES,
    MigrationLog,
    Progress,
    first_end,
    last_run,
    number,
    whole,
)
from gpusim.units import MIB

KIND = "virt_launcher"
LINE = re.compile(r"Migration info for ([\w-]{0,80}): ?(TimeElapsed:[^\"\n]{0,2000})", re.ASCII)
PAIR = re.compile(r"(\w{1,30}):([0-9]{1,18})(?:ms|MiB|Mbps)?(?![\w.])", re.ASCII)
NEEDED = ("TimeElapsed", "MemoryProcessed", "MemoryRemaining", "MemoryTotal")
WRONG_FACTOR = 64  # of the rates of old releases
ENDS = (
    (re.compile(r"Live migration succeeded|Migration has been completed"), COMPLETED),
    (
        re.compile(
            r"(?:Live migration abort detected with reason: |Aborting migration: )"
            r"[^\"\n]{1,200}|Migration was canceled|Live migration aborted"
        ),
        CANCELLED,
    ),
    (re.compile(r"Live migration failed[^\"\n]{0,200}|Migration job failed"), FAILED),
)
FAILURE = re.compile(r'Live migration failed[^\n]{0,2000}?"reason":"((?:[^"\\\n]|\\.){1,200})')
ABORT = re.compile(r"(?:with reason|Aborting migration): ([^\"\n]{1,200})")


def read_virt_launcher(text: str) -> MigrationLog | None:
    """Return the last migration of a log. None: no line is whole."""
    text = text.rstrip("0123456789")  # a log that was cut off may end inside a number
    lines = list(LINE.finditer(text))
    found = [(match[1], one) for match in lines if (one := _report(match[2])) is not None]
    if not found:
        return None
    start, migrations = last_run([one for _, one in found])
    last = found[-1][0]
    reports = [one for uid, one in found[start:] if uid == last]
    outcome, reason = _end(text, lines[-1].start())
    return MigrationLog(
        kind=KIND,
        reports=tuple(_corrected(reports)),
        outcome=outcome,
        reason=reason,
        seconds=reports[-1].time_s,
        downtime_ms=_downtime_ms(text),
        migrations=max(migrations, len({uid for uid, _ in found})),
    )


def _report(text: str) -> Progress | None:
    values = dict(PAIR.findall(text))
    if any(key not in values for key in NEEDED):
        return None
    return Progress(
        time_s=number(values["TimeElapsed"], 1e-3),
        total_bytes=whole(values["MemoryTotal"], MIB),
        transferred_bytes=whole(values["MemoryProcessed"], MIB),
        remaining_bytes=whole(values["MemoryRemaining"], MIB),
        bytes_per_s=number(values.get("MemoryBandwidth"), MBIT_BYTES),
        dirty_bytes_per_s=number(values.get("DirtyRate"), MBIT_BYTES),
        iteration=whole(values.get("Iteration")),
        zero_pages=whole(values.get("ConstantPages")),
        normal_pages=whole(values.get("NormalPages")),
        expected_downtime_ms=number(values.get("ExpectedDowntime")),
    )


def _corrected(reports: list[Progress]) -> Iterator[Progress]:
    """Yield the reports with rates in bytes per second, whichever release printed them."""
    last = reports[-1]
    mean = (last.transferred_bytes or 0) / (last.time_s or 1e-3)
    printed = max((one.bytes_per_s or 0.0) for one in reports)
    # The rate of the link is never much below the mean since the start, which includes waiting.
    factor = WRONG_FACTOR if printed < mean / 8 else 1
    for one in reports:
        yield replace(
            one,
            bytes_per_s=None if one.bytes_per_s is None else one.bytes_per_s * factor,
            dirty_bytes_per_s=(
                None if one.dirty_bytes_per_s is None else one.dirty_bytes_per_s * factor
            ),
        )


def _end(text: str, last_line: int) -> tuple[str, str]:
    """Return how the migration with the last line ended, and why."""
    # An abort is followed by the failure that it causes.
    outcome, match = first_end(text, ENDS, last_line)
    if match is None or outcome == COMPLETED:
        return outcome, ""
    reason = ABORT.search(match[0]) or FAILURE.match(text, match.start())
    return outcome, reason[1] if reason else match[0]


def _downtime_ms(text: str) -> float | None:
    found = re.findall(r" Downtime:([0-9]{1,12})ms", text)
    return float(found[-1]) if found else None
