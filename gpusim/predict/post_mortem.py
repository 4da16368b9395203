"""What happened in a recorded migration, and what would have brought it over. Data only.

The periods are from QEMU's counters. The changes are simulated for the guest that fits this recording, so
they are as good as that fit: `Prediction.earlier` compares it with the migration itself.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from operator import attrgetter

from gpusim.explore.bounds import NO_BOUNDS, Bounds
from gpusim.explore.bounds_search import ChangeWithin, find_change
from gpusim.explore.run_pool import MOST_STEPS, RunPool
from gpusim.formats.intake import Intake
from gpusim.formats.recording import Recording
from gpusim.formats.sync_record import PAGE_BYTES, find_syncs
from gpusim.predict.coarse import Coarse, coarse_verdict
from gpusim.predict.earlier_migration import earlier_link
from gpusim.predict.ensemble import predict
from gpusim.predict.host_config import host_config
from gpusim.predict.prediction import Member, Prediction

MEMBERS = 12  # simulated migrations, which make a band
# Without a deadline of the user, a change counts if the migration ends within this many times the time
# that the operator waited, and within an hour at least.
PATIENCE, LEAST_PATIENCE_S = 10.0, 3600.0


@dataclass(frozen=True, kw_only=True)
class Period:
    """The time from one sync to the next one.

    Attributes:
        ended_s: time of the sync at its end, since the migration began.
        seconds: length.
        sent_bytes: of pages in it. A zero page counts with its size.
        dirtied_bytes: that its sync found, except what already waited to be sent.
        left_bytes: waiting after its sync.
        throttle_percent: at its end.
    """

    ended_s: float
    seconds: float
    sent_bytes: float
    dirtied_bytes: float
    left_bytes: float
    throttle_percent: int


@dataclass(frozen=True, kw_only=True)
class PostMortem:
    """The answer.

    Attributes:
        intake: the file.
        coarse: the verdict of the reports alone.
        periods: between syncs. Empty: the file does not tell its syncs.
        prediction: migrations with the same settings, of guests that fit. None: nothing fits.
        goal: what a change must keep: the limits of the user, or some patience.
        bounds: the limits of the user.
        change: the change that keeps `goal`. None: none is needed, or there is no prediction.
    """

    intake: Intake
    coarse: Coarse
    periods: tuple[Period, ...] = ()
    prediction: Prediction | None = None
    goal: Bounds = NO_BOUNDS
    bounds: Bounds = NO_BOUNDS
    change: ChangeWithin | None = None


def explain(
    intake: Intake,
    overrides: Sequence[str] = (),
    bounds: Bounds = NO_BOUNDS,
    *,
    members: int | None = None,
    seed: int = 1,
    search: bool = True,
    effort: int = 1,
    progress: Callable[[Iterator[Member], int], Iterator[Member]] = lambda found, _: found,
) -> PostMortem:
    """Return what happened in a migration, and the change that would have brought it over.

    Args:
        intake: a file with reports of a migration.
        overrides: settings in place of those that the migration had.
        bounds: what the user allows.
        members: how many migrations are simulated. None: MEMBERS.
        seed: of all draws.
        search: whether to search for a change.
        effort: factor on the steps that a run of the search may take.
        progress: as for `predict`.

    Raises:
        ConfigError: an override cannot be simulated.
    """
    assert intake.log is not None
    coarse = coarse_verdict(intake.log, overrides, bounds)
    periods = () if intake.recording is None else tuple(periods_of(intake.recording))
    if intake.profile is None:
        return PostMortem(intake=intake, coarse=coarse, periods=periods, bounds=bounds)
    profile = intake.profile
    host = host_config(profile, [*earlier_link(profile), *overrides])
    prediction = predict(profile, host, members=members or MEMBERS, seed=seed, progress=progress)
    goal = bounds or _patience(intake)
    needs_change = not coarse.is_seen or any(one.code != "yes" for one in coarse.bounds)
    change = None
    if search and needs_change and not coarse.is_in_postcopy:
        with RunPool(most_steps=MOST_STEPS * effort) as pool:
            change = find_change(
                prediction.median_member.config_under_load,
                prediction.p95_member.config_under_load,
                goal,
                pool=pool,
            )
    return PostMortem(
        intake=intake,
        coarse=coarse,
        periods=periods,
        prediction=prediction,
        goal=goal,
        bounds=bounds,
        change=change,
    )


def _patience(intake: Intake) -> Bounds:
    assert intake.log is not None
    waited_s = intake.log.seconds or 0.0
    return Bounds(total_time_s=max(PATIENCE * waited_s, LEAST_PATIENCE_S))


def periods_of(recording: Recording) -> Iterator[Period]:
    """Yield the periods between the syncs of a recording, until the VM was stopped."""
    pages = -(-recording.ram_bytes // PAGE_BYTES)
    dirtied, began_s, sent = 0.0, 0.0, 0.0
    for sync in find_syncs(recording):
        dirtied += sync.newly_dirty_pages
        yield Period(
            ended_s=sync.time_s,
            seconds=sync.time_s - began_s,
            sent_bytes=(sync.sent_pages - sent) * PAGE_BYTES,
            dirtied_bytes=float(sync.newly_dirty_pages * PAGE_BYTES),
            left_bytes=max(pages + dirtied - sync.sent_pages, 0.0) * PAGE_BYTES,
            throttle_percent=_throttle(recording, sync.time_s),
        )
        began_s, sent = sync.time_s, sync.sent_pages


def _throttle(recording: Recording, time_s: float) -> int:
    place = bisect_right(recording.samples, time_s, key=attrgetter("time_s"))
    return recording.samples[place - 1].cpu_throttle_percentage if place else 0


def throttle_steps(recording: Recording) -> list[tuple[float, int]]:
    """Return (seconds, percent) of each rise of the throttle that the samples show."""
    found = [(one.time_s, one.cpu_throttle_percentage) for one in recording.samples]
    return [after for before, after in pairwise([(0.0, 0), *found]) if after[1] > before[1]]
