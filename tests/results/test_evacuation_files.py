"""Does an evacuation leave whole files, true to its guests, and a picture of every outcome?"""

from __future__ import annotations

import csv
import json
import os
import struct
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from gpusim import Config, EvacuatedGuest, Evacuation, EvacuationSummary, LinkConfig, Result
from gpusim.results import read_summary, whole_evacuation, write_evacuation

FILES = {"evacuation.csv", "evacuation.png", "guests", "summary.json"}
GUEST_FILES = {
    "config.json",
    "events.jsonl",
    "summary.json",
    "syncs.csv",
    "timeline.csv",
    "timeline.npz",
}

MakeEvacuation = Callable[..., Evacuation]


@pytest.fixture
def make_evacuation(make_result: Callable[..., Result]) -> MakeEvacuation:
    """A function that lets guests follow each other without the engine; they share nothing."""

    def make(names: list[str], *, left: tuple[str, ...] = (), **summary: Any) -> Evacuation:
        guests, now_s = [], 0.0
        for name in names:
            stuck = {"write_rate": 1e9, "max_syncs": 40} if name in left else {}
            result = make_result(**{"link_rate": 1e8, "write_rate": 1.5e8, **stuck})
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
            "reason": "what the engine says",
            "total_time_s": now_s,
            "downtime_ms": 120.5,
            "dirty_sync_count": 10,
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
            "backend_reason": "asked for by name",
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


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def size(png: Path) -> tuple[int, ...]:
    return struct.unpack(">II", png.read_bytes()[16:24])


def test_an_evacuation_leaves_these_files(make_evacuation: MakeEvacuation, tmp_path: Path) -> None:
    evacuation = make_evacuation(["db", "web-1"])
    write_evacuation(evacuation, tmp_path, run_hash="abc")
    assert names(tmp_path) == FILES
    assert names(tmp_path / "guests") == {"db", "web-1"}
    assert names(tmp_path / "guests" / "db") == GUEST_FILES
    summary = read_summary(tmp_path)
    assert summary == asdict(evacuation.summary) | {"run_hash": "abc"}
    assert next(iter(summary)) == "kind"
    config = json.loads((tmp_path / "guests" / "db" / "config.json").read_text())
    assert config == asdict(evacuation.guests[0].config)


def test_no_plot_if_none_is_wanted(make_evacuation: MakeEvacuation, tmp_path: Path) -> None:
    write_evacuation(make_evacuation(["db"]), tmp_path, plot=False)
    assert names(tmp_path) == FILES - {"evacuation.png"}


def test_the_table_comes_back(make_evacuation: MakeEvacuation, tmp_path: Path) -> None:
    evacuation = make_evacuation(["db", "web-1", "web-2"], left=("web-1",))
    write_evacuation(evacuation, tmp_path, plot=False)
    with (tmp_path / "evacuation.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == ["db", "web-1", "web-2"]
    for row, guest in zip(rows, evacuation.guests, strict=True):
        summary = guest.result.summary
        assert float(row["start_s"]) == pytest.approx(guest.start_s, abs=1e-9)
        assert float(row["end_s"]) == pytest.approx(guest.end_s, abs=1e-9)
        assert row["verdict"] == summary.verdict
        downtime = "" if summary.downtime_ms is None else str(summary.downtime_ms)
        assert row["downtime_ms"] == downtime
        assert int(row["vm_bytes"]) == summary.vm_bytes


@pytest.mark.parametrize(
    "broken", ["evacuation.csv", "evacuation.png", "summary.json", "syncs.csv"]
)
def test_a_write_that_fails_leaves_no_summary(
    broken: str,
    make_evacuation: MakeEvacuation,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_evacuation(make_evacuation(["db"]), tmp_path, plot=False)  # an earlier one
    rename = os.replace

    def full_disk(source: Path, target: Path) -> None:
        if target.name == broken:
            raise OSError(28, "No space left on device")
        rename(source, target)

    monkeypatch.setattr(os, "replace", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_evacuation(make_evacuation(["db"]), tmp_path)
    assert "summary.json" not in names(tmp_path)


def test_a_guest_of_an_earlier_evacuation_is_gone(
    make_evacuation: MakeEvacuation, tmp_path: Path
) -> None:
    write_evacuation(make_evacuation(["db", "web"]), tmp_path, plot=False)
    write_evacuation(make_evacuation(["db"]), tmp_path, plot=False)
    assert "summary.json" in names(tmp_path / "guests" / "db")
    assert names(tmp_path / "guests") == {"db"}


def test_an_evacuation_is_computed_once(make_evacuation: MakeEvacuation, tmp_path: Path) -> None:
    write_evacuation(make_evacuation(["db"]), tmp_path, plot=False, run_hash="abc")
    assert whole_evacuation(tmp_path, "abc", plot=False)
    assert whole_evacuation(tmp_path, "abc", plot=True) is None
    assert whole_evacuation(tmp_path, "other", plot=False) is None
    (tmp_path / "evacuation.csv").unlink()
    assert whole_evacuation(tmp_path, "abc", plot=False) is None


@pytest.mark.parametrize("count", [0, 1, 8, 60])
def test_any_number_of_guests_is_a_picture(
    count: int, make_evacuation: MakeEvacuation, tmp_path: Path
) -> None:
    left = ("g0",) if count == 8 else ()
    evacuation = make_evacuation([f"g{number}" for number in range(count)], left=left)
    if not count:
        evacuation = replace(
            evacuation,
            summary=replace(evacuation.summary, status="incomplete", verdict=None, guests=4),
        )
    write_evacuation(evacuation, tmp_path)
    assert size(tmp_path / "evacuation.png") == (1200, 900)


def test_a_link_without_a_bound_is_a_picture_too(
    make_evacuation: MakeEvacuation, tmp_path: Path
) -> None:
    evacuation = make_evacuation(["db"], link_used_percent=None, max_throttle_percent=0)
    write_evacuation(replace(evacuation, link_bandwidth=[(0.0, float("inf"))]), tmp_path)
    assert size(tmp_path / "evacuation.png") == (1200, 900)
