"""A fine counter kept small: the knots of its bends."""

from __future__ import annotations

from collections.abc import Sequence

Point = tuple[float, int]
MOST_KNOTS = 9000  # some 35 kB of a packed file
FINEST_S = 0.001  # of the guest's mean pace: finer than the counter is read
COARSER = 1.5


def knots(points: Sequence[Point], within: float) -> list[Point]:
    """Points between which straight lines miss none of the others by more than `within`.

    One pass: the next point is a knot's last one before no line from the knot, through points that
    were read, comes near enough to all that lie between.

    Args:
        points: at rising times.
    """
    kept = list(points[:1])
    steepest, flattest = float("inf"), float("-inf")
    for place in range(1, len(points)):
        (start_s, start), (time_s, total) = kept[-1], points[place]
        slope = (total - start) / (time_s - start_s)
        if not flattest <= slope <= steepest:
            start_s, start = points[place - 1]
            kept.append((start_s, start))
            steepest, flattest = float("inf"), float("-inf")
        steepest = min(steepest, (total + within - start) / (time_s - start_s))
        flattest = max(flattest, (total - within - start) / (time_s - start_s))
    return [*kept, points[-1]] if len(points) > 1 else kept


def thinned(points: Sequence[Point]) -> tuple[list[Point], float]:
    """At most MOST_KNOTS knots, as near to the counter as so many can be, and how near, in writes."""
    if len(points) < 2:
        return list(points), 0.0
    (start_s, start), (end_s, end) = points[0], points[-1]
    within = max(1.0, FINEST_S * (end - start) / (end_s - start_s))
    while len(found := knots(points, within)) > MOST_KNOTS:
        within *= COARSER
    return found, within
