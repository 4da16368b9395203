"""What a rule must offer, whoever wrote it: QEMU's own beside this file, or a user's class.

Three rules are QEMU's: when the throttle rises, when a timer forces a sync, when the VM is stopped. The
fourth, a manager, stands beside QEMU as libvirt or KubeVirt do: it looks at what QEMU shows and sets
parameters. docs/policies.md tells how to name a class of one's own in a config.

All of them live on simulated time, in whole nanoseconds or milliseconds. They may keep state, but must
decide by what they are told alone: a rule that asks the wall clock, a file or chance gives another run
each time. One is made for each migration, and one more, thrown away, to check its arguments.

Times count from the migrate command on the host's clock, which goes on while the VM is paused; sizes are
bytes of guest memory, headers not counted, but for what was sent, which is bytes on the wire.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from gpusim.qemu.parameters import Parameters
from gpusim.qemu.sync import Period, Sync
from gpusim.units import NS_PER_MS


class ThrottlePolicy(Protocol):
    """When the throttle rises, made as `Rule(parameters, **args)`.

    `gpusim.qemu.throttle.ThrottleRule` is QEMU's, to be extended: it has all but `on_period`'s reasons.

    Attributes:
        parameters: migration parameters; replaced by others when they are set as it runs.
        percent: the throttle, 1 to 99, once a method has returned True; read right behind it. The guest
            feels it from the next tick of its slices on, 10 ms of running away at most.
        dirty_rate_high_cnt: a column of syncs.csv; 0 where a rule has no such count.
    """

    parameters: Parameters
    percent: int
    dirty_rate_high_cnt: int

    def on_sync(self, sync: Sync) -> bool:
        """A sync has ended, of any kind. Whether `percent` is to be set. QEMU's own look at periods alone."""

    def on_period(self, period: Period) -> bool:
        """A sync has closed a period, right behind its `on_sync`. Whether `percent` is to be set."""

    @property
    def exhausted(self) -> bool:
        """Whether it will not rise any more, so that a migration that gets nowhere may be given up."""


class SyncTimerPolicy(Protocol):
    """When a timer forces a sync, made as `Rule(interval_ns, state, **args)`.

    `interval_ns` is migration.fallback_sync_interval; `state` what an earlier migration in the same QEMU
    process left in its `state`, or None. `gpusim.qemu.sync_timer.SyncTimerRule` is QEMU's, to be extended:
    most rules need no more than another `tick_ns` or `wants_sync`. The timer stands still while the VM is
    paused, and is armed under auto-converge alone.

    Attributes:
        tick_ns: from the end of a tick to the next one, 1 ms or more; read after each.
        state: what the next migration in the process is made with.
        starts_with_period, stops_under_lock, needs_auto_converge: as SyncTimerRule has them.
        syncs_from_count: no tick syncs below this dirty_sync_count; 2 spares the first pass.
    """

    tick_ns: int
    state: Any
    starts_with_period: bool
    stops_under_lock: bool
    needs_auto_converge: bool
    syncs_from_count: int

    def start(self) -> bool:
        """The migration starts. Whether the timer is to be armed, `tick_ns` from now."""

    def stop(self) -> None:
        """The migration has ended."""

    def wants_sync(self, dirty_sync_count: int, period_ns: int) -> bool:
        """A tick: whether it forces a sync. Asked once a tick of a user's rule.

        Args:
            dirty_sync_count: syncs so far, the setup's among them: 1 in the first pass.
            period_ns: how long the open period has lasted.
        """

    def after_tick(self, dirty_sync_count: int) -> None:
        """The tick is over; the count includes the sync it forced."""


def checked_tick_ns(rule: SyncTimerPolicy) -> int:
    """Its `tick_ns`, read after each tick.

    Raises:
        ValueError: it is no whole number of 1 ms or more; with less, time would stand still.
    """
    tick_ns = rule.tick_ns
    if not isinstance(tick_ns, int) or tick_ns < NS_PER_MS:
        name = type(rule).__name__
        raise ValueError(f"{name}.tick_ns = {tick_ns!r}: must be a whole number, 1 ms or more")
    return tick_ns


class SwitchoverPolicy(Protocol):
    """When the main loop asks the tracker for the truth, and when it stops the VM; made as `Rule(**args)`.

    The threshold is what fits the downtime limit at the last window's bandwidth, 0 before the first has
    closed. `gpusim.qemu.switchover.SwitchoverRule` is QEMU's, to be extended.

    None of the methods may change state: they are asked ahead of time, any number of times. And `acts`
    must hold for all smaller estimates where it holds for one, as the sender looks for the first.
    """

    def wants_sync(self, estimate_bytes: int, threshold_bytes: int) -> bool:
        """Whether to sync now, with so much left in the bitmap."""

    def ready(self, pending_bytes: int, threshold_bytes: int) -> bool:
        """Whether to stop the VM; asked at a turn that acts, after its sync if it wanted one."""

    def acts(self, estimate_bytes: int, threshold_bytes: int) -> bool:
        """Whether a turn with this estimate does anything but send: it then syncs or may be ready."""


@dataclass(frozen=True, kw_only=True)
class Shown:
    """What query-migrate shows, and query-migrate-parameters, when a manager looks.

    Attributes:
        why: sync: the event MIGRATION_PASS has come, which QEMU sends at the end of every sync, forced
            ones included; time: the manager asked for it.
        dirty_sync_count: syncs so far (libvirt's memory iteration).
        remaining_bytes, total_bytes: of guest memory.
        transferred_bytes: on the wire.
        dirty_pages_rate: of the last period that closed, pages a second; 0 before the first has.
        bandwidth_bytes_per_s: of the last window of 100 ms, 0 before the first has closed.
        cpu_throttle_percentage: 0: none.
        downtime_limit_ms: as it is set now.
        vm_runs: False while it is paused.
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


@dataclass(frozen=True, kw_only=True)
class Orders:
    """What a manager wants done, at once, in this order.

    Attributes:
        set: parameters under QEMU's names, as `schedule` sets them: {"downtime_limit": 600}.
        do: pause, resume or cancel; None: nothing.
        why: of a cancel, for people; the run's reason says it.
        again_ns: when to look next besides the syncs, a millisecond from now or later (an earlier time is
            taken as that); None: at syncs alone. One who may still act says when: a migration that gets
            nowhere while nobody is waited for is given up (`limit.stop_when_stuck`).
    """

    set: Mapping[str, Any] = field(default_factory=dict)
    do: Literal["pause", "resume", "cancel"] | None = None
    why: str = ""
    again_ns: int | None = None


class Manager(Protocol):
    """What libvirt, Nova or KubeVirt do while it migrates; made as `Rule(**args)`.

    It costs what it asks for: a management that polls twice a second is simulated by one that says when
    its next poll would find something to do.
    """

    def look(self, shown: Shown) -> Orders:
        """Called at the end of every sync, the setup's first and the last one's not, and when it asked for.

        The main loop answers no one while a sync holds the big lock: `shown.time_ns` may be later than
        what was asked for. Each answer replaces the `again_ns` of the one before.
        """
