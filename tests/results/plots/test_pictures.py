"""Is there a picture for every way a migration can go, and does it say what happened?"""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from gpusim.errors import ResultsError
from gpusim.results import write_failure, write_run
from gpusim.results.plots import compare
from gpusim.results.plots.run import draw_run
from gpusim.text import format_duration, version_name
from tests.results.runs import RUNS, fake


def assert_is_picture(path: Path) -> None:
    head = path.read_bytes()
    assert head.startswith(b"\x89PNG\r\n\x1a\n")
    assert struct.unpack(">II", head[16:24]) == (1200, 900)
    assert len(head) > 15_000  # an empty canvas of this size is 5 kB


@pytest.mark.parametrize("name", RUNS)
def test_every_way_to_end_has_a_picture(name: str, tmp_path: Path) -> None:
    draw_run(RUNS[name](), tmp_path / "plot.png")
    assert_is_picture(tmp_path / "plot.png")


def test_two_versions_in_one_picture(tmp_path: Path) -> None:
    write_run(fake(fallback_s=1e18), tmp_path / "0", plot=False)
    write_run(fake(), tmp_path / "1", plot=False)
    compare.draw([tmp_path / "0", tmp_path / "1"], tmp_path / "new" / "compare.png")
    assert_is_picture(tmp_path / "new" / "compare.png")


def test_failed_and_missing_runs_are_named_not_drawn(tmp_path: Path) -> None:
    write_run(fake(), tmp_path / "good", plot=False)
    write_run(fake(), tmp_path / "torn", plot=False)
    (tmp_path / "torn" / "timeline.npz").write_bytes(b"PK\x03\x04 torn")
    write_failure(MemoryError("too large"), tmp_path / "failed")
    folders = [tmp_path / name for name in ("good", "torn", "failed", "missing")]
    runs, skipped = compare._read(folders)
    assert [run.name for run in runs] == ["QEMU 9.2"]
    assert [line.split(":")[0] for line in skipped] == ["torn", "failed", "missing"]
    assert "MemoryError: too large" in skipped[1]
    compare.draw(folders, tmp_path / "compare.png")
    assert_is_picture(tmp_path / "compare.png")


def test_runs_of_one_version_are_called_by_their_folders(tmp_path: Path) -> None:
    folders = [tmp_path / f"run_{index}" for index in range(8)]
    for folder in folders:
        write_run(fake(), folder, plot=False)
    runs, _ = compare._read(folders)
    assert [run.name for run in runs] == [folder.name for folder in folders]
    compare.draw(folders, tmp_path / "compare.png")
    assert_is_picture(tmp_path / "compare.png")


def test_nothing_to_draw_is_one_line(tmp_path: Path) -> None:
    write_failure(MemoryError("too large"), tmp_path / "failed")
    with pytest.raises(ResultsError, match="no run to draw: failed: MemoryError: too large"):
        compare.draw([tmp_path / "failed"], tmp_path / "compare.png")
    assert not (tmp_path / "compare.png").exists()


@pytest.mark.parametrize(
    ("time_s", "text"),
    [
        (0.0, "0 ms"),
        (0.05, "50 ms"),
        (1.797, "1.8 s"),
        (99.94, "99.9 s"),
        (119.0, "119 s"),
        (1234.0, "20.6 min"),
        (86400.0, "24 h"),
    ],
)
def test_durations_for_people(time_s: float, text: str) -> None:
    assert format_duration(time_s) == text


def test_versions_for_people() -> None:
    assert version_name("qemu_9_2") == "QEMU 9.2"
    assert version_name("custom") == "custom"
