"""Profiles for tests: calc-dirty-rate of a guest whose number of distinct pages is known."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from gpusim.formats.profile import Measurement, Profile
from gpusim.units import MIB

PERIODS_S = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0)


def uniform_pages(working_set_pages: int, page_writes_per_s: float) -> Callable[[float], float]:
    """Return distinct pages after t s of writes that are evenly random."""
    return lambda t: working_set_pages * -math.expm1(-page_writes_per_s * t / working_set_pages)


def exact_profile(
    distinct: Callable[[float], float],
    memory_bytes: int,
    periods_s: Sequence[float] = PERIODS_S,
    **more: Any,
) -> Profile:
    """Return a dirty-bitmap profile whose only error is the rounding down to whole MiB/s."""
    rates = [math.floor(distinct(t) * 4096 / MIB / t) for t in periods_s]
    return Profile(
        **{
            "source": "a test",
            "memory_bytes": memory_bytes,
            "vcpus": 4,
            "qemu": (9, 2, 0),
            "measurements": tuple(
                Measurement(seconds=t, dirty_rate=rate)
                for t, rate in zip(periods_s, rates, strict=True)
            ),
            **more,
        }
    )
