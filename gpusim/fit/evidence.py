"""What measurements say of the number of distinct pages: an interval each, and how likely a number makes it.

It knows QEMU's arithmetic and the errors of a measurement: sampling, rounding down, a guest whose speed
drifts. It knows no writer's size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gpusim.fit.estimates import Fit, FloatArray, WriterEstimate, share_reached, share_slope
from gpusim.formats.profile import MIB, Measurement, Profile

_Share = Callable[[FloatArray, NDArray[np.bool_]], FloatArray]
# Writers slower than this part of the longest time, or faster than this multiple of 1 / the shortest, cannot
# be told from a straight line or from a step.
SLOWEST, FASTEST = 1 / 16, 8.0
REAPED_S = 1.0  # accel/kvm/kvm-all.c:kvm_dirty_ring_reaper_thread


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """Some writers as arrays: [..., k] sizes, writes a second to each page, and kinds."""

    pages: FloatArray
    rates: FloatArray
    sequential: NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """The measurements of a profile, n of them, in pages of the VM.

    QEMU says how many MiB a second became dirty, without the fraction: a whole rate r over T seconds
    means from r T to just below (r + 1) T MiB. Of a sample it is the interval of those counts that give r.
    A rate with a fraction was not rounded. Of a dirty ring it is a sum of rates that were rounded for each vCPU.

    Source: migration/dirtyrate.c:update_dirtyrate, do_calculate_dirtyrate, calculate_dirtyrate_dirty_ring.

    Attributes:
        seconds: [n] that the vCPUs ran.
        low, high: [n] pages, the edges.
        pages: of the VM.
        sampled: pages that a measurement looks at, each drawn anew; all of them in other modes.
        most: pages that can be written: those that are not zero.
        reaped_s: a page counts again in each so many seconds; infinite: once a measurement.
    """

    seconds: FloatArray
    low: FloatArray
    high: FloatArray
    pages: float
    sampled: float
    most: float
    reaped_s: float = np.inf

    @property
    def middle(self) -> FloatArray:
        """[n] of each interval."""
        return (np.maximum(self.low, 0) + self.high) / 2

    @property
    def least(self) -> float:
        """Pages that one sampled page stands for."""
        return self.pages / self.sampled

    @property
    def width(self) -> FloatArray:
        """[n] of each interval."""
        return self.high - np.maximum(self.low, 0)

    def reached(self, rates: FloatArray, sequential: NDArray[np.bool_]) -> FloatArray:
        """[..., n] share of its pages that each measurement finds of a writer; rates and kinds of [...]."""
        return self._counted(share_reached, rates, sequential)

    def expected(self, writers: Mixture) -> tuple[FloatArray, FloatArray]:
        """[..., n] distinct pages of each measurement, and what a relative change of the speed adds to them."""
        found = []
        for of in (share_reached, share_slope):
            share = self._counted(of, writers.rates, writers.sequential)
            found.append(np.einsum("...k,...kn->...n", writers.pages, share))
        return found[0], found[1]

    def _counted(self, of: _Share, rates: FloatArray, sequential: NDArray[np.bool_]) -> FloatArray:
        rates, sequential = rates[..., None], sequential[..., None]
        if np.isinf(self.reaped_s):
            return of(rates * self.seconds, sequential)
        times, rest = np.divmod(self.seconds, self.reaped_s)
        whole = of(rates * self.reaped_s, sequential)
        found: FloatArray = times * whole + of(rates * rest, sequential)
        return found

    def sampling_variance(self, dirty: FloatArray) -> FloatArray:
        """Of a count in a sample, and of chance in the guest; of a fifth of a sampled page at least.

        Source: migration/dirtyrate.c:save_ramblock_hash draws each page of the sample by itself.
        """
        share = np.clip(dirty / self.pages, 0, 1)
        found: FloatArray = np.maximum(self.sampled * share * (1 - share), 0.04) * self.least**2
        return found

    def edges(self, writers: Mixture, drift: FloatArray | float) -> tuple[FloatArray, FloatArray]:
        """[..., n] of the intervals, seen from what is expected, in standard deviations.

        Args:
            drift: [...] relative standard deviation of the guest's speed.
        """
        dirty, slope = self.expected(writers)
        drifted = np.asarray(drift)[..., None] * slope
        deviation = np.sqrt(self.sampling_variance(dirty) + drifted**2)
        return (self.low - dirty) / deviation, (self.high - dirty) / deviation

    def log_likelihood(self, writers: Mixture, drift: FloatArray | float) -> FloatArray:
        """[...] log probability of all measurements; 0 where every interval is hit for certain."""
        from scipy.special import log_ndtr

        low, high = self.edges(writers, drift)
        # In the upper tail a difference of probabilities is lost in rounding, in the lower it is not.
        low, high = np.where(low > 0, -high, low), np.where(low > 0, -low, high)
        upper = log_ndtr(high)
        less = np.minimum(log_ndtr(low) - upper, -1e-12)
        found: FloatArray = np.sum(upper + np.log(-np.expm1(less)), axis=-1)
        return found

    def fit(self, writers: Mixture, drift: float) -> Fit:
        """As what is handed out, with residuals: the normal deviate of half an interval's probability."""
        from scipy.special import ndtr, ndtri

        low, high = self.edges(writers, drift)
        sign = np.where(low > 0, -1.0, 1.0)
        with np.errstate(invalid="ignore"):
            inside = sign * ndtri((ndtr(sign * low) + ndtr(sign * high)) / 2)
        residuals = np.where(np.isfinite(inside), inside, np.where(low > 0, low, high))
        order = np.argsort(-writers.rates)
        return Fit(
            writers=tuple(
                WriterEstimate(
                    kind="sequential" if writers.sequential[place] else "random",
                    pages=float(writers.pages[place]),
                    page_writes_per_s=float(writers.pages[place] * writers.rates[place]),
                )
                for place in order
            ),
            residuals=residuals,
            chi_square=float(np.sum(residuals**2)),
            drift=drift,
        )


def evidence(profile: Profile) -> Evidence:
    """Of a profile."""
    rounded = not any(one.dirty_rate % 1 for one in profile.measurements)  # as QEMU's rates are
    edges = np.array([_edges(profile, one, rounded) for one in profile.measurements])
    edges = edges.reshape(-1, 2)
    not_zero = profile.pages * (1 - profile.zero_share)
    once = (
        profile.mode != "dirty-ring"
    )  # a page counts: else the counts say nothing of how many there are
    most = max(not_zero, float(edges[:, 0].max(initial=0)) if once else 0.0, 1.0)
    return Evidence(
        seconds=np.array([one.seconds * one.running for one in profile.measurements]),
        low=np.where(edges[:, 0] <= 0, -np.inf, edges[:, 0]),
        high=edges[:, 1],
        pages=float(profile.pages),
        sampled=float(max(profile.sampled, 1)),
        most=most,
        reaped_s=np.inf if once else REAPED_S,
    )


def _edges(profile: Profile, one: Measurement, rounded: bool) -> tuple[float, float]:
    """The interval of counts that give a rate, half a count beyond them on either side; pages of the VM."""
    in_sample = (
        profile.sampled / profile.memory_bytes * MIB * one.seconds
    )  # counts in 1 MiB a second
    step = profile.pages / max(profile.sampled, 1)
    if not rounded:
        count = one.dirty_rate * in_sample
        return (count - 0.5) * step, (count + 0.5) * step
    added = profile.vcpus if profile.mode == "dirty-ring" else 1  # rates, each of which was rounded
    low = np.ceil(one.dirty_rate * in_sample - 1e-9)
    high = max(np.ceil((one.dirty_rate + added) * in_sample - 1e-9), low + 1)
    return (low - 0.5) * step, (high - 0.5) * step
