"""Measure a VM's dirty rate with QEMU's own calc-dirty-rate, and return a profile.

Owns the measured periods and the description of a VM. It sends only queries and
calc-dirty-rate, so it changes no setting of the VM. A measurement that has begun runs to its end in
QEMU, because migration/dirtyrate.c has no cancel.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gpusim.formats.profile import Measurement, Profile
from gpusim.monitor.errors import LiveError
from gpusim.monitor.hmp import PAGE_BYTES, parse_backing, parse_blocks, parse_page, parse_ranges
from gpusim.monitor.qmp import Monitor
from gpusim.units import GIB

# Rounds of periods. Repeats show the guest's mean rate and how steady it is.
SHORT_S = (0.1, 0.2, 0.5, 1.0, 2.0)
QUICK_S = (*SHORT_S, *SHORT_S, 5.0, 10.0, *SHORT_S, *SHORT_S, 5.0, 10.0, *SHORT_S)
LONG_S = (20.0, 30.0, 60.0)  # not in a quick measurement
MODES_SINCE = (6, 2)  # mode (migration.json:calc-dirty-rate), and sample-pages came with 6.1
MILLISECONDS_SINCE = (8, 2)  # calc-time-unit (migration.json:calc-dirty-rate)
SAMPLED_PAGES = 65536  # of a VM, if QEMU's limits of samples per GiB allow it
LEAST_SAMPLES, MOST_SAMPLES = 128, 16384  # per GiB: MIN_SAMPLE_PAGE_COUNT, MAX_SAMPLE_PAGE_COUNT
LATE_S = 60.0  # after a period until its answer: QEMU hashes pages, or reads a big bitmap
ZERO_PAGES = 1000  # pages that are read: a share of one half is then known to 1.6 %
PROC = Path("/proc")
IDLE = frozenset({"none", "completed", "failed", "cancelled"})  # MigrationStatus

Progress = Callable[[str], None]  # shows one line of progress
NO_THREADS_NOTE = (
    "the vCPUs' threads cannot be seen from this host: the vCPUs are assumed to be always busy"
)
NO_RANGES_NOTE = "this monitor does not say where RAM lies: no page is assumed to be zero"


@dataclass(frozen=True, kw_only=True)
class Vm:
    """A VM as its monitor describes it, before anything is measured.

    Attributes:
        version: QEMU's major, minor and micro.
        accelerator: kvm or tcg.
        blocks: name -> bytes of each RAM block.
        backing: hugetlb_2m or hugetlb_1g. None: no hugetlbfs.
        ranges: (first, end) guest addresses of readable RAM. Empty: not known.
        threads: host thread of each vCPU.
        parameters: query-migrate-parameters, under QEMU's names.
        capabilities: those that are on.
        migration: query-migrate's answer. It changes if a migration starts.
    """

    version: tuple[int, int, int]
    accelerator: str
    blocks: dict[str, int]
    backing: str | None = None
    ranges: tuple[tuple[int, int], ...]
    threads: tuple[int, ...]
    parameters: dict[str, Any]
    capabilities: tuple[str, ...]
    migration: dict[str, Any] = field(default_factory=dict)

    @property
    def memory_bytes(self) -> int:
        """Return the size of RAM, all blocks together, in bytes."""
        return sum(self.blocks.values())


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The measurements to make.

    Attributes:
        mode: of calc-dirty-rate.
        sample_pages: sampled pages per GiB. None: this mode does not sample.
        periods_s: in order, with repeats, seconds.
        milliseconds: whether this QEMU measures periods shorter than a second.
    """

    mode: str
    sample_pages: int | None
    periods_s: tuple[float, ...]
    milliseconds: bool


async def inspect_vm(monitor: Monitor) -> Vm:
    """Ask the monitor for the VM's properties. Nothing is started.

    Raises:
        LiveError: the VM migrates, is measured or is stopped, or the monitor reports no RAM.
    """
    migration = await monitor.ask("query-migrate")
    status = migration.get("status", "none")
    if status not in IDLE:
        raise LiveError("migration_runs", status=status)
    if (await monitor.ask("query-dirty-rate"))["status"] == "measuring":
        raise LiveError("measurement_runs")
    if not (await monitor.ask("query-status"))["running"]:
        raise LiveError("vm_stopped")
    vcpus = await monitor.ask("query-cpus-fast")
    capabilities = await monitor.ask("query-migrate-capabilities")
    ramblock = await _hmp(monitor, "info ramblock")
    return Vm(
        version=monitor.version,
        accelerator="kvm" if (await monitor.ask("query-kvm"))["enabled"] else "tcg",
        blocks=parse_blocks(ramblock),
        backing=parse_backing(ramblock),
        ranges=parse_ranges(await _hmp(monitor, "info mtree -f")),
        threads=tuple(vcpu["thread-id"] for vcpu in vcpus),
        parameters=await monitor.ask("query-migrate-parameters"),
        capabilities=tuple(sorted(row["capability"] for row in capabilities if row["state"])),
        migration=migration,
    )


async def _hmp(monitor: Monitor, line: str) -> str:
    return str(await monitor.ask("human-monitor-command", {"command-line": line}))


async def _require_undisturbed(monitor: Monitor, vm: Vm) -> None:
    """Check that the VM has neither migrated nor stopped since it was inspected.

    Raises:
        LiveError: it has.
    """
    migration = await monitor.ask("query-migrate")
    happened = {event.name for event in monitor.events}
    if migration != vm.migration or "MIGRATION" in happened:
        raise LiveError("migrated_meanwhile", status=migration.get("status", "none"))
    if not (await monitor.ask("query-status"))["running"] or "STOP" in happened:
        raise LiveError("stopped_meanwhile")


def plan_measurements(vm: Vm, mode: str, *, quick: bool) -> Plan:
    """Return the measurements to make of a VM.

    Raises:
        LiveError: this VM cannot be measured in that mode.
    """
    if vm.accelerator == "tcg" and mode != "page-sampling":
        raise LiveError("mode_needs_kvm", mode=mode)
    if vm.version < MODES_SINCE:
        raise LiveError("no_modes", version=".".join(map(str, vm.version)))
    milliseconds = vm.version >= MILLISECONDS_SINCE
    periods = QUICK_S if quick else QUICK_S + LONG_S
    samples = None
    if mode == "page-sampling":
        wanted = SAMPLED_PAGES * GIB // vm.memory_bytes
        samples = min(max(wanted, LEAST_SAMPLES), MOST_SAMPLES)
    return Plan(
        mode=mode,
        sample_pages=samples,
        periods_s=tuple(one for one in periods if milliseconds or one >= 1),
        milliseconds=milliseconds,
    )


async def measure_dirty_rate(monitor: Monitor, vm: Vm, plan: Plan, progress: Progress) -> Profile:
    """Make the planned measurements.

    Args:
        progress: shows a line before each period.

    Raises:
        LiveError: QEMU refuses, or does not answer in time. A migration starts meanwhile, or the
            VM stops.
    """
    notes: list[str] = []
    progress("looking for zero pages")
    sampled, zero = await _count_zero_pages(monitor, vm, notes)
    begin_s, busy_s = time.monotonic(), _busy_s(vm)
    measurements = []
    for number, seconds in enumerate(plan.periods_s, 1):
        progress(f"measuring {seconds:g} s ({number} of {len(plan.periods_s)})")
        at_s = time.monotonic() - begin_s
        length_s, rate = await _measure_period(monitor, plan, seconds)
        await _require_undisturbed(monitor, vm)
        measurements.append(Measurement(seconds=length_s, dirty_rate=rate, at_s=round(at_s, 3)))
    elapsed_s = time.monotonic() - begin_s
    utilisation = _utilisation(busy_s, _busy_s(vm), elapsed_s)
    if not utilisation:
        notes.append(NO_THREADS_NOTE)
    return Profile(
        source="gpusim-predict --measure",
        qemu=vm.version,
        accelerator=vm.accelerator,
        memory_bytes=vm.memory_bytes,
        page_bytes=PAGE_BYTES,
        vcpus=len(vm.threads),
        mode=plan.mode,
        sample_pages=plan.sample_pages,
        measurements=tuple(measurements),
        blocks=vm.blocks,
        backing=vm.backing,
        zero_sampled=sampled,
        zero_found=zero,
        utilisation=utilisation,
        parameters=vm.parameters,
        capabilities=vm.capabilities,
        notes=tuple(notes),
    )


async def _measure_period(monitor: Monitor, plan: Plan, seconds: float) -> tuple[float, float]:
    """Measure one period. Return its length in seconds and the dirty rate in MiB/s."""
    unit = {"calc-time-unit": "millisecond"} if plan.milliseconds else {}
    length = round(seconds * 1000) if plan.milliseconds else round(seconds)
    arguments: dict[str, Any] = {"calc-time": length, "mode": plan.mode, **unit}
    if plan.sample_pages is not None:
        arguments["sample-pages"] = plan.sample_pages
    await monitor.ask("calc-dirty-rate", arguments)
    until_s = time.monotonic() + seconds + LATE_S
    await asyncio.sleep(seconds)
    while True:
        answer = await monitor.ask("query-dirty-rate", unit)
        if answer["status"] == "measured":
            break
        if time.monotonic() > until_s:
            raise LiveError("no_result", period_s=seconds, late_s=LATE_S)
        await asyncio.sleep(min(0.05, seconds / 10))
    length_s = answer["calc-time"] / (1000 if plan.milliseconds else 1)
    is_ours = answer.get("mode") == plan.mode and seconds <= length_s <= seconds + LATE_S
    if not is_ours or "dirty-rate" not in answer:
        raise LiveError("other_measurement", mode=answer.get("mode", "unknown"))
    if answer["dirty-rate"] < 0:  # QEMU's value until a measurement succeeds
        raise LiveError("no_rate", period_s=seconds)
    return length_s, answer["dirty-rate"]


async def _count_zero_pages(monitor: Monitor, vm: Vm, notes: list[str]) -> tuple[int, int]:
    """Read random pages with the monitor's "xp".

    Return how many were read and how many are zero.
    """
    pages = [range(-(-first // PAGE_BYTES), end // PAGE_BYTES) for first, end in vm.ranges]
    total = sum(map(len, pages))
    if not total:
        notes.append(NO_RANGES_NOTE)
        return 0, 0
    draw, zero = random.Random(), 0
    for _ in range(ZERO_PAGES):
        number = draw.randrange(total)
        for run in pages:
            if number < len(run):
                break
            number -= len(run)
        address = run[number] * PAGE_BYTES
        zero += not any(parse_page(await _hmp(monitor, f"xp /512gx {address:#x}"), address))
    return ZERO_PAGES, zero


def _busy_s(vm: Vm) -> dict[int, float]:
    """Return the seconds in which each vCPU's thread ran or waited for a core.

    A vCPU that waits for a core is not idle: a throttle takes away work from it as well. The result
    is empty if the threads are on another host.
    """
    found = {}
    for thread in set(vm.threads):
        folder = PROC / str(thread)
        try:
            name, _, after = (folder / "stat").read_text().rpartition(")")
            if not re.search("qemu|CPU|kvm", name):  # another program's thread of this number
                return {}
            found[thread] = _scheduled_s(folder) or _ran_s(after.split())
        except OSError:
            return {}
    return found


def _scheduled_s(folder: Path) -> float:
    """Return the seconds on a core and in its queue, or 0 if the kernel keeps no such statistics.

    Source: Linux, Documentation/scheduler/sched-stats.rst.
    """
    try:
        running_ns, waiting_ns, _ = (folder / "schedstat").read_text().split()
    except OSError:
        return 0.0
    return (int(running_ns) + int(waiting_ns)) / 1e9


def _ran_s(fields: list[str]) -> float:
    """Return the seconds on a core, from the fields of /proc/PID/stat from the third on.

    Source: proc_pid_stat(5), where utime and stime are fields 14 and 15.
    """
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _utilisation(
    before: dict[int, float], after: dict[int, float], elapsed_s: float
) -> tuple[float, ...]:
    """Return the share of the time in which each vCPU's thread had work, 0 to 1."""
    if before.keys() != after.keys():
        return ()
    return tuple(
        round(min(1.0, (after[thread] - before[thread]) / elapsed_s), 3) for thread in sorted(after)
    )
