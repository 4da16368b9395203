"""Random numbers of a run: each thing that is drawn has a stream of its own.

A stream is a Philox generator. Its key is the seed of the run and a second number, which this module
alone makes. Second numbers below 2^63 belong to the draws of written pages (pages/draw.py). The
others name a writer and a purpose. So no two streams of a run have the same key.
"""

from __future__ import annotations

import enum
import math

import numpy as np

from gpusim.layout import FloatArray, IntArray, U64Array

FIRST_KEY = 2**63  # of the streams that name a writer and a purpose
WRITER_SHIFT = 8
MOST_DRAWS = 2**61


@enum.unique
class Purpose(enum.IntEnum):
    """What a stream draws: below 2^WRITER_SHIFT. Parts of the VM and of QEMU draw as writer 0."""

    PLACEMENT = 0
    ZERO_PAGES = 1  # of the VM
    SWEEP_PHASE = 2
    CYCLE_PHASE = 3
    CYCLE_LENGTHS = 4
    DRIFT_PHASE = 5
    HEAT = 6
    ROUNDS = 7
    REAPER_PHASE = 8  # the thread that empties dirty rings
    MUTEX_WINS = 9  # a fallback sync that waits for the bitmap's mutex
    THROTTLE_LATENCY = 10  # the throttle's tick
    SYNC_TIMER_LATENCY = 11  # the fallback sync's timer


@enum.unique
class Drawn(enum.IntEnum):
    """What a draw of written pages draws. The value is the first of its 2 * MOST_DRAWS second numbers."""

    COUNTS = 0
    GROUPS = 2**62


class Stream:
    """A stream of numbers. numpy never changes the raw numbers of a bit generator (NEP 19).

    Args:
        seed: the run's seed.
        writer: number of the writer in its workload, from 0.
        purpose: what the numbers decide.

    Attributes:
        bits: the bit generator.
    """

    def __init__(self, seed: int, writer: int, purpose: Purpose) -> None:
        self._key = key_of(seed, writer, purpose)
        self.bits = np.random.Philox(key=self._key)

    def raw(self, count: int) -> U64Array:
        """Return whole numbers, uint64 [count]."""
        return np.asarray(self.bits.random_raw(count), np.uint64)

    def block(self, number: int, count: int) -> U64Array:
        """Return whole numbers that depend on a number alone, uint64 [count]."""
        random = np.random.Philox(key=self._key, counter=np.array([0, number + 1, 0, 0], np.uint64))
        return np.asarray(random.random_raw(count), np.uint64)

    def uniform(self, count: int) -> FloatArray:
        """Return numbers 0 <= x < 1, float64 [count]."""
        return np.asarray((self.raw(count) >> np.uint64(11)) * 2.0**-53)

    def exponential(self, count: int) -> FloatArray:
        """Return numbers of mean 1, float64 [count]."""
        return np.asarray(-np.log1p(-self.uniform(count)))

    def geometric(self, chance: float) -> int:
        """Return how many tries there are up to the first that succeeds, from 1.

        Args:
            chance: of one try, 0 < chance <= 1.
        """
        if chance >= 1:
            return 1
        return 1 + int(self.exponential(1)[0] / -math.log1p(-chance))


def key_of(seed: int, writer: int, purpose: Purpose) -> U64Array:
    """Return the key of a writer's stream, uint64 [2]."""
    return np.array([seed, FIRST_KEY + (writer << WRITER_SHIFT) + purpose], np.uint64)


def key_of_draw(seed: int, drawn: Drawn, draw: int, step: int) -> U64Array:
    """Return the key of a step of a draw of written pages, uint64 [2].

    Args:
        seed: the run's seed.
        drawn: what is drawn.
        draw: number of the draw, below MOST_DRAWS.
        step: 0 or 1.
    """
    return np.array([seed, drawn + 2 * draw + step], np.uint64)


def draw_generator(seed: int, drawn: Drawn, draw: int, step: int) -> np.random.Generator:
    """Return the generator of `key_of_draw`."""
    return np.random.Generator(np.random.Philox(key=key_of_draw(seed, drawn, draw, step)))


def ranks(numbers: U64Array) -> IntArray:
    """Return the rank of each number, int64 [n]: a permutation of 0 to n - 1."""
    found = np.empty(len(numbers), np.int64)
    found[np.argsort(numbers, kind="stable")] = np.arange(len(numbers))
    return found
