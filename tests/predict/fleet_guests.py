"""Random guests, the dirty rate that QEMU would measure of each, and what full simulations say.

The dirty rate is the expected number of different pages in the period, rounded down as QEMU does.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from gpusim.config.schema import Config, MixConfig
from gpusim.engine.attempts import simulate
from gpusim.engine.records import Summary
from gpusim.explore.bounds import Bounds
from gpusim.formats.fleet import DirtyRates, FleetVm
from gpusim.predict import first_write_costs, host_costs
from gpusim.predict.fleet_bounds import Judgement, judge
from gpusim.predict.fleet_host import FleetHosts
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
    ("migration=qemu_11_1", "migration.capabilities=[postcopy-ram]"),
    ("migration=qemu_10_1", "migration.max_bandwidth=50MiB/s"),
    ("migration=qemu_9_2", "tracking=kvm_legacy", "migration.auto_converge=false"),
    ("migration=qemu_9_2", "tracking=dirty_ring"),
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
    writers = {f"w{n}": _writer(draw, memory, vcpus) for n in range(draw.choice((1, 1, 2)))}
    pages = min(memory // PAGE, sum(_distinct(one, memory, seconds) for one in writers.values()))
    mode = draw.choice(("dirty-bitmap", "page-sampling"))
    measured_mib = math.floor(math.floor(pages * PAGE / MIB) / seconds)
    host = hosts_of(overrides).drawn
    config = replace(
        host.config,
        vm=replace(
            host.config.vm,
            memory=memory,
            vcpus=vcpus,
            zero_percent=draw.choice((0.0, 0.0, _most_zero(writers, memory))),
        ),
        link=host_costs.drawn(
            host.config.link,
            {k: v for k, v in host.costs.items() if k != "non_ram_downtime_ms"},
            draw,
        ),
        tracking=first_write_costs.drawn(host.config.tracking, host.first_write_costs, draw),
        workload=MixConfig(writers=writers),
        seed=seed,
    )
    vm = FleetVm(
        name="guest",
        memory_bytes=memory,
        vcpus=vcpus,
        measured=(DirtyRates(seconds=seconds, rates=(float(measured_mib * MIB),), mode=mode),),
    )
    return Case(
        overrides=overrides,
        config=config,
        vm=vm,
        judged=judge(vm, hosts_of(overrides).of(None), bounds, memory, vcpus),
    )


def run(case: Case) -> Summary:
    """Return the summary of the whole simulation, page by page."""
    return simulate(case.config).summary


def _most_zero(writers: dict[str, dict[str, Any]], memory: int) -> float:
    """Return the most per cent of the memory that can be zero, a little rounded down."""
    covered = sum(one["working_set"] for one in writers.values()) / memory
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


def _distinct(writer: dict[str, Any], memory: int, seconds: float) -> float:
    """Return the pages that a writer dirties in a period without a throttle."""
    pages = writer["working_set"] // PAGE
    writes = writer["page_writes_per_s"] * seconds
    if writer["pattern"] in ("sequential", "without_replacement"):
        return min(float(pages), writes)
    bands = [(1.0, 1.0)] if writer["pattern"] == "uniform" else [(0.1, 0.9), (0.9, 0.1)]
    return sum(size * pages * -math.expm1(-part * writes / (size * pages)) for size, part in bands)
