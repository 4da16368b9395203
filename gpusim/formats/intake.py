"""Read any file that an operator holds: its kind is found by its content.

Owns which reader takes which kind, and what a file is good for: a profile, a recording that gives one, or
reports of a migration that only allow a coarse answer. It does not fit a guest and decides nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gpusim.errors import CodedError
from gpusim.formats.errors import AnswersError, IntakeError, ProfileError, VirshLogError
from gpusim.formats.guestperf_report import read_guestperf
from gpusim.formats.log_kinds import Kind, find_kind, read_log
from gpusim.formats.migration_log import COMPLETED, MigrationLog
from gpusim.formats.nova_log import read_nova
from gpusim.formats.profile import Profile, load_profile
from gpusim.formats.profile_from_recording import from_recording, outcome_of
from gpusim.formats.proxmox_log import read_proxmox
from gpusim.formats.recording import Recording
from gpusim.formats.recording_file import load_recording, read_document
from gpusim.formats.recording_from_answers import (
    FEWEST_FALLS,
    Answer,
    Found,
    document_of,
    last_migration,
    read_answers,
)
from gpusim.formats.recording_from_virsh import JobLog, document_of_jobs, read_job_log
from gpusim.formats.status_texts import (
    answers_of_hmp,
    answers_of_jobs,
    log_of_answers,
    log_of_recording,
)
from gpusim.formats.sync_record import PAGE_BYTES, normal_pages
from gpusim.formats.vdsm_log import read_vdsm
from gpusim.formats.virsh import from_domstats
from gpusim.formats.virt_launcher_log import read_virt_launcher
from gpusim.qemu.parameters import MOST_DOWNTIME_LIMIT_MS

READERS: Mapping[str, Callable[[str], MigrationLog | None]] = {
    "virt_launcher": read_virt_launcher,
    "vdsm": read_vdsm,
    "nova": read_nova,
    "proxmox": read_proxmox,
}
NOTES = {
    "virt_launcher": (
        "virt-launcher prints whole MiB, every 4 s: syncs lie between two lines. It prints no "
        "throttle, so auto-converge is taken to have been off"
    ),
    "vdsm": (
        "vdsm prints whole MiB, every 10 s. Normal pages follow from the bytes on the link. It "
        "prints no throttle, so auto-converge is taken to have been off"
    ),
}
LIBVIRT = ("virt_launcher", "vdsm", "domjobinfo")
# libvirt sets no limit unless it is asked to. Source: src/qemu/qemu_migration_params.c.
NO_LIMIT: Mapping[str, Any] = {"max-bandwidth": 0}
# Answers that are right, and too few or too old for a recording.
INCOMPLETE = (
    "too_few_samples",
    "no_page_counts",
    "ends_before_sample",
    "ends_after_sample",
    "ends_early",
    "failed",
)
COUNTED = "answers of query-migrate, virsh domjobinfo, or a log of virt-launcher or vdsm"
JOBS_NOTE = (
    "the clock is libvirt's time elapsed, and facts about QEMU are assumed. "
    "docs/how-to/watch-a-migration.md shows how to log them"
)


@dataclass(frozen=True, kw_only=True)
class Intake:
    """What a file is good for.

    Attributes:
        path: of the file.
        kind: what it was taken for.
        profile: of the VM, if the file gives one.
        recording: the migration, if every sync of it can be found.
        log: reports of a migration. None: the file is a profile.
        obstacle: why `profile` is None.
    """

    path: Path
    kind: Kind
    profile: Profile | None = None
    recording: Recording | None = None
    log: MigrationLog | None = None
    obstacle: CodedError | None = None


def read_intake(
    path: Path,
    memory_bytes: int | None = None,
    vcpus: int | None = None,
    domain: str | None = None,
) -> Intake:
    """Read a file of any kind that `log_kinds` knows.

    Args:
        path: of the file.
        memory_bytes: of the VM, for virsh domstats without virsh dominfo.
        vcpus: the same.
        domain: which VM of virsh domstats.

    Raises:
        IntakeError: the file is of no kind, of two kinds, or reports no memory.
        ProfileError, RecordingError: a damaged profile or recording.
    """
    text = read_log(path)
    kind = find_kind(path, text)
    if kind.code == "profile":
        return Intake(path=path, kind=kind, profile=load_profile(path))
    if kind.code == "domstats":
        profile = from_domstats(text, path, memory_bytes, vcpus, domain)
        return Intake(path=path, kind=kind, profile=profile)
    if kind.code == "recording":
        return _with_profile(path, kind, load_recording(path, replayed=False))
    reports = _reports(path, kind, text)
    log = reports.log
    try:
        recording, notes = _recording(path, kind, reports)
    except (AnswersError, IntakeError, VirshLogError) as error:
        return Intake(path=path, kind=kind, log=log, obstacle=error)
    except CodedError as error:  # a counter that falls, or two migrations in one
        if kind.code not in READERS and error.code not in INCOMPLETE:
            raise
        return Intake(path=path, kind=kind, log=log, obstacle=error)
    return _with_profile(path, kind, recording, log, notes)


def load_any_recording(path: Path) -> Recording:
    """Return the recording that a file of any kind holds. gpusim must be able to replay it.

    Raises:
        RecordingError, ProfileError, AnswersError, VirshLogError, IntakeError: there is none.
    """
    try:
        text = read_log(path)
        kind = find_kind(path, text)
    except IntakeError:
        return load_recording(path)
    if kind.code in ("recording", "profile", "domstats"):
        return load_recording(path)
    return _recording(path, kind, _reports(path, kind, text), replayed=True)[0]


def _with_profile(
    path: Path,
    kind: Kind,
    recording: Recording,
    log: MigrationLog | None = None,
    notes: Sequence[str] = (),
) -> Intake:
    """Return what a recording is good for. `notes` say how it was made."""
    log = replace(log or log_of_recording(recording), parameters=recording.parameters)
    intake = Intake(path=path, kind=kind, recording=recording, log=log)
    if recording.profile is not None:
        return replace(intake, profile=replace(recording.profile, outcome=outcome_of(recording)))
    try:
        profile = from_recording(recording)
    except ProfileError as error:
        return replace(intake, obstacle=error)
    return replace(intake, profile=replace(profile, notes=(*profile.notes, *notes)))


@dataclass(frozen=True, kw_only=True)
class _Reports:
    """Reports of a migration in three forms.

    Attributes:
        log: for people.
        found: answers of query-migrate. Empty: the reports lack counters.
        jobs: as virsh printed them, if it did.
    """

    log: MigrationLog
    found: Found
    jobs: JobLog | None = None


def _reports(path: Path, kind: Kind, text: str) -> _Reports:
    """Return the reports in a text.

    Raises:
        IntakeError: there are none.
    """
    jobs = None
    if kind.code in READERS:
        log = _read_lines(READERS[kind.code], text)
        found = Found(answers=[] if log is None else _answers_of_log(log))
    elif kind.code == "domjobinfo":
        jobs = read_job_log(path, text)
        found = Found(answers=answers_of_jobs(jobs.jobs))
    elif kind.code == "hmp":
        found = Found(answers=answers_of_hmp(text))
    elif kind.code == "guestperf":
        found = read_guestperf(path, text)
    else:
        found = read_answers(path, text)
    if kind.code not in READERS:
        timed = [one for one in found.answers if "total-time" in one]
        answers = last_migration(timed) if timed else found.answers[-1:]
        log = log_of_answers(kind.code, answers or timed[-1:])
    if log is None:
        raise IntakeError("nothing_told", path=path, kind=kind.name)
    return _Reports(log=log, found=found, jobs=jobs)


def _read_lines(read: Callable[[str], MigrationLog | None], text: str) -> MigrationLog | None:
    """Return the last migration of a log. A log viewer may have exported the newest line first.

    Each fall of the clock begins a migration, so the order with fewer of them is the right one. A log
    may hold a few migrations with one line each, so a few falls tell nothing.
    """
    log = read(text)
    if log is None or log.migrations - 1 <= FEWEST_FALLS:
        return log
    turned = read("\n".join(reversed(text.split("\n"))))
    return turned if turned is not None and turned.migrations < log.migrations else log


def _recording(
    path: Path, kind: Kind, reports: _Reports, *, replayed: bool = False
) -> tuple[Recording, tuple[str, ...]]:
    """Return the recording that reports hold, and the notes on it."""
    log, found = reports.log, reports.found
    if kind.code in READERS and not found.answers:
        raise IntakeError("no_counters", path=path, kind=kind.name, known=COUNTED)
    notes: tuple[str, ...] = (NOTES[kind.code],) if kind.code in NOTES else ()
    facts = dict(NO_LIMIT) if kind.code in LIBVIRT else {}
    limits_ms = [limit_ms for _, limit_ms in log.limits if limit_ms <= MOST_DOWNTIME_LIMIT_MS]
    if limits_ms:
        facts["downtime-limit"] = limits_ms[-1]
    document: dict[str, Any] | None = None
    if reports.jobs is not None:
        notes = (JOBS_NOTE,)
        try:
            document = document_of_jobs(path, reports.jobs)
        except VirshLogError as error:
            if error.code != "no_answer":
                raise
    if document is None:
        answers = [one for one in found.answers if "total-time" in one]
        document = document_of(path, Found(answers=answers, facts=found.facts), facts, notes)
    recording = read_document(document, _case(path), path=path, replayed=replayed)
    return recording, tuple(document["notes"])


def _case(path: Path) -> str:
    return path.name.removesuffix(".xz").removesuffix(".gz").rpartition(".")[0] or path.name


def _answers_of_log(log: MigrationLog) -> list[Answer]:
    """Return reports with counters as answers of query-migrate. []: some have none."""
    found: list[Answer] = []
    for one in log.reports:
        normal = one.normal_pages
        if normal is None and one.zero_pages is not None and one.transferred_bytes is not None:
            normal = normal_pages(one.transferred_bytes, one.zero_pages)
        counters = {
            "total": one.total_bytes,
            "transferred": one.transferred_bytes,
            "remaining": one.remaining_bytes,
            "duplicate": one.zero_pages,
            "normal": normal,
            "dirty-sync-count": one.iteration,
        }
        if None in counters.values() or one.time_s is None:
            return []
        ram: dict[str, Any] = dict(counters)
        ram["mbps"] = (one.bytes_per_s or 0.0) * 8 / 1e6
        ram["dirty-pages-rate"] = round((one.dirty_bytes_per_s or 0.0) / PAGE_BYTES)
        found.append({"status": "active", "total-time": round(1000 * one.time_s), "ram": ram})
    if found and log.outcome == COMPLETED:  # any other end cuts the recording at its last report
        found.append(_last(found[-1], log))
    return found


def _last(answer: Answer, log: MigrationLog) -> Answer:
    """Return the answer at the completion, which the log does not print."""
    total_ms = max(round(1000 * (log.seconds or 0.0)), answer["total-time"])
    downtime_ms = min(round(log.downtime_ms or 0), total_ms)
    end = dict(answer) | {"status": COMPLETED, "total-time": total_ms, "downtime": downtime_ms}
    return end | {"ram": dict(answer["ram"]) | {"remaining": 0}}
