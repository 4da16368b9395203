"""Files of recordings: find them, unpack them, and check every value.

Owns the file format (gpusim/validation/data/README.md) and the meaning of QEMU's trace events. It
does not know the simulator. recording_shape.py has the types and ranges of the keys.
"""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from operator import attrgetter
from pathlib import Path
from typing import Any, NoReturn

from gpusim.errors import one_line
from gpusim.formats.errors import RecordingError
from gpusim.formats.profile import profile_of
from gpusim.formats.recording import (
    SETUP,
    VM_STOP,
    Ram,
    RecordedGuest,
    Recording,
    Sample,
    TraceEvent,
)
from gpusim.formats.recording_shape import document_shape
from gpusim.qemu import names
from gpusim.reading import ReadingError, read_json
from gpusim.shapes import ShapeError, check, refuse
from gpusim.units import MIB

SUFFIXES = (".json", ".json.xz", ".json.gz")
FOREIGN_CAPABILITIES = names.NOT_SIMULATED
LATER_STAGES = ("postcopy-", "colo")  # statuses begin like this after precopy
FAILURES = ("failing", "failed")  # after which a migration is a profile, and no replay
CLOCK_DIGITS = 4  # the trace's times are whole tenths of a millisecond
LEAST_SAMPLES = 3  # of an active migration. Fewer samples give no rate.
GIVEN_UP = 2.0  # times the recorded total time. A longer simulation did not complete.
LATEST_END_S = 2.0  # a recording that stops earlier before its limit_s was cut off
LATEST_EVENT_S = 0.1  # QEMU's threads print events late, but not by more
LONGEST_GAP_S = 3600.0  # between two samples
MOST_SYNCS_PER_S, MORE_SYNCS = 1000, 100  # the smallest VM needs about a millisecond for a sync
MOST_BYTES_PER_PAGE = 128 * 1024  # twice the largest page of a target
OTHER_RAM_BYTES = 256 * MIB  # of video memory and ROMs, which mem_mib does not count
# The arguments of trace events that are read as numbers.
# Source: migration/trace-events:migration_bitmap_sync_end, system/trace-events:cpu_throttle_set.
NUMBERED = {
    "migration_bitmap_sync_end": re.compile(r"dirty_pages [0-9]{1,15}"),
    "cpu_throttle_set": re.compile(r"set guest CPU throttled by [0-9]{1,2}%"),
}
RISES = "must not be less than before"
ORDERED = ("t", "writes", "total", "transferred", "duplicate", "normal", "dirty-sync-count")
PASS = re.compile(r"[0-9]{1,15}")


def find_recordings(path: Path) -> list[Path]:
    """Return the recordings that a file or folder stands for, sorted by name.

    Raises:
        RecordingError: the path does not exist, or is a folder without recordings.
    """
    try:
        if path.is_dir():
            found = sorted(
                file for file in path.iterdir() if file.is_file() and file.name.endswith(SUFFIXES)
            )
            if not found:
                raise RecordingError("empty_folder", path=path, suffixes=", ".join(SUFFIXES))
            return found
        if not path.exists():
            raise RecordingError("no_such_path", path=path)
    except OSError as error:  # no permission, or too long a name
        raise RecordingError("unreadable_path", path=path, reason=error.strerror) from None
    return [path]


def load_recording(path: str | Path, *, replayed: bool = True) -> Recording:
    """Read one recording: .json, .json.xz or .json.gz.

    Args:
        path: of the file.
        replayed: whether gpusim must be able to send as QEMU did. A profile does not need that.

    Raises:
        RecordingError: unreadable, damaged, cut off, or not a recording.
        ProfileError: its profile is damaged.
    """
    path = Path(path)
    suffix = next((suffix for suffix in SUFFIXES if path.name.endswith(suffix)), None)
    if suffix is None:
        raise RecordingError("wrong_suffix", path=path, suffixes=", ".join(SUFFIXES))
    try:
        document = read_json(path)
    except ReadingError as error:
        raise RecordingError("unreadable", path=path, reason=error.reason, suffix=suffix) from None
    return _read(path, path.name.removesuffix(suffix), document, replayed=replayed)


def read_document(
    document: object, case: str, *, path: Path | None = None, replayed: bool = True
) -> Recording:
    """Return a recording from a parsed document that is not in a file.

    Args:
        document: the parsed JSON.
        case: its name.
        path: of the file that it was made from, for errors. None: the name.
        replayed: as in `load_recording`.

    Raises:
        RecordingError: it is not a recording.
        ProfileError: its profile is damaged.
    """
    return _read(path or Path(case), case, document, replayed=replayed)


def _read(path: Path, case: str, document: object, *, replayed: bool) -> Recording:
    scenario = document.get("scenario") if isinstance(document, Mapping) else None
    is_known = isinstance(scenario, Mapping) and scenario.get("guest") is not None
    if isinstance(document, Mapping) and isinstance(scenario, Mapping) and is_known:
        is_known = replayed or _is_whole(document, scenario)
        document = {**document, "scenario": scenario if is_known else {**scenario, "guest": None}}
    try:
        checked = check(document, document_shape(known=is_known))
        recording = _Reader(path, replayed=replayed).recording(case, checked)
    except ShapeError as error:
        raise RecordingError(error.code, path=path, **error.data) from None
    assert isinstance(document, Mapping) and isinstance(scenario, Mapping)
    given = checked["profile"]
    return replace(
        recording,
        scenario=scenario,  # as recorded, without defaults
        parameters=document["parameters"],
        profile=None if given is None else profile_of(path, given),
    )


def _is_whole(document: Mapping[str, Any], scenario: Mapping[str, Any]) -> bool:
    """Return whether a recording has all that a replay of its guest needs. A cut one lacks some."""
    samples, events = document.get("samples"), document.get("events")
    rows = samples if isinstance(samples, list) else []
    return (
        "limit_s" in scenario
        and "writes_per_s_before" in document
        and all("writes" in row for row in rows if isinstance(row, Mapping))
        and isinstance(events, list)
        and any(isinstance(event, list) and SETUP in event for event in events)
    )


class _Reader:
    """Turn a checked document into a Recording. Errors name the file and the key."""

    def __init__(self, path: Path, *, replayed: bool) -> None:
        self.path, self.replayed = path, replayed

    def recording(self, case: str, document: Mapping[str, Any]) -> Recording:
        ends = LATER_STAGES if self.replayed else (*LATER_STAGES, *FAILURES)
        scenario, rows = document["scenario"], _before(document["samples"], ends)
        is_cut = len(rows) < len(document["samples"])
        ram_bytes: int = scenario["mem_mib"] * MIB
        guest = None
        if scenario.get("guest") is not None:
            guest = self.guest(scenario["guest"], scenario["mem_mib"])
        if self.replayed:
            self.check_method(scenario["capabilities"], document["parameters"])
        all_events = _events(document["events"], "events")
        start_s = self.start_s(all_events, rows, known=guest is not None)
        traced = _since_setup(start_s, all_events)
        qmp = _since(start_s, _events(document["qmp_events"], "qmp_events"))
        if is_cut:
            traced, qmp = _events_before(traced, ends), _events_before(qmp, ends)
        completed, events = self.ending(traced)
        total_time_s = events[-1].time_s if completed else None
        stop_s = next((event.time_s for event in events if event.name == VM_STOP), None)
        if not completed and events == traced:  # no trace, or it lost its end and has no cancel
            total_time_s, sampled_stop_s = self.end_without_trace(rows, qmp)
            stop_s = sampled_stop_s if stop_s is None else stop_s
        samples = _samples(rows, start_s, ram_bytes, known=guest is not None)
        active = self.active(samples, stop_s)
        self.check_pages(active[-1])
        limit_s = scenario["limit_s"]
        goes_on = total_time_s is None and samples[-1].time_s < (limit_s or 0) - LATEST_END_S
        if is_cut or (goes_on and not self.replayed):  # the end of the file was cut off
            limit_s = active[-1].time_s
            events = tuple(event for event in events if event.time_s <= samples[-1].time_s)
        if limit_s is None:
            limit_s = active[-1].time_s if total_time_s is None else GIVEN_UP * total_time_s
        self.check_end(samples[-1], active[-1], total_time_s, limit_s)
        totals = [row["total"] for row in rows if row["total"] is not None]
        counter = _counter(document["counter"], start_s)
        if guest is not None and counter and sum(time_s > 0 for time_s, _ in counter) < 2:
            refuse(document["counter"], "must have two counts or more after the start", "counter")
        return Recording(
            case=case,
            scenario=scenario,
            qemu=(document["qemu"]["major"], document["qemu"]["minor"]),
            ram_bytes=totals[0] if totals and guest is None else ram_bytes,
            guest=guest,
            accelerator=document["accelerator"],
            vcpus=document["vcpus"],
            auto_converge="auto-converge" in scenario["capabilities"],
            multifd_channels=_multifd_channels(scenario["capabilities"], document["parameters"]),
            parameters=document["parameters"],
            limit_s=limit_s,
            page_writes_per_s_before=document.get("writes_per_s_before") if guest else None,
            flat_out_page_writes_per_s=document["flat_out_writes_per_s"],
            total_time_s=total_time_s,
            stop_s=stop_s,
            downtime_bytes=next(
                (row["downtime-bytes"] for row in rows if row["status"] == "completed"), None
            ),
            events=events,
            passes_s=_passes(qmp),
            counter=counter,
            samples=samples,
            profile=None,
        )

    def guest(self, guest: Mapping[str, Any], mem_mib: int) -> RecordedGuest:
        end_mib = guest["base"] + guest["size"]
        if end_mib > mem_mib:
            self.fail("working_set_outside_memory", end_mib=end_mib, mem_mib=mem_mib)
        return RecordedGuest(
            base_mib=guest["base"],
            size_mib=guest["size"],
            sequential=guest["mode"] == 0,
            page_writes_per_s=guest["rate"],
            delay=guest["delay"],
            paced=guest["paced"],
            hot_mib=guest["hot"],
            hot_percent=guest["hotpct"],
            fill_mib=guest["fill"],
        )

    def check_method(self, capabilities: Sequence[str], parameters: Mapping[str, Any]) -> None:
        """Refuse a migration whose pages gpusim cannot send as QEMU did."""
        foreign = FOREIGN_CAPABILITIES.intersection(capabilities)
        if foreign:
            self.fail("foreign_capabilities", capabilities=", ".join(sorted(foreign)))
        compression = parameters["multifd-compression"]
        if "multifd" in capabilities and compression != "none":
            refuse(
                compression,
                'must be "none": compression is not simulated',
                "parameters.multifd-compression",
            )

    def start_s(
        self, events: tuple[TraceEvent, ...], rows: Sequence[Mapping[str, Any]], *, known: bool
    ) -> float:
        """Return when the migration began, by the clock of the file.

        QEMU's own total-time starts then, in whole milliseconds
        (migration/migration.c:migrate_init).
        """
        start_s = next((event.time_s for event in events if event.arguments == SETUP), None)
        if start_s is not None:
            return start_s
        if known:
            self.fail("no_start", event=SETUP)
        starts: list[float] = [
            row["t"] - row["total-time"] / 1000
            for row in rows
            if row["status"] == "active" and row["total-time"] is not None
        ]
        if not starts:
            self.fail("no_clock")
        return statistics.median(starts)

    def ending(self, events: tuple[TraceEvent, ...]) -> tuple[bool, tuple[TraceEvent, ...]]:
        """Return whether the migration completed, and the trace events that belong to it."""
        for place, event in enumerate(events):
            if event.arguments == "new state completed":
                return True, events[: place + 1]
            if event.arguments == "new state cancelling":
                return False, events[:place]
            if event.arguments == "new state failed":
                self.fail("failed")
        return False, events

    def end_without_trace(
        self, rows: Sequence[Mapping[str, Any]], qmp: tuple[TraceEvent, ...]
    ) -> tuple[float | None, float | None]:
        """Return the total time and the time of the VM's stop, from query-migrate or QMP's events.

        QEMU's downtime runs from just before the VM's stop to the end of the migration.
        Source: migration/migration.c:migration_completion_precopy, migration_completion_end.
        """
        if any(row["status"] == "failed" for row in rows):
            self.fail("failed")
        for place, row in enumerate(rows):
            if row["status"] == "completed":
                total_ms, downtime_ms = row["total-time"], row["downtime"]
                if not total_ms:
                    refuse(total_ms, "must be a number above 0", f"samples[{place}].total-time")
                if downtime_ms is None or downtime_ms > total_ms:
                    allowed = f"must be a number from 0 to {total_ms:g} ms, the total-time"
                    refuse(downtime_ms, allowed, f"samples[{place}].downtime")
                return total_ms / 1000, (total_ms - downtime_ms) / 1000
        done = [e.time_s for e in qmp if (e.name, e.arguments) == ("MIGRATION", "completed")]
        if not done:
            return None, None
        stops = [e.time_s for e in qmp if e.name == "STOP" and e.time_s <= done[-1]]
        return done[-1], stops[-1] if stops else done[-1]

    def active(self, samples: Sequence[Sample], stop_s: float | None) -> list[Sample]:
        """Return the samples of the active migration, before the VM's stop."""
        found = [
            sample
            for sample in samples
            if sample.status == "active"
            and sample.ram is not None
            and (stop_s is None or sample.time_s < stop_s)
        ]
        if len(found) < LEAST_SAMPLES:
            self.fail("too_few_samples", samples=len(found), least=LEAST_SAMPLES)
        return found

    def check_pages(self, last: Sample) -> None:
        """Refuse counters of pages that are far too low for the bytes sent: the guest would look idle."""
        ram = last.ram
        assert ram is not None
        if ram.transferred_bytes > MOST_BYTES_PER_PAGE * ram.sent_pages + OTHER_RAM_BYTES:
            self.fail("no_page_counts", pages=ram.sent_pages, sent_bytes=ram.transferred_bytes)

    def check_end(
        self, last: Sample, last_active: Sample, total_time_s: float | None, limit_s: float
    ) -> None:
        """Refuse a recording whose samples and end contradict each other."""
        if total_time_s is None:
            if last.time_s < limit_s - LATEST_END_S:
                self.fail("ends_early", end_s=last.time_s, limit_s=limit_s)
        elif not last_active.time_s - LATEST_END_S <= total_time_s:
            self.fail("ends_before_sample", end_s=total_time_s, sample_s=last_active.time_s)
        elif last.status == "completed" and total_time_s > last.time_s + LATEST_END_S:
            self.fail("ends_after_sample", end_s=total_time_s, sample_s=last.time_s)

    def fail(self, code: str, **data: Any) -> NoReturn:
        raise RecordingError(code, path=self.path, **data)


def _multifd_channels(capabilities: Sequence[str], parameters: Mapping[str, Any]) -> int:
    """Return the number of multifd channels, or 0 if one thread sent everything."""
    return int(parameters["multifd-channels"]) if "multifd" in capabilities else 0


def _before(
    rows: Sequence[Mapping[str, Any]], ends: tuple[str, ...]
) -> Sequence[Mapping[str, Any]]:
    """Return the samples before the first one whose status begins with one of `ends`."""
    later = (place for place, row in enumerate(rows) if row["status"].startswith(ends))
    return rows[: next(later, len(rows))]


def _events_before(events: tuple[TraceEvent, ...], ends: tuple[str, ...]) -> tuple[TraceEvent, ...]:
    """Return the events before the first one whose state begins with one of `ends`."""
    for place, event in enumerate(events):
        if event.arguments.removeprefix("new state ").startswith(ends):
            return events[:place]
    return events


def _events(rows: Sequence[tuple[float, str, Any]], key: str) -> tuple[TraceEvent, ...]:
    """Return events in the order of their times."""
    events: list[TraceEvent] = []
    latest_s = -math.inf
    for place, (time_s, name, arguments) in enumerate(rows):
        if time_s < latest_s - LATEST_EVENT_S:
            refuse(time_s, f"must not be before {latest_s:g} s, an event before", f"{key}[{place}]")
        latest_s = max(time_s, latest_s)
        if isinstance(arguments, Mapping):  # QMP: MIGRATION has a status, MIGRATION_PASS a pass
            detail = arguments.get("status", arguments.get("pass", ""))
        else:
            detail = arguments
        text = detail if isinstance(detail, str) else one_line(detail)
        if name in NUMBERED and not NUMBERED[name].fullmatch(text):
            refuse(text, f"must have the form {NUMBERED[name].pattern}", f"{key}[{place}][2]")
        events.append(TraceEvent(time_s=time_s, name=name, arguments=text))
    return tuple(sorted(events, key=attrgetter("time_s")))


def _since(start_s: float, events: Sequence[TraceEvent]) -> tuple[TraceEvent, ...]:
    """Return the events from the start of the migration on, with their times since then."""
    moved = (replace(e, time_s=round(e.time_s - start_s, CLOCK_DIGITS)) for e in events)
    return tuple(event for event in moved if event.time_s >= 0)


def _since_setup(start_s: float, events: Sequence[TraceEvent]) -> tuple[TraceEvent, ...]:
    """Return the trace from the setup of the migration on, or nothing if there is no setup."""
    places = (place for place, event in enumerate(events) if event.arguments == SETUP)
    place = next(places, len(events))
    return _since(start_s, events[place:])


def _passes(qmp: Sequence[TraceEvent]) -> dict[int, float]:
    """Return number of a sync -> time of its event MIGRATION_PASS."""
    found: dict[int, float] = {}
    for event in qmp:
        if event.name == "MIGRATION_PASS" and PASS.fullmatch(event.arguments):
            number = int(event.arguments)
            if found and number <= max(found):
                refuse(
                    number, "must be above the number of the MIGRATION_PASS before", "qmp_events"
                )
            found[number] = event.time_s
    return found


def _counter(rows: Sequence[tuple[float, int]], start_s: float) -> tuple[tuple[float, int], ...]:
    """Return the fine counter. It may begin before the migration."""
    pairs: list[tuple[float, int]] = []
    for place, (at_s, writes) in enumerate(rows):
        time_s = round(at_s - start_s, CLOCK_DIGITS)
        if pairs and time_s < pairs[-1][0]:
            refuse(at_s, RISES, f"counter[{place}][0]")
        if pairs and writes < pairs[-1][1]:
            refuse(writes, RISES, f"counter[{place}][1]")
        if not pairs or time_s > pairs[-1][0]:
            pairs.append((time_s, writes))
    return tuple(pairs)


def _samples(
    rows: Sequence[Mapping[str, Any]], start_s: float, ram_bytes: int, *, known: bool
) -> tuple[Sample, ...]:
    """Return the samples from the start on. A second sample at the same time is left out.

    Args:
        rows: checked by their shape.
        start_s: of the migration, by the clock of the file.
        ram_bytes: of the VM, without video memory and ROMs.
        known: whether the guest is known and counts its writes.
    """
    samples: list[Sample] = []
    before: Mapping[str, Any] = {}
    for place, row in enumerate(rows):
        _check_order(before, row, f"samples[{place}]", ram_bytes, start_s)
        before = {**before, **{key: row[key] for key in ORDERED if row.get(key) is not None}}
        time_s = round(row["t"] - start_s, CLOCK_DIGITS)
        if time_s >= 0 and (not samples or time_s > samples[-1].time_s):
            samples.append(
                Sample(
                    time_s=time_s,
                    status=row["status"],
                    writes=row["writes"] if known else None,
                    ram=None if row["transferred"] is None else _ram(row),
                    cpu_throttle_percentage=row["cpu-throttle-percentage"],
                    mbps=row["mbps"],
                )
            )
    return tuple(samples)


def _check_order(
    before: Mapping[str, Any], row: Mapping[str, Any], key: str, ram_bytes: int, start_s: float
) -> None:
    """Refuse a sample that contradicts the samples before it.

    Args:
        before: the last value of each key in ORDERED.
        row: the sample.
        key: of the sample, for errors.
        ram_bytes: of the VM, without video memory and ROMs.
        start_s: of the migration, by the clock of the file.
    """
    for name in ORDERED:
        value = row.get(name)
        if value is not None and value < before.get(name, value):
            refuse(value, RISES, f"{key}.{name}")
    gap_s = row["t"] - before.get("t", row["t"])
    if gap_s > LONGEST_GAP_S:
        refuse(row["t"], f"must be within {LONGEST_GAP_S:g} s of the sample before", f"{key}.t")
    total = row["total"]
    if total is not None and total != before.get("total", total):
        refuse(total, f"must be {before['total']} bytes, as in the samples before", f"{key}.total")
    if row["remaining"] is None:
        return
    most = ram_bytes + OTHER_RAM_BYTES if total is None else total + MIB
    if row["remaining"] > most:
        refuse(row["remaining"], f"must be at most {most} bytes, all RAM", f"{key}.remaining")
    name = "dirty-sync-count"
    passed_s = min(max(row["t"] - before.get("t", start_s), 0.0), LONGEST_GAP_S)
    most = before.get(name, 0) + MORE_SYNCS + round(MOST_SYNCS_PER_S * passed_s)
    if row[name] > most:
        refuse(row[name], f"must be at most {most}, because a sync takes time", f"{key}.{name}")


def _ram(row: Mapping[str, Any]) -> Ram:
    return Ram(
        transferred_bytes=row["transferred"],
        remaining_bytes=row["remaining"],
        sent_pages=row["normal"] + row["duplicate"] + row["xbzrle-pages"],
        zero_pages=row["duplicate"],
        dirty_sync_count=row["dirty-sync-count"],
        dirty_pages_rate=row["dirty-pages-rate"],
    )
