"""Guests that write in bursts are told from those that write steadily."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gpusim.fit.bursts import BurstEvidence, BurstState
from gpusim.fit.evidence import Mixture, evidence_of
from gpusim.fit.posterior import sample_fits
from gpusim.fit.writers import fit_writers
from gpusim.formats.profile import Measurement, Profile
from gpusim.monitor.dirty_rate import QUICK_S

PAGES, RATE = 60_000, 40_000.0  # of a writer, at random
GAP_S = 0.15


def paused(on_s: float, off_s: float, until_s: float, rng: np.random.Generator) -> np.ndarray:
    """Return when bursts begin and end, [n, 2] seconds. Lengths are exponential."""
    since_s = 10 * (on_s + off_s)  # so that the guest is in the middle of anything at 0
    count = int(2 + 2 * (since_s + until_s) / (on_s + off_s))
    lengths = np.empty(2 * count)
    lengths[0::2] = rng.exponential(on_s, count)
    lengths[1::2] = rng.exponential(off_s, count)
    ends = np.cumsum(lengths) - since_s
    return np.stack([ends[0::2] - lengths[0::2], ends[0::2]], axis=1)


def profile_of(
    on_s: float, off_s: float, seed: int, periods: tuple[float, ...] = QUICK_S
) -> Profile:
    """Return a measured profile of one random writer that works in bursts."""
    rng = np.random.default_rng(seed)
    bursts = paused(on_s, off_s, sum(periods) + 10, rng)
    at_s, found = 1.0, []
    for seconds in periods:
        inside = np.clip(bursts, at_s, at_s + seconds)
        busy_s = float((inside[:, 1] - inside[:, 0]).sum())
        dirty = rng.binomial(PAGES, -np.expm1(-RATE * busy_s / PAGES))
        found.append(Measurement(seconds=seconds, dirty_rate=int(dirty / 256 / seconds), at_s=at_s))
        at_s += seconds + GAP_S
    return Profile(source="a test", memory_bytes=2**30, measurements=tuple(found))


def likelihood(profile: Profile, on_s: float, off_s: float, gated: bool = True) -> float:
    one = np.ones((1, 1))
    writers = Mixture(
        pages=PAGES * one, rates=RATE / PAGES * one, sequential=np.zeros((1, 1), bool)
    )
    bursts = BurstState(
        gated=np.full((1, 1), gated), on_s=np.array([on_s]), off_s=np.array([off_s])
    )
    seen = BurstEvidence(evidence_of(profile), profile)
    return float(seen.log_likelihood(writers, np.array([0.02]), bursts)[0])


def test_a_writer_that_never_pauses_is_a_steady_one() -> None:
    profile = profile_of(1e6, 1e-6, 1)
    writers = Mixture(
        pages=np.array([PAGES]), rates=np.array([RATE / PAGES]), sequential=np.array([False])
    )
    steady = float(evidence_of(profile).log_likelihood(writers, 0.02))
    assert likelihood(profile, 1.0, 1.0, gated=False) == pytest.approx(steady, abs=1e-6)
    assert likelihood(profile, 1e7, 1e-7) == pytest.approx(steady, abs=0.1)


@pytest.mark.parametrize(("on_s", "off_s"), [(3.0, 1.0), (1.0, 3.0), (0.5, 0.5), (8.0, 8.0)])
def test_the_true_lengths_are_likelier_than_others(on_s: float, off_s: float) -> None:
    """Over twelve profiles, as one profile may deceive."""
    profiles = [profile_of(on_s, off_s, seed) for seed in range(12)]

    def total(on_s: float, off_s: float) -> float:
        return sum(likelihood(one, on_s, off_s) for one in profiles)

    true = total(on_s, off_s)
    for factor in (0.2, 5.0):
        assert true > total(factor * on_s, off_s)
        assert true > total(on_s, factor * off_s)


def test_measurements_of_unknown_times_count_one_by_one() -> None:
    """Without the times, their order does not matter."""
    profile = profile_of(2.0, 2.0, 1)
    found = tuple(replace(one, at_s=None) for one in profile.measurements)
    first = likelihood(replace(profile, measurements=found), 2.0, 2.0)
    again = likelihood(replace(profile, measurements=found[::-1]), 2.0, 2.0)
    assert first == pytest.approx(again)
    assert first != pytest.approx(likelihood(profile, 2.0, 2.0))


def share_in_bursts(profile: Profile, count: int = 24) -> float:
    fits = sample_fits(profile, fit_writers(profile), count, 1)
    return float(np.mean([one.bursts is not None for one in fits]))


def test_a_guest_in_bursts_is_found() -> None:
    profile = profile_of(2.0, 4.0, 3)
    fits = sample_fits(profile, fit_writers(profile), 24, 1)
    found = [one for one in fits if one.bursts is not None]
    assert len(found) > 20
    duty = [one.bursts.duty for one in found if one.bursts is not None]
    assert min(duty) < 1 / 3 < max(duty)
    assert all(any(writer.in_bursts for writer in one.writers) for one in found)
    low, high = np.percentile([one.writers[0].page_writes_per_s for one in found], [5, 95])
    assert low < RATE < high


def test_a_steady_guest_is_not_taken_for_one_in_bursts() -> None:
    assert share_in_bursts(profile_of(1e6, 1e-6, 1)) < 0.2


@pytest.mark.slow
def test_the_true_share_of_time_lies_in_the_bands() -> None:
    """Of ten guests, whose bursts and pauses last 0.5 to 8 s."""
    rng = np.random.default_rng(5)
    inside = []
    for seed in range(10):
        on_s, off_s = np.exp(rng.uniform(np.log(0.5), np.log(8.0), 2))
        profile = profile_of(on_s, off_s, seed)
        fits = sample_fits(profile, fit_writers(profile), 32, seed)
        duty = [1.0 if one.bursts is None else one.bursts.duty for one in fits]
        low, high = np.percentile(duty, [5, 95])
        inside.append(low <= on_s / (on_s + off_s) <= high)
    assert np.mean(inside) >= 0.7
