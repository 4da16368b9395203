"""A guest of single pages, and QEMU's calc-dirty-rate over it: a reference for the fit.

Pages are written one by one. No formula of the fit is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from gpusim.formats.profile import Measurement, Profile

PAGE, MIB = 4096, 2**20
PERIODS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)


class Truth(NamedTuple):
    """A writer. The page writes per second are those to all its pages together."""

    kind: str
    pages: int
    page_writes_per_s: float


def written(
    truth: Sequence[Truth], seconds: float, pages: int, rng: np.random.Generator
) -> np.ndarray:
    """Return which pages are written within a time from a random moment on, bool [pages]."""
    hit = np.zeros(pages, dtype=bool)
    start = 0
    for kind, size, speed in truth:
        writes = min(
            rng.poisson(speed * seconds) if kind == "random" else round(speed * seconds), 30 * size
        )
        if kind == "random":
            found = rng.integers(0, size, writes)
        else:
            found = (rng.integers(0, size) + np.arange(min(writes, size))) % size
        hit[start + found] = True
        start += size
    return hit


def measured(
    truth: Sequence[Truth],
    seconds: float,
    *,
    mib: int,
    rng: np.random.Generator,
    sample_pages: int | None,
    drift: float = 0.0,
) -> int:
    """Return the MiB per second that QEMU reports.

    Args:
        sample_pages: sampled pages per GiB. None: QEMU counts all pages.
    """
    pages, ms = mib * MIB // PAGE, round(1000 * seconds)
    hit = written(truth, seconds * float(np.exp(drift * rng.standard_normal())), pages, rng)
    if sample_pages is None:
        return int(hit.sum()) * 1000 // (MIB // PAGE) // ms
    samples = mib * MIB * sample_pages // 2**30
    dirty = int(hit[rng.integers(0, pages, samples)].sum())
    return dirty * mib * 1000 // (samples * ms)


def profile_of(
    truth: Sequence[Truth],
    seed: int = 0,
    *,
    mib: int = 1024,
    sample_pages: int | None = 16384,
    periods: Sequence[float] = PERIODS,
    repeats: int = 3,
    zero_share: float = 0.0,
    drift: float = 0.0,
) -> Profile:
    """Return a profile measured in rounds, each with all periods."""
    rng = np.random.default_rng(seed)
    found = [
        Measurement(
            seconds=seconds,
            dirty_rate=measured(
                truth, seconds, mib=mib, rng=rng, sample_pages=sample_pages, drift=drift
            ),
        )
        for _ in range(repeats)
        for seconds in periods
    ]
    return Profile(
        source="a test",
        memory_bytes=mib * MIB,
        accelerator="tcg" if sample_pages else "kvm",
        mode="page-sampling" if sample_pages else "dirty-bitmap",
        sample_pages=sample_pages,
        measurements=tuple(found),
        zero_sampled=1000,
        zero_found=round(1000 * zero_share),
    )
