"""What post-copy has cost so far: requests, their latencies, and the time that vCPUs lost."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from gpusim.config.postcopy import PostcopyCosts
from gpusim.engine.postcopy_guest import LEAST, Step
from gpusim.layout import FloatArray
from gpusim.units import NS_PER_MS, NS_PER_S, NS_PER_US

BUCKETS = 24  # of 2^k to 2^(k+1) us. Source: migration/postcopy-ram.c:BLOCKTIME_LATENCY_BUCKET_N


@dataclass
class PostcopyTally:
    """Sums since the switch.

    Attributes:
        costs: of post-copy.
        requests: number of requests that were answered.
        waited_ns: time that all of them took together.
        stall_vcpu_s: work that the guest did not do, in seconds of one vCPU.
        blocked_s: time for which vCPUs stood still, in seconds of one vCPU.
        buckets: float64 [BUCKETS], requests of 2^k to 2^(k+1) us.
        slow_until_ns: until when the guest was slower than `recovered_share`.
    """

    costs: PostcopyCosts
    requests: float = 0.0
    waited_ns: float = 0.0
    stall_vcpu_s: float = 0.0
    blocked_s: float = 0.0
    buckets: FloatArray = field(default_factory=lambda: np.zeros(BUCKETS))
    slow_until_ns: int = 0

    def add_step(self, step: Step, length_ns: int) -> None:
        """Count the requests of a step, and for how long they blocked vCPUs."""
        requests, length_s = step.requests, length_ns / NS_PER_S
        self.requests += requests
        self.waited_ns += requests * step.latency_ns
        for share, mean_ns in step.latencies:
            self.buckets += requests * share * bucket_shares(mean_ns, self.costs.fault_spread)
        of_vcpus = max(0.0, requests - step.device)
        blocked_s = of_vcpus * self.costs.blocking_share * step.latency_ns / NS_PER_S
        self.blocked_s += min(blocked_s, self.costs.vcpus * length_s)

    def add_speed(self, speed: float, busy_vcpus: float, length_ns: int, until_ns: int) -> None:
        """Count the work that the guest did not do in a step."""
        self.stall_vcpu_s += busy_vcpus * (1 - speed) * (length_ns / NS_PER_S)
        if speed < self.costs.recovered_share:
            self.slow_until_ns = until_ns

    def add_answers(self, count: float, waited_ns: int) -> None:
        """Count requests that waited for a lost link."""
        self.requests += count
        self.waited_ns += count * waited_ns
        self.buckets += count * bucket_shares(waited_ns, self.costs.fault_spread)

    def move_behind_zeros(self, wait_ns: float) -> None:
        """Let some of the requests have waited behind a buffer of zero pages: see PostcopyConfig."""
        count = min(self.costs.waits_behind_zeros, self.requests)
        if not count:
            return
        mean_ns = self.waited_ns / self.requests
        self.waited_ns += count * (wait_ns - mean_ns)
        self.buckets *= 1 - count / self.requests
        self.buckets += count * bucket_shares(wait_ns, self.costs.fault_spread)
        self.blocked_s += count * self.costs.blocking_share * (wait_ns - mean_ns) / NS_PER_S

    @property
    def latency_ms(self) -> float | None:
        """Mean time of a request. None: there was none."""
        return self.waited_ns / self.requests / NS_PER_MS if round(self.requests) else None

    @property
    def vcpu_blocktime_ms(self) -> float:
        """QEMU's postcopy-vcpu-blocktime, on average over the vCPUs."""
        return 1000 * self.blocked_s / self.costs.vcpus

    @property
    def blocktime_ms(self) -> float:
        """QEMU's postcopy-blocktime: time in which all vCPUs were blocked."""
        return 1000 * self.costs.together_share * self.blocked_s / self.costs.vcpus

    def latency_counts(self) -> list[int]:
        """Return the number of requests in each bucket of QEMU's postcopy-latency-dist."""
        shares = self.buckets / max(self.buckets.sum(), LEAST)
        ends = np.rint(np.cumsum(shares) * round(self.requests)).astype(np.int64)
        return [int(count) for count in np.diff(ends, prepend=0)]


def bucket_shares(mean_ns: float, spread: float) -> FloatArray:
    """Return which share of latencies falls into each bucket of 2^k to 2^(k+1) us, float64 [24].

    The latencies have a lognormal distribution.

    Args:
        mean_ns: their mean.
        spread: standard deviation of their logarithm.
    """
    borders_ns = NS_PER_US * 2.0 ** np.arange(1, BUCKETS)
    if not spread or not mean_ns:
        below = (mean_ns < borders_ns).astype(np.float64)
    else:
        middle = math.log(mean_ns) - spread**2 / 2
        scaled = (np.log(borders_ns) - middle) / (spread * math.sqrt(2))
        below = np.array([0.5 * (1 + math.erf(x)) for x in scaled])
    return np.diff(np.concatenate([[0.0], below, [1.0]]))
