"""How many pages a budget lasts for: the stop rule of a take, the same on every device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from gpusim.layout import IntArray

FOR_EVER = 2**62


class Budget(NamedTuple):
    """A limit, and what a normal and a zero page cost of it; pages are taken while it lasts."""

    limit: int
    normal: int
    zero: int

    def less(self, normal: int, zero: int) -> Budget:
        """What is left after some pages."""
        return self._replace(limit=self.limit - normal * self.normal - zero * self.zero)


class ClearCost(NamedTuple):
    """What a remote clear costs of the last budget of a take: it, and each page that it protects."""

    clear: int
    page: int

    def of(self, protected: IntArray) -> IntArray:
        """The cost of clears that protect so many pages each."""
        return self.clear + self.page * protected


FREE = ClearCost(0, 0)


def fitting(
    normal: IntArray, zero: IntArray, budgets: Sequence[Budget], held: IntArray | None = None
) -> int:
    """How many of the running totals every budget lasts for.

    Args:
        normal, zero: int64 [n], n > 0, pages up to and including each place; neither falls.
        held: int64 [n], what the last budget pays besides up to and including each place.
    """
    if held is not None:
        *others, last = budgets
        pages = _cost(normal, last.limit, last.normal) + _cost(zero, last.limit, last.zero)
        fit = int(np.searchsorted(pages + held, last.limit, side="right"))
        return min(fit, fitting(normal, zero, others)) if others else fit
    if not zero[-1]:
        return _alike(normal, [(b.limit, b.normal) for b in budgets])
    if not normal[-1]:
        return _alike(zero, [(b.limit, b.zero) for b in budgets])
    return min(
        int(np.searchsorted(_cost(normal, b.limit, b.normal) + _cost(zero, b.limit, b.zero), b.limit, side="right"))
        for b in budgets
    )  # fmt: skip


def _alike(pages: IntArray, limits: Sequence[tuple[int, int]]) -> int:
    """`fitting` where all pages cost the same."""
    most = min(limit // cost if cost else FOR_EVER if limit >= 0 else -1 for limit, cost in limits)
    return int(np.searchsorted(pages, most, side="right"))


def _cost(pages: IntArray, limit: int, cost: int) -> IntArray:
    """Cost of so many pages, cut off above the limit so that 64 bits hold it."""
    if cost == 0:
        return np.zeros_like(pages)
    return np.minimum(pages, max(0, limit) // cost + 1) * cost
