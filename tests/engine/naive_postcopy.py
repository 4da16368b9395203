"""A second model of post-copy for small guests: one page and one touch at a time.

It shares no code with gpusim.engine.postcopy.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class NaiveResult:
    """What happened after the switch. Times are seconds since the guest started at the target."""

    total_s: float
    requests: int
    stalled_s: float
    arrivals: NDArray[np.int64]


def send_naively(
    missing: NDArray[np.bool_],
    *,
    touched: NDArray[np.int64],
    touches_per_s: float,
    threads: int,
    page_s: float,
    latency_s: float,
    jumps: bool,
    seed: int,
) -> NaiveResult:
    """Send the missing pages while threads touch pages at random.

    Args:
        missing: bool [pages].
        touched: int64 [n], pages of which each touch takes one, evenly.
        touches_per_s: of each thread while it runs.
        threads: number of threads. One that waits for a page touches nothing.
        page_s: time of a page in the background, and of a request.
        latency_s: time from a touch of a missing page until the page is there.
        jumps: the background goes on behind a requested page.
        seed: of the touches.
    """
    rng, missing = np.random.default_rng(seed), missing.copy()
    arrivals = np.zeros(len(missing), np.int64)
    on_the_way: dict[int, float] = {}
    touches = [(rng.exponential(1 / touches_per_s), thread) for thread in range(threads)]
    heapq.heapify(touches)
    now_s = free_s = stalled_s = 0.0
    cursor = requests = 0
    while missing.any():
        now_s, thread = heapq.heappop(touches)
        while free_s + page_s <= now_s and missing.any():
            ahead = np.flatnonzero(missing[cursor:])
            cursor = cursor + int(ahead[0]) if len(ahead) else int(np.flatnonzero(missing)[0])
            missing[cursor] = False
            arrivals[cursor] += 1
            free_s += page_s
        page = int(rng.choice(touched))
        wait_s = max(0.0, on_the_way.get(page, 0.0) - now_s)
        if missing[page]:
            requests += 1
            missing[page] = False
            arrivals[page] += 1
            free_s += page_s
            wait_s = latency_s
            on_the_way[page] = now_s + latency_s
            cursor = page if jumps else cursor
        stalled_s += wait_s
        heapq.heappush(touches, (now_s + wait_s + rng.exponential(1 / touches_per_s), thread))
    return NaiveResult(total_s=free_s, requests=requests, stalled_s=stalled_s, arrivals=arrivals)
