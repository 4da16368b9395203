"""Draw a quantity for each member so that all members together cover its range evenly.

With few members, independent draws leave gaps and the edges of a band are random. So each member
draws inside its own stratum, and a quantity's order of strata is independent of those of others.

Source: McKay, Beckman and Conover, Technometrics 21, 1979 (Latin hypercube sampling).
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import lru_cache

ORDERS = 256  # kept in memory: one for each quantity of a few predictions


@dataclass(frozen=True, kw_only=True)
class Strata:
    """The strata of one member.

    Attributes:
        seed: of the prediction.
        place: of the member, from 0.
        count: members of the prediction. One: each draw is uniform and independent.
    """

    seed: int
    place: int = 0
    count: int = 1

    def uniform(self, quantity: str) -> float:
        """Return a number from 0 to 1 for a quantity. The same name gives the same number."""
        inside = random.Random(f"{self.seed} {quantity} {self.place}").random()
        return (_order(self.seed, quantity, self.count)[self.place] + inside) / self.count


@lru_cache(maxsize=ORDERS)
def _order(seed: int, quantity: str, count: int) -> list[int]:
    return random.Random(f"{seed} {quantity}").sample(range(count), count)
