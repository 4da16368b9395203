"""Simulate many migrations of one profile. Each draws what the profile does not specify.

This module owns which quantities are drawn, and from which distributions. It knows no rule of QEMU
and makes no text.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from statistics import NormalDist
from typing import TypeAlias

from gpusim.config.backend import choose_backend
from gpusim.config.scenario import resolve
from gpusim.config.schema import Config, MixConfig
from gpusim.explore.estimate import SMALL_BYTES, estimate
from gpusim.explore.run_pool import RunPool
from gpusim.explore.workers import map_in_order
from gpusim.fit.estimates import Fit
from gpusim.fit.evidence import evidence_of, mixture_of
from gpusim.fit.posterior import sample_fits
from gpusim.fit.writers import fit_writers
from gpusim.formats.profile import Profile
from gpusim.guest.run_time import TIMESLICE_NS
from gpusim.predict import first_write_costs, host_costs, postcopy_costs
from gpusim.predict.earlier_migration import (
    CHECKED,
    EarlierMigration,
    compare,
    differing_keys,
    earlier_link,
)
from gpusim.predict.host_config import HostConfig, host_config
from gpusim.predict.member_guest import BUSY, guest_keys, utilisation
from gpusim.predict.prediction import Member, Prediction
from gpusim.predict.strata import Strata
from gpusim.text import Message
from gpusim.units import NS_PER_US

Guest: TypeAlias = tuple[Profile, Fit]  # with the utilisation of its vCPUs
MEMBERS = 32
FEWEST, MOST = 2, 10_000
LEAST_MEMBERS = 12  # fewer members make no band
# Pages times writers of all members together. 32 members of a VM of 1 TiB with four writers take about
# seven seconds on two cores.
MOST_WORK = MEMBERS * 2**30
# Under TCG a migrating guest shares the cores of its host with the migration, so its speed changes.
# Mean and standard deviation of log(speed after the first pass / speed before, awake), from the 35
# CPU-bound recordings of gpusim/validation/data (two cores). The recordings of gpusim-record are not
# among them, because they judge the predictions. See docs/validation/.
TCG_SPEED_MEAN, TCG_SPEED_SD = -0.10, 0.26
# How late the sender may wake at the end of a 100 ms window: between the timer slack of Linux and a
# scheduler tick. The delay moves the passes against the grid of the timer.
WAKEUP_US = (50.0, 1000.0)
# How late a timer of QEMU's main loop fires: between the timer slack of Linux and what a virtual host
# of two cores showed (docs/studies/phase-lock.md).
TIMER_LATENCY_US = (50.0, 520.0)
# Repeats of a migration on one host differed by 1 to 8 % (docs/validation/profiles.md). Standard
# deviation of the guest's speed, and bounds of the time at which its load ends.
RUN_TO_RUN, LOAD_END = 0.04, 0.08
TINY = 1e-9  # the least share of a distribution that a draw may leave out
# Utilisation of the vCPUs if nobody measured it. No source: any value is equally likely.
UNKNOWN_UTILISATION = (0.05, 1.0)
MANY_VCPUS = 128  # may skip sleeps if their turns are slow, see guest/run_time.py:TickCost
UTILISATIONS = (0.25, 0.4, 0.55, 0.7, 0.85, 1.0)  # tried if a throttle shows them


def predict(
    profile: Profile,
    host: HostConfig,
    *,
    members: int | None = None,
    seed: int = 1,
    workers: int = 0,
    progress: Callable[[Iterator[Member], int], Iterator[Member]] = lambda found, _: found,
) -> Prediction:
    """Simulate the migrations that a profile allows.

    Args:
        profile: the measurements.
        host: the settings of the migration.
        members: how many migrations. None: see `count_members`.
        seed: of all draws. The same seed gives the same prediction.
        workers: how many processes. 0: one per core.
        progress: passes the members on as they come, and may show a bar. It is told how many come.

    Raises:
        ConfigError: the config of the host cannot be simulated.
        ImportError: scipy is not installed.
    """
    fit, guests = draw_guests(profile, members, seed)
    count = len(guests)
    configs = member_configs(host, guests, seed)
    scenario = resolve(configs[0])  # raise an error that all members share before one is simulated
    if scenario.vm_bytes <= SMALL_BYTES:
        choose_backend(scenario)
    outcomes = map_in_order(_simulate_member, configs, workers, lambda _, error: error)
    found = tuple(progress(_without_errors(outcomes), count))
    return Prediction(
        earlier=_earlier(profile, host, guests, found, seed, workers),
        profile=profile,
        fit=fit,
        members=found,
        assumptions=(
            *(_fewer(count) if members is None else ()),
            *_skipped(found),
            *host.assumptions,
            *host_costs.assumptions(host.costs),
            *first_write_costs.assumptions(host.first_write_costs),
            *_postcopy(host),
            *_assumptions(profile, fit, [own for own, _ in guests]),
            *_bursts([one for _, one in guests]),
        ),
    )


def count_members(profile: Profile, fit: Fit) -> int:
    """Return how many migrations make a prediction.

    It depends on the work of one of them and not on time, so the same command gives the same answer.
    A large VM with many writers gets fewer, and at least LEAST_MEMBERS.
    """
    work = profile.pages * max(1, len(fit.writers))
    return min(MEMBERS, max(LEAST_MEMBERS, MOST_WORK // work))


def draw_guests(profile: Profile, count: int | None, seed: int) -> tuple[Fit, list[Guest]]:
    """Return the best fit, and a guest for each member.

    The syncs of a throttled migration show how much the throttle slowed the guest. So they tell the
    utilisation of its vCPUs, and each member's is drawn with the probability that they give it.

    Args:
        profile: the measurements.
        count: how many guests. None: see `count_members`.
        seed: of the draws.

    Returns:
        The best fit, and for each guest its profile, which may have a utilisation, and its writers.
    """
    history = profile.history
    if history is None or not history.is_throttled or profile.utilisation:
        fit = fit_writers(profile)
        count = count or count_members(profile, fit)
        return fit, [(profile, one) for one in sample_fits(profile, fit, count, seed)]
    own = [replace(profile, utilisation=(busy,) * profile.vcpus) for busy in UTILISATIONS]
    fits = [fit_writers(one) for one in own]
    logs = [
        evidence_of(one).log_likelihood(mixture_of(fit.writers), fit.drift) - len(fit.writers)
        for one, fit in zip(own, fits, strict=True)
    ]
    best = max(range(len(own)), key=logs.__getitem__)
    count = count or count_members(profile, fits[best])
    weights = [math.exp(log - logs[best]) for log in logs]
    drawn = random.Random(f"{seed} utilisation").choices(range(len(own)), weights, k=count)
    sampled = {
        place: iter(sample_fits(own[place], fits[place], drawn.count(place), seed))
        for place in sorted(set(drawn))
    }
    return fits[best], [(own[place], next(sampled[place])) for place in drawn]


def _earlier(
    profile: Profile,
    host: HostConfig,
    guests: Sequence[Guest],
    members: Sequence[Member],
    seed: int,
    workers: int,
) -> EarlierMigration | None:
    """Return the earlier migration that the profile tells of, beside the model.

    If the settings are the same, the members are the model. Otherwise a few migrations with the
    earlier settings are simulated.
    """
    if profile.outcome is None:
        return None
    earlier_host = host_config(profile, earlier_link(profile))
    differing = tuple(differing_keys(host.config, earlier_host.config))
    if not differing:
        return compare(profile.outcome, differing, [one.summary for one in members])
    configs = member_configs(earlier_host, guests[:CHECKED], seed)
    with RunPool(None if workers == 0 else workers * (workers > 1)) as pool:
        summaries = pool.run_all(configs)
    return compare(profile.outcome, differing, [one for one in summaries if one is not None])


def member_configs(host: HostConfig, guests: Sequence[Guest], seed: int) -> list[Config]:
    """Return the configs of members, see `member_config`.

    Args:
        host: the config without a guest, and which of its costs are drawn.
        guests: of `draw_guests`.
        seed: of all draws.
    """
    return [
        member_config(
            own, host, one, Strata(seed=seed, place=place, count=len(guests)), seed + place
        )
        for place, (own, one) in enumerate(guests)
    ]


def member_config(
    profile: Profile, host: HostConfig, fit: Fit, strata: Strata, seed: int
) -> Config:
    """Return the config of one member.

    Args:
        profile: the measurements.
        host: the config without a guest, and which of its costs are drawn.
        fit: the guest of this member.
        strata: draw what the fit does not tell.
        seed: of the member's run.
    """
    draw = random.Random(f"{strata.seed} {strata.place}")
    zero_share = profile.zero_share
    if 0 < profile.zero_found < profile.zero_sampled:  # draw from the posterior of an even prior
        not_zero = profile.zero_sampled - profile.zero_found
        zero_share = draw.betavariate(profile.zero_found + 1, not_zero + 1)
    speed = math.exp(_normal(strata.uniform("speed"), *_speed(profile, fit)))
    if profile.history is not None:  # another migration finds other pages in the memory
        zero_share = max(0.0, 1 - (1 - zero_share) * math.exp(draw.gauss(0, RUN_TO_RUN)))
    zero_pages = min(round(zero_share * profile.pages), profile.pages - 1)
    busy = (
        profile.utilisation
        or (_between(UNKNOWN_UTILISATION, strata.uniform("utilisation")),) * profile.vcpus
    )
    own = replace(profile, utilisation=busy)
    workload, vm = guest_keys(own, host.config.vm, fit, zero_pages, speed, draw, strata)
    if profile.load_ended_s is not None and isinstance(workload, MixConfig):
        ends_s = profile.load_ended_s * draw.uniform(1 - LOAD_END, 1 + LOAD_END)
        for writer in workload.writers.values():
            writer["windows"] = [[0.0, ends_s]]
    wakeup_us = _between(WAKEUP_US, strata.uniform("wakeup"))
    link = replace(host.config.link, wakeup_latency_us=wakeup_us)
    config = replace(
        host.config,
        vm=replace(vm, timer_latency_us=timer_latency_us(strata.uniform("timer_latency"))),
        link=host_costs.drawn(link, host.costs, strata.uniform),
        tracking=first_write_costs.drawn(
            host.config.tracking, host.first_write_costs, strata.uniform
        ),
        workload=workload,
        seed=seed,
    )
    if not postcopy_costs.may_switch(config):
        return config
    return postcopy_costs.drawn(config, host.postcopy_costs, strata.uniform)


def timer_latency_us(place: float) -> float:
    """Return the latency of a timer at a place, 0 to 1, between the quickest and slowest host."""
    low, high = TIMER_LATENCY_US
    return low * math.exp(place * math.log(high / low))


def _between(bounds: tuple[float, float], place: float) -> float:
    return bounds[0] + (bounds[1] - bounds[0]) * place


def _normal(place: float, mean: float, deviation: float) -> float:
    """Return the value below which a normal distribution has a share, inside (0, 1)."""
    return mean + deviation * NormalDist().inv_cdf(min(max(place, TINY), 1 - TINY))


def _speed(profile: Profile, fit: Fit) -> tuple[float, float]:
    """Return mean and standard deviation of log(speed / measured speed)."""
    if profile.accelerator == "tcg":
        return TCG_SPEED_MEAN, TCG_SPEED_SD
    if profile.history is not None:  # a whole migration, and its syncs show how speed varied in it
        return 0.0, math.hypot(RUN_TO_RUN, fit.drift / math.sqrt(len(fit.residuals) or 1))
    # Measurements within a minute may agree better than the migration that follows.
    return 0.0, max(RUN_TO_RUN, fit.drift)


def _assumptions(profile: Profile, fit: Fit, guests: Sequence[Profile]) -> Iterator[Message]:
    for note in profile.notes:
        yield Message("profile_note", {"note": note})
    if not profile.measurements:
        yield Message("guest_wrote_nothing")
    if not profile.zero_sampled:
        yield Message("zero_pages_assumed")
    if profile.load_ended_s is not None:
        yield Message(
            "load_ends",
            {
                "low_s": profile.load_ended_s * (1 - LOAD_END),
                "high_s": profile.load_ended_s * (1 + LOAD_END),
                "seen_s": profile.load_ended_s,
            },
        )
    found = [busy for one in guests if (busy := utilisation(one)) is not None]
    busy = utilisation(profile)
    if found and busy is None:
        data = {"low_percent": 100 * min(found), "high_percent": 100 * max(found)}
        yield Message("utilisation_from_throttle", data)
    elif busy is None:
        low, high = UNKNOWN_UTILISATION
        yield Message("utilisation_drawn", {"low_percent": 100 * low, "high_percent": 100 * high})
    elif busy < BUSY:
        yield Message("vcpus_idle", {"idle_percent": 100 * (1 - busy)})
    if profile.vcpus >= MANY_VCPUS:
        data = {"vcpus": profile.vcpus, "turn_us": TIMESLICE_NS / NS_PER_US / profile.vcpus}
        yield Message("vcpus_in_turn", data)
    if profile.accelerator == "tcg":
        low, high = (math.exp(TCG_SPEED_MEAN + side * 1.645 * TCG_SPEED_SD) for side in (-1, 1))
        yield Message("tcg_speed", {"low": low, "high": high})
    elif profile.history is not None:
        yield Message("run_to_run", {"vary_percent": 100 * RUN_TO_RUN})
    elif fit.drift > RUN_TO_RUN and profile.repeated:
        yield Message("speed_from_repeats", {"drift_percent": 100 * fit.drift})
    else:
        yield Message("speed_assumed", {"drift_percent": 100 * max(RUN_TO_RUN, fit.drift)})


def _postcopy(host: HostConfig) -> Iterator[Message]:
    """Tell what post-copy costs, if a migration may switch to it."""
    if postcopy_costs.may_switch(host.config):
        yield from postcopy_costs.assumptions(host.postcopy_costs)


def _bursts(guests: Sequence[Fit]) -> Iterator[Message]:
    """Tell how many of the guests write in bursts."""
    count = sum(one.bursts is not None for one in guests)
    if count:
        yield Message("guests_in_bursts", {"members": count, "of": len(guests)})


def _skipped(found: Sequence[Member]) -> Iterator[Message]:
    """Tell how long the migrations wait for their manager without being simulated."""
    skipped_s = sorted(one.summary.skipped_s for one in found)[len(found) // 2]
    if skipped_s:
        yield Message("waiting_skipped", {"skipped_s": skipped_s})


def _fewer(count: int) -> Iterator[Message]:
    if count < MEMBERS:
        yield Message("fewer_members", {"members": count, "wanted": MEMBERS})


def load_engine() -> None:
    """Return at once. A process that calls this imports this module, and all that a member needs."""


def _simulate_member(config: Config) -> Member | Exception:
    try:
        result = estimate(config)
    except Exception as error:
        return error
    throttle_s: dict[int, float] = {}
    for sample in result.samples:
        if sample.cpu_throttle_percentage:
            throttle_s.setdefault(sample.cpu_throttle_percentage, sample.time_s)
    return Member(
        config=config, summary=result.summary, throttle_s=dict(sorted(throttle_s.items()))
    )


def _without_errors(outcomes: Iterator[Member | Exception]) -> Iterator[Member]:
    """Yield the members, and raise the first error."""
    for outcome in outcomes:
        if isinstance(outcome, Exception):
            raise outcome
        yield outcome
