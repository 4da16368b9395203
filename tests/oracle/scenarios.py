"""Random scenarios for the oracle: one config for each number, the same on every machine.

All writers are sequential, so no draw is random and both models must agree to the page. A scenario has
a few hundred thousand pages at most, and a link that sends them in seconds. A key whose effect the
naive model lacks is neutral in all scenarios, see `NEUTRAL_TRACKING`.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from gpusim import (
    BackendConfig,
    Config,
    LimitConfig,
    LinkConfig,
    MigrationConfig,
    MixConfig,
    SequentialConfig,
    TrackingConfig,
    VmConfig,
)

PAGE = 4096
GRANULE = 64  # pages: a block whose length is no multiple of it is misaligned
VERSIONS = ("qemu_2_6", "qemu_7_2", "qemu_9_1", *["qemu_9_2"] * 3, *["qemu_10_1"] * 2,
            "seed_v2", "seed_v3", "seed_v4")  # fmt: skip
MODES = ("kvm_manual", "kvm_manual", "kvm_legacy")
NEUTRAL_TRACKING: dict[str, Any] = {
    "protect_ns_per_page": 0,
    "start_ns_per_page": 0,
    "split_ns_per_page": 0,
    "first_write_cost_ns": 0,
    "mutex_win_percent": 100,
}


@dataclass(frozen=True, kw_only=True)
class Features:
    """What scenarios may have.

    Attributes:
        versions, modes: the choices of migration.version and tracking.mode.
        most_pages: the most pages of a RAM block.
        several_blocks, zero_pages, link_changes, actions, costs, multifd: whether they occur.
    """

    versions: tuple[str, ...] = VERSIONS
    modes: tuple[str, ...] = MODES
    most_pages: int = 800 * GRANULE
    several_blocks: bool = True
    zero_pages: bool = True
    link_changes: bool = True
    actions: bool = True
    costs: bool = True
    multifd: bool = False


def draw_config(number: int, features: Features | None = None) -> Config:
    """Return the scenario of a number."""
    return _Draw(random.Random(number), features or Features()).config()


class _Draw:
    def __init__(self, source: random.Random, features: Features) -> None:
        self.random, self.features = source, features
        self.blocks = [
            GRANULE * source.randint(16, features.most_pages // GRANULE)
            for _ in range(source.choice([1, 1, 2, 3, 4]) if features.several_blocks else 1)
        ]
        self.pages = sum(self.blocks)
        self.first_pass_s = self.one_of(1, 3, 6, 12, 20, 30) * source.uniform(0.7, 1.4)
        self.bandwidth = self.pages * PAGE / self.first_pass_s
        self.has_costs = features.costs and self.chance(0.6)
        self.version = source.choice(features.versions)

    def one_of(self, *choices: Any) -> Any:
        return self.random.choice(choices)

    def chance(self, share: float) -> bool:
        return self.random.random() < share

    def config(self) -> Config:
        count = self.random.randint(1, 3)
        writers = {f"w{n}": self.writer(count) for n in range(count)}
        zero_ranges = self.zero_ranges(list(writers.values()))
        link, max_bandwidth = self.link(has_zero_pages=bool(zero_ranges))
        return Config(
            vm=VmConfig(
                memory=self.pages * PAGE,
                page_size=PAGE,
                vcpus=8,
                timer_latency_us=0,
                blocks=[block * PAGE for block in self.blocks],
                zero_ranges=zero_ranges or None,
            ),
            workload=MixConfig(writers=writers),
            link=link,
            migration=self.migration(max_bandwidth),
            tracking=self.tracking(),
            limit=LimitConfig(
                simulated=self.one_of(60.0371, 120.0371, 200.0371), stop_when_stuck=False
            ),
            backend=BackendConfig(name="numpy", threads=1),
            schedule=self.schedule(),
            seed=1,
            plot=False,
        )

    def writer(self, count: int) -> SequentialConfig:
        """Draw one of `count` writers, from nearly idle to far faster than the link."""
        pages = max(GRANULE, int(self.pages * self.random.uniform(0.02, 0.6)))
        of_link = self.one_of(0.02, 0.3, 0.8, 1.5, 4, 10) * self.random.uniform(0.5, 1.5) / count
        writer = SequentialConfig(
            working_set=pages * PAGE,
            start=self.random.randrange(self.pages - pages + 1) * PAGE,
            threads=self.one_of(1, 1, 2, 4, 7),
            first_write=self.one_of(0, 0, self.random.randrange(10**6)),
            page_writes_per_s=int(self.bandwidth / PAGE * of_link) + 0.5,
            throttled=self.chance(0.85),
        )
        if self.chance(0.15):
            from_s = self.random.uniform(0, self.first_pass_s * 2)
            until_s = from_s + self.random.uniform(1, 30)
            writer.windows = [[round(from_s, 3), round(until_s, 3)]]
        elif self.chance(0.1):
            writer.pace, writer.throttled = "recorded", True
            writer.recorded = self.record(writer.page_writes_per_s)
        return writer

    def record(self, page_writes_per_s: float) -> list[list[float]]:
        time_s, writes = 0.0, 0.0
        pairs = [[time_s, writes]]
        for _ in range(self.random.randint(2, 30)):
            step_s = self.random.uniform(0.3, 5)
            time_s += step_s
            writes += page_writes_per_s * self.random.uniform(0, 2) * step_s + 1
            pairs.append([round(time_s, 3), round(writes)])
        return pairs

    def zero_ranges(self, writers: list[SequentialConfig]) -> list[list[int]]:
        """Draw zero pages in some of the gaps between the writers, in bytes."""
        if not (self.features.zero_pages and self.chance(0.4)):
            return []
        ranges, gap_first = [], 0
        places = [(int(w.start) // PAGE, int(w.working_set or 0) // PAGE) for w in writers]
        for first, pages in [*sorted(places), (self.pages, 0)]:
            if first - gap_first > GRANULE and self.chance(0.7):
                low = gap_first + self.random.randrange((first - gap_first) // 2)
                ranges.append([low * PAGE, self.random.randrange(low + 1, first + 1) * PAGE])
            gap_first = max(gap_first, first + pages)
        return ranges

    def link(self, *, has_zero_pages: bool) -> tuple[LinkConfig, int]:
        """Draw the link and max-bandwidth. One of them limits, or max-bandwidth limits a bit more."""
        limits = self.one_of("link", "max_bandwidth", "both")
        own = self.bandwidth
        bandwidth = {"link": own, "both": own * self.random.uniform(1.05, 3)}.get(limits, 0)
        max_bandwidth = self.one_of(0, 0, int(own * 3)) if limits == "link" else int(own)
        # A page must cost something, or no time passes.
        scan = "2GB/s" if has_zero_pages and not bandwidth else self.one_of("unlimited", "2GB/s")
        link = LinkConfig(
            bandwidth=bandwidth or "unlimited",
            zero_page_scan=scan,
            page_cost_ns=self.one_of(0, 2580) if self.has_costs else 0,
            wakeup_latency_us=self.one_of(50, 50, 1003) if self.has_costs else 37,
            non_ram_downtime_ms=self.one_of(0, 20) if self.has_costs else 0,
        )
        if bandwidth and self.features.link_changes and self.chance(0.15):
            at_s, link.changes = 0.0, []
            for _ in range(self.random.randint(1, 3)):
                at_s += self.random.uniform(1, 20)
                rate = round(bandwidth * self.random.uniform(0.3, 2))
                link.changes.append([round(at_s, 3), rate])
        return link, max_bandwidth

    def migration(self, max_bandwidth: int) -> MigrationConfig:
        has_switchover_bandwidth = self.version not in ("qemu_2_6", "qemu_7_2")
        switchover_bandwidth = 0
        if has_switchover_bandwidth and self.chance(0.2):
            switchover_bandwidth = int(self.bandwidth * self.random.uniform(0.2, 3))
        initial = self.one_of(20, 20, 10, 50)
        migration = MigrationConfig(
            version=self.version,
            auto_converge=self.chance(0.9),
            max_bandwidth=max_bandwidth,
            downtime_limit=self.one_of(0, 10, 30, 100, 300, 300, 300, 1000),
            avail_switchover_bandwidth=switchover_bandwidth,
            cpu_throttle_initial=initial,
            cpu_throttle_increment=self.one_of(10, 10, 3, 25, 40),
            multifd_channels=self.multifd_channels(),
        )
        if self.version != "qemu_2_6":
            migration.throttle_trigger_threshold = self.one_of(50, 50, 20, 80, 100, 5)
            migration.cpu_throttle_tailslow = self.chance(0.3)
            migration.max_cpu_throttle = max(initial, self.one_of(99, 99, 80, 60))
        return migration

    def multifd_channels(self) -> int:
        if not self.features.multifd or self.version == "qemu_2_6":
            return 0
        return self.random.choice([0] * 6 + [2, 4])

    def tracking(self) -> TrackingConfig:
        """Draw the tracking mode, and costs of a sync up to half a second."""
        gib = self.pages * PAGE / 2**30
        mode = self.random.choice(self.features.modes)
        tracking = TrackingConfig(
            mode="kvm_legacy" if self.version == "qemu_2_6" else mode,
            initially_set=self.chance(0.7),
            log_sync_ns_per_gib=0,
            merge_ns_per_gib=0,
            misaligned_ms=0,
            waits_for_burst=self.chance(0.9 if self.has_costs else 0.6),
            **NEUTRAL_TRACKING,
        )
        if self.has_costs:
            tracking.log_sync_ns_per_gib = min(1e9, self.one_of(0, 1, 10, 60, 250) * 1e6 / gib)
            tracking.merge_ns_per_gib = min(1e9, self.one_of(0, 1, 10, 60, 250) * 1e6 / gib)
            tracking.listeners_ms = self.one_of(0, 0, 3, 100)
            tracking.misaligned_ms = self.one_of(0, 0, 5, 61)
            tracking.remote_clear_us = self.one_of(0, 0, 50, 3000, 30000)
        return tracking

    def schedule(self) -> list[dict[str, Any]]:
        actions: list[dict[str, Any]] = []
        at_s = 0.0
        if not (self.features.actions and self.chance(0.3)):
            return actions
        for _ in range(self.random.randint(1, 4)):
            at_s += self.random.uniform(0.5, 15)
            action = self.action()
            by_count = self.chance(0.25)
            when = {"at_sync": self.random.randint(1, 8)} if by_count else {"at": round(at_s, 3)}
            actions.append(when | action)
            if action.get("do") == "pause":
                at_s += self.random.uniform(0.2, 8)
                actions.append({"at": round(at_s, 3), "do": "resume"})
        return actions

    def action(self) -> dict[str, Any]:
        settings = {
            "max_bandwidth": int(self.bandwidth * self.random.uniform(0.3, 2)),
            "downtime_limit": self.one_of(50, 600, 5000),
            "cpu_throttle_increment": self.one_of(5, 20),
            "max_cpu_throttle": self.one_of(70, 90, 99),
        }
        if self.version == "qemu_2_6":
            del settings["max_cpu_throttle"]
        what = self.one_of("pause", "resume", "cancel", *settings)
        return {"set": {what: settings[what]}} if what in settings else {"do": what}
