"""A VM's dirty rate, measured by QEMU's own calc-dirty-rate, as a profile.

Owns which periods are measured, what that costs the guest, and what else the monitor tells of a VM. It
sends queries and calc-dirty-rate alone, so that no setting of the VM changes; what QEMU has begun
to measure it ends by itself, and nothing can end it sooner (migration/dirtyrate.c has no cancel).
"""

from __future__ import annotations

import asyncio
import os
import random
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpusim.config.schema import TrackingConfig
from gpusim.formats.profile import GIB, Measurement, Profile, pages_sampled
from gpusim.monitor.qmp import LiveError, Monitor
from gpusim.units import format_bytes

# Rounds of periods; repeats tell how fast the guest is on average, and how steady.
SHORT_S = (0.1, 0.2, 0.5, 1.0, 2.0)
QUICK_S = (*SHORT_S, *SHORT_S, 5.0, 10.0, *SHORT_S, *SHORT_S, 5.0, 10.0, *SHORT_S)
LONG_S = (20.0, 30.0, 60.0)  # not in a quick measuring
MODES_SINCE = (6, 2)  # mode (migration.json:calc-dirty-rate), and sample-pages is of 6.1
MILLISECONDS_SINCE = (8, 2)  # calc-time-unit (migration.json:calc-dirty-rate)
SAMPLED_PAGES = 65536  # of a VM that is no larger than its most and least samples allow
LEAST_SAMPLES, MOST_SAMPLES = 128, 16384  # a GiB: MIN_SAMPLE_PAGE_COUNT, MAX_SAMPLE_PAGE_COUNT
LATE_S = 60.0  # beyond a period until its answer: hashing, or reading a big bitmap
ZERO_PAGES = 1000  # looked at: a share of one half is known to 1.6 %
PROC = Path("/proc")
PAGE_BYTES = 4096  # a target page of x86, and of most others

Telling = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Vm:
    """What the monitor tells of a VM, before anything is measured.

    Attributes:
        blocks: name -> bytes of each RAM block.
        ranges: (first, end) guest addresses of RAM that can be read; empty: not known.
        threads: host thread of each vCPU.
    """

    version: tuple[int, int, int]
    accelerator: str
    blocks: dict[str, int]
    ranges: tuple[tuple[int, int], ...]
    threads: tuple[int, ...]
    parameters: dict[str, Any]
    capabilities: tuple[str, ...]

    @property
    def memory_bytes(self) -> int:
        """RAM, all blocks together."""
        return sum(self.blocks.values())


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is going to be measured."""

    mode: str
    sample_pages: int | None  # a GiB
    periods_s: tuple[float, ...]  # in order, repeats among them
    milliseconds: bool  # this QEMU knows shorter periods than a second


async def looked_at(monitor: Monitor) -> Vm:
    """What the monitor tells of the VM; nothing is started.

    Raises:
        LiveError: somebody migrates or measures it just now, or it tells too little.
    """
    status = (await monitor.ask("query-migrate")).get("status", "none")
    if status not in ("none", "completed", "failed", "cancelled"):
        raise LiveError(
            f"a migration is {status}: what the guest writes now is what its throttle lets it; "
            "measure before or after"
        )
    if (await monitor.ask("query-dirty-rate"))["status"] == "measuring":
        raise LiveError("somebody else's calc-dirty-rate is running; try again when it has ended")
    if not (await monitor.ask("query-status"))["running"]:
        raise LiveError("the VM does not run, so it writes nothing; start it first (cont)")
    vcpus = await monitor.ask("query-cpus-fast")
    capabilities = await monitor.ask("query-migrate-capabilities")
    return Vm(
        version=monitor.version,
        accelerator="kvm" if (await monitor.ask("query-kvm"))["enabled"] else "tcg",
        blocks=_blocks(await _hmp(monitor, "info ramblock")),
        ranges=tuple(_ranges(await _hmp(monitor, "info mtree -f"))),
        threads=tuple(vcpu["thread-id"] for vcpu in vcpus),
        parameters=await monitor.ask("query-migrate-parameters"),
        capabilities=tuple(sorted(row["capability"] for row in capabilities if row["state"])),
    )


async def _hmp(monitor: Monitor, line: str) -> str:
    return str(await monitor.ask("human-monitor-command", {"command-line": line}))


def _blocks(text: str) -> dict[str, int]:
    """Used bytes of each RAM block, of "info ramblock" (system/physmem.c:ram_block_format)."""
    rows = re.findall(r"^\s*(\S.*?)\s+\d+ [KMG]iB\s+0x\w+\s+(0x\w+)\s+0x\w+", text, re.MULTILINE)
    blocks = {name: int(used, 16) for name, used in rows}
    if not sum(blocks.values()):
        raise LiveError(f'"info ramblock" tells no RAM; expected its table, got {text[:80]!r}')
    return blocks


def _ranges(text: str) -> Iterator[tuple[int, int]]:
    """RAM in the guest's address space, of "info mtree -f" (system/memory.c:mtree_print_flatview)."""
    for view in text.split("FlatView #"):
        if ' AS "memory", ' in view:
            for first, last in re.findall(
                r"^ +(\w+)-(\w+) \(prio -?\d+, ram\)", view, re.MULTILINE
            ):
                yield int(first, 16), int(last, 16) + 1


def planned(vm: Vm, mode: str, *, quick: bool) -> Plan:
    """What to measure of a VM.

    Raises:
        LiveError: this VM cannot be measured in that mode.
    """
    if vm.accelerator == "tcg" and mode != "page-sampling":
        raise LiveError(
            f"--mode {mode}: under TCG it counts nothing, as QEMU logs no writes for it there; "
            "expected page-sampling"
        )
    if vm.version < MODES_SINCE:
        raise LiveError(
            f"QEMU {'.'.join(map(str, vm.version))}: its calc-dirty-rate takes no mode; expected 6.2 or newer, or a "
            "recording of an earlier migration as a profile (gpusim-record --qmp)"
        )
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


def announced(vm: Vm, plan: Plan) -> list[str]:
    """What is going to happen, and what it costs the guest: to be said before it does."""
    lengths = sorted(set(plan.periods_s))
    periods = f"{len(plan.periods_s)}, of {' '.join(f'{one:g}' for one in lengths)} s"
    version = ".".join(map(str, vm.version))
    vcpus = f"{len(vm.threads)} vCPU{'s' * (len(vm.threads) > 1)}"
    zero = f"{ZERO_PAGES} random pages are read through the monitor, to see how many are zero"
    rows = {
        "vm": f"{format_bytes(vm.memory_bytes)}, {vcpus}, QEMU {version}, {vm.accelerator}",
        "periods": f"{periods}; {sum(plan.periods_s):.0f} s in all",
        "mode": f"{plan.mode}: {_cost(vm, plan)}",
        "zero pages": zero
        if vm.ranges
        else "not looked at: this monitor does not tell where RAM is",
    }
    return [f"{name:<12}{text}" for name, text in rows.items()]


def _cost(vm: Vm, plan: Plan) -> str:
    if plan.mode == "page-sampling":
        pages = _sampled_pages(vm, plan)
        return (
            f"QEMU reads and hashes {pages} pages ({format_bytes(pages * PAGE_BYTES)}) at the begin and "
            "at the end of each period, in a thread of its own; the guest is not slowed"
        )
    if plan.mode == "dirty-ring":
        return (
            "QEMU counts each vCPU's entries: every page costs the guest a fault at its first write, and "
            "a vCPU waits while its full ring is emptied"
        )
    costs = TrackingConfig()
    pages, gib = vm.memory_bytes // PAGE_BYTES, vm.memory_bytes / GIB
    protect_s = pages * costs.protect_ns_per_page / 1e9
    sync_s = gib * (costs.log_sync_ns_per_gib + costs.merge_ns_per_gib) / 1e9
    return (
        f"every period KVM write-protects {pages} pages (up to {protect_s:.2g} s, vCPUs wait for parts "
        f"of it), each page's first write costs a fault (up to {costs.first_write_cost_ns:g} ns), and the log "
        f"is read twice ({sync_s:.2g} s under QEMU's big lock); huge pages are split while it lasts"
    )


def _sampled_pages(vm: Vm, plan: Plan) -> int:
    assert plan.sample_pages is not None
    return pages_sampled(vm.blocks.values(), plan.sample_pages)


async def measured(monitor: Monitor, vm: Vm, plan: Plan, tell: Telling) -> Profile:
    """Measure as planned.

    Args:
        tell: takes a line before each period.

    Raises:
        LiveError: QEMU refuses, with its reason, or its answer does not come.
    """
    notes: list[str] = []
    tell("looking for zero pages")
    sampled, zero = await _zero_pages(monitor, vm, notes)
    begin_s, busy_s = time.monotonic(), _busy_s(vm)
    measurements = []
    for number, seconds in enumerate(plan.periods_s, 1):
        tell(f"measuring {seconds:g} s ({number} of {len(plan.periods_s)})")
        at_s = time.monotonic() - begin_s
        length_s, rate = await _rate(monitor, plan, seconds)
        measurements.append(Measurement(seconds=length_s, dirty_rate=rate, at_s=round(at_s, 3)))
    elapsed_s = time.monotonic() - begin_s
    utilisation = _utilisation(busy_s, _busy_s(vm), elapsed_s)
    if not utilisation:
        notes.append("the vCPUs' threads are not to be seen from here: taken as always busy")
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
        zero_sampled=sampled,
        zero_found=zero,
        utilisation=utilisation,
        parameters=vm.parameters,
        capabilities=vm.capabilities,
        notes=tuple(notes),
    )


async def _rate(monitor: Monitor, plan: Plan, seconds: float) -> tuple[float, float]:
    """Seconds that were measured, and MiB dirtied in each of them."""
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
            raise LiveError(
                f"calc-dirty-rate of {seconds:g} s has no result {LATE_S:.0f} s after its end"
            )
        await asyncio.sleep(min(0.05, seconds / 10))
    if answer["mode"] != plan.mode or "dirty-rate" not in answer:
        raise LiveError(f"somebody else measured meanwhile, in mode {answer['mode']}; try again")
    if answer["dirty-rate"] < 0:  # as it is until a measurement has ended well
        raise LiveError(f"calc-dirty-rate of {seconds:g} s failed in QEMU; no block is sampled?")
    return answer["calc-time"] / (1000 if plan.milliseconds else 1), answer["dirty-rate"]


async def _zero_pages(monitor: Monitor, vm: Vm, notes: list[str]) -> tuple[int, int]:
    """Pages looked at, and those that are zero; read word by word as a debugger would."""
    pages = [range(first // PAGE_BYTES, end // PAGE_BYTES) for first, end in vm.ranges]
    total = sum(map(len, pages))
    if not total:
        notes.append("where RAM lies is not told by this monitor: zero pages are taken as none")
        return 0, 0
    draw, zero = random.Random(), 0
    for _ in range(ZERO_PAGES):
        number = draw.randrange(total)
        for run in pages:
            if number < len(run):
                break
            number -= len(run)
        text = await _hmp(monitor, f"xp /{PAGE_BYTES // 8}gx {run[number] * PAGE_BYTES:#x}")
        words = re.findall(r"0x([0-9a-f]{16})", text)
        if len(words) != PAGE_BYTES // 8:
            raise LiveError(f'"xp" does not read memory: {text[:80]!r}')
        zero += not any(int(word, 16) for word in words)
    return ZERO_PAGES, zero


def _busy_s(vm: Vm) -> dict[int, float]:
    """Seconds that the vCPUs' threads ran or waited for a core; empty where they are on another host.

    A vCPU that waits while others have its host's cores is not idle: a throttle takes of its work all the same.
    """
    found = {}
    for thread in set(vm.threads):
        folder = PROC / str(thread)
        try:
            name, _, after = (folder / "stat").read_text().rpartition(")")
            if not re.search("qemu|CPU|kvm", name):  # a thread of this number, of somebody else
                return {}
            found[thread] = _scheduled_s(folder) or _ran_s(after.split())
        except OSError:
            return {}
    return found


def _scheduled_s(folder: Path) -> float:
    """On a core and in its queue, by the scheduler's clock; 0 where the kernel keeps none (sched-stats.rst)."""
    try:
        running_ns, waiting_ns, _ = (folder / "schedstat").read_text().split()
    except OSError:
        return 0.0
    return (int(running_ns) + int(waiting_ns)) / 1e9


def _ran_s(fields: list[str]) -> float:
    """On a core alone; fields from the third on, utime and stime are 14 and 15 (proc_pid_stat(5))."""
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _utilisation(
    before: dict[int, float], after: dict[int, float], elapsed_s: float
) -> tuple[float, ...]:
    """Of each vCPU's thread, 0 to 1: the share of the time that it had work."""
    if before.keys() != after.keys():
        return ()
    return tuple(
        round(min(1.0, (after[thread] - before[thread]) / elapsed_s), 3) for thread in sorted(after)
    )
