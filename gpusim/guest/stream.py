"""Random numbers of one writer: counter-based streams that the seed, the writer and a purpose name.

They lie beside the streams of `pages/draw.py`, whose second key is below 2^63.
"""

from __future__ import annotations

import enum

import numpy as np

from gpusim.layout import FloatArray, IntArray, U64Array

FIRST_KEY = 2**63
WRITER_SHIFT = 8


class Purpose(enum.IntEnum):
    """What a stream draws. ZERO_PAGES belongs to the VM, and is drawn as if by its writer 0."""

    PLACEMENT = 0
    ZERO_PAGES = 1
    SWEEP_PHASE = 2
    CYCLE_PHASE = 3
    CYCLE_LENGTHS = 4
    DRIFT_PHASE = 5
    HEAT = 6
    ROUNDS = 7


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
        second = FIRST_KEY + (writer << WRITER_SHIFT) + purpose
        self._key = np.array([seed, second], np.uint64)
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


def ranks(numbers: U64Array) -> IntArray:
    """Return the rank of each number, int64 [n]: a permutation of 0 to n - 1."""
    found = np.empty(len(numbers), np.int64)
    found[np.argsort(numbers, kind="stable")] = np.arange(len(numbers))
    return found
