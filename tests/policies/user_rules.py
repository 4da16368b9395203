"""Rules as a user might write them, good and bad: the targets of these tests."""

from __future__ import annotations

from typing import ClassVar

from gpusim.policies import (
    Orders,
    Period,
    Shown,
    SwitchoverRule,
    Sync,
    SyncTimerRule,
    ThrottleRule,
)


class Fixed(ThrottleRule):
    """Sets the throttle to `percent_at_once` at the first sync of the main loop."""

    def __init__(self, parameters, percent_at_once: int = 60) -> None:
        super().__init__(parameters)
        self._at_once = percent_at_once

    def on_sync(self, sync: Sync) -> bool:
        first, self.percent = (
            self.percent == 0,
            self._at_once if sync.kind == "exact" else self.percent,
        )
        return first and self.percent > 0

    def on_period(self, period: Period) -> bool:
        return False


class Stateful(SyncTimerRule):
    """Syncs at every third tick, so that gpusim must call it at each tick."""

    ticks = 0

    def wants_sync(self, dirty_sync_count: int, period_ns: int) -> bool:
        self.ticks += 1
        return self.ticks % 3 == 0


class FromScratch:
    """A timer rule that extends none of QEMU's. It has the members of SyncTimerPolicy and no others."""

    __slots__ = ("state", "tick_ns")
    starts_with_period = needs_auto_converge = False
    stops_under_lock = True
    syncs_from_count = 2

    def __init__(self, interval_ns: int, state: object = None) -> None:
        self.tick_ns, self.state = interval_ns, state

    def start(self) -> bool:
        return True

    def stop(self) -> None:
        pass

    def wants_sync(self, dirty_sync_count: int, period_ns: int) -> bool:
        return dirty_sync_count >= self.syncs_from_count

    def after_tick(self, dirty_sync_count: int) -> None:
        pass


class Patient(SwitchoverRule):
    """Stops the VM at a quarter of the threshold."""

    def ready(self, pending_bytes: int, threshold_bytes: int) -> bool:
        return pending_bytes <= threshold_bytes // 4


class Early(SwitchoverRule):
    """Syncs at three times the threshold."""

    def wants_sync(self, estimate_bytes: int, threshold_bytes: int) -> bool:
        return estimate_bytes < 3 * threshold_bytes


class Watcher:
    """Notes every poll, polls every `every_ms`, and pauses, resumes and sets parameters."""

    seen: ClassVar[list[Shown]] = []

    def __init__(self, every_ms: int = 1700) -> None:
        self._every_ns, self.polls = every_ms * 1_000_000, 0
        type(self).seen = []

    def look(self, shown: Shown) -> Orders:
        self.seen.append(shown)
        self.polls += 1
        limit = {"downtime_limit": 100 + self.polls, "max_bandwidth": 40_000_000 + self.polls}
        return Orders(
            set=limit if self.polls % 4 == 1 else {},
            do={5: "pause", 8: "resume"}.get(self.polls),
            again_ns=shown.time_ns + self._every_ns,
        )


class UsesUp:
    """Sets one limit after another from a list, and empties the list."""

    def __init__(self, limits_ms: list[int]) -> None:
        self._limits_ms = limits_ms

    def look(self, shown: Shown) -> Orders:
        return Orders(set={"downtime_limit": self._limits_ms.pop()} if self._limits_ms else {})


class Onlooker:
    """Orders nothing. It polls at syncs, and every millisecond if it is `eager`."""

    seen: ClassVar[list[Shown]] = []

    def __init__(self, eager: bool = False) -> None:
        self._eager = eager
        type(self).seen = []

    def look(self, shown: Shown) -> Orders:
        self.seen.append(shown)
        return Orders(again_ns=shown.time_ns + 1 if self._eager else None)


class Quitter:
    """Cancels at a given time."""

    def __init__(self, at_s: float) -> None:
        self._at_ns = int(at_s * 1e9)

    def look(self, shown: Shown) -> Orders:
        if shown.time_ns >= self._at_ns:
            return Orders(do="cancel", why="enough")
        return Orders(again_ns=self._at_ns)


class Wrong:
    """Gives orders that gpusim cannot execute."""

    def __init__(self, orders: dict) -> None:
        self._orders = orders

    def look(self, shown: Shown) -> Orders:
        return Orders(**self._orders)


class Restless(SyncTimerRule):
    def after_tick(self, dirty_sync_count: int) -> None:
        super().after_tick(dirty_sync_count)
        self.tick_ns = 0


class Raises(ThrottleRule):
    def on_period(self, period: Period) -> bool:
        raise LookupError("no idea what to do")


class Refuses(ThrottleRule):
    def __init__(self, parameters, step: int) -> None:
        super().__init__(parameters)
        raise ValueError(f"a step of {step} is too small")


class TakesNothing:
    def __init__(self) -> None:
        pass

    on_sync = on_period = __init__


class Bare:
    """Has the methods of a throttle rule but not its attributes."""

    def __init__(self, parameters) -> None:
        pass

    def on_sync(self, sync: Sync) -> bool:
        return False

    def on_period(self, period: Period) -> bool:
        return False


def no_class() -> None:
    pass
