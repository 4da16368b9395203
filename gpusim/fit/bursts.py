"""The likelihood of a guest that writes in bursts: some of its writers work, pause, and work again.

Bursts and pauses have exponential lengths, as those of a Markov chain with two states. So bursts
that are longer than several measurements are seen in all of them, and of short ones only the mean
counts. A forward pass follows the chain from one measurement to the next.

Source: Rabiner, Proceedings of the IEEE 77, 1989 (the forward algorithm).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gpusim.fit.estimates import FloatArray, share_written
from gpusim.fit.evidence import Evidence, Mixture
from gpusim.formats.profile import Profile

PATHS = 8  # of bursts and pauses, through each measurement and from either state
CYCLES = 8  # bursts of a path
MANY = 4  # bursts in a measurement, from which the time in bursts is normally distributed
LEAST = 1e-9  # probability of one measurement: an outlier costs no more


@dataclass(frozen=True, kw_only=True)
class BurstState:
    """Which writers work in bursts, and how long bursts and pauses are.

    Attributes:
        gated: bool [c, k], writers that pause. The others never do.
        on_s, off_s: float64 [c], mean lengths of bursts and of pauses.
    """

    gated: NDArray[np.bool_]
    on_s: FloatArray
    off_s: FloatArray


class BurstEvidence:
    """The measurements of a profile, for guests that write in bursts.

    Args:
        evidence: the measurements. Each counts a page once.
        profile: tells when they began. Without that, they are as good as far apart.
    """

    def __init__(self, evidence: Evidence, profile: Profile) -> None:
        self.evidence = evidence
        self._periods, self._period = np.unique(evidence.seconds, return_inverse=True)
        self._gaps_s = _gaps_s(profile)
        rng = np.random.default_rng(1)  # the same paths for all guests, so that guests compare
        waits = rng.exponential(size=(PATHS, 2 * CYCLES))
        first = -np.log((np.arange(PATHS) + 0.5) / PATHS)
        waits[:, 0] = first
        waits[:, 1] = rng.permutation(first)
        self._waits = waits
        self._normal = rng.permutation(_normal_quantiles(PATHS))

    def log_likelihood(self, writers: Mixture, drift: FloatArray, bursts: BurstState) -> FloatArray:
        """Return the log probability of all measurements, [c].

        Args:
            writers: [c, k].
            drift: [c], relative standard deviation of the guest's speed.
            bursts: of the same c guests.
        """
        found = [self._probability(writers, drift, bursts, starts_on) for starts_on in (0, 1)]
        step = np.stack([np.stack(one, axis=-1) for one in found], axis=-2)  # [c, n, from, to]
        duty = bursts.on_s / (bursts.on_s + bursts.off_s)
        usual = np.stack([1 - duty, duty], axis=-1)  # [c, 2]
        relaxation = 1 / bursts.on_s + 1 / bursts.off_s
        state, total = usual, np.zeros(len(duty))
        for place, gap_s in enumerate(self._gaps_s):
            kept = np.exp(-gap_s * relaxation)[:, None]
            state = kept * state + (1 - kept) * usual
            state = np.einsum("cs,cst->ct", state, step[:, place])
            likelihood = state.sum(axis=1)
            total += np.log(likelihood)
            state = state / likelihood[:, None]
        return total

    def _probability(
        self, writers: Mixture, drift: FloatArray, bursts: BurstState, starts_on: int
    ) -> tuple[FloatArray, FloatArray]:
        """Return the probability of each measurement and of its end in a pause or a burst, [c, n]."""
        from scipy.special import ndtr

        active_s, ends_on = self._time_in_bursts(bursts, starts_on)  # [c, m, paths]
        seen = self.evidence
        dirty, slope = np.zeros_like(active_s), np.zeros_like(active_s)
        everywhere = np.broadcast_to(self._periods[None, :, None], active_s.shape)
        for k in range(writers.pages.shape[1]):
            worked_s = np.where(bursts.gated[:, k, None, None], active_s, everywhere)
            writes = writers.rates[:, k, None, None] * worked_s
            sequential = writers.sequential[:, k, None, None]
            share = share_written(writes, sequential)
            grows = np.where(sequential, share * (writes < 1), writes * (1 - share))
            dirty += writers.pages[:, k, None, None] * share
            slope += writers.pages[:, k, None, None] * grows
        variance = seen.sampling_variance(dirty) + (drift[:, None, None] * slope) ** 2
        deviation = np.sqrt(variance)[:, self._period]
        dirty = dirty[:, self._period]
        low = (seen.low[:, None] - dirty) / deviation
        high = (seen.high[:, None] - dirty) / deviation
        sign = np.where(low > 0, -1.0, 1.0)  # rounding would destroy a difference near one
        likely = np.maximum(np.abs(ndtr(sign * high) - ndtr(sign * low)), LEAST)
        ends_on = ends_on[:, self._period]
        return (likely * (1 - ends_on)).mean(axis=-1), (likely * ends_on).mean(axis=-1)

    def _time_in_bursts(self, bursts: BurstState, starts_on: int) -> tuple[FloatArray, FloatArray]:
        """Return the seconds in bursts of each period and path, and whether it ends in one."""
        on_s, off_s = bursts.on_s[:, None, None], bursts.off_s[:, None, None]
        lengths = np.empty((len(bursts.on_s), PATHS, 2 * CYCLES))
        lengths[:, :, (1 - starts_on) :: 2] = on_s * self._waits[:, (1 - starts_on) :: 2]
        lengths[:, :, starts_on::2] = off_s * self._waits[:, starts_on::2]
        ends_s = np.cumsum(lengths, axis=-1)
        first_s = (ends_s - lengths)[:, None, :, (1 - starts_on) :: 2]
        length_s = lengths[:, None, :, (1 - starts_on) :: 2]
        until_s = self._periods[None, :, None, None]
        active_s = np.clip(until_s - first_s, 0, length_s).sum(axis=-1)
        changes = (ends_s[:, None] <= until_s).sum(axis=-1)
        ends_on = ((starts_on + changes) % 2).astype(np.float64)
        # Of many bursts only the mean and the variance count.
        whole_s, duty = self._periods[None, :, None], on_s / (on_s + off_s)
        memory_s = on_s * off_s / (on_s + off_s)
        spread_s = np.sqrt(2 * duty * (1 - duty) * memory_s * whole_s)
        normal_s = np.clip(duty * whole_s + spread_s * self._normal, 0, whole_s)
        many = whole_s > MANY * (on_s + off_s)
        return np.where(many, normal_s, active_s), np.where(many, duty, ends_on)


def _gaps_s(profile: Profile) -> FloatArray:
    """Return the time before each measurement since the end of the one before, [n].

    It is infinite for the first one, and for all of them if nobody knows when they began.
    """
    found = profile.measurements
    gaps_s = np.full(len(found), np.inf)
    for place in range(1, len(found)):
        before, here = found[place - 1], found[place]
        if before.at_s is not None and here.at_s is not None:
            gaps_s[place] = max(0.0, here.at_s - before.at_s - before.seconds)
    return gaps_s


def _normal_quantiles(count: int) -> FloatArray:
    from scipy.special import ndtri

    middle: FloatArray = ndtri((np.arange(count) + 0.5) / count)
    middle /= np.sqrt(np.mean(middle**2))
    return middle
