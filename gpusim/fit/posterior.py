"""Samples of the posterior: guests that explain a profile about as well as the best fit.

Each guest is drawn with the probability that it has, given the measurements. The prior is even over
kinds and over the logarithms of sizes, rates, drift, bursts and pauses. So a slow writer has any
size between the pages that were seen and all memory that is not zero. If both kinds explain a
writer, then both are drawn. Every count lies anywhere inside its rounding interval.

Each steady guest has one more writer than the counts need. It writes cold memory that the longest
period did not show, as far as the errors of the counts can hide such a writer.

Guests that write steadily and guests that write in bursts are drawn by the costs of the best of
each. Bursts cost as much as one more writer.

Few random pages and many sequential ones may explain a profile alike, with no likely guest between
them. So the walk starts at the best writers of each number and choice of kinds, by their cost.

A bootstrap would draw the measurements again and fit each draw. If a bootstrap works, then it
spreads as much (tests/fit/test_writers.py). But a rounded rate repeats the same value, and a fit
gives only one of many guests.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from gpusim.fit.bursts import BurstEvidence, BurstState
from gpusim.fit.estimates import Bursts, Candidate, Fit, FloatArray
from gpusim.fit.evidence import FASTEST, SLOWEST, Evidence, Mixture, evidence_of
from gpusim.fit.writers import WORTH, find_candidates
from gpusim.formats.profile import Profile

CHAINS = 60  # at least, and each gives one guest
STEPS = 1000  # 700 and 6000 steps give the same bands
BURST_CHAINS = 48
BURST_ROUNDS, BURST_STEPS = 6, 60  # bursts that explain nothing are dropped after a round
HIDDEN = 1  # writers in addition to the known ones, which may hide behind them
# One more writer has not written all its pages once by the end of the longest period. Its size is
# equally likely in each factor of two, from LEAST_COLD of the writable pages to all of them. No source.
COLD, LEAST_COLD = 1, 0.01
# Of the writable pages, for the smallest writer. Most hidden writers are nothing.
LEAST_SHARE = 1e-6
LEAST_PAGES = 16  # a writer that dirties fewer in the longest period is left out of the result
DRIFTS = (0.02, 0.5)  # lowest and highest
LONGEST_BURST = 2.0  # times the longest period, for bursts and pauses
BURST_DRIFT = 0.05  # of the guest that the walk over bursts starts at
SPREAD = 0.05  # of the first guests around the known writers
JITTER = 0.01
LEAP, FLIP = 10, 4  # one of LEAP steps moves between modes, one of FLIP changes a writer's kind
# One of RESIZE steps draws the size of a writer anew, at about the same writes per second.
RESIZE = 8
RESIZE_SPREAD = 0.1  # of the logarithm of the writes per second, when the size changes
FLIP_SPREAD = 0.5  # of the logarithm of the rate, when the kind changes
UNLIKELY = 9.0  # more cost than the best guest: one in a hundred


def sample_fits(profile: Profile, fit: Fit, count: int, seed: int) -> list[Fit]:
    """Return fits drawn from the posterior, without warnings.

    Uses differential evolution: at least as many chains as fits. Each chain is a Metropolis walk
    whose steps are differences of two other chains.

    Source: ter Braak, Statistics and Computing 16, 2006.

    Args:
        profile: the measurements.
        fit: the best fit, and the candidates at which the chains start.
        count: how many fits.
        seed: the same seed gives the same fits.
    """
    if not profile.measurements:
        return [fit] * count
    evidence, rng = evidence_of(profile), np.random.default_rng(seed)
    known = fit.candidates or (Candidate(writers=fit.writers, drift=fit.drift, cost=0.0),)
    walk = _Walk(_Steady(evidence), known, max(count, CHAINS), rng)
    walk.move(STEPS)
    in_bursts = _walk_over_bursts(profile, walk, count)
    fits = [walk.fit(chain) for chain in range(count)]
    if in_bursts is not None:
        odds = np.exp(np.clip((in_bursts.cost - walk.cost) / 2, -50, 50))
        for chain in range(rng.binomial(count, 1 / (1 + odds))):
            fits[chain] = in_bursts.fit(chain)
    return [fits[place] for place in rng.permutation(count)]


def _walk_over_bursts(profile: Profile, steady: _Walk, count: int) -> _Walk | None:
    """Return the guests that write in bursts. None: they explain the profile far worse.

    An earlier migration and a dirty ring are not tried, because they count pages over again.
    """
    evidence = steady.evidence
    if profile.history is not None or not np.isinf(evidence.reaped_s):
        return None
    known = find_candidates(_busiest(evidence), drifts=(BURST_DRIFT,))
    walk = _Walk(_InBursts(evidence, profile), known, max(count, BURST_CHAINS), steady.rng)
    for _ in range(BURST_ROUNDS):
        walk.move(BURST_STEPS)
        if walk.cost > steady.cost + UNLIKELY:
            return None
    return walk


def _busiest(evidence: Evidence) -> Evidence:
    """Return the largest count of each period: a guest in bursts was then busy most of the time."""
    middle = evidence.middle
    order = np.lexsort((-middle, evidence.seconds))
    _, first = np.unique(evidence.seconds[order], return_index=True)
    kept = order[first]
    return replace(
        evidence,
        seconds=evidence.seconds[kept],
        low=evidence.low[kept],
        high=evidence.high[kept],
    )


@dataclass
class _State:
    """c chains, of guests with k writers.

    Attributes:
        logs: float64 [c, 2 k + 1 or more], logarithms of sizes, rates and drift, and of the lengths
            of bursts and pauses.
        sequential, gated: bool [c, k], kinds, and whether the writers work in bursts.
    """

    logs: FloatArray
    sequential: NDArray[np.bool_]
    gated: NDArray[np.bool_]

    @property
    def drift(self) -> FloatArray:
        return np.exp(self.logs[:, 2 * self.sequential.shape[1]])

    def writers(self) -> Mixture:
        k = self.sequential.shape[1]
        pages, rates = np.exp(self.logs[:, :k]), np.exp(self.logs[:, k : 2 * k])
        return Mixture(pages=pages, rates=rates, sequential=self.sequential)

    def bursts(self) -> BurstState:
        on_s, off_s = np.exp(self.logs[:, -2:]).T
        return BurstState(gated=self.gated, on_s=on_s, off_s=off_s)

    def copy_of(self, chains: NDArray[np.int64]) -> _State:
        return _State(
            self.logs[chains].copy(), self.sequential[chains].copy(), self.gated[chains].copy()
        )


class _Target(Protocol):
    """What a walk samples.

    Attributes:
        evidence: the measurements.
        burst_s: shortest and longest burst or pause. None: the guests write steadily.
    """

    evidence: Evidence
    burst_s: tuple[float, float] | None

    def log_likelihood(self, state: _State) -> FloatArray:
        """Return the log probability of the measurements, [c]."""


class _Steady:
    """Guests that write all the time."""

    def __init__(self, evidence: Evidence) -> None:
        self.evidence = evidence
        self.burst_s: tuple[float, float] | None = None

    def log_likelihood(self, state: _State) -> FloatArray:
        return self.evidence.log_likelihood(state.writers(), state.drift)


class _InBursts:
    """Guests of which some writers work in bursts."""

    def __init__(self, evidence: Evidence, profile: Profile) -> None:
        self.evidence = evidence
        self._bursts = BurstEvidence(evidence, profile)
        shortest, longest = float(evidence.seconds.min()), float(evidence.seconds.max())
        self.burst_s: tuple[float, float] | None = (shortest, LONGEST_BURST * longest)

    def log_likelihood(self, state: _State) -> FloatArray:
        return self._bursts.log_likelihood(state.writers(), state.drift, state.bursts())


class _Walk:
    """All chains, and the bounds of a guest."""

    def __init__(
        self,
        target: _Target,
        known: Sequence[Candidate],
        chains: int,
        rng: np.random.Generator,
    ) -> None:
        self.target, self.evidence, self.rng = target, target.evidence, rng
        costs = np.array([one.cost for one in known])
        weights = np.exp((costs.min() - costs) / 2)
        starts = [known[place] for place in _systematic(weights, chains, rng)]
        cold = COLD if target.burst_s is None else 0
        k = max(len(one.writers) for one in starts) + HIDDEN + cold
        self._fewest = len(min(known, key=lambda one: one.cost).writers)
        evidence = self.evidence
        shortest, longest = evidence.seconds.min(), evidence.seconds.max()
        sizes = [LEAST_SHARE * evidence.most] * (k - cold) + [LEAST_COLD * evidence.most] * cold
        fastest = [FASTEST / shortest] * (k - cold) + [1 / longest] * cold
        least = [*sizes, *[SLOWEST / longest] * k, DRIFTS[0]]
        most = [*[evidence.most] * k, *fastest, DRIFTS[1]]
        if target.burst_s is not None:
            least += [target.burst_s[0]] * 2
            most += [target.burst_s[1]] * 2
        self.low, self.high = np.log(least), np.log(most)
        self.state = self._start(starts, k)
        self.log_likelihood = self._log_likelihood(self.state)

    def _start(self, starts: Sequence[Candidate], k: int) -> _State:
        """Start around the known writers. Hidden writers have the least size."""
        logs = self.rng.uniform(self.low, self.high, (len(starts), len(self.low)))
        sequential = self.rng.random((len(starts), k)) < 0.5
        gated = np.ones_like(sequential)
        logs[:, :k] = self.low[:k]
        for own, kinds, one in zip(logs, sequential, starts, strict=True):
            known = len(one.writers)
            own[:known] = np.log([writer.pages for writer in one.writers])
            own[k : k + known] = np.log([writer.rate for writer in one.writers])
            own[2 * k] = np.log(one.drift)
            kinds[:known] = [writer.kind == "sequential" for writer in one.writers]
        free = logs[:, 2 * k + 1 :].copy()
        logs = np.clip(logs - SPREAD * self.rng.random(logs.shape), self.low, self.high)
        logs[:, 2 * k + 1 :] = free
        least = np.exp(self.low[:k])
        above = np.exp(logs[:, :k]) - least
        room = self.evidence.most - least.sum()
        above *= np.minimum(1, room / np.maximum(above.sum(axis=1, keepdims=True), LEAST_PAGES))
        logs[:, :k] = np.log(least + above)
        return _State(np.maximum(logs, self.low), sequential, gated)

    def _log_likelihood(self, state: _State) -> FloatArray:
        """Return the log probability of each chain, [c]. Minus infinity: outside the bounds."""
        writers = state.writers()
        allowed = ((state.logs >= self.low) & (state.logs <= self.high)).all(axis=1)
        allowed &= writers.pages.sum(axis=1) <= self.evidence.most * (1 + 1e-5)
        return np.where(allowed, self.target.log_likelihood(state), -np.inf)

    def move(self, count: int) -> None:
        """Move all chains a number of times."""
        for step in range(count):
            self._step(step)

    def _step(self, step: int) -> None:
        """Move each half of the chains by differences within the other half."""
        halves = np.array_split(self.rng.permutation(len(self.state.logs)), 2)
        for own, others in (halves, halves[::-1]):
            after = self.state.copy_of(own)
            if step % FLIP == 0:
                self._flip(after)
            elif step % RESIZE == 1 and self.target.burst_s is None:
                self._resize(after)
            else:
                self._move(after, others, leap=step % LEAP == 0)
            likelihood = self._log_likelihood(after)
            taken = np.log(self.rng.random(len(own))) < likelihood - self.log_likelihood[own]
            moved = own[taken]
            self.state.logs[moved] = after.logs[taken]
            self.state.sequential[moved] = after.sequential[taken]
            self.state.gated[moved] = after.gated[taken]
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
        """Change the kind of one writer and its rate, or whether it works in bursts."""
        chains, k = state.sequential.shape
        every, one = np.arange(chains), self.rng.integers(0, k, chains)
        if self.target.burst_s is not None and self.rng.random() < 0.5:
            state.gated[every, one] ^= True
            return
        state.sequential[every, one] ^= True
        state.logs[every, k + one] += FLIP_SPREAD * self.rng.standard_normal(chains)

    def _resize(self, state: _State) -> None:
        """Draw size and kind of one writer from the prior, at about the same writes per second."""
        chains, k = state.sequential.shape
        every, one = np.arange(chains), self.rng.integers(0, k, chains)
        size = self.rng.uniform(self.low[one], self.high[one])
        speed = RESIZE_SPREAD * self.rng.standard_normal(chains)
        state.logs[every, k + one] += state.logs[every, one] - size + speed
        state.logs[every, one] = size
        state.sequential[every, one] ^= self.rng.random(chains) < 0.5

    @property
    def cost(self) -> float:
        """Return the cost of the best guest. Bursts cost as much as one more writer."""
        bursts = int(self.target.burst_s is not None)
        return float(-2 * self.log_likelihood.max()) + WORTH * (self._fewest + bursts)

    def fit(self, chain: int) -> Fit:
        """Return the present guest of a chain, without negligible writers."""
        state = self.state.copy_of(np.array([chain]))
        writers = state.writers()
        longest = self.evidence.share_found(writers.rates[0], writers.sequential[0]).max(axis=-1)
        kept = np.flatnonzero(writers.pages[0] * longest > LEAST_PAGES)
        kept = kept[np.argsort(-writers.rates[0, kept])]
        mixture = Mixture(
            pages=writers.pages[0, kept],
            rates=writers.rates[0, kept],
            sequential=writers.sequential[0, kept],
        )
        fit = self.evidence.fit(mixture, float(state.drift[0]))
        if self.target.burst_s is None or not state.gated[0, kept].any():
            return fit
        bursts = state.bursts()
        writers_in_bursts = tuple(
            replace(one, in_bursts=bool(gated))
            for one, gated in zip(fit.writers, state.gated[0, kept], strict=True)
        )
        lengths = Bursts(on_s=float(bursts.on_s[0]), off_s=float(bursts.off_s[0]))
        return replace(fit, writers=writers_in_bursts, bursts=lengths)


def _systematic(weights: FloatArray, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return places drawn by their weights, each as often as its weight says or once more."""
    places = (np.arange(count) + rng.random()) / count * weights.sum()
    found: NDArray[np.int64] = np.searchsorted(np.cumsum(weights), places)
    return found.clip(max=len(weights) - 1)
