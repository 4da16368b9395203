"""Are the files of an evacuation complete and true to its guests?"""

from __future__ import annotations

import csv
import json
import os
from dataclasses import asdict
from pathlib import Path

import pytest

from gpusim.results import read_summary, whole_evacuation, write_evacuation
from gpusim.results.summary_fields import GUEST_KEYS
from tests.results.conftest import RUN_FILES, MakeEvacuation, names
from tests.results.plots.drawn import png_size

PICTURES = {"evacuation.png", "evacuation_narrow.png"}
FILES = {"evacuation.csv", "guests", "summary.json"} | PICTURES
GUEST_FILES = RUN_FILES | {"config.json"}


def test_an_evacuation_leaves_these_files(make_evacuation: MakeEvacuation, tmp_path: Path) -> None:
    evacuation = make_evacuation(["db", "web-1"])
    write_evacuation(evacuation, tmp_path, run_hash="abc")
    assert names(tmp_path) == FILES
    assert png_size(tmp_path / "evacuation.png") == (1200, 900)
    assert png_size(tmp_path / "evacuation_narrow.png") == (780, 1350)
    assert names(tmp_path / "guests") == {"db", "web-1"}
    assert names(tmp_path / "guests" / "db") == GUEST_FILES
    summary = read_summary(tmp_path)
    assert summary == asdict(evacuation.summary) | {"run_hash": "abc"}
    assert next(iter(summary)) == "kind"
    config = json.loads((tmp_path / "guests" / "db" / "config.json").read_text())
    assert config == asdict(evacuation.guests[0].config)


def test_no_plot_if_none_is_wanted(make_evacuation: MakeEvacuation, tmp_path: Path) -> None:
    write_evacuation(make_evacuation(["db"]), tmp_path, plot=False)
    assert names(tmp_path) == FILES - PICTURES


def test_the_table_comes_back(make_evacuation: MakeEvacuation, tmp_path: Path) -> None:
    evacuation = make_evacuation(["db", "web-1", "web-2"], left=("web-1",))
    write_evacuation(evacuation, tmp_path, plot=False)
    with (tmp_path / "evacuation.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [*rows[0]] == ["name", "vm_bytes", "vcpus", "start_s", "end_s", *GUEST_KEYS]
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
