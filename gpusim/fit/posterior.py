"""Samples of the posterior: guests that explain a profile about as well as the best fit.

Each guest is drawn with the probability that it has, given the measurements. The prior is even over
kinds and over the logarithms of sizes, rates and drift. So a slow writer has any size between the
pages that were seen and all memory that is not zero. If both kinds explain a writer, then both are
drawn. Every count lies anywhere inside its rounding interval.

A bootstrap would draw the measurements again and fit each draw. If a bootstrap works, then it
spreads as much (tests/fit/test_writers.py). But a rounded rate repeats the same value, and a fit
gives only one of many guests.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gpusim.fit.estimates import Fit, FloatArray
from gpusim.fit.evidence import FASTEST, SLOWEST, Evidence, Mixture, evidence_of
from gpusim.formats.profile import Profile

CHAINS = 60  # at least, and each gives one guest
STEPS = 1000  # 700 and 6000 steps give the same bands
HIDDEN = 1  # writers in addition to the best fit, which may hide behind its writers
LEAST_SHARE = (
    1e-6  # of the writable pages, for the smallest writer. Most hidden writers are nothing
)
LEAST_PAGES = 16  # a writer that dirties fewer in the longest period is left out of the result
DRIFTS = (0.02, 0.5)  # lowest and highest
SPREAD = 0.05  # of the first guests around the best fit
JITTER = 0.01
LEAP, FLIP = 10, 4  # one of LEAP steps moves between modes, one of FLIP changes a writer's kind
FLIP_SPREAD = 0.5  # of the logarithm of the rate, when the kind changes


def sample_fits(profile: Profile, fit: Fit, count: int, seed: int) -> list[Fit]:
    """Return fits drawn from the posterior, without warnings.

    Uses differential evolution: at least as many chains as fits. Each chain is a Metropolis walk
    whose steps are differences of two other chains.

    Source: ter Braak, Statistics and Computing 16, 2006.

    Args:
        profile: the measurements.
        fit: the best fit, near which the chains start.
        count: how many fits.
        seed: the same seed gives the same fits.
    """
    if not profile.measurements:
        return [fit] * count
    walk = _Walk(evidence_of(profile), fit, max(count, CHAINS), np.random.default_rng(seed))
    for step in range(STEPS):
        walk.step(leap=step % LEAP == 0, flip=step % FLIP == 0)
    return [walk.fit(chain) for chain in range(count)]


@dataclass
class _State:
    """c chains: logarithms [c, 2 k + 1] of k sizes, k rates and the drift, and kinds [c, k]."""

    logs: FloatArray
    sequential: NDArray[np.bool_]

    def writers(self) -> Mixture:
        k = self.sequential.shape[1]
        pages, rates = np.exp(self.logs[:, :k]), np.exp(self.logs[:, k : 2 * k])
        return Mixture(pages=pages, rates=rates, sequential=self.sequential)

    def copy_of(self, chains: NDArray[np.int64]) -> _State:
        return _State(self.logs[chains].copy(), self.sequential[chains].copy())


class _Walk:
    """All chains, and the bounds of a guest."""

    def __init__(self, evidence: Evidence, fit: Fit, chains: int, rng: np.random.Generator) -> None:
        self.evidence, self.rng = evidence, rng
        k = len(fit.writers) + HIDDEN
        shortest, longest = evidence.seconds.min(), evidence.seconds.max()
        self.low = np.log([LEAST_SHARE * evidence.most] * k + [SLOWEST / longest] * k + [DRIFTS[0]])
        self.high = np.log([evidence.most] * k + [FASTEST / shortest] * k + [DRIFTS[1]])
        self.state = self._start(fit, k, chains)
        self.log_likelihood = self._log_likelihood(self.state)

    def _start(self, fit: Fit, k: int, chains: int) -> _State:
        """Start around the best fit. Hidden writers have the least size."""
        known = len(fit.writers)
        logs = self.rng.uniform(self.low, self.high, (chains, 2 * k + 1))
        logs[:, :k] = self.low[:k]
        logs[:, :known] = np.log([one.pages for one in fit.writers])
        logs[:, k : k + known] = np.log([one.rate for one in fit.writers])
        logs[:, -1] = np.log(fit.drift)
        sequential = self.rng.random((chains, k)) < 0.5
        sequential[:, :known] = [one.kind == "sequential" for one in fit.writers]
        logs = np.clip(logs - SPREAD * self.rng.random(logs.shape), self.low, self.high)
        over = np.log(self.evidence.most / np.exp(logs[:, :k]).sum(axis=1, keepdims=True))
        logs[:, :k] += np.minimum(over - 1e-9, 0)
        return _State(np.maximum(logs, self.low), sequential)

    def _log_likelihood(self, state: _State) -> FloatArray:
        """Return the log probability of each chain, [c]. Minus infinity: outside the bounds."""
        writers = state.writers()
        allowed = ((state.logs >= self.low) & (state.logs <= self.high)).all(axis=1)
        allowed &= writers.pages.sum(axis=1) <= self.evidence.most * (1 + 1e-5)
        log_likelihood = self.evidence.log_likelihood(writers, np.exp(state.logs[:, -1]))
        return np.where(allowed, log_likelihood, -np.inf)

    def step(self, *, leap: bool, flip: bool) -> None:
        """Move each half of the chains by differences within the other half."""
        halves = np.array_split(self.rng.permutation(len(self.state.logs)), 2)
        for own, others in (halves, halves[::-1]):
            after = self.state.copy_of(own)
            if flip:
                self._flip(after)
            else:
                self._move(after, others, leap)
            likelihood = self._log_likelihood(after)
            taken = np.log(self.rng.random(len(own))) < likelihood - self.log_likelihood[own]
            moved = own[taken]
            self.state.logs[moved] = after.logs[taken]
            self.state.sequential[moved] = after.sequential[taken]
            self.log_likelihood[moved] = likelihood[taken]

    def _move(self, state: _State, others: NDArray[np.int64], leap: bool) -> None:
        """Move by the difference of two other chains, in the directions in which they spread."""
        chains, size = state.logs.shape
        first = self.rng.integers(0, len(others), chains)
        second = (first + self.rng.integers(1, len(others), chains)) % len(others)
        difference = self.state.logs[others[first]] - self.state.logs[others[second]]
        scale = 1.0 if leap else 2.38 / np.sqrt(2 * size)
        state.logs += scale * difference + JITTER * self.rng.standard_normal(state.logs.shape)

    def _flip(self, state: _State) -> None:
        """Change the kind of one writer, and its rate."""
        chains, k = state.sequential.shape
        every, one = np.arange(chains), self.rng.integers(0, k, chains)
        state.sequential[every, one] ^= True
        state.logs[every, k + one] += FLIP_SPREAD * self.rng.standard_normal(chains)

    def fit(self, chain: int) -> Fit:
        """Return the present guest of a chain, without negligible writers."""
        writers = self.state.copy_of(np.array([chain])).writers()
        longest = self.evidence.share_found(writers.rates[0], writers.sequential[0]).max(axis=-1)
        kept = writers.pages[0] * longest > LEAST_PAGES
        mixture = Mixture(
            pages=writers.pages[0, kept],
            rates=writers.rates[0, kept],
            sequential=writers.sequential[0, kept],
        )
        return self.evidence.fit(mixture, float(np.exp(self.state.logs[chain, -1])))
