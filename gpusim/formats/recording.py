"""One live migration of a real QEMU, read from a file and checked.

It knows the file format (data/README.md) and what QEMU's trace events mean, not the simulator.
Times become seconds since QEMU's "new state setup", where its own total-time starts.
"""

from __future__ import annotations

import gzip
import json
import lzma
import math
import statistics
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

from gpusim.formats.profile import Profile, ProfileError, profile_of
from gpusim.qemu import names

READERS: dict[str, Callable[[bytes], bytes]] = {
    ".json": bytes,
    ".json.xz": lzma.decompress,
    ".json.gz": gzip.decompress,
}
MIB = 2**20
GUEST_STARTS_MIB = (
    16  # the recorded guest's memory: below lie its program and its counter, all else zero
)
UNFILLED_END_MIB = 2  # what firmware keeps for itself, and the default of `fill` leaves out

FOREIGN_CAPABILITIES = names.NOT_SIMULATED | {"multifd"}  # of which a recording tells too little
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
SETUP = "new state setup"
VM_STOP = "migration_completion_vm_stop"
LEAST_SAMPLES = 3  # of an active migration: fewer make no pace
FAILED = "the migration failed in QEMU; expected one that completed or hit its limit"
GIVEN_UP = 2.0  # a simulation that takes so many times a recording's total time has not completed
LATEST_END_S = 2.0  # before limit_s: a recording that stops earlier, without an end, was cut off


class RecordingError(ValueError):
    """A file that is no whole recording: `FILE: what is wrong; what is expected`."""

    def __init__(self, path: str | Path, message: str) -> None:
        super().__init__(f"{path}: {' '.join(message.split())}")


@dataclass(frozen=True, kw_only=True)
class RecordedGuest:
    """The bare-metal program that wrote.

    Attributes:
        base_mib, size_mib: where the working set starts and how long it is.
        sequential: page by page, round and round; else at random.
        page_writes_per_s: nominal rate; 0: as fast as the emulator goes; None: `delay` rules.
        delay: busy loops between writes, or None.
        paced: work arrives by the clock and what a throttle held up is caught up.
        hot_mib, hot_percent: `hot_percent` of the writes go to the first `hot_mib`; None: one band.
        fill_mib: memory from 16 MiB on that is not zero; None: to 2 MiB before the end.
    """

    base_mib: int
    size_mib: int
    sequential: bool
    page_writes_per_s: float | None
    delay: float | None
    paced: bool
    hot_mib: int | None
    hot_percent: float | None
    fill_mib: int | None

    @property
    def kind(self) -> str:
        """`paced`, `full_speed` (no loop between writes) or `cpu_bound`."""
        if self.paced:
            return "paced"
        return "cpu_bound" if self.page_writes_per_s or self.delay else "full_speed"


@dataclass(frozen=True, kw_only=True)
class TraceEvent:
    """One of QEMU's trace events."""

    time_s: float
    name: str
    arguments: str


@dataclass(frozen=True, kw_only=True)
class Ram:
    """What query-migrate says of RAM."""

    transferred_bytes: int
    remaining_bytes: int
    sent_pages: int  # normal and zero ones, each as often as it was sent
    zero_pages: int  # those of them that were zero
    dirty_sync_count: int


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One answer of query-migrate, with the guest's own write counter."""

    time_s: float
    status: str
    writes: int | None  # since the guest's boot; None: nobody read its counter
    ram: Ram | None  # None before RAM is set up
    cpu_throttle_percentage: int
    mbps: float  # bandwidth of the last closed window, Mbit/s; 0 before the first

    @property
    def transferred_bytes(self) -> int | None:
        return None if self.ram is None else self.ram.transferred_bytes


@dataclass(frozen=True, kw_only=True)
class Recording:
    """One migration.

    Attributes:
        case: name of the file, without its suffixes.
        scenario: what was set, as recorded; equal for repeats of one case.
        qemu: (major, minor).
        ram_bytes: what is to be sent, small ROM blocks included where the recording tells them.
        guest: what wrote; None: an attached recording of a VM that nobody knows.
        parameters: query-migrate-parameters, under QEMU's names.
        limit_s: when a migration still running was cancelled, or the recording ended.
        page_writes_per_s_before: in the four seconds before the migration; None: unknown.
        flat_out_page_writes_per_s: of a paced guest that is late; None: not measured.
        total_time_s: until QEMU said that it had completed; None: it ran into its limit.
        stop_s: when QEMU stopped the VM to switch over; None: it never did.
        events: QEMU's trace up to the end of the migration, the cancel excluded; empty without one.
        passes_s: number of a sync -> when QMP told of it (MIGRATION_PASS).
        counter: (seconds, writes) far finer than the samples; empty without one.
        profile: what calc-dirty-rate said before (predict/profile.py); None: nobody asked it.
    """

    case: str
    scenario: Mapping[str, Any]
    qemu: tuple[int, int]
    ram_bytes: int
    guest: RecordedGuest | None
    accelerator: str
    vcpus: int
    auto_converge: bool
    parameters: Mapping[str, Any]
    limit_s: float
    page_writes_per_s_before: float | None
    flat_out_page_writes_per_s: float | None
    total_time_s: float | None
    stop_s: float | None
    events: tuple[TraceEvent, ...]
    passes_s: Mapping[int, float]
    counter: tuple[tuple[float, int], ...]
    samples: tuple[Sample, ...]
    profile: Profile | None

    @property
    def completed(self) -> bool:
        return self.total_time_s is not None

    @property
    def predictable(self) -> bool:
        """Whether it is known what the guest did before the migration."""
        return self.guest is not None and self.page_writes_per_s_before is not None

    def until_stop(self) -> tuple[TraceEvent, ...]:
        """The events before QEMU stopped the VM to switch over; all if it never did."""
        for place, event in enumerate(self.events):
            if event.name == VM_STOP:
                return self.events[:place]
        return self.events


def find_recordings(path: Path) -> list[Path]:
    """The recordings that a file or folder stands for, sorted by name.

    Raises:
        RecordingError: nothing there, or a folder without recordings.
    """
    if path.is_dir():
        found = sorted(
            file for file in path.iterdir() if file.is_file() and file.name.endswith(tuple(READERS))
        )
        if not found:
            raise RecordingError(
                path, f"no recordings in this folder; expected {_suffixes()} files"
            )
        return found
    if not path.exists():
        raise RecordingError(
            path, "no such file or folder; expected a recording or a folder of them"
        )
    return [path]


def load_recording(path: str | Path) -> Recording:
    """Read one recording: .json, .json.xz or .json.gz.

    Raises:
        RecordingError: unreadable, damaged, truncated, or not a recording.
    """
    path = Path(path)
    held = uncompressed(path)
    try:
        document = json.loads(held)
    except (ValueError, RecursionError) as error:
        raise RecordingError(
            path, f"not JSON, or cut off ({error}); expected a whole recording"
        ) from None
    return _Reader(path, path.name.removesuffix(_suffix(path))).recording(document)


def uncompressed(path: Path) -> bytes:
    """What is in a file, by its suffix.

    Raises:
        RecordingError: unreadable, damaged, or not a recording by its name.
    """
    suffix = _suffix(path)
    try:
        return READERS[suffix](path.read_bytes())
    except OSError as error:  # gzip.BadGzipFile is one too
        raise RecordingError(
            path, f"cannot be read ({error.strerror or error}); expected a whole {suffix} file"
        ) from None
    except (EOFError, lzma.LZMAError, zlib.error) as error:
        raise RecordingError(
            path, f"damaged compression ({error}); expected a whole {suffix} file"
        ) from None


def _suffix(path: Path) -> str:
    suffix = next((suffix for suffix in READERS if path.name.endswith(suffix)), None)
    if suffix is None:
        raise RecordingError(path, f"not a recording by its name; expected {_suffixes()}")
    return suffix


def read_document(document: object, case: str) -> Recording:
    """A recording that is not in a file.

    Raises:
        RecordingError: it is none.
    """
    return _Reader(Path(case), case).recording(document)


def _suffixes() -> str:
    return ", ".join(READERS)


class _Reader:
    """Turns a parsed document into a Recording; knows the file's name for its errors."""

    def __init__(self, path: Path, case: str) -> None:
        self.path, self.case = path, case

    def recording(self, document: object) -> Recording:
        scenario = self.mapping(document, "scenario", "the file")
        assert isinstance(document, Mapping)
        guest = None
        if scenario.get("guest") is not None:
            guest = self.guest(self.mapping(scenario, "guest", "scenario"))
        mem_mib = self.whole(scenario, "mem_mib", "scenario", positive=True)
        if guest is not None and guest.base_mib + guest.size_mib > mem_mib:
            self.fail(
                "the guest's working set ends behind its memory; expected base + size <= mem_mib"
            )
        qemu = self.mapping(document, "qemu", "the file")
        rows = self.get(document, "samples", list, "the file")
        told = self.events(document, "events")
        traced = any(event.arguments == SETUP for event in told)
        start_s = self.start_s(told, rows, traced or guest is not None)
        samples = self.samples(rows, start_s, known=guest is not None)
        qmp = self.events(document, "qmp_events") if "qmp_events" in document else ()
        qmp = _since(start_s, qmp)
        events: tuple[TraceEvent, ...] = ()
        if traced:
            completed, events = self.ending(_since(start_s, told))
            total_time_s = events[-1].time_s if completed else None
            stop_s = next((event.time_s for event in events if event.name == VM_STOP), None)
            if not completed and events == _since(
                start_s, told
            ):  # nor was it cancelled: a lost end
                total_time_s, told_stop_s = self.told_end(rows, qmp)
                stop_s = told_stop_s if stop_s is None else stop_s
        else:
            total_time_s, stop_s = self.told_end(rows, qmp)
        if guest is not None or "limit_s" in scenario:
            limit_s = self.number(scenario, "limit_s", "scenario", positive=True)
        elif total_time_s is not None:
            limit_s = GIVEN_UP * total_time_s
        else:
            limit_s = max(s.time_s for s in samples if s.status == "active")
        if total_time_s is None and samples[-1].time_s < limit_s - LATEST_END_S:
            self.fail(
                f"ends after {samples[-1].time_s:.1f} s; expected completion, or {limit_s:g} s"
            )
        capabilities = self.capabilities(scenario)
        return Recording(
            case=self.case,
            scenario=scenario,
            qemu=(self.whole(qemu, "major", "qemu"), self.whole(qemu, "minor", "qemu")),
            ram_bytes=mem_mib * MIB if guest is not None else self.ram_bytes(rows, mem_mib),
            guest=guest,
            accelerator=self.accelerator(document),
            vcpus=self.whole(document, "vcpus", "the file", positive=True)
            if "vcpus" in document
            else 1,
            auto_converge="auto-converge" in capabilities,
            parameters=self.parameters(document),
            limit_s=limit_s,
            page_writes_per_s_before=None
            if guest is None
            else self.number(document, "writes_per_s_before", "the file"),
            flat_out_page_writes_per_s=None
            if document.get("flat_out_writes_per_s") is None
            else self.number(document, "flat_out_writes_per_s", "the file", positive=True),
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
        try:
            return profile_of(self.path, self.mapping(document, "profile", "the file"))
        except ProfileError as error:
            raise RecordingError(self.path, str(error).removeprefix(f"{self.path}: ")) from None

    def parameters(self, document: object) -> Mapping[str, Any]:
        parameters = self.mapping(document, "parameters", "the file")
        for name in PARAMETERS:
            self.number(parameters, name, "parameters")
        return parameters

    def capabilities(self, scenario: Mapping[str, Any]) -> list[Any]:
        capabilities: list[Any] = self.get(scenario, "capabilities", list, "scenario")
        foreign = FOREIGN_CAPABILITIES.intersection(map(str, capabilities))
        if foreign:
            self.fail(
                f"was made with {', '.join(sorted(foreign))}, not simulated; expected plain precopy"
            )
        return capabilities

    def accelerator(self, document: Mapping[str, Any]) -> str:
        found = document.get("accelerator", "tcg")
        if found not in ("tcg", "kvm"):
            self.fail(f"accelerator is {str(found)[:60]}; expected tcg or kvm")
        return str(found)

    def ram_bytes(self, rows: list[Any], mem_mib: int) -> int:
        """What query-migrate says is to be sent, small ROM blocks and all; else mem_mib."""
        return next(
            (
                self.whole(row, "total", "samples", positive=True)
                for row in rows
                if isinstance(row, Mapping) and row.get("total")
            ),
            mem_mib * MIB,
        )

    def start_s(self, told: tuple[TraceEvent, ...], rows: list[Any], traced: bool) -> float:
        """When the migration began, by the clock of the file.

        QEMU's own total-time counts from there (migration/migration.c:migrate_init), in milliseconds.
        """
        if traced:
            start_s = next((event.time_s for event in told if event.arguments == SETUP), None)
            if start_s is None:
                self.fail(f'no event "{SETUP}"; expected the migration from its start')
            return start_s
        starts = [
            self.number(row, "t", f"samples[{place}]", signed=True)
            - self.number(row, "total-time", f"samples[{place}]") / 1000
            for place, row in enumerate(rows)
            if isinstance(row, Mapping) and row.get("status") == "active" and "total-time" in row
        ]
        if not starts:
            self.fail("no sample with a total-time; expected QEMU's trace, or query-migrate's")
        return statistics.median(starts)

    def guest(self, guest: Mapping[str, Any]) -> RecordedGuest:
        where = "scenario.guest"
        mode = self.whole(guest, "mode", where)
        if mode not in (0, 1):
            self.fail(f"{where}.mode is {mode}; expected 0 (sequential) or 1 (random)")
        hot = self.whole(guest, "hot", where) if "hot" in guest else None
        if (hot is None) != ("hotpct" not in guest):
            self.fail(f"{where} has one of hot and hotpct; expected both or none")
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
        for place, row in enumerate(self.get(document, key, list, "the file")):
            if not (
                isinstance(row, list)
                and len(row) == 3
                and _finite(row[0])
                and isinstance(row[1], str)
            ):
                self.fail(f"{key}[{place}] is {str(row)[:60]}; expected [seconds, name, arguments]")
            arguments = row[2]
            if isinstance(arguments, Mapping):  # of QMP: MIGRATION's status, MIGRATION_PASS's pass
                arguments = arguments.get("status", arguments.get("pass", ""))
            events.append(TraceEvent(time_s=float(row[0]), name=row[1], arguments=str(arguments)))
        return tuple(events)

    def counter(self, document: Mapping[str, Any], start_s: float) -> tuple[tuple[float, int], ...]:
        """The fine counter, some of it from before the migration."""
        pairs: list[tuple[float, int]] = []
        rows = self.get(document, "counter", list, "the file") if "counter" in document else []
        for place, row in enumerate(rows):
            if not (isinstance(row, list) and len(row) == 2 and all(map(_finite, row))):
                self.fail(f"counter[{place}] is {str(row)[:60]}; expected [seconds, writes]")
            pair = (round(row[0] - start_s, CLOCK_DIGITS), int(row[1]))
            if pairs and pair[1] < pairs[-1][1]:
                self.fail(f"counter[{place}]: the guest's write counter fell; expected it to rise")
            if not pairs or pair[0] > pairs[-1][0]:
                pairs.append(pair)
        return tuple(pairs)

    def samples(self, rows: list[Any], start_s: float, known: bool) -> tuple[Sample, ...]:
        """Samples at rising times from the start on; a second one at the same time is left out.

        Args:
            known: the guest is, and counts its writes.
        """
        samples: list[Sample] = []
        for place, row in enumerate(rows):
            where = f"samples[{place}]"
            time_s = round(self.number(row, "t", where, signed=True) - start_s, CLOCK_DIGITS)
            writes = self.whole(row, "writes", where) if known else None
            sample = Sample(
                time_s=time_s,
                status=self.get(row, "status", str, where),
                writes=writes,
                ram=self.ram(row, where) if "transferred" in row else None,
                cpu_throttle_percentage=self.whole(row, "cpu-throttle-percentage", where)
                if "cpu-throttle-percentage" in row
                else 0,
                mbps=self.number(row, "mbps", where) if "mbps" in row else 0.0,
            )
            if writes is not None and samples and writes < (samples[-1].writes or 0):
                self.fail(f"{where}: the guest's write counter fell; expected it to rise")
            if time_s >= 0 and (not samples or time_s > samples[-1].time_s):
                samples.append(sample)
        active = sum(sample.status == "active" and sample.ram is not None for sample in samples)
        if active < LEAST_SAMPLES:
            self.fail(f"{active} samples of an active migration; expected one about every 0.2 s")
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
        """Whether the migration completed, and the trace events that belong to it."""
        for place, event in enumerate(events):
            if event.arguments == "new state completed":
                return True, events[: place + 1]
            if event.arguments == "new state cancelling":
                return False, events[:place]
            if event.arguments == "new state failed":
                self.fail(FAILED)
        return False, events

    def told_end(
        self, rows: list[Any], qmp: tuple[TraceEvent, ...]
    ) -> tuple[float | None, float | None]:
        """Total time and the VM's stop, as query-migrate or QMP's events tell them.

        QEMU's downtime runs from just before the VM's stop to the end of the migration
        (migration/migration.c:migration_completion_precopy, migration_completion_end).
        """
        if any(row.get("status") == "failed" for row in rows):
            self.fail(FAILED)
        for row in rows:
            if row.get("status") == "completed":
                total_ms = self.number(row, "total-time", "the completed sample")
                downtime_ms = self.number(row, "downtime", "the completed sample")
                return total_ms / 1000, (total_ms - downtime_ms) / 1000
        done = [e.time_s for e in qmp if (e.name, e.arguments) == ("MIGRATION", "completed")]
        stops = [e.time_s for e in qmp if e.name == "STOP"]
        if not done:
            return None, None
        return done[-1], stops[-1] if stops else done[-1]

    def get(self, holder: object, key: str, kind: type[Any], where: str) -> Any:
        value = holder.get(key) if isinstance(holder, Mapping) else None
        if not isinstance(value, kind) or isinstance(value, bool):
            names = {dict: "an object", list: "a list", str: "a text", int: "a whole number"}
            self.fail(
                f"{where} has no proper {key!r}; expected {names[kind]}, is this a recording?"
            )
        return value

    def mapping(self, holder: object, key: str, where: str) -> Mapping[str, Any]:
        value: Mapping[str, Any] = self.get(holder, key, dict, where)
        return value

    def whole(self, holder: object, key: str, where: str, *, positive: bool = False) -> int:
        value: int = self.get(holder, key, int, where)
        if value < positive:
            self.fail(f"{where}.{key} is {value}; expected at least {int(positive)}")
        return value

    def number(
        self, holder: object, key: str, where: str, *, positive: bool = False, signed: bool = False
    ) -> float:
        value = holder.get(key) if isinstance(holder, Mapping) else None
        if (
            not _finite(value)
            or value is None
            or (value < 0 and not signed)
            or (value == 0 and positive)
        ):
            kind = "a positive number" if positive else "a number"
            self.fail(f"{where} has no proper {key!r}; expected {kind}, is this a recording?")
        return float(value)

    def fail(self, message: str) -> NoReturn:
        raise RecordingError(self.path, message)


def _since(start_s: float, events: tuple[TraceEvent, ...]) -> tuple[TraceEvent, ...]:
    """The events by the migration's own clock."""
    return tuple(replace(e, time_s=round(e.time_s - start_s, CLOCK_DIGITS)) for e in events)


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
