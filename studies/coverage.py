"""How often a prediction's band holds the truth, for guests that the study knows.

Each case draws a guest of one kind and measures it as `gpusim-predict --measure` does. It predicts
the guest's migration from this profile alone. Then the true guest migrates in the same simulator. So
the table judges the fit and the members, and not the rules of QEMU.

`python -m studies.validation coverage` writes the table of docs/validation/unknown-guests.md.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import groupby
from statistics import median
from typing import Any, TypeAlias

import numpy as np

from gpusim.config.scenario import resolve
from gpusim.config.schema import Config, MixConfig
from gpusim.engine.attempts import simulate
from gpusim.explore.workers import map_with_bar
from gpusim.formats.profile import Measurement, Profile
from gpusim.guest.guest import Guest
from gpusim.guest.run_time import RunTime
from gpusim.layout import IntArray, Writes, without_overlaps
from gpusim.monitor.dirty_rate import LONG_S, MOST_SAMPLES, QUICK_S, ZERO_PAGES
from gpusim.predict import first_write_costs, host_costs
from gpusim.predict.bands import Band
from gpusim.predict.ensemble import WAKEUP_US, predict, timer_latency_us
from gpusim.predict.host_config import HostConfig, host_config
from gpusim.units import GIB, MIB, NS_PER_S
from studies.tables import table

Writer: TypeAlias = dict[str, Any]  # keys of a writer in a mix
Range: TypeAlias = tuple[float, float]

CASES = 14  # of each kind
# The members were tuned on cases below this number. Cases from it on judge them.
FIRST_CASE = 1000
# The band of 19 members goes from the lowest to the highest, and nine in ten further values lie in it.
COVERAGE_MEMBERS = 19
PAGE = 4096
LINK, LINK_PAGES_PER_S = "link=1gbit", 125e6 / 4104
# What a true guest is drawn from. All ranges are equally likely in each factor of two, except those of
# shares and of the drift.
MEMORY_MIB = (192, 1024)
VCPUS = (1, 2, 4, 8)
ZERO_PERCENT = (0.0, 50.0)  # of half of the guests. The others have no zero page
# Standard deviation of the speed, from one measurement or migration to the next.
DRIFT = (0.0, 0.05)
WRITTEN = (0.1, 0.7)  # share of the pages that are not zero
PAGE_WRITES = (0.15, 4.0)  # times what the link sends
BUSY = (0.1, 0.8)  # of a paced guest's vCPUs
BURST_S = (0.3, 15.0)  # bursts and pauses
ZIPF_EXPONENT, ZIPF_WRITTEN, ZIPF_WRITES = (0.6, 1.3), (0.15, 0.8), (0.3, 12.0)
# A set that moves: its share of the range in which it moves, and the share of the set in one step.
MOVING_RANGE, MOVING_SHARE, STEP_SHARE, STEP_S = (0.2, 0.7), (0.05, 0.5), (0.1, 1.0), (2.0, 30.0)
USABLE = 0.95  # of the pages that are not zero, so that all writers fit
GAP_S = 0.15  # between two measurements


def log_uniform(draw: random.Random, bounds: Range) -> float:
    """Return a number that is equally likely in each factor of two."""
    return math.exp(draw.uniform(*map(math.log, bounds)))


@dataclass(frozen=True, kw_only=True)
class Truth:
    """A guest that the study knows.

    Attributes:
        kind: one of KINDS.
        memory_mib: RAM.
        zero_percent: share of zero pages.
        utilisation: load of each vCPU.
        drift: standard deviation of the guest's speed between measurements, relative.
        writers: the keys of the writers. Phases are drawn by the seed of a run.
    """

    kind: str
    memory_mib: int
    zero_percent: float
    utilisation: tuple[float, ...]
    drift: float
    writers: dict[str, Writer]

    @property
    def pages(self) -> int:
        return self.memory_mib * MIB // PAGE


class _Memory:
    """Draws sizes and places of writers that share no page.

    Args:
        draw: draws everything.
        pages: pages of the VM.
        usable: pages that writers may have.
    """

    def __init__(self, draw: random.Random, pages: int, usable: int) -> None:
        self._draw, self._pages, self._usable = draw, pages, usable

    def writers(
        self,
        count: int,
        kinds: Sequence[str] = ("uniform", "sequential"),
        written: Range = WRITTEN,
        writes: Range = PAGE_WRITES,
    ) -> list[Writer]:
        """Return writers in one piece each, with parts of the pages and of the writes."""
        sizes = [max(64, int(size)) for size in self._parts(count, written, self._usable)]
        rates = self._parts(count, writes, LINK_PAGES_PER_S)
        order = self._draw.sample(range(count), count)
        spare = self._pages - sum(sizes)
        gaps = sorted(self._draw.randint(0, spare) for _ in order)
        starts, page = [0] * count, 0
        for gap, place in zip(gaps, order, strict=True):
            starts[place] = gap + page
            page += sizes[place]
        return [
            self._writer(self._draw.choice(kinds), *one)
            for one in zip(starts, sizes, rates, strict=True)
        ]

    def _parts(self, count: int, bounds: Range, whole: float) -> list[float]:
        total = log_uniform(self._draw, bounds) * whole
        parts = [self._draw.expovariate(1.0) + 0.05 for _ in range(count)]
        return [total * part / sum(parts) for part in parts]

    def _writer(self, pattern: str, start: int, pages: int, rate: float) -> Writer:
        found: Writer = {
            "pattern": pattern,
            "start": start * PAGE,
            "working_set": pages * PAGE,
            "page_writes_per_s": rate,
        }
        return found | ({"threads": 1} if pattern == "sequential" else {})


def _steady(draw: random.Random, memory: _Memory) -> list[Writer]:
    return memory.writers(draw.choice((1, 2)))


def _scattered(draw: random.Random, memory: _Memory) -> list[Writer]:
    found = memory.writers(draw.choice((1, 2)))
    return [one | {"start": 0, "granule": 2 * MIB} for one in found]


def _bursty(draw: random.Random, memory: _Memory) -> list[Writer]:
    """Bursts of the same length each time, or of random lengths. The first begins at any time."""
    on_s, off_s = log_uniform(draw, BURST_S), log_uniform(draw, BURST_S)
    lengths = draw.choice(("fixed", "exponential"))
    bursts = {"on_time": on_s, "off_time": off_s, "on_off_lengths": lengths}
    return [one | bursts for one in memory.writers(1)]


def _zipf(draw: random.Random, memory: _Memory) -> list[Writer]:
    (found,) = memory.writers(1, ("zipf",), ZIPF_WRITTEN, ZIPF_WRITES)
    return [found | {"exponent": draw.uniform(*ZIPF_EXPONENT)}]


def _paced(draw: random.Random, memory: _Memory) -> list[Writer]:
    """Work arrives at a rate, and the vCPUs idle in between."""
    busy = draw.uniform(*BUSY)
    return [
        one | {"pace": "paced", "catch_up_page_writes_per_s": one["page_writes_per_s"] / busy}
        for one in memory.writers(draw.choice((1, 2)))
    ]


def _eight_threads(draw: random.Random, memory: _Memory) -> list[Writer]:
    return [one | {"threads": 8} for one in memory.writers(1, ("sequential",))]


def _moving(draw: random.Random, memory: _Memory) -> list[Writer]:
    """A hot set that moves by a step after each period."""
    (found,) = memory.writers(1, ("uniform",), MOVING_RANGE)
    pages = found["working_set"] // PAGE
    hot = max(64, int(pages * log_uniform(draw, MOVING_SHARE)))
    step = max(16, int(hot * log_uniform(draw, STEP_SHARE)))
    return [
        found
        | {
            "working_set": hot * PAGE,
            "drift_period": log_uniform(draw, STEP_S),
            "drift_step": step * PAGE,
            "drift_range": pages * PAGE,
        }
    ]


def _many(draw: random.Random, memory: _Memory) -> list[Writer]:
    return memory.writers(draw.choice((6, 7, 8)))


KINDS: dict[str, tuple[str, Callable[[random.Random, _Memory], list[Writer]]]] = {
    "steady": ("one or two writers, in one piece each", _steady),
    "scattered": ("the same in 2 MiB pages all over the memory", _scattered),
    "bursty": ("one writer in bursts of 0.3 to 15 s", _bursty),
    "zipf": ("one Zipf writer", _zipf),
    "paced": ("one or two writers whose vCPUs are busy 10 to 80 %", _paced),
    "threads": ("eight sequential threads", _eight_threads),
    "moving": ("a hot set that moves each 2 to 30 s", _moving),
    "many": ("six to eight writers", _many),
}


def draw_truth(kind: str, number: int) -> Truth:
    """Return the true guest of a case."""
    draw = random.Random(f"{kind} {number}")
    memory_mib = round(log_uniform(draw, MEMORY_MIB))
    zero_percent = draw.choice((0.0, draw.uniform(*ZERO_PERCENT)))
    pages = memory_mib * MIB // PAGE
    memory = _Memory(draw, pages, int(pages * (1 - zero_percent / 100) * USABLE))
    vcpus = draw.choice(VCPUS)
    found = KINDS[kind][1](draw, memory)
    return Truth(
        kind=kind,
        memory_mib=memory_mib,
        zero_percent=zero_percent,
        utilisation=(_busy(found[0]),) * vcpus,
        drift=draw.uniform(*DRIFT),
        writers={f"writer_{place}": one for place, one in enumerate(found)},
    )


def _busy(writer: Writer) -> float:
    """Return the share of time in which the vCPUs work."""
    if "on_time" in writer:
        return float(writer["on_time"] / (writer["on_time"] + writer["off_time"]))
    rate = writer["page_writes_per_s"]
    return float(rate / writer.get("catch_up_page_writes_per_s", rate))


@cache
def _base() -> HostConfig:
    return host_config(Profile(source="a study", memory_bytes=GIB, qemu=(10, 1, 0)), (LINK,))


def host_of(profile: Profile) -> HostConfig:
    """Return the host of a profile. The hosts of all cases differ only in their VM."""
    base = _base()
    vm = replace(base.config.vm, memory=profile.memory_bytes, vcpus=profile.vcpus)
    config = replace(base.config, vm=vm)
    return replace(base, config=config, costs=host_costs.ranges(config, {"link"}))


def measure(truth: Truth, seed: int) -> Profile:
    """Return the profile of a true guest, by sampling or by a dirty bitmap, short or whole."""
    draw, rng = random.Random(f"measure {seed}"), np.random.default_rng(seed)
    is_sampled = draw.random() < 0.5
    periods = QUICK_S if draw.random() < 0.5 else QUICK_S + LONG_S
    profile = Profile(
        source="a study",
        memory_bytes=truth.memory_mib * MIB,
        vcpus=len(truth.utilisation),
        qemu=(10, 1, 0),
        mode="page-sampling" if is_sampled else "dirty-bitmap",
        sample_pages=MOST_SAMPLES if is_sampled else None,
        zero_sampled=ZERO_PAGES,
        zero_found=int(rng.binomial(ZERO_PAGES, truth.zero_percent / 100)),
        utilisation=truth.utilisation,
    )
    workload = MixConfig(writers=truth.writers)
    scenario = resolve(replace(host_of(profile).config, workload=workload, seed=seed))
    guest = Guest(scenario.layout, scenario.writers, RunTime())
    at_s, found = 0.0, []
    for seconds in periods:
        speed = math.exp(truth.drift * draw.gauss(0, 1))
        since_ns, until_ns = (round(s * NS_PER_S) for s in (at_s, at_s + seconds * speed))
        dirty = count_distinct(guest.writes(since_ns, until_ns), rng)
        if is_sampled:
            dirty = int(rng.binomial(profile.sampled, dirty / truth.pages))
        rate = _reported_rate(profile, dirty, round(1000 * seconds))
        found.append(Measurement(seconds=seconds, dirty_rate=rate, at_s=round(at_s, 3)))
        at_s += seconds * max(1.0, speed) + GAP_S
    return replace(profile, measurements=tuple(found))


def _reported_rate(profile: Profile, dirty: int, ms: int) -> int:
    """Return MiB per second as QEMU computes them, from pages or from pages of the sample.

    Source: migration/dirtyrate.c:update_dirtyrate, do_calculate_dirtyrate.
    """
    mib = profile.memory_bytes // MIB
    return dirty * mib * 1000 // (profile.sampled * ms)


def count_distinct(writes: Writes, rng: np.random.Generator) -> int:
    """Return how many pages some writes hit. Random and sequential writers share no page."""
    pages: IntArray = writes.last - writes.first
    hit = int(rng.binomial(pages, -np.expm1(-writes.mean)).sum()) if len(pages) else 0
    first, last = without_overlaps(writes.certain_first, writes.certain_last)
    return hit + int((last - first).sum())


def true_config(truth: Truth, host: HostConfig, seed: int) -> Config:
    """Return the migration of a true guest. Speed, phases and costs differ from run to run."""
    draw = random.Random(f"migrate {seed}")
    speed = math.exp(truth.drift * draw.gauss(0, 1))
    rates = ("page_writes_per_s", "catch_up_page_writes_per_s")
    writers = {
        name: {key: value * speed if key in rates else value for key, value in one.items()}
        for name, one in truth.writers.items()
    }
    link = replace(host.config.link, wakeup_latency_us=draw.uniform(*WAKEUP_US))
    return replace(
        host.config,
        vm=replace(
            host.config.vm,
            zero_percent=truth.zero_percent,
            timer_latency_us=timer_latency_us(draw.random()),
        ),
        link=host_costs.drawn(link, host.costs, lambda _: draw.random()),
        tracking=first_write_costs.drawn(
            host.config.tracking, host.first_write_costs, lambda _: draw.random()
        ),
        workload=MixConfig(writers=writers),
        seed=2**32 + seed,  # other phases than while it was measured
    )


@dataclass(frozen=True, kw_only=True)
class Case:
    """A true migration, and what the prediction said.

    Attributes:
        kind: of the guest.
        converges, total_time_s, throttle_percent: of the true migration.
        predicted_to_converge: the verdict of the prediction.
        band: of the total times of the prediction.
    """

    kind: str
    converges: bool
    total_time_s: float
    throttle_percent: int
    predicted_to_converge: bool
    band: Band

    @property
    def is_right(self) -> bool:
        """Return whether the verdict is right."""
        return self.converges == self.predicted_to_converge

    @property
    def is_within(self) -> bool:
        """Return whether the verdict is right and the total time lies in the band."""
        return self.is_right and self.band.holds(self.total_time_s)


def run_case(item: tuple[str, int], members: int = COVERAGE_MEMBERS) -> Case:
    """Return a case of a kind and a number."""
    kind, number = item
    truth, seed = draw_truth(kind, number), random.Random(f"{kind} {number} seed").getrandbits(31)
    profile = measure(truth, seed)
    host = host_of(profile)
    real = simulate(true_config(truth, host, seed)).summary
    found = predict(profile, host, members=members, seed=seed, workers=1)
    band = found.band("total_time_s")
    assert band is not None  # every run has a total time
    return Case(
        kind=kind,
        converges=real.verdict == "converged",
        total_time_s=real.total_time_s,
        throttle_percent=real.max_throttle_percent,
        predicted_to_converge=found.converges,
        band=band,
    )


def run_cases(count: int = CASES) -> list[Case]:
    """Return all cases of all kinds."""
    numbers = range(FIRST_CASE, FIRST_CASE + count)
    return list(map_with_bar(run_case, [(kind, n) for kind in KINDS for n in numbers]))


def _interval(inside: int, count: int) -> str:
    """Return the shares that a count allows: 90 % of the posterior of an even prior."""
    from scipy.special import betaincinv

    low, high = (betaincinv(inside + 1, count - inside + 1, p) for p in (0.05, 0.95))
    return f"{100 * low:.0f} to {100 * high:.0f} %"


def rows(cases: Sequence[Case]) -> list[str]:
    """Return a table with one row per kind. Cases of a kind follow each other."""
    found = []
    for kind, group in groupby(cases, key=lambda case: case.kind):
        own = list(group)
        timed = [case for case in own if case.converges]
        inside = sum(case.is_within for case in timed)
        right = [case for case in timed if case.is_right]
        error = median(abs(case.band.middle / case.total_time_s - 1) for case in right)
        width = median(case.band.relative_width for case in right)
        found.append(
            [
                KINDS[kind][0],
                f"{sum(case.is_right for case in own)} of {len(own)}",
                f"{sum(case.throttle_percent > 0 for case in own)} of {len(own)}",
                f"{inside} of {len(timed)} ({100 * inside / len(timed):.0f} %)",
                _interval(inside, len(timed)),
                f"{sum(case.total_time_s < case.band.low for case in right)}",
                f"{sum(case.total_time_s > case.band.high for case in right)}",
                f"{100 * error:.1f} %",
                f"{100 * width:.0f} %",
            ]
        )
    head = ["true guest", "verdict right", "throttled", "total time in the band", "which means"]
    return table([*head, "earlier", "later", "median error", "width of the band"], found)
