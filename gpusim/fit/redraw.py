"""Guests that explain a profile about as well as the best one: what measurements do not tell, spread.

Each guest is drawn with the probability that it has given the measurements, all else equally likely: kinds,
logarithms of sizes, rates and of the drift. So slow pools have any size between what was seen of them and all
memory that is not zero, a writer is random or sequential where both explain it, and every count lies anywhere
inside its rounding.

A bootstrap would draw the samples anew and fit each draw. Where it can, it spreads as much (tests/predict/
test_fit.py); but a rounded rate comes out the same again and again, and one fit takes one of many guests.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gpusim.fit.estimates import Fit, FloatArray
from gpusim.fit.evidence import FASTEST, SLOWEST, Evidence, Mixture, evidence
from gpusim.formats.profile import Profile

CHAINS = 60  # at least; each gives one guest
STEPS = 1000  # bands of 700 and of 6000 steps are the same
UNSEEN = 1  # writers besides those of the best fit, for what hides behind them
LEAST_SHARE = 1e-6  # of what can be written, of the smallest writer; most of the unseen are nothing
LEAST_TOLD = (
    16  # pages; a writer that dirties fewer in the longest period is left out of what is told
)
DRIFTS = (0.02, 0.5)  # no guest is taken to be steadier
SPREAD = 0.05  # of the first guests about the best one
JITTER = 0.01
LEAP, FLIP = 10, 4  # of so many steps one goes from mode to mode, and one changes a writer's kind
FLIPPED = 0.5  # how far its rate goes with it


def resampled(profile: Profile, fit: Fit, count: int, seed: int) -> list[Fit]:
    """Fits as probable as their writers are, without doubts.

    Differential evolution: as many chains as fits, or more, each a Metropolis walk whose steps are
    differences of two others (ter Braak, Statistics and Computing 16, 2006).

    Args:
        fit: the best one.
    """
    walk = _Walk(evidence(profile), fit, max(count, CHAINS), np.random.default_rng(seed))
    for step in range(STEPS):
        walk.step(leap=step % LEAP == 0, flip=step % FLIP == 0)
    return [walk.fit(chain) for chain in range(count)]


@dataclass
class _State:
    """Chains: logarithms [c, 2 k + 1] of k sizes, k rates and the drift; kinds [c, k]."""

    logs: FloatArray
    sequential: NDArray[np.bool_]

    def writers(self) -> Mixture:
        k = self.sequential.shape[1]
        pages, rates = np.exp(self.logs[:, :k]), np.exp(self.logs[:, k : 2 * k])
        return Mixture(pages=pages, rates=rates, sequential=self.sequential)

    def of(self, chains: NDArray[np.int64]) -> _State:
        return _State(self.logs[chains].copy(), self.sequential[chains].copy())


class _Walk:
    """All chains, and what a guest may be."""

    def __init__(self, seen: Evidence, fit: Fit, chains: int, rng: np.random.Generator) -> None:
        self.seen, self.rng = seen, rng
        k = len(fit.writers) + UNSEEN
        shortest, longest = seen.seconds.min(), seen.seconds.max()
        self.low = np.log([LEAST_SHARE * seen.most] * k + [SLOWEST / longest] * k + [DRIFTS[0]])
        self.high = np.log([seen.most] * k + [FASTEST / shortest] * k + [DRIFTS[1]])
        self.state = self._start(fit, k, chains)
        self.log_likelihood = self._judged(self.state)

    def _start(self, fit: Fit, k: int, chains: int) -> _State:
        """About the best fit, with further writers of the least size."""
        known = len(fit.writers)
        logs = self.rng.uniform(self.low, self.high, (chains, 2 * k + 1))
        logs[:, :k] = self.low[:k]
        logs[:, :known] = np.log([one.pages for one in fit.writers])
        logs[:, k : k + known] = np.log([one.rate for one in fit.writers])
        logs[:, -1] = np.log(fit.drift)
        sequential = self.rng.random((chains, k)) < 0.5
        sequential[:, :known] = [one.kind == "sequential" for one in fit.writers]
        logs = np.clip(logs - SPREAD * self.rng.random(logs.shape), self.low, self.high)
        over = np.log(self.seen.most / np.exp(logs[:, :k]).sum(axis=1, keepdims=True))
        logs[:, :k] += np.minimum(over - 1e-9, 0)
        return _State(np.maximum(logs, self.low), sequential)

    def _judged(self, state: _State) -> FloatArray:
        """[c] log probability; minus infinity for a guest that cannot be."""
        writers = state.writers()
        allowed = ((state.logs >= self.low) & (state.logs <= self.high)).all(axis=1)
        allowed &= writers.pages.sum(axis=1) <= self.seen.most * (1 + 1e-5)
        found = self.seen.log_likelihood(writers, np.exp(state.logs[:, -1]))
        return np.where(allowed, found, -np.inf)

    def step(self, *, leap: bool, flip: bool) -> None:
        """Each half of the chains by differences within the other."""
        halves = np.array_split(self.rng.permutation(len(self.state.logs)), 2)
        for own, others in (halves, halves[::-1]):
            before = self.state.of(own)
            after = self.state.of(own)
            if flip:
                self._flip(after)
            else:
                self._move(after, others, leap)
            likelihood = self._judged(after)
            gained = likelihood - self.log_likelihood[own]
            taken = np.log(self.rng.random(len(own))) < gained
            after.logs[~taken], after.sequential[~taken] = (
                before.logs[~taken],
                before.sequential[~taken],
            )
            self.state.logs[own], self.state.sequential[own] = after.logs, after.sequential
            self.log_likelihood[own] = np.where(taken, likelihood, self.log_likelihood[own])

    def _move(self, state: _State, others: NDArray[np.int64], leap: bool) -> None:
        """By the difference of two other chains: in all directions that they have spread in."""
        chains, size = state.logs.shape
        first = self.rng.integers(0, len(others), chains)
        second = (first + self.rng.integers(1, len(others), chains)) % len(others)
        difference = self.state.logs[others[first]] - self.state.logs[others[second]]
        scale = 1.0 if leap else 2.38 / np.sqrt(2 * size)
        state.logs += scale * difference + JITTER * self.rng.standard_normal(state.logs.shape)

    def _flip(self, state: _State) -> None:
        """The other kind for one of the writers, at another rate."""
        chains, k = state.sequential.shape
        every, one = np.arange(chains), self.rng.integers(0, k, chains)
        state.sequential[every, one] ^= True
        state.logs[every, k + one] += FLIPPED * self.rng.standard_normal(chains)

    def fit(self, chain: int) -> Fit:
        """Where a chain stands, without writers that matter to nobody."""
        writers = self.state.of(np.array([chain])).writers()
        longest = self.seen.reached(writers.rates[0], writers.sequential[0]).max(axis=-1)
        seen = writers.pages[0] * longest > LEAST_TOLD
        kept = Mixture(
            pages=writers.pages[0, seen],
            rates=writers.rates[0, seen],
            sequential=writers.sequential[0, seen],
        )
        return self.seen.fit(kept, float(np.exp(self.state.logs[chain, -1])))
