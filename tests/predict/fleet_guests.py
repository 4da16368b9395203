"""Random guests, the dirty rate that QEMU would measure of each, and what full simulations say.

The dirty rate is the expected number of different pages in the period, rounded down as QEMU does.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from gpusim.config.schema import Config, MixConfig, VmConfig
from gpusim.engine.attempts import simulate
from gpusim.engine.records import Summary
from gpusim.explore.bounds import Bounds
from gpusim.formats.fleet import DirtyRates, FleetVm
from gpusim.predict import first_write_costs, host_costs
from gpusim.predict.fleet_bounds import SURELY, Answer, Judgement, judge
from gpusim.predict.fleet_host import FleetHosts
from gpusim.predict.host_config import HostConfig
from gpusim.predict.host_costs import Range
from gpusim.units import MIB

PAGE = 4096
LINK_MIB = 119  # of 1 Gbit/s
HOSTS = (
    ("migration=qemu_10_1",),
    ("migration=qemu_8_2",),
    ("migration=qemu_7_2",),
    ("migration=qemu_2_6", "tracking=kvm_legacy"),
    ("migration=qemu_9_2", "migration.auto_converge=false"),
    ("migration=qemu_10_1", "migration.auto_converge=false", "tracking.first_write_cost_ns=224"),
    ("migration=qemu_10_1", "migration.downtime_limit=2000"),
    ("migration=qemu_10_1", "migration.max_cpu_throttle=40"),
    ("migration=qemu_11_1", "migration.postcopy_ram=true"),
    ("migration=qemu_10_1", "migration.max_bandwidth=50MiB/s"),
    ("migration=qemu_9_2", "tracking=kvm_legacy", "migration.auto_converge=false"),
    ("migration=qemu_9_2", "tracking=dirty_ring"),
)

WEAK_THROTTLE = (
    ("migration=qemu_9_2", "migration.auto_converge=false"),
    ("migration=qemu_10_1", "migration.max_cpu_throttle=40"),
    ("migration=qemu_9_2", "migration.cpu_throttle_initial=10", "migration.max_cpu_throttle=60"),
)


@dataclass(frozen=True, kw_only=True)
class Case:
    """A guest that nobody knows, and what a fleet's file says of it."""

    overrides: tuple[str, ...]
    config: Config
    vm: FleetVm
    judged: Judgement


@cache
def hosts_of(overrides: tuple[str, ...]) -> FleetHosts:
    """Return the hosts of some settings, composed once."""
    return FleetHosts([*overrides, "link=1gbit"])


def draw_case(seed: int, bounds: Bounds, hosts: tuple[tuple[str, ...], ...] = HOSTS) -> Case:
    """Return a random guest on a random host, and its judgement."""
    draw = random.Random(seed)
    overrides = draw.choice(hosts)
    memory = draw.choice((128, 256, 512)) * MIB
    vcpus = draw.choice((1, 2, 8))
    seconds = draw.choice((0.1, 1.0, 1.0, 1.0, 5.0, 30.0))
    writers = [_writer(draw, memory, vcpus) for _ in range(draw.choice((1, 1, 2)))]
    mode = draw.choice(("dirty-bitmap", "page-sampling"))
    vm = VmConfig(
        memory=memory,
        vcpus=vcpus,
        zero_percent=draw.choice((0.0, 0.0, _most_zero(writers, memory))),
    )
    return _case(overrides, vm, writers, seconds, mode, bounds, draw)


def border_case(seed: int, answer: Answer) -> Case:
    """Return a guest that just gets SURELY or NEVER: a little more, or less, and it would not.

    The guest is the one that the answer must hold for: hot, spread over all memory, and unthrottled
    for SURELY, in order or at random and always throttled for NEVER.
    """
    draw = random.Random(seed)
    is_sure = answer == SURELY
    overrides = draw.choice(HOSTS if is_sure else WEAK_THROTTLE)
    memory, vcpus = 512 * MIB, draw.choice((1, 2, 8))
    seconds = draw.choice((0.1, 0.5, 1.0, 1.0)) if is_sure else 1.0
    mode = "dirty-bitmap" if is_sure else "page-sampling"
    state = draw.getstate()

    def case(pages: float) -> Case:
        draw.setstate(state)
        keys = _sure_writer if is_sure else _hopeless_writer
        writers = [keys(draw, memory, vcpus, pages, seconds)]
        vm = VmConfig(memory=memory, vcpus=vcpus)
        return _case(overrides, vm, writers, seconds, mode, Bounds(), draw)

    low, high = 1.0, 0.9 * memory / PAGE
    for _ in range(18):
        middle = math.sqrt(low * high)
        holds = case(middle).judged.answer == answer
        low, high = (middle, high) if holds == is_sure else (low, middle)
    return case(low if is_sure else high)


def _case(
    overrides: tuple[str, ...],
    vm: VmConfig,
    writers: list[dict[str, Any]],
    seconds: float,
    mode: str,
    bounds: Bounds,
    draw: random.Random,
) -> Case:
    """Return a guest on a host whose costs are drawn, and what is measured and judged of it."""
    assert isinstance(vm.memory, int)
    pages = sum(_distinct(one, vm.memory, seconds) for one in writers)
    dirty_mib = math.floor(min(vm.memory // PAGE, pages) * PAGE / MIB)
    drawn = hosts_of(overrides).drawn

    def place(_: str) -> float:
        return draw.random()

    config = replace(
        drawn.config,
        vm=replace(drawn.config.vm, memory=vm.memory, vcpus=vm.vcpus, zero_percent=vm.zero_percent),
        link=host_costs.drawn(drawn.config.link, _costs(drawn), place),
        tracking=first_write_costs.drawn(drawn.config.tracking, drawn.first_write_costs, place),
        workload=MixConfig(writers={f"w{n}": one for n, one in enumerate(writers)}),
        seed=draw.randrange(2**32),
    )
    rates = (float(math.floor(dirty_mib / seconds) * MIB),)
    measured = DirtyRates(seconds=seconds, rates=rates, mode=mode)
    found = FleetVm(name="guest", memory_bytes=vm.memory, vcpus=vm.vcpus, measured=(measured,))
    host = hosts_of(overrides).of(None)
    return Case(
        overrides=overrides,
        config=config,
        vm=found,
        judged=judge(found, host, bounds, vm.memory, vm.vcpus),
    )


def _costs(drawn: HostConfig) -> dict[str, Range]:
    """Return the costs to draw. That of the devices' downtime was drawn for one vCPU."""
    return {key: one for key, one in drawn.costs.items() if key != "non_ram_downtime_ms"}


def run(case: Case) -> Summary:
    """Return the summary of the whole simulation, page by page."""
    return simulate(case.config).summary


def _most_zero(writers: list[dict[str, Any]], memory: int) -> float:
    """Return the most per cent of the memory that can be zero, a little rounded down."""
    covered = sum(one["working_set"] for one in writers) / memory
    return max(0.0, 95 - 100 * covered)


def _writer(draw: random.Random, memory: int, vcpus: int) -> dict[str, Any]:
    pattern = draw.choice(("uniform", "uniform", "sequential", "hot_cold", "without_replacement"))
    page_writes = LINK_MIB * 256 * 2 ** draw.uniform(-6, 7)
    share = draw.choice((0.01, 0.05, 0.1, 0.2, 0.5, 0.9)) / 2
    keys: dict[str, Any] = {
        "pattern": pattern,
        "working_set": max(1, int(share * memory / PAGE)) * PAGE,
        "page_writes_per_s": page_writes,
        "start": draw.choice((0, memory // 2)),
        "vcpus": vcpus / 2,
    }
    kind = draw.choice(("cpu_bound", "paced", "device"))
    if kind == "paced":
        keys |= {"pace": "paced", "catch_up_page_writes_per_s": page_writes * draw.uniform(1, 20)}
    if kind == "device":
        keys |= {"throttled": False}
    if pattern == "sequential":
        keys["threads"] = 1
    return keys


def _sure_writer(
    draw: random.Random, memory: int, vcpus: int, pages: float, seconds: float
) -> dict[str, Any]:
    kind = draw.choice(("hot", "sequential", "without_replacement"))
    keys: dict[str, Any] = {"vcpus": vcpus / 2, "page_writes_per_s": pages / seconds}
    if kind == "hot":
        keys |= {"pattern": "uniform", "working_set": max(1, int(pages)) * PAGE}
        keys["page_writes_per_s"] *= 200
    else:
        keys |= {"pattern": kind, "working_set": int(0.95 * memory) // PAGE * PAGE}
    if draw.random() < 0.5:
        return keys | {"throttled": False}
    return keys | {"pace": "paced", "catch_up_page_writes_per_s": 20 * keys["page_writes_per_s"]}


def _hopeless_writer(
    draw: random.Random, memory: int, vcpus: int, pages: float, seconds: float
) -> dict[str, Any]:
    keys: dict[str, Any] = {
        "pattern": draw.choice(("uniform", "sequential")),
        "working_set": max(1, int(pages)) * PAGE,
        "vcpus": draw.choice((1, vcpus)),
    }
    writes = 2 if keys["pattern"] == "uniform" else 1
    threads = {"threads": 1} if keys["pattern"] == "sequential" else {}
    return keys | threads | {"page_writes_per_s": writes * pages / seconds}


def _distinct(writer: dict[str, Any], memory: int, seconds: float) -> float:
    """Return the pages that a writer dirties in a period without a throttle."""
    pages = writer["working_set"] // PAGE
    writes = writer["page_writes_per_s"] * seconds
    if writer["pattern"] in ("sequential", "without_replacement"):
        return min(float(pages), writes)
    bands = [(1.0, 1.0)] if writer["pattern"] == "uniform" else [(0.1, 0.9), (0.9, 0.1)]
    return sum(size * pages * -math.expm1(-part * writes / (size * pages)) for size, part in bands)
