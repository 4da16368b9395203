"""A recording from two logs of virsh, for VMs whose monitor belongs to libvirt.

docs/how-to/watch-a-migration.md says how to make the logs. The first log holds QEMU's answers to a
few queries, and then time stamps and the output of `virsh domjobinfo` in turn. The second log is
the output of `virsh qemu-monitor-event`. Source of the formats: libvirt's
tools/virsh-domain.c:cmdDomjobinfo and virshEventQemuPrint, and include/libvirt/libvirt-domain.h for
the fields of --rawstats.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gpusim.formats.errors import VirshLogError
from gpusim.formats.recording import MIB
from gpusim.formats.recording_file import CLOCK_DIGITS, LEAST_SAMPLES
from gpusim.reading import ReadingError, parse_json, read_text

STAMP = re.compile(r"\d{9,}\.\d+")  # of `date +%s.%N`
VALUE = re.compile(
    r"([A-Za-z_][\w /.]*):\s+(-?\d{1,18}(?:\.\d{1,18})?)\s*([KMGTPE]?i?B)?(?:/s)?\b.*"
)
JOB = re.compile(r"Job type:\s+(\w+)\s*")
# With --timestamp virsh stamps the line itself, in UTC. Without it the line holds QEMU's own stamp.
EVENT = re.compile(
    r"(?:(?P<clock>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+)\+0000: )?event (?P<name>\w+)"
    r"(?: at (?P<stamp>\d+\.\d+))? for domain .*?: (?P<data>\{.*\}|<null>|\(null\))"
)
UNITS = {"B": 1} | {f"{letter}iB": 1024**power for power, letter in enumerate("KMGTPE", 1)}

# domjobinfo's labels and raw fields -> query-migrate's keys. libvirt copies the values from QEMU
# (src/qemu/qemu_domainjob.c:qemuDomainMigrationJobDataToParams), but its time elapsed is its own.
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
NO_SETUP_NOTE = (
    "no event MIGRATION with status setup: the start is libvirt's, which is earlier than QEMU's"
)
NO_END_NOTE = "no event MIGRATION with status completed: the recording ends with its last answer"
ROUNDED_NOTE = (
    "domjobinfo rounds sizes: page counts are known to 262 pages from 1 GiB on, and to 268435 "
    "pages from 1 TiB on. domjobinfo --rawstats does not round"
)
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
        answers: QEMU's answers, by the keys of QUERIES.
        jobs: (seconds, values of one domjobinfo by their labels).
        rounded: whether sizes were printed with three digits after the point.
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
    """Return the recording that two logs hold, as a document.

    Args:
        jobs: path of the first log.
        events: path of the second log, if there is one.

    Raises:
        VirshLogError: a log cannot be read, or holds no migration.
    """
    log = _read_job_log(jobs)
    logged = list(_read_events(events)) if events is not None else []
    notes = []
    running = [
        (at, job)
        for at, job in log.jobs
        if job["job"] in RUNNING and all(key in _ram(job) for key in NEEDED)
    ]
    logged = _last_migration(logged)
    start_s = next((e.time_s for e in logged if e.data.get("status") == "setup"), None)
    if start_s is not None:
        running = [(at, job) for at, job in running if at >= start_s]  # no earlier attempt
    if len(running) < LEAST_SAMPLES:
        raise VirshLogError("too_few_answers", path=jobs, answers=len(running), least=LEAST_SAMPLES)
    if start_s is None:
        at, job = running[0]
        start_s = at - _first(job, ELAPSED, 0.0) / 1000
        notes.append(NO_SETUP_NOTE)
    if log.rounded:
        notes.append(ROUNDED_NOTE)
    samples = [_sample(job, at - start_s) for at, job in running]
    end = _end(log, logged, start_s, samples[-1])
    scenario: dict[str, Any] = {
        "mem_mib": -(-samples[0]["total"] // MIB),
        "guest": None,
        "capabilities": [n for n in _capabilities(jobs, log) if n != "events"],
        "parameters": {},
    }
    if end is None:
        scenario["limit_s"] = samples[-1]["t"]
        notes.append(NO_END_NOTE)
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
        "qmp_events": [[round(e.time_s - start_s, CLOCK_DIGITS), e.name, e.data] for e in logged],
        "samples": samples if end is None else [*samples, end],
    }


def _read_job_log(path: Path) -> JobLog:
    log = JobLog()
    stamps: list[float] = []  # since the last answer began: one after it, one before the next
    for line in [*_lines(path), "Job type: end"]:
        if STAMP.fullmatch(line):
            stamps.append(float(line))
        elif line.startswith("{"):
            _add_answer(log, line)
        elif job := JOB.fullmatch(line):
            if log.jobs and (len(stamps) > 1 or job[1] == "end") and stamps:
                asked_s, values = log.jobs[-1]
                log.jobs[-1] = ((asked_s + stamps[0]) / 2, values)
            log.jobs.append((stamps[-1] if stamps else 0.0, {"job": job[1]}))
            stamps.clear()
        elif log.jobs and (value := VALUE.fullmatch(line)):
            number = float(value[2]) * UNITS.get(value[3] or "B", 1)
            log.jobs[-1][1][value[1]] = number
            log.rounded |= value[1] == "Memory remaining"
    return log


def _lines(path: Path) -> Iterator[str]:
    try:
        text = read_text(path, errors="replace")
    except ReadingError as error:
        raise VirshLogError("unreadable", path=path, reason=error.reason) from None
    return (line.strip() for line in text.splitlines())


def _add_answer(log: JobLog, line: str) -> None:
    """Add an answer of QEMU's. Its content shows which query it answers."""
    try:
        answer = _object(line).get("return")
    except ReadingError:
        return
    if isinstance(answer, list) and answer and isinstance(answer[0], dict):
        key = "capabilities" if "capability" in answer[0] else "vcpus"
        log.answers[key] = answer
    elif isinstance(answer, dict):
        marks = {"qemu": "version", "max-bandwidth": "parameters", "enabled": "kvm"}
        log.answers |= {key: answer for mark, key in marks.items() if mark in answer}


def _object(line: str) -> dict[str, Any]:
    found = parse_json(line)
    return found if isinstance(found, dict) else {}


def _answer(path: Path, log: JobLog, key: str) -> Any:
    if key not in log.answers:
        raise VirshLogError("no_answer", path=path, query=QUERIES[key])
    return log.answers[key]


def _capabilities(path: Path, log: JobLog) -> list[str]:
    return sorted(row["capability"] for row in _answer(path, log, "capabilities") if row["state"])


def _read_events(path: Path) -> Iterator[LoggedEvent]:
    found = [match for line in _lines(path) if (match := EVENT.fullmatch(line))]
    if not found:
        raise VirshLogError("no_events", path=path)
    for match in found:
        if match["stamp"]:
            time_s = float(match["stamp"])
        elif match["clock"]:
            clock = datetime.strptime(match["clock"], "%Y-%m-%d %H:%M:%S.%f")
            time_s = clock.replace(tzinfo=UTC).timestamp()
        else:
            continue
        try:
            data = _object(match["data"]) if match["data"].startswith("{") else {}
        except ReadingError:  # a line that was cut off
            continue
        yield LoggedEvent(time_s=time_s, name=match["name"], data=data)


def _last_migration(events: list[LoggedEvent]) -> list[LoggedEvent]:
    """Return the events from the last migration's setup on, or all if there is no setup."""
    setups = [place for place, event in enumerate(events) if event.data.get("status") == "setup"]
    return events[setups[-1] :] if setups else events


def _ram(job: Mapping[str, Any]) -> dict[str, int]:
    return {RAM[key]: round(value) for key, value in job.items() if key in RAM}


def _first(job: Mapping[str, Any], names: tuple[str, ...], otherwise: float) -> float:
    return next((float(job[name]) for name in names if name in job), otherwise)


def _sample(job: Mapping[str, Any], t: float) -> dict[str, Any]:
    """Return one answer of domjobinfo under query-migrate's keys."""
    found: dict[str, Any] = {
        "t": round(t, CLOCK_DIGITS),
        "status": "active",
        "total-time": round(1000 * t),
        "mbps": _first(job, BANDWIDTH, 0.0) * 8 / 1e6,
        **_ram(job),
    }
    throttle = round(_first(job, THROTTLE, 0.0))
    return found | ({"cpu-throttle-percentage": throttle} if throttle else {})


def _end(
    log: JobLog, events: list[LoggedEvent], start_s: float, last: Mapping[str, Any]
) -> dict[str, Any] | None:
    """Return the completed sample: times from QEMU's events, sums from domjobinfo --completed."""
    ends = [
        e.time_s for e in events if e.name == "MIGRATION" and e.data.get("status") == "completed"
    ]
    if not ends:
        return None
    stops = [e.time_s for e in events if e.name == "STOP" and e.time_s <= ends[-1]]
    done = [job for _, job in log.jobs if job["job"] in COMPLETED]
    known = _ram(done[-1]) if done else {}
    downtime_ms = 1000 * (ends[-1] - stops[-1]) if stops else 0.0
    if done:
        downtime_ms = _first(done[-1], DOWNTIME, downtime_ms)
    t = ends[-1] - start_s
    return {key: value for key, value in last.items() if key != "cpu-throttle-percentage"} | {
        **known,
        "t": round(t, CLOCK_DIGITS),
        "status": "completed",
        "total-time": round(1000 * t),
        "downtime": round(downtime_ms),
        "remaining": 0,
    }
