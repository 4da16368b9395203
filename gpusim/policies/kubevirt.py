"""What KubeVirt's virt-launcher does to a migration, as two of its enhancements propose it.

virt-launcher looks every 400 ms, and stall detection at QEMU's events MIGRATION_PASS besides. Polls that
would find nothing to do are left out here.

Source: kubevirt/enhancements, veps/sig-compute/291-dynamic-downtime-tuning/vep.md (286caf3458) and
248-migration-convergence/vep.md (1cc33e56ec), defaults of its migration-hyperparameters.md (1688385d9b).
"""

from __future__ import annotations

import math

from gpusim.qemu.rules import Orders, Shown
from gpusim.units import NS_PER_MS, NS_PER_S

POLL_NS = 400 * NS_PER_MS
QEMUS_DOWNTIME_MS = 300
LONGEST_DOWNTIME_MS = (
    2_000_000  # migration/options.c:migrate_params_check, and the enhancement's own
)
MOST_STEPS, LONGEST_S = 1000, 1e8


def _poll_at(t_ns: float) -> int:
    """The first poll at a time or after it."""
    return int(-(-t_ns // POLL_NS)) * POLL_NS


class DowntimeRamp:
    """Enhancement 291: the downtime limit rises in equal steps, no faster than one a cooldown.

    The document's own timetable has seven limits from 150 to 1050 ms, 150 ms apart: `steps` counts the
    first one.

    Args:
        initial_ms, ceiling_ms: the first and the last limit.
        steps: how many limits there are.
        start_after_iteration: the cooldown begins once QEMU has counted so many syncs.
        cooldown_s: between two steps, and before the first.
    """

    def __init__(
        self,
        initial_ms: int = 150,
        ceiling_ms: int = 1050,
        steps: int = 7,
        start_after_iteration: int = 3,
        cooldown_s: float = 10,
    ) -> None:
        if not 2 <= steps <= MOST_STEPS or not 0 < cooldown_s <= LONGEST_S:
            raise ValueError(
                f"steps are 2 to {MOST_STEPS}, cooldown_s is above 0, up to {LONGEST_S:g}"
            )
        if not 1 <= initial_ms <= ceiling_ms <= LONGEST_DOWNTIME_MS:
            raise ValueError("1 <= initial_ms <= ceiling_ms <= 2000000")
        self._limits_ms = [
            round(initial_ms + (ceiling_ms - initial_ms) * step / (steps - 1))
            for step in range(steps)
        ]
        self._start_after, self._cooldown_ns = start_after_iteration, round(cooldown_s * NS_PER_S)
        self._taken = 0  # limits set so far
        self._seen_ns: int | None = None  # when the poll sees that the iterations have come
        self._due_ns: int | None = None

    def look(self, shown: Shown) -> Orders:
        """Set the first limit at once, the others when they are due."""
        left = self._taken < len(self._limits_ms)
        in_time = self._due_ns is not None and shown.time_ns >= self._due_ns
        due = self._taken == 0 or (left and in_time)
        limit_ms = self._limits_ms[self._taken] if due else None
        if due:
            self._taken += 1
            if self._seen_ns is not None:
                self._due_ns = _poll_at(shown.time_ns + self._cooldown_ns)
        if self._seen_ns is None and shown.dirty_sync_count >= self._start_after:
            self._seen_ns = _poll_at(shown.time_ns)
            self._due_ns = _poll_at(self._seen_ns + self._cooldown_ns)
        return Orders(
            set={} if limit_ms is None else {"downtime_limit": limit_ms},
            again_ns=self._due_ns if self._taken < len(self._limits_ms) else None,
        )


class StallDetector:
    """Enhancement 248, where post-copy and a long pause are not allowed: stalled, it acts at a local minimum.

    At each MIGRATION_PASS it compares what remains with the least that remained `progress_timeout_s` ago
    or earlier; not `margin_percent` below that, the migration has stalled. Where what remains is then near
    the least of late, and would take no longer than `possible_factor` times `max_downtime_ms`, it sets
    QEMU's limit to `max_downtime_ms` and cancels `switchover_timeout_s` later; where it would take
    longer, it cancels at once. It cancels as well when `completion_s_per_gib` is up.

    The bandwidth is smoothed over the events, not over polls of 400 ms: the same where the wire is steady.

    Args:
        progress_timeout_s: how far back it compares, and how long it first waits for a minimum.
        margin_percent: what is as good as the same.
        max_downtime_ms: what a guest may stand still.
        possible_factor: of max_downtime_ms; beyond it is hopeless.
        switchover_timeout_s: for QEMU to take the longer limit.
        ewma_alpha: weight of a new sample of the bandwidth.
        patience_decay: how much shorter it waits each time the minimum does not come again.
        search_local_minima: false: it acts as soon as it has stalled.
        completion_s_per_gib, completion_factor: the time the whole migration has, and how many times that
            an action may take.
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
        timeouts_s = (progress_timeout_s, switchover_timeout_s, completion_s_per_gib)
        if not all(0 < timeout_s <= LONGEST_S for timeout_s in timeouts_s):
            raise ValueError(f"timeouts are above 0, up to {LONGEST_S:g} s")
        if not isinstance(max_downtime_ms, int) or not 0 < max_downtime_ms <= LONGEST_DOWNTIME_MS:
            raise ValueError("max_downtime_ms is whole, from 1 to 2000000")
        factors = (possible_factor, completion_factor, patience_decay)
        if not all(0 <= factor < math.inf for factor in factors):
            raise ValueError("factors and patience_decay are 0 or more, and finite")
        if not 0 < ewma_alpha <= 1 or not 0 <= margin_percent < 100:
            raise ValueError("ewma_alpha lies above 0 and up to 1, margin_percent from 0 to 99")
        self._timeout_ns = progress_timeout_s * NS_PER_S
        self._margin = margin_percent / 100
        self._max_downtime_ms, self._possible_factor = max_downtime_ms, possible_factor
        self._switchover_ns = switchover_timeout_s * NS_PER_S
        self._alpha, self._decay, self._searches = ewma_alpha, patience_decay, search_local_minima
        self._s_per_gib, self._completion_factor = completion_s_per_gib, completion_factor
        self._records: list[tuple[int, int]] = []  # of iterations in the window: ns, bytes
        self._outside: int | None = None  # the least before the window, bytes
        self._bandwidth = 0.0  # smoothed, bytes a second
        self._best: float | None = None  # bytes to come down to, once it has stalled
        self._history: list[int] = []
        self._patience_ns, self._relax_ns = 0.0, 0.0
        self._give_up_ns: int | None = None  # when QEMU has not switched over by then

    def look(self, shown: Shown) -> Orders:
        """At a sync the algorithm; at other times one of the deadlines is over."""
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
            why = f"stalled, with {implied_ms:.0f} ms of downtime where {hopeless_ms:.0f} ms are possible"
            return Orders(do="cancel", why=why)
        self._give_up_ns = _poll_at(now_ns + self._switchover_ns)
        return Orders(set={"downtime_limit": self._max_downtime_ms}, again_ns=self._give_up_ns)

    def _at_minimum(self, now_ns: int, remaining: int) -> bool:
        """Whether it has stalled and what remains is as little as can be hoped for."""
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
