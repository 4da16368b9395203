"""The contracts of rules: QEMU's own rules, and classes of the user.

Four rules are decisions of QEMU: when the throttle rises, when a timer forces a sync, when the VM
is stopped, and which bandwidth QEMU expects then. The fifth rule, a manager, stands outside QEMU, as
libvirt and KubeVirt do. It polls QEMU and sets parameters. docs/how-to/write-a-rule.md shows how to
name a user's class in a config.

Rules live on simulated time in whole nanoseconds or milliseconds. They may keep state. They must
decide only by their arguments, because a rule that reads the wall clock, a file or random numbers
gives another run each time. gpusim makes one instance per migration. Before the run it makes one
more instance to check the arguments.

Times count from the migrate command on the host's clock, which also runs while the VM is paused.
Sizes are bytes of guest memory without headers. Only transferred bytes count bytes on the link.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol, TypeAlias

from gpusim.errors import CodedError
from gpusim.qemu.parameters import Parameters
from gpusim.qemu.sync import Period, Sync

Command: TypeAlias = Literal["pause", "resume", "cancel", "start-postcopy", "recover"]
COMMANDS: tuple[Command, ...] = ("pause", "resume", "cancel", "start-postcopy", "recover")


class RuleError(CodedError, ValueError):
    """A user's rule fails, or breaks its contract, during a run.

    If the rule raised, then `__cause__` is what it raised.
    """

    texts: ClassVar[Mapping[str, str]] = {
        "rule_failed": "{rule}.{member} raised {reason}, at {place}. "
        "A rule must not raise. Correct it, or catch the exception there",
        "rule_answer": "{rule}.{member} = {value}: must be {allowed}, at {place}",
        "rule_order": "{rule}.look ordered {problem}, at {place}",
        "no_time_passes": "{rule}: at {time_s:g} s QEMU's main loop turns for ever and no time "
        "passes. acts and ready must return True for {pending_bytes} pending bytes, at {place}",
    }


class ThrottlePolicy(Protocol):
    """When the throttle rises. gpusim makes it as `Rule(parameters, **args)`.

    You can extend QEMU's rule, `gpusim.qemu.throttle.ThrottleRule`. It has all members. A rule
    needs the methods `on_sync` and `on_period`, the three attributes, and the property `exhausted`.

    Attributes:
        parameters: migration parameters. gpusim replaces them if they are set during the migration.
        percent: the throttle, 1 to 99. gpusim reads it after a method has returned True. The guest
            feels it from the next tick of its slices on, at most 10 ms of running later.
        dirty_rate_high_cnt: a column of syncs.csv. 0 if a rule has no such count.
    """

    parameters: Parameters
    percent: int
    dirty_rate_high_cnt: int

    def on_sync(self, sync: Sync) -> bool:
        """Return whether to set `percent`, after a sync of any kind. QEMU's rule returns False."""

    def on_period(self, period: Period) -> bool:
        """Return whether to set `percent`, after a sync that closed a period.

        gpusim calls it directly after `on_sync`.
        """

    @property
    def exhausted(self) -> bool:
        """Whether the throttle cannot rise any more.

        gpusim reads it after each sync. Only if it is True may gpusim stop a migration that makes
        no progress (`limit.stop_when_stuck`). A rule that always returns False is never stopped. If
        no throttle will ever rise, for example without auto-converge, return True.
        """


class SyncTimerPolicy(Protocol):
    """When a timer forces a sync. gpusim makes it as `Rule(interval_ns, state, **args)`.

    `interval_ns` is migration.fallback_sync_interval. `state` is the attribute `state` that an
    earlier migration in the same QEMU process has left, or None. You can extend QEMU's rule,
    `gpusim.qemu.sync_timer.SyncTimerRule`. Most rules only change `tick_ns` or `wants_sync`. The
    timer does not run while the VM is paused. It is armed only with auto-converge.

    Attributes:
        tick_ns: time from the end of a tick to the next tick, an int of 1 ms or more. gpusim reads
            it after each tick.
        state: the state that the next migration in the process gets.
        starts_with_period, stops_under_lock, needs_auto_converge: see SyncTimerRule.
        syncs_from_count: no tick syncs below this dirty_sync_count. 2 excludes the first pass.
    """

    tick_ns: int
    state: Any
    starts_with_period: bool
    stops_under_lock: bool
    needs_auto_converge: bool
    syncs_from_count: int

    def start(self) -> bool:
        """Start with the migration. Return whether to arm the timer, `tick_ns` from now."""

    def stop(self) -> None:
        """Stop after the migration has ended."""

    def wants_sync(self, dirty_sync_count: int, period_ns: int) -> bool:
        """Return whether a tick forces a sync. gpusim calls it once per tick of a user's rule.

        Args:
            dirty_sync_count: the count that QEMU reports, see `Shown`. 1 in the first pass.
            period_ns: length of the open period.
        """

    def after_tick(self, dirty_sync_count: int) -> None:
        """End a tick. Up to QEMU 11.0 the count includes the sync that the tick forced."""


class SyncTimer(SyncTimerPolicy, Protocol):
    """The timer rule that the engine asks: QEMU's own, or a user's behind checks.

    Attributes:
        percent, starts_after_setup: see SyncTimerRule. A user's rule need not have them, and gpusim
            neither reads nor sets them there.
    """

    percent: int
    starts_after_setup: bool


class SwitchoverPolicy(Protocol):
    """When the main loop syncs, and when it stops the VM. gpusim makes it as `Rule(**args)`.

    The threshold is the number of bytes that fit the downtime limit at the expected bandwidth. QEMU
    expects the bandwidth of the last window. The threshold is 0 before the first window closes. You
    can extend QEMU's rule, `gpusim.qemu.switchover.SwitchoverRule`.

    The methods must not change state, because gpusim calls them ahead of time and any number of
    times. If `acts` is true for an estimate, then it must be true for all smaller estimates. The
    sender searches for the first estimate that acts.
    """

    def wants_sync(self, estimate_bytes: int, threshold_bytes: int) -> bool:
        """Return whether to sync now. The estimate is the pending memory in the bitmap."""

    def ready(self, pending_bytes: int, threshold_bytes: int) -> bool:
        """Return whether to stop the VM. gpusim calls it at a turn that acts, after its sync."""

    def acts(self, estimate_bytes: int, threshold_bytes: int) -> bool:
        """Return whether a turn with this estimate may sync or stop the VM."""


@dataclass(frozen=True, kw_only=True)
class Windows:
    """Equal windows of the sender that have ended, one after the other.

    Attributes:
        count: number of windows.
        bandwidth: bytes per second of each.
        sent_bytes: bytes on the link in each.
        length_ns: length of each. QEMU's windows last 100 ms, or longer if a burst or a sync does.
        sync_ns: time of each in which a sync held the sender up.
    """

    count: int
    bandwidth: float
    sent_bytes: int
    length_ns: int
    sync_ns: int


class BandwidthPolicy(Protocol):
    """Which bandwidth QEMU expects for the switchover. gpusim makes it as `Rule(**args)`.

    The bytes that fit the downtime limit at this bandwidth are the threshold. You can extend
    QEMU's rule, `gpusim.qemu.bandwidth.LastWindow`.
    """

    def end_windows(self, windows: Windows) -> float:
        """Return the expected bandwidth in bytes per second, 0 or more.

        gpusim calls it at the end of each window. Equal windows without a sync may come in one
        call. The result after any of them must be at most the larger of two values: the result
        before them, and their bandwidth.
        """


@dataclass(frozen=True, kw_only=True)
class Shown:
    """The values that query-migrate and query-migrate-parameters show to a manager.

    Attributes:
        why: "sync": the event MIGRATION_PASS has come. QEMU sends it when dirty_sync_count rises.
            "time": the manager asked for this poll, or the setup has ended without the event.
        time_ns: time since the migrate command.
        dirty_sync_count: libvirt's memory iteration. Up to QEMU 11.0 it is the number of syncs so
            far. Since 11.1 it is 1 in the first pass, and only the main loop's own syncs add to it.
        remaining_bytes, total_bytes: bytes of guest memory.
        transferred_bytes: bytes on the link.
        dirty_pages_rate: pages per second in the last closed period. 0 before the first.
        bandwidth_bytes_per_s: bandwidth of the last closed window of 100 ms. 0 before the first.
        cpu_throttle_percentage: the throttle. 0: none.
        expected_downtime_ms: expected-downtime. If 11.1 knows no bandwidth, then it is 2^63 - 1.
        downtime_limit_ms: the downtime limit.
        vm_runs: False while the VM is paused.
    """

    why: Literal["sync", "time"]
    time_ns: int
    dirty_sync_count: int
    remaining_bytes: int
    total_bytes: int
    transferred_bytes: int
    dirty_pages_rate: int
    bandwidth_bytes_per_s: float
    cpu_throttle_percentage: int
    downtime_limit_ms: int
    vm_runs: bool
    expected_downtime_ms: int = 0


@dataclass(frozen=True, kw_only=True)
class Orders:
    """The orders of a manager. gpusim executes them at once, in the order of the attributes.

    Attributes:
        set: parameters under QEMU's names, as in `schedule`: {"downtime_limit": 600}.
        do: pause, resume, cancel or start-postcopy, which needs postcopy_ram. None: no action.
        why: the reason of a cancel, for people. It becomes part of the run's reason.
        again_ns: time of the next poll besides the syncs. An earlier time counts as now, and gpusim
            polls 1 ms later at the earliest. None: poll only at syncs. A manager that may still act
            must give a time, because gpusim may stop a migration without progress that nobody waits
            for (`limit.stop_when_stuck`).
    """

    set: Mapping[str, Any] = field(default_factory=dict)
    do: Command | None = None
    why: str = ""
    again_ns: int | None = None


class Manager(Protocol):
    """The role of libvirt, Nova or KubeVirt. gpusim makes it as `Rule(**args)`.

    Each poll costs simulation time. A real manager may poll twice per second. Ask only for the next
    poll that has something to do.
    """

    def look(self, shown: Shown) -> Orders:
        """Poll the migration and return orders.

        gpusim calls it at the end of the setup, at the end of each later sync that dirty_sync_count
        counts, and at the times that the manager asked for. It does not call it at the final sync.
        The main loop answers no poll while a sync holds the big lock, so `shown.time_ns` may be
        later than the time asked for. Each result replaces the `again_ns` of the one before.
        """
