"""Simulate many migrations of one profile. Each draws what the profile does not specify.

This module owns which quantities are drawn, and from which distributions. It knows no rule of QEMU
and makes no text.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any, TypeAlias

from gpusim.config.backend import choose_backend
from gpusim.config.scenario import resolve
from gpusim.config.schema import Config, MixConfig, WorkloadConfig
from gpusim.engine.attempts import simulate
from gpusim.explore.run_pool import RunPool
from gpusim.explore.workers import map_in_order
from gpusim.fit.estimates import Fit, WriterEstimate
from gpusim.fit.evidence import evidence_of, mixture_of
from gpusim.fit.posterior import sample_fits
from gpusim.fit.writers import fit_writers
from gpusim.formats.profile import Profile
from gpusim.predict import first_write_costs, host_costs
from gpusim.predict.earlier_migration import (
    CHECKED,
    EarlierMigration,
    compare,
    differing_keys,
    earlier_link,
)
from gpusim.predict.host_config import HostConfig, host_config
from gpusim.predict.prediction import Member, Prediction
from gpusim.text import Message

Guest: TypeAlias = tuple[Profile, Fit]  # with the utilisation of its vCPUs
MEMBERS = 32
FEWEST, MOST = 2, 10_000
FEWEST_IN_TIME = 12  # fewer members make no band
# Under TCG a migrating guest shares the cores of its host with the migration, so its speed changes.
# Mean and standard deviation of log(speed after the first pass / speed before, awake), from the 35
# CPU-bound recordings of gpusim/validation/data (two cores). The recordings of gpusim-record are not
# among them, because they judge the predictions. See docs/validation/.
TCG_SPEED_MEAN, TCG_SPEED_SD = -0.10, 0.26
# How late the sender may wake at the end of a 100 ms window: between the timer slack of Linux and a
# scheduler tick. The delay moves the passes against the grid of the timer.
WAKEUP_US = (50.0, 1000.0)
# Repeats of a migration on one host differed by 1 to 8 % (docs/validation/profiles.md). Standard
# deviation of the guest's speed, and bounds of the time at which its load ends.
RUN_TO_RUN, LOAD_END = 0.04, 0.08
BUSY = 0.9  # of the time: a vCPU above counts as always busy. Clocks and idle loops take the rest
# Utilisation of the vCPUs if nobody measured it. No source: any value is equally likely.
UNKNOWN_UTILISATION = (0.05, 1.0)
CHECK_WALL_S = 10.0  # wall time for migrations with the settings of an earlier one
ROUNDED_DOWN = 1 - 1e-12  # the vcpus of all pieces add up to no more than the VM has
MOST_PARTS = 16  # pieces of a writer that lies all over the memory
UTILISATIONS = (0.25, 0.4, 0.55, 0.7, 0.85, 1.0)  # tried if a throttle shows them
WRITTEN_AT_MOST = 0.999  # of the pages that are not zero


def predict(
    profile: Profile,
    host: HostConfig,
    *,
    members: int = MEMBERS,
    seed: int = 1,
    workers: int = 0,
    wall_s: float | None = None,
    progress: Callable[[Iterator[Member]], Iterator[Member]] = iter,
) -> Prediction:
    """Simulate the migrations that a profile allows.

    Args:
        profile: the measurements.
        host: the settings of the migration.
        members: how many migrations.
        seed: of all draws. The same seed gives the same prediction.
        workers: how many processes. 0: one per core.
        wall_s: wall time. After that no more members are asked for, except for the first
            FEWEST_IN_TIME. None: simulate all members.
        progress: passes the members on as they come, and may show a bar.

    Raises:
        ConfigError: the config of the host cannot be simulated.
        ImportError: scipy is not installed.
    """
    fit, guests = draw_guests(profile, members, seed)
    configs = [
        member_config(own, host, one, random.Random(f"{seed} {place}"), seed + place)
        for place, (own, one) in enumerate(guests)
    ]
    scenario = resolve(configs[0])  # raise an error that all members share before processes start
    choose_backend(scenario)
    until_s = math.inf if wall_s is None else time.monotonic() + wall_s
    outcomes = map_in_order(_simulate_member, configs, workers, lambda _, error: error)
    found = tuple(progress(_in_time(_without_errors(outcomes), until_s)))
    return Prediction(
        earlier=_earlier(profile, host, guests, found, seed, workers),
        profile=profile,
        fit=fit,
        members=found,
        assumptions=(
            *_fewer(len(found), members),
            *_skipped(found),
            *host.assumptions,
            *host_costs.assumptions(host.costs),
            *first_write_costs.assumptions(host.first_write_costs),
            *_assumptions(profile, fit, [own for own, _ in guests]),
        ),
    )


def draw_guests(profile: Profile, count: int, seed: int) -> tuple[Fit, list[Guest]]:
    """Return the best fit, and a guest for each member.

    The syncs of a throttled migration show how much the throttle slowed the guest. So they tell the
    utilisation of its vCPUs, and each member's is drawn with the probability that they give it.

    Args:
        profile: the measurements.
        count: how many guests.
        seed: of the draws.

    Returns:
        The best fit, and for each guest its profile, which may have a utilisation, and its writers.
    """
    history = profile.history
    if history is None or not history.is_throttled or profile.utilisation:
        fit = fit_writers(profile)
        return fit, [(profile, one) for one in sample_fits(profile, fit, count, seed)]
    own = [replace(profile, utilisation=(busy,) * profile.vcpus) for busy in UTILISATIONS]
    fits = [fit_writers(one) for one in own]
    logs = [
        evidence_of(one).log_likelihood(mixture_of(fit.writers), fit.drift) - len(fit.writers)
        for one, fit in zip(own, fits, strict=True)
    ]
    best = max(range(len(own)), key=logs.__getitem__)
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
    configs = [
        member_config(own, earlier_host, one, random.Random(f"{seed} {place}"), seed + place)
        for place, (own, one) in enumerate(guests[:CHECKED])
    ]
    with RunPool(None if workers == 0 else workers * (workers > 1)) as pool:
        summaries = pool.run_all(configs, time.monotonic() + CHECK_WALL_S)
    return compare(profile.outcome, differing, [one for one in summaries if one is not None])


def member_config(
    profile: Profile, host: HostConfig, fit: Fit, draw: random.Random, seed: int
) -> Config:
    """Return the config of one member.

    Args:
        profile: the measurements.
        host: the config without a guest, and which of its costs are drawn.
        fit: the guest of this member.
        draw: draws what the fit does not tell.
        seed: of the member's run.
    """
    zero_share = profile.zero_share
    if 0 < profile.zero_found < profile.zero_sampled:  # draw from the posterior of an even prior
        not_zero = profile.zero_sampled - profile.zero_found
        zero_share = draw.betavariate(profile.zero_found + 1, not_zero + 1)
    speed = math.exp(draw.gauss(*_speed(profile, fit)))
    wakeup_us = draw.uniform(*WAKEUP_US)
    if profile.history is not None:  # another migration finds other pages in the memory
        zero_share = max(0.0, 1 - (1 - zero_share) * math.exp(draw.gauss(0, RUN_TO_RUN)))
    zero_pages = min(round(zero_share * profile.pages), profile.pages - 1)
    busy = profile.utilisation or (draw.uniform(*UNKNOWN_UTILISATION),) * profile.vcpus
    workload, zero_ranges = _guest(replace(profile, utilisation=busy), fit, zero_pages, speed, draw)
    if profile.load_ended_s is not None and isinstance(workload, MixConfig):
        ends_s = profile.load_ended_s * draw.uniform(1 - LOAD_END, 1 + LOAD_END)
        for writer in workload.writers.values():
            writer["windows"] = [[0.0, ends_s]]
    link = replace(host.config.link, wakeup_latency_us=wakeup_us)
    return replace(
        host.config,
        vm=replace(host.config.vm, zero_ranges=zero_ranges),
        link=host_costs.drawn(link, host.costs, draw),
        tracking=first_write_costs.drawn(host.config.tracking, host.first_write_costs, draw),
        workload=workload,
        seed=seed,
    )


def _speed(profile: Profile, fit: Fit) -> tuple[float, float]:
    """Return mean and standard deviation of log(speed / measured speed)."""
    if profile.accelerator == "tcg":
        return TCG_SPEED_MEAN, TCG_SPEED_SD
    if profile.history is not None:  # a whole migration, and its syncs show how speed varied in it
        return 0.0, math.hypot(RUN_TO_RUN, fit.drift / math.sqrt(len(fit.residuals) or 1))
    return 0.0, fit.drift


def _guest(
    profile: Profile, fit: Fit, zero_pages: int, speed: float, draw: random.Random
) -> tuple[WorkloadConfig, list[list[int]]]:
    """Return the writers and the zero ranges, in bytes.

    Each writer lies in one piece. A writer that was fitted to an earlier migration lies in several
    pieces, one for each chunk. The order of the pieces is random. Between them lie gaps of random
    size, and in each gap the zero pages come first or last. Nobody knows where a guest's zero pages
    are.

    Args:
        profile: the measurements.
        fit: has the writers.
        zero_pages: zero pages of the VM.
        speed: factor on the measured speed.
        draw: draws the places, and where a sequential writer starts.
    """
    writers = fit.writers
    not_zero = profile.pages - zero_pages
    total = sum(one.pages for one in writers)
    shrink = min(1.0, WRITTEN_AT_MOST * not_zero / total) if total else 1.0
    # Writers of an earlier migration lie all over the memory, as its syncs were evaluated.
    parts = min(profile.history.chunks, MOST_PARTS) if profile.history is not None else 1
    if any(one.pages * shrink < parts for one in writers):
        parts = 1
    pages = [max(1, int(one.pages * shrink / parts)) for one in writers]
    vcpus = _busy_vcpus(profile) / max(len(writers), 1)
    if parts > 1:
        vcpus *= ROUNDED_DOWN / parts
    orders = [list(range(len(writers))) for _ in range(parts)]
    for order in orders:
        draw.shuffle(order)
    gaps = len(writers) + 1
    spare = _pieces(max(0, not_zero - parts * sum(pages)), parts * gaps, draw)
    zero = _pieces(zero_pages, parts * gaps, draw)
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
            **_pace(profile, writers[place].page_writes_per_s * speed / parts),
            **_pattern(writers[place], pages[place], draw),
            "start": page * profile.page_bytes,
            "working_set": pages[place] * profile.page_bytes,
            "vcpus": vcpus,
        }
        page += pages[place]
    workload = MixConfig(writers=dict(sorted(keys.items()))) if keys else WorkloadConfig()
    return workload, zero_ranges


def _pieces(pages: int, count: int, draw: random.Random) -> list[int]:
    """Cut pages at random places into a number of pieces, which may be empty."""
    cuts = [0, *sorted(draw.randint(0, pages) for _ in range(count - 1)), pages]
    return [last - first for first, last in pairwise(cuts)]


def _pattern(writer: WriterEstimate, pages: int, draw: random.Random) -> dict[str, Any]:
    if writer.kind == "sequential":
        return {"pattern": "sequential", "threads": 1, "first_write": draw.randrange(pages)}
    return {"pattern": "uniform"}


def _pace(profile: Profile, rate: float) -> dict[str, Any]:
    """Return the pace. Idle vCPUs catch up after a throttle, as fast as they can."""
    busy = utilisation(profile)
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
    if profile.accelerator == "tcg":
        low, high = (math.exp(TCG_SPEED_MEAN + side * 1.645 * TCG_SPEED_SD) for side in (-1, 1))
        yield Message("tcg_speed", {"low": low, "high": high})
    elif profile.history is not None:
        yield Message("run_to_run", {"vary_percent": 100 * RUN_TO_RUN})
    else:
        code = "speed_from_repeats" if profile.repeated else "speed_assumed"
        yield Message(code, {"drift_percent": 100 * fit.drift})


def _skipped(found: Sequence[Member]) -> Iterator[Message]:
    """Tell how long the migrations wait for their manager without being simulated."""
    skipped_s = sorted(one.summary.skipped_s for one in found)[len(found) // 2]
    if skipped_s:
        yield Message("waiting_skipped", {"skipped_s": skipped_s})


def _fewer(found: int, wanted: int) -> Iterator[Message]:
    if found < wanted:
        yield Message("fewer_members", {"members": found, "wanted": wanted})


def _simulate_member(config: Config) -> Member | Exception:
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


def _in_time(members: Iterator[Member], until_s: float) -> Iterator[Member]:
    """Yield the members until time is up, and the first few in any case."""
    for count, member in enumerate(members, 1):
        yield member
        if count >= FEWEST_IN_TIME and time.monotonic() > until_s:
            return


def _without_errors(outcomes: Iterator[Member | Exception]) -> Iterator[Member]:
    """Yield the members, and raise the first error."""
    for outcome in outcomes:
        if isinstance(outcome, Exception):
            raise outcome
        yield outcome
