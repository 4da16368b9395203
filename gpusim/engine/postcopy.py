"""Post-copy: the switch, and the time until the last page has arrived at the target.

After the switch nothing becomes dirty. Pages arrive in the background and on request, and the guest
runs at the target. A touch of a missing page stops a thread of the guest. Between two steps the
numbers have a closed form, so the cost follows the number of steps and not the number of requests.

Source: migration/migration.c:postcopy_start, postcopy_completion; ram.c:get_queued_page,
ram_save_host_page_urgent; postcopy-ram.c:postcopy_ram_fault_thread [7.2 to 11.1].
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from gpusim.config.postcopy import PostcopyCosts
from gpusim.engine.recorder import Recorder
from gpusim.engine.records import PostcopySample, PostcopySummary
from gpusim.engine.state import MigrationState
from gpusim.guest.touches import Touches, touching
from gpusim.layout import FloatArray, pieces_of
from gpusim.pages.missing import MissingPages, find_missing
from gpusim.sender.burst import UNLIMITED
from gpusim.sender.link import PS_PER_S, UNITS, Link
from gpusim.units import NEVER_NS, NS_PER_MS, NS_PER_S, NS_PER_US, PS_PER_NS

# A command drops at most so many runs. Source: migration/savevm.c:MAX_DISCARDS_PER_COMMAND.
RUNS_PER_COMMAND = 12
COMMAND_BYTES, RUN_BYTES = 40, 16  # a command's header with a block's name, and each run
# Of stopping a VM, saving its devices and loading them, the last took 144 of 682 ms at the target.
# Source: qemu-devel, 2024-07-26, E. Ufimtseva and P. Xu, see config/link.py.
LOAD_SHARE = 144 / 682
# Before QEMU 8.0 a requested page waits until the migration thread's write to the full socket
# returns. Linux wakes it when a third of the send buffer is free again, so it waits for half of that
# time on average. Source: net/core/stream.c:sk_stream_write_space, include/net/sock.h:
# sk_stream_min_wspace, net.ipv4.tcp_wmem.
BLOCKED_BYTES = 4 * 2**20 / 3 / 2
BUCKETS = 24  # of 2^k to 2^(k+1) us. Source: migration/postcopy-ram.c:BLOCKTIME_LATENCY_BUCKET_N
# Without a full link: what a socket holds at first (Linux net.core.wmem_default), and QEMU's stream
# of pages or of headers. Source: migration/qemu-file.c:MAX_IOV_SIZE, IO_BUF_SIZE.
SOCKET_BYTES, STREAM_PAGES, STREAM_BYTES = 212_992, 32, 32_768
FIRST_STEP_NS, GROWTH, STEPS = NS_PER_S // 1000, 1.2, 200
LEAST_SPEED = 1e-9


@dataclass
class _Tally:
    """Sums since the switch. Latencies are in ns, and stalls in seconds of one vCPU."""

    requests: float = 0.0
    waited_ns: float = 0.0
    stall_vcpu_s: float = 0.0
    blocked_s: float = 0.0
    normal: float = 0.0
    zero: float = 0.0
    buckets: FloatArray = field(default_factory=lambda: np.zeros(BUCKETS))
    slow_until_ns: int = 0


@dataclass(frozen=True, kw_only=True)
class _Step:
    """What the guest asks for in a step.

    Attributes:
        speed: share of its speed at which the guest runs.
        random, passed: float64 [pieces], missing host pages that are touched at random and in order.
        asked: host pages of `passed` that are requests. The others came in the background before.
        latencies: shares of the requests, and the mean time of each share in ns.
    """

    speed: float
    random: FloatArray
    passed: FloatArray
    asked: float
    latencies: list[tuple[float, float]]

    @property
    def latency_ns(self) -> float:
        """Mean time of a request."""
        return sum(share * mean_ns for share, mean_ns in self.latencies)

    @property
    def requests(self) -> float:
        """Number of requests."""
        return float(self.random.sum()) + self.asked


class Postcopy:
    """Post-copy of one migration.

    Args:
        state: of the migration. The VM has stopped, and the final sync is done.
        recorder: records events and samples.
        next_change_ns: returns when management acts next.

    Attributes:
        samples: the state at the end of each step.
        runs: runs of dirty pages that the target drops.
        added_pages: clean pages of host pages that have a dirty page.
        pages: dirty pages at the switch, with `added_pages`.
        downtime_ms: as the source reports it, once it is over.
    """

    def __init__(
        self, state: MigrationState, recorder: Recorder, next_change_ns: Callable[[], int]
    ) -> None:
        self._state, self._recorder, self._next_change_ns = state, recorder, next_change_ns
        scenario = state.scenario
        self._costs: PostcopyCosts = scenario.postcopy
        self._preempt = scenario.migration.postcopy_preempt
        self._size = max(1, scenario.link.host_pages)
        self._link: Link = replace(scenario.link, multifd=None, host_pages=1)
        self._make_guest()
        self.samples: list[PostcopySample] = []
        self.downtime_ms: float | None = None
        self._tally = _Tally()
        self._started_ns = self._resumed_ns = state.clock.now_ns
        self._waiting: list[tuple[float, int]] = []  # requests that nobody answers, and since when

    def _make_guest(self) -> None:
        """Make what the guest touches, and count the missing pages."""
        state, scenario = self._state, self._state.scenario
        layout, guest = scenario.layout, state.guest
        self._vm_ns = state.clock.vm_ns(state.vm_stopped_ns)
        done = guest.writes_done(self._vm_ns)
        writers = list(zip(scenario.writers, done, strict=True))
        self._touches = {
            throttled: Touches(
                layout,
                touching(
                    [w for w, _ in writers if w.throttled is throttled],
                    [d for w, d in writers if w.throttled is throttled],
                    self._vm_ns,
                ),
                state.limit,
            )
            for throttled in (True, False)
        }
        borders = np.concatenate([touches.borders for touches in self._touches.values()])
        first, last = pieces_of(layout, borders, self._size)
        for touches in self._touches.values():
            touches.use_pieces(first, last)
        self._busy_vcpus = sum(w.vcpus for w in scenario.writers if w.throttled)
        found = find_missing(state.pages.kernels, layout, first, last, self._size)
        self.runs = int(found.runs.sum())
        pages = round(float(found.normal.sum() + found.zero.sum()))
        self.added_pages = pages - state.pages.pending
        self._zero_pages = round(float(found.zero.sum()))
        self.pages = pages
        self._missing = MissingPages(found, (last - first) // self._size, self._size)
        while state.pages.pending:  # they lie in `missing`
            state.pages.take([(UNLIMITED, 1, 1)])
        state.postcopy_pages = pages

    @property
    def discard_ns(self) -> int:
        """The time in which the target drops what it has of the dirty pages."""
        commands = -(-self.runs // RUNS_PER_COMMAND)
        sent = commands * COMMAND_BYTES + self.runs * RUN_BYTES
        return round(self.runs * self._costs.discard_ns + sent / self._bandwidth() * NS_PER_S)

    def run(self, resumes_ns: int) -> bool:
        """Send until the last page has arrived. Return whether it did within the simulated limit.

        Args:
            resumes_ns: when the guest runs at the target. Pages are sent from now on.
        """
        state, clock = self._state, self._state.clock
        self._started_ns, self._resumed_ns = clock.now_ns, resumes_ns
        self._tally.slow_until_ns = resumes_ns
        limit_ns = state.scenario.simulated_limit_ns
        step_ns: int = FIRST_STEP_NS
        most_ns = max(FIRST_STEP_NS // 100, math.ceil(self._missing.left(self._page_ns()) / STEPS))
        while state.postcopy_pages and clock.now_ns < limit_ns:
            state.limit.check()
            costs = self._page_ns()
            left_ns = math.ceil(self._missing.left(costs))
            if not state.link_is_lost:  # while it is lost, no page arrives that a step could miss
                step_ns = min(step_ns, most_ns)
            until_ns = clock.now_ns + max(1, step_ns)
            if left_ns <= 2 * most_ns and not state.link_is_lost:
                until_ns = clock.now_ns + max(1, left_ns)
            if state.link_is_lost and self._free_threads < LEAST_SPEED:
                until_ns = limit_ns  # or until it is recovered
            borders = (resumes_ns, self._next_change_ns(), self._next_bandwidth_ns(), limit_ns)
            until_ns = min(until_ns, *(at for at in borders if at > clock.now_ns))
            if state.link_is_lost:
                self._wait_for_link(until_ns)
            else:
                self._advance(until_ns, costs)
            clock.run_to(until_ns)
            self._recorder.sample_if_due()
            self._recorder.observe_if_due()
            step_ns = math.ceil(step_ns * GROWTH)
        clock.run_to(max(clock.now_ns, resumes_ns))  # its start holds the big lock
        self._count_waits_behind_zeros()
        return not state.postcopy_pages

    def _count_waits_behind_zeros(self) -> None:
        """Let some of the requests have waited behind a buffer of zero pages: see PostcopyConfig."""
        tally, costs = self._tally, self._costs
        count = min(costs.waits_behind_zeros, tally.requests)
        if not count or self._preempt or not self._zero_pages:
            return
        mean_ns, wait_ns = tally.waited_ns / tally.requests, self._waits_ns()[1]
        tally.waited_ns += count * (wait_ns - mean_ns)
        tally.buckets *= 1 - count / tally.requests
        tally.buckets += count * bucket_shares(wait_ns, costs.fault_spread)
        tally.blocked_s += count * costs.blocking_share * (wait_ns - mean_ns) / NS_PER_S

    def _advance(self, until_ns: int, costs: tuple[float, float]) -> None:
        """Let pages arrive up to a time."""
        missing, tally, now_ns = self._missing, self._tally, self._state.clock.now_ns
        length_ns = until_ns - now_ns
        self._answer_waiting()
        budget_ns = float(length_ns)
        requests, latency_ns, speed = 0.0, 0.0, 0.0
        starts = np.zeros(len(missing.missing))
        if now_ns >= self._resumed_ns:
            step = self._ask(length_ns)
            requests, latency_ns, speed = step.requests, step.latency_ns, step.speed
            touched = step.random + step.passed
            cost_ns = float((touched * missing.costs(costs)).sum())
            self._count(missing.send(touched))
            missing.note_passed(self._passed_pages)
            if not self._has_own_channel:
                budget_ns -= cost_ns
            if not (self._preempt and self._state.scenario.rules.preempts_by_return_path):
                budget_ns -= requests * self._costs.request_ns
            starts = touched if self._jumps else starts
            self._vm_ns += round(speed * length_ns)
            self._tally_stalls(step, length_ns)
            if speed < self._costs.recovered_share:
                tally.slow_until_ns = until_ns
        if budget_ns > 0:
            normal, zero = missing.send_behind(starts, budget_ns, costs)
            self._count((normal, zero))
            spent = normal * costs[0] + zero * costs[1]
            self._zero_share = zero * costs[1] / spent if spent else 0.0
        if missing.left(costs) < 1:
            self._count(missing.send(missing.missing))
        self._update_counters(is_last=not missing.total)
        self._add_sample(until_ns, requests, latency_ns, speed)

    def _add_sample(self, until_ns: int, requests: float, latency_ns: float, speed: float) -> None:
        self.samples.append(
            PostcopySample(
                time_s=until_ns / NS_PER_S,
                missing_bytes=self._state.postcopy_pages * self._state.scenario.page_bytes,
                requests=round(self._tally.requests),
                latency_ms=latency_ns / NS_PER_MS if requests else None,
                guest_speed_percent=100 * speed,
            )
        )

    def _wait_for_link(self, until_ns: int) -> None:
        """Let the guest run until each of its threads waits for a page."""
        now_ns, tally = self._state.clock.now_ns, self._tally
        speed = 0.0
        if now_ns >= self._resumed_ns:
            length_ns = until_ns - now_ns
            left = self._free_threads
            random, passed = self._touches[True].between(self._vm_ns, self._vm_ns + length_ns)

            def asked(speed: float) -> float:
                touched = self._missing.missing * -np.expm1(-random * self._size * speed)
                in_order = self._missing.passed(passed / self._size * speed)
                return float(touched.sum() + in_order.sum())

            speed = 1.0
            if asked(1.0) > left:
                speed = _root(lambda one: asked(one) - left) if left > 0 else 0.0
            self._waiting.append((min(left, asked(speed)), now_ns))
            self._vm_ns += round(speed * length_ns)
            tally.stall_vcpu_s += self._busy_vcpus * (1 - speed) * length_ns / NS_PER_S
            if speed < self._costs.recovered_share:
                tally.slow_until_ns = until_ns
        self._add_sample(until_ns, 0.0, 0.0, speed)

    @property
    def _free_threads(self) -> float:
        """Threads of the guest that wait for no page while the link is lost."""
        return max(0.0, self._costs.threads - sum(count for count, _ in self._waiting))

    def _answer_waiting(self) -> None:
        """Count the requests that waited for the link. It is there again."""
        now_ns, tally = self._state.clock.now_ns, self._tally
        for count, since_ns in self._waiting:
            tally.requests += count
            tally.waited_ns += count * (now_ns - since_ns)
            tally.buckets += count * bucket_shares(now_ns - since_ns, self._costs.fault_spread)
        self._waiting.clear()

    def _ask(self, length_ns: int) -> _Step:
        """Find how fast the guest runs, and which missing pages it touches."""
        missing, size = self._missing, self._size
        until_ns = self._vm_ns + length_ns
        random, passed = self._touches[True].between(self._vm_ns, until_ns)
        device_random, device_passed = self._touches[False].between(self._vm_ns, until_ns)
        latencies = self._latencies_ns()
        latency_ns = sum(share * mean_ns for share, mean_ns in latencies)
        # Each thread of the guest has one request at most.
        busy_ns = self._costs.threads * self._service_ns
        slower = max(1.0, busy_ns / latency_ns) if latency_ns else 1.0
        latencies = [(share, mean_ns * slower) for share, mean_ns in latencies]
        latency_ns *= slower
        costs = self._page_ns()
        mean_ns = missing.left(costs) / max(missing.total, LEAST_SPEED)
        threads, vcpus = self._costs.threads, self._costs.vcpus
        room = (threads - vcpus) * length_ns

        def at(speed: float) -> _Step:
            touched = missing.missing * -np.expm1(-random * size * speed)
            in_order = missing.passed(passed / size * speed)
            in_order = np.minimum(in_order, missing.missing - touched)
            asked = float(in_order.sum())
            if self._jumps:  # the background goes on behind a requested page
                behind = length_ns / max(mean_ns, LEAST_SPEED)
                other, ahead = float(touched.sum()), float(in_order.sum())
                half = (ahead - other - behind) / 2
                asked = half + math.sqrt(half * half + ahead * other)
            return _Step(
                speed=speed, random=touched, passed=in_order, asked=asked, latencies=latencies
            )

        fastest_ns = missing.costs(self._page_ns(is_limited=False))

        def sending_ns(pages: FloatArray, requests: float) -> float:
            return float((pages * fastest_ns).sum()) + requests * self._costs.request_ns

        def excess(step: _Step) -> float:
            """The time of threads and of the link that a speed needs, beyond what there is."""
            waiting_ns = step.requests * latency_ns
            of_threads = waiting_ns - room - vcpus * length_ns * (1 - step.speed)
            return max(of_threads, sending_ns(step.random + step.passed, step.requests) - length_ns)

        step = at(1.0)
        if excess(step) > 0:
            step = at(_root(lambda speed: excess(at(speed))))
        self._passed_pages = passed / size * step.speed
        device = missing.missing * -np.expm1(-device_random * size)
        device = device + missing.passed(device_passed / size)
        left = missing.missing - step.random - step.passed
        device = np.minimum(device, np.maximum(0.0, left))
        free_ns = length_ns - sending_ns(step.random + step.passed, step.requests)
        device *= min(1.0, max(0.0, free_ns) / max(sending_ns(device, float(device.sum())), 1.0))
        self._device_faults = float(device.sum())
        return replace(step, random=step.random + device)

    def _latencies_ns(self) -> list[tuple[float, float]]:
        """The share and the mean time of requests behind normal pages, and behind zero pages.

        Without a channel of its own a page waits behind the bytes that are on the way. Zero pages
        are small, so many of them are on the way.
        """
        if self._preempt:
            page_ns = waits_ns = self._size * self._page_ns(is_limited=False)[0]
            if self._link_is_full and not self._state.scenario.rules.preempts_by_return_path:
                waits_ns += BLOCKED_BYTES / self._bandwidth() * NS_PER_S
            return [(1.0, self._costs.fault_ns + waits_ns + page_ns)]
        shares = 1 - self._zero_share, self._zero_share
        return list(zip(shares, self._waits_ns(), strict=True))

    def _waits_ns(self) -> tuple[float, float]:
        """The mean time of a request behind a buffer of normal pages, and of zero pages."""
        costs = self._page_ns()
        buffers: list[float] = [self._costs.buffer_bytes] * 2
        if not self._link_is_full:
            streams = STREAM_PAGES * self._link.normal_page_bytes, STREAM_BYTES
            buffers = [(SOCKET_BYTES + stream) / 2 for stream in streams]
        alone_ns = self._costs.fault_ns + 1.5 * self._size * costs[0]
        normal_ns, zero_ns = (
            alone_ns + (buffer_bytes * UNITS / units * cost if units else 0.0)
            for buffer_bytes, units, cost in zip(buffers, self._link.page_units, costs, strict=True)
        )
        return normal_ns, zero_ns

    @property
    def _service_ns(self) -> float:
        """The time in which a request is answered. Requests are answered one after the other."""
        return self._costs.request_ns + self._size * self._page_ns(is_limited=False)[0]

    @property
    def _jumps(self) -> bool:
        """Whether the background goes on behind a requested page.

        Source: migration/ram.c:get_queued_page, ram_page_hint_update (10.1).
        """
        return not self._preempt or self._state.scenario.rules.has_page_hint

    @property
    def _has_own_channel(self) -> bool:
        """Whether requests take no time of the background's."""
        return self._preempt and not self._link_is_full

    @property
    def _link_is_full(self) -> bool:
        """Whether the link is what limits the background."""
        limit = self._state.parameters.max_postcopy_bandwidth
        rate = self._bandwidth()
        return (not limit or limit >= rate) and self._link.bounds(rate)[0] == "link"

    def _page_ns(self, *, is_limited: bool = True) -> tuple[float, float]:
        """The time of a normal and of a zero page in the background.

        Requests do not wait for the rate limit (migration/ram.c:ram_save_iterate).
        """
        normal_ps, zero_ps = self._link.page_ps(self._bandwidth())
        limit = self._state.parameters.max_postcopy_bandwidth
        if limit and is_limited:
            normal, zero = (units / UNITS for units in self._link.page_units)
            normal_ps = max(normal_ps, round(normal / limit * PS_PER_S))
            zero_ps = max(zero_ps, round(zero / limit * PS_PER_S))
        return normal_ps / PS_PER_NS, zero_ps / PS_PER_NS

    def _bandwidth(self) -> float:
        """Bytes per second of the link at present."""
        now_ns, recorded = self._state.clock.now_ns, self._link.recorded
        if recorded is not None:
            return recorded.rate(now_ns) or self._link.bandwidth
        rates = [rate for at_ns, rate in self._link.changes if at_ns <= now_ns]
        return rates[-1] if rates else self._link.bandwidth

    def _next_bandwidth_ns(self) -> int:
        now_ns = self._state.clock.now_ns
        changes = [at_ns for at_ns, _ in self._link.changes]
        if self._link.recorded is not None:
            changes = self._link.recorded.times_ns.tolist()
        return min((at_ns for at_ns in changes if at_ns > now_ns), default=NEVER_NS)

    def _tally_stalls(self, step: _Step, length_ns: int) -> None:
        """Count the requests of a step, and for how long vCPUs stood still."""
        tally, costs = self._tally, self._costs
        requests, length_s = step.requests, length_ns / NS_PER_S
        tally.requests += requests
        tally.waited_ns += requests * step.latency_ns
        for share, mean_ns in step.latencies:
            tally.buckets += requests * share * bucket_shares(mean_ns, costs.fault_spread)
        tally.stall_vcpu_s += self._busy_vcpus * (1 - step.speed) * length_s
        of_vcpus = max(0.0, requests - self._device_faults)
        blocked_s = of_vcpus * costs.blocking_share * step.latency_ns / NS_PER_S
        blocked_s = min(blocked_s, costs.vcpus * length_s)
        tally.blocked_s += blocked_s

    def _count(self, sent: tuple[float, float]) -> None:
        self._tally.normal += sent[0]
        self._tally.zero += sent[1]

    def _update_counters(self, *, is_last: bool) -> None:
        """Let the migration's counters have the pages that have arrived, as whole numbers."""
        state, tally = self._state, self._tally
        counters, units = state.sender.counters, self._link.page_units
        normal, zero = int(tally.normal + 1e-6), int(tally.zero + 1e-6)
        if is_last:
            normal, zero = self.pages - self._zero_pages, self._zero_pages
        normal = min(normal, self.pages - self._zero_pages)
        zero = min(zero, self._zero_pages)
        before_normal, before_zero = self._counted
        counters.normal_pages += normal - before_normal
        counters.zero_pages += zero - before_zero
        counters.sent_units += (normal - before_normal) * units[0]
        counters.sent_units += (zero - before_zero) * units[1]
        self._counted = normal, zero
        state.postcopy_pages = self.pages - normal - zero

    _counted = (0, 0)
    _device_faults, _zero_share = 0.0, 0.0
    _passed_pages: FloatArray = np.zeros(0)

    def summary(self) -> PostcopySummary:
        """Return what is known at the end."""
        tally, clock = self._tally, self._state.clock
        requests = round(tally.requests)
        page_bytes = self._state.scenario.page_bytes
        switched_ns = self._state.vm_stopped_ns
        return PostcopySummary(
            postcopy_start_s=switched_ns / NS_PER_S,
            postcopy_time_s=(clock.now_ns - self._started_ns) / NS_PER_S,
            postcopy_blackout_ms=(self._resumed_ns - switched_ns) / NS_PER_MS,
            postcopy_bytes=self.pages * page_bytes,
            postcopy_discarded_runs=self.runs,
            postcopy_requests=requests,
            postcopy_latency_ms=tally.waited_ns / tally.requests / NS_PER_MS if requests else None,
            postcopy_vcpu_blocktime_ms=1000 * tally.blocked_s / self._costs.vcpus,
            postcopy_blocktime_ms=1000
            * self._costs.together_share
            * tally.blocked_s
            / self._costs.vcpus,
            postcopy_stall_vcpu_s=tally.stall_vcpu_s,
            postcopy_recovery_s=max(0, tally.slow_until_ns - self._resumed_ns) / NS_PER_S,
            postcopy_added_pages=self.added_pages,
        )

    def latency_counts(self) -> list[int]:
        """Return the number of requests in each bucket of QEMU's postcopy-latency-dist."""
        requests = round(self._tally.requests)
        shares = self._tally.buckets / max(self._tally.buckets.sum(), LEAST_SPEED)
        ends = np.rint(np.cumsum(shares) * requests).astype(np.int64)
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


def _root(excess: Callable[[float], float]) -> float:
    """Return where a rising function of a speed is 0, for a speed of 0 to 1. It is above 0 at 1."""
    low, high = 0.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        if excess(middle) > 0:
            high = middle
        else:
            low = middle
        if high - low < 1e-6 * max(high, LEAST_SPEED):
            break
    return max(low, LEAST_SPEED)
