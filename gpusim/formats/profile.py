"""The profile of a VM: measurements of its dirty rate before a migration, in one small file.

Owns the file format (docs/how-to/predict-a-migration.md describes it for people who type one) and the checks of its
values. It does not measure and does not fit a guest.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from gpusim.config.memory import BACKINGS
from gpusim.formats.errors import ProfileError
from gpusim.formats.foreign_logs import hint_at_reader
from gpusim.formats.migration_history import OUTCOME, Outcome, SyncHistory
from gpusim.formats.recording_shape import VCPUS
from gpusim.qemu import names
from gpusim.qemu.version_text import ALLOWED, parse_version
from gpusim.reading import ReadingError, parse_json, parse_yaml, read_text
from gpusim.shapes import (
    Flag,
    Keys,
    Names,
    Number,
    OneOf,
    Parsed,
    Rows,
    ShapeError,
    Text,
    Whole,
    check,
    refuse,
)
from gpusim.units import GIB, MIB, MOST_BYTES, format_bytes, parse_bytes

FORMAT = 1
MODES = ("page-sampling", "dirty-bitmap", "dirty-ring")
ACCELERATORS = ("kvm", "tcg")
SAMPLES_PER_GIB = (
    512  # QEMU's default. Source: migration/dirtyrate.h:DIRTYRATE_DEFAULT_SAMPLE_PAGES
)
LEAST_BLOCK = 128 * 2**10  # bytes. QEMU does not sample smaller blocks (MIN_RAMBLOCK_SIZE)
SHORTEST_S, LONGEST_S = 0.05, 60.0  # MIN_CALC_TIME_MS, MAX_CALC_TIME_MS
MOST_PAGES = 2**50 // 512  # the largest VM in the smallest pages
LEAST_PERIODS = 3  # different ones. Any curve fits two points
# A period counts as a repeat of another period up to this factor and this margin.
REPEAT_FACTOR, REPEAT_MARGIN_S = 1.03, 0.01
MEASURE_ADVICE = "Measure periods from less than a second up to the length of a pass"
TYPED = "a profile typed by hand"  # the source of a profile that names none
MEASUREMENT = Keys(
    required={
        "seconds": Number(SHORTEST_S, 86_400, " s"),
        "dirty_rate": Number(0, 1e9, " MiB/s"),
    },
    optional={"at_s": Number(0, 1e9, " s"), "running": Number(0.01, 1)},
    defaults={"running": 1.0},
    refuse_others=True,
    allowed="must have seconds and dirty_rate (MiB/s), and may have at_s (s) and running (0 to 1)",
)


@dataclass(frozen=True)
class _Capabilities:
    """Capabilities as names of those that are on, name -> on or off, or as QEMU answers."""

    allowed: str = (
        "must be a list of names, of {capability: NAME, state: true or false}, or a mapping of "
        "names to true or false"
    )

    def read(self, value: Any) -> tuple[str, ...]:
        """Return the names of the capabilities that are on, each once."""
        value = _answer(value)
        if isinstance(value, Mapping):
            found = Names(Flag()).read(value)
        elif isinstance(value, list):
            rows = Rows(_Capability(self.allowed)).read(value)
            found = dict(rows)
        else:
            refuse(value, self.allowed)
        return tuple(name for name, is_on in found.items() if is_on)


@dataclass(frozen=True)
class _Capability:
    allowed: str

    def read(self, value: Any) -> tuple[str, bool]:
        if isinstance(value, str):
            return value, True
        if not isinstance(value, Mapping):
            refuse(value, self.allowed)
        row = Keys(required={"capability": Text(), "state": Flag()}).read(value)
        return row["capability"], row["state"]


@dataclass(frozen=True)
class _Parameters:
    """Migration parameters under QEMU's names, as QEMU answers. Null counts as not given."""

    allowed: str = "must be a mapping of QEMU's parameters to values"

    def read(self, value: Any) -> dict[str, Any]:
        found = Keys(optional=names.CHOICES, allowed=self.allowed).read(_answer(value))
        return {name: one for name, one in found.items() if one is not None}


def _answer(value: Any) -> Any:
    """Return the content of an answer of QMP's, and any other value as it is."""
    is_answer = isinstance(value, Mapping) and isinstance(value.get("return"), list | Mapping)
    return value["return"] if is_answer else value


def _size(value: Any) -> int:
    size = parse_bytes(value)
    if not 0 < size <= MOST_BYTES:
        raise ValueError("too small or too large")
    return size


SIZE = Parsed(_size, f'must be above 0 and at most {format_bytes(MOST_BYTES)}, such as "64GiB"')
SHAPE = Keys(
    required={"memory": SIZE, "measurements": Rows(MEASUREMENT)},
    optional={
        "profile": OneOf((FORMAT,)),
        "source": Text(),
        "qemu": Parsed(parse_version, ALLOWED),
        "accelerator": OneOf(ACCELERATORS),
        "page_size": Whole(4096, 2**30, " bytes"),
        "vcpus": VCPUS,
        "blocks": Names(SIZE),
        "backing": OneOf(tuple(BACKINGS)),
        "zero_pages": Keys(
            required={"sampled": Whole(0, MOST_PAGES, " pages"), "zero": Whole(0, MOST_PAGES)},
            refuse_others=True,
        ),
        "zero_percent": Number(0, 100, " %"),
        "utilisation": Rows(Number(0, 1)),
        "mode": OneOf(MODES),
        "sample_pages": Whole(128, 16384, " pages per GiB"),
        "parameters": _Parameters(),
        "capabilities": _Capabilities(),
        "outcome": OUTCOME,
        "notes": Rows(Text()),
    },
    defaults={
        "source": TYPED,
        "accelerator": "kvm",
        "page_size": 4096,
        "vcpus": 1,
        "blocks": {},
        "zero_pages": {"sampled": 0, "zero": 0},
        "utilisation": [],
        "mode": "dirty-bitmap",
        "parameters": {},
        "notes": [],
    },
    refuse_others=True,
    allowed='must be a mapping of keys such as "memory" and "measurements"',
)


def pages_sampled(block_bytes: Iterable[int], per_gib: int) -> int:
    """Return how many pages one page-sampling measurement reads.

    Args:
        block_bytes: sizes of the RAM blocks.
        per_gib: sampled pages per GiB.

    Source: migration/dirtyrate.c:save_ramblock_hash, skip_sample_ramblock.
    """
    return sum(size * per_gib // GIB for size in block_bytes if size >= LEAST_BLOCK)


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One result of QEMU's calc-dirty-rate.

    Attributes:
        seconds: length of the measured period.
        dirty_rate: MiB/s. QEMU reports a whole number, rounded down.
        at_s: start of the period, in seconds since the start of the first one. None: unknown.
        running: share of the period in which no throttle held the vCPUs, 0 to 1.
    """

    seconds: float
    dirty_rate: float
    at_s: float | None = None
    running: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Profile:
    """A VM before its migration, and the measurements of its dirty rate.

    Attributes:
        source: where the profile comes from, for people.
        memory_bytes: RAM of all blocks together.
        page_bytes: size of a target page.
        vcpus: number of vCPUs.
        accelerator: one of ACCELERATORS.
        qemu: version of QEMU. None: unknown.
        mode: how QEMU measured, one of MODES. page-sampling and dirty-bitmap count a page once per
            period. dirty-ring counts a page once each time QEMU empties the ring.
        sample_pages: sampled pages per GiB (page-sampling only).
        measurements: one or more per period, in the order in which they were made.
        blocks: name -> bytes of each RAM block. Empty: unknown.
        backing: `vm.backing` of gpusim. None: unknown.
        zero_sampled: pages whose content was checked. 0: no page.
        zero_found: pages among `zero_sampled` that were zero.
        utilisation: load of each vCPU during the measurement, 0 to 1, including waits for a host
            core. Empty: unknown, and then a prediction draws it.
        parameters: result of query-migrate-parameters, with QEMU's names. Empty: unknown.
        capabilities: names of the capabilities that are on. None: unknown.
        outcome: how an earlier migration ended. None: no migration is known.
        history: its syncs, if they are the measurements. A file of a profile does not have it.
        zero_page_speed: lowest and highest speed at which an earlier migration found zero pages,
            bytes per second. None: unknown.
        load_ended_s: when the guest's load ended during it, seconds since its start. None: the
            load was not seen to end.
        notes: remarks on how the profile was made, for people.
    """

    source: str
    memory_bytes: int
    page_bytes: int = 4096
    vcpus: int = 1
    accelerator: str = "kvm"
    qemu: tuple[int, int, int] | None = None
    mode: str = "dirty-bitmap"
    sample_pages: int | None = None
    measurements: tuple[Measurement, ...] = ()
    blocks: Mapping[str, int] = field(default_factory=dict)
    backing: str | None = None
    zero_sampled: int = 0
    zero_found: int = 0
    utilisation: tuple[float, ...] = ()
    parameters: Mapping[str, Any] = field(default_factory=dict)
    capabilities: tuple[str, ...] | None = None
    outcome: Outcome | None = None
    history: SyncHistory | None = None
    zero_page_speed: tuple[float, float] | None = None
    load_ended_s: float | None = None
    notes: tuple[str, ...] = ()

    @property
    def pages(self) -> int:
        """Target pages of the VM."""
        return -(-self.memory_bytes // self.page_bytes)

    @property
    def sampled(self) -> int:
        """Pages that one measurement observes: all pages, or the sampled ones."""
        if self.mode != "page-sampling":
            return self.pages
        per_gib = self.sample_pages or SAMPLES_PER_GIB
        sizes = self.blocks.values() or [self.memory_bytes]
        return pages_sampled(sizes, per_gib)

    @property
    def periods_s(self) -> list[float]:
        """The different periods in seconds, shortest first. Repeats differ by a few ms or percent."""
        found: list[float] = []
        for seconds in sorted(one.seconds for one in self.measurements):
            if not found or seconds > REPEAT_FACTOR * found[-1] + REPEAT_MARGIN_S:
                found.append(seconds)
        return found

    @property
    def repeated(self) -> bool:
        """Whether a period was measured again. Only repeats show how steady the guest is."""
        return len(self.periods_s) < len(self.measurements)

    @property
    def zero_share(self) -> float:
        """Share of zero pages, 0 to 1. It is 0 if no page was checked."""
        return self.zero_found / self.zero_sampled if self.zero_sampled else 0.0

    def document(self) -> dict[str, Any]:
        """Return the keys and values of the profile's file."""
        return {
            "profile": FORMAT,
            "source": self.source,
            "qemu": None if self.qemu is None else ".".join(map(str, self.qemu)),
            "accelerator": self.accelerator,
            "memory": self.memory_bytes,
            "page_size": self.page_bytes,
            "vcpus": self.vcpus,
            "blocks": dict(self.blocks),
            "backing": self.backing,
            "zero_pages": {"sampled": self.zero_sampled, "zero": self.zero_found},
            "utilisation": list(self.utilisation),
            "mode": self.mode,
            "sample_pages": self.sample_pages,
            "measurements": [_row(one) for one in self.measurements],
            "parameters": dict(self.parameters),
            "capabilities": None if self.capabilities is None else list(self.capabilities),
            "outcome": None if self.outcome is None else asdict(self.outcome),
            "notes": list(self.notes),
        }


def _row(one: Measurement) -> dict[str, float]:
    found = {"seconds": one.seconds, "dirty_rate": one.dirty_rate}
    if one.at_s is not None:
        found["at_s"] = one.at_s
    return found | ({"running": one.running} if one.running != 1.0 else {})


def load_profile(path: Path) -> Profile:
    """Read a profile: JSON from `gpusim-predict --measure`, or YAML that somebody typed.

    Raises:
        ProfileError: the file cannot be read, or is not a usable profile.
    """
    text = read_source(path, "a profile")
    if not text.strip():
        raise ProfileError("empty", path=path)
    try:
        found = parse_json(text) if text.lstrip().startswith("{") else parse_yaml(text)
    except ReadingError as error:
        hint = hint_at_reader(text)
        raise ProfileError("not_parsed", path=path, reason=error.reason, hint=hint) from None
    if not isinstance(found, dict):
        raise ProfileError("not_a_mapping", path=path, hint=hint_at_reader(text))
    if "memory" not in found and (hint := hint_at_reader(text)):
        raise ProfileError("not_a_mapping", path=path, hint=hint)
    return profile_of(path, found)


def read_source(path: Path, expected: str) -> str:
    """Return the text of a file that a profile is made from.

    Args:
        path: of the file.
        expected: what the file should hold, for the error.

    Raises:
        ProfileError: the file cannot be read.
    """
    try:
        return read_text(path)
    except ReadingError as error:
        raise ProfileError(
            "unreadable", path=path, reason=error.reason, expected=expected
        ) from None


def profile_of(path: Path, found: Mapping[str, Any]) -> Profile:
    """Return the profile that a mapping from a file describes.

    Args:
        path: of the file, for errors.
        found: keys and values, as `Profile.document` returns them.

    Raises:
        ProfileError: a key or a value is wrong, or the measurements contradict each other.
    """
    try:
        profile = _profile(path, check(found, SHAPE))
    except ShapeError as error:
        raise ProfileError(error.code, path=path, **error.data) from None
    check_plausible(path, profile)
    return profile


def check_plausible(path: str | Path, profile: Profile, advice: str = MEASURE_ADVICE) -> None:
    """Check that the values of a profile can belong to one VM, and that they suffice for a fit.

    Args:
        path: of the file, for errors.
        profile: to check.
        advice: what to do about too few periods.

    Raises:
        ProfileError: the values contradict each other, or there are too few measurements.
    """
    memory = format_bytes(profile.memory_bytes)
    if len(profile.utilisation) > profile.vcpus:
        counts = {"values": len(profile.utilisation), "vcpus": profile.vcpus}
        raise ProfileError("too_many_utilisations", path=path, **counts)
    blocks = sum(profile.blocks.values())
    if blocks and blocks != profile.memory_bytes:
        sizes = {"blocks": format_bytes(blocks), "memory": memory}
        raise ProfileError("blocks_differ_from_memory", path=path, **sizes)
    history = profile.history
    is_idle = history is not None and history.periods and not any(p.pages for p in history.periods)
    if len(profile.periods_s) < LEAST_PERIODS and not is_idle:
        raise ProfileError(
            "too_few_periods",
            path=path,
            measurements=len(profile.measurements),
            periods=len(profile.periods_s),
            least=LEAST_PERIODS,
            advice=advice,
        )
    if not profile.sampled:
        raise ProfileError("no_block_sampled", path=path)
    if profile.mode == "dirty-ring":
        return  # the ring counts a page several times
    zero = profile.zero_share
    most = profile.pages * (1 - zero)
    # At most four standard deviations of a sample of dirty pages and of one of zero pages.
    variance = 1 / profile.sampled + zero * (1 - zero) / max(profile.zero_sampled, 1)
    sampling = 4 * profile.pages * math.sqrt(variance)
    for one in profile.measurements:
        pages = one.dirty_rate * one.seconds * MIB / profile.page_bytes
        of_one = {"path": path, "rate": one.dirty_rate, "seconds": one.seconds}
        if pages > profile.pages:
            dirtied = format_bytes(round(pages * profile.page_bytes))
            raise ProfileError("dirties_more_than_memory", dirtied=dirtied, memory=memory, **of_one)
        if pages > most + sampling:
            raise ProfileError("dirties_zero_pages", percent=100 * (1 - zero), **of_one)


def _profile(path: Path, found: Mapping[str, Any]) -> Profile:
    """Return the profile of a checked mapping."""
    mode, sample_pages = found["mode"], found["sample_pages"]
    zero = found["zero_pages"]
    if zero["zero"] > zero["sampled"]:
        allowed = f"must be at most {zero['sampled']}, the sampled pages"
        refuse(zero["zero"], allowed, "zero_pages.zero")
    if found["zero_percent"] is not None:  # a typed percentage is known to a tenth of a percent
        zero = {"sampled": 10**6, "zero": round(10**4 * found["zero_percent"])}
    for key, known in (("parameters", names.PARAMETERS), ("capabilities", names.CAPABILITIES)):
        _check_spelling(path, key, found[key] or (), known)
    unknown = names.find_unknown(found["capabilities"] or (), names.CAPABILITIES)
    if unknown:
        raise ProfileError("unknown_capability", path=path, value=unknown[0])
    return Profile(
        source=found["source"] or TYPED,
        memory_bytes=found["memory"],
        page_bytes=found["page_size"],
        vcpus=found["vcpus"],
        accelerator=found["accelerator"],
        qemu=found["qemu"],
        mode=mode,
        sample_pages=(sample_pages or SAMPLES_PER_GIB) if mode == "page-sampling" else None,
        measurements=tuple(Measurement(**row) for row in found["measurements"]),
        blocks=found["blocks"],
        backing=found["backing"],
        zero_sampled=zero["sampled"],
        zero_found=zero["zero"],
        utilisation=tuple(found["utilisation"]),
        parameters=found["parameters"],
        capabilities=found["capabilities"],
        outcome=None if found["outcome"] is None else Outcome(**found["outcome"]),
        notes=tuple(found["notes"]),
    )


def _check_spelling(path: Path, key: str, found: Iterable[str], known: Collection[str]) -> None:
    """Refuse a misspelt name, which would have no effect. A parameter of a newer QEMU may pass."""
    for name in found:
        right = names.suggest_name(name, known)
        if right is not None:
            raise ProfileError("misspelt_name", path=path, key=key, value=name, right=right)
