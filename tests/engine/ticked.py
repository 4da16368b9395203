"""Migrations in which every slice of the throttle is a timer, to compare with the closed form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gpusim import Config, Result
from gpusim.config.backend import choose_backend
from gpusim.config.scenario import resolve
from gpusim.engine.attempts import run_attempts
from gpusim.engine.clock import Clock
from gpusim.engine.migration import Migration
from gpusim.guest.latency import WakeupLatency
from gpusim.units import NEVER_NS
from tests.guest.ticked_run_time import TickedRunTime


class _VmTimer:
    """A timer on the VM's time."""

    def __init__(self, clock: Clock, fire: Callable[[], None], priority: int) -> None:
        self._clock = clock
        self._timer = clock.timer(fire, priority=priority, freezes=True)

    def arm(self, at_ns: int) -> None:
        now_ns = self._clock.now_ns
        self._timer.arm(now_ns + at_ns - self._clock.vm_ns(now_ns))

    def cancel(self) -> None:
        self._timer.cancel()


def ticked_run_time(clock: Clock, latency: WakeupLatency) -> TickedRunTime:
    return TickedRunTime(
        lambda fire, priority: _VmTimer(clock, fire, priority),
        lambda: clock.vm_ns(clock.now_ns),
        latency,
    )


class TickedMigration(Migration):
    """A migration that stops at every timer of its clock."""

    def __init__(self, *args: Any, **keys: Any) -> None:
        super().__init__(*args, **keys, make_run_time=ticked_run_time)

    def _next_sync_ns(self) -> int:
        next_ns = self.state.clock.next_ns()
        return NEVER_NS if next_ns is None else next_ns


def simulate_ticked(config: Config) -> Result:
    """Simulate a config as `gpusim.simulate` does, tick by tick."""
    scenario = resolve(config)
    backend = choose_backend(scenario)
    return run_attempts(
        scenario, lambda own, process: TickedMigration(own, backend, process=process)
    )
