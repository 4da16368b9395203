"""Is every file of a run complete, true to the result, and a function of the result alone?"""

from __future__ import annotations

import csv
import json
import os
import sys
from dataclasses import asdict, fields, replace
from pathlib import Path

import numpy as np
import pytest

from gpusim import Config
from gpusim.engine.records import Attempt, Event, Result, Summary, SyncRecord
from gpusim.errors import ResultsError
from gpusim.results import begin_run, read_summary, write_failure, write_run
from gpusim.results import run_files as files
from gpusim.results.errors import RunsError
from gpusim.results.sweeps.runs import find_runs
from gpusim.version import __version__
from tests.results.conftest import RUN_FILES, names

PICTURES = {"guestperf.json", "plot.png", "report.html", "trace.json.gz"}
FILES = PICTURES | RUN_FILES


def test_a_run_leaves_these_files_and_no_temporary_one(result: Result, tmp_path: Path) -> None:
    write_run(result, tmp_path / "new" / "run")
    assert names(tmp_path / "new" / "run") == FILES


def test_no_pictures_if_none_are_wanted(result: Result, tmp_path: Path) -> None:
    write_run(result, tmp_path, plot=False)
    assert names(tmp_path) == FILES - PICTURES


def test_the_summary_comes_back_in_the_order_of_its_fields(result: Result, tmp_path: Path) -> None:
    write_run(result, tmp_path, plot=False, run_hash="12ab")
    summary = read_summary(tmp_path)
    assert summary == asdict(result.summary) | {"run_hash": "12ab"}
    assert list(summary) == [*(field.name for field in fields(Summary)), "run_hash"]


def test_what_is_unknown_is_null(result: Result, tmp_path: Path) -> None:
    unknown = replace(result.summary, status="incomplete", verdict=None, downtime_ms=None)
    write_run(replace(result, summary=unknown), tmp_path, plot=False)
    assert '"verdict": null' in (tmp_path / "summary.json").read_text()
    assert read_summary(tmp_path)["downtime_ms"] is None


def test_a_summary_with_nan_is_refused(result: Result, tmp_path: Path) -> None:
    broken = replace(result, summary=replace(result.summary, wall_time_s=float("nan")))
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_run(broken, tmp_path, plot=False)
    assert "summary.json" not in names(tmp_path)


def test_syncs_come_back_from_their_csv(result: Result, tmp_path: Path) -> None:
    write_run(result, tmp_path, plot=False)
    with (tmp_path / "syncs.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [field.name for field in fields(SyncRecord)]
    assert len(rows) == len(result.syncs)
    for row, sync in zip(rows, result.syncs, strict=True):
        assert row["kind"] == sync.kind
        assert float(row["time_s"]) == pytest.approx(sync.time_s, abs=1e-9)
        assert len(row["time_s"].split(".")[1]) == 9
        assert int(row["remaining_bytes"]) == sync.remaining_bytes
        assert row["period_ms"] == ("" if sync.period_ms is None else str(sync.period_ms))


def test_events_come_back_from_their_lines(result: Result, tmp_path: Path) -> None:
    write_run(result, tmp_path, plot=False)
    lines = (tmp_path / "events.jsonl").read_text().splitlines()
    back = [Event(**json.loads(line)) for line in lines]
    assert back == [replace(event, time_s=round(event.time_s, 9)) for event in result.events]


def test_an_event_may_carry_numpy_numbers_and_infinity(result: Result, tmp_path: Path) -> None:
    arguments = {"size": np.int64(7), "rate": float("inf"), "name": "ram"}
    event = Event(time_s=0.1 + 0.2, event="migrate_transferred", arguments=arguments)
    write_run(replace(result, events=[event]), tmp_path, plot=False)
    assert (tmp_path / "events.jsonl").read_text() == (
        '{"time_s":0.3,"event":"migrate_transferred",'
        '"arguments":{"size":7,"rate":null,"name":"ram"}}\n'
    )


def test_a_run_without_syncs_or_events_leaves_a_header(result: Result, tmp_path: Path) -> None:
    write_run(replace(result, syncs=[], events=[]), tmp_path)
    assert (tmp_path / "syncs.csv").read_text().count("\n") == 1
    assert (tmp_path / "events.jsonl").read_bytes() == b""


def test_the_same_result_gives_the_same_bytes(result: Result, tmp_path: Path) -> None:
    for folder in ("one", "other"):
        write_run(result, tmp_path / folder)
    for name in FILES:
        one, other = ((tmp_path / folder / name).read_bytes() for folder in ("one", "other"))
        assert one == other, name


def test_the_timeline_is_the_same_in_csv_and_npz(result: Result, tmp_path: Path) -> None:
    write_run(result, tmp_path, plot=False)
    with (tmp_path / "timeline.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    with np.load(tmp_path / "timeline.npz", allow_pickle=False) as columns:
        assert list(columns) == list(rows[0])
        for name, column in columns.items():
            assert [float(row[name]) for row in rows] == column.tolist(), name


@pytest.mark.parametrize("broken", sorted(FILES))
def test_a_write_that_fails_leaves_no_file_and_no_summary(
    broken: str, result: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = os.replace

    def full_disk(source: Path, target: Path) -> None:
        if target.name == broken:
            raise OSError(28, "No space left on device")
        rename(source, target)

    monkeypatch.setattr(os, "replace", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_run(result, tmp_path)
    assert names(tmp_path) <= FILES - {broken, "summary.json"}


def test_an_interrupted_drawing_leaves_no_picture(
    result: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from matplotlib.figure import Figure

    def interrupted(self: Figure, file: object, **_: object) -> None:
        file.write(b"half")  # type: ignore[attr-defined]
        raise KeyboardInterrupt

    monkeypatch.setattr(Figure, "savefig", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_run(result, tmp_path)
    assert names(tmp_path) == FILES - PICTURES - {"summary.json"}


def test_an_earlier_summary_does_not_vouch_for_a_failed_rewrite(
    result: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_run(result, tmp_path, plot=False)
    monkeypatch.setattr(files, "_events_jsonl", lambda events: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_run(result, tmp_path, plot=False)
    assert "summary.json" not in names(tmp_path)


def test_without_matplotlib_a_plot_is_one_line_that_says_what_to_do(
    result: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ResultsError, match=r"pip install -e '\.\[plot\]'") as caught:
        write_run(result, tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()
    write_run(result, tmp_path / "run", plot=False)


def test_a_failure_leaves_a_summary_and_nothing_else(tmp_path: Path) -> None:
    try:
        raise MemoryError("no room for\nthe bitmaps")
    except MemoryError as error:
        write_failure(error, tmp_path / "run")
    assert names(tmp_path / "run") == {"summary.json"}
    summary = read_summary(tmp_path / "run")
    assert list(summary) == ["status", "error", "error_code", "traceback", "gpusim_version"]
    assert summary["status"] == "failed"
    assert summary["error"] == "MemoryError: no room for the bitmaps"
    assert "test_run_files.py" in summary["traceback"]
    assert summary["gpusim_version"] == __version__


def test_a_failure_without_a_message_is_its_type(tmp_path: Path) -> None:
    write_failure(KeyboardInterrupt(), tmp_path)
    assert read_summary(tmp_path)["error"] == "KeyboardInterrupt"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (None, "summary_not_found"),
        ("{", "summary_not_readable"),
        ("[]", "not_an_object"),
        ("{}", "foreign_summary"),
        ('{"status": "ok"}', "damaged"),
    ],
)
def test_a_folder_without_a_whole_run_is_one_line(
    text: str | None, code: str, tmp_path: Path
) -> None:
    if text is not None:
        (tmp_path / "summary.json").write_text(text)
    with pytest.raises(RunsError) as caught:
        read_summary(tmp_path)
    assert caught.value.code == code
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_attempts_before_the_last_lie_in_its_folder_and_go_with_it(
    result: Result, tmp_path: Path
) -> None:
    first = Attempt(config=Config(seed=3), result=result)
    write_run(replace(result, before=[first, first]), tmp_path, plot=False)
    assert names(tmp_path) == FILES - PICTURES | {"attempts"}
    for number in "12":
        assert names(tmp_path / "attempts" / number) == FILES - PICTURES | {"config.json"}
    assert [run.folder for run in find_runs([tmp_path]).runs] == [tmp_path]
    begin_run(Config(), tmp_path)
    assert "attempts" not in names(tmp_path)


@pytest.mark.parametrize("name", ["attempts", "summary.json", "syncs.csv", "timeline.npz"])
def test_a_pipe_of_the_same_name_is_replaced(name: str, result: Result, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / name)
    begin_run(Config(), tmp_path)
    write_run(result, tmp_path, plot=False)
    assert files.whole_run(tmp_path, "", plot=False) is not None
