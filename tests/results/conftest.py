"""Plausible migrations without the engine. No test compares them with QEMU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from gpusim import Config, EvacuatedGuest, Evacuation, EvacuationSummary, LinkConfig
from gpusim.engine.records import Event, Result, Summary, SyncRecord, TimelineSample

PAGE = 4096
RUN_FILES = {"events.jsonl", "summary.json", "syncs.csv", "timeline.csv", "timeline.npz"}
MakeResult = Callable[..., Result]
MakeEvacuation = Callable[..., Evacuation]


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@dataclass
class FakeMigration:
    """One migration of scalars. `run` returns its result."""

    vm_bytes: int = 2**30
    working_set_bytes: float = 2.0**28
    write_rate: float = 4e8  # bytes a second at full speed
    link_rate: float = 2.5e8
    fallback_s: float = 5.0
    max_syncs: int = 400
    limit_s: float = 1e9
    auto_converge: bool = True
    time_s: float = 0.0
    transferred: float = 0.0
    remaining: float = 0.0
    run_s: float = 0.0
    throttle: int = 0
    passes: int = 1
    pass_ends: list[float] = field(default_factory=list)
    period: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])  # start, dirty, sent
    syncs: list[SyncRecord] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    samples: list[TimelineSample] = field(default_factory=list)

    def sample(self) -> None:
        self.samples.append(
            TimelineSample(
                time_s=self.time_s,
                remaining_bytes=round(self.remaining),
                transferred_bytes=round(self.transferred),
                cpu_throttle_percentage=self.throttle,
                dirty_sync_count=len(self.syncs),
                bitmap_sync_count=len(self.syncs),
                guest_run_s=self.run_s,
            )
        )

    def send(self, seconds: float) -> float:
        """Bytes newly dirty after `seconds` of sending."""
        self.sample()
        speed = 1 - self.throttle / 100
        sent = min(self.link_rate * seconds, self.remaining)
        self.time_s += seconds
        self.run_s += speed * seconds
        self.remaining -= sent
        self.transferred += sent
        self.period[2] += sent
        clean = max(self.working_set_bytes - min(self.remaining, self.working_set_bytes), 0.0)
        self.sample()
        return min(self.write_rate * speed * seconds, clean)

    def sync(self, kind: Any, dirty: float) -> None:
        self.remaining += dirty
        self.period[1] += dirty
        period_s = self.time_s - self.period[0]
        closes = period_s > 1.0
        if closes and self.auto_converge and self.period[1] > 0.5 * self.period[2]:
            self.throttle = min(max(self.throttle + 10, 20), 99)
            self.events.append(Event(time_s=self.time_s, event="migration_throttle", arguments={}))
        self.syncs.append(
            SyncRecord(
                dirty_sync_count=len(self.syncs) + 1,
                kind=kind,
                time_s=self.time_s,
                duration_ms=0.1,
                newly_dirty_pages=round(dirty) // PAGE,
                remaining_bytes=round(self.remaining),
                transferred_bytes=round(self.transferred),
                threshold_bytes=round(self.link_rate * 0.3),
                bandwidth_bytes_per_s=self.link_rate,
                cursor_page=0,
                pass_number=self.passes,
                cpu_throttle_percentage=self.throttle,
                dirty_rate_high_cnt=0,
                period_ms=round(1e3 * period_s) if closes else None,
                bytes_dirty_period=round(self.period[1]) if closes else None,
                bytes_xfer_period=round(self.period[2]) if closes else None,
                dirty_pages_rate=round(self.period[1] / period_s / PAGE) if closes else None,
            )
        )
        arguments = {"dirty_pages": round(dirty) // PAGE}
        name = "migration_bitmap_sync_end"
        self.events.append(Event(time_s=self.time_s, event=name, arguments=arguments))
        if closes:
            self.period = [self.time_s, 0.0, 0.0]
        self.sample()

    def run(self) -> Result:
        self.sync("setup", self.vm_bytes)
        self.period[1] = 0.0
        verdict = "not_converged"
        while len(self.syncs) < self.max_syncs:
            left_s = self.remaining / self.link_rate
            if self.time_s + min(left_s, self.fallback_s) > self.limit_s:
                self.send(self.limit_s - self.time_s)
                verdict = "time_limit"
                break
            if left_s > self.fallback_s:
                self.sync("fallback", self.send(self.fallback_s))
                continue
            dirty = self.send(left_s)
            self.passes += 1
            self.pass_ends.append(self.time_s)
            self.sync("exact", dirty)
            if self.remaining <= 0.3 * self.link_rate:
                self.send(self.remaining / self.link_rate)
                verdict = "converged"
                break
        summary = self.summary(verdict)
        return Result(
            summary=summary,
            syncs=self.syncs,
            events=self.events,
            samples=self.samples,
            pass_ends_s=self.pass_ends,
        )

    def summary(self, verdict: Any) -> Summary:
        first = [sync.time_s for sync in self.syncs if sync.cpu_throttle_percentage]
        top = max(sync.cpu_throttle_percentage for sync in self.syncs)
        at_top = [s.time_s for s in self.syncs if top and s.cpu_throttle_percentage == top]
        return Summary(
            status="ok",
            verdict=verdict,
            reason="the remaining memory fell below the threshold",
            reason_code="converged",
            attempt=1,
            total_time_s=self.time_s,
            downtime_ms=120.5 if verdict == "converged" else None,
            first_pass_s=next((s.time_s for s in self.syncs if s.kind == "exact"), None),
            dirty_sync_count=len(self.syncs),
            bitmap_sync_count=len(self.syncs),
            fallback_sync_count=sum(sync.kind == "fallback" for sync in self.syncs),
            first_throttle_s=first[0] if first else None,
            max_throttle_percent=top,
            time_at_max_throttle_s=self.time_s - at_top[0] if at_top else 0.0,
            longest_vcpu_stall_ms=990.0 if top == 99 else 0.0,
            transferred_bytes=round(self.transferred),
            normal_pages=round(self.transferred) // PAGE,
            zero_pages=0,
            resent_pages=max(round(self.transferred) - self.vm_bytes, 0) // PAGE,
            remote_clears=0,
            remote_clear_s=0.0,
            guest_cpu_lost_s=32 * (self.time_s - self.run_s),
            write_faults=round(self.time_s * 1000),
            guest_fault_s=self.time_s / 500 if self.fallback_s < 1e9 else 0.0,
            guest_cpu_lost_percent=100 * (1 - self.run_s / self.time_s) if self.time_s else 0.0,
            guest_big_lock_s=0.0,
            paused_s=0.0,
            sync_stall_s=0.0,
            main_loop_stall_s=0.0,
            longest_main_loop_stall_ms=0.0,
            remaining_bytes=round(self.remaining),
            vm_bytes=self.vm_bytes,
            qemu_version="qemu_9_2" if self.fallback_s < 1e9 else "qemu_9_1",
            tracking="kvm_manual",
            backend="numpy",
            backend_reason="auto: no GPU found",
            seed=1,
            simulated_looks=len(self.syncs),
            wall_time_s=0.5,
            bitmap_bytes=self.vm_bytes // PAGE // 4,
            process_peak_rss_bytes=10**8,
            gpusim_version="0.0.0",
        )


@pytest.fixture
def make_result() -> MakeResult:
    """Return a function that runs a FakeMigration with the given fields."""
    return lambda **fields: FakeMigration(**fields).run()


@pytest.fixture
def result(make_result: MakeResult) -> Result:
    """Return a run of a 1 GiB VM that converges under a throttle, with a fallback sync."""
    made = make_result(link_rate=1e8, write_rate=1.5e8)
    assert made.summary.verdict == "converged"
    assert made.summary.fallback_sync_count
    return made


@pytest.fixture
def make_evacuation(make_result: Callable[..., Result]) -> MakeEvacuation:
    """Return a function that migrates guests one after the other, without the engine."""

    def make(names: list[str], *, left: tuple[str, ...] = (), **summary: Any) -> Evacuation:
        guests, now_s = [], 0.0
        for name in names:
            stalled = {"write_rate": 1e9, "max_syncs": 8} if name in left else {}
            result = make_result(**{"link_rate": 1e8, "write_rate": 1.5e8, **stalled})
            end_s = now_s + result.summary.total_time_s
            link = LinkConfig(bandwidth=1e8, changes=[[1.5, 5e7]])
            guests.append(
                EvacuatedGuest(
                    name=name,
                    config=Config(link=link),
                    vcpus=32,
                    start_s=now_s,
                    end_s=end_s,
                    result=result,
                )
            )
            now_s = end_s
        keys: dict[str, Any] = {
            "status": "ok",
            "verdict": "not_converged" if left else "converged",
            "reason": "a reason of the engine",
            "reason_code": "guest_left_behind" if left else "all_guests_out",
            "total_time_s": now_s,
            "downtime_ms": 120.5,
            "dirty_sync_count": 10,
            "bitmap_sync_count": 10,
            "fallback_sync_count": 1,
            "max_throttle_percent": 50,
            "longest_vcpu_stall_ms": 10.0,
            "transferred_bytes": 10**9,
            "link_used_percent": 99.0,
            "guest_cpu_lost_s": 12.0,
            "guest_cpu_lost_percent": 1.5,
            "write_faults": 1000,
            "guest_fault_s": 0.5,
            "vm_bytes": 2**30 * len(names),
            "guests": len(names),
            "left_behind": list(left),
            "at_a_time": 1,
            "order": "as_listed",
            "qemu_version": "qemu_9_2",
            "tracking": "kvm_manual",
            "backend": "numpy",
            "backend_reason": "chosen by name",
            "seed": 1,
            "simulated_runs": len(names),
            "wall_time_s": 0.5,
            "bitmap_bytes": 1,
            "gpusim_version": "0.0.0",
        }
        return Evacuation(
            summary=EvacuationSummary(**{**keys, **summary}),
            guests=guests,
            link_bandwidth=[(0.0, 1e8)],
        )

    return make


@pytest.fixture
def without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let gpusim-collect draw no pictures, which take most of its time."""
    monkeypatch.setattr("gpusim.cli.collect._draw", lambda *_: ([], []))
