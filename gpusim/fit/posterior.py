"""Samples of the posterior: guests that explain a profile about as well as the best fit.

Each guest is drawn with the probability that it has, given the measurements. The prior is even over
kinds and over the logarithms of sizes, rates and drift. So a slow writer has any size between the
pages that were seen and all memory that is not zero. If both kinds explain a writer, then both are
drawn. Every count lies anywhere inside its rounding interval.

Few random pages and many sequential ones may explain a profile alike, with no likely guest between
them. A walk that starts at the best fit would not find the others. So the guests start anywhere in
the prior, and the measurements gain weight step by step until they count in full.

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

CHAINS = 120  # at least, and each gives one guest at most
STEPS, WARM_STEPS = 400, 12  # when the measurements count in full, and at each lower weight
KEPT = 0.7  # of the guests, at each higher weight, as an effective number
SHRINK = 0.8  # the rise of the weight, until it is small enough
HIDDEN = 1  # writers in addition to the best fit, which may hide behind its writers
LEAST_SHARE = (
    1e-6  # of the writable pages, for the smallest writer. Most hidden writers are nothing
)
LEAST_PAGES = 16  # a writer that dirties fewer in the longest period is left out of the result
DRIFTS = (0.02, 0.5)  # lowest and highest
JITTER = 0.01
LEAP = 10  # one of these steps moves between modes
FLIP, RESIZE = (1, 5), (3, 7)  # steps of eight that change the kind or the size of one writer
FLIP_SPREAD = 0.5  # of the logarithm of the rate, when the kind changes
RESIZE_SPREAD = 0.1  # of the logarithm of the speed, when the size changes


def sample_fits(profile: Profile, fit: Fit, count: int, seed: int) -> list[Fit]:
    """Return fits drawn from the posterior, without warnings.

    Uses differential evolution: at least as many chains as fits. Each chain is a Metropolis walk
    whose steps are differences of two other chains. Before that, the weight of the measurements
    rises from none to full. At each higher weight the guests are drawn again by their likelihood.

    Sources: ter Braak, Statistics and Computing 16, 2006. Del Moral, Doucet and Jasra, Journal of
    the Royal Statistical Society B 68, 2006.

    Args:
        profile: the measurements.
        fit: the best fit, which tells how many writers there are.
        count: how many fits.
        seed: the same seed gives the same fits.
    """
    if not profile.measurements:
        return [fit] * count
    writers = len(fit.writers) + HIDDEN
    walk = _Walk(evidence_of(profile), writers, max(count, CHAINS), np.random.default_rng(seed))
    while walk.weight < 1:
        walk.raise_weight()
        walk.move(WARM_STEPS)
    walk.move(STEPS)
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
    """All chains, the bounds of a guest of k writers, and the weight of the measurements."""

    def __init__(self, evidence: Evidence, k: int, chains: int, rng: np.random.Generator) -> None:
        self.evidence, self.rng, self.weight = evidence, rng, 0.0
        shortest, longest = evidence.seconds.min(), evidence.seconds.max()
        least = [LEAST_SHARE * evidence.most] * k + [SLOWEST / longest] * k
        most = [evidence.most] * k + [FASTEST / shortest] * k
        self.low = np.log([*least, DRIFTS[0]])
        self.high = np.log([*most, DRIFTS[1]])
        self.state = self._start(k, chains)
        self.log_likelihood = self._log_likelihood(self.state)

    def _start(self, k: int, chains: int) -> _State:
        """Draw from the prior."""
        logs = self.rng.uniform(self.low, self.high, (chains, 2 * k + 1))
        over = np.log(self.evidence.most / np.exp(logs[:, :k]).sum(axis=1, keepdims=True))
        logs[:, :k] += np.minimum(over - 1e-9, 0)
        return _State(np.maximum(logs, self.low), self.rng.random((chains, k)) < 0.5)

    def raise_weight(self) -> None:
        """Raise the weight until KEPT of the guests remain, and draw the guests again by it."""
        relative = self.log_likelihood - self.log_likelihood.max()
        rise = 1 - self.weight
        while (shares := np.exp(rise * relative)).sum() ** 2 < KEPT * len(relative) * (
            np.sum(shares**2)
        ):
            rise *= SHRINK
        self.weight += rise
        places = (np.arange(len(shares)) + self.rng.random()) / len(shares) * shares.sum()
        drawn = np.searchsorted(np.cumsum(shares), places).clip(max=len(shares) - 1)
        drawn = self.rng.permutation(drawn)
        self.state, self.log_likelihood = self.state.copy_of(drawn), self.log_likelihood[drawn]

    def move(self, count: int) -> None:
        """Move all chains a number of times."""
        for step in range(count):
            self._step(step)

    def _log_likelihood(self, state: _State) -> FloatArray:
        """Return the log probability of each chain, [c]. Minus infinity: outside the bounds."""
        writers = state.writers()
        allowed = ((state.logs >= self.low) & (state.logs <= self.high)).all(axis=1)
        allowed &= writers.pages.sum(axis=1) <= self.evidence.most * (1 + 1e-5)
        log_likelihood = self.evidence.log_likelihood(writers, np.exp(state.logs[:, -1]))
        return np.where(allowed, log_likelihood, -np.inf)

    def _step(self, step: int) -> None:
        """Move each half of the chains by differences within the other half."""
        halves = np.array_split(self.rng.permutation(len(self.state.logs)), 2)
        for own, others in (halves, halves[::-1]):
            after = self.state.copy_of(own)
            if step % 8 in FLIP:
                self._flip(after)
            elif step % 8 in RESIZE:
                self._resize(after)
            else:
                self._move(after, others, leap=step % LEAP == 0)
            likelihood = self._log_likelihood(after)
            ratio = self.weight * (likelihood - self.log_likelihood[own])
            taken = np.log(self.rng.random(len(own))) < ratio
            moved = own[taken]
            self.state.logs[moved] = after.logs[taken]
            self.state.sequential[moved] = after.sequential[taken]
            self.log_likelihood[moved] = likelihood[taken]

    def _move(self, state: _State, others: NDArray[np.int64], *, leap: bool) -> None:
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

    def _resize(self, state: _State) -> None:
        """Draw size and kind of one writer from the prior, at about the same writes per second."""
        chains, k = state.sequential.shape
        every, one = np.arange(chains), self.rng.integers(0, k, chains)
        size = self.rng.uniform(self.low[0], self.high[0], chains)
        speed = RESIZE_SPREAD * self.rng.standard_normal(chains)
        state.logs[every, k + one] += state.logs[every, one] - size + speed
        state.logs[every, one] = size
        state.sequential[every, one] ^= self.rng.random(chains) < 0.5

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
