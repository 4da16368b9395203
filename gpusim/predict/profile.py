"""A profile: what was measured of a VM before its migration, in one small file, checked.

Owns the format, which docs/predict.md describes for those who type one, and what makes a profile
useless or doubtful. It knows neither how it is measured nor what is made of it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from gpusim.units import format_bytes, parse_bytes

FORMAT = 1
MIB, GIB = 2**20, 2**30
MODES = ("page-sampling", "dirty-bitmap", "dirty-ring")
SAMPLES_PER_GIB = 512  # QEMU's default; migration/dirtyrate.h:DIRTYRATE_DEFAULT_SAMPLE_PAGES
LEAST_BLOCK = 128 * 2**10  # smaller blocks are not sampled (MIN_RAMBLOCK_SIZE)
SHORTEST_S, LONGEST_S = 0.05, 60.0  # MIN_CALC_TIME_MS, MAX_CALC_TIME_MS
LEAST_PERIODS = 3  # different ones; two points lie on any curve
ACCELERATORS = ("kvm", "tcg")


class ProfileError(ValueError):
    """A profile that says nothing of its VM: `FILE: what is wrong; what is expected`."""

    def __init__(self, path: str | Path, message: str) -> None:
        super().__init__(f"{path}: {' '.join(message.split())}")


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
        utilisation: of each vCPU while it was measured, 0 to 1; empty: not known, taken as busy.
        parameters: query-migrate-parameters, under QEMU's names; empty: not known.
        capabilities: those that are on.
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
    capabilities: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def pages(self) -> int:
        """Of the VM."""
        return -(-self.memory_bytes // self.page_bytes)

    @property
    def sampled(self) -> int:
        """Pages that one measurement looks at: all of them, unless it samples.

        Source: migration/dirtyrate.c:save_ramblock_hash, skip_sample_ramblock.
        """
        if self.mode != "page-sampling":
            return self.pages
        per_gib = self.sample_pages or SAMPLES_PER_GIB
        sizes = self.blocks.values() or [self.memory_bytes]
        return sum(size * per_gib // GIB for size in sizes if size >= LEAST_BLOCK)

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
            "capabilities": list(self.capabilities),
            "notes": list(self.notes),
        }
        return found


def _measured(one: Measurement) -> dict[str, float]:
    found = {"seconds": one.seconds, "dirty_rate": one.dirty_rate}
    if one.at_s is not None:
        found["at_s"] = one.at_s
    return found | ({"running": one.running} if one.running != 1.0 else {})
