"""One answer about a running or completed migration: query-migrate, info migrate, virsh domjobinfo.

Sources: qapi/migration.json:MigrationInfo, migration/migration-hmp-cmds.c:hmp_info_migrate [2.x, 7.2 and
10.0 in one form, 10.1 to 11.1 in another], and libvirt's tools/virsh-domain.c:cmdDomjobinfo, which
formats/recording_from_virsh.py reads.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from gpusim.formats.migration_log import (
    CANCELLED,
    COMPLETED,
    FAILED,
    MBIT_BYTES,
    RUNNING,
    MigrationLog,
    Progress,
)
from gpusim.formats.recording import Recording
from gpusim.formats.recording_from_answers import Answer
from gpusim.formats.recording_from_virsh import (
    BANDWIDTH,
    DOWNTIME,
    Job,
    first_value,
    ram_of,
)
from gpusim.formats.recording_from_virsh import COMPLETED as COMPLETED_JOBS
from gpusim.formats.recording_from_virsh import RUNNING as RUNNING_JOBS
from gpusim.formats.recording_from_virsh import THROTTLE as JOB_THROTTLE
from gpusim.formats.sync_record import PAGE_BYTES
from gpusim.units import SIZE_UNITS

OUTCOMES = {
    "completed": COMPLETED,
    "failed": FAILED,
    "failing": FAILED,
    "cancelled": CANCELLED,
    "cancelling": CANCELLED,
}
OLD = re.compile(
    r"[ \t]*(Migration status|total time|downtime|expected downtime|transferred ram|throughput|remaining ram"
    r"|total ram|duplicate|normal|dirty sync count|dirty pages rate|page size"
    r"|cpu throttle percentage): ([\w.-]{1,30})",
    re.ASCII,
)
OLD_RAM = {  # label -> query-migrate's key, and the unit
    "transferred ram": ("transferred", 1024),
    "remaining ram": ("remaining", 1024),
    "total ram": ("total", 1024),
    "duplicate": ("duplicate", 1),
    "normal": ("normal", 1),
    "dirty sync count": ("dirty-sync-count", 1),
    "dirty pages rate": ("dirty-pages-rate", 1),
}
NEW = re.compile(
    r"\b(Status|Throughput \(Mbps\)|CPU Throttle \(%\)):[ \t]*([\w.-]{1,30})"
    r"|\b(total|down|exp_down|transferred|remain|normal|zero|dirty|dirty_syncs)="
    r"([0-9]{1,18}(?:\.[0-9]{1,6})?)(?: (B|KiB|MiB|GiB|TiB))?",
    re.ASCII,
)
NEW_RAM = {
    "transferred": "transferred",
    "remain": "remaining",
    "normal": "normal",
    "zero": "duplicate",
    "dirty": "dirty-pages-rate",
    "dirty_syncs": "dirty-sync-count",
}
POSTCOPY = "postcopy-"  # statuses after the switch begin like this
# Source: libvirt's tools/virsh-domain.c and include/libvirt/libvirt-domain.h.
JOB_REQUESTS = ("Postcopy requests", "memory_postcopy_requests")
PAUSED = ("postcopy-paused", "postcopy-recover", "postcopy-recover-setup")
REQUESTS = ("postcopy-requests", "postcopy-bytes")  # counters of `ram` that only post-copy moves
FAILED_STATUS = re.compile(r"[ \t]*(?:Migration status|Status):[ \t]*failed \(([^\n]{1,200})\)")
NUMBER = re.compile(r"[0-9]{1,18}(?:\.[0-9]{1,9})?")


def answers_of_hmp(text: str) -> list[Answer]:
    """Return each output of info migrate as an answer of query-migrate."""
    blocks: list[list[str]] = [[]]
    for line in text.split("\n"):
        if re.match(r"[ \t]*(?:Migration status|Status):", line):
            blocks.append([])
        blocks[-1].append(line)
    found = [_hmp_answer(lines) for lines in blocks]
    return [one for one in found if one["ram"]]


def _hmp_answer(lines: Iterable[str]) -> Answer:
    found: dict[str, Any] = {"status": "active", "ram": {}}
    for line in lines:
        if match := FAILED_STATUS.match(line):
            found["error-desc"] = match[1]
        if match := OLD.match(line):
            _take_old(found, match[1], match[2])
        for match in NEW.finditer(line):
            _take_new(found, match)
    return found


def _take_old(found: dict[str, Any], label: str, text: str) -> None:
    if label == "Migration status":
        found["status"] = text
        return
    if not NUMBER.fullmatch(text):
        return
    value = float(text)
    if label in OLD_RAM:
        key, unit = OLD_RAM[label]
        found["ram"][key] = round(value * unit)
    elif label == "throughput":
        found["ram"]["mbps"] = value
    elif label == "total time":
        found["total-time"] = round(value)
    elif label == "downtime":
        found["downtime"] = value
    elif label == "expected downtime":
        found["expected-downtime"] = value
    elif label == "cpu throttle percentage":
        found["cpu-throttle-percentage"] = round(value)


def _take_new(found: dict[str, Any], match: re.Match[str]) -> None:
    label, text = match[1], match[2]
    if label == "Status":
        found["status"] = text
    elif label is not None:
        if NUMBER.fullmatch(text):
            is_rate = label.startswith("Throughput")
            where = found["ram"] if is_rate else found
            where["mbps" if is_rate else "cpu-throttle-percentage"] = float(text)
    else:
        key, value, unit = match[3], float(match[4]), match[5]
        if unit is None and key == "total":
            found["total-time"] = round(value)
        elif key == "total":
            found["ram"]["total"] = round(value * SIZE_UNITS[unit])
        elif key == "down":
            found["downtime"] = value
        elif key == "exp_down":
            found["expected-downtime"] = value
        elif key != "transferred" or unit:  # "transfer=" of the page rates is another
            found["ram"][NEW_RAM[key]] = round(value * SIZE_UNITS[unit or "B"])


def answers_of_jobs(jobs: Sequence[Job]) -> list[Answer]:
    """Return answers of domjobinfo as answers of query-migrate, on libvirt's clock."""
    found: list[Answer] = []
    for job in jobs:
        kind = job.values["job"]
        ram: dict[str, Any] = dict(ram_of(job.values))
        if kind not in RUNNING_JOBS | COMPLETED_JOBS or not ram or job.elapsed_s is None:
            continue
        ram["mbps"] = first_value(job.values, BANDWIDTH, 0.0) * 8 / 1e6
        elapsed_ms = round(1000 * job.elapsed_s)
        answer: dict[str, Any] = {"status": "active", "total-time": elapsed_ms, "ram": ram}
        if expected := first_value(job.values, ("Expected downtime",), 0.0):
            answer["expected-downtime"] = expected
        if requests := round(first_value(job.values, JOB_REQUESTS, 0.0)):
            ram["postcopy-requests"] = requests
            if kind in RUNNING_JOBS:
                answer["status"] = "postcopy-active"
        if kind in COMPLETED_JOBS:
            answer["status"] = "completed"
            ram.setdefault("remaining", 0)
            answer["downtime"] = min(round(first_value(job.values, DOWNTIME, 0.0)), elapsed_ms)
        if throttle := round(first_value(job.values, JOB_THROTTLE, 0.0)):
            answer["cpu-throttle-percentage"] = throttle
        found.append(answer)
    return found


def log_of_answers(kind: str, answers: Sequence[Answer]) -> MigrationLog | None:
    """Return answers of query-migrate as reports. None: no answer reports RAM.

    Args:
        kind: of the file.
        answers: of one migration, in order.
    """
    reports = [one for answer in answers if (one := _report(answer)) is not None]
    if not reports:
        return None
    last = answers[-1]
    downtime = last.get("downtime")
    return MigrationLog(
        kind=kind,
        reports=tuple(reports),
        outcome=OUTCOMES.get(str(last.get("status")), RUNNING),
        reason=str(last.get("error-desc", ""))[:200],
        seconds=_positive(last.get("total-time"), 1e-3) or reports[-1].time_s,
        downtime_ms=float(downtime) if isinstance(downtime, int | float) else None,
        postcopy_s=_postcopy_s(answers),
        is_paused=last.get("status") in PAUSED,
    )


def _postcopy_s(answers: Sequence[Answer]) -> float | None:
    """Return the time of the first answer after the switch to post-copy. None: there is none.

    A migration that completed so may show it only by its counters.
    """
    for answer in answers:
        ram = answer.get("ram")
        counters = ram if isinstance(ram, Mapping) else {}
        has_switched = str(answer.get("status")).startswith(POSTCOPY)
        if has_switched or any(_positive(counters.get(key)) for key in REQUESTS):
            return _positive(answer.get("total-time"), 1e-3) or 0.0
    return None


def _report(answer: Answer) -> Progress | None:
    ram = answer.get("ram")
    if not isinstance(ram, Mapping) or not _positive(ram.get("total")):
        return None

    def count(key: str) -> int | None:
        value = ram.get(key)
        return value if type(value) is int and 0 <= value < 2**63 else None

    dirty = count("dirty-pages-rate")
    throttle = answer.get("cpu-throttle-percentage")
    return Progress(
        time_s=_positive(answer.get("total-time"), 1e-3),
        total_bytes=count("total"),
        transferred_bytes=count("transferred"),
        remaining_bytes=count("remaining"),
        bytes_per_s=_positive(ram.get("mbps"), MBIT_BYTES),
        dirty_bytes_per_s=None if dirty is None else float(dirty * PAGE_BYTES),
        iteration=count("dirty-sync-count"),
        zero_pages=count("duplicate"),
        normal_pages=count("normal"),
        throttle_percent=round(throttle) if isinstance(throttle, int | float) else None,
        expected_downtime_ms=_positive(answer.get("expected-downtime")),
    )


def _positive(value: object, factor: float = 1.0) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) * factor if is_number and 0 < value < 2**63 else None  # type: ignore[operator,arg-type]


def log_of_recording(recording: Recording) -> MigrationLog:
    """Return the samples of a recording as reports."""
    reports = [
        Progress(
            time_s=sample.time_s,
            total_bytes=recording.ram_bytes,
            transferred_bytes=sample.ram.transferred_bytes,
            remaining_bytes=sample.ram.remaining_bytes,
            bytes_per_s=sample.mbps * MBIT_BYTES or None,
            dirty_bytes_per_s=float(sample.ram.dirty_pages_rate * PAGE_BYTES) or None,
            iteration=sample.ram.dirty_sync_count,
            zero_pages=sample.ram.zero_pages,
            normal_pages=sample.ram.sent_pages - sample.ram.zero_pages,
            throttle_percent=sample.cpu_throttle_percentage,
        )
        for sample in recording.samples
        if sample.ram is not None
    ]
    downtime_s = recording.downtime_s
    return MigrationLog(
        kind="recording",
        reports=tuple(reports),
        outcome=COMPLETED if recording.completed else RUNNING,
        seconds=recording.total_time_s or recording.limit_s,
        downtime_ms=None if downtime_s is None else 1000 * downtime_s,
        limits=((0.0, int(recording.parameters["downtime-limit"])),),
    )
