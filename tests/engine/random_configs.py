"""Random small configs over every group: one config for each number, the same on every machine.

Most are sound and end in a result. Values reach from tiny to huge, and some contradict each other.
A run takes a few milliseconds, because simulated time is short where decisions are frequent.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from gpusim import (
    AttemptConfig,
    BackendConfig,
    Config,
    EvacuationConfig,
    GuestConfig,
    HotColdConfig,
    LimitConfig,
    LinkConfig,
    MigrationConfig,
    MixConfig,
    PostcopyConfig,
    SequentialConfig,
    TrackingConfig,
    VmConfig,
    WorkloadConfig,
    WriterConfig,
    ZipfConfig,
)
from gpusim.config.memory import BACKINGS, parse_layout
from gpusim.qemu.versions import VERSIONS

PAGE_SIZES = [4096] * 8 + [8192, 16384, 65536]
MEMORIES = [65537, "1MiB", "3MiB", "10MB", "16MiB", "64MiB", "200MiB", "600MiB"]
EDGES: list[Any] = [0, 1, 2, -1, 0.5, 1e-9, 99, 100, 101, 65536, 2**31, 2**53, 1e15, math.inf, math.nan,
     "1ms", "1ns", "10Gbit/s", "unlimited", "never", None]  # fmt: skip
BANDWIDTHS = ["unlimited", "1Gbit/s", "10Gbit/s", "100Mbit/s", "1Mbit/s", 1e15, 125000]


@dataclass
class ConfigDraw:
    """Draws one config from a source of random numbers."""

    random: random.Random

    def rarely(self, usual: Any, *others: Any, share: float = 0.3) -> Any:
        """Return the usual value, or one of the others in `share` of all cases."""
        return self.random.choice(others) if self.random.random() < share else usual

    def chance(self, share: float) -> bool:
        return self.random.random() < share

    def spread(self, low: float, high: float) -> float:
        """Draw a number whose logarithm is uniform."""
        return math.exp(self.random.uniform(math.log(low), math.log(high)))

    def rising(self, count: int, low: float, high: float) -> list[float]:
        return sorted(self.spread(low, high) for _ in range(count))

    def config(self) -> Config:
        """Draw a config of one migration, of several attempts or, rarely, of an evacuation."""
        migration = self.migration()
        tracking = self.tracking(migration.version)
        guest = self.guest(tracking.mode)
        config = Config(
            vm=guest.vm,
            workload=guest.workload,
            link=self.link(),
            migration=migration,
            tracking=tracking,
            backend=BackendConfig(name="numpy", threads=self.rarely(1, 0, 2)),
            limit=self.limit(migration),
            schedule=self.schedule() if self.chance(0.3) else [],
            seed=self.rarely(1, 0, self.random.randrange(2**63), 2**63 - 1),
            plot=False,
        )
        if self.chance(0.12):
            config.attempts = [self.attempt(number) for number in range(self.random.randint(1, 3))]
            config.schedule = []
        elif self.chance(0.1) and config.link.recorded is None:
            config.evacuation, config.schedule = self.evacuation(tracking.mode), []
        return config

    def evacuation(self, mode: str) -> EvacuationConfig:
        orders = ["smallest_first", "largest_first", "calmest_first", "busiest_first"]
        return EvacuationConfig(
            guests={name: self.guest(mode) for name in "abcd"[: self.random.randint(1, 4)]},
            at_a_time=self.rarely(1, 2, 3, 6, share=0.6),
            order=self.rarely("as_listed", *orders),
        )

    def guest(self, mode: str) -> GuestConfig:
        vm = VmConfig(
            memory=self.random.choice(MEMORIES),
            page_size=self.random.choice(PAGE_SIZES),
            vcpus=self.rarely(1, 2, 8, 1024, 65536, share=0.6),
            big_lock_exits_per_s=self.rarely(0.0, 1e-9, 1.0, 1e5, 1e9, share=0.2),
        )
        if self.chance(0.15):
            vm.blocks = self.blocks(vm)
        if self.chance(0.4):
            vm.backing = self.backing(vm)
        if self.chance(0.2):
            vm.zero_percent = self.rarely(20.0, 1e-9, 0.1, 50.0, 100.0, share=0.5)
        elif self.chance(0.15):
            borders = sorted({4096 * self.random.randrange(300) for _ in range(6)})
            vm.zero_ranges = [list(pair) for pair in zip(borders[::2], borders[1::2], strict=False)]
        return GuestConfig(vm=vm, workload=self.workload(vm), count=1)

    def blocks(self, vm: VmConfig) -> list[int]:
        """Cut the RAM into blocks of whole pages."""
        pages = self.random.choice([1, 2, 10, 1000])
        count = min(pages, self.rarely(2, 1, 3, 50, share=0.6))
        cuts = sorted(self.random.sample(range(1, pages), count - 1))
        vm.memory = pages * vm.page_size
        return [
            vm.page_size * (high - low)
            for low, high in zip([0, *cuts], [*cuts, pages], strict=True)
        ]

    def workload(self, vm: VmConfig) -> WorkloadConfig:
        if self.chance(0.05):
            return WorkloadConfig()
        if self.chance(0.15):
            count = self.random.choice([1, 2, 3, 10])
            return MixConfig(writers={f"w{number}": self.writer(vm) for number in range(count)})
        return self.writer(vm)

    def writer(self, vm: VmConfig) -> WriterConfig:
        keys: dict[str, Any] = {
            "page_writes_per_s": self.rarely(1e4, 0.0, 1.0, 1e5, 1e6, 1e7, self.spread(1e-6, 1e9), share=0.7),
            "throttled": not self.chance(0.2),
            "vcpus": self.rarely(None, 0, 0.5, 1.0, share=0.1),
        }  # fmt: skip
        keys |= self.place(vm)
        pace = self.rarely("cpu_bound", "paced", "recorded")
        if pace == "paced":
            factor = self.rarely(2.0, 1.0, 1.0000001, 100.0, share=0.6)
            keys["catch_up_page_writes_per_s"] = keys["page_writes_per_s"] * factor or 1.0
        if pace == "recorded":
            keys |= {"throttled": True, "recorded": self.record(self.random.choice([2, 3, 30]))}
        elif self.chance(0.2):
            borders = self.rising(2 * self.random.choice([1, 2, 20]), 1e-6, 30)
            keys["windows"] = [list(pair) for pair in zip(borders[::2], borders[1::2], strict=True)]
        keys["pace"] = pace
        return self.pattern(keys)

    def place(self, vm: VmConfig) -> dict[str, Any]:
        """Draw which pages a writer covers: a share, a size or pieces all over the RAM."""
        percent = self.rarely(25.0, 100.0, 50.0, 75.0, 99.999, share=0.7)
        if self.chance(0.1):
            return {"working_set": self.rarely(vm.page_size, "64KiB", "1MiB", share=0.5)}
        if self.chance(0.15):
            granule = vm.page_size * self.rarely(1, 2, 16, 512, share=0.6)
            return {"working_set_percent": percent, "granule": granule}
        if self.chance(0.15):
            return {"working_set_percent": min(percent, 50.0), "start": vm.page_size}
        return {"working_set_percent": percent}

    def pattern(self, keys: dict[str, Any]) -> WriterConfig:
        kind = self.random.choice([WriterConfig, HotColdConfig, ZipfConfig, SequentialConfig])
        if kind is HotColdConfig:
            keys["hot_percent"] = self.rarely(40.0, 10.0, 50.0, 99.0)
            keys["hot_writes_percent"] = self.rarely(90.0, 0.0, 50.0, 100.0)
        elif kind is ZipfConfig:
            keys["exponent"] = self.rarely(1.0, 0.0, 0.5, 2.0, 10.0)
        elif kind is SequentialConfig:
            keys["threads"] = self.rarely(1, 2, 4, 100)
            keys["first_write"] = self.rarely(0, 5, 10**6, 2**52, 2**53)
            if "granule" in keys:  # a burst over thousands of pieces takes seconds
                keys["granule"] = max(keys["granule"], 2**21)
        return kind(**keys)

    def record(self, count: int) -> list[list[float]]:
        """Draw a recorded rate: [seconds, total], both rising."""
        time_s = total = 0.0
        pairs = [[time_s, total]]
        for _ in range(count - 1):
            time_s += self.spread(1e-9, 5)
            total += self.spread(1e-3, 1e6)
            pairs.append([time_s, total])
        return pairs

    def link(self) -> LinkConfig:
        link = LinkConfig(
            bandwidth=self.rarely("1Gbit/s", *BANDWIDTHS, self.spread(125000, 1e12), share=0.7),
            page_header_bytes=self.rarely(8, 0, 1, 65536, share=0.15),
            zero_page_bytes=self.rarely(9, 0, 1, 65536, share=0.15),
            zero_page_scan=self.rarely("2GB/s", "unlimited", 125000, 1e15),
            page_cost_ns=self.rarely(2580.0, 0.0, 1e-9, 1.0, 1e5, 1e9),
            queue_cost_ns=self.rarely(190.0, 0.0, 1e5, 1e9),
            wakeup_latency_us=self.rarely(50.0, 0.0, 1e-6, 1e6),
            non_ram_downtime_ms=self.rarely("auto", 0.0, 0.001, 1e7),
        )
        if self.chance(0.08):
            scale = self.spread(1, 1e4)
            record = self.record(self.random.choice([2, 5, 50]))
            link.recorded = [[time_s, total * scale] for time_s, total in record]
        elif self.chance(0.2):
            times = self.rising(self.random.choice([1, 2, 5, 100]), 1e-3, 60)
            link.changes = [[time_s, self.random.choice(BANDWIDTHS)] for time_s in times]
        return link

    def parameters(self) -> dict[str, Any]:
        """Draw QEMU's parameters that can change while a migration runs."""
        initial = self.rarely(20, 1, 50, 99)
        return {
            "max_bandwidth": self.rarely(0, "unlimited", "128MiB/s", "1Mbit/s", 125000, 1e15),
            "downtime_limit": self.rarely(300, 0, 1, 30, 2000, 2_000_000),
            "throttle_trigger_threshold": self.rarely(50, 1, 10, 100),
            "cpu_throttle_initial": initial,
            "cpu_throttle_increment": self.rarely(10, 1, 50, 99),
            "max_cpu_throttle": self.rarely(99, initial, max(initial, 60)),
        }

    def migration(self) -> MigrationConfig:
        version = self.random.choice([*VERSIONS, "qemu_9_2", "qemu_10_1"])
        rules = VERSIONS[version]
        keys = self.parameters() | {
            "avail_switchover_bandwidth": self.rarely(0, 125000, "1GB/s", 1e15, share=0.2),
            "cpu_throttle_tailslow": self.chance(0.2),
            "multifd_channels": self.rarely(0, 1, 2, 8, 255) if rules.has_multifd else 0,
        }
        if rules.fallback_sync_interval_ns is not None:
            intervals = ["never", "5s", "1ms", "10ms", 1, "70ms", "24h"]
            keys["fallback_sync_interval"] = self.rarely(None, *intervals, share=0.5)
        kept = {key: value for key, value in keys.items() if key not in rules.lacks}
        if "max_cpu_throttle" not in kept and kept["cpu_throttle_initial"] > 99:
            kept["cpu_throttle_initial"] = 20
        return MigrationConfig(version=version, auto_converge=not self.chance(0.15), **kept)

    def permit_postcopy(self, config: Config) -> None:
        """Let a config switch to post-copy, and perhaps lose its link."""
        if not VERSIONS[config.migration.version].has_multifd_with_postcopy:
            config.migration.multifd_channels = 0
        config.vm.vfio_devices = 0
        config.migration.postcopy_ram = True
        config.limit.simulated = self.rarely("60s", config.limit.simulated)
        has_preempt = VERSIONS[config.migration.version].has_preempt
        config.migration.postcopy_preempt = has_preempt and self.chance(0.4)
        config.migration.start_postcopy = self.rarely(
            self.spread(1e-6, 1), "never", "0s", "1pass", "3passes", "9s_per_gib", "throttle_20"
        )
        config.migration.max_postcopy_bandwidth = self.rarely(0, "unlimited", 125000, 1e15)
        config.postcopy = PostcopyConfig(
            fault_us=self.rarely(45.0, 0, 1e5),
            fault_spread=self.rarely(0.45, 0, 2.0),
            request_us=self.rarely(10.0, 0, 1e4),
            socket_buffers=self.rarely("10MiB", 0, "1GiB"),
            discard_us=self.rarely(1.98, 0, 1e3),
            resume_ms=self.rarely(420.0, 0, 1e4),
            threads=self.rarely(None, 1000, 65536),
            async_page_faults=not self.chance(0.3),
        )
        if config.schedule:
            actions = ("start-postcopy", "lose-link", "recover", "recover")
            config.schedule += [
                {"at": self.spread(1e-3, 30), "do": self.random.choice(actions)} for _ in range(3)
            ]

    def backing(self, vm: VmConfig) -> str:
        """Draw a backing whose pages fit the largest block."""
        pages = parse_layout(vm).blocks[0]
        return self.random.choice(
            [name for name, size in BACKINGS.items() if size <= pages * vm.page_size]
        )

    def tracking(self, version: str) -> TrackingConfig:
        tracking = TrackingConfig(
            mode=self.random.choice(VERSIONS[version].tracking),
            initially_set=not self.chance(0.3),
            log_sync_ns_per_gib=self.rarely(9766.0, 0.0, 1e8, 1e9),
            log_sync_us_per_block=self.rarely(0.0, 1.0, 1e6, share=0.15),
            listeners_ms=self.rarely(0.0, 3.0, 100.0, 3000.0, 1e6, share=0.25),
            merge_ns_per_gib=self.rarely(19531.0, 0.0, 1e8, 1e9),
            misaligned_ms=self.rarely(0.0, 61.0, 1e6, share=0.15),
            waits_for_burst=not self.chance(0.3),
            remote_clear_us=self.rarely(0.0, 1.0, 1000.0, 1e6, share=0.2),
            protect_ns_per_page=self.rarely(42.7, 0.0, 1e4),
            start_ns_per_page=self.rarely(13.4, 0.0, 1e4),
            eager_page_split=not self.chance(0.3),
            split_ns_per_page=self.rarely(61.6, 0.0, 1e4),
            split_write_cost_ns=self.rarely(1186.0, 0.0, 1e5, 1e9),
            split_write_serial_percent=self.rarely(10.0, 0.0, 100.0),
            first_write_cost_ns=self.rarely(224.0, 0.0, 1e5, 1e9),
            first_write_serial_percent=self.rarely(2.5, 0.0, 69.0, 100.0),
        )
        if tracking.mode == "kvm_legacy" and self.chance(0.4):
            tracking.page_size = self.random.choice([4096, "64KiB", "2MiB", "16MiB"])
        if tracking.mode in ("tcg", "dirty_ring") and self.chance(0.3):
            borders = self.rising(2 * self.random.choice([1, 5, 100]), 1e-3, 60)
            pairs = zip(borders[::2], borders[1::2], strict=True)
            tracking.recorded_sleeps = [list(pair) for pair in pairs]
        return tracking

    def limit(self, migration: MigrationConfig) -> LimitConfig:
        """Draw limits. A run with many fallback syncs a second gets a short one."""
        often = migration.fallback_sync_interval in ("1ms", "10ms", "70ms")
        longest_s = 0.5 if often else 60
        return LimitConfig(
            simulated=self.rarely(longest_s, self.spread(1e-3, longest_s), "1ns", share=0.6),
            wall=self.rarely(None, 1e-9, "10s", share=0.05),
            stop_when_stuck=not self.chance(0.2),
        )

    def schedule(self) -> list[dict[str, Any]]:
        return [self.action() for _ in range(self.random.choice([1, 2, 3, 8]))]

    def action(self) -> dict[str, Any]:
        when = {"at_sync": self.rarely(2, 1, 3, 5, 100, 2**53, share=0.6)}
        if self.chance(0.6):
            when = {"at": self.rarely(self.spread(1e-6, 30), 0, 1, "5s")}
        if self.chance(0.6):
            return when | {"do": self.random.choice(["pause", "resume", "resume", "cancel"])}
        changed = self.random.sample(sorted(self.parameters().items()), self.rarely(1, 2))
        return when | {"set": dict(changed)}

    def attempt(self, number: int) -> AttemptConfig:
        migration: dict[str, Any] = {}
        if self.chance(0.4):
            migration = dict(self.random.sample(sorted(self.parameters().items()), 1))
        return AttemptConfig(
            after=0 if number == 0 else self.rarely("10s", 0, 1),
            migration=migration,
            schedule=self.schedule() if self.chance(0.7) else [],
            resets_capabilities=self.chance(0.3),
        )


def make_config(number: int, edges: Sequence[Any] = EDGES) -> Config:
    """Return config `number`. One in eight has a key or two replaced by one of `edges`."""
    draw = ConfigDraw(random.Random(number))
    config = draw.config()
    switch = ConfigDraw(random.Random(f"post-copy {number}"))
    if switch.chance(0.2):
        switch.permit_postcopy(config)
    if edges and draw.chance(0.125):
        for _ in range(draw.random.randint(1, 2)):
            owner, name = draw.random.choice(list(find_keys(config)))
            edge = draw.random.choice(edges)
            if (name, edge) != ("memory", 1e15):  # sound, but its bitmaps take up to 30 GB
                setattr(owner, name, edge)
    return config


def find_keys(owner: Any) -> Iterator[tuple[Any, str]]:
    """Yield the data class and the name of every key of a config: of groups, guests and attempts."""
    for field in fields(owner):
        value = getattr(owner, field.name)
        yield owner, field.name
        for inner in (value, *(value.values() if isinstance(value, dict) else ())):
            if is_dataclass(inner):
                yield from find_keys(inner)
        if isinstance(value, list):
            for inner in filter(is_dataclass, value):
                yield from find_keys(inner)
