"""Emptying a host: its guests migrate over one link, some at a time, in an order.

Each guest's migration is a run of simulation.py over a link whose pace changes as others start and
end. Who ends next is found by simulating every migration under way as if nothing changed any more: the
earliest end is sure, since nothing changes before it. Then the next guest starts, and shares change.

Knows no rule of QEMU's and none of a migration's; only the link's even shares.
"""

from __future__ import annotations

import math
import re
import time
from bisect import bisect_right
from collections.abc import Callable, Sequence
from contextlib import closing
from copy import copy
from dataclasses import dataclass, replace

import numpy as np

from gpusim.config.backend import EXPECTED, Backend, choose_backend
from gpusim.config.checks import SLOWEST, check_whole, reject
from gpusim.config.scenario import Scenario, resolve
from gpusim.config.schema import Config, EvacuationConfig, GuestConfig
from gpusim.engine.migration import Migration
from gpusim.engine.reasons import reason_text
from gpusim.engine.records import (
    EvacuatedGuest,
    Evacuation,
    EvacuationProgress,
    EvacuationSummary,
    Result,
    Status,
    Verdict,
)
from gpusim.errors import ConfigError
from gpusim.guest.guest import Guest
from gpusim.guest.run_time import RunTime
from gpusim.sender.link import Link
from gpusim.text import Message
from gpusim.units import NS_PER_S
from gpusim.version import __version__

MOST_GUESTS = 1000
STEPS = list[tuple[int, float]]  # (ns, value from then on), rising, the first at 0


@dataclass(kw_only=True)
class Vm:
    """A guest, and what is known of its migration so far.

    Attributes:
        name: unique.
        config: of its migration alone, over the whole link.
        backend: where its bitmaps live.
        start_ns, end_ns: since the evacuation began; None: not yet.
        link: what it was simulated over last.
        result: of that; if the migration did not end in it, as far as it was followed.
        known_to_ns: how far it was followed, since the evacuation began.
        ends: it ended there, if nothing changes before.
        runs: how often it was simulated.
    """

    name: str
    config: Config
    scenario: Scenario
    backend: Backend
    start_ns: int | None = None
    end_ns: int | None = None
    link: Link | None = None
    result: Result | None = None
    reason: Message | None = None
    known_to_ns: int = 0
    ends: bool = False
    runs: int = 0

    @property
    def vm_bytes(self) -> int:
        """RAM."""
        return self.scenario.layout.pages * self.scenario.page_bytes

    @property
    def remaining_bytes(self) -> int:
        """Left to send, as far as it was followed."""
        return self.vm_bytes if self.result is None else self.result.summary.remaining_bytes


def dirty_rate(scenario: Scenario) -> float:
    """Pages that a guest is expected to dirty in its first second, were all clean before.

    Source: QEMU's calc-dirty-rate (migration/dirtyrate.c), which measures this on a live guest.
    """
    writes = Guest(scenario.layout, scenario.writers, RunTime()).writes(0, NS_PER_S)
    drawn = (writes.last - writes.first) * -np.expm1(-writes.mean)
    return float(drawn.sum() + (writes.certain_last - writes.certain_first).sum())


ORDERS: dict[str, Callable[[Vm], float]] = {
    "as_listed": lambda vm: 0.0,
    "smallest_first": lambda vm: vm.vm_bytes,
    "largest_first": lambda vm: -vm.vm_bytes,
    "calmest_first": lambda vm: dirty_rate(vm.scenario),
    "busiest_first": lambda vm: -dirty_rate(vm.scenario),
}


def evacuate(
    config: Config, *, observe: Callable[[EvacuationProgress], None] | None = None
) -> Evacuation:
    """Simulate the evacuation of a host: of all guests in `config.evacuation`.

    A guest's random writes are drawn by `seed` + its place among the guests as listed, from 0.

    Args:
        config: what to simulate; `vm` and `workload` are not read.
        observe: called whenever a guest's migration has ended.

    Raises:
        ConfigError: a value that cannot be simulated; before anything is.
        MemoryError: the bitmaps of a guest do not fit after all.
    """
    return Host(config).evacuate(observe)


class Host:
    """A host and its guests; checked when made.

    Args:
        config: with an evacuation.

    Attributes:
        vms: the guests, in the order in which they will start.

    Raises:
        ConfigError: a value that cannot be simulated.
    """

    def __init__(self, config: Config) -> None:
        self._started = time.monotonic_ns()
        evacuation = config.evacuation
        if evacuation is None:
            reject("evacuation", None, "there are no guests; see conf/experiment/evacuate.yaml")
        self._config, self.at_a_time, self.order = config, evacuation.at_a_time, evacuation.order
        check_whole("evacuation.at_a_time", evacuation.at_a_time, 1, MOST_GUESTS)
        if evacuation.order not in ORDERS:
            reject("evacuation.order", evacuation.order, f"must be one of {', '.join(ORDERS)}")
        for key in ("schedule", "attempts"):
            if getattr(config, key):
                message = f"the guests of an evacuation are let alone; set {key}=[]"
                reject(key, "[...]", message)
        if config.link.recorded is not None:
            message = "a recorded wire cannot be shared; say link.bandwidth, and link.changes"
            reject("link.recorded", "[...]", message)
        self.vms = _vms(config, evacuation)
        self.vms.sort(key=ORDERS[evacuation.order])
        link = self.vms[0].scenario.link
        self._pace: STEPS = [(0, link.bandwidth), *(link.changes)]
        if self._pace[1:] and self._pace[1][0] == 0:
            del self._pace[0]
        at_once = min(self.at_a_time, len(self.vms))
        if min(pace for _, pace in self._pace) < SLOWEST * at_once:
            message = f"leaves each migration less than 1Mbit/s of the link; at most {int(min(pace for _, pace in self._pace) // SLOWEST)}"
            reject("evacuation.at_a_time", self.at_a_time, message)
        self._active: STEPS = []  # how many share the link

    def over_expected_shares(self) -> Host:
        """Return this host before its evacuation, without bitmaps, for a dry run."""
        ahead = copy(self)
        ahead.vms = [replace(vm, backend=EXPECTED) for vm in self.vms]
        ahead._active = []
        return ahead

    def evacuate(self, observe: Callable[[EvacuationProgress], None] | None = None) -> Evacuation:
        """Let one after the other start, as places are free, until all have ended."""
        waiting, active = list(self.vms), list[Vm]()
        now_ns = ended = 0
        while waiting or active:
            while waiting and len(active) < self.at_a_time:
                vm = waiting.pop(0)
                vm.start_ns = vm.known_to_ns = now_ns
                active.append(vm)
            self._share(now_ns, len(active))
            first = self._next_to_end(active)
            if first is None:
                return self._result("incomplete")
            assert first.end_ns is not None
            active.remove(first)
            now_ns, ended = first.end_ns, ended + 1
            if observe is not None:
                observe(
                    EvacuationProgress(time_s=now_ns / NS_PER_S, ended=ended, guests=len(self.vms))
                )
        return self._result("ok")

    def _share(self, now_ns: int, active: int) -> None:
        """So many share the link from now on."""
        if self._active and self._active[-1][0] == now_ns:
            self._active.pop()
        if not self._active or self._active[-1][1] != active:
            self._active.append((now_ns, active))

    def _next_to_end(self, active: Sequence[Vm]) -> Vm | None:
        """The guest whose migration ends first if nothing changes before; None: out of wall time.

        The likeliest is followed first: the others are followed only as far as its end.
        """
        first: Vm | None = None
        for vm in sorted(active, key=self._guess_ns):
            ends = self._follow(vm, first.known_to_ns if first else None)
            if vm.result is not None and vm.result.summary.status == "incomplete":
                return None
            if ends and (first is None or vm.known_to_ns < first.known_to_ns):
                first = vm
        assert first is not None
        first.end_ns = first.known_to_ns
        return first

    def _guess_ns(self, vm: Vm) -> float:
        """When a guest's migration might end, by what is left to send."""
        left_s = vm.remaining_bytes / self._bandwidth(vm.known_to_ns)
        return vm.known_to_ns + left_s * NS_PER_S

    def _follow(self, vm: Vm, until_ns: int | None) -> bool:
        """Simulate a guest's migration from its start; whether it ends by `until_ns`, or just after."""
        assert vm.start_ns is not None
        link, longest_ns = self._link(vm), vm.scenario.simulated_limit_ns
        limit_ns = longest_ns if until_ns is None else min(longest_ns, until_ns - vm.start_ns)
        if vm.link == link and (vm.ends or vm.known_to_ns - vm.start_ns >= limit_ns):
            return vm.ends  # nothing has changed for it since it was simulated
        scenario = replace(vm.scenario, link=link, simulated_limit_ns=limit_ns)
        if vm.scenario.wall_limit_ns is not None:
            spent_ns = time.monotonic_ns() - self._started
            scenario = replace(scenario, wall_limit_ns=vm.scenario.wall_limit_ns - spent_ns)
        with closing(Migration(scenario, vm.backend)) as migration:
            vm.link, vm.result = link, migration.run()
        vm.reason = migration.reason
        vm.known_to_ns = vm.start_ns + migration.state.clock.now_ns
        vm.ends = vm.result.summary.verdict != "time_limit" or limit_ns == longest_ns
        vm.runs += 1
        return vm.ends

    def _bandwidth(self, at_ns: int) -> float:
        """Share of each migration under way at a time, bytes a second."""
        return _at(self._pace, at_ns) / _at(self._active, at_ns)

    def _link(self, vm: Vm) -> Link:
        """The link as a guest's migration sees it: its share, by its own time."""
        assert vm.start_ns is not None
        bandwidth = before = self._bandwidth(vm.start_ns)
        changes = []
        for at_ns in sorted({at_ns for at_ns, _ in (*self._pace, *self._active)}):
            share = self._bandwidth(at_ns) if at_ns > vm.start_ns else before
            if share != before:
                changes.append((at_ns - vm.start_ns, share))
            before = share
        return replace(vm.scenario.link, bandwidth=bandwidth, changes=tuple(changes))

    def _result(self, status: Status) -> Evacuation:
        ended = [vm for vm in self.vms if vm.end_ns is not None]
        guests = [_evacuated(vm) for vm in ended]
        summaries = [guest.result.summary for guest in guests]
        left = [vm.name for vm in self.vms if vm not in ended]
        left += [g.name for g in guests if g.result.summary.verdict != "converged"]
        total_ns = max((vm.end_ns or 0 for vm in ended), default=0)
        lost_s = sum(summary.guest_cpu_lost_s for summary in summaries)
        vcpu_s = sum(vm.scenario.vcpus for vm in self.vms) * total_ns / NS_PER_S
        verdicts = {summary.verdict for summary in summaries}
        verdict: Verdict | None = None
        if status == "ok":
            verdict = "not_converged" if "not_converged" in verdicts else "converged"
            if verdict == "converged" and left:
                verdict = "cancelled" if "cancelled" in verdicts else "time_limit"
        sent = sum(summary.transferred_bytes for summary in summaries)
        there = self._capacity_bytes(total_ns)
        one = self.vms[0].scenario
        reason = self._reason(status, left, total_ns / NS_PER_S)
        summary = EvacuationSummary(
            status=status,
            verdict=verdict,
            reason=reason_text(reason),
            reason_code=reason.code,
            total_time_s=total_ns / NS_PER_S,
            downtime_ms=max(
                (s.downtime_ms for s in summaries if s.downtime_ms is not None), default=None
            ),
            dirty_sync_count=sum(s.dirty_sync_count for s in summaries),
            fallback_sync_count=sum(s.fallback_sync_count for s in summaries),
            max_throttle_percent=max((s.max_throttle_percent for s in summaries), default=0),
            longest_vcpu_stall_ms=max((s.longest_vcpu_stall_ms for s in summaries), default=0.0),
            transferred_bytes=sent,
            link_used_percent=100 * sent / there if 0 < there < math.inf else None,
            guest_cpu_lost_s=lost_s,
            guest_cpu_lost_percent=100 * lost_s / vcpu_s if vcpu_s else 0.0,
            write_faults=sum(s.write_faults for s in summaries),
            guest_fault_s=sum(s.guest_fault_s for s in summaries),
            vm_bytes=sum(vm.vm_bytes for vm in self.vms),
            guests=len(self.vms),
            left_behind=left,
            at_a_time=self.at_a_time,
            order=self.order,
            qemu_version=one.version,
            policies=one.policies,
            tracking=one.tracking.mode,
            backend=self.vms[0].backend.name,
            backend_reason=self.vms[0].backend.reason,
            seed=self._config.seed,
            simulated_runs=sum(vm.runs for vm in self.vms),
            wall_time_s=(time.monotonic_ns() - self._started) / NS_PER_S,
            bitmap_bytes=max(vm.scenario.bitmap_bytes for vm in self.vms),
            gpusim_version=__version__,
        )
        pace = [(at_ns / NS_PER_S, pace) for at_ns, pace in self._pace]
        return Evacuation(summary=summary, guests=guests, link_bandwidth=pace)

    def _capacity_bytes(self, until_ns: int) -> float:
        """What the whole link gives by a time."""
        ends = [at_ns for at_ns, _ in self._pace[1:]] + [until_ns]
        spans = zip(self._pace, ends, strict=True)
        return sum(pace * max(0, min(end, until_ns) - at) / NS_PER_S for (at, pace), end in spans)

    def _reason(self, status: Status, left: list[str], total_s: float) -> Message:
        guests = len(self.vms)
        if status == "incomplete":
            return Message("guests_at_wall_limit", {"out": guests - len(left), "guests": guests})
        if not left:
            return Message(
                "all_guests_out",
                {
                    "guests": guests,
                    "vm_bytes": sum(vm.vm_bytes for vm in self.vms),
                    "time_s": total_s,
                    "at_a_time": self.at_a_time,
                    "order": self.order,
                },
            )
        first = next(vm for vm in self.vms if vm.name == left[0])
        return Message(
            "guest_left_behind", {"guest": first.name, "others": left[1:], "reason": first.reason}
        )


def _at(steps: STEPS, at_ns: int) -> float:
    """The value of steps at a time."""
    return steps[bisect_right(steps, at_ns, key=lambda step: step[0]) - 1][1]


def _evacuated(vm: Vm) -> EvacuatedGuest:
    assert vm.start_ns is not None
    assert vm.end_ns is not None
    assert vm.link is not None
    assert vm.result is not None
    changes = [[at_ns / NS_PER_S, share] for at_ns, share in vm.link.changes]
    shared = _plain(vm.link.bandwidth)
    link = replace(
        vm.config.link,
        bandwidth=shared,
        changes=[[at, _plain(share)] for at, share in changes] or None,
    )
    return EvacuatedGuest(
        name=vm.name,
        config=replace(vm.config, link=link),
        vcpus=vm.scenario.vcpus,
        start_s=vm.start_ns / NS_PER_S,
        end_s=vm.end_ns / NS_PER_S,
        result=vm.result,
    )


def _plain(share: float) -> float | str:
    """A share as a config says it."""
    return "unlimited" if math.isinf(share) else share


def _vms(config: Config, evacuation: EvacuationConfig) -> list[Vm]:
    """The guests as listed, several alike one by one."""
    named: list[tuple[str, str, GuestConfig]] = []
    for name, guest in evacuation.guests.items():
        key = f"evacuation.guests.{name}"
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,60}", str(name)):
            reject("evacuation.guests", name, "a name becomes a folder: letters, digits, _ . and -")
        check_whole(f"{key}.count", guest.count, 1, MOST_GUESTS)
        numbered = [f"{name}-{number}" for number in range(1, guest.count + 1)]
        named += [(one, key, guest) for one in (numbered if guest.count > 1 else [str(name)])]
    if not named:
        message = "a host needs a guest or more; see conf/experiment/evacuate.yaml"
        reject("evacuation.guests", "{}", message)
    names = [name for name, _, _ in named]
    if len(names) > MOST_GUESTS:
        reject("evacuation.guests", f"{len(names)} guests", f"at most {MOST_GUESTS}")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        reject(
            "evacuation.guests", twice, "two guests are called so; NAME-1 is one of several alike"
        )
    vms = []
    for index, (name, key, guest) in enumerate(named):
        alone = replace(
            config, vm=guest.vm, workload=guest.workload, evacuation=None, seed=config.seed + index
        )
        try:
            scenario = resolve(alone)
            backend = choose_backend(scenario)
        except ConfigError as error:
            raise _named_fully(error, key) from None
        vms.append(Vm(name=name, config=alone, scenario=scenario, backend=backend))
    return vms


def _named_fully(error: ConfigError, key: str) -> ConfigError:
    """The error of one guest, with its keys named as they are in the evacuation."""
    message = str(error).removeprefix(f"{error.key} = {error.value}: ")
    message = re.sub(r"\b(vm|workload)=", rf"\1@{key}.\1=", message)
    message = re.sub(r"\b(vm|workload)\.(?=\w)", rf"{key}.\1.", message)
    own = error.key.startswith(("vm.", "workload."))
    return ConfigError(f"{key}.{error.key}" if own else error.key, error.value, message, error.code)
