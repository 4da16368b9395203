"""Keep a fine counter small: replace it by the breakpoints of a piecewise linear function."""

from __future__ import annotations

from collections.abc import Sequence

Point = tuple[float, int]  # (seconds, writes)
MOST_BREAKPOINTS = 9000  # about 35 kB of a packed file
FINEST_S = 0.001  # of writes at the guest's mean rate. The counter itself is read every 2 ms.
COARSER = 1.5


def find_breakpoints(points: Sequence[Point], within: float) -> list[Point]:
    """Return points whose connecting lines miss no other point by more than `within` writes.

    It makes one pass. A segment ends at the last point for which some line from the segment's start
    comes close enough to all points in between.

    Args:
        points: at rising times.
        within: largest allowed distance, writes.
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


def thin_counter(points: Sequence[Point]) -> tuple[list[Point], float]:
    """Return at most MOST_BREAKPOINTS breakpoints, and their largest error in writes."""
    if len(points) < 2:
        return list(points), 0.0
    (start_s, start), (end_s, end) = points[0], points[-1]
    within = max(1.0, FINEST_S * (end - start) / (end_s - start_s))
    while len(found := find_breakpoints(points, within)) > MOST_BREAKPOINTS:
        within *= COARSER
    return found, within
