"""One recording: a guest boots, is watched, migrates into a sink, and becomes a document.

Owns the order of things and the clocks: all times are the wall clock's of this host, which QEMU's
trace, its events and the samples share, less the moment of the migrate command. It knows what a
recording holds, and no rule of the simulator.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NoReturn, TypeAlias

from gpusim.monitor.dirty_rate import looked_at, measured, planned
from gpusim.monitor.qmp import LiveError, Monitor, MonitorClosedError
from gpusim.record.guest import READY, command_line
from gpusim.record.machine import Machine, how_it_ended, started
from gpusim.record.scenarios import Scenario
from gpusim.record.sink import sink
from gpusim.record.thinning import Point, thinned

BOOT_TIMEOUT_S = 60.0
SAMPLE_EVERY_S = 0.2
COUNT_EVERY_S = 0.002
STANDSTILL_S = 10.0  # a throttle of 99 % lets the guest run every second
CANCEL_TIMEOUT_S = 20.0
LAST_TRACE_TIMEOUT_S = 5.0
TIMES_TIMEOUT_S = 5.0
TIME_DIGITS = 4
ENDED = {"completed", "failed", "cancelled"}
TOP_KEYS = (
    "total-time",
    "downtime",
    "expected-downtime",
    "setup-time",
    "cpu-throttle-percentage",
)
RAM_KEYS = (
    "transferred",
    "remaining",
    "duplicate",
    "normal",
    "dirty-pages-rate",
    "dirty-sync-count",
    "mbps",
    "pages-per-second",
)

Telling = Callable[[str], None]
Measuring: TypeAlias = Literal["quick", "full"] | None


@dataclass(kw_only=True)
class Seen:
    """What was seen while the VM migrated."""

    start_s: float  # of the migrate command, by the wall clock
    samples: list[dict[str, Any]] = field(default_factory=list)
    counts: list[Point] = field(default_factory=list)


async def record(
    scenario: Scenario,
    qemu: str,
    tell: Telling,
    measuring: Measuring = None,
    mode: str = "page-sampling",
) -> dict[str, Any]:
    """Record one migration; nothing of it is left but what is returned.

    Args:
        qemu: the program.
        tell: takes a line now and then of how far it is.
        measuring: whether the VM's dirty rate is measured before, quickly or fully; the recording
            then holds the profile.
        mode: in which it is measured; gpusim-predict's.

    Raises:
        LiveError: whatever went wrong, in one line.
    """
    async with started(
        qemu,
        mem_mib=scenario.mem_mib,
        settings=command_line(scenario.guest.words()),
        accelerator=scenario.accelerator,
    ) as machine:
        try:
            return await _recorded(machine, scenario, tell, measuring, mode)
        except MonitorClosedError:
            raise LiveError(f"no recording: {await how_it_ended(machine)}") from None


async def _recorded(
    machine: Machine, scenario: Scenario, tell: Telling, measuring: Measuring, mode: str
) -> dict[str, Any]:
    monitor = machine.monitor
    capabilities = await set_capabilities(monitor, scenario.capabilities)
    parameters = await set_parameters(monitor, scenario.parameters)
    tell("booting")
    ready, flat_out_per_s = await _boot(machine)
    profile = await _profile(machine, tell, measuring, mode)
    tell("counting writes before the migration")
    before_per_s = await _pace(machine, scenario.before_s)
    with sink() as uri:
        seen = Seen(start_s=time.time())
        await monitor.ask("migrate", {"uri": uri})
        counting = asyncio.create_task(_count(machine, seen))
        try:
            await _follow(machine, scenario, seen, tell)
        finally:
            counting.cancel()
    await _last_trace(machine, seen)
    counter, within = thinned(seen.counts)
    major, minor, micro = monitor.version
    return {
        "scenario": scenario.recorded(),
        "qemu": {"major": major, "minor": minor, "micro": micro},
        "accelerator": scenario.accelerator,
        "vcpus": 1,
        "guest_ready": ready,
        "writes_per_s_before": before_per_s,
        "flat_out_writes_per_s": flat_out_per_s,
        "capabilities": capabilities,
        "parameters": parameters,
        "events": [
            [round(line.time_s - seen.start_s, TIME_DIGITS), line.name, line.arguments]
            for line in machine.heard.trace
        ],
        "qmp_events": [
            [round(event.time_s - seen.start_s, TIME_DIGITS), event.name, event.data]
            for event in monitor.events
        ],
        "samples": seen.samples,
        "counter": counter,
        "counter_within_writes": within,
        **profile,
    }


async def set_capabilities(monitor: Monitor, wanted: list[str]) -> list[str]:
    """Switch capabilities on, and QEMU's migration events; returns those that are on.

    Raises:
        LiveError: names those that this QEMU does not know.
    """
    known = {row["capability"] for row in await monitor.ask("query-migrate-capabilities")}
    _require_known("capability", wanted, known, monitor)
    on = [{"capability": name, "state": True} for name in {*wanted, "events"}]
    await monitor.ask("migrate-set-capabilities", {"capabilities": on})
    rows = await monitor.ask("query-migrate-capabilities")
    return sorted(row["capability"] for row in rows if row["state"])


async def set_parameters(monitor: Monitor, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Set parameters of the migration; returns all there are.

    Raises:
        LiveError: names those that this QEMU does not know, or says why it refused.
    """
    known = set(await monitor.ask("query-migrate-parameters"))
    _require_known("parameter", wanted, known, monitor)
    if wanted:
        await monitor.ask("migrate-set-parameters", dict(wanted))
    parameters: dict[str, Any] = await monitor.ask("query-migrate-parameters")
    return parameters


def _require_known(
    kind: str, wanted: list[str] | Mapping[str, Any], known: set[str], monitor: Monitor
) -> None:
    unknown = sorted(set(wanted) - known)
    if unknown:
        version = ".".join(map(str, monitor.version))
        near = ", ".join(sorted(known))
        raise LiveError(f"QEMU {version} has no {kind} {', '.join(unknown)}; it has {near}")


async def _boot(machine: Machine) -> tuple[str, float]:
    """The guest's boot line, and how fast it wrote flat out."""
    end_s = time.monotonic() + BOOT_TIMEOUT_S
    while time.monotonic() < end_s:
        for line in machine.heard.serial:
            if match := READY.fullmatch(line):
                return line, float(match[2])
        await _still_there(machine)
        await asyncio.sleep(0.01)
    raise LiveError(
        f"the guest did not say READY in {BOOT_TIMEOUT_S:g} s{machine.heard.last_words}"
    )


async def _profile(
    machine: Machine, tell: Telling, measuring: Measuring, mode: str
) -> dict[str, Any]:
    """What calc-dirty-rate says of the guest, as gpusim-predict --measure would find it."""
    if measuring is None:
        return {}
    vm = await looked_at(machine.monitor)
    plan = planned(vm, mode, quick=measuring == "quick")
    return {"profile": (await measured(machine.monitor, vm, plan, tell)).document()}


async def _still_there(machine: Machine) -> None:
    if not machine.runs:
        raise LiveError(f"no recording: {await how_it_ended(machine)}")


async def _pace(machine: Machine, seconds: float) -> float:
    """Page writes a second, over so many seconds."""
    begin_s, begin = machine.counter.read()
    while (now := machine.counter.read())[0] < begin_s + seconds:
        await _still_there(machine)
        await asyncio.sleep(min(0.1, seconds))
    return (now[1] - begin) / (now[0] - begin_s)


async def _count(machine: Machine, seen: Seen) -> None:
    """Read the guest's counter every other millisecond, until cancelled."""
    while True:
        now_s, total = machine.counter.read()
        time_s = round(now_s - seen.start_s, TIME_DIGITS)
        if not seen.counts or time_s > seen.counts[-1][0]:  # a clock that is set back has no rate
            seen.counts.append((time_s, total))
        await asyncio.sleep(COUNT_EVERY_S)


async def _follow(machine: Machine, scenario: Scenario, seen: Seen, tell: Telling) -> None:
    """Ask how the migration goes until it ends, or is cancelled at its limit."""
    cancelled_s: float | None = None
    moved = (0.0, -1)  # when the guest was last seen to write, and its counter
    for turn in range(1, 2**62):
        info = await migration(machine.monitor.ask)
        now_s, writes = machine.counter.read()
        t = now_s - seen.start_s
        seen.samples.append(sample(info, t, writes))
        status = info.get("status", "none")
        tell(progress(info, t))
        if status == "failed":
            reason = info.get("error-desc", "QEMU gives no reason")
            raise LiveError(f"the migration failed: {reason}{machine.heard.last_words}")
        if status in ENDED:
            return
        stopped = any(event.name == "STOP" for event in machine.monitor.events)  # to switch over
        if stopped or writes != moved[1]:
            moved = (t, writes)
        if t - moved[0] > STANDSTILL_S and cancelled_s is None:
            raise LiveError(f"the guest stopped writing {t - moved[0]:.0f} s ago; has it crashed?")
        if cancelled_s is None and t >= scenario.limit_s:
            cancelled_s = t
            await machine.monitor.ask("migrate_cancel")
        elif cancelled_s is not None and t > cancelled_s + CANCEL_TIMEOUT_S:
            raise LiveError(f"QEMU did not cancel the migration in {CANCEL_TIMEOUT_S:g} s")
        await asyncio.sleep(max(0.0, seen.start_s + turn * SAMPLE_EVERY_S - time.time()))


async def migration(ask: Callable[[str], Awaitable[Any]]) -> dict[str, Any]:
    """query-migrate's answer, of a migration that completed with its times.

    QEMU says that it completed a moment before it has reckoned how long that took, and total-time is 0 till
    then (7.2: migration/migration.c:migration_completion, then migration_calculate_complete). A VM that was
    itself migrated to this host says so for ever, without any (fill_destination_migration_info).
    """
    end_s = time.monotonic() + TIMES_TIMEOUT_S
    while True:
        info: dict[str, Any] = await ask("query-migrate")
        reckoned = info.get("status") != "completed" or info.get("total-time") != 0
        if reckoned or time.monotonic() > end_s:
            return info
        await asyncio.sleep(0.005)


def sample(info: Mapping[str, Any], t: float, writes: int | None) -> dict[str, Any]:
    """What a recording holds of one answer of query-migrate.

    Args:
        t: seconds since the migrate command.
        writes: of the guest since its boot, where they are known.
    """
    found: dict[str, Any] = {"t": round(t, TIME_DIGITS), "status": info.get("status", "none")}
    if writes is not None:
        found["writes"] = writes
    ram = info.get("ram", {})
    found |= {key: ram[key] for key in RAM_KEYS if key in ram}
    return found | {key: info[key] for key in TOP_KEYS if key in info}


def progress(info: Mapping[str, Any], t: float) -> str:
    """One answer of query-migrate in a few words."""
    ram = info.get("ram", {})
    return (
        f"{info.get('status', 'none')} {t:.0f} s, {ram.get('remaining', 0) / 2**20:.0f} MiB to send, "
        f"{ram.get('dirty-sync-count', 0)} syncs, throttle {info.get('cpu-throttle-percentage', 0)} %"
    )


async def _last_trace(machine: Machine, seen: Seen) -> None:
    """Wait for the trace of the end: it comes by another way than the monitor's answer."""
    last = "new state " + seen.samples[-1]["status"]
    end_s = time.monotonic() + LAST_TRACE_TIMEOUT_S
    while not any(line.arguments == last for line in machine.heard.trace):
        if time.monotonic() > end_s:
            _no_trace(last)
        await asyncio.sleep(0.01)


def _no_trace(last: str) -> NoReturn:
    raise LiveError(
        f'QEMU traced no "{last}"; expected one built with the trace backend log, as Debian\'s is'
    )
