"""The files and the exit code of the command, with and without an error."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from gpusim import Progress
from gpusim.cli.run_progress import Completion
from gpusim.command import EXIT_INTERNAL, TRACEBACK
from tests.cli.command import gpusim

FILES = {"config.json", "summary.json", "syncs.csv", "events.jsonl", "timeline.csv", "timeline.npz"}
PICTURES = {"plot.png", "report.html", "trace.json.gz", "guestperf.json"}


def raising(error: str) -> str:
    """Return statements after which every simulation raises."""
    return (
        "import gpusim.cli.job\n"
        f"def raising(*_, **__): raise {error}\n"
        "gpusim.cli.job.simulate_scenario = raising"
    )


def summary(folder: Path) -> dict:
    return json.loads((folder / "summary.json").read_text())


def test_run_leaves_its_files(tmp_path) -> None:
    done = gpusim("experiment=tiny", "plot=true", cwd=tmp_path)
    (folder,) = tmp_path.glob("outputs/*/*")
    assert {path.name for path in folder.iterdir()} == (FILES | PICTURES | {"gpusim.log", ".hydra"})
    assert summary(folder)["status"] == "ok"
    assert summary(folder)["verdict"] == "converged"
    assert "error: " not in done.stderr
    assert done.stdout.splitlines()[-1] == str(folder)
    assert "converged after" in (folder / "gpusim.log").read_text()


def test_nothing_of_an_earlier_run_is_left(tmp_path) -> None:
    gpusim("experiment=tiny", "plot=true", "hydra.run.dir=one", cwd=tmp_path)
    gpusim("experiment=tiny", "plot=false", "hydra.run.dir=one", cwd=tmp_path)
    found = {path.name for path in (tmp_path / "one").iterdir()}
    assert found == FILES | {"gpusim.log", ".hydra"}


def test_value_that_cannot_be_simulated_leaves_an_earlier_run_as_it_was(tmp_path) -> None:
    gpusim("experiment=tiny", "hydra.run.dir=one", cwd=tmp_path)
    before = (tmp_path / "one/summary.json").read_bytes()
    gpusim("experiment=tiny", "seed=-1", "hydra.run.dir=one", cwd=tmp_path, code=2)
    assert (tmp_path / "one/summary.json").read_bytes() == before


@pytest.mark.parametrize("objective", ["[]", "[verdict]", "[total_time_s,loss]"])
def test_objective_must_be_numbers_of_the_summary(objective, tmp_path) -> None:
    done = gpusim("experiment=tiny", f"objective={objective}", cwd=tmp_path, code=2)
    assert done.stderr.startswith("error: objective = [")
    assert "total_time_s" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_dry_run_leaves_nothing(tmp_path) -> None:
    done = gpusim("vm=huge_4tib", "dry_run=true", cwd=tmp_path)
    assert "1073741824 pages of 4096 bytes in 4096 chunks" in done.stdout
    assert "256 MiB: dirty 128 MiB, clear log 128 MiB" in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("traceback", ["", "1"])
def test_unexpected_error_leaves_a_summary(
    traceback: str, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TRACEBACK, traceback)
    before = raising("RuntimeError('boom')")
    done = gpusim("experiment=tiny", cwd=tmp_path, before=before, code=EXIT_INTERNAL)
    (folder,) = tmp_path.glob("outputs/*/*")
    assert "RuntimeError: boom" in done.stderr.splitlines()[-1]
    assert ("Traceback" in done.stderr) == bool(traceback)
    assert traceback or done.stderr.count("\n") == 1
    assert summary(folder)["status"] == "failed"
    assert "RuntimeError: boom" in summary(folder)["traceback"]


def test_out_of_memory_is_one_line(tmp_path) -> None:
    done = gpusim("experiment=tiny", cwd=tmp_path, before=raising("MemoryError"), code=1)
    (folder,) = tmp_path.glob("outputs/*/*")
    assert done.stderr.startswith("error: out of memory")
    assert done.stderr.count("\n") == 1
    assert summary(folder)["status"] == "failed"


def test_interrupt_leaves_nothing(tmp_path) -> None:
    done = gpusim("experiment=tiny", cwd=tmp_path, before=raising("KeyboardInterrupt"), code=130)
    assert done.stderr == "error: interrupted\n"
    assert list(tmp_path.iterdir()) == []


def test_failing_job_does_not_stop_a_sweep(tmp_path) -> None:
    sweep = ["hydra.sweep.dir=outputs/multirun/mine", "workload.working_set_percent=110,10,20"]
    done = gpusim("-m", "experiment=tiny", *sweep, cwd=tmp_path, code=3)
    statuses = {
        folder.name: summary(folder)["status"]
        for folder in tmp_path.glob("outputs/multirun/mine/*/")
    }
    assert statuses == {
        "tiny,working_set_percent=10": "ok",
        "tiny,working_set_percent=110": "failed",
        "tiny,working_set_percent=20": "ok",
    }
    report = done.stdout.splitlines()[-5:]
    assert "converged" in report[0]
    assert "converged" in report[1]
    assert "failed: ConfigError: workload.working_set_percent = 110" in report[2]
    assert report[3] == "3 runs: 2 converged, 1 failed"
    assert report[4] == "show them on one page: gpusim-collect outputs/multirun/mine"


def test_sweep_draws_one_picture(tmp_path) -> None:
    picture = ["hydra.callbacks.report.picture=both.png", "hydra.sweep.dir=outputs/both"]
    done = gpusim("-m", "experiment=tiny", "seed=1,2", *picture, cwd=tmp_path)
    assert (tmp_path / "outputs/both/both.png").stat().st_size > 10_000
    assert done.stdout.splitlines()[-1] == "outputs/both/both.png"


def test_dry_sweep_leaves_nothing(tmp_path) -> None:
    done = gpusim("experiment=first_run", "dry_run=true", cwd=tmp_path)
    assert done.stdout.count("bitmaps") == 2
    assert list(tmp_path.iterdir()) == []


def test_dry_sweep_says_what_cannot_be_run(tmp_path) -> None:
    sweep = ["-m", "experiment=tiny", "dry_run=true", "workload.working_set_percent=110,10"]
    done = gpusim(*sweep, cwd=tmp_path, code=3)
    assert done.stdout.count("wall time") == 1
    assert "error: tiny,working_set_percent=110: workload.working_set_percent = 110" in done.stderr


def test_progress_never_goes_back() -> None:
    completion = Completion()
    percents = []
    for syncs, remaining in [(1, 900), (1, 100), (2, 400), (2, 20), (3, 500), (4, 200), (5, 300)]:
        completion.advance(
            Progress(
                time_s=0.0,
                remaining_bytes=remaining,
                total_bytes=1000,
                cpu_throttle_percentage=0,
                bitmap_sync_count=syncs,
                is_first_pass=syncs == 1,
            )
        )
        percents.append(round(completion.percent))
    assert percents == [5, 45, 50, 50, 50, 75, 75]


def test_import_is_light() -> None:
    heavy = "{'hydra', 'omegaconf', 'matplotlib', 'tqdm'}"
    code = f"import sys, gpusim; print(*{heavy}.intersection(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_full_disk_leaves_nothing_of_a_lone_run(tmp_path) -> None:
    before = (
        "import errno, gpusim.files\n"
        "def full(*_): raise OSError(errno.ENOSPC, 'No space left on device')\n"
        "gpusim.files.os.replace = full"
    )
    done = gpusim("experiment=tiny", cwd=tmp_path, before=before, code=1)
    assert re.match(r"error: \S+/config\.json: No space left", done.stderr)
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
