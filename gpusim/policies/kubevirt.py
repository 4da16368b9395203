"""The managers that two KubeVirt enhancements propose for virt-launcher.

virt-launcher polls every 400 ms. Stall detection also runs at QEMU's events MIGRATION_PASS. These
rules skip the polls that have nothing to do.

Source: kubevirt/enhancements, veps/sig-compute/291-dynamic-downtime-tuning/vep.md (286caf3458) and
248-migration-convergence/vep.md (1cc33e56ec). The defaults are those of its
migration-hyperparameters.md (1688385d9b).
"""

from __future__ import annotations

import math

from gpusim.qemu.rules import Orders, Shown
from gpusim.units import NS_PER_MS, NS_PER_S

POLL_NS = 400 * NS_PER_MS
QEMUS_DOWNTIME_MS = 300
# The limit of migration/options.c:migrate_params_check and of the enhancement.
LONGEST_DOWNTIME_MS = 2_000_000
MOST_STEPS, LONGEST_S = 1000, 1e8


def _poll_at(t_ns: float) -> int:
    """The first poll at a time or after it."""
    return int(-(-t_ns // POLL_NS)) * POLL_NS


def _check(name: str, value: float, is_allowed: bool, allowed: str) -> None:
    """Check an argument.

    Raises:
        ValueError: it is not allowed.
    """
    if not is_allowed:
        raise ValueError(f"{name} = {value!r}: must be {allowed}")


class DowntimeRamp:
    """Enhancement 291: the downtime limit rises in equal steps, at most one per cooldown.

    The document's timetable has seven limits from 150 to 1050 ms, 150 ms apart.

    Args:
        initial_ms, ceiling_ms: the first and the last limit, 1 to 2,000,000 ms.
        steps: number of limits, including the first one, 2 to 1000.
        start_after_iteration: number of syncs after which the first cooldown begins.
        cooldown_s: seconds between two steps and before the first step.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(
        self,
        initial_ms: int = 150,
        ceiling_ms: int = 1050,
        steps: int = 7,
        start_after_iteration: int = 3,
        cooldown_s: float = 10,
    ) -> None:
        _check("steps", steps, 2 <= steps <= MOST_STEPS, f"2 to {MOST_STEPS}")
        in_range = 0 < cooldown_s <= LONGEST_S
        _check("cooldown_s", cooldown_s, in_range, f"above 0 and at most {LONGEST_S:g}")
        _check("initial_ms", initial_ms, 1 <= initial_ms <= ceiling_ms, "1 to ceiling_ms")
        in_range = ceiling_ms <= LONGEST_DOWNTIME_MS
        _check("ceiling_ms", ceiling_ms, in_range, f"at most {LONGEST_DOWNTIME_MS}")
        self._limits_ms = [
            round(initial_ms + (ceiling_ms - initial_ms) * step / (steps - 1))
            for step in range(steps)
        ]
        self._start_after, self._cooldown_ns = start_after_iteration, round(cooldown_s * NS_PER_S)
        self._set = 0  # number of limits set so far
        self._started_ns: int | None = None  # the poll that finds enough iterations
        self._due_ns: int | None = None

    def look(self, shown: Shown) -> Orders:
        """Set the first limit at the first poll, and each other limit when it is due."""
        is_left = self._set < len(self._limits_ms)
        is_late = self._due_ns is not None and shown.time_ns >= self._due_ns
        is_due = self._set == 0 or (is_left and is_late)
        limit_ms = self._limits_ms[self._set] if is_due else None
        if is_due:
            self._set += 1
            if self._started_ns is not None:
                self._due_ns = _poll_at(shown.time_ns + self._cooldown_ns)
        if self._started_ns is None and shown.dirty_sync_count >= self._start_after:
            self._started_ns = _poll_at(shown.time_ns)
            self._due_ns = _poll_at(self._started_ns + self._cooldown_ns)
        return Orders(
            set={} if limit_ms is None else {"downtime_limit": limit_ms},
            again_ns=self._due_ns if self._set < len(self._limits_ms) else None,
        )


class StallDetector:
    """Enhancement 248 without post-copy and without a long pause.

    At each MIGRATION_PASS the rule compares the remaining memory with the least that remained
    `progress_timeout_s` ago or earlier. If it is not `margin_percent` lower, the migration has
    stalled. Then the rule waits until the remaining memory is near its recent minimum. If sending
    it takes at most `possible_factor` times `max_downtime_ms`, the rule sets QEMU's downtime limit
    to `max_downtime_ms`, and cancels `switchover_timeout_s` later. If it takes longer, the rule
    cancels at once. The rule also cancels when the migration's time (`completion_s_per_gib`) is
    over.

    The rule smooths the bandwidth over the events, KubeVirt over polls of 400 ms. Both are equal on
    a link with constant bandwidth.

    Args:
        progress_timeout_s: how far back to compare, and how long to wait first for a minimum.
        margin_percent: a smaller difference in remaining memory counts as none.
        max_downtime_ms: the downtime that the guest accepts.
        possible_factor: multiple of max_downtime_ms beyond which the rule cancels.
        switchover_timeout_s: time for QEMU to switch over with the new limit.
        ewma_alpha: weight of a new bandwidth sample.
        patience_decay: factor of the waiting time each time the minimum does not come again.
        search_local_minima: if False, act as soon as the migration has stalled.
        completion_s_per_gib: time of the whole migration, in seconds per GiB of guest memory.
        completion_factor: multiple of that time which sending the remaining memory may take.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(
        self,
        progress_timeout_s: float = 40,
        margin_percent: int = 4,
        max_downtime_ms: int = 900,
        possible_factor: float = 1.5,
        switchover_timeout_s: float = 60,
        ewma_alpha: float = 0.4,
        patience_decay: float = 0.5,
        search_local_minima: bool = True,
        completion_s_per_gib: float = 150,
        completion_factor: float = 2,
    ) -> None:
        for name, timeout_s in (
            ("progress_timeout_s", progress_timeout_s),
            ("switchover_timeout_s", switchover_timeout_s),
            ("completion_s_per_gib", completion_s_per_gib),
        ):
            in_range = 0 < timeout_s <= LONGEST_S
            _check(name, timeout_s, in_range, f"above 0 and at most {LONGEST_S:g}")
        for name, factor in (
            ("possible_factor", possible_factor),
            ("completion_factor", completion_factor),
            ("patience_decay", patience_decay),
        ):
            _check(name, factor, 0 <= factor < math.inf, "finite, and 0 or more")
        in_range = isinstance(max_downtime_ms, int) and 0 < max_downtime_ms <= LONGEST_DOWNTIME_MS
        allowed = f"an integer from 1 to {LONGEST_DOWNTIME_MS}"
        _check("max_downtime_ms", max_downtime_ms, in_range, allowed)
        _check("ewma_alpha", ewma_alpha, 0 < ewma_alpha <= 1, "above 0 and at most 1")
        _check("margin_percent", margin_percent, 0 <= margin_percent < 100, "0 to 99")
        self._timeout_ns = progress_timeout_s * NS_PER_S
        self._margin = margin_percent / 100
        self._max_downtime_ms, self._possible_factor = max_downtime_ms, possible_factor
        self._switchover_ns = switchover_timeout_s * NS_PER_S
        self._alpha, self._decay, self._searches = ewma_alpha, patience_decay, search_local_minima
        self._s_per_gib, self._completion_factor = completion_s_per_gib, completion_factor
        self._records: list[tuple[int, int]] = []  # (ns, bytes) of iterations in the timeout
        self._outside: int | None = None  # least remaining bytes before the timeout
        self._bandwidth = 0.0  # smoothed, bytes per second
        self._best: float | None = None  # bytes to reach after a stall
        self._history: list[int] = []
        self._patience_ns, self._relax_ns = 0.0, 0.0
        self._give_up_ns: int | None = None  # deadline for the switchover

    def look(self, shown: Shown) -> Orders:
        """Run the algorithm at a sync. At other polls, check the deadlines."""
        budget_s = self._s_per_gib * shown.total_bytes / 2**30
        if self._give_up_ns is not None:
            if shown.time_ns >= self._give_up_ns:
                return Orders(do="cancel", why="QEMU did not switch over in time")
            return Orders(again_ns=self._give_up_ns)
        if shown.time_ns >= budget_s * NS_PER_S:
            return Orders(do="cancel", why=f"the completion timeout of {budget_s:g} s is over")
        again_ns = _poll_at(budget_s * NS_PER_S)
        if shown.why != "sync":
            return Orders(again_ns=again_ns)
        self._sample(shown.bandwidth_bytes_per_s)
        limit_ms = min(self._max_downtime_ms, QEMUS_DOWNTIME_MS)
        if shown.dirty_sync_count == 1 and limit_ms < shown.downtime_limit_ms:
            orders = Orders(set={"downtime_limit": limit_ms}, again_ns=again_ns)
        else:
            orders = Orders(again_ns=again_ns)
        if not self._at_minimum(shown.time_ns, shown.remaining_bytes) or not self._bandwidth:
            return orders
        implied_ms = 1000 * shown.remaining_bytes / self._bandwidth
        left_ms = 1000 * budget_s * self._completion_factor - shown.time_ns / NS_PER_MS
        return orders if implied_ms > left_ms else self._act(shown.time_ns, implied_ms)

    def _sample(self, bandwidth: float) -> None:
        if bandwidth:
            before = self._bandwidth or bandwidth
            self._bandwidth = self._alpha * bandwidth + (1 - self._alpha) * before

    def _act(self, now_ns: int, implied_ms: float) -> Orders:
        hopeless_ms = self._max_downtime_ms * self._possible_factor
        if implied_ms > hopeless_ms:
            why = (
                f"the migration stalled, and a downtime of {implied_ms:.0f} ms "
                f"exceeds the possible {hopeless_ms:.0f} ms"
            )
            return Orders(do="cancel", why=why)
        self._give_up_ns = _poll_at(now_ns + self._switchover_ns)
        return Orders(set={"downtime_limit": self._max_downtime_ms}, again_ns=self._give_up_ns)

    def _at_minimum(self, now_ns: int, remaining: int) -> bool:
        """Whether the migration has stalled and the remaining memory is near its minimum."""
        if self._best is None:
            if not self._has_stalled(now_ns, remaining):
                return False
        elif self._searches:
            self._history.append(remaining)
            if not self._near(remaining) and now_ns >= self._relax_ns:
                self._best = min(self._history)
                self._history.remove(min(self._history))
                self._patience_ns *= self._decay
                self._relax_ns = now_ns + self._patience_ns
        return not self._searches or self._near(remaining)

    def _has_stalled(self, now_ns: int, remaining: int) -> bool:
        self._records.append((now_ns, remaining))
        while self._records and self._records[0][0] <= now_ns - self._timeout_ns:
            old = self._records.pop(0)[1]
            self._outside = old if self._outside is None else min(self._outside, old)
        if self._outside is None or remaining < self._outside * (1 - self._margin):
            return False
        self._best = min(self._outside, *(bytes_ for _, bytes_ in self._records))
        self._patience_ns = self._timeout_ns
        self._relax_ns = now_ns + self._patience_ns
        return True

    def _near(self, remaining: int) -> bool:
        assert self._best is not None
        return remaining <= self._best * (1 + self._margin)
