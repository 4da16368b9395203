"""A recording from two logs of virsh, for VMs whose monitor belongs to libvirt.

docs/how-to/watch-a-migration.md says how to make the logs. The first log holds QEMU's answers to a
few queries, and then time stamps and the output of `virsh domjobinfo` in turn. The second log is
the output of `virsh qemu-monitor-event`. Source of the formats: libvirt's
tools/virsh-domain.c:cmdDomjobinfo and virshEventQemuPrint, and include/libvirt/libvirt-domain.h for
the fields of --rawstats.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from gpusim.formats.errors import VirshLogError
from gpusim.formats.foreign_logs import with_hint
from gpusim.formats.pasted_text import read_pasted
from gpusim.formats.recording import UNCOUNTED_NOTE, counts_every_sync
from gpusim.formats.recording_file import CLOCK_DIGITS, LEAST_SAMPLES, read_document
from gpusim.formats.recording_shape import (
    COUNTERS,
    KVM_ANSWER,
    PARAMETERS,
    VERSION_ANSWER,
    VERSION_PARTS,
)
from gpusim.reading import ReadingError, parse_json
from gpusim.shapes import Anything, Flag, Keys, Rows, Shape, ShapeError, Text, check
from gpusim.units import MIB

# Of `date +%s.%N`. A date without %N prints whole seconds, or the letter itself.
STAMP = re.compile(r"([0-9]{9,11})(?:\.([0-9]{1,9})|\.%?N)?")
VALUE = re.compile(
    r"([A-Za-z_][\w /.]*):\s+(-?[0-9]{1,18}(?:\.[0-9]{1,18})?)(?:\s*([A-Za-z/]+))?", re.ASCII
)
JOB = re.compile(r"Job type:\s+(\w+)")
# With --timestamp virsh stamps the line itself, in UTC. Without it the line holds QEMU's own stamp.
EVENT = re.compile(
    r"(?:(?P<clock>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{1,6})\+0000: )?event (?P<name>\w+)"
    r"(?: at (?P<stamp>\d{1,11}\.\d{1,9}))? for domain ",
    re.ASCII,
)
UNITS = {"B": 1} | {f"{letter}iB": 1024**power for power, letter in enumerate("KMGTPE", 1)}
UNITS |= {f"{unit}/s": size for unit, size in UNITS.items()} | {"": 1, "ms": 1, "pages/s": 1}

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
STAMPS_NOTE = "times are the time stamps of the log"
ELAPSED_NOTE = "times are libvirt's time elapsed, because the log has {stamps}"
UNPLACED_NOTE = (
    "the events are left out, because nothing in the logs places them on libvirt's time elapsed"
)
STAMPS_DIFFER_S = 1.0  # time stamps may differ by so much from libvirt's time elapsed,
STAMPS_DIFFER_SHARE = 0.05  # or by this share of the time
RUNNING, COMPLETED = {"Bounded", "Unbounded", "1", "2"}, {"Completed", "3"}
QUERIES = {
    "version": "query-version",
    "parameters": "query-migrate-parameters",
    "capabilities": "query-migrate-capabilities",
    "kvm": "query-kvm",
    "vcpus": "query-cpus-fast",
}


ANSWERS: dict[str, Shape] = {
    "version": VERSION_ANSWER,
    "parameters": PARAMETERS,
    "capabilities": Rows(Keys(required={"capability": Text(), "state": Flag()})),
    "kvm": KVM_ANSWER,
    "vcpus": Rows(Anything()),
}


@dataclass(kw_only=True)
class Job:
    """One answer of domjobinfo.

    Attributes:
        values: by their labels. Sizes are in bytes.
        before_s: time stamp before the question.
        after_s: time stamp after the answer.
    """

    values: dict[str, Any]
    before_s: float | None
    after_s: float | None = None

    @property
    def stamp_s(self) -> float | None:
        """Return the middle between question and answer."""
        if self.before_s is None or self.after_s is None:
            return self.before_s
        return (self.before_s + self.after_s) / 2

    @property
    def elapsed_s(self) -> float | None:
        found = first_value(self.values, ELAPSED, -1.0)
        return None if found < 0 else found / 1000


@dataclass(kw_only=True)
class JobLog:
    """The first log.

    Attributes:
        answers: QEMU's answers, by the keys of QUERIES.
        jobs: in the order of the log.
        is_rounded: whether sizes were printed with three digits after the point.
        has_fractions: whether all time stamps have fractions of a second.
    """

    answers: dict[str, Any] = field(default_factory=dict)
    jobs: list[Job] = field(default_factory=list)
    is_rounded: bool = False
    has_fractions: bool = True


@dataclass(frozen=True, kw_only=True)
class LoggedEvent:
    """One line of the second log."""

    time_s: float
    name: str
    data: Mapping[str, Any]


def convert(jobs: Path, events: Path | None) -> dict[str, Any]:
    """Return the recording that two logs hold, as a document.

    The times are those of the log's time stamps. libvirt's time elapsed replaces them if they are
    missing, are whole seconds, or contradict it. The notes name the clock.

    Args:
        jobs: path of the first log.
        events: path of the second log, if there is one.

    Raises:
        VirshLogError: a log cannot be read, or holds no migration.
        RecordingError: the logs hold a migration that contradicts itself, or that cannot be used.
    """
    text = _text(jobs)
    try:
        document = document_of_jobs(jobs, read_job_log(jobs, text), events)
    except VirshLogError as error:
        raise with_hint(error, text, "gpusim-record --libvirt") from None
    read_document(document, str(jobs), replayed=False)
    return document


def document_of_jobs(jobs: Path, log: JobLog, events: Path | None = None) -> dict[str, Any]:
    """Return the recording that two logs hold, as a document that is not checked yet. See `convert`.

    Args:
        jobs: path of the first log, for errors.
        log: what it holds.
        events: path of the second log, if there is one.

    Raises:
        VirshLogError: the second log cannot be read, or they hold no migration.
    """
    logged = _last_migration(list(_read_events(events)) if events is not None else [])
    running = _last_attempt(
        [job for job in log.jobs if job.values["job"] in RUNNING and _has_counters(job)]
    )
    setup_s = next((e.time_s for e in logged if e.data.get("status") == "setup"), None)
    times_s, clock_note = _times(jobs, log, running, logged)
    notes = [clock_note]
    if times_s is None:  # nothing places the events
        times_s = [job.elapsed_s or 0.0 for job in running]
        notes += [UNPLACED_NOTE] if logged else []
        logged, setup_s = [], None
    answers = list(zip(times_s, running, strict=True))
    if setup_s is not None:
        answers = [(at, job) for at, job in answers if at >= setup_s]  # no earlier attempt
    if len(answers) < LEAST_SAMPLES:
        raise _too_few(jobs, len(answers))
    start_s = setup_s
    if start_s is None:
        at, job = answers[0]
        start_s = at - (job.elapsed_s or 0.0)
        notes.append(NO_SETUP_NOTE)
    if log.is_rounded:
        notes.append(ROUNDED_NOTE)
    samples = [_sample(job.values, at - start_s) for at, job in answers]
    end = _end(log, logged, start_s, samples[-1])
    capabilities = sorted(
        row["capability"] for row in _answer(jobs, log, "capabilities") if row["state"]
    )
    scenario: dict[str, Any] = {
        "mem_mib": -(-samples[0]["total"] // MIB),
        "guest": None,
        "capabilities": [name for name in capabilities if name != "events"],
        "parameters": {},
    }
    if end is None:
        scenario["limit_s"] = samples[-1]["t"]
        notes.append(NO_END_NOTE)
    version = _answer(jobs, log, "version")["qemu"]
    if not counts_every_sync([version[key] for key in VERSION_PARTS]):
        notes.append(UNCOUNTED_NOTE)
    return {
        "scenario": scenario,
        "qemu": {key: version[key] for key in VERSION_PARTS},
        "accelerator": "kvm" if _answer(jobs, log, "kvm")["enabled"] else "tcg",
        "vcpus": len(_answer(jobs, log, "vcpus")),
        "capabilities": capabilities,
        "parameters": _answer(jobs, log, "parameters"),
        "ended": "log ended" if end is None else "completed",
        "notes": notes,
        "events": [],
        "qmp_events": [
            [round(e.time_s - start_s, CLOCK_DIGITS), e.name, e.data]
            for e in logged
            if e.time_s >= start_s
        ],
        "samples": samples if end is None else [*samples, end],
    }


def _has_counters(job: Job) -> bool:
    ram = ram_of(job.values)
    return all(key in ram for key in COUNTERS) and ram["total"] > 0


def _too_few(path: Path, answers: int) -> VirshLogError:
    data = {"answers": answers, "least": LEAST_SAMPLES, "hint": ""}
    return VirshLogError("too_few_answers", path=path, **data)


def _last_attempt(running: list[Job]) -> list[Job]:
    """Return the answers about the last migration. libvirt's time elapsed falls before it."""
    for place in range(len(running) - 1, 0, -1):
        before, here = running[place - 1].elapsed_s, running[place].elapsed_s
        if before is not None and here is not None and here < before:
            return running[place:]
    return running


def _times(
    path: Path, log: JobLog, running: Sequence[Job], events: Sequence[LoggedEvent]
) -> tuple[list[float] | None, str]:
    """Return the wall-clock times of the answers, and the note on the clock.

    There are no times if only libvirt's time elapsed is usable and nothing relates it to the events.

    Raises:
        VirshLogError: neither the time stamps nor the time elapsed can be used.
    """
    stamps = [job.stamp_s for job in running if job.stamp_s is not None]
    elapsed = [job.elapsed_s for job in running if job.elapsed_s is not None]
    has_elapsed = len(elapsed) == len(running) and _rises(elapsed)
    if len(stamps) < len(running):
        problem = "no time stamp for each answer"
    elif not log.has_fractions:
        problem = "time stamps in whole seconds"
    elif not _rises(stamps):
        problem = "time stamps that do not rise"
    elif has_elapsed and not _agree(stamps, elapsed):
        problem = "time stamps that contradict it"
    else:
        return stamps, STAMPS_NOTE
    if not has_elapsed:
        if len(running) < LEAST_SAMPLES:
            raise _too_few(path, len(running))
        raise VirshLogError("no_clock", path=path, stamps=problem)
    note = ELAPSED_NOTE.format(stamps=problem)
    offset_s = _offset_s(log, running if _rises(stamps) else (), events)
    return (None if offset_s is None else [offset_s + at for at in elapsed]), note


def _rises(times_s: Sequence[float]) -> bool:
    return (
        all(a <= b for a, b in pairwise(times_s)) and len(times_s) > 1 and times_s[0] < times_s[-1]
    )


def _agree(stamps: Sequence[float], elapsed: Sequence[float]) -> bool:
    """Return whether two clocks run alike."""
    offsets = [stamp - at for stamp, at in zip(stamps, elapsed, strict=True)]
    allowed_s = max(STAMPS_DIFFER_S, STAMPS_DIFFER_SHARE * (elapsed[-1] - elapsed[0]))
    return max(offsets) - min(offsets) <= allowed_s


def _offset_s(log: JobLog, running: Sequence[Job], events: Sequence[LoggedEvent]) -> float | None:
    """Return the wall-clock time at which libvirt's time elapsed was 0, or None if it is unknown.

    An answer was given between its two time stamps. A stamp in whole seconds is up to a second too
    early. Without usable stamps, the completed migration's time elapsed ends at its completion.
    """
    width_s = 0.0 if log.has_fractions else 1.0
    bounds = [
        (job.before_s - job.elapsed_s, (job.after_s or job.before_s) + width_s - job.elapsed_s)
        for job in running
        if job.before_s is not None and job.elapsed_s is not None
    ]
    if bounds:
        low, high = max(low for low, _ in bounds), min(high for _, high in bounds)
        if low > high:
            return statistics.median((low + high) / 2 for low, high in bounds)
        return (low + high) / 2
    ends = [e.time_s for e in events if e.data.get("status") == "completed"]
    done = [job.elapsed_s for job in log.jobs if job.values["job"] in COMPLETED]
    return ends[-1] - done[-1] if ends and done and done[-1] else None


def read_job_log(path: Path, text: str) -> JobLog:
    """Return what a log of domjobinfo holds.

    Args:
        path: of the log, for errors.
        text: of the log.

    Raises:
        VirshLogError: an answer of QEMU's is wrong.
    """
    log = JobLog()
    stamps: list[float] = []  # since the last answer began: one after it, one before the next
    for line in [*map(str.strip, text.split("\n")), "Job type: end"]:
        if stamp := STAMP.fullmatch(line):
            stamps.append(float(f"{stamp[1]}.{stamp[2] or 0}"))
            log.has_fractions &= stamp[2] is not None
        elif line.startswith("{"):
            _add_answer(path, log, line)
        elif job := JOB.fullmatch(line):
            if log.jobs and stamps and (len(stamps) > 1 or job[1] == "end"):
                log.jobs[-1].after_s = stamps[0]
            before_s = stamps[-1] if stamps else None
            log.jobs.append(Job(values={"job": job[1]}, before_s=before_s))
            stamps.clear()
        elif log.jobs and (value := VALUE.fullmatch(line)) and (value[3] or "") in UNITS:
            log.jobs[-1].values[value[1]] = float(value[2]) * UNITS[value[3] or ""]
            log.is_rounded |= value[1] == "Memory remaining"
    return log


def _text(path: Path) -> str:
    try:
        return read_pasted(path)
    except ReadingError as error:
        raise VirshLogError("unreadable", path=path, reason=error.reason) from None


def _add_answer(path: Path, log: JobLog, line: str) -> None:
    """Add an answer of QEMU's. Its content shows which query it answers."""
    try:
        answer = _object(line).get("return")
    except ReadingError:
        return
    key = None
    if isinstance(answer, list) and answer and isinstance(answer[0], dict):
        key = "capabilities" if "capability" in answer[0] else "vcpus"
    elif isinstance(answer, dict):
        marks = {"qemu": "version", "max-bandwidth": "parameters", "enabled": "kvm"}
        key = next((key for mark, key in marks.items() if mark in answer), None)
    if key is not None:
        try:
            check(answer, ANSWERS[key])
        except ShapeError as error:
            raise VirshLogError("bad_answer", path=path, query=QUERIES[key], reason=error) from None
        log.answers[key] = answer


def _object(line: str) -> dict[str, Any]:
    found = parse_json(line)
    return found if isinstance(found, dict) else {}


def _answer(path: Path, log: JobLog, key: str) -> Any:
    if key not in log.answers:
        raise VirshLogError("no_answer", path=path, query=QUERIES[key])
    return log.answers[key]


def _read_events(path: Path) -> Iterator[LoggedEvent]:
    lines = map(str.strip, _text(path).split("\n"))
    found = [(line, match) for line in lines if (match := EVENT.match(line))]
    if not found:
        raise VirshLogError("no_events", path=path)
    for line, match in found:
        time_s = _event_time_s(match)
        place = line.find(": {", match.end() - 1)
        try:
            data = _object(line[place + 2 :]) if place >= 0 else {}
        except ReadingError:  # a line that was cut off
            continue
        if time_s is not None:
            yield LoggedEvent(time_s=time_s, name=match["name"], data=data)


def _event_time_s(match: re.Match[str]) -> float | None:
    if match["stamp"]:
        return float(match["stamp"])
    try:
        clock = datetime.strptime(match["clock"] or "", "%Y-%m-%d %H:%M:%S.%f")
    except ValueError:  # no clock, or month 13
        return None
    return clock.replace(tzinfo=UTC).timestamp()


def _last_migration(events: list[LoggedEvent]) -> list[LoggedEvent]:
    """Return the events from the last migration's setup on, or all if there is no setup."""
    setups = [place for place, event in enumerate(events) if event.data.get("status") == "setup"]
    return events[setups[-1] :] if setups else events


def ram_of(job: Mapping[str, Any]) -> dict[str, int]:
    """Return the values of one answer of domjobinfo under the keys of query-migrate's ram."""
    return {RAM[key]: round(value) for key, value in job.items() if key in RAM}


def first_value(job: Mapping[str, Any], names: tuple[str, ...], otherwise: float) -> float:
    """Return the value of the first name that domjobinfo printed."""
    return next((float(job[name]) for name in names if name in job), otherwise)


def _sample(job: Mapping[str, Any], t: float) -> dict[str, Any]:
    """Return one answer of domjobinfo under query-migrate's keys."""
    found: dict[str, Any] = {
        "t": round(t, CLOCK_DIGITS),
        "status": "active",
        "total-time": round(1000 * t),
        "mbps": first_value(job, BANDWIDTH, 0.0) * 8 / 1e6,
        **ram_of(job),
    }
    throttle = round(first_value(job, THROTTLE, 0.0))
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
    done = [job.values for job in log.jobs if job.values["job"] in COMPLETED]
    known = ram_of(done[-1]) if done else {}
    downtime_ms = 1000 * (ends[-1] - stops[-1]) if stops else 0.0
    if done:
        downtime_ms = first_value(done[-1], DOWNTIME, downtime_ms)
    t = ends[-1] - start_s
    return {key: value for key, value in last.items() if key != "cpu-throttle-percentage"} | {
        **known,
        "t": round(t, CLOCK_DIGITS),
        "status": "completed",
        "total-time": round(1000 * t),
        "downtime": round(downtime_ms),
        "remaining": 0,
    }
