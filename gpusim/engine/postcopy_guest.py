"""How fast a guest runs while pages are missing, and which of them it asks for.

A touch of a missing page is a request, and stops a thread of the guest until the page is there. The
numbers of a step have a closed form, so the cost does not grow with the requests. This module does
not know when pages arrive.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from gpusim.config.postcopy import PostcopyCosts
from gpusim.engine.postcopy_pace import PostcopyPace
from gpusim.engine.state import MigrationState
from gpusim.guest.touches import Touches, touching
from gpusim.layout import FloatArray, IntArray, pieces_of
from gpusim.pages.missing import MissingPages

LEAST = 1e-9  # of a speed, and of numbers that divide
BISECTIONS, PRECISION = 40, 1e-6  # of a speed


@dataclass(frozen=True, kw_only=True)
class Step:
    """What the guest asks for in a step.

    Attributes:
        speed: share of its speed at which the guest runs.
        random, passed: float64 [pieces], missing host pages that are touched at random and in order.
        in_order: float64 [pieces], host pages that are touched in order, missing or not.
        asked: host pages of `passed` that are requests. The others came in the background before.
        device: requests of writers that the throttle does not slow. They stop no vCPU.
        latencies: shares of the requests, and the mean time of each share in ns.
    """

    speed: float
    random: FloatArray
    passed: FloatArray
    in_order: FloatArray
    asked: float
    device: float = 0.0
    latencies: list[tuple[float, float]]

    @property
    def touched(self) -> FloatArray:
        """Missing host pages that are touched, float64 [pieces]."""
        return self.random + self.passed

    @property
    def latency_ns(self) -> float:
        """Mean time of a request."""
        return sum(share * mean_ns for share, mean_ns in self.latencies)

    @property
    def requests(self) -> float:
        """Number of requests."""
        return float(self.random.sum()) + self.asked


class TargetGuest:
    """The guest at the target.

    Args:
        state: of the migration. The VM has stopped.
        pace: of pages and requests.

    Attributes:
        first, last: int64 [pieces], the pieces of RAM that the guest touches alike, as slots
            first <= page < last. They consist of whole host pages.
        busy_vcpus: vCPUs that the writers keep busy.
    """

    def __init__(self, state: MigrationState, pace: PostcopyPace) -> None:
        self._pace, self._costs = pace, state.scenario.postcopy
        self._vm_ns = state.clock.vm_ns(state.vm_stopped_ns)  # useful time of the guest
        done = state.guest.writes_done(self._vm_ns)
        self._touches = {
            throttled: self._find_touches(state, done, throttled) for throttled in (True, False)
        }
        borders = np.concatenate([touches.borders for touches in self._touches.values()])
        self.first, self.last = pieces_of(state.scenario.layout, borders, pace.size)
        for touches in self._touches.values():
            touches.use_pieces(self.first, self.last)
        self.busy_vcpus = sum(w.vcpus for w in state.scenario.writers if w.throttled)

    def _find_touches(
        self, state: MigrationState, done: Sequence[float], throttled: bool
    ) -> Touches:
        """Return the touches of the writers that the throttle slows, or of the others.

        Args:
            state: of the migration.
            done: page writes of each writer up to the switch.
            throttled: which writers.
        """
        own = [
            (writer, count)
            for writer, count in zip(state.scenario.writers, done, strict=True)
            if writer.throttled is throttled
        ]
        writers = touching([w for w, _ in own], [count for _, count in own], self._vm_ns)
        return Touches(state.scenario.layout, writers, state.limit)

    @property
    def pages(self) -> IntArray:
        """Host pages of each piece, int64 [pieces]."""
        return (self.last - self.first) // self._pace.size

    def run(self, speed: float, length_ns: int) -> None:
        """Let the guest run at a share of its speed."""
        self._vm_ns += round(speed * length_ns)

    def find_step(self, missing: MissingPages, length_ns: int, zero_share: float) -> Step:
        """Find how fast the guest runs, and which missing pages it touches.

        Args:
            missing: the host pages that are missing.
            length_ns: of the step.
            zero_share: see PostcopyPace.latencies_ns.
        """
        until_ns = self._vm_ns + length_ns
        random, passed = self._touches[True].between(self._vm_ns, until_ns)
        demand = _Demand(
            missing=missing,
            size=self._pace.size,
            random=random,
            passed=passed,
            behind=self._pages_behind(missing, length_ns),
            latencies=self._queued(self._pace.latencies_ns(zero_share)),
        )
        supply = _Supply(
            costs=self._costs,
            length_ns=length_ns,
            fastest_ns=missing.costs(self._pace.page_ns(is_limited=False)),
        )
        step = demand.step(1.0)
        if supply.excess_ns(step) > 0:
            step = demand.step(_root(lambda speed: supply.excess_ns(demand.step(speed))))
        device = self._device_pages(missing, until_ns, step)
        device *= supply.share_for_devices(step, device)
        return replace(step, random=step.random + device, device=float(device.sum()))

    def _queued(self, latencies: list[tuple[float, float]]) -> list[tuple[float, float]]:
        """Let latencies include the wait of requests for each other.

        Each thread of the guest has one request at most.
        """
        latency_ns = sum(share * mean_ns for share, mean_ns in latencies)
        busy_ns = self._costs.threads * self._pace.service_ns
        slower = max(1.0, busy_ns / latency_ns) if latency_ns else 1.0
        return [(share, mean_ns * slower) for share, mean_ns in latencies]

    def _pages_behind(self, missing: MissingPages, length_ns: int) -> float | None:
        """Return the host pages that the background sends in a step behind requested pages.

        None: the background does not go on behind requested pages.
        """
        if not self._pace.jumps:
            return None
        mean_ns = missing.left(self._pace.page_ns()) / max(missing.total, LEAST)
        return length_ns / max(mean_ns, LEAST)

    def _device_pages(self, missing: MissingPages, until_ns: int, step: Step) -> FloatArray:
        """Return the missing pages that unthrottled writers touch besides, float64 [pieces]."""
        size = self._pace.size
        random, passed = self._touches[False].between(self._vm_ns, until_ns)
        touched = missing.missing * -np.expm1(-random * size)
        touched = touched + missing.passed(passed / size)
        left = missing.missing - step.random - step.passed
        return np.minimum(touched, np.maximum(0.0, left))

    def run_without_link(
        self, missing: MissingPages, length_ns: int, free_threads: float
    ) -> tuple[float, float]:
        """Let the guest run until each of its threads waits for a page.

        Args:
            missing: the host pages that are missing.
            length_ns: of the step.
            free_threads: threads that wait for no page yet.

        Returns:
            The share of its speed at which the guest ran, and the number of its requests.
        """
        random, passed = self._touches[True].between(self._vm_ns, self._vm_ns + length_ns)
        size = self._pace.size

        def requests(speed: float) -> float:
            touched = missing.missing * -np.expm1(-random * size * speed)
            in_order = missing.passed(passed / size * speed)
            return float(touched.sum() + in_order.sum())

        speed = 1.0
        if requests(speed) > free_threads:
            speed = _root(lambda one: requests(one) - free_threads) if free_threads > 0 else 0.0
        count = min(free_threads, requests(speed))
        self.run(speed, length_ns)
        return speed, count


@dataclass(frozen=True, kw_only=True)
class _Demand:
    """What the throttled writers touch in a step, for each speed.

    Attributes:
        missing: the host pages that are missing.
        size: target pages of a host page.
        random, passed: float64 [pieces], see Touches.between, at full speed.
        behind: see TargetGuest._pages_behind.
        latencies: see Step.
    """

    missing: MissingPages
    size: int
    random: FloatArray
    passed: FloatArray
    behind: float | None
    latencies: list[tuple[float, float]]

    def step(self, speed: float) -> Step:
        """Return the step at a share of the guest's speed."""
        touched = self.missing.missing * -np.expm1(-self.random * self.size * speed)
        in_order = self.passed / self.size * speed
        passed = np.minimum(self.missing.passed(in_order), self.missing.missing - touched)
        return Step(
            speed=speed,
            random=touched,
            passed=passed,
            in_order=in_order,
            asked=self._requests_in_order(float(touched.sum()), float(passed.sum())),
            latencies=self.latencies,
        )

    def _requests_in_order(self, random: float, passed: float) -> float:
        """Return how many of the pages that are passed in order are requests.

        If the background goes on behind a requested page, then it sends the pages that come next.
        """
        if self.behind is None:
            return passed
        half = (passed - random - self.behind) / 2
        return half + math.sqrt(half * half + passed * random)


@dataclass(frozen=True, kw_only=True)
class _Supply:
    """The time of threads and of the link in a step.

    Attributes:
        costs: of post-copy.
        length_ns: of the step.
        fastest_ns: float64 [pieces], time of a missing host page without a rate limit.
    """

    costs: PostcopyCosts
    length_ns: int
    fastest_ns: FloatArray

    def excess_ns(self, step: Step) -> float:
        """Return the time that a speed needs beyond what there is. See model.md for the formula."""
        threads, vcpus = self.costs.threads, self.costs.vcpus
        waiting_ns = step.requests * step.latency_ns
        free_ns = (threads - vcpus) * self.length_ns
        of_threads_ns = waiting_ns - free_ns - vcpus * self.length_ns * (1 - step.speed)
        return max(of_threads_ns, self._sending_ns(step.touched, step.requests) - self.length_ns)

    def share_for_devices(self, step: Step, device: FloatArray) -> float:
        """Return the share of the devices' pages, float64 [pieces], that the link can serve too."""
        free_ns = self.length_ns - self._sending_ns(step.touched, step.requests)
        return min(1.0, max(0.0, free_ns) / max(self._sending_ns(device, float(device.sum())), 1.0))

    def _sending_ns(self, pages: FloatArray, requests: float) -> float:
        return float((pages * self.fastest_ns).sum()) + requests * self.costs.request_ns


def _root(excess: Callable[[float], float]) -> float:
    """Return where a rising function of a speed is 0, for a speed of 0 to 1. It is above 0 at 1."""
    low, high = 0.0, 1.0
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        if excess(middle) > 0:
            high = middle
        else:
            low = middle
        if high - low < PRECISION * max(high, LEAST):
            break
    return max(low, LEAST)
