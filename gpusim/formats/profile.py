"""A profile: what was measured of a VM before its migration, in one small file, checked.

Owns the format, which docs/predict.md describes for those who type one, and what makes a profile
useless or doubtful. It knows neither how it is measured nor what is made of it.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from gpusim.qemu import names
from gpusim.units import format_bytes, parse_bytes

FORMAT = 1
MIB, GIB = 2**20, 2**30
MODES = ("page-sampling", "dirty-bitmap", "dirty-ring")
SAMPLES_PER_GIB = 512  # QEMU's default; migration/dirtyrate.h:DIRTYRATE_DEFAULT_SAMPLE_PAGES
LEAST_BLOCK = 128 * 2**10  # smaller blocks are not sampled (MIN_RAMBLOCK_SIZE)
SHORTEST_S, LONGEST_S = 0.05, 60.0  # MIN_CALC_TIME_MS, MAX_CALC_TIME_MS
MOST_PAGES = 2**50 // 512  # that can have been looked at
LEAST_PERIODS = 3  # different ones; two points lie on any curve
AGAIN, AGAIN_S = 1.03, 0.01  # times a period, and so much more: a repeat of it takes no longer
SEVERAL = f"{LEAST_PERIODS} or more, from less than a second to as long as a pass takes"
ACCELERATORS = ("kvm", "tcg")


class ProfileError(ValueError):
    """A profile that says nothing of its VM: `FILE: what is wrong; what is expected`."""

    def __init__(self, path: str | Path, message: str) -> None:
        super().__init__(f"{path}: {' '.join(message.split())}")


def pages_sampled(block_bytes: Iterable[int], per_gib: int) -> int:
    """Pages that page-sampling looks at, of RAM blocks of these sizes.

    Source: migration/dirtyrate.c:save_ramblock_hash, skip_sample_ramblock.
    """
    return sum(size * per_gib // GIB for size in block_bytes if size >= LEAST_BLOCK)


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One answer of calc-dirty-rate.

    Attributes:
        seconds: that were measured.
        dirty_rate: MiB a second, as QEMU says it: a whole number, rounded down.
        at_s: when it began, since the first one; None: not known.
        running: share of the time that the vCPUs were not held back by a throttle.
    """

    seconds: float
    dirty_rate: float
    at_s: float | None = None
    running: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Profile:
    """What is known of a VM.

    Attributes:
        source: where it comes from, in words.
        memory_bytes: RAM, all blocks together.
        page_bytes: of a target page.
        vcpus: how many.
        accelerator: kvm or tcg.
        qemu: its version; None: not known.
        mode: of the measurements; see MODES. dirty-bitmap and page-sampling count a page once however
            often it was written, dirty-ring once a reaping of the ring.
        sample_pages: pages looked at a GiB, page-sampling only.
        measurements: one or more a period, in the order they were made.
        blocks: name -> bytes of RAM blocks; empty: not known.
        zero_sampled, zero_found: pages looked at for their content, and those that were zero; 0, 0: nobody looked.
        utilisation: of each vCPU while it was measured, 0 to 1, waits for a core of the host included; empty: not
            known, taken as busy.
        parameters: query-migrate-parameters, under QEMU's names; empty: not known.
        capabilities: those that are on; None: not known.
        notes: what was in doubt when it was made.
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
        """Of the VM."""
        return -(-self.memory_bytes // self.page_bytes)

    @property
    def sampled(self) -> int:
        """Pages that one measurement looks at: all of them, unless it samples."""
        if self.mode != "page-sampling":
            return self.pages
        per_gib = self.sample_pages or SAMPLES_PER_GIB
        sizes = self.blocks.values() or [self.memory_bytes]
        return pages_sampled(sizes, per_gib)

    @property
    def periods_s(self) -> list[float]:
        """The different lengths that were measured, shortest first; a repeat differs by some ms, or per cent."""
        found: list[float] = []
        for seconds in sorted(one.seconds for one in self.measurements):
            if not found or seconds > AGAIN * found[-1] + AGAIN_S:
                found.append(seconds)
        return found

    @property
    def repeated(self) -> bool:
        """Whether a length was measured again, which alone shows how steady the guest is."""
        return len(self.periods_s) < len(self.measurements)

    @property
    def zero_share(self) -> float:
        """Of all pages; 0 where nobody looked."""
        return self.zero_found / self.zero_sampled if self.zero_sampled else 0.0

    def document(self) -> dict[str, Any]:
        """As it is written."""
        found: dict[str, Any] = {
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
            "measurements": [_measured(one) for one in self.measurements],
            "parameters": dict(self.parameters),
            "capabilities": None if self.capabilities is None else list(self.capabilities),
            "notes": list(self.notes),
        }
        return found


def _measured(one: Measurement) -> dict[str, float]:
    found = {"seconds": one.seconds, "dirty_rate": one.dirty_rate}
    if one.at_s is not None:
        found["at_s"] = one.at_s
    return found | ({"running": one.running} if one.running != 1.0 else {})


def load_profile(path: Path) -> Profile:
    """A profile from its file: JSON as `gpusim-predict --measure` writes it, or YAML as people type it.

    Raises:
        ProfileError: there is none, or it says nothing of its VM.
    """
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "no text"
        raise ProfileError(path, f"cannot be read ({reason}); expected a profile") from None
    return profile_of(path, _parsed(path, text))


def _parsed(path: Path, text: str) -> Mapping[str, Any]:
    if not text.strip():
        raise ProfileError(path, "empty; expected a profile, as gpusim-predict --measure writes it")
    try:
        if text.lstrip().startswith("{"):
            found = json.loads(text)
        else:
            from omegaconf import OmegaConf

            found = OmegaConf.to_container(OmegaConf.create(text))
    except Exception as error:  # YAML's own, for which OmegaConf has no name
        where = " ".join(str(error).split())
        raise ProfileError(path, f"cut off, or neither JSON nor YAML: {where}") from None
    if not isinstance(found, dict):
        raise ProfileError(path, 'no profile; expected keys such as "memory" and "measurements"')
    return found


def profile_of(path: Path, found: Mapping[str, Any]) -> Profile:
    """A profile from what its file holds; keys that nobody knows are refused.

    Raises:
        ProfileError: names the key.
    """
    keys = _Keys(path, found)
    keys.known()
    version = keys.whole("profile", FORMAT, FORMAT, FORMAT)
    assert version == FORMAT
    mode = keys.one_of("mode", MODES, "dirty-bitmap")
    zero_sampled, zero_found = keys.zero_pages()
    profile = Profile(
        source=str(found.get("source") or "typed by hand"),
        qemu=keys.qemu(),
        accelerator=keys.one_of("accelerator", ACCELERATORS, "kvm"),
        memory_bytes=keys.size("memory", found.get("memory")),
        page_bytes=keys.whole("page_size", 4096, 4096, 2**30),
        vcpus=keys.whole("vcpus", 1, 1, 4096),
        mode=mode,
        sample_pages=keys.sample_pages(mode),
        measurements=tuple(keys.measurements()),
        blocks={
            name: keys.size(f"blocks.{name}", size) for name, size in keys.mapping("blocks").items()
        },
        zero_sampled=zero_sampled,
        zero_found=zero_found,
        utilisation=tuple(keys.share("utilisation", one) for one in keys.rows("utilisation")),
        parameters=keys.parameters(),
        capabilities=keys.capabilities(),
        notes=tuple(map(str, keys.rows("notes"))),
    )
    require_sense(path, profile)
    return profile


def require_sense(path: str | Path, profile: Profile, expected: str = SEVERAL) -> None:
    """Check that a VM can have been measured so.

    Args:
        expected: where there are too few periods.

    Raises:
        ProfileError: it cannot, or too little was measured.
    """
    if len(profile.utilisation) > profile.vcpus:
        raise ProfileError(
            path,
            f"utilisation of {len(profile.utilisation)} vCPUs, and the VM has {profile.vcpus}; expected one share for "
            "each, or fewer where threads serve several",
        )
    blocks = sum(profile.blocks.values())
    if blocks and blocks != profile.memory_bytes:
        raise ProfileError(
            path,
            f"its blocks add up to {format_bytes(blocks)}, its memory is {format_bytes(profile.memory_bytes)}: "
            "put together from two VMs? expected those of one",
        )
    periods = profile.periods_s
    if len(periods) < LEAST_PERIODS:
        raise ProfileError(
            path,
            f"{len(profile.measurements)} measurements of {len(periods)} different periods; expected {expected}",
        )
    if not profile.sampled:
        raise ProfileError(
            path, "no RAM block is large enough to be sampled; expected one of 128 KiB"
        )
    zero = profile.zero_share
    most = profile.pages * (1 - zero)
    # Four standard deviations, at most: of a sample of dirty pages, and of one of zero pages.
    variance = 1 / profile.sampled + zero * (1 - zero) / max(profile.zero_sampled, 1)
    sampling = 4 * profile.pages * math.sqrt(variance)
    for one in profile.measurements:
        pages = one.dirty_rate * one.seconds * MIB / profile.page_bytes
        if profile.mode != "dirty-ring" and pages > profile.pages:
            raise ProfileError(
                path,
                f"{one.dirty_rate:g} MiB/s for {one.seconds:g} s are {format_bytes(round(pages * profile.page_bytes))}, and "
                f"the VM has {format_bytes(profile.memory_bytes)}: from a VM of another size? expected the "
                "measurements of this one, in MiB/s",
            )
        if profile.mode != "dirty-ring" and pages > most + sampling:
            raise ProfileError(
                path,
                f"{one.dirty_rate:g} MiB/s for {one.seconds:g} s dirty more than the {100 * (1 - zero):.0f} % of "
                "the VM that is not zero; expected zero pages and measurements of the same time",
            )


class _Keys:
    """The keys of a profile, read one by one; errors name them."""

    def __init__(self, path: Path, found: Mapping[str, Any]) -> None:
        self._path, self._found = path, found

    def known(self) -> None:
        """Refuse keys that nobody reads."""
        known = [*Profile(source="", memory_bytes=GIB).document(), "zero_percent"]
        strange = [str(key) for key in self._found if key not in known]
        if strange:
            self._reject(", ".join(strange), f"no such key; expected some of {', '.join(known)}")

    def _reject(self, key: str, message: str) -> NoReturn:
        raise ProfileError(self._path, f"{key}: {message}")

    def whole(self, key: str, default: int, low: int, high: int) -> int:
        value = self._found.get(key, default)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            limits = f"{low}" if low == high else f"a whole number from {low} to {high}"
            self._reject(key, f"{value!r}; expected {limits}")
        return value

    def number(self, key: str, value: object, low: float, high: float, unit: str) -> float:
        good = isinstance(value, int | float) and not isinstance(value, bool)
        if not (good and low <= float(value) <= high):  # type: ignore[arg-type]  # NaN fails too
            self._reject(key, f"{value!r}; expected a number from {low:g} to {high:g}{unit}")
        return float(value)  # type: ignore[arg-type]

    def share(self, key: str, value: object) -> float:
        return self.number(key, value, 0, 1, "")

    def one_of(self, key: str, allowed: tuple[str, ...], default: str) -> str:
        value = self._found.get(key, default)
        if value not in allowed:
            self._reject(key, f"{value!r}; expected one of {', '.join(allowed)}")
        return str(value)

    def size(self, key: str, value: object) -> int:
        try:
            size = parse_bytes(value)  # type: ignore[arg-type]
        except (ValueError, TypeError, OverflowError):
            self._reject(key, f'{value!r}; expected bytes, or a size such as "64GiB"')
        if not 0 < size <= 2**50:
            self._reject(key, f"{value!r}; expected a size above 0 and of at most 1 PiB")
        return size

    def mapping(self, key: str) -> dict[str, Any]:
        value = self._found.get(key) or {}
        if not isinstance(value, dict):
            self._reject(key, f"{value!r}; expected names and their values")
        return {str(name): one for name, one in value.items()}

    def rows(self, key: str) -> list[Any]:
        value = self._found.get(key) or []
        if not isinstance(value, list):
            self._reject(key, f"{value!r}; expected a list")
        return value

    def parameters(self) -> dict[str, Any]:
        found = self.mapping("parameters")
        self._spelt("parameters", found, names.PARAMETERS)
        return found

    def capabilities(self) -> tuple[str, ...] | None:
        if self._found.get("capabilities") is None:
            return None
        found = tuple(map(str, self.rows("capabilities")))
        self._spelt("capabilities", found, names.CAPABILITIES)
        return found

    def _spelt(self, key: str, found: Iterable[str], known: Collection[str]) -> None:
        """Refuse a mistyped name, which would be passed over."""
        for name in found:
            right = names.meant(name, known)
            if right is not None:
                self._reject(key, f"{name}: QEMU has no such name; {right}?")

    def qemu(self) -> tuple[int, int, int] | None:
        value = self._found.get("qemu")
        if value is None:
            return None
        found = re.match(r"(\d{1,3})\.(\d{1,3})(?:\.(\d{1,3}))?(?!\d)", str(value))
        if found is None:
            self._reject("qemu", f'{value!r}; expected a version such as "9.2.0"')
        return int(found[1]), int(found[2]), int(found[3] or 0)

    def sample_pages(self, mode: str) -> int | None:
        value = self._found.get("sample_pages")
        if mode != "page-sampling":
            return None
        if value is None:
            return SAMPLES_PER_GIB
        return self.whole("sample_pages", SAMPLES_PER_GIB, 128, 16384)

    def zero_pages(self) -> tuple[int, int]:
        """Looked at, found; a share that somebody typed is taken as known to a tenth of a percent."""
        percent = self._found.get("zero_percent")
        if percent is not None:
            share = self.number("zero_percent", percent, 0, 100, " %") / 100
            return 10**6, round(share * 10**6)
        pages = self.mapping("zero_pages")
        if not pages:
            return 0, 0
        counts = [pages.get("sampled"), pages.get("zero")]
        whole = all(isinstance(one, int) and not isinstance(one, bool) for one in counts)
        if not (whole and 0 <= counts[1] <= counts[0] <= MOST_PAGES):  # type: ignore[operator]
            self._reject(
                "zero_pages",
                f"{pages}; expected whole numbers sampled and zero, of which zero is smaller",
            )
        return counts[0], counts[1]  # type: ignore[return-value]

    def measurements(self) -> list[Measurement]:
        rows = self.rows("measurements")
        if not rows:
            self._reject("measurements", "none; expected rows of seconds and dirty_rate (MiB/s)")
        return [self._measurement(f"measurements[{place}]", row) for place, row in enumerate(rows)]

    def _measurement(self, key: str, row: object) -> Measurement:
        if not isinstance(row, dict) or not {"seconds", "dirty_rate"} <= row.keys():
            self._reject(key, f"{row!r}; expected seconds and dirty_rate (MiB/s)")
        strange = row.keys() - {"seconds", "dirty_rate", "at_s", "running"}
        if strange:
            self._reject(key, f"no such key as {', '.join(map(str, strange))}")
        at_s = row.get("at_s")
        return Measurement(
            seconds=self.number(f"{key}.seconds", row["seconds"], SHORTEST_S, 86_400, " s"),
            dirty_rate=self.number(f"{key}.dirty_rate", row["dirty_rate"], 0, 1e9, " MiB/s"),
            at_s=None if at_s is None else self.number(f"{key}.at_s", at_s, 0, 1e9, " s"),
            running=self.number(f"{key}.running", row.get("running", 1.0), 0.01, 1, ""),
        )
