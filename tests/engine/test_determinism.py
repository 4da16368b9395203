"""Does a seed decide every byte, and is QEMU 9.2 without its timer QEMU 9.1?"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from gpusim import BackendConfig, Config, TrackingConfig, WriterConfig, simulate
from gpusim.results import write_run
from tests.engine.scenarios import FREE_EAGER, FREE_LAZY, config


def written(run: Config, folder: Path) -> tuple[bytes, bytes]:
    """Return syncs.csv and events.jsonl of a run."""
    write_run(simulate(run), folder, plot=False)
    return (folder / "syncs.csv").read_bytes(), (folder / "events.jsonl").read_bytes()


@pytest.mark.parametrize("tracking", [FREE_EAGER, FREE_LAZY], ids=["eager", "lazy"])
def test_same_seed_gives_the_same_bytes(tracking: TrackingConfig, tmp_path: Path) -> None:
    first = written(config(tracking=tracking), tmp_path / "first")
    again = written(config(tracking=tracking), tmp_path / "again")
    other = written(config(tracking=tracking, seed=2), tmp_path / "other")
    assert again == first
    assert other[0] != first[0]
    assert other[1] != first[1]


def test_threads_do_not_change_a_byte(tmp_path: Path) -> None:
    run = config("100GiB", WriterConfig(working_set="80GiB", page_writes_per_s=4e6),
                 max_bandwidth=5_000_000_000, limit_s=60)  # fmt: skip
    one = written(replace(run, backend=BackendConfig(threads=1)), tmp_path / "one")
    three = written(replace(run, backend=BackendConfig(threads=3)), tmp_path / "three")
    assert three == one


@pytest.mark.parametrize("tracking", [FREE_EAGER, FREE_LAZY], ids=["eager", "lazy"])
def test_a_timer_that_never_fires_is_qemu_9_1(tracking: TrackingConfig) -> None:
    slow = {"tracking": tracking, "max_bandwidth": 100_000_000}  # passes of ten seconds
    older = simulate(config(version="qemu_9_1", **slow))
    for interval in ("never", "24h"):
        newer = simulate(config(fallback_sync_interval=interval, **slow))
        assert newer.syncs == older.syncs
        assert newer.events == older.events
    assert simulate(config(**slow)).syncs != older.syncs
