"""Evidence: an interval of distinct pages for each measurement, and the likelihood of writers.

This module knows QEMU's arithmetic and the errors of a measurement: sampling, rounding down, and a
guest whose speed drifts. It does not search for writers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gpusim.fit.estimates import Fit, FloatArray, WriterEstimate, drifting_share, share_written
from gpusim.formats.migration_history import SyncHistory, SyncPeriod
from gpusim.formats.profile import Measurement, Profile
from gpusim.units import MIB

# A writer slower than SLOWEST / the longest period looks like a straight line. A writer faster than
# FASTEST / the shortest period looks like a step.
SLOWEST, FASTEST = 1 / 16, 8.0
LEAST_BUSY = 0.01  # the least share of time in which vCPUs work, so that no rate is infinite
SMALL = 1e-3  # relative step of a speed, for slopes
TINY = 1e-12  # writes per page, to divide by
REAPED_S = 1.0  # accel/kvm/kvm-all.c:kvm_dirty_ring_reaper_thread


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """Some writers as arrays.

    Attributes:
        pages: float64 [..., k], sizes.
        rates: float64 [..., k], writes per second to each page.
        sequential: bool [..., k], kinds.
    """

    pages: FloatArray
    rates: FloatArray
    sequential: NDArray[np.bool_]


def mixture_of(writers: Sequence[WriterEstimate]) -> Mixture:
    """Return estimated writers as arrays."""
    return Mixture(
        pages=np.array([one.pages for one in writers], dtype=np.float64),
        rates=np.array([one.rate for one in writers], dtype=np.float64),
        sequential=np.array([one.kind == "sequential" for one in writers], dtype=np.bool_),
    )


def estimates_of(writers: Mixture) -> tuple[WriterEstimate, ...]:
    """Return writers, [k], as estimates, the hottest first."""
    return tuple(
        WriterEstimate(
            kind="sequential" if writers.sequential[place] else "random",
            pages=float(writers.pages[place]),
            page_writes_per_s=float(writers.pages[place] * writers.rates[place]),
        )
        for place in np.argsort(-writers.rates)
    )


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """The n measurements of a profile, in pages of the VM.

    QEMU reports how many MiB per second became dirty, rounded down. A whole rate r over T seconds
    means r T to just below (r + 1) T MiB. For a sample it means the counts that give r. A rate with
    a fraction was not rounded. A dirty ring reports a sum of rates, each rounded for one vCPU.

    Source: migration/dirtyrate.c:update_dirtyrate, do_calculate_dirtyrate,
    calculate_dirtyrate_dirty_ring.

    Attributes:
        seconds: float64 [n], how long the vCPUs ran.
        low, high: float64 [n], the ends of the intervals, in pages.
        pages: pages of the VM.
        sampled: pages that a measurement samples, each at random. All pages in the other modes.
        most: pages that the guest can write: those that are not zero.
        reaped_s: a page counts again in each period of this length. Infinite: once per measurement.
        timing: float64 [n] or 0, relative standard deviation of `seconds`.
    """

    seconds: FloatArray
    low: FloatArray
    high: FloatArray
    pages: float
    sampled: float
    most: float
    reaped_s: float = np.inf
    timing: FloatArray | float = 0.0

    @property
    def middle(self) -> FloatArray:
        """Return the middles of the intervals, [n] pages."""
        return (np.maximum(self.low, 0) + self.high) / 2

    @property
    def pages_per_sample(self) -> float:
        """Return how many pages one sampled page stands for."""
        return self.pages / self.sampled

    @property
    def width(self) -> FloatArray:
        """Return the widths of the intervals, [n] pages."""
        return self.high - np.maximum(self.low, 0)

    def share_found(self, rates: FloatArray, sequential: NDArray[np.bool_]) -> FloatArray:
        """Return the share of a writer's pages that each measurement finds, [..., n].

        Args:
            rates, sequential: [...], as in `Mixture`.
        """
        return self._share_and_slope(rates, sequential, 0.0)[0]

    def expected(
        self, writers: Mixture, drift: FloatArray | float
    ) -> tuple[FloatArray, FloatArray]:
        """Return the expected count of each measurement, and its slope by speed, [..., n].

        Args:
            writers: the writers, [..., k].
            drift: [...], relative standard deviation of the guest's speed.
        """
        found = self._share_and_slope(writers.rates, writers.sequential, drift)
        share, slope = (np.einsum("...k,...kn->...n", writers.pages, one) for one in found)
        return share, slope

    def _share_and_slope(
        self, rates: FloatArray, sequential: NDArray[np.bool_], drift: FloatArray | float
    ) -> tuple[FloatArray, FloatArray]:
        """Return the mean share that each measurement finds, and its slope by speed, [..., n]."""
        rates, sequential = rates[..., None], sequential[..., None]
        drift = np.asarray(drift)[..., None, None]
        if np.isinf(self.reaped_s):
            return drifting_share(rates * self.seconds, sequential, drift)
        times, rest_s = np.divmod(self.seconds, self.reaped_s)
        whole = drifting_share(rates * self.reaped_s, sequential, drift)
        rest = drifting_share(rates * rest_s, sequential, drift)
        return times * whole[0] + rest[0], times * whole[1] + rest[1]

    def sampling_variance(self, dirty: FloatArray) -> FloatArray:
        """Return the variance of counts due to sampling and chance, in square pages.

        It is at least that of a fifth of a sampled page.

        Source: migration/dirtyrate.c:save_ramblock_hash, which draws each page independently.
        """
        share = np.clip(dirty / self.pages, 0, 1)
        in_sample = np.maximum(self.sampled * share * (1 - share), 0.04)
        variance: FloatArray = in_sample * self.pages_per_sample**2
        return variance

    def edges(self, writers: Mixture, drift: FloatArray | float) -> tuple[FloatArray, FloatArray]:
        """Return the ends of the intervals minus the expected counts, in standard deviations.

        Args:
            writers: the writers, [..., k].
            drift: [...], relative standard deviation of the guest's speed.

        Returns:
            Two arrays [..., n].
        """
        dirty, slope = self.expected(writers, drift)
        drifted = (np.asarray(drift)[..., None] ** 2 + np.square(self.timing)) * slope**2
        deviation = np.sqrt(self.sampling_variance(dirty) + drifted)
        return (self.low - dirty) / deviation, (self.high - dirty) / deviation

    def log_likelihood(self, writers: Mixture, drift: FloatArray | float) -> FloatArray:
        """Return the log probability of all measurements, [...]. At most 0."""
        from scipy.special import log_ndtr

        low, high = self.edges(writers, drift)
        # Rounding destroys a difference of probabilities in the upper tail, not in the lower tail.
        low, high = np.where(low > 0, -high, low), np.where(low > 0, -low, high)
        upper = log_ndtr(high)
        difference = np.minimum(log_ndtr(low) - upper, -1e-12)
        total: FloatArray = np.sum(upper + np.log(-np.expm1(difference)), axis=-1)
        return total

    def fit(self, writers: Mixture, drift: float) -> Fit:
        """Return writers as a `Fit`, without warnings.

        A residual is the normal deviate that halves the probability of the interval.
        """
        from scipy.special import ndtr, ndtri

        low, high = self.edges(writers, drift)
        sign = np.where(low > 0, -1.0, 1.0)
        with np.errstate(invalid="ignore"):
            inside = sign * ndtri((ndtr(sign * low) + ndtr(sign * high)) / 2)
        residuals = np.where(np.isfinite(inside), inside, np.where(low > 0, low, high))
        return Fit(
            writers=estimates_of(writers),
            residuals=residuals,
            chi_square=float(np.sum(residuals**2)),
            drift=drift,
        )


@dataclass(frozen=True, kw_only=True)
class SyncEvidence(Evidence):
    """What the syncs of an earlier migration found, as n measurements.

    A sync finds the pages that were written since the sync before, except two kinds. Pages that
    still wait to be sent are dirty already. Pages that were dirty before are watched only since
    their chunk of KVM's log was cleared. Both kinds are the pages that were written most recently,
    so more hot pages than cold ones are missing. Writers are assumed to be spread over the memory.

    Source: migration/ram.c:migration_bitmap_sync, migration_clear_memory_region_dirty_bitmap.

    Attributes:
        spans: float64 [m], lengths of all periods, of which n count.
        left: float64 [m], shares of the dirty pages that still waited at the ends of the periods.
        counts: bool [m], which of them are measurements.
        chunks: as in `SyncHistory`.
        first_weights, first_shares: float64 [c], as in `SyncHistory.first_pass`.
    """

    spans: FloatArray
    left: FloatArray
    counts: NDArray[np.bool_]
    chunks: int
    first_weights: FloatArray
    first_shares: FloatArray

    def _share_and_slope(
        self, rates: FloatArray, sequential: NDArray[np.bool_], drift: FloatArray | float
    ) -> tuple[FloatArray, FloatArray]:
        """Return both at the mean speed: the lengths of the periods differ, so few end at a bend."""
        share = self._found(rates, sequential)
        return share, (self._found(rates * (1 + SMALL), sequential) - share) / SMALL

    def _found(self, rates: FloatArray, sequential: NDArray[np.bool_]) -> FloatArray:
        """Return the share of a writer's pages that each counting sync finds, [..., n]."""
        writes, sequential = rates[..., None] * self.spans, sequential[..., None]
        written = share_written(writes, sequential)
        watched = share_watched(writes, sequential, self.chunks)
        first = share_written(writes[..., :1] * self.first_shares, sequential)
        watched[..., 0] = first @ self.first_weights
        written[..., 0] = watched[..., 0]
        # Pages that were dirty after the sync before: all before the first one.
        dirty = np.ones_like(written)
        dirty[..., 1:] = written[..., :-1]
        before = np.ones_like(written)
        before[..., 1:] = written[..., :-1]
        dirty[..., 1:] += (self.left * before * (1 - written))[..., :-1]
        # A sequential writer comes back to such a page only after its whole round.
        rewritten = np.where(sequential, np.maximum(dirty + written - 1, 0), dirty * written)
        seen = (1 - self.left) * watched / np.maximum(written, TINY)
        found: FloatArray = written - rewritten * (1 - np.minimum(seen, 1))
        return found[..., self.counts]


def share_watched(
    writes: FloatArray, sequential: NDArray[np.bool_] | bool, chunks: int
) -> FloatArray:
    """Return the share of pages that are seen to be written after their chunk was cleared.

    Args:
        writes: writes per page in the whole period.
        sequential: whether the writer is sequential.
        chunks: chunks that are cleared at even distances over the period. The first one is cleared
            at its start.
    """
    if chunks == 1:
        return share_written(writes, sequential)
    part = np.maximum(writes / chunks, TINY)
    random = 1 - np.exp(-part) * np.expm1(-writes) / np.expm1(-part) / chunks
    partly = np.minimum(np.floor(1 / part), chunks)  # chunks that are written only in part
    share = (part * partly * (partly + 1) / 2 + chunks - partly) / chunks
    return np.asarray(np.where(sequential, share, random), dtype=np.float64)


def _sync_evidence(profile: Profile, history: SyncHistory) -> SyncEvidence:
    periods = history.periods
    counting = [one for one in periods if one.counts]
    busy = max(profile.utilisation, default=1.0)
    pages = np.array([one.pages for one in counting], dtype=np.float64)
    not_zero = profile.pages * (1 - profile.zero_share)
    seconds = np.array([_worked_s(one, busy) for one in counting])
    weights, shares = np.array(history.first_pass).T
    return SyncEvidence(
        seconds=seconds,
        low=np.where(pages < 0.5, -np.inf, pages - 0.5),
        high=pages + 0.5,
        pages=float(profile.pages),
        sampled=float(profile.pages),
        most=max(not_zero, float(pages.max(initial=0)), 1.0),
        timing=np.array([one.deviation_s / one.seconds for one in counting]),
        spans=np.array([_worked_s(one, busy) for one in periods]),
        left=np.array([one.left for one in periods]),
        counts=np.array([one.counts for one in periods]),
        chunks=history.chunks,
        first_weights=weights,
        first_shares=shares,
    )


def _worked_s(period: SyncPeriod, busy: float) -> float:
    """Return the unthrottled time in which vCPUs do the work of a period.

    Idle vCPUs catch up: a throttle slows them only if it leaves them less time than they need.
    """
    return period.seconds * max(min(1.0, period.running / max(busy, LEAST_BUSY)), LEAST_BUSY)


def evidence_of(profile: Profile) -> Evidence:
    """Return the evidence of a profile."""
    if profile.history is not None:
        return _sync_evidence(profile, profile.history)
    # QEMU's rates are whole numbers.
    is_rounded = not any(one.dirty_rate % 1 for one in profile.measurements)
    edges = np.array([_edges(profile, one, is_rounded) for one in profile.measurements])
    edges = edges.reshape(-1, 2)
    not_zero = profile.pages * (1 - profile.zero_share)
    # A dirty ring counts a page again and again, so its counts are no lower limit of the pages.
    counts_once = profile.mode != "dirty-ring"
    most = max(not_zero, float(edges[:, 0].max(initial=0)) if counts_once else 0.0, 1.0)
    return Evidence(
        seconds=np.array([one.seconds * one.running for one in profile.measurements]),
        low=np.where(edges[:, 0] <= 0, -np.inf, edges[:, 0]),
        high=edges[:, 1],
        pages=float(profile.pages),
        sampled=float(max(profile.sampled, 1)),
        most=most,
        reaped_s=np.inf if counts_once else REAPED_S,
    )


def _edges(profile: Profile, one: Measurement, is_rounded: bool) -> tuple[float, float]:
    """Return the interval of counts that give a rate, wider by half a count, in pages of the VM."""
    # How many counts one MiB per second means.
    counts_per_rate = profile.sampled / profile.memory_bytes * MIB * one.seconds
    step = profile.pages / max(profile.sampled, 1)
    if not is_rounded:
        count = one.dirty_rate * counts_per_rate
        return (count - 0.5) * step, (count + 0.5) * step
    rates = profile.vcpus if profile.mode == "dirty-ring" else 1  # each was rounded
    low = np.ceil(one.dirty_rate * counts_per_rate - 1e-9)
    high = max(np.ceil((one.dirty_rate + rates) * counts_per_rate - 1e-9), low + 1)
    return (low - 0.5) * step, (high - 0.5) * step
