"""Record one migration: the guest boots, its writes are counted, and it migrates into a sink.

Owns the order of these steps and their clock. All times are this host's wall clock, which QEMU's
trace, its events and the samples share, minus the time of the migrate command. It knows what a
recording holds, and none of the simulator's rules.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from gpusim.formats.recording_file import CLOCK_DIGITS
from gpusim.monitor.dirty_rate import Progress, inspect_vm, measure_dirty_rate, plan_measurements
from gpusim.monitor.errors import MonitorClosedError
from gpusim.monitor.qmp import Monitor
from gpusim.record.guest import READY, command_line
from gpusim.record.machine import Machine, find_end, start_qemu
from gpusim.record.messages import RecordError
from gpusim.record.scenarios import Scenario
from gpusim.record.sink import open_sink
from gpusim.record.thinning import Point, thin_counter

BOOT_TIMEOUT_S = 60.0
SAMPLE_EVERY_S = 0.2
COUNT_EVERY_S = 0.002
STALLED_S = 10.0  # a throttle of 99 % still lets the guest run once a second
CANCEL_TIMEOUT_S = 20.0
LAST_TRACE_TIMEOUT_S = 5.0
TIMES_TIMEOUT_S = 5.0
RETURN_PATH = {"postcopy-ram", "return-path"}  # capabilities with which QEMU waits for the target
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

Measuring: TypeAlias = Literal["quick", "full"] | None


@dataclass(kw_only=True)
class Observed:
    """The observations of the migration.

    Attributes:
        start_s: wall clock of the migrate command.
        samples: rows of the recording's `samples`.
        counts: (seconds since the start, the guest's writes).
    """

    start_s: float
    samples: list[dict[str, Any]] = field(default_factory=list)
    counts: list[Point] = field(default_factory=list)


async def record(
    scenario: Scenario,
    qemu: str,
    progress: Progress,
    measuring: Measuring = None,
    mode: str = "page-sampling",
) -> dict[str, Any]:
    """Record one migration and return the document. Nothing else is left behind.

    Args:
        scenario: the VM, its guest and the migration.
        qemu: the program.
        progress: shows a line after each step and answer.
        measuring: whether to measure the VM's dirty rate before, and for how long. The recording
            then holds the profile.
        mode: of that measurement, as in gpusim-predict.

    Raises:
        LiveError: there is no recording.
    """
    async with start_qemu(
        qemu,
        mem_mib=scenario.mem_mib,
        settings=command_line(scenario.guest.boot_settings()),
        accelerator=scenario.accelerator,
    ) as machine:
        try:
            return await _record(machine, scenario, progress, measuring, mode)
        except MonitorClosedError:
            raise await find_end(machine) from None


async def _record(
    machine: Machine, scenario: Scenario, progress: Progress, measuring: Measuring, mode: str
) -> dict[str, Any]:
    monitor = machine.monitor
    capabilities = await set_capabilities(monitor, scenario.capabilities)
    parameters = await set_parameters(monitor, scenario.parameters)
    progress("booting")
    ready, flat_out_per_s = await _wait_for_boot(machine)
    profile = await _measure_profile(machine, progress, measuring, mode)
    progress("counting writes before the migration")
    before_per_s = await _measure_writes(machine, scenario.before_s)
    with open_sink(return_path=bool(RETURN_PATH.intersection(scenario.capabilities))) as uri:
        observed = Observed(start_s=time.time())
        await monitor.ask("migrate", {"uri": uri})
        counting = asyncio.create_task(_count(machine, observed))
        try:
            await _follow(machine, scenario, observed, progress)
        finally:
            counting.cancel()
    await _wait_for_last_event(machine, observed)
    counter, within = thin_counter(observed.counts)
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
            [round(line.time_s - observed.start_s, CLOCK_DIGITS), line.name, line.arguments]
            for line in machine.output.trace
        ],
        "qmp_events": [
            [round(event.time_s - observed.start_s, CLOCK_DIGITS), event.name, event.data]
            for event in monitor.events
        ],
        "samples": observed.samples,
        "counter": counter,
        "counter_within_writes": within,
        **profile,
    }


async def set_capabilities(monitor: Monitor, wanted: list[str]) -> list[str]:
    """Switch capabilities on, and QEMU's migration events. Return those that are on.

    Raises:
        LiveError: this QEMU does not know some of them.
    """
    known = {row["capability"] for row in await monitor.ask("query-migrate-capabilities")}
    _require_known("capability", wanted, known, monitor)
    on = [{"capability": name, "state": True} for name in {*wanted, "events"}]
    await monitor.ask("migrate-set-capabilities", {"capabilities": on})
    rows = await monitor.ask("query-migrate-capabilities")
    return sorted(row["capability"] for row in rows if row["state"])


async def set_parameters(monitor: Monitor, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Set parameters of the migration. Return all parameters.

    Raises:
        LiveError: this QEMU does not know some of them, or refused.
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
        raise RecordError(
            "unknown_names",
            version=".".join(map(str, monitor.version)),
            kind=kind,
            names=", ".join(unknown),
            known=", ".join(sorted(known)),
        )


async def _wait_for_boot(machine: Machine) -> tuple[str, float]:
    """Return the guest's boot line, and how many pages a second it wrote at full speed."""
    end_s = time.monotonic() + BOOT_TIMEOUT_S
    while time.monotonic() < end_s:
        for line in machine.output.serial:
            if match := READY.fullmatch(line):
                return line, float(match[2])
        await _require_running(machine)
        await asyncio.sleep(0.01)
    raise RecordError("no_ready", timeout_s=BOOT_TIMEOUT_S, qemu_line=machine.output.qemu_line)


async def _measure_profile(
    machine: Machine, progress: Progress, measuring: Measuring, mode: str
) -> dict[str, Any]:
    """Return the profile that gpusim-predict --measure would write, or nothing."""
    if measuring is None:
        return {}
    vm = await inspect_vm(machine.monitor)
    plan = plan_measurements(vm, mode, quick=measuring == "quick")
    return {"profile": (await measure_dirty_rate(machine.monitor, vm, plan, progress)).document()}


async def _require_running(machine: Machine) -> None:
    if not machine.runs:
        raise await find_end(machine)


async def _measure_writes(machine: Machine, seconds: float) -> float:
    """Return the guest's page writes per second over some seconds."""
    begin_s, begin = machine.counter.read()
    while (now := machine.counter.read())[0] < begin_s + seconds:
        await _require_running(machine)
        await asyncio.sleep(min(0.1, seconds))
    return (now[1] - begin) / (now[0] - begin_s)


async def _count(machine: Machine, observed: Observed) -> None:
    """Read the guest's counter every 2 ms until the task is cancelled."""
    while True:
        now_s, total = machine.counter.read()
        time_s = round(now_s - observed.start_s, CLOCK_DIGITS)
        # Times have to rise, even if the host's clock is set back.
        if not observed.counts or time_s > observed.counts[-1][0]:
            observed.counts.append((time_s, total))
        await asyncio.sleep(COUNT_EVERY_S)


async def _follow(
    machine: Machine, scenario: Scenario, observed: Observed, progress: Progress
) -> None:
    """Sample until the migration ends. Cancel it at its limit."""
    cancelled_s: float | None = None
    last_write = (0.0, -1)  # when the guest last wrote, and its counter then
    for turn in range(1, 2**62):
        info = await query_migrate(machine.monitor.ask)
        now_s, writes = machine.counter.read()
        t = now_s - observed.start_s
        observed.samples.append(to_sample(info, t, writes))
        status = info.get("status", "none")
        progress(describe_progress(info, t))
        if status == "failed":
            reason = info.get("error-desc", "QEMU gives no reason")
            line = machine.output.qemu_line
            raise RecordError("migration_failed", reason=reason, qemu_line=line)
        if status in ENDED:
            return
        stopped = any(event.name == "STOP" for event in machine.monitor.events)  # to switch over
        if stopped or writes != last_write[1]:
            last_write = (t, writes)
        if t - last_write[0] > STALLED_S and cancelled_s is None:
            raise RecordError("guest_stalled", stalled_s=t - last_write[0])
        if cancelled_s is None and t >= scenario.limit_s:
            cancelled_s = t
            await machine.monitor.ask("migrate_cancel")
        elif cancelled_s is not None and t > cancelled_s + CANCEL_TIMEOUT_S:
            raise RecordError("no_cancel", timeout_s=CANCEL_TIMEOUT_S)
        await asyncio.sleep(max(0.0, observed.start_s + turn * SAMPLE_EVERY_S - time.time()))


async def query_migrate(ask: Callable[[str], Awaitable[Any]]) -> dict[str, Any]:
    """Return query-migrate's answer. A completed migration's answer has its times.

    QEMU reports completion a moment before it computes the times, and total-time is 0 until then. A
    VM that was itself migrated to this host reports completion forever, without times. Source: QEMU
    7.2, migration/migration.c:migration_completion, then migration_calculate_complete, and
    fill_destination_migration_info.
    """
    end_s = time.monotonic() + TIMES_TIMEOUT_S
    while True:
        info: dict[str, Any] = await ask("query-migrate")
        has_times = info.get("status") != "completed" or info.get("total-time") != 0
        if has_times or time.monotonic() > end_s:
            return info
        await asyncio.sleep(0.005)


def to_sample(info: Mapping[str, Any], t: float, writes: int | None) -> dict[str, Any]:
    """Return the row of `samples` for one answer of query-migrate.

    Args:
        info: the answer.
        t: seconds since the migrate command.
        writes: the guest's writes since its boot, or None if they are unknown.
    """
    found: dict[str, Any] = {"t": round(t, CLOCK_DIGITS), "status": info.get("status", "none")}
    if writes is not None:
        found["writes"] = writes
    ram = info.get("ram", {})
    found |= {key: ram[key] for key in RAM_KEYS if key in ram}
    if pages := info.get("xbzrle-cache", {}).get("pages"):
        found["xbzrle-pages"] = pages
    return found | {key: info[key] for key in TOP_KEYS if key in info}


def describe_progress(info: Mapping[str, Any], t: float) -> str:
    """Return one answer of query-migrate as a short line."""
    ram = info.get("ram", {})
    return (
        f"{info.get('status', 'none')} {t:.0f} s, {ram.get('remaining', 0) / 2**20:.0f} MiB to "
        f"send, {ram.get('dirty-sync-count', 0)} syncs, throttle "
        f"{info.get('cpu-throttle-percentage', 0)} %"
    )


async def _wait_for_last_event(machine: Machine, observed: Observed) -> None:
    """Wait for the trace of the end, which can arrive after the monitor's answer."""
    last = "new state " + observed.samples[-1]["status"]
    end_s = time.monotonic() + LAST_TRACE_TIMEOUT_S
    while not any(line.arguments == last for line in machine.output.trace):
        if time.monotonic() > end_s:
            raise RecordError("no_trace", event=last)
        await asyncio.sleep(0.01)
