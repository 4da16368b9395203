"""Does a run that ends inside a sync agree with itself, wherever it ends?"""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace

import pytest

from gpusim import Progress, TrackingConfig, WriterConfig, simulate
from gpusim.config.backend import choose_backend
from gpusim.config.scenario import resolve
from gpusim.engine import recorder
from gpusim.engine.audit import audit
from gpusim.engine.migration import Migration
from gpusim.wall_limit import WallLimit, WallLimitReachedError
from tests.engine.scenarios import config

COSTLY = TrackingConfig(
    mode="kvm_legacy", listeners_ms=90.0, misaligned_ms=40.0, protect_ns_per_page=300.0
)
LIMITS_S = [number / 20 for number in range(1, 241)]


@pytest.mark.parametrize("tracking", [COSTLY, replace(COSTLY, waits_for_burst=False)])
def test_a_run_that_ends_at_any_limit_is_sound(tracking: TrackingConfig) -> None:
    ends_inside = 0
    for limit_s in LIMITS_S:
        made = config(
            "512MiB",
            WriterConfig(working_set="200MiB", page_writes_per_s=4e4),
            bandwidth="60MB/s",
            max_bandwidth=0,
            fallback_sync_interval="700ms",
            tracking=tracking,
            limit_s=limit_s,
        )
        result = simulate(made)
        assert audit(result) == []
        assert len(result.syncs) == result.summary.dirty_sync_count
        last = result.syncs[-1]
        ends_inside += last.time_s + last.duration_ms / 1000 >= result.summary.total_time_s
        assert result.summary.total_time_s == pytest.approx(limit_s)
    assert ends_inside > 10


def test_the_final_sync_comes_after_a_fallback_sync_that_waited_for_the_lock() -> None:
    """In v3 the setup's period starts the timer, and its tick waits for the exact sync."""
    tracking = replace(COSTLY, listeners_ms=3000.0)
    made = config(
        "16MiB",
        WriterConfig(working_set="4MiB", page_writes_per_s=10),
        bandwidth="60MB/s",
        max_bandwidth=0,
        version="seed_v3",
        fallback_sync_interval="1s",
        tracking=tracking,
    )
    result = simulate(made)
    assert result.syncs[-1].kind == "final"
    assert audit(result) == []


def test_the_observer_follows_the_wall_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each reading of the clock is 50 ms after the one before, so every second one is shown."""
    readings: list[int] = []

    def read_clock() -> int:
        readings.append(50_000_000 * len(readings))
        return readings[-1]

    monkeypatch.setattr(recorder.time, "monotonic_ns", read_clock)
    shown: list[Progress] = []
    writer = WriterConfig(working_set="200MiB", page_writes_per_s=4e4)
    made = config("512MiB", writer, bandwidth="60MB/s", max_bandwidth=0, limit_s=30,
                  fallback_sync_interval="10ms", downtime_limit=1)  # fmt: skip
    watched = simulate(made, observe=shown.append)
    monkeypatch.undo()
    alone = simulate(made)
    assert watched.syncs == alone.syncs
    assert watched.events == alone.events
    assert watched.samples == alone.samples
    decisions = (
        len(readings) - 3
    )  # the starts of the check and of the run, and its end, read it too
    assert decisions > 100
    assert len(shown) == (decisions + 1) // 2


@pytest.mark.parametrize("limit_s", [0.15, 1.1, 1.9, 3.5])
def test_a_run_that_ends_in_or_behind_a_remote_clear_counts_the_part_before_its_end(
    limit_s: float,
) -> None:
    """Each clear takes 1 s, and each page behind it 1 s more."""
    tracking = TrackingConfig(mode="kvm_manual", remote_clear_us=1e6, split_ns_per_page=0)
    made = config("4GiB", WriterConfig(working_set="1MiB", page_writes_per_s=1), tracking=tracking,
                  limit_s=limit_s, max_bandwidth=0, bandwidth="1Gbit/s")  # fmt: skip
    made.link = replace(made.link, page_cost_ns=1e9)
    summary = simulate(made).summary
    assert summary.remote_clear_s == pytest.approx(min(limit_s, 1.0), abs=1e-3)
    sent_pages = max(0, int(limit_s) - 1)
    assert summary.normal_pages == sent_pages
    assert summary.remaining_bytes == summary.vm_bytes - sent_pages * 4096
    assert (summary.transferred_bytes == 0) == (sent_pages == 0)


class InsideASync(WallLimit):
    """A limit that is reached as soon as a fallback sync has merged the log."""

    migration: Migration | None = None

    def check(self) -> None:
        sync = self.migration and self.migration.fallback_timer.sync
        if sync is not None and sync.is_merged:
            raise WallLimitReachedError


def test_a_run_that_the_wall_clock_ends_inside_a_sync_counts_no_stall_after_its_end() -> None:
    """A merge takes 10 s, in which the sender stands still."""
    tracking = TrackingConfig(mode="kvm_legacy", merge_ns_per_gib=1e9, waits_for_burst=False)
    writer = WriterConfig(working_set="1GiB", page_writes_per_s=1e4)
    made = config("10GiB", writer, tracking=tracking, bandwidth="60MB/s", max_bandwidth=0,
                  fallback_sync_interval="1s", limit_s=1000)  # fmt: skip
    scenario, limit = resolve(made), InsideASync(None)
    with closing(Migration(scenario, choose_backend(scenario), limit=limit)) as limit.migration:
        result = limit.migration.run()
    assert result.summary.status == "incomplete"
    assert audit(result) == []
