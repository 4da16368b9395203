"""One live migration of a real QEMU, read from a file and checked.

It knows the file format (data/README.md) and what QEMU's trace events mean, not the simulator.
Times become seconds since QEMU's "new state setup", where its own total-time starts.
"""

from __future__ import annotations

import gzip
import json
import lzma
import math
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

READERS: dict[str, Callable[[bytes], bytes]] = {
    ".json": bytes,
    ".json.xz": lzma.decompress,
    ".json.gz": gzip.decompress,
}
SHIPPED = Path(__file__).parent / "data"

# What changes the bytes on the wire or how the guest is slowed, and is not simulated.
FOREIGN_CAPABILITIES = {
    "background-snapshot",
    "compress",
    "dirty-limit",
    "multifd",
    "postcopy-ram",
    "xbzrle",
}
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
LEAST_SAMPLES = 3  # of an active migration: fewer make no pace
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
class Sample:
    """One answer of query-migrate, with the guest's own write counter."""

    time_s: float
    status: str
    writes: int  # since the guest's boot
    transferred_bytes: int | None  # None before RAM is set up
    cpu_throttle_percentage: int
    mbps: float  # bandwidth of the last closed window, Mbit/s; 0 before the first


@dataclass(frozen=True, kw_only=True)
class Recording:
    """One migration.

    Attributes:
        case: name of the file, without its suffixes.
        scenario: what was set, as recorded; equal for repeats of one case.
        qemu: (major, minor).
        parameters: query-migrate-parameters, under QEMU's names.
        limit_s: when a migration still running was cancelled.
        page_writes_per_s_before: in the four seconds before the migration.
        completed: QEMU said so; else the migration ran into its limit.
        events: up to the end of the migration, the cancel excluded.
    """

    case: str
    scenario: Mapping[str, Any]
    qemu: tuple[int, int]
    mem_mib: int
    guest: RecordedGuest
    auto_converge: bool
    parameters: Mapping[str, Any]
    limit_s: float
    page_writes_per_s_before: float
    completed: bool
    events: tuple[TraceEvent, ...]
    samples: tuple[Sample, ...]

    def until_stop(self) -> tuple[TraceEvent, ...]:
        """The events before QEMU stopped the VM to switch over; all if it never did."""
        for place, event in enumerate(self.events):
            if event.name == "migration_completion_vm_stop":
                return self.events[:place]
        return self.events

    @property
    def stop_s(self) -> float | None:
        """When QEMU stopped the VM to switch over, in seconds; None if it never did."""
        stopped = self.events[len(self.until_stop()) :]
        return stopped[0].time_s if stopped else None


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
    suffix = next((suffix for suffix in READERS if path.name.endswith(suffix)), None)
    if suffix is None:
        raise RecordingError(path, f"not a recording by its name; expected {_suffixes()}")
    try:
        document = json.loads(READERS[suffix](path.read_bytes()))
    except OSError as error:  # gzip.BadGzipFile is one too
        raise RecordingError(
            path, f"cannot be read ({error.strerror or error}); expected a whole {suffix} file"
        ) from None
    except (EOFError, lzma.LZMAError, zlib.error) as error:
        raise RecordingError(
            path, f"damaged compression ({error}); expected a whole {suffix} file"
        ) from None
    except (ValueError, RecursionError) as error:
        raise RecordingError(
            path, f"not JSON, or cut off ({error}); expected a whole recording"
        ) from None
    return _Reader(path, suffix).recording(document)


def _suffixes() -> str:
    return ", ".join(READERS)


class _Reader:
    """Turns a parsed document into a Recording; knows the file's name for its errors."""

    def __init__(self, path: Path, suffix: str) -> None:
        self.path, self.case = path, path.name.removesuffix(suffix)

    def recording(self, document: object) -> Recording:
        scenario = self.mapping(document, "scenario", "the file")
        guest = self.guest(self.mapping(scenario, "guest", "scenario"))
        qemu = self.mapping(document, "qemu", "the file")
        parameters = self.mapping(document, "parameters", "the file")
        for name in PARAMETERS:
            self.number(parameters, name, "parameters")
        capabilities = self.get(scenario, "capabilities", list, "scenario")
        foreign = FOREIGN_CAPABILITIES.intersection(map(str, capabilities))
        if foreign:
            self.fail(
                f"was made with {', '.join(sorted(foreign))}, not simulated; expected plain precopy"
            )
        limit_s = self.number(scenario, "limit_s", "scenario", positive=True)
        mem_mib = self.whole(scenario, "mem_mib", "scenario", positive=True)
        if guest.base_mib + guest.size_mib > mem_mib:
            self.fail(
                "the guest's working set ends behind its memory; expected base + size <= mem_mib"
            )
        events = self.events(self.get(document, "events", list, "the file"))
        start_s = next(
            (event.time_s for event in events if event.arguments == "new state setup"), None
        )
        if start_s is None:
            self.fail('no event "new state setup"; expected the migration from its start')
        samples = self.samples(self.get(document, "samples", list, "the file"), start_s)
        events = tuple(
            replace(event, time_s=round(event.time_s - start_s, CLOCK_DIGITS)) for event in events
        )
        completed, events = self.ending(events, samples, limit_s)
        return Recording(
            case=self.case,
            scenario=scenario,
            qemu=(self.whole(qemu, "major", "qemu"), self.whole(qemu, "minor", "qemu")),
            mem_mib=mem_mib,
            guest=guest,
            auto_converge="auto-converge" in capabilities,
            parameters=parameters,
            limit_s=limit_s,
            page_writes_per_s_before=self.number(document, "writes_per_s_before", "the file"),
            completed=completed,
            events=events,
            samples=samples,
        )

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

    def events(self, rows: list[Any]) -> tuple[TraceEvent, ...]:
        events = []
        for place, row in enumerate(rows):
            if not (
                isinstance(row, list)
                and len(row) == 3
                and _finite(row[0])
                and isinstance(row[1], str)
            ):
                self.fail(
                    f"events[{place}] is {str(row)[:60]}; expected [seconds, name, arguments]"
                )
            events.append(TraceEvent(time_s=float(row[0]), name=row[1], arguments=str(row[2])))
        return tuple(events)

    def samples(self, rows: list[Any], start_s: float) -> tuple[Sample, ...]:
        """Samples at rising times from the start on; a second one at the same time is left out."""
        samples: list[Sample] = []
        for place, row in enumerate(rows):
            where = f"samples[{place}]"
            time_s = round(self.number(row, "t", where, signed=True) - start_s, CLOCK_DIGITS)
            sample = Sample(
                time_s=time_s,
                status=self.get(row, "status", str, where),
                writes=self.whole(row, "writes", where),
                transferred_bytes=self.whole(row, "transferred", where)
                if "transferred" in row
                else None,
                cpu_throttle_percentage=self.whole(row, "cpu-throttle-percentage", where)
                if "cpu-throttle-percentage" in row
                else 0,
                mbps=self.number(row, "mbps", where) if "mbps" in row else 0.0,
            )
            if samples and sample.writes < samples[-1].writes:
                self.fail(f"{where}: the guest's write counter fell; expected it to rise")
            if time_s >= 0 and (not samples or time_s > samples[-1].time_s):
                samples.append(sample)
        active = sum(
            sample.status == "active" and sample.transferred_bytes is not None for sample in samples
        )
        if active < LEAST_SAMPLES:
            self.fail(f"{active} samples of an active migration; expected one about every 0.2 s")
        return tuple(samples)

    def ending(
        self, events: tuple[TraceEvent, ...], samples: tuple[Sample, ...], limit_s: float
    ) -> tuple[bool, tuple[TraceEvent, ...]]:
        """Whether the migration completed, and the events that belong to it."""
        for place, event in enumerate(events):
            if event.arguments == "new state completed":
                return True, events[: place + 1]
            if event.arguments == "new state cancelling":
                return False, events[:place]
            if event.arguments == "new state failed":
                self.fail(
                    "the migration failed in QEMU; expected one that completed or hit its limit"
                )
        if samples[-1].time_s < limit_s - LATEST_END_S:
            self.fail(
                f"ends after {samples[-1].time_s:.1f} s; expected completion, or {limit_s:g} s"
            )
        return False, events

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


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
