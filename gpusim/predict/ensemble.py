"""Many migrations of one profile, each as it might be: what is not known is drawn, for each anew.

Owns what is drawn and from which source. It knows no rule of QEMU's, and tells nobody anything.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from gpusim.config.backend import choose_backend
from gpusim.config.scenario import resolve
from gpusim.config.schema import Config, MixConfig, WorkloadConfig
from gpusim.engine.attempts import simulate
from gpusim.explore.workers import map_in_order
from gpusim.fit.estimates import Fit, WriterEstimate
from gpusim.fit.posterior import sample_fits
from gpusim.fit.writers import fit_writers
from gpusim.formats.profile import Profile
from gpusim.predict.prediction import Member, Prediction
from gpusim.predict.settings import Host
from gpusim.sender.link import Link
from gpusim.text import Message

MEMBERS = 32
FEWEST, MOST = 2, 10_000
LEAST_IN_TIME = 12  # fewer make no band
# Under TCG a migrating guest shares its host's cores with the migration, and its speed is not that before.
# What decides is its speed once the first pass is over: the logarithm of its ratio to that before, awake, over
# the 35 CPU-bound recordings of gpusim/validation/data (two cores), without those of gpusim-record, on which
# predictions are judged. See docs/validation.md.
TCG_SPEED_MEAN, TCG_SPEED_SD = -0.10, 0.26
# How late the sender may wake from the sleep to the end of a 100 ms window: from Linux's timer slack to a
# scheduler's tick. It moves the passes against the timer's grid.
WAKEUP_US = (50.0, 1000.0)
BUSY = 0.9  # of the time a vCPU runs: more is taken as always; clocks and idle loops take the rest
WRITTEN_AT_MOST = 0.999  # of the pages that are not zero


def predicted(
    profile: Profile,
    host: Host,
    *,
    members: int = MEMBERS,
    seed: int = 1,
    workers: int = 0,
    wall_s: float | None = None,
    told: Callable[[Iterator[Member]], Iterator[Member]] = iter,
) -> Prediction:
    """Simulate the migrations that a profile allows for.

    Args:
        host: of settings.host_of.
        members: how many.
        seed: of everything that is drawn: the same seed gives the same prediction.
        workers: processes; 0: one a core.
        wall_s: after which no more members are asked for, but for the first LEAST_IN_TIME; None: all.
        told: is handed the members as they come, such as a bar.

    Raises:
        ConfigError: the host's config cannot be simulated.
        ImportError: scipy is not installed.
    """
    fit = fit_writers(profile)
    fits = sample_fits(profile, fit, members, seed)
    configs = [
        member_config(profile, host.config, one, random.Random(f"{seed} {place}"), seed + place)
        for place, one in enumerate(fits)
    ]
    scenario = resolve(configs[0])  # an error that all share, before processes are started
    choose_backend(scenario)
    until_s = math.inf if wall_s is None else time.monotonic() + wall_s
    outcomes = map_in_order(_simulated, configs, workers, _lost)
    found = tuple(told(_in_time(_whole(outcomes), until_s)))
    return Prediction(
        profile=profile,
        fit=fit,
        members=found,
        assumptions=(
            *_fewer(len(found), members),
            *_threads(scenario.link),
            *host.assumptions,
            *_assumptions(profile, fit),
        ),
    )


def member_config(
    profile: Profile, host: Config, fit: Fit, draw: random.Random, seed: int
) -> Config:
    """One migration as it might be."""
    return _config(profile, host, fit.writers, _Drawn.drawn(profile, fit, draw), seed)


class _Drawn:
    """What is not known of one migration.

    Attributes:
        speed: of the guest, as a multiple of its speed while it was measured.
        zero_share: of all pages.
        wakeup_us: see WAKEUP_US.
        random: draws where each writer's pages lie, and where in them a sequential one stands.
    """

    def __init__(
        self, speed: float, zero_share: float, wakeup_us: float, draw: random.Random
    ) -> None:
        self.speed, self.zero_share, self.wakeup_us, self.random = (
            speed,
            zero_share,
            wakeup_us,
            draw,
        )

    @classmethod
    def drawn(cls, profile: Profile, fit: Fit, draw: random.Random) -> _Drawn:
        mean, sd = _speed(profile, fit)
        zero = profile.zero_share
        if (
            0 < profile.zero_found < profile.zero_sampled
        ):  # a share's posterior, before it all were alike
            left = profile.zero_sampled - profile.zero_found
            zero = draw.betavariate(profile.zero_found + 1, left + 1)
        return cls(math.exp(draw.gauss(mean, sd)), zero, draw.uniform(*WAKEUP_US), draw)


def _speed(profile: Profile, fit: Fit) -> tuple[float, float]:
    """Mean and standard deviation of the logarithm of the guest's speed against that measured."""
    if profile.accelerator == "tcg":
        return TCG_SPEED_MEAN, TCG_SPEED_SD
    return 0.0, fit.drift


def _config(
    profile: Profile, host: Config, writers: Sequence[WriterEstimate], drawn: _Drawn, seed: int
) -> Config:
    zero_pages = min(round(drawn.zero_share * profile.pages), profile.pages - 1)
    return replace(
        host,
        vm=replace(host.vm, zero_percent=100 * zero_pages / profile.pages),
        link=replace(host.link, wakeup_latency_us=drawn.wakeup_us),
        workload=_workload(profile, writers, profile.pages - zero_pages, drawn),
        seed=seed,
    )


def _workload(
    profile: Profile, writers: Sequence[WriterEstimate], not_zero: int, drawn: _Drawn
) -> WorkloadConfig:
    """The writers, in one piece each, in a random order with random gaps between them."""
    if not writers:
        return WorkloadConfig()
    shrink = min(1.0, WRITTEN_AT_MOST * not_zero / sum(one.pages for one in writers))
    pages = [max(1, int(one.pages * shrink)) for one in writers]
    order = list(range(len(writers)))
    drawn.random.shuffle(order)
    # Gaps between all that is not zero; zero pages are the last that no writer covers.
    spare = max(0, not_zero - sum(pages))
    cuts = sorted(drawn.random.randint(0, spare) for _ in order)
    keys: dict[str, Any] = {}
    before = 0
    for cut, place in zip(cuts, order, strict=True):
        keys[f"writer_{place + 1}"] = {
            **_pace(profile, writers[place].page_writes_per_s * drawn.speed),
            **_pattern(writers[place], pages[place], drawn.random),
            "start": (cut + before) * profile.page_bytes,
            "working_set": pages[place] * profile.page_bytes,
            "vcpus": _busy_vcpus(profile) / len(writers),
        }
        before += pages[place]
    return MixConfig(writers=dict(sorted(keys.items())))


def _pattern(writer: WriterEstimate, pages: int, draw: random.Random) -> dict[str, Any]:
    if writer.kind == "sequential":
        return {"pattern": "sequential", "threads": 1, "first_write": draw.randrange(pages)}
    return {"pattern": "uniform"}


def _pace(profile: Profile, rate: float) -> dict[str, Any]:
    """A guest whose vCPUs idle catches up what a throttle held up, as fast as its vCPUs go."""
    busy = utilisation(profile)
    if busy is None or busy >= BUSY:
        return {"pace": "cpu_bound", "page_writes_per_s": rate}
    most = rate / max(busy, 0.01)
    return {"pace": "paced", "page_writes_per_s": rate, "catch_up_page_writes_per_s": most}


def utilisation(profile: Profile) -> float | None:
    """How busy the vCPUs are that do the work: each weighted by what it does; None: not known."""
    if not profile.utilisation:
        return None
    total = sum(profile.utilisation)
    return sum(one**2 for one in profile.utilisation) / total if total else 0.0


def _busy_vcpus(profile: Profile) -> float:
    """vCPUs' worth of work; all of them where it is not known."""
    return (
        min(profile.vcpus, max(0.01, sum(profile.utilisation)))
        if profile.utilisation
        else profile.vcpus
    )


def _assumptions(profile: Profile, fit: Fit) -> Iterator[Message]:
    for note in profile.notes:
        yield Message("profile_note", {"note": note})
    if not profile.zero_sampled:
        yield Message("zero_pages_assumed")
    busy = utilisation(profile)
    if busy is None:
        yield Message("vcpus_assumed_busy")
    elif busy < BUSY:
        yield Message("vcpus_idle", {"idle_percent": 100 * (1 - busy)})
    if profile.accelerator == "tcg":
        low, high = (math.exp(TCG_SPEED_MEAN + side * 1.645 * TCG_SPEED_SD) for side in (-1, 1))
        yield Message("tcg_speed", {"low": low, "high": high})
    else:
        code = "speed_from_repeats" if profile.repeated else "speed_assumed"
        yield Message(code, {"drift_percent": 100 * fit.drift})


def _fewer(found: int, wanted: int) -> Iterator[Message]:
    if found < wanted:
        yield Message("fewer_members", {"members": found, "wanted": wanted})


def _threads(link: Link) -> Iterator[Message]:
    """Tell if the sending threads cannot fill the link."""
    if link.threads_bandwidth < link.bandwidth and math.isfinite(link.bandwidth):
        data = {
            "channels": link.multifd.channels if link.multifd else 0,
            "threads_gbit_per_s": 8 * link.threads_bandwidth / 1e9,
            "link_gbit_per_s": 8 * link.bandwidth / 1e9,
        }
        yield Message("threads_limit_link", data)


def _simulated(config: Config) -> Member | Exception:
    try:
        result = simulate(config)
    except Exception as error:
        return error
    throttle_s: dict[int, float] = {}
    for sample in result.samples:
        if sample.cpu_throttle_percentage:
            throttle_s.setdefault(sample.cpu_throttle_percentage, sample.time_s)
    return Member(
        config=config, summary=result.summary, throttle_s=dict(sorted(throttle_s.items()))
    )


def _lost(_: Config, error: Exception) -> Member | Exception:
    return error


def _in_time(members: Iterator[Member], until_s: float) -> Iterator[Member]:
    """The members that come before a time is up, and the first few in any case."""
    for count, member in enumerate(members, 1):
        yield member
        if count >= LEAST_IN_TIME and time.monotonic() > until_s:
            return


def _whole(outcomes: Iterator[Member | Exception]) -> Iterator[Member]:
    for outcome in outcomes:
        if isinstance(outcome, Exception):
            raise outcome
        yield outcome
