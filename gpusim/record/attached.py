"""A VM that runs anyway, watched through its monitor while somebody else migrates it.

It sends nothing but query commands (and the greeting's qmp_capabilities), so that it changes nothing.
What it cannot see, it says in the recording's notes: nobody counts what an unknown guest writes, the
start is missing where it came late, and QEMU may be gone before its last answer.
"""

from __future__ import annotations

import asyncio
import os
import socket
import statistics
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from gpusim.formats.recording import LEAST_SAMPLES, MIB, SETUP
from gpusim.monitor.qmp import LiveError, Monitor, MonitorClosedError, NoAnswerError
from gpusim.record.session import (
    ENDED,
    SAMPLE_EVERY_S,
    TIME_DIGITS,
    Telling,
    migration,
    progress,
    sample,
)
from gpusim.record.trace_log import TraceLine, parsed

ANSWER_TIMEOUT_S = 120.0  # QEMU's main loop waits for syncs, and those of big VMs take long
TRACE_TIMEOUT_S = 3.0  # for the last line of a log that QEMU writes by itself
TRACE_SLACK_S = 1.0  # between a trace's start and the one that total-time tells
IDLE = {"none", *ENDED}


@dataclass(kw_only=True)
class Watched:
    """What was seen of the migration, by the wall clock.

    Attributes:
        samples: (seconds, answer of query-migrate).
        notes: what is missing, and what that costs.
        ended: completed, cancelled, "connection closed", interrupted or limit.
    """

    samples: list[tuple[float, dict[str, Any]]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    ended: str = ""

    @property
    def start_s(self) -> float:
        """When the migration began: QEMU's total-time counts from there."""
        return statistics.median(at - float(i["total-time"]) / 1000 for at, i in self.active)

    @property
    def active(self) -> list[tuple[float, dict[str, Any]]]:
        """The samples of a migration that sends."""
        return [(at, info) for at, info in self.samples if info.get("status") == "active"]


async def attach(
    address: str | socket.socket,
    tell: Telling,
    trace_log: Path | None = None,
    limit_s: float | None = None,
) -> dict[str, Any]:
    """Wait for a migration to begin, watch it to its end, and return the recording.

    Once it has begun, a cancelled task returns what was seen so far.

    Args:
        address: of a monitor that nobody else is connected to.
        tell: takes a line now and then of how far it is.
        trace_log: that QEMU writes, with timestamps.
        limit_s: how long to watch, from the begin of the migration; None: to its end.

    Raises:
        LiveError: no recording; says why in one line.
    """
    if trace_log is not None and not os.access(trace_log, os.R_OK):
        raise LiveError(
            f"{trace_log}: cannot be read; expected the file that QEMU traces into (-D)"
        )
    watched = Watched()
    try:
        async with Monitor(address) as monitor:
            around = await _around(monitor, watched)
            await _begin(monitor, watched, tell)
            around["parameters"] = await _ask(monitor, "query-migrate-parameters")
            around["capabilities"] = await _capabilities(monitor)
            await _follow(monitor, watched, tell, limit_s)
            _require_enough(watched)
            return _document(monitor, watched, around, await _trace(watched, trace_log))
    except MonitorClosedError as error:
        raise LiveError(f"no recording: {error} before a migration began") from None


async def _ask(monitor: Monitor, query: str) -> Any:
    assert query.startswith("query-"), "an attached recorder only asks"
    return await monitor.ask(query, timeout_s=ANSWER_TIMEOUT_S)


async def _around(monitor: Monitor, watched: Watched) -> dict[str, Any]:
    """What a recording holds besides the migration."""
    kvm = await _ask(monitor, "query-kvm")
    vcpus = await _ask(monitor, "query-cpus-fast")
    if kvm["enabled"]:
        watched.notes.append(
            "KVM's way of tracking is not told by the monitor: taken as manual protect, its default"
        )
    return {"accelerator": "kvm" if kvm["enabled"] else "tcg", "vcpus": len(vcpus)}


async def _capabilities(monitor: Monitor) -> list[str]:
    rows = await _ask(monitor, "query-migrate-capabilities")
    return sorted(row["capability"] for row in rows if row["state"])


async def _begin(monitor: Monitor, watched: Watched, tell: Telling) -> None:
    """Wait until a migration runs."""
    info = await _ask(monitor, "query-migrate")
    if info.get("status", "none") in IDLE:
        tell("waiting for a migration to begin")
    else:
        syncs = info.get("ram", {}).get("dirty-sync-count", 0)
        watched.notes.append(
            f"joined {info.get('total-time', 0) / 1000:.1f} s after the start: the syncs before, "
            f"{syncs}, and the throttle's way are only known in sum, and are spread evenly"
        )
    before = info
    while info.get("status", "none") in IDLE:
        await asyncio.sleep(SAMPLE_EVERY_S)
        info = await _sampled(monitor, watched)
        if info.get("status", "none") in IDLE:
            watched.samples.clear()
            if info != before:
                raise LiveError(
                    f"no recording: a migration came and went within {SAMPLE_EVERY_S:g} s, between "
                    f"two answers ({info.get('status')}); give the next one less bandwidth"
                )


async def _sampled(monitor: Monitor, watched: Watched) -> dict[str, Any]:
    """One more answer; its time is the middle between question and answer."""
    asked_s = time.time()
    info = await migration(partial(_ask, monitor))
    watched.samples.append(((asked_s + time.time()) / 2, info))
    return info


async def _follow(monitor: Monitor, watched: Watched, tell: Telling, limit_s: float | None) -> None:
    """Ask how the migration goes until it ends, QEMU does, or somebody says so."""
    began_s = time.time()
    try:
        for turn in range(1, 2**62):
            info = await _sampled(monitor, watched)
            status = info.get("status", "none")
            elapsed_s = info.get("total-time", 0) / 1000
            tell(progress(info, elapsed_s))
            if status == "failed":
                raise LiveError(
                    f"no recording: the migration failed: {info.get('error-desc', '?')}"
                )
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
    except asyncio.CancelledError:
        task = asyncio.current_task()
        assert task is not None
        task.uncancel()  # what was seen is worth keeping
        watched.ended = "interrupted"


def _require_enough(watched: Watched) -> None:
    if len(watched.active) < LEAST_SAMPLES:
        raise LiveError(
            f"no recording: {len(watched.active)} answers while the migration was active; expected "
            f"{LEAST_SAMPLES}, one every {SAMPLE_EVERY_S:g} s"
        )


async def _trace(watched: Watched, path: Path | None) -> list[TraceLine]:
    """The trace of this migration; waits a little for the end of one that completed."""
    if path is None:
        return []
    until_s = time.monotonic() + TRACE_TIMEOUT_S
    while True:
        try:
            trace = last_migration(path)
        except OSError as error:
            watched.notes.append(f"{path} cannot be read ({error.strerror}): the trace is left out")
            return []
        if _completed(trace) or watched.ended != "completed" or time.monotonic() > until_s:
            break
        await asyncio.sleep(0.05)
    names = {line.name for line in trace}
    if not trace or abs(trace[0].time_s - watched.start_s) > TRACE_SLACK_S:
        watched.notes.append(
            f"{path} holds no trace of this migration; expected lines as pid@seconds:event "
            "(-msg timestamp=on), migrate_set_state among them: left out"
        )
        return []
    if not {"migration_bitmap_sync_start", "migration_bitmap_sync_end"} <= names:
        watched.notes.append(f"{path} holds no migration_bitmap_sync_*: the trace is left out")
        return []
    return trace


def _completed(trace: list[TraceLine]) -> bool:
    return any(line.arguments == "new state completed" for line in trace)


def last_migration(path: Path) -> list[TraceLine]:
    """The events of a log from the last "new state setup" on, as far as they bear a time."""
    found: list[TraceLine] = []
    with path.open(errors="replace") as file:
        for text in file:
            line = parsed(text, 0.0)
            if line is None or not line.time_s:
                continue
            if line.arguments == SETUP:
                found = [line]
            elif found:
                found.append(line)
    return found


def _document(
    monitor: Monitor, watched: Watched, around: dict[str, Any], trace: list[TraceLine]
) -> dict[str, Any]:
    """The recording, in the format of gpusim/validation/data/README.md."""
    start_s = watched.start_s
    events = [e for e in monitor.events if e.time_s >= start_s - TRACE_SLACK_S]
    told = any(e.name == "MIGRATION" and e.data.get("status") == "completed" for e in events)
    completed = watched.ended == "completed" or told or _completed(trace)
    watched.notes += _missing(around["capabilities"], watched.ended, completed)
    total = next(info["ram"]["total"] for _, info in watched.active if "ram" in info)
    scenario: dict[str, Any] = {
        "mem_mib": -(-total // MIB),
        "guest": None,
        "capabilities": [name for name in around["capabilities"] if name != "events"],
        "parameters": {},
    }
    if not completed:
        scenario["limit_s"] = round(watched.active[-1][0] - start_s, TIME_DIGITS)
    major, minor, micro = monitor.version

    def since(at: float) -> float:
        return round(at - start_s, TIME_DIGITS)

    return {
        "scenario": scenario,
        "qemu": {"major": major, "minor": minor, "micro": micro},
        **around,
        "ended": watched.ended,
        "notes": watched.notes,
        "events": [[since(line.time_s), line.name, line.arguments] for line in trace],
        "qmp_events": [[since(e.time_s), e.name, e.data] for e in events],
        "samples": [
            sample(info, since(at), None) | {"total": info["ram"]["total"]}
            if "ram" in info
            else sample(info, since(at), None)
            for at, info in watched.samples
        ],
    }


def _missing(capabilities: list[str], ended: str, completed: bool) -> list[str]:
    notes = []
    if "events" not in capabilities:
        notes.append(
            "capability events is off: a sync's time is known between two samples, unless traced"
        )
    if ended == "connection closed":
        notes.append(
            "QEMU closed the connection: after it had completed, as it said; the last bytes are missing"
            if completed
            else "QEMU closed the connection, completed or not: the recording ends with its last answer"
        )
    elif not completed:
        notes.append(f"{ended}: the recording ends with the last answer of an active migration")
    return notes
