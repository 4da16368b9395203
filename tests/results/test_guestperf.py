"""Can QEMU's guestperf-plot read the report, and does it show the run?

The keys are from QEMU v10.0's tests/migration-stress/guestperf: deserialize() of report.py,
hardware.py, scenario.py, progress.py and timings.py. `Reader` repeats the checks and the utilisation
arithmetic of plot.py. The units are from engine.py.
"""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpusim.results import write_run
from gpusim.results.guestperf import MOST_SAMPLES, guestperf_report
from tests.results.runs import CONFIG, RUNS, fake

REPORT = (
    "hardware scenario progress_history guest_timings qemu_timings vcpu_timings binary dst_host "
    "kernel initrd transport sleep"
)
HARDWARE = (
    "cpus mem src_cpu_bind src_mem_bind dst_cpu_bind dst_mem_bind prealloc_pages huge_pages "
    "locked_pages dirty_ring_size"
)
SCENARIO = (
    "name downtime bandwidth max_iters max_time pause pause_iters post_copy post_copy_iters "
    "auto_converge auto_converge_step compression_mt compression_mt_threads compression_xbzrle "
    "compression_xbzrle_cache multifd multifd_channels dirty_limit x_vcpu_dirty_limit_period "
    "vcpu_dirty_limit"
)
PROGRESS = (
    "status ram now duration downtime downtime_expected setup_time throttle_pcent "
    "dirty_limit_throttle_time_per_round dirty_limit_ring_full_time"
)
RAM = (
    "transferred_bytes remaining_bytes total_bytes duplicate_pages skipped_pages normal_pages "
    "normal_bytes dirty_rate_pps transfer_rate_mbs iterations"
)
TIMING = "tid timestamp value"


class Reader:
    """The calculations of guestperf-plot without the drawing."""

    def __init__(self, report: dict[str, Any]) -> None:
        self.report = report
        start_qemu = report["qemu_timings"][0]["timestamp"]
        assert start_qemu < report["guest_timings"][0]["timestamp"]  # else plot.py raises NameError
        self.start_s = start_qemu

    def guest_speed(self) -> list[tuple[float, float]]:
        """ms a GB over seconds."""
        timings = self.report["guest_timings"]
        return [(t["timestamp"] - self.start_s, t["value"]) for t in timings]

    def utilisation(self, name: str) -> list[tuple[float, float]]:
        """Percent over seconds, of cumulative milliseconds of CPU time."""
        timings = self.report[name]
        found = []
        for before, after in pairwise(timings):
            seconds = after["timestamp"] - before["timestamp"]
            used = (after["value"] - before["value"]) / 1000.0
            found.append((after["timestamp"], used / seconds * 100.0))
        return found

    def labels(self) -> list[str]:
        return [
            f"Status: {p['status']} Iteration: {p['ram']['iterations']:d} "
            f"Throttle: {p['throttle_pcent']:02d}% "
            f"Dirty rate: {int(p['ram']['dirty_rate_pps'] * 4 / 1024.0):d}MB/s"
            for p in self.report["progress_history"]
        ]

    def details(self) -> str:
        hardware, scenario = self.report["hardware"], self.report["scenario"]
        binds = [
            ",".join(hardware[f"{end}_{kind}_bind"])
            for end in ("src", "dst")
            for kind in ("cpu", "mem")
        ]
        numbers = ("downtime", "bandwidth", "max_iters", "max_time", "auto_converge_step")
        return " ".join([
            "%d cpus, %d GB" % (hardware["cpus"], hardware["mem"]),  # noqa: UP031  # as plot.py
            *binds,
            *("%d" % scenario[name] for name in numbers),  # noqa: UP031
        ])  # fmt: skip


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize("config", [CONFIG, None], ids=["config", "none"])
def test_every_run_has_all_keys_and_no_other(name: str, config: dict[str, Any] | None) -> None:
    report = json.loads(json.dumps(guestperf_report(RUNS[name](), config), allow_nan=False))
    assert set(report) == set(REPORT.split())
    assert set(report["hardware"]) == set(HARDWARE.split())
    assert set(report["scenario"]) == set(SCENARIO.split())
    assert report["progress_history"]
    for progress in report["progress_history"]:
        assert set(progress) == set(PROGRESS.split())
        assert set(progress["ram"]) == set(RAM.split())
    for timings in ("guest_timings", "qemu_timings", "vcpu_timings"):
        assert 1 <= len(report[timings]) <= MOST_SAMPLES + 1
        assert all(set(timing) == set(TIMING.split()) for timing in report[timings])


def test_the_plot_shows_the_run(tmp_path: Path) -> None:
    result = fake(link_rate=1e8, write_rate=1.5e8)
    write_run(result, tmp_path, config=CONFIG)
    reader = Reader(json.loads((tmp_path / "guestperf.json").read_bytes()))
    assert reader.details().startswith("32 cpus, 1 GB")
    assert "400 64 0 86400 10" in reader.details()
    history = reader.report["progress_history"]
    assert [p["ram"]["iterations"] for p in history[:-1]] == [
        sync.dirty_sync_count for sync in result.syncs
    ]
    assert history[0]["status"] == "setup"
    last, summary = history[-1], result.summary
    assert last["status"] == "completed"
    assert last["duration"] == round(1e3 * summary.total_time_s)
    assert last["downtime"] == round(summary.downtime_ms or 0)
    assert last["ram"]["transferred_bytes"] == summary.transferred_bytes
    assert last["ram"]["normal_bytes"] == 4096 * summary.normal_pages
    assert last["ram"]["transfer_rate_mbs"] == pytest.approx(800)  # of 1e8 bytes a second
    assert f"Throttle: {summary.max_throttle_percent:02d}%" in reader.labels()[-1]


def test_a_slower_guest_takes_longer_and_uses_less() -> None:
    result = fake(link_rate=1e8, write_rate=1.5e8)
    reader = Reader(guestperf_report(result, CONFIG))
    full_speed_ms = 1e3 * 2**30 / 4096 / CONFIG["workload"]["page_writes_per_s"]
    samples = result.samples
    for name, vcpus in (("vcpu_timings", 1), ("qemu_timings", 32)):
        for (time_s, ms_a_gib), (_, percent) in zip(
            reader.guest_speed(), reader.utilisation(name), strict=True
        ):
            assert ms_a_gib * percent / 100 == pytest.approx(vcpus * full_speed_ms, rel=1e-3)
            assert time_s <= result.summary.total_time_s + 1e-6
    shares = [percent for _, percent in reader.utilisation("vcpu_timings")]
    expected = 100 * samples[-1].guest_run_s / samples[-1].time_s
    assert np.mean(shares) == pytest.approx(expected, rel=1e-3)
    assert min(shares) < 85
    assert max(shares) == pytest.approx(100)


@pytest.mark.parametrize("page_size", [4096, 65536])
def test_guest_speed_is_that_of_a_cpu_bound_writer(page_size: int) -> None:
    config = {"vm": {"page_size": page_size}, "workload": {"page_writes_per_s": 4e4}}
    first = guestperf_report(fake(), config)["guest_timings"][0]
    assert first["value"] == pytest.approx(1e3 * 2**30 / page_size / 4e4)


@pytest.mark.parametrize(
    "workload",
    [
        {"pattern": "idle"},
        {"page_writes_per_s": 4e4, "pace": "paced"},
        {"page_writes_per_s": 4e4, "windows": [[1, 2]]},
        {"page_writes_per_s": 4e4, "throttled": False},
        {"writers": {"db": {"page_writes_per_s": 3e4}}},
    ],
)
def test_guest_speed_is_neutral_where_it_is_not_the_vcpus_alone(workload: dict) -> None:
    timings = guestperf_report(fake(), {"workload": workload})["guest_timings"]
    assert {record["value"] for record in timings} == {0.0}


@pytest.mark.parametrize(
    ("limit", "link", "mib_per_s"),
    [(0, "unlimited", 125_000), ("128MiB/s", "10Gbit/s", 128), (0, "8Gbit/s", 954)],
)
def test_bandwidth_is_that_which_binds(limit: object, link: str, mib_per_s: int) -> None:
    config = {"migration": {"max_bandwidth": limit}, "link": {"bandwidth": link}}
    assert guestperf_report(fake(), config)["scenario"]["bandwidth"] == mib_per_s
