"""Watch a running VM through its monitor while another program migrates it.

It sends only query commands (and the greeting's qmp_capabilities), so it changes nothing. The notes
of the recording say what is missing. Nobody counts the writes of an unknown guest, the start is
missing if the recorder came late, and QEMU may end before its last answer.
"""

from __future__ import annotations

import asyncio
import os
import socket
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from gpusim.errors import one_line
from gpusim.formats.recording import SETUP, UNCOUNTED_NOTE, counts_every_sync
from gpusim.formats.recording_file import CLOCK_DIGITS, LEAST_SAMPLES
from gpusim.monitor.dirty_rate import IDLE, Progress
from gpusim.monitor.errors import LiveError, MonitorClosedError, NoAnswerError
from gpusim.monitor.qmp import Monitor, QmpEvent
from gpusim.reading import ReadingError, read_text
from gpusim.record.cut_file import CutFile
from gpusim.record.messages import RecordError, note
from gpusim.record.session import (
    SAMPLE_EVERY_S,
    describe_progress,
    query_migrate,
    to_sample,
)
from gpusim.record.trace_log import TraceLine, parse_trace_line
from gpusim.units import MIB

MOST_WRONG = 10  # wrong answers in a row
ANSWER_TIMEOUT_S = 120.0  # QEMU's main loop waits for syncs, which take long in big VMs
TRACE_TIMEOUT_S = 3.0  # for the last line of a log that QEMU writes on its own
TRACE_SLACK_S = 1.0  # between a trace's start and the start that total-time gives


@dataclass(kw_only=True)
class Watched:
    """The observations of the migration, by the wall clock.

    Attributes:
        samples: (seconds, answer of query-migrate).
        notes: lines that say what is missing, and what that costs.
        wrong_answers: answers that were left out, because they have another shape.
        kept_start_s: the start as it was known when the first samples were kept.
        kept_events: how many of the monitor's events were kept with them.
        ended: completed, cancelled, "connection closed", "no answer", "wrong answers", interrupted
            or limit.
    """

    samples: list[tuple[float, dict[str, Any]]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    wrong_answers: int = 0
    kept_start_s: float = 0.0
    kept_events: int = 0
    ended: str = ""

    @property
    def start_s(self) -> float:
        """Return when the migration began, the moment from which QEMU's total-time counts."""
        return statistics.median(at - float(i["total-time"]) / 1000 for at, i in self.active)

    @property
    def active(self) -> list[tuple[float, dict[str, Any]]]:
        """Return the samples of the active migration. A destination has no times and no RAM."""
        return [
            (at, info)
            for at, info in self.samples
            if info.get("status") == "active" and "total-time" in info and "ram" in info
        ]


async def attach(
    address: str | socket.socket,
    progress: Progress,
    trace_log: Path | None = None,
    limit_s: float | None = None,
    cut: CutFile | None = None,
) -> dict[str, Any]:
    """Wait for a migration to begin, watch it to its end, and return the recording.

    After the migration has begun, a cancelled task returns the recording so far.

    Args:
        address: of a monitor that nobody else uses.
        progress: shows a line after each answer.
        trace_log: file that QEMU traces into, with timestamps.
        limit_s: how long to watch, from the start of the migration. None: to its end.
        cut: gets each sample as it comes.

    Raises:
        LiveError: there is no recording.
    """
    if trace_log is not None and not os.access(trace_log, os.R_OK):
        raise RecordError("unreadable_trace_log", path=trace_log)
    watched = Watched()
    try:
        async with Monitor(address) as monitor:
            vm = await _query_vm(monitor, watched)
            await _wait_for_start(monitor, watched, progress)
            vm["parameters"] = await _ask(monitor, "query-migrate-parameters")
            vm["capabilities"] = await _query_capabilities(monitor)
            keep = partial(_keep, cut, monitor, watched, vm)
            await _follow(monitor, watched, progress, limit_s, keep)
            _require_enough(watched)
            if cut is not None and cut.failure:
                watched.notes.append(note("no_cut_file", reason=one_line(cut.failure)))
            return _document(monitor, watched, vm, await _read_trace(watched, trace_log))
    except MonitorClosedError as error:
        raise RecordError("closed_before_start", reason=error) from None


async def _ask(monitor: Monitor, query: str) -> Any:
    return await monitor.ask(query, timeout_s=ANSWER_TIMEOUT_S)


async def _query_vm(monitor: Monitor, watched: Watched) -> dict[str, Any]:
    """Return the VM's part of a recording."""
    kvm = await _ask(monitor, "query-kvm")
    vcpus = await _ask(monitor, "query-cpus-fast")
    if kvm["enabled"]:
        watched.notes.append(note("kvm_tracking"))
    return {"accelerator": "kvm" if kvm["enabled"] else "tcg", "vcpus": len(vcpus)}


async def _query_capabilities(monitor: Monitor) -> list[str]:
    rows = await _ask(monitor, "query-migrate-capabilities")
    return sorted(row["capability"] for row in rows if row["state"])


async def _wait_for_start(monitor: Monitor, watched: Watched, progress: Progress) -> None:
    info = await _ask(monitor, "query-migrate")
    if info.get("status", "none") in IDLE:
        progress("waiting for a migration to begin")
    else:
        late_s = info.get("total-time", 0) / 1000
        syncs = info.get("ram", {}).get("dirty-sync-count", 0)
        watched.notes.append(note("joined", late_s=late_s, syncs=syncs))
    before = info
    while info.get("status", "none") in IDLE:
        await asyncio.sleep(SAMPLE_EVERY_S)
        info = await _sample(monitor, watched)
        if info.get("status", "none") in IDLE:
            watched.samples.clear()
            if info != before:
                raise RecordError("too_short", every_s=SAMPLE_EVERY_S, status=info.get("status"))


async def _sample(monitor: Monitor, watched: Watched) -> dict[str, Any]:
    """Add an answer of query-migrate. Its time is the middle between question and answer.

    Raises:
        LiveError: QEMU closed the connection, gave no answer, or ten wrong ones.
    """
    for attempt in range(1, MOST_WRONG + 1):
        asked_s = time.time()
        try:
            info = await query_migrate(partial(_ask, monitor))
        except (MonitorClosedError, NoAnswerError):
            raise
        except LiveError:
            watched.wrong_answers += 1
            if attempt == MOST_WRONG:
                raise
            await asyncio.sleep(SAMPLE_EVERY_S)
        else:
            break
    watched.samples.append(((asked_s + time.time()) / 2, info))
    return info


def _keep(cut: CutFile | None, monitor: Monitor, watched: Watched, vm: Mapping[str, Any]) -> None:
    """Add the new samples to the file that a killed recorder leaves, once there are enough."""
    if cut is None or (not cut.samples and len(watched.active) < LEAST_SAMPLES):
        return
    if not cut.samples:
        watched.kept_start_s = watched.start_s
        notes = [*watched.notes, note("cut")]
        cut.begin(_head(monitor, watched, vm) | {"ended": "cut", "notes": notes, "events": []})
    start_s = watched.kept_start_s
    events = monitor.events[watched.kept_events :]
    watched.kept_events += len(events)
    cut.add(_sample_rows(watched.samples[cut.samples :], start_s), _event_rows(events, start_s))


async def _follow(
    monitor: Monitor,
    watched: Watched,
    progress: Progress,
    limit_s: float | None,
    keep: Callable[[], None] = lambda: None,
) -> None:
    """Sample until the migration ends, QEMU ends, the limit is reached or the task is cancelled."""
    began_s = time.time()
    try:
        for turn in range(1, 2**62):
            info = await _sample(monitor, watched)
            status = info.get("status", "none")
            elapsed_s = info.get("total-time", 0) / 1000
            progress(describe_progress(info, elapsed_s))
            if status == "failed":
                reason = info.get("error-desc", "QEMU gives no reason")
                raise RecordError("migration_failed", reason=reason, qemu_line="")
            if status == "completed" and not {"total-time", "downtime"} <= info.keys():
                watched.samples.pop()
                watched.wrong_answers += 1
                watched.ended = "wrong answers"
                return
            keep()
            if status in IDLE:
                watched.ended = status
                return
            if limit_s is not None and elapsed_s >= limit_s:
                watched.ended = "limit"
                return
            await asyncio.sleep(max(0.0, began_s + turn * SAMPLE_EVERY_S - time.time()))
    except MonitorClosedError:
        watched.ended = "connection closed"
    except NoAnswerError:
        watched.ended = "no answer"
    except RecordError:
        raise
    except LiveError:
        watched.ended = "wrong answers"
    except asyncio.CancelledError:
        task = asyncio.current_task()
        assert task is not None
        task.uncancel()  # the recording so far is worth keeping
        watched.ended = "interrupted"


def _require_enough(watched: Watched) -> None:
    if len(watched.active) < LEAST_SAMPLES:
        raise RecordError(
            "too_few_answers",
            answers=len(watched.active),
            least=LEAST_SAMPLES,
            every_s=SAMPLE_EVERY_S,
        )


async def _read_trace(watched: Watched, path: Path | None) -> list[TraceLine]:
    """Return the trace of this migration. Wait a little for the end of one that completed."""
    if path is None:
        return []
    until_s = time.monotonic() + TRACE_TIMEOUT_S
    while True:
        try:
            trace = read_last_migration(path)
        except ReadingError as error:
            watched.notes.append(note("lost_trace_log", path=path, reason=error.reason))
            return []
        if _completed(trace) or watched.ended != "completed" or time.monotonic() > until_s:
            break
        await asyncio.sleep(0.05)
    names = {line.name for line in trace}
    if not trace or abs(trace[0].time_s - watched.start_s) > TRACE_SLACK_S:
        watched.notes.append(note("no_trace", path=path))
        return []
    if not {"migration_bitmap_sync_start", "migration_bitmap_sync_end"} <= names:
        watched.notes.append(note("no_traced_syncs", path=path))
        return []
    return trace


def _completed(trace: list[TraceLine]) -> bool:
    return any(line.arguments == "new state completed" for line in trace)


def read_last_migration(path: Path) -> list[TraceLine]:
    """Return the events of a log from the last "new state setup" on.

    Events without a time are skipped.

    Raises:
        ReadingError: no regular file, unreadable, or larger than 64 MiB.
    """
    found: list[TraceLine] = []
    for text in read_text(path, errors="replace").split("\n"):
        line = parse_trace_line(text, 0.0)
        if line is None or not line.time_s:
            continue
        if line.arguments == SETUP:
            found = [line]
        elif found:
            found.append(line)
    return found


def _document(
    monitor: Monitor, watched: Watched, vm: Mapping[str, Any], trace: list[TraceLine]
) -> dict[str, Any]:
    """Return the recording, in the format of gpusim/validation/data/README.md."""
    start_s = watched.start_s
    events = _event_rows(monitor.events, start_s)
    reported = any(
        name == "MIGRATION" and data.get("status") == "completed" for _, name, data in events
    )
    completed = watched.ended == "completed" or reported or _completed(trace)
    watched.notes += _end_notes(vm["capabilities"], watched.ended, completed)
    if not trace and not counts_every_sync(monitor.version):
        watched.notes.append(UNCOUNTED_NOTE)
    if watched.wrong_answers:
        watched.notes.append(note("wrong_answers", count=watched.wrong_answers))
    if monitor.bad_events:
        watched.notes.append(note("bad_events", count=monitor.bad_events))
    head = _head(monitor, watched, vm)
    if not completed:
        head["scenario"]["limit_s"] = round(watched.active[-1][0] - start_s, CLOCK_DIGITS)
    return {
        **head,
        "ended": watched.ended,
        "notes": watched.notes,
        "events": [
            [round(line.time_s - start_s, CLOCK_DIGITS), line.name, line.arguments]
            for line in trace
        ],
        "qmp_events": events,
        "samples": _sample_rows(watched.samples, start_s),
    }


def _head(monitor: Monitor, watched: Watched, vm: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a recording that is known from the first samples on."""
    total = watched.active[0][1]["ram"]["total"]
    major, minor, micro = monitor.version
    return {
        "scenario": {
            "mem_mib": -(-total // MIB),
            "guest": None,
            "capabilities": [name for name in vm["capabilities"] if name != "events"],
            "parameters": {},
        },
        "qemu": {"major": major, "minor": minor, "micro": micro},
        **vm,
    }


def _event_rows(events: Sequence[QmpEvent], start_s: float) -> list[list[Any]]:
    """Return those of QEMU's events that are of this migration, with their times since its start."""
    return [
        [round(event.time_s - start_s, CLOCK_DIGITS), event.name, event.data]
        for event in events
        if event.time_s >= start_s - TRACE_SLACK_S
    ]


def _sample_rows(
    samples: list[tuple[float, dict[str, Any]]], start_s: float
) -> list[dict[str, Any]]:
    return [
        to_sample(info, round(at - start_s, CLOCK_DIGITS), None)
        | ({"total": info["ram"]["total"]} if "ram" in info else {})
        for at, info in samples
    ]


def _end_notes(capabilities: list[str], ended: str, completed: bool) -> list[str]:
    notes = [] if "events" in capabilities else [note("events_off")]
    if ended == "connection closed":
        notes.append(note("closed_after_end" if completed else "closed"))
    elif not completed:
        notes.append(note("ended_early", ended=ended))
    return notes
