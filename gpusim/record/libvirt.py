"""What virsh printed during a migration, as a recording: for VMs whose monitor belongs to libvirt.

Two logs, made as docs/attach.md says. One holds QEMU's answers to a few queries and, again and again, a
time stamp and `virsh domjobinfo`; the other `virsh qemu-monitor-event`. Formats are those of libvirt's
tools/virsh-domain.c: cmdDomjobinfo and virshEventQemuPrint, and the fields of its
include/libvirt/libvirt-domain.h, which domjobinfo prints with --rawstats.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gpusim.formats.recording import LEAST_SAMPLES, MIB
from gpusim.monitor.qmp import LiveError
from gpusim.record.session import TIME_DIGITS

STAMP = re.compile(r"\d{9,}\.\d+")  # of `date +%s.%N`
VALUE = re.compile(r"([A-Za-z_][\w /.]*):\s+(-?\d+(?:\.\d+)?)\s*([KMGTPE]?i?B)?(?:/s)?\b.*")
JOB = re.compile(r"Job type:\s+(\w+)\s*")
# With --timestamp virsh stamps the line itself, in UTC; without, QEMU's own stamp is in it.
EVENT = re.compile(
    r"(?:(?P<clock>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+)\+0000: )?event (?P<name>\w+)"
    r"(?: at (?P<stamp>\d+\.\d+))? for domain .*?: (?P<data>\{.*\}|<null>|\(null\))"
)
UNITS = {"B": 1} | {f"{letter}iB": 1024**power for power, letter in enumerate("KMGTPE", 1)}

# domjobinfo's words and its raw fields -> query-migrate's. libvirt copies them from there
# (src/qemu/qemu_domainjob.c:qemuDomainMigrationJobDataToParams); its time elapsed is its own.
RAM = {
    "Memory processed": "transferred",
    "memory_processed": "transferred",
    "Memory remaining": "remaining",
    "memory_remaining": "remaining",
    "Memory total": "total",
    "memory_total": "total",
    "Constant pages": "duplicate",
    "memory_constant": "duplicate",
    "Normal pages": "normal",
    "memory_normal": "normal",
    "Dirty rate": "dirty-pages-rate",
    "memory_dirty_rate": "dirty-pages-rate",
    "Iteration": "dirty-sync-count",
    "memory_iteration": "dirty-sync-count",
}
NEEDED = ("transferred", "remaining", "total", "duplicate", "normal", "dirty-sync-count")
BANDWIDTH = ("Memory bandwidth", "memory_bps")
THROTTLE = ("Auto converge throttle", "auto_converge_throttle")
ELAPSED = ("Time elapsed", "time_elapsed")
DOWNTIME = ("Total downtime", "downtime")
RUNNING, COMPLETED = {"Bounded", "Unbounded", "1", "2"}, {"Completed", "3"}
QUERIES = {
    "version": "query-version",
    "parameters": "query-migrate-parameters",
    "capabilities": "query-migrate-capabilities",
    "kvm": "query-kvm",
    "vcpus": "query-cpus-fast",
}


@dataclass(kw_only=True)
class JobLog:
    """The first log.

    Attributes:
        answers: of QEMU's queries, by QUERIES' keys.
        jobs: (seconds, what domjobinfo said), its values by the names it gave them.
        rounded: sizes were printed with three digits behind the point.
    """

    answers: dict[str, Any] = field(default_factory=dict)
    jobs: list[tuple[float, dict[str, Any]]] = field(default_factory=list)
    rounded: bool = False


@dataclass(frozen=True, kw_only=True)
class LoggedEvent:
    """One line of the second log."""

    time_s: float
    name: str
    data: Mapping[str, Any]


def convert(jobs: Path, events: Path | None) -> dict[str, Any]:
    """The recording that two logs hold.

    Raises:
        LiveError: a log that cannot be read, or holds no migration; says what it lacks.
    """
    log = _job_log(jobs)
    told = list(_events(events)) if events is not None else []
    notes = []
    running = [
        (at, job)
        for at, job in log.jobs
        if job["job"] in RUNNING and all(key in _ram(job) for key in NEEDED)
    ]
    told = _last_migration(told)
    start_s = next((e.time_s for e in told if e.data.get("status") == "setup"), None)
    if start_s is not None:
        running = [(at, job) for at, job in running if at >= start_s]  # none of an attempt before
    if len(running) < LEAST_SAMPLES:
        raise LiveError(
            f"{jobs}: {len(running)} answers of domjobinfo while memory was sent; expected "
            f"{LEAST_SAMPLES} or more, each behind a line of `date +%s.%N`"
        )
    if start_s is None:
        at, job = running[0]
        start_s = at - _first(job, ELAPSED, 0.0) / 1000
        notes.append(
            "no event MIGRATION with status setup: the start is libvirt's, which is earlier than QEMU's"
        )
    if log.rounded:
        notes.append(
            "domjobinfo rounds sizes: from 1 GiB on pages are known to 262, from 1 TiB on to 268435; "
            "domjobinfo --rawstats does not"
        )
    samples = [_sample(job, at - start_s) for at, job in running]
    end = _end(log, told, start_s, samples[-1])
    scenario: dict[str, Any] = {
        "mem_mib": -(-samples[0]["total"] // MIB),
        "guest": None,
        "capabilities": [n for n in _capabilities(jobs, log) if n != "events"],
        "parameters": {},
    }
    if end is None:
        scenario["limit_s"] = samples[-1]["t"]
        notes.append(
            "no event MIGRATION with status completed: the recording ends with its last answer"
        )
    version = _answer(jobs, log, "version")["qemu"]
    return {
        "scenario": scenario,
        "qemu": {key: version[key] for key in ("major", "minor", "micro")},
        "accelerator": "kvm" if _answer(jobs, log, "kvm")["enabled"] else "tcg",
        "vcpus": len(_answer(jobs, log, "vcpus")),
        "capabilities": _capabilities(jobs, log),
        "parameters": _answer(jobs, log, "parameters"),
        "ended": "log ended" if end is None else "completed",
        "notes": notes,
        "events": [],
        "qmp_events": [[round(e.time_s - start_s, TIME_DIGITS), e.name, e.data] for e in told],
        "samples": samples if end is None else [*samples, end],
    }


def _job_log(path: Path) -> JobLog:
    log = JobLog()
    stamps: list[float] = []  # since the last answer began: one behind it, one before the next
    for line in [*_lines(path), "Job type: end"]:
        if STAMP.fullmatch(line):
            stamps.append(float(line))
        elif line.startswith("{"):
            _file_answer(log, line)
        elif job := JOB.fullmatch(line):
            if log.jobs and (len(stamps) > 1 or job[1] == "end") and stamps:
                asked_s, told = log.jobs[-1]
                log.jobs[-1] = ((asked_s + stamps[0]) / 2, told)
            log.jobs.append((stamps[-1] if stamps else 0.0, {"job": job[1]}))
            stamps.clear()
        elif log.jobs and (value := VALUE.fullmatch(line)):
            number = float(value[2]) * UNITS.get(value[3] or "B", 1)
            log.jobs[-1][1][value[1]] = number
            log.rounded |= value[1] == "Memory remaining"
    return log


def _lines(path: Path) -> Iterator[str]:
    try:
        text = path.read_text(errors="replace")
    except OSError as error:
        raise LiveError(
            f"{path}: cannot be read ({error.strerror}); expected a log of virsh"
        ) from None
    return (line.strip() for line in text.splitlines())


def _file_answer(log: JobLog, line: str) -> None:
    """An answer tells by its content which query it is to."""
    try:
        answer = json.loads(line).get("return")
    except (ValueError, AttributeError):
        return
    if isinstance(answer, list) and answer and isinstance(answer[0], dict):
        key = "capabilities" if "capability" in answer[0] else "vcpus"
        log.answers[key] = answer
    elif isinstance(answer, dict):
        marks = {"qemu": "version", "max-bandwidth": "parameters", "enabled": "kvm"}
        log.answers |= {key: answer for mark, key in marks.items() if mark in answer}


def _answer(path: Path, log: JobLog, key: str) -> Any:
    if key not in log.answers:
        raise LiveError(
            f"{path}: no answer to {QUERIES[key]}; expected one of virsh qemu-monitor-command, as "
            "docs/attach.md writes it"
        )
    return log.answers[key]


def _capabilities(path: Path, log: JobLog) -> list[str]:
    return sorted(row["capability"] for row in _answer(path, log, "capabilities") if row["state"])


def _events(path: Path) -> Iterator[LoggedEvent]:
    found = [match for line in _lines(path) if (match := EVENT.fullmatch(line))]
    if not found:
        raise LiveError(f"{path}: no line of virsh qemu-monitor-event; expected its log")
    for match in found:
        if match["stamp"]:
            time_s = float(match["stamp"])
        elif match["clock"]:
            clock = datetime.strptime(match["clock"], "%Y-%m-%d %H:%M:%S.%f")
            time_s = clock.replace(tzinfo=UTC).timestamp()
        else:
            continue
        try:
            data = json.loads(match["data"]) if match["data"].startswith("{") else {}
        except ValueError:  # a line that was cut
            continue
        yield LoggedEvent(time_s=time_s, name=match["name"], data=data)


def _last_migration(told: list[LoggedEvent]) -> list[LoggedEvent]:
    """The events from the last migration's setup on; all if none is there."""
    setups = [place for place, event in enumerate(told) if event.data.get("status") == "setup"]
    return told[setups[-1] :] if setups else told


def _ram(job: Mapping[str, Any]) -> dict[str, int]:
    return {RAM[key]: round(value) for key, value in job.items() if key in RAM}


def _first(job: Mapping[str, Any], names: tuple[str, ...], otherwise: float) -> float:
    return next((float(job[name]) for name in names if name in job), otherwise)


def _sample(job: Mapping[str, Any], t: float) -> dict[str, Any]:
    """One answer of domjobinfo in query-migrate's words."""
    found: dict[str, Any] = {
        "t": round(t, TIME_DIGITS),
        "status": "active",
        "total-time": round(1000 * t),
        "mbps": _first(job, BANDWIDTH, 0.0) * 8 / 1e6,
        **_ram(job),
    }
    throttle = round(_first(job, THROTTLE, 0.0))
    return found | ({"cpu-throttle-percentage": throttle} if throttle else {})


def _end(
    log: JobLog, told: list[LoggedEvent], start_s: float, last: Mapping[str, Any]
) -> dict[str, Any] | None:
    """The sample of the completion: its times by QEMU's events, its sums by domjobinfo --completed."""
    ends = [e.time_s for e in told if e.name == "MIGRATION" and e.data.get("status") == "completed"]
    if not ends:
        return None
    stops = [e.time_s for e in told if e.name == "STOP" and e.time_s <= ends[-1]]
    done = [job for _, job in log.jobs if job["job"] in COMPLETED]
    known = _ram(done[-1]) if done else {}
    downtime_ms = 1000 * (ends[-1] - stops[-1]) if stops else 0.0
    if done:
        downtime_ms = _first(done[-1], DOWNTIME, downtime_ms)
    t = ends[-1] - start_s
    return {key: held for key, held in last.items() if key != "cpu-throttle-percentage"} | {
        **known,
        "t": round(t, TIME_DIGITS),
        "status": "completed",
        "total-time": round(1000 * t),
        "downtime": round(downtime_ms),
        "remaining": 0,
    }
