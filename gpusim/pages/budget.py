"""The stop rule of a take: how many pages its budgets last for. It is the same on every device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from gpusim.layout import IntArray

ALL_PAGES = 2**62


class Budget(NamedTuple):
    """A limit, the cost of a normal page and the cost of a zero page. All are integers."""

    limit: int
    normal: int
    zero: int

    def less(self, normal: int, zero: int) -> Budget:
        """Return what is left after some pages."""
        limit, normal_cost, zero_cost = self
        return Budget(limit - normal * normal_cost - zero * zero_cost, normal_cost, zero_cost)


class ClearCost(NamedTuple):
    """The cost of a remote clear to a take's last budget.

    Attributes:
        clear: of the clear itself.
        page: of each page that the clear protects again.
        first: of each page that the clear protects for the first time.
    """

    clear: int
    page: int
    first: int

    def of(self, protected: IntArray, first_protected: IntArray) -> IntArray:
        """Return the costs of clears, int64 [n].

        Args:
            protected: int64 [n], pages that each clear protects.
            first_protected: int64 [n], those of them that no clear has protected before.
        """
        return self.clear + self.page * protected + (self.first - self.page) * first_protected


FREE = ClearCost(0, 0, 0)


def fitting(
    normal: IntArray, zero: IntArray, budgets: Sequence[Budget], extra: IntArray | None = None
) -> int:
    """Return how many leading places every budget lasts for.

    Args:
        normal, zero: int64 [n], n > 0, running totals of pages at each place.
        budgets: the budgets.
        extra: int64 [n], running totals of other costs to the last budget.
    """
    if extra is not None:
        *others, last = budgets
        pages = _cost(normal, last.limit, last.normal) + _cost(zero, last.limit, last.zero)
        fit = int((pages + extra).searchsorted(last.limit, side="right"))
        return min(fit, fitting(normal, zero, others)) if others else fit
    if not zero[-1]:
        return _fitting_alike(normal, [(b.limit, b.normal) for b in budgets])
    if not normal[-1]:
        return _fitting_alike(zero, [(b.limit, b.zero) for b in budgets])
    costs = [_cost(normal, b.limit, b.normal) + _cost(zero, b.limit, b.zero) for b in budgets]
    return min(
        int(cost.searchsorted(b.limit, side="right"))
        for cost, b in zip(costs, budgets, strict=True)
    )


def _fitting_alike(pages: IntArray, limits: Sequence[tuple[int, int]]) -> int:
    """`fitting` if all pages cost the same."""
    most = min(limit // cost if cost else ALL_PAGES if limit >= 0 else -1 for limit, cost in limits)
    return int(pages.searchsorted(most, side="right"))


def _cost(pages: IntArray, limit: int, cost: int) -> IntArray:
    """The cost of numbers of pages, capped above the limit so that it fits 64 bits."""
    if cost == 0:
        return np.zeros_like(pages)
    return np.minimum(pages, max(0, limit) // cost + 1) * cost
