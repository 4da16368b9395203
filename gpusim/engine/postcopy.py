"""Post-copy: the time from the switch until the last page has arrived at the target.

After the switch nothing becomes dirty. Pages arrive in the background and on request, and the guest
runs at the target. Between two steps the numbers have a closed form, so the cost follows the number
of steps and not the number of requests. postcopy_guest.py says what the guest asks for,
postcopy_pace.py how fast pages travel, and postcopy_tally.py what it all cost.

Source: migration/migration.c:postcopy_start, postcopy_completion [7.2 to 11.1].
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from gpusim.engine.postcopy_guest import LEAST, Step, TargetGuest
from gpusim.engine.postcopy_pace import PostcopyPace
from gpusim.engine.postcopy_tally import PostcopyTally
from gpusim.engine.recorder import Recorder
from gpusim.engine.records import PostcopySample, PostcopySummary
from gpusim.engine.state import MigrationState
from gpusim.pages.missing import MissingPages, find_missing
from gpusim.sender.burst import UNLIMITED
from gpusim.units import NS_PER_MS, NS_PER_S

# Of stopping a VM, saving its devices and loading them, the last took 144 of 682 ms at the target.
# Source: qemu-devel, 2024-07-26, E. Ufimtseva and P. Xu, see config/link.py.
LOAD_SHARE = 144 / 682
# Steps are short at first and grow, because the guest's speed changes most behind the switch.
FIRST_STEP_NS, GROWTH, STEPS = NS_PER_S // 1000, 1.2, 200
ROUNDING = 1e-6  # pages that sums of floats may lack


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
        self.samples: list[PostcopySample] = []
        self.downtime_ms: float | None = None
        self._pace = PostcopyPace(state)
        self._guest = guest = TargetGuest(state, self._pace)
        self._tally = PostcopyTally(state.scenario.postcopy)
        size, layout = self._pace.size, state.scenario.layout
        found = find_missing(state.pages.kernels, layout, guest.first, guest.last, size)
        self._missing = MissingPages(found, guest.pages, size)
        self._at_switch = found.missing  # float64 [pieces], host pages
        self.runs = int(found.runs.sum())
        pages = round(float(found.normal.sum() + found.zero.sum()))
        self.pages = max(pages, state.pages.pending)  # expected shares are rounded otherwise
        self.added_pages = self.pages - state.pages.pending
        self._zero_pages = round(float(found.zero.sum()))  # of `pages`
        self._normal_sent, self._zero_sent = 0.0, 0.0  # pages that have arrived
        self._counted = 0, 0  # the same in the migration's counters, as whole numbers
        self._zero_share = 0.0  # of the background's time in the last step
        self._waiting: list[tuple[float, int]] = []  # requests that nobody answers, and since when
        self._started_ns = self._resumed_ns = state.clock.now_ns  # until `run` sets them
        while state.pages.pending:  # from now on they are in `_missing`
            state.pages.take([(UNLIMITED, 1, 1)])
        state.postcopy_pages = self.pages

    @property
    def discard_ns(self) -> int:
        """The time in which the target drops what it has of the dirty pages."""
        return self._pace.discard_ns(self.runs)

    def run(self, resumes_ns: int) -> bool:
        """Send until the last page has arrived. Return whether it did within the simulated limit.

        Args:
            resumes_ns: when the guest runs at the target. Pages are sent from now on.
        """
        state, clock = self._state, self._state.clock
        self._started_ns, self._resumed_ns = clock.now_ns, resumes_ns
        self._tally.slow_until_ns = resumes_ns
        step_ns: int = FIRST_STEP_NS
        while state.postcopy_pages and clock.now_ns < state.scenario.simulated_limit_ns:
            state.limit.check()
            most_ns = self._longest_step_ns()
            if not state.link_is_lost:  # while it is lost, no page arrives that a step could miss
                step_ns = min(step_ns, most_ns)
            until_ns = self._step_end_ns(step_ns, most_ns)
            if state.link_is_lost:
                self._wait_for_link(until_ns)
            else:
                self._advance(until_ns)
            clock.run_to(until_ns)
            self._recorder.sample_if_due()
            self._recorder.observe_if_due()
            step_ns = math.ceil(step_ns * GROWTH)
        clock.run_to(max(clock.now_ns, resumes_ns))  # its start holds the big lock
        behind_zeros_ns = self._pace.behind_zeros_ns
        if behind_zeros_ns is not None and self._zero_pages:
            self._tally.move_behind_zeros(behind_zeros_ns)
        return not state.postcopy_pages

    def _longest_step_ns(self) -> int:
        """Return the longest step at the present pace. All pages together take STEPS of them."""
        page_ns = self._missing.costs(self._pace.page_ns())
        return max(
            FIRST_STEP_NS // 100, math.ceil(float((self._at_switch * page_ns).sum()) / STEPS)
        )

    def _step_end_ns(self, step_ns: int, most_ns: int) -> int:
        """Return when a step ends. At its end nothing changes that holds within the step.

        Args:
            step_ns: its length if nothing else ends it.
            most_ns: the longest step while pages arrive. The last step is up to twice as long.
        """
        state, now_ns = self._state, self._state.clock.now_ns
        limit_ns = state.scenario.simulated_limit_ns
        if state.link_is_lost and self._free_threads < LEAST:
            step_ns = limit_ns  # nothing happens until the link is there again
        left_ns = math.ceil(self._missing.left(self._pace.page_ns()))
        if left_ns <= 2 * most_ns and not state.link_is_lost:
            step_ns = left_ns
        changes = self._resumed_ns, self._next_change_ns(), self._pace.next_change_ns, limit_ns
        return min(now_ns + max(1, step_ns), *(at_ns for at_ns in changes if at_ns > now_ns))

    def _advance(self, until_ns: int) -> None:
        """Let pages arrive up to a time."""
        length_ns = until_ns - self._state.clock.now_ns
        self._answer_waiting()
        step = None
        if self._state.clock.now_ns >= self._resumed_ns:
            step = self._guest.find_step(self._missing, length_ns, self._zero_share)
        costs = self._pace.page_ns()
        budget_ns = float(length_ns)
        if step is not None:
            budget_ns -= self._answer(step, costs)
            self._guest.run(step.speed, length_ns)
            self._tally.add_step(step, length_ns)
            self._tally.add_speed(step.speed, self._guest.busy_vcpus, length_ns, until_ns)
        if budget_ns > 0:
            self._send_in_background(step, budget_ns, costs)
        if self._missing.left(costs) < 1:
            self._count(self._missing.send(self._missing.missing))
        self._update_counters(is_last=not self._missing.total)
        latency_ns = step.latency_ns if step is not None and step.requests else None
        self._add_sample(until_ns, latency_ns, 0.0 if step is None else step.speed)

    def _answer(self, step: Step, costs: tuple[float, float]) -> float:
        """Send the pages that the guest touches. Return the background's time that they take, in ns."""
        missing, pace = self._missing, self._pace
        cost_ns = float((step.touched * missing.costs(costs)).sum())
        self._count(missing.send(step.touched))
        missing.note_passed(step.in_order)
        taken_ns = 0.0 if pace.has_own_channel else cost_ns
        if not pace.has_own_thread:
            taken_ns += step.requests * self._state.scenario.postcopy.request_ns
        return taken_ns

    def _send_in_background(
        self, step: Step | None, budget_ns: float, costs: tuple[float, float]
    ) -> None:
        starts = np.zeros(len(self._missing.missing))
        if step is not None and self._pace.jumps:
            starts = step.touched
        normal, zero = self._missing.send_behind(starts, budget_ns, costs)
        self._count((normal, zero))
        spent_ns = normal * costs[0] + zero * costs[1]
        self._zero_share = zero * costs[1] / spent_ns if spent_ns else 0.0

    def _wait_for_link(self, until_ns: int) -> None:
        """Let the guest run at the target while nothing arrives."""
        now_ns, speed = self._state.clock.now_ns, 0.0
        if now_ns >= self._resumed_ns:
            length_ns = until_ns - now_ns
            speed, count = self._guest.run_without_link(
                self._missing, length_ns, self._free_threads
            )
            self._waiting.append((count, now_ns))
            self._tally.add_speed(speed, self._guest.busy_vcpus, length_ns, until_ns)
        self._add_sample(until_ns, None, speed)

    @property
    def _free_threads(self) -> float:
        """Threads of the guest that wait for no page while the link is lost."""
        waiting = sum(count for count, _ in self._waiting)
        return max(0.0, self._state.scenario.postcopy.threads - waiting)

    def _answer_waiting(self) -> None:
        """Count the requests that waited for the link. It is there again."""
        for count, since_ns in self._waiting:
            self._tally.add_answers(count, self._state.clock.now_ns - since_ns)
        self._waiting.clear()

    def _add_sample(self, until_ns: int, latency_ns: float | None, speed: float) -> None:
        self.samples.append(
            PostcopySample(
                time_s=until_ns / NS_PER_S,
                missing_bytes=self._state.postcopy_pages * self._state.scenario.page_bytes,
                requests=round(self._tally.requests),
                latency_ms=None if latency_ns is None else latency_ns / NS_PER_MS,
                guest_speed_percent=100 * speed,
            )
        )

    def _count(self, sent: tuple[float, float]) -> None:
        self._normal_sent += sent[0]
        self._zero_sent += sent[1]

    def _update_counters(self, *, is_last: bool) -> None:
        """Let the migration's counters have the pages that have arrived, as whole numbers."""
        counters, units = self._state.sender.counters, self._pace.link.page_units
        normal = min(int(self._normal_sent + ROUNDING), self.pages - self._zero_pages)
        zero = min(int(self._zero_sent + ROUNDING), self._zero_pages)
        if is_last:
            normal, zero = self.pages - self._zero_pages, self._zero_pages
        before_normal, before_zero = self._counted
        counters.normal_pages += normal - before_normal
        counters.zero_pages += zero - before_zero
        counters.sent_units += (normal - before_normal) * units[0]
        counters.sent_units += (zero - before_zero) * units[1]
        self._counted = normal, zero
        self._state.postcopy_pages = self.pages - normal - zero

    def summary(self) -> PostcopySummary:
        """Return what is known at the end."""
        tally, switched_ns = self._tally, self._state.vm_stopped_ns
        return PostcopySummary(
            postcopy_start_s=switched_ns / NS_PER_S,
            postcopy_time_s=(self._state.clock.now_ns - self._started_ns) / NS_PER_S,
            postcopy_blackout_ms=(self._resumed_ns - switched_ns) / NS_PER_MS,
            postcopy_bytes=self.pages * self._state.scenario.page_bytes,
            postcopy_discarded_runs=self.runs,
            postcopy_requests=round(tally.requests),
            postcopy_latency_ms=tally.latency_ms,
            postcopy_vcpu_blocktime_ms=tally.vcpu_blocktime_ms,
            postcopy_blocktime_ms=tally.blocktime_ms,
            postcopy_stall_vcpu_s=tally.stall_vcpu_s,
            postcopy_recovery_s=max(0, tally.slow_until_ns - self._resumed_ns) / NS_PER_S,
            postcopy_added_pages=self.added_pages,
        )

    def latency_counts(self) -> list[int]:
        """Return the number of requests in each bucket of QEMU's postcopy-latency-dist."""
        return self._tally.latency_counts()
