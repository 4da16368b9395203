"""Files of recordings: find them, unpack them, and check every value.

Owns the file format (gpusim/validation/data/README.md) and the meaning of QEMU's trace events. It
does not know the simulator.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from gpusim.formats.errors import RecordingError
from gpusim.formats.profile import Profile, profile_of
from gpusim.formats.recording import (
    MIB,
    SETUP,
    VM_STOP,
    Ram,
    RecordedGuest,
    Recording,
    Sample,
    TraceEvent,
)
from gpusim.qemu import names
from gpusim.reading import LARGEST_INTEGER, ReadingError, read_json

SUFFIXES = (".json", ".json.xz", ".json.gz")
FOREIGN_CAPABILITIES = names.NOT_SIMULATED | {"multifd"}  # recordings lack data about multifd
PARAMETERS = (
    "max-bandwidth",
    "downtime-limit",
    "throttle-trigger-threshold",
    "cpu-throttle-initial",
    "cpu-throttle-increment",
    "cpu-throttle-tailslow",
    "max-cpu-throttle",
)
CLOCK_DIGITS = 4  # the trace's times are whole tenths of a millisecond
LEAST_SAMPLES = 3  # of an active migration. Fewer samples give no rate.
GIVEN_UP = 2.0  # times the recorded total time. A longer simulation did not complete.
LATEST_END_S = 2.0  # a recording that stops earlier before its limit_s was cut off
KIND_ERRORS = {
    dict: "not_an_object",
    list: "not_a_list",
    str: "not_a_text",
    int: "not_a_whole_number",
}


def find_recordings(path: Path) -> list[Path]:
    """Return the recordings that a file or folder stands for, sorted by name.

    Raises:
        RecordingError: the path does not exist, or is a folder without recordings.
    """
    if path.is_dir():
        found = sorted(
            file for file in path.iterdir() if file.is_file() and file.name.endswith(SUFFIXES)
        )
        if not found:
            raise RecordingError("empty_folder", path=path, suffixes=", ".join(SUFFIXES))
        return found
    if not path.exists():
        raise RecordingError("no_such_path", path=path)
    return [path]


def load_recording(path: str | Path) -> Recording:
    """Read one recording: .json, .json.xz or .json.gz.

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
    return _Reader(path, path.name.removesuffix(suffix)).recording(document)


def read_document(document: object, case: str) -> Recording:
    """Return a recording from a parsed document that is not in a file.

    Raises:
        RecordingError: it is not a recording.
        ProfileError: its profile is damaged.
    """
    return _Reader(Path(case), case).recording(document)


class _Reader:
    """Turn a parsed document into a Recording. Errors name the file and the key."""

    def __init__(self, path: Path, case: str) -> None:
        self.path, self.case = path, case

    def recording(self, document: object) -> Recording:
        scenario = self.mapping(document, "scenario")
        assert isinstance(document, Mapping)
        guest = None
        if scenario.get("guest") is not None:
            guest = self.guest(self.mapping(scenario, "guest", "scenario."))
        mem_mib = self.whole(scenario, "mem_mib", "scenario.", positive=True)
        if guest is not None and guest.base_mib + guest.size_mib > mem_mib:
            end_mib = guest.base_mib + guest.size_mib
            self.fail("working_set_outside_memory", end_mib=end_mib, mem_mib=mem_mib)
        qemu = self.mapping(document, "qemu")
        rows = self.get(document, "samples", list)
        all_events = self.events(document, "events")
        traced = any(event.arguments == SETUP for event in all_events)
        start_s = self.start_s(all_events, rows, traced or guest is not None)
        samples = self.samples(rows, start_s, known=guest is not None)
        qmp = self.events(document, "qmp_events") if "qmp_events" in document else ()
        qmp = _since(start_s, qmp)
        events: tuple[TraceEvent, ...] = ()
        if traced:
            since_start = _since(start_s, all_events)
            completed, events = self.ending(since_start)
            total_time_s = events[-1].time_s if completed else None
            stop_s = next((event.time_s for event in events if event.name == VM_STOP), None)
            if not completed and events == since_start:  # the trace lost its end, no cancel either
                total_time_s, sampled_stop_s = self.end_without_trace(rows, qmp)
                stop_s = sampled_stop_s if stop_s is None else stop_s
        else:
            total_time_s, stop_s = self.end_without_trace(rows, qmp)
        if guest is not None or "limit_s" in scenario:
            limit_s = self.number(scenario, "limit_s", "scenario.", positive=True)
        elif total_time_s is not None:
            limit_s = GIVEN_UP * total_time_s
        else:
            limit_s = max(s.time_s for s in samples if s.status == "active")
        if total_time_s is None and samples[-1].time_s < limit_s - LATEST_END_S:
            self.fail("ends_early", end_s=samples[-1].time_s, limit_s=limit_s)
        before, flat_out = "writes_per_s_before", "flat_out_writes_per_s"
        return Recording(
            case=self.case,
            scenario=scenario,
            qemu=(self.whole(qemu, "major", "qemu."), self.whole(qemu, "minor", "qemu.")),
            ram_bytes=mem_mib * MIB if guest is not None else self.ram_bytes(rows, mem_mib),
            guest=guest,
            accelerator=self.accelerator(document),
            vcpus=self.whole(document, "vcpus", positive=True) if "vcpus" in document else 1,
            auto_converge="auto-converge" in self.capabilities(scenario),
            parameters=self.parameters(document),
            limit_s=limit_s,
            page_writes_per_s_before=None if guest is None else self.number(document, before),
            flat_out_page_writes_per_s=None
            if document.get(flat_out) is None
            else self.number(document, flat_out, positive=True),
            total_time_s=total_time_s,
            stop_s=stop_s,
            events=events,
            passes_s={
                int(event.arguments): event.time_s
                for event in qmp
                if event.name == "MIGRATION_PASS" and event.arguments.isdecimal()
            },
            counter=self.counter(document, start_s),
            samples=samples,
            profile=self.profile(document),
        )

    def profile(self, document: Mapping[str, Any]) -> Profile | None:
        if "profile" not in document:
            return None
        return profile_of(self.path, self.mapping(document, "profile"))

    def parameters(self, document: object) -> Mapping[str, Any]:
        parameters = self.mapping(document, "parameters")
        for name in PARAMETERS:
            self.number(parameters, name, "parameters.")
        return parameters

    def capabilities(self, scenario: Mapping[str, Any]) -> list[Any]:
        capabilities: list[Any] = self.get(scenario, "capabilities", list, "scenario.")
        foreign = FOREIGN_CAPABILITIES.intersection(map(str, capabilities))
        if foreign:
            self.fail("foreign_capabilities", capabilities=", ".join(sorted(foreign)))
        return capabilities

    def accelerator(self, document: Mapping[str, Any]) -> str:
        found = document.get("accelerator", "tcg")
        if found not in ("tcg", "kvm"):
            self.fail("wrong_accelerator", value=found)
        return str(found)

    def ram_bytes(self, rows: list[Any], mem_mib: int) -> int:
        """Return query-migrate's total, which includes small ROM blocks, or else mem_mib."""
        return next(
            (
                self.whole(row, "total", "samples.", positive=True)
                for row in rows
                if isinstance(row, Mapping) and row.get("total")
            ),
            mem_mib * MIB,
        )

    def start_s(self, events: tuple[TraceEvent, ...], rows: list[Any], traced: bool) -> float:
        """Return when the migration began, by the clock of the file.

        QEMU's own total-time starts then, in whole milliseconds
        (migration/migration.c:migrate_init).
        """
        if traced:
            start_s = next((event.time_s for event in events if event.arguments == SETUP), None)
            if start_s is None:
                self.fail("no_start", event=SETUP)
            return start_s
        starts = [
            self.number(row, "t", f"samples[{place}].", signed=True)
            - self.number(row, "total-time", f"samples[{place}].") / 1000
            for place, row in enumerate(rows)
            if isinstance(row, Mapping) and row.get("status") == "active" and "total-time" in row
        ]
        if not starts:
            self.fail("no_clock")
        return statistics.median(starts)

    def guest(self, guest: Mapping[str, Any]) -> RecordedGuest:
        where = "scenario.guest."
        mode = self.whole(guest, "mode", where)
        if mode not in (0, 1):
            self.fail("wrong_mode", key=f"{where}mode", value=mode)
        hot = self.whole(guest, "hot", where) if "hot" in guest else None
        if (hot is None) != ("hotpct" not in guest):
            self.fail("half_hot", key="scenario.guest")
        return RecordedGuest(
            base_mib=self.whole(guest, "base", where),
            size_mib=self.whole(guest, "size", where, positive=True),
            sequential=mode == 0,
            page_writes_per_s=self.number(guest, "rate", where) if "rate" in guest else None,
            delay=self.number(guest, "delay", where) if "delay" in guest else None,
            paced=bool(guest.get("paced", 0)),
            hot_mib=hot,
            hot_percent=self.number(guest, "hotpct", where) if hot is not None else None,
            fill_mib=self.whole(guest, "fill", where, positive=True) if "fill" in guest else None,
        )

    def events(self, document: object, key: str) -> tuple[TraceEvent, ...]:
        events = []
        for place, row in enumerate(self.get(document, key, list)):
            if not (
                isinstance(row, list)
                and len(row) == 3
                and _is_in_range(row[0])
                and isinstance(row[1], str)
            ):
                self.fail("wrong_event", key=f"{key}[{place}]", value=row)
            arguments = row[2]
            if isinstance(arguments, Mapping):  # QMP: MIGRATION has a status, MIGRATION_PASS a pass
                arguments = arguments.get("status", arguments.get("pass", ""))
            events.append(TraceEvent(time_s=float(row[0]), name=row[1], arguments=str(arguments)))
        return tuple(events)

    def counter(self, document: Mapping[str, Any], start_s: float) -> tuple[tuple[float, int], ...]:
        """Return the fine counter. It may begin before the migration."""
        pairs: list[tuple[float, int]] = []
        rows = self.get(document, "counter", list) if "counter" in document else []
        for place, row in enumerate(rows):
            key = f"counter[{place}]"
            if not (isinstance(row, list) and len(row) == 2 and all(map(_is_in_range, row))):
                self.fail("wrong_count", key=key, value=row)
            pair = (round(row[0] - start_s, CLOCK_DIGITS), int(row[1]))
            if pairs and pair[1] < pairs[-1][1]:
                self.fail("counter_fell", key=key)
            if not pairs or pair[0] > pairs[-1][0]:
                pairs.append(pair)
        return tuple(pairs)

    def samples(self, rows: list[Any], start_s: float, known: bool) -> tuple[Sample, ...]:
        """Return the samples from the start on. A second sample at the same time is left out.

        Args:
            known: whether the guest is known and counts its writes.
        """
        throttle = "cpu-throttle-percentage"
        samples: list[Sample] = []
        for place, row in enumerate(rows):
            where = f"samples[{place}]."
            time_s = round(self.number(row, "t", where, signed=True) - start_s, CLOCK_DIGITS)
            writes = self.whole(row, "writes", where) if known else None
            sample = Sample(
                time_s=time_s,
                status=self.get(row, "status", str, where),
                writes=writes,
                ram=self.ram(row, where) if "transferred" in row else None,
                cpu_throttle_percentage=self.whole(row, throttle, where) if throttle in row else 0,
                mbps=self.number(row, "mbps", where) if "mbps" in row else 0.0,
            )
            if writes is not None and samples and writes < (samples[-1].writes or 0):
                self.fail("counter_fell", key=f"{where}writes")
            if time_s >= 0 and (not samples or time_s > samples[-1].time_s):
                samples.append(sample)
        active = sum(sample.status == "active" and sample.ram is not None for sample in samples)
        if active < LEAST_SAMPLES:
            self.fail("too_few_samples", samples=active, least=LEAST_SAMPLES)
        return tuple(samples)

    def ram(self, row: Mapping[str, Any], where: str) -> Ram:
        zero_pages = self.whole(row, "duplicate", where)
        return Ram(
            transferred_bytes=self.whole(row, "transferred", where),
            remaining_bytes=self.whole(row, "remaining", where),
            sent_pages=self.whole(row, "normal", where) + zero_pages,
            zero_pages=zero_pages,
            dirty_sync_count=self.whole(row, "dirty-sync-count", where),
        )

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
        self, rows: list[Any], qmp: tuple[TraceEvent, ...]
    ) -> tuple[float | None, float | None]:
        """Return the total time and the time of the VM's stop, from query-migrate or QMP's events.

        QEMU's downtime runs from just before the VM's stop to the end of the migration.
        Source: migration/migration.c:migration_completion_precopy, migration_completion_end.
        """
        if any(row.get("status") == "failed" for row in rows):
            self.fail("failed")
        for place, row in enumerate(rows):
            if row.get("status") == "completed":
                where = f"samples[{place}]."
                total_ms = self.number(row, "total-time", where)
                downtime_ms = self.number(row, "downtime", where)
                return total_ms / 1000, (total_ms - downtime_ms) / 1000
        done = [e.time_s for e in qmp if (e.name, e.arguments) == ("MIGRATION", "completed")]
        stops = [e.time_s for e in qmp if e.name == "STOP"]
        if not done:
            return None, None
        return done[-1], stops[-1] if stops else done[-1]

    def get(self, holder: object, key: str, kind: type[Any], where: str = "") -> Any:
        value = holder.get(key) if isinstance(holder, Mapping) else None
        if not isinstance(value, kind) or isinstance(value, bool):
            self.fail(KIND_ERRORS[kind], key=f"{where}{key}")
        return value

    def mapping(self, holder: object, key: str, where: str = "") -> Mapping[str, Any]:
        value: Mapping[str, Any] = self.get(holder, key, dict, where)
        return value

    def whole(self, holder: object, key: str, where: str = "", *, positive: bool = False) -> int:
        value: int = self.get(holder, key, int, where)
        if value < positive:
            self.fail("too_small", key=f"{where}{key}", value=value, least=int(positive))
        return value

    def number(
        self,
        holder: object,
        key: str,
        where: str = "",
        *,
        positive: bool = False,
        signed: bool = False,
    ) -> float:
        value = holder.get(key) if isinstance(holder, Mapping) else None
        if (
            not _is_in_range(value)
            or value is None
            or (value < 0 and not signed)
            or (value == 0 and positive)
        ):
            self.fail("not_a_positive_number" if positive else "not_a_number", key=f"{where}{key}")
        return float(value)

    def fail(self, code: str, **data: Any) -> NoReturn:
        raise RecordingError(code, path=self.path, **data)


def _since(start_s: float, events: tuple[TraceEvent, ...]) -> tuple[TraceEvent, ...]:
    """Return the events with their times since the start of the migration."""
    return tuple(replace(e, time_s=round(e.time_s - start_s, CLOCK_DIGITS)) for e in events)


def _is_in_range(value: Any) -> bool:
    """Return whether a value is a number so small that sums of such numbers stay finite."""
    return isinstance(value, int | float) and abs(value) <= LARGEST_INTEGER
