"""virt-launcher's monitor of a live migration, in the three ways that KubeVirt has.

`KubeVirt` is the released monitor: a timeout per GB, and the downtime ramp of enhancement 291 behind
the feature gate MigrationDowntimeTuning. `KubeVirtStall` is the stall detector of enhancement 248
behind the gate MigrationStallDetection. Both gates are alpha in v1.9.0.

virt-launcher polls every 400 ms. These rules skip the polls that have nothing to do. They leave out
progressTimeout, which only a dead link sets off, and VMs with VFIO devices.

Source: kubevirt/kubevirt, pkg/virt-launcher/virtwrap/migration-monitor.go (92ddd78bcf),
stall-detector.go (7e450c8bc8), manager.go:getVMIMigrationDataSize, pkg/virt-config/virt-config.go
(00182f1eea). Defaults of the stall detector and maxDowntimeMs: kubevirt/enhancements,
veps/sig-compute/248-migration-convergence/migration-hyperparameters.md (1688385d9b).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from gpusim.errors import ArgumentError
from gpusim.policies.arguments import check_flag, check_number, check_whole
from gpusim.policies.vm_size import spec_bytes
from gpusim.qemu.parameters import MOST_DOWNTIME_LIMIT_MS
from gpusim.qemu.rules import Orders, Shown
from gpusim.units import GB, NS_PER_MS, NS_PER_S

POLL_NS = 400 * NS_PER_MS
QEMUS_DOWNTIME_MS = 300
MOST_STEPS, LONGEST_S = 1000, 10**8


def completion_timeout_s(total_bytes: int, per_gib: int) -> int:
    """Return the time that a migration may take, in s.

    KubeVirt calls the factor completionTimeoutPerGiB, but it counts GB of 10^9 bytes, rounded up.

    Args:
        total_bytes: guest memory that QEMU migrates.
        per_gib: completionTimeoutPerGiB.
    """
    return per_gib * math.ceil(spec_bytes(total_bytes) / GB)


class KubeVirt:
    """The released monitor: a timeout, and what happens then. It may also raise the downtime limit.

    Args:
        completion_timeout_per_gib: s per GB of guest memory. 0: no timeout.
        allow_workload_disruption: at the timeout, pause the VM instead of aborting. KubeVirt then
            aborts at twice the timeout.
        allow_post_copy: at the timeout, switch to post-copy. It needs allow_workload_disruption.
        downtime_tuning: raise the downtime limit (enhancement 291). The other arguments count only
            then.
        max_downtime_ms: the highest limit, 1 to 2,000,000 ms.
        initial_ms: the first limit, 1 ms to max_downtime_ms.
        steps: number of steps from the first limit to the highest, 1 to 1000. Each step is a whole
            number of ms, so a last, smaller step may follow.
        start_after_iteration: raise the limit only after this number of syncs.
        cooldown_s: s between two changes of the limit, 1 or more.

    Attributes:
        limits_ms: the downtime limits in their order. Empty without downtime_tuning.
        required_settings: keys of `migration` that KubeVirt sets, and their values.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(
        self,
        completion_timeout_per_gib: int = 150,
        allow_workload_disruption: bool = False,
        allow_post_copy: bool = False,
        downtime_tuning: bool = False,
        max_downtime_ms: int = 900,
        initial_ms: int = 150,
        steps: int = 7,
        start_after_iteration: int = 3,
        cooldown_s: int = 10,
    ) -> None:
        check_whole("completion_timeout_per_gib", completion_timeout_per_gib, 0, LONGEST_S)
        check_whole("max_downtime_ms", max_downtime_ms, 1, MOST_DOWNTIME_LIMIT_MS)
        check_whole("initial_ms", initial_ms, 1, max_downtime_ms)
        check_whole("steps", steps, 1, MOST_STEPS)
        check_whole("start_after_iteration", start_after_iteration, 0, LONGEST_S)
        check_whole("cooldown_s", cooldown_s, 1, LONGEST_S)
        check_flag("downtime_tuning", downtime_tuning)
        _check_post_copy(allow_post_copy, allow_workload_disruption)
        self._per_gib, self._disrupts = completion_timeout_per_gib, allow_workload_disruption
        self._post_copy = allow_post_copy
        self.required_settings = _required_settings(allow_post_copy)
        self._has_switched = False  # to post-copy
        step_ms = max((max_downtime_ms - initial_ms) // steps, 1)
        rising = [*range(initial_ms, max_downtime_ms, step_ms), max_downtime_ms]
        self.limits_ms = tuple(rising) if downtime_tuning else ()
        self._start_after, self._cooldown_ns = start_after_iteration, cooldown_s * NS_PER_S
        self._left_ms = list(self.limits_ms)  # limits to come
        self._tuned_ns: int | None = None  # the last change of the limit
        self._timeout_s = 0  # doubles with the pause
        self._is_paused = False

    @property
    def pace(self) -> dict[str, int]:
        """When the limit rises: after how many syncs, and how many s apart."""
        return {"syncs": self._start_after, "cooldown_s": self._cooldown_ns // NS_PER_S}

    @property
    def at_timeout(self) -> str:
        """What KubeVirt does at the timeout: abort, pause or post_copy."""
        if not self._disrupts:
            return "abort"
        return "post_copy" if self._post_copy else "pause"

    def timeout_s(self, total_bytes: int) -> int:
        """Return the time that a migration of a VM may take, in s. 0: no timeout."""
        return completion_timeout_s(total_bytes, self._per_gib)

    def look(self, shown: Shown) -> Orders:
        """Raise the limit if that is due, and check the timeout. Do nothing in post-copy."""
        if self._has_switched:
            return Orders()
        if self._timeout_s == 0:
            self._timeout_s = completion_timeout_s(shown.total_bytes, self._per_gib)
        settings = {}
        tune_ns = self._tune_ns(shown)
        if tune_ns is not None and shown.time_ns >= tune_ns:
            settings = {"downtime_limit": self._left_ms.pop(0)}
            self._tuned_ns = shown.time_ns
        if self._timeout_s and shown.time_ns >= _late_ns(self._timeout_s):
            return self._end()
        due_ns = [] if (tune_ns := self._tune_ns(shown)) is None else [tune_ns]
        if self._timeout_s:
            due_ns.append(_late_ns(self._timeout_s))
        return Orders(set=settings, again_ns=min(due_ns, default=None))

    def _tune_ns(self, shown: Shown) -> int | None:
        """Return the poll that changes the limit. None: there is none, or it is not known yet."""
        if not self._left_ms:
            return None
        if self._tuned_ns is None:
            return POLL_NS
        if shown.dirty_sync_count < self._start_after:
            return None
        return _poll_at(max(self._tuned_ns + self._cooldown_ns, shown.time_ns))

    def _end(self) -> Orders:
        timeout_s = self._timeout_s
        why = f"not completed within {timeout_s} s"
        if not self._disrupts or self._is_paused:
            return Orders(do="cancel", why=why)
        if self._post_copy:
            self._has_switched = True
            return Orders(do="start-postcopy")
        self._is_paused, self._timeout_s = True, 2 * timeout_s
        return Orders(do="pause", again_ns=_late_ns(self._timeout_s))


class KubeVirtStall:
    """Enhancement 248: a stalled migration gets a longer downtime limit, or is cancelled.

    At each MIGRATION_PASS the rule compares the remaining memory with the least that remained
    `stall_progress_timeout` ago or earlier. If it is not `stall_margin` percent lower, the migration
    has stalled. Then the rule waits until the remaining memory is near its recent minimum. If
    sending it takes at most `precopy_possible_factor` times `max_downtime_ms`, the rule sets QEMU's
    downtime limit to `max_downtime_ms`, and aborts `switchover_timeout` later. If it takes longer,
    the rule aborts at once. The rule also aborts at the timeout of the whole migration.

    The rule smooths the bandwidth over the events, KubeVirt over its polls. Both are equal on a link
    with constant bandwidth.

    Args:
        stall_progress_timeout: s: how far back to compare, and how long to wait first for a minimum.
        stall_margin: percent. A smaller difference in remaining memory counts as none.
        max_downtime_ms: the downtime that the guest accepts.
        precopy_possible_factor: multiple of max_downtime_ms beyond which the rule aborts, 1 or more.
        switchover_timeout: s for QEMU to switch over with the new limit.
        ewma_alpha: weight of a new bandwidth sample.
        patience_window_decay_factor: factor of the waiting time each time the minimum does not come
            again, 0 to 1.
        search_local_minima: if False, act as soon as the migration has stalled.
        completion_timeout_per_gib: s per GB of guest memory for the whole migration. 0: no timeout.
        completion_timeout_factor: multiple of that time which sending the remaining memory may take.
        allow_workload_disruption: force the switchover of a stalled migration, with a downtime limit
            of 2000 s.
        allow_post_copy: switch a stalled migration to post-copy. It needs allow_workload_disruption.

    Attributes:
        required_settings: keys of `migration` that KubeVirt sets, and their values.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(
        self,
        stall_progress_timeout: int = 40,
        stall_margin: int = 4,
        max_downtime_ms: int = 900,
        precopy_possible_factor: float = 1.5,
        switchover_timeout: int = 60,
        ewma_alpha: float = 0.4,
        patience_window_decay_factor: float = 0.5,
        search_local_minima: bool = True,
        completion_timeout_per_gib: int = 150,
        completion_timeout_factor: float = 2,
        allow_workload_disruption: bool = False,
        allow_post_copy: bool = False,
    ) -> None:
        check_whole("stall_progress_timeout", stall_progress_timeout, 1, LONGEST_S)
        check_whole("stall_margin", stall_margin, 0, 99)
        check_whole("max_downtime_ms", max_downtime_ms, 1, MOST_DOWNTIME_LIMIT_MS)
        check_whole("switchover_timeout", switchover_timeout, 1, LONGEST_S)
        check_whole("completion_timeout_per_gib", completion_timeout_per_gib, 0, LONGEST_S)
        check_number("precopy_possible_factor", precopy_possible_factor, 1, LONGEST_S)
        check_number("completion_timeout_factor", completion_timeout_factor, 1, LONGEST_S)
        check_number("patience_window_decay_factor", patience_window_decay_factor, 0, 1)
        check_number("ewma_alpha", ewma_alpha, 1e-6, 1)
        check_flag("search_local_minima", search_local_minima)
        _check_post_copy(allow_post_copy, allow_workload_disruption)
        self._timeout_ns = stall_progress_timeout * NS_PER_S
        self._margin = stall_margin / 100
        self._most_ms, self._possible_factor = max_downtime_ms, precopy_possible_factor
        self._switchover_s, self._alpha = switchover_timeout, ewma_alpha
        self._decay, self._searches = patience_window_decay_factor, search_local_minima
        self._per_gib, self._completion_factor = (
            completion_timeout_per_gib,
            completion_timeout_factor,
        )
        self._disrupts, self._post_copy = allow_workload_disruption, allow_post_copy
        self.required_settings = _required_settings(allow_post_copy)
        self._has_switched = False  # to post-copy
        self._completion_s: int | None = None
        self._deadline_s = 0  # for the switchover. 0: none
        self._is_switching = False
        self._records: list[tuple[int, int]] = []  # (ns, bytes) of iterations in the timeout
        self._outside: int | None = None  # least remaining bytes before the timeout
        self._last_bytes = 0  # remaining at the last iteration
        self._bandwidth = 0.0  # smoothed, bytes per second
        self._best: int | None = None  # bytes to reach after a stall
        self._history: list[int] = []
        self._patience_ns, self._relax_ns = 0, 0

    @property
    def limits(self) -> dict[str, int]:
        """The first downtime limit, the one after a stall (ms), and stall_progress_timeout (s)."""
        return {
            "first_ms": min(self._most_ms, QEMUS_DOWNTIME_MS),
            "last_ms": MOST_DOWNTIME_LIMIT_MS if self._disrupts else self._most_ms,
            "stall_s": self._timeout_ns // NS_PER_S,
        }

    @property
    def at_timeout(self) -> str:
        """What KubeVirt does at the timeout: abort, force or post_copy."""
        if not self._disrupts:
            return "abort"
        return "post_copy" if self._post_copy else "force"

    def timeout_s(self, total_bytes: int) -> int:
        """Return the time that a migration of a VM may take, in s. 0: no timeout."""
        return completion_timeout_s(total_bytes, self._per_gib)

    def look(self, shown: Shown) -> Orders:
        """Run the algorithm at a sync, and check the deadline at every poll.

        In post-copy there is nothing left to do.
        """
        if self._has_switched:
            return Orders()
        if self._completion_s is None:
            self._completion_s = completion_timeout_s(shown.total_bytes, self._per_gib)
            self._deadline_s = self._completion_s
        orders = self._iterate(shown) if shown.why == "sync" else Orders()
        is_late = self._deadline_s and shown.time_ns >= _late_ns(self._deadline_s)
        if is_late and orders.do is None:
            orders = self._at_deadline(shown)
        if orders.do is not None:
            return orders
        again_ns = _late_ns(self._deadline_s) if self._deadline_s else None
        return Orders(set=orders.set, again_ns=again_ns)

    def _iterate(self, shown: Shown) -> Orders:
        first_ms = min(self._most_ms, QEMUS_DOWNTIME_MS)
        if shown.dirty_sync_count == 1 and first_ms != shown.downtime_limit_ms:
            return Orders(set={"downtime_limit": first_ms})
        if bandwidth := shown.bandwidth_bytes_per_s:
            before = self._bandwidth or bandwidth
            self._bandwidth = self._alpha * bandwidth + (1 - self._alpha) * before
        self._last_bytes = shown.remaining_bytes
        if not self._bandwidth or self._is_switching:
            return Orders()
        if not self._has_stalled(shown.time_ns, shown.remaining_bytes):
            return Orders()
        if self._searches and not self._near(shown.remaining_bytes):
            return Orders()
        return self._act(shown) if self._is_completable(shown.time_ns) else Orders()

    def _act(self, shown: Shown) -> Orders:
        """Act at a local minimum of the remaining memory."""
        self._is_switching, implied_ms = True, self._implied_ms()
        why = f"the migration stalled, and the rest takes {implied_ms} ms"
        if self._post_copy:
            return self._switch_to_post_copy()
        hopeless_ms = self._most_ms * self._possible_factor
        if not self._disrupts and implied_ms > hopeless_ms:
            why = f"{why}, which exceeds the possible {hopeless_ms:.0f} ms"
            return Orders(do="cancel", why=why)
        return self._switch(shown, MOST_DOWNTIME_LIMIT_MS if self._disrupts else self._most_ms)

    def _switch_to_post_copy(self) -> Orders:
        self._has_switched = True
        return Orders(do="start-postcopy")

    def _switch(self, shown: Shown, limit_ms: int) -> Orders:
        self._is_switching = True
        self._deadline_s = shown.time_ns // NS_PER_S + self._switchover_s
        return Orders(set={"downtime_limit": limit_ms})

    def _at_deadline(self, shown: Shown) -> Orders:
        """Act when the time for the migration, or for the switchover, is over."""
        what = "the switchover did not come" if self._is_switching else "not completed"
        why = f"{what} within {self._deadline_s} s"
        if self._disrupts and not self._is_switching and self._is_completable(shown.time_ns):
            if self._post_copy:
                return self._switch_to_post_copy()
            return self._switch(shown, MOST_DOWNTIME_LIMIT_MS)
        return Orders(do="cancel", why=why)

    def _implied_ms(self) -> int:
        return int(1000 * self._last_bytes / self._bandwidth)

    def _is_completable(self, now_ns: int) -> bool:
        """Whether the rest can be sent in the time that is left."""
        if not self._bandwidth:
            return False
        budget_s = int((self._completion_s or 0) * self._completion_factor) - now_ns // NS_PER_S
        return self._implied_ms() <= 1000 * budget_s

    def _has_stalled(self, now_ns: int, remaining: int) -> bool:
        """Note an iteration. Return whether the migration has stalled, now or before."""
        self._records.append((now_ns, remaining))
        while self._records[0][0] <= now_ns - self._timeout_ns:
            old = self._records.pop(0)[1]
            self._outside = old if self._outside is None else min(self._outside, old)
        if self._best is not None:
            self._relax(now_ns, remaining)
            return True
        if self._outside is None or remaining < int(self._outside * (1 - self._margin)):
            return False
        self._best = min(self._outside, *(bytes_ for _, bytes_ in self._records))
        self._patience_ns = self._timeout_ns
        self._relax_ns = now_ns + self._patience_ns
        return True

    def _relax(self, now_ns: int, remaining: int) -> None:
        """Accept a larger minimum if the best one has not come again in time."""
        self._history.append(remaining)
        if now_ns < self._relax_ns:
            return
        self._best = min(self._history)
        self._history.remove(self._best)
        self._patience_ns = int(self._patience_ns * self._decay)
        self._relax_ns = now_ns + self._patience_ns

    def _near(self, remaining: int) -> bool:
        assert self._best is not None
        return remaining <= int(self._best * (1 + self._margin))


def _poll_at(t_ns: int) -> int:
    """The first poll at a time or after it."""
    return -(-t_ns // POLL_NS) * POLL_NS


def _late_ns(timeout_s: int) -> int:
    """The first poll at which more than `timeout_s` whole seconds have passed."""
    return _poll_at((timeout_s + 1) * NS_PER_S)


def _required_settings(allow_post_copy: bool) -> Mapping[str, bool]:
    """Source: live-migration-source.go:generateMigrationFlags, MIGRATE_POSTCOPY (007bfea9ff)."""
    return {"postcopy_ram": True} if allow_post_copy else {}


def _check_post_copy(allow_post_copy: bool, allow_workload_disruption: bool) -> None:
    """Refuse post-copy without disruption, as KubeVirt's admission does."""
    check_flag("allow_workload_disruption", allow_workload_disruption)
    check_flag("allow_post_copy", allow_post_copy)
    if allow_post_copy and not allow_workload_disruption:
        raise ArgumentError("allow_post_copy", True, "needs allow_workload_disruption=true")
