"""The evacuation of a host: its guests migrate over one link, a few at a time, in an order.

Each guest is one Migration over a link whose bandwidth changes when others start and end. To find
the guest that ends next, gpusim simulates every active migration as if nothing changed any more.
The earliest end is certain, because nothing changes before it. Then the next guest starts.

No rule of QEMU is here, and none of a migration.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from copy import copy
from dataclasses import replace

from gpusim.config.backend import EXPECTED
from gpusim.config.checks import SLOWEST, check_whole, reject
from gpusim.config.schema import Config
from gpusim.config.types import checked
from gpusim.engine.audit import check_in_tests
from gpusim.engine.evacuation_guests import MOST_GUESTS, Vm, make_vms
from gpusim.engine.evacuation_summary import make_evacuation
from gpusim.engine.migration import Migration
from gpusim.engine.records import Evacuation, EvacuationProgress, Status
from gpusim.engine.shared_link import SharedLink
from gpusim.units import NS_PER_S

Observer = Callable[[EvacuationProgress], None]


def evacuate(config: Config, *, observe: Observer | None = None) -> Evacuation:
    """Simulate the evacuation of a host, which is the migration of all guests in its config.

    The seed of a guest's random writes is `seed` plus its place in the list of guests, from 0.

    Args:
        config: what to simulate. `vm` and `workload` are not read.
        observe: is called whenever a guest's migration has ended.

    Raises:
        ConfigError: a value cannot be simulated. gpusim raises this before it simulates a guest.
        MemoryError: the bitmaps of a guest do not fit into memory.
    """
    return Host(config).evacuate(observe)


class Host:
    """A host and its guests. The constructor checks everything.

    Args:
        config: with an evacuation.

    Attributes:
        vms: the guests, in the order in which they start.

    Raises:
        ConfigError: a value cannot be simulated.
    """

    def __init__(self, config: Config) -> None:
        self._started_ns = time.monotonic_ns()
        config = checked(config, Config)
        evacuation = config.evacuation
        if evacuation is None:
            hint = "there are no guests. See conf/experiment/evacuate.yaml"
            reject("evacuation", None, hint, "missing")
        self._config, self._evacuation = config, evacuation
        check_whole("evacuation.at_a_time", evacuation.at_a_time, 1, MOST_GUESTS)
        for key in ("schedule", "attempts"):
            if getattr(config, key):
                hint = f"is not supported for evacuations. Set {key}=[]"
                reject(key, "[...]", hint, "not_supported")
        if config.limit.skip_waiting:
            hint = "guests share the link, so no time can be skipped. Set limit.skip_waiting=false"
            reject("limit.skip_waiting", True, hint, "not_supported")
        if config.link.recorded is not None:
            hint = "guests cannot share a recorded link. Set link.bandwidth and link.changes"
            reject("link.recorded", "[...]", hint, "not_supported")
        self.vms = make_vms(config, evacuation)
        self._link = SharedLink(self.vms[0].scenario.link)
        lowest = self._link.lowest_bandwidth
        if lowest < SLOWEST * min(evacuation.at_a_time, len(self.vms)):
            most = int(lowest // SLOWEST)
            hint = f"leaves each migration less than 1Mbit/s of the link. At most {most}"
            reject("evacuation.at_a_time", evacuation.at_a_time, hint, "out_of_range")

    def over_expected_shares(self) -> Host:
        """Return this host before its evacuation, without bitmaps, for a dry run."""
        ahead = copy(self)
        ahead.vms = [replace(vm, backend=EXPECTED) for vm in self.vms]
        ahead._link = SharedLink(self.vms[0].scenario.link)
        return ahead

    def evacuate(self, observe: Observer | None = None) -> Evacuation:
        """Start the guests one after the other, as places are free, until all have ended."""
        waiting, active = list(self.vms), list[Vm]()
        now_ns = ended = 0
        while waiting or active:
            while waiting and len(active) < self._evacuation.at_a_time:
                vm = waiting.pop(0)
                vm.start_ns = vm.known_to_ns = now_ns
                active.append(vm)
            self._link.set_users(now_ns, len(active))
            first = self._next_to_end(active)
            if first is None:
                return self._make_result("incomplete")
            active.remove(first)
            first.end_ns = now_ns = first.known_to_ns
            ended += 1
            if observe is not None:
                time_s = now_ns / NS_PER_S
                observe(EvacuationProgress(time_s=time_s, ended=ended, guests=len(self.vms)))
        return self._make_result("ok")

    def _next_to_end(self, active: Sequence[Vm]) -> Vm | None:
        """Return the guest whose migration ends first, or None if the wall limit is reached.

        The likeliest one is simulated first, and the others only as far as its end.
        """
        first: Vm | None = None
        for vm in sorted(active, key=self._guess_end_ns):
            self._simulate(vm, first.known_to_ns if first else None)
            if vm.result is not None and vm.result.summary.status == "incomplete":
                return None
            if vm.has_ended and (first is None or vm.known_to_ns < first.known_to_ns):
                first = vm
        assert first is not None
        return first

    def _guess_end_ns(self, vm: Vm) -> float:
        """Guess when a migration ends from the bytes that remain."""
        left_s = vm.remaining_bytes / self._link.share(vm.known_to_ns)
        return vm.known_to_ns + left_s * NS_PER_S

    def _simulate(self, vm: Vm, until_ns: int | None) -> None:
        """Simulate a guest's migration from its start to a time, unless that result is known."""
        assert vm.start_ns is not None
        link = self._link.seen_from(vm.scenario.link, vm.start_ns)
        longest_ns = vm.scenario.simulated_limit_ns
        limit_ns = longest_ns if until_ns is None else min(longest_ns, until_ns - vm.start_ns)
        if vm.link == link and (vm.has_ended or vm.known_to_ns - vm.start_ns >= limit_ns):
            return
        scenario = replace(vm.scenario, link=link, simulated_limit_ns=limit_ns)
        if scenario.wall_limit_ns is not None:
            spent_ns = time.monotonic_ns() - self._started_ns
            scenario = replace(scenario, wall_limit_ns=scenario.wall_limit_ns - spent_ns)
        with closing(Migration(scenario, vm.backend)) as migration:
            vm.link, vm.result = link, migration.run()
        vm.reason = migration.reason
        vm.known_to_ns = vm.start_ns + migration.state.clock.now_ns
        vm.has_ended = vm.result.summary.verdict != "time_limit" or limit_ns == longest_ns
        vm.runs += 1

    def _make_result(self, status: Status) -> Evacuation:
        wall_time_s = (time.monotonic_ns() - self._started_ns) / NS_PER_S
        evacuation = make_evacuation(
            status, self.vms, self._link, self._evacuation, self._config.seed, wall_time_s
        )
        check_in_tests(evacuation)
        return evacuation
