"""The profile of a VM: measurements of its dirty rate before a migration, in one small file.

Owns the file format (docs/how-to/predict-a-migration.md describes it for people who type one) and the checks of its
values. It does not measure and does not fit a guest.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gpusim.config import checks
from gpusim.errors import ConfigError
from gpusim.formats.errors import ProfileError
from gpusim.qemu import names
from gpusim.reading import ReadingError, parse_json, parse_yaml, read_text
from gpusim.text import join_words
from gpusim.units import format_bytes

FORMAT = 1
MIB, GIB = 2**20, 2**30
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
ROW = "seconds and dirty_rate (MiB/s), and may have at_s (s) and running (0 to 1)"


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
        zero_sampled: pages whose content was checked. 0: no page.
        zero_found: pages among `zero_sampled` that were zero.
        utilisation: load of each vCPU during the measurement, 0 to 1, including waits for a host
            core. Empty: unknown, and then all vCPUs count as busy.
        parameters: result of query-migrate-parameters, with QEMU's names. Empty: unknown.
        capabilities: names of the capabilities that are on. None: unknown.
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
    zero_sampled: int = 0
    zero_found: int = 0
    utilisation: tuple[float, ...] = ()
    parameters: Mapping[str, Any] = field(default_factory=dict)
    capabilities: tuple[str, ...] | None = None
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
            "zero_pages": {"sampled": self.zero_sampled, "zero": self.zero_found},
            "utilisation": list(self.utilisation),
            "mode": self.mode,
            "sample_pages": self.sample_pages,
            "measurements": [_row(one) for one in self.measurements],
            "parameters": dict(self.parameters),
            "capabilities": None if self.capabilities is None else list(self.capabilities),
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
        raise ProfileError("not_parsed", path=path, reason=error.reason) from None
    if not isinstance(found, dict):
        raise ProfileError("not_a_mapping", path=path)
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
        profile = _Keys(path, found).profile()
    except ConfigError as error:
        data = {"key": error.key, "value": error.value, "message": error.message}
        raise ProfileError("bad_value", path=path, **data) from None
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
    if len(profile.periods_s) < LEAST_PERIODS:
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


class _Keys:
    """Reads the keys of a profile one by one. Each wrong value raises an error that names its key."""

    def __init__(self, path: Path, found: Mapping[str, Any]) -> None:
        self._path, self._found = path, found

    def profile(self) -> Profile:
        self._refuse_unknown()
        self.whole("profile", FORMAT, FORMAT, FORMAT)
        mode = self.one_of("mode", MODES, "dirty-bitmap")
        zero_sampled, zero_found = self.zero_pages()
        return Profile(
            source=str(self._found.get("source") or TYPED),
            qemu=self.qemu(),
            accelerator=self.one_of("accelerator", ACCELERATORS, "kvm"),
            memory_bytes=self.size("memory", self._found.get("memory")),
            page_bytes=self.whole("page_size", 4096, 4096, 2**30),
            vcpus=self.whole("vcpus", 1, 1, 4096),
            mode=mode,
            sample_pages=self.sample_pages(mode),
            measurements=tuple(self.measurements()),
            blocks={
                name: self.size(f"blocks.{name}", size)
                for name, size in self.mapping("blocks").items()
            },
            zero_sampled=zero_sampled,
            zero_found=zero_found,
            utilisation=tuple(
                self.number("utilisation", one, 0, 1) for one in self.rows("utilisation")
            ),
            parameters=self.parameters(),
            capabilities=self.capabilities(),
            notes=tuple(map(str, self.rows("notes"))),
        )

    def _refuse_unknown(self) -> None:
        known = [*Profile(source="", memory_bytes=GIB).document(), "zero_percent"]
        for key in self._found:
            if key not in known:
                keys = join_words(known)
                raise ProfileError("unknown_key", path=self._path, key=key, known=keys)

    def whole(self, key: str, default: int, low: int, high: int) -> int:
        value = self._found.get(key, default)
        checks.check_whole(key, value, low, high)
        return int(value)

    def number(self, key: str, value: Any, low: float, high: float, unit: str = "") -> float:
        if isinstance(value, bool):
            checks.reject(key, value, "must be a number")
        checks.check_range(key, value, low, high, unit)
        return float(value)

    def one_of(self, key: str, allowed: tuple[str, ...], default: str) -> str:
        value = self._found.get(key, default)
        if value not in allowed:
            checks.reject(key, value, f"must be {join_words(allowed, 'or')}")
        return str(value)

    def size(self, key: str, value: Any) -> int:
        size = checks.parse_size(key, value)
        if not size:
            checks.reject(key, value, "must be above 0")
        return size

    def mapping(self, key: str) -> dict[str, Any]:
        value = self._found.get(key) or {}
        if not isinstance(value, dict):
            checks.reject(key, value, "must be a mapping of names to values")
        return {str(name): one for name, one in value.items()}

    def rows(self, key: str) -> list[Any]:
        value = self._found.get(key) or []
        if not isinstance(value, list):
            checks.reject(key, value, "must be a list")
        return value

    def parameters(self) -> dict[str, Any]:
        found = self.mapping("parameters")
        self._check_spelling("parameters", found, names.PARAMETERS)
        return found

    def capabilities(self) -> tuple[str, ...] | None:
        if self._found.get("capabilities") is None:
            return None
        found = tuple(map(str, self.rows("capabilities")))
        self._check_spelling("capabilities", found, names.CAPABILITIES)
        return found

    def _check_spelling(self, key: str, found: Iterable[str], known: Collection[str]) -> None:
        """Refuse a misspelt name, which would have no effect. A name of a newer QEMU may pass."""
        for name in found:
            right = names.suggest_name(name, known)
            if right is not None:
                data = {"key": key, "value": name, "right": right}
                raise ProfileError("misspelt_name", path=self._path, **data)

    def qemu(self) -> tuple[int, int, int] | None:
        value = self._found.get("qemu")
        if value is None:
            return None
        found = re.match(r"(\d{1,3})\.(\d{1,3})(?:\.(\d{1,3}))?(?!\d)", str(value))
        if found is None:
            checks.reject("qemu", value, 'must be a version such as "9.2.0"')
        return int(found[1]), int(found[2]), int(found[3] or 0)

    def sample_pages(self, mode: str) -> int | None:
        if mode != "page-sampling":
            return None
        if self._found.get("sample_pages") is None:
            return SAMPLES_PER_GIB
        return self.whole("sample_pages", SAMPLES_PER_GIB, 128, 16384)

    def zero_pages(self) -> tuple[int, int]:
        """Return (checked, zero) pages. A typed percentage counts as known to a tenth of a percent."""
        percent = self._found.get("zero_percent")
        if percent is not None:
            share = self.number("zero_percent", percent, 0, 100, " %") / 100
            return 10**6, round(share * 10**6)
        pages = self.mapping("zero_pages")
        if not pages:
            return 0, 0
        sampled, zero = (pages.get(name) for name in ("sampled", "zero"))
        checks.check_whole("zero_pages.sampled", sampled, 0, MOST_PAGES)
        assert isinstance(sampled, int)
        checks.check_whole("zero_pages.zero", zero, 0, sampled)
        assert isinstance(zero, int)
        return sampled, zero

    def measurements(self) -> list[Measurement]:
        rows = self.rows("measurements")
        if not rows:
            checks.reject("measurements", "none", f"must be a list of rows that have {ROW}")
        return [self._measurement(f"measurements[{place}]", row) for place, row in enumerate(rows)]

    def _measurement(self, key: str, row: Any) -> Measurement:
        keys = {"seconds", "dirty_rate", "at_s", "running"}
        if not isinstance(row, dict) or not {"seconds", "dirty_rate"} <= row.keys() <= keys:
            checks.reject(key, row, f"must have {ROW}")
        at_s = row.get("at_s")
        return Measurement(
            seconds=self.number(f"{key}.seconds", row["seconds"], SHORTEST_S, 86_400, " s"),
            dirty_rate=self.number(f"{key}.dirty_rate", row["dirty_rate"], 0, 1e9, " MiB/s"),
            at_s=None if at_s is None else self.number(f"{key}.at_s", at_s, 0, 1e9, " s"),
            running=self.number(f"{key}.running", row.get("running", 1.0), 0.01, 1),
        )
