"""The writers of one simulated migration as keys of a config: where they lie, and how they write.

The fit tells how many pages each writer has and how fast it writes. It does not tell where they
lie, nor how many threads write them. So both are drawn here.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from gpusim.config.schema import MixConfig, VmConfig, WorkloadConfig
from gpusim.config.workload import SHORTEST_ON_NS
from gpusim.fit.estimates import Fit, WriterEstimate
from gpusim.formats.profile import Profile
from gpusim.predict.strata import Strata
from gpusim.units import MIB, NS_PER_S

BUSY = 0.9  # of the time: a vCPU above counts as always busy. Clocks and idle loops take the rest
ROUNDED_DOWN = 1 - 1e-12  # the vcpus of all pieces add up to no more than the VM has
EVEN_CUTS = 8  # cuts between writers that the members cover evenly. Chance draws the others
MOST_PARTS = 16  # pieces of a writer that lies all over the memory
# Transparent huge pages: in a quarter of the members the guest's memory lies in them, in no order. No
# source. Where a writer in one piece lies matters, and a writer all over the memory has no place. So
# with more scattered members the bands are too narrow for a guest in pieces.
SCATTERED, HUGE_PAGE_BYTES = 0.25, 2 * MIB
# Pieces of a large VM. Above 128 GiB each has several huge pages, so that a member takes less time. With
# pieces of 16 MiB instead of 2 MiB, four members of 1 TiB changed their total times by up to 0.1 %.
MOST_GRANULES = 2**16
# Threads of a sequential writer. Half of them have one. No source.
THREADS = (1, 1, 1, 1, 2, 4, 8, 16)
# Share of the guests in bursts whose lengths are random. The others repeat one burst and one pause.
# No source.
RANDOM_LENGTHS = 0.5
LEAST_BURST_S = SHORTEST_ON_NS / NS_PER_S
WRITTEN_AT_MOST = 0.999  # of the pages that are not zero


@dataclass(frozen=True, kw_only=True)
class _Drawn:
    """What is known of one member's guest, and what draws the rest.

    Attributes:
        profile, fit, zero_pages, speed, draw, strata: see `guest_keys`.
        bursts: keys of a writer that works in bursts. All of a guest have the same bursts.
    """

    profile: Profile
    fit: Fit
    zero_pages: int
    speed: float
    draw: random.Random
    strata: Strata
    bursts: Mapping[str, Any]

    @property
    def shrink(self) -> float:
        """Return the factor by which all writers shrink to the pages that are not zero, at most 1."""
        total = sum(one.pages for one in self.fit.writers)
        not_zero = self.profile.pages - self.zero_pages
        return min(1.0, WRITTEN_AT_MOST * not_zero / total) if total else 1.0


def guest_keys(
    profile: Profile,
    vm: VmConfig,
    fit: Fit,
    zero_pages: int,
    speed: float,
    draw: random.Random,
    strata: Strata,
) -> tuple[WorkloadConfig, VmConfig]:
    """Return the writers of a member, and the VM with its zero pages.

    Args:
        profile: the measurements, with the utilisation of this member.
        vm: without zero pages.
        fit: has the writers.
        zero_pages: zero pages of the VM.
        speed: factor on the measured speed.
        draw: draws the order of the writers, and for each sequential writer its threads and where
            it starts.
        strata: draw whether and where the writers lie in pieces, and how bursts begin.
    """
    is_scattered = _can_scatter(profile, fit) and strata.uniform("scattered") < SCATTERED
    guest = _Drawn(
        profile=profile,
        fit=fit,
        zero_pages=zero_pages,
        speed=speed,
        draw=draw,
        strata=strata,
        bursts=_burst_keys(fit, strata),
    )
    keys, zero = _scattered(guest) if is_scattered else _in_pieces(guest)
    return MixConfig(writers=keys) if keys else WorkloadConfig(), replace(vm, **zero)


def _burst_keys(fit: Fit, strata: Strata) -> dict[str, Any]:
    if fit.bursts is None:
        return {}
    return {
        "on_time": max(fit.bursts.on_s, LEAST_BURST_S),
        "off_time": max(fit.bursts.off_s, LEAST_BURST_S),
        "on_off_lengths": "exponential" if strata.uniform("lengths") < RANDOM_LENGTHS else "fixed",
        "on_off_start_percent": 100 * strata.uniform("phase"),
    }


def _can_scatter(profile: Profile, fit: Fit) -> bool:
    """Return whether the writers fit the VM in granules. Those of an earlier migration lie apart."""
    granule = _granule_bytes(profile) // profile.page_bytes
    granules = sum(-(-int(one.pages) // granule) for one in fit.writers)
    return profile.history is None and 0 < granules <= profile.pages // granule


def _granule_bytes(profile: Profile) -> int:
    """Return the bytes of a piece of a writer that lies all over the memory, a power of two."""
    least = -(-profile.pages * profile.page_bytes // MOST_GRANULES)
    return max(HUGE_PAGE_BYTES, 1 << (least - 1).bit_length())


def _scattered(guest: _Drawn) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return writers that lie in granules all over the memory, and keys of the zero pages."""
    shrink = guest.shrink
    keys = {
        f"writer_{place + 1}": {
            **_writer(guest, place, max(1, int(one.pages * shrink)), 1.0),
            "granule": _granule_bytes(guest.profile),
        }
        for place, one in enumerate(guest.fit.writers)
    }
    covered = sum(one["working_set"] for one in keys.values()) // guest.profile.page_bytes
    zero_pages = max(0, min(guest.zero_pages, guest.profile.pages - covered - 1))
    return keys, {"zero_percent": 100 * zero_pages / guest.profile.pages}


def _in_pieces(guest: _Drawn) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return writers that lie in one piece each, and keys of the zero pages.

    A writer that was fitted to an earlier migration lies in several pieces, one for each chunk. The
    order of the pieces is random. Between them lie gaps of random size, and in each gap the zero
    pages come first or last. Nobody knows where a guest's zero pages are.
    """
    profile, writers, draw = guest.profile, guest.fit.writers, guest.draw
    shrink = guest.shrink
    # Writers of an earlier migration lie all over the memory, as its syncs were evaluated.
    parts = min(profile.history.chunks, MOST_PARTS) if profile.history is not None else 1
    if any(one.pages * shrink < parts for one in writers):
        parts = 1
    pages = [max(1, int(one.pages * shrink / parts)) for one in writers]
    orders = [list(range(len(writers))) for _ in range(parts)]
    for order in orders:
        draw.shuffle(order)
    gaps = len(writers) + 1
    others = max(0, profile.pages - parts * sum(pages))
    zero_pages = min(guest.zero_pages, others)
    spare = _pieces(others - zero_pages, parts * gaps, guest, "gap")
    zero = _pieces(zero_pages, parts * gaps, guest, "zero")
    keys: dict[str, Any] = {}
    zero_ranges: list[list[int]] = []
    page = 0
    for gap in range(parts * gaps):
        part, own_gap = divmod(gap, gaps)
        first = page + draw.choice((0, spare[gap]))
        page += spare[gap] + zero[gap]
        if zero[gap]:
            zero_ranges.append(
                [first * profile.page_bytes, (first + zero[gap]) * profile.page_bytes]
            )
        if own_gap == len(writers):
            continue
        place = orders[part][own_gap]
        name = f"writer_{place + 1}" if parts == 1 else f"writer_{place + 1}_{part + 1}"
        keys[name] = {
            **_writer(guest, place, pages[place], 1 / parts),
            "start": page * profile.page_bytes,
        }
        page += pages[place]
    return dict(sorted(keys.items())), {"zero_ranges": zero_ranges}


def _writer(guest: _Drawn, place: int, pages: int, part: float) -> dict[str, Any]:
    """Return the keys of a writer, or of its part in one place, except the place.

    Args:
        guest: the guest.
        place: of the writer in the fit.
        pages: pages of the part.
        part: share of the writer that it is.
    """
    writer = guest.fit.writers[place]
    vcpus = _busy_vcpus(guest.profile) / len(guest.fit.writers)
    if part < 1:
        vcpus *= ROUNDED_DOWN * part
    return {
        **_pace(guest.profile, guest.fit, writer.page_writes_per_s * guest.speed * part),
        **_pattern(writer, pages, guest.draw),
        **(guest.bursts if writer.in_bursts else {}),
        "working_set": pages * guest.profile.page_bytes,
        "vcpus": vcpus,
    }


def _pieces(pages: int, count: int, guest: _Drawn, name: str) -> list[int]:
    """Cut pages at random places into a number of pieces, which may be empty."""
    places = [
        guest.strata.uniform(f"{name} {cut}") if cut < EVEN_CUTS else guest.draw.random()
        for cut in range(count - 1)
    ]
    cuts = [0, *(int(place * (pages + 1)) for place in sorted(places)), pages]
    return [last - first for first, last in pairwise(cuts)]


def _pattern(writer: WriterEstimate, pages: int, draw: random.Random) -> dict[str, Any]:
    if writer.kind != "sequential":
        return {"pattern": "uniform"}
    threads = min(draw.choice(THREADS), pages)
    first_write = draw.randrange(pages // threads)
    return {"pattern": "sequential", "threads": threads, "first_write": first_write}


def _pace(profile: Profile, fit: Fit, rate: float) -> dict[str, Any]:
    """Return the pace. Idle vCPUs catch up after a throttle, as fast as they can.

    If all writers pause between bursts, then the vCPUs are idle in the pauses first of all.
    """
    busy = utilisation(profile)
    if busy is not None and fit.bursts is not None and all(one.in_bursts for one in fit.writers):
        busy = min(1.0, busy / fit.bursts.duty)
    if busy is None or busy >= BUSY:
        return {"pace": "cpu_bound", "page_writes_per_s": rate}
    most = rate / max(busy, 0.01)
    return {"pace": "paced", "page_writes_per_s": rate, "catch_up_page_writes_per_s": most}


def utilisation(profile: Profile) -> float | None:
    """Return the mean utilisation of the vCPUs, weighted by their work. None: not measured."""
    if not profile.utilisation:
        return None
    total = sum(profile.utilisation)
    return sum(one**2 for one in profile.utilisation) / total if total else 0.0


def _busy_vcpus(profile: Profile) -> float:
    """Return the sum of the utilisations. If none was measured, then all vCPUs are busy."""
    if not profile.utilisation:
        return profile.vcpus
    return min(profile.vcpus, max(0.01, sum(profile.utilisation)))
