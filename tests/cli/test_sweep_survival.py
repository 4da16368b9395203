"""A sweep survives errors of jobs, an interrupt, kill -9 and a full disk, and then continues."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile

import pytest

from gpusim import BackendConfig, Config, LinkConfig, VmConfig, WriterConfig
from gpusim.cli.job import run_jobs
from gpusim.explore.workers import map_in_order
from gpusim.results import write_failure
from tests.cli.command import MAIN, gpusim
from tests.cli.forked import Forked

POLL_S = 0.005
SWEEP = ["-m", "experiment=tiny", "hydra/sweeper=batch", "hydra.sweep.dir=out"]
RAISES = """
import gpusim.cli.job
simulate = gpusim.cli.job.simulate_scenario
def some_raise(scenario, backend, observe=None):
    if scenario.seed in {seeds}: raise {error}
    return simulate(scenario, backend, observe=observe)
gpusim.cli.job.simulate_scenario = some_raise
"""


def raising(error: str, *seeds: int) -> str:
    return RAISES.format(seeds=set(seeds), error=error)


def summaries(tmp_path: Path) -> dict[str, dict]:
    return {
        path.parent.name.removeprefix("tiny,"): json.loads(path.read_text())
        for path in tmp_path.glob("out/*/summary.json")
    }


def computed(tmp_path: Path) -> dict[str, int]:
    """Return when each run was computed."""
    return {
        path.parent.name: path.stat().st_mtime_ns for path in tmp_path.glob("out/*/summary.json")
    }


@pytest.mark.parametrize(
    "engine",
    [
        "hydra/sweeper=batch",
        pytest.param("hydra/sweeper=basic", marks=pytest.mark.slow),
    ],
)
def test_twenty_points_of_which_five_raise(engine: str, tmp_path) -> None:
    before = raising("RuntimeError('boom')", 3, 9, 14, 15, 19)
    sweep = [*SWEEP[:2], engine, SWEEP[3], "seed=range(1,21)"]
    done = gpusim(*sweep, cwd=tmp_path, before=before, code=3)
    found = summaries(tmp_path)
    failed = {name for name, summary in found.items() if summary["status"] == "failed"}
    assert len(found) == 20
    assert failed == {"seed=3", "seed=9", "seed=14", "seed=15", "seed=19"}
    assert found["seed=14"]["error"] == "RuntimeError: boom"
    assert "some_raise" in found["seed=14"]["traceback"]
    assert done.stdout.splitlines()[-2] == "20 runs: 15 converged, 5 failed"
    assert done.stdout.count("failed: RuntimeError: boom") == 5
    first = computed(tmp_path)
    again = gpusim(*sweep, cwd=tmp_path)  # the cause is gone: only the five are computed
    assert again.stdout.splitlines()[-2] == "20 runs (15 computed earlier): 20 converged"
    second = computed(tmp_path)
    assert {name for name in first if first[name] != second[name]} == {f"tiny,{n}" for n in failed}


def test_enlarged_sweep_computes_what_is_new(tmp_path) -> None:
    gpusim(*SWEEP, "seed=1,2", cwd=tmp_path)
    first = computed(tmp_path)
    done = gpusim(*SWEEP, "seed=1,2,3", cwd=tmp_path)
    second = computed(tmp_path)
    assert done.stdout.splitlines()[-2] == "3 runs (2 computed earlier): 3 converged"
    assert {name: second[name] for name in first} == first
    assert len(second) == 3


def test_report_is_about_this_sweep_alone(tmp_path) -> None:
    gpusim(*SWEEP, "seed=1,-2", cwd=tmp_path, code=3)
    done = gpusim(*SWEEP, "seed=1,3", cwd=tmp_path)
    assert done.stdout.splitlines()[-2] == "2 runs (1 computed earlier): 2 converged"


@pytest.mark.parametrize(
    ("change", "before"),
    [
        (["vm.vcpus=3"], ""),
        ([], "import gpusim.config.run_hash; gpusim.config.run_hash.__version__ = '9.9.9'"),
        (["plot=true"], ""),  # its pictures are missing
    ],
    ids=["config", "version", "picture"],
)
def test_what_is_not_the_same_is_computed_again(change, before, tmp_path) -> None:
    gpusim(*SWEEP, "seed=1", cwd=tmp_path)
    first = computed(tmp_path)
    done = gpusim(*SWEEP, "seed=1", *change, cwd=tmp_path, before=before)
    assert done.stdout.splitlines()[-2] == "1 run: 1 converged"
    assert computed(tmp_path) != first


def test_another_backend_is_the_same_run(tmp_path) -> None:
    pytest.importorskip("numba", reason="numba is not installed")
    gpusim(*SWEEP, "seed=1", "backend=numpy", cwd=tmp_path)
    done = gpusim(*SWEEP, "seed=1", "backend=numba", "backend.threads=2", cwd=tmp_path)
    assert done.stdout.splitlines()[-2] == "1 run (1 computed earlier): 1 converged"


def test_incomplete_and_damaged_runs_are_done_again(tmp_path) -> None:
    gpusim(*SWEEP, "seed=1,2,3,4,5", cwd=tmp_path)
    whole = computed(tmp_path)
    names = (f"out/tiny,seed={seed}" for seed in (1, 2, 3, 5))
    incomplete, torn, missing, empty = (tmp_path / name for name in names)
    summary = json.loads((incomplete / "summary.json").read_text())
    (incomplete / "summary.json").write_text(json.dumps(summary | {"status": "incomplete"}))
    (torn / "summary.json").write_text("{")
    (missing / "syncs.csv").unlink()
    (empty / "events.jsonl").write_text("")
    done = gpusim(*SWEEP, "seed=1,2,3,4,5", cwd=tmp_path)
    assert done.stdout.splitlines()[-2] == "5 runs (1 computed earlier): 5 converged"
    assert computed(tmp_path)["tiny,seed=4"] == whole["tiny,seed=4"]


@pytest.mark.parametrize(
    ("overrides", "code"),
    [(["objective=[foo]"], 2), (["dry_run=true", "backend.name=nowhere"], 3)],
    ids=["objective", "dry run"],
)
def test_what_cannot_be_had_leaves_whole_runs_as_they_are(overrides, code, tmp_path) -> None:
    gpusim(*SWEEP, "seed=1,2", cwd=tmp_path)
    before = computed(tmp_path)
    done = gpusim(*SWEEP, "seed=1,2,3", *overrides, cwd=tmp_path, code=code)
    assert "error: " in done.stderr
    assert "Traceback" not in done.stderr
    assert computed(tmp_path) == before
    assert {path.name for path in tmp_path.glob("out/*/")} == set(before)


def test_without_matplotlib_no_job_of_a_sweep_with_pictures_begins(tmp_path) -> None:
    gpusim(*SWEEP, "seed=1", cwd=tmp_path)
    before = computed(tmp_path)
    missing = "import importlib.util; importlib.util.find_spec = lambda name: None"
    hidden = f"import gpusim.cli.job\n{missing}"
    done = gpusim(*SWEEP, "seed=1,2", "plot=true", cwd=tmp_path, before=hidden, code=2)
    assert done.stderr.startswith("error: plot = True: needs matplotlib")
    assert computed(tmp_path) == before


def test_failure_leaves_nothing_of_an_earlier_run(tmp_path) -> None:
    gpusim(*SWEEP, "seed=1", "vm.vcpus=2", cwd=tmp_path)
    (folder,) = tmp_path.glob("out/*/")
    error = ValueError("not any more")
    write_failure(error, folder, Config())
    assert {path.name for path in folder.iterdir()} == {"config.json", "summary.json"}


@pytest.mark.parametrize("where", ["file/out", "x" * 300])
def test_folder_that_cannot_be_made_is_one_line(where: str, tmp_path) -> None:
    (tmp_path / "file").touch()
    done = gpusim(*SWEEP[:3], f"hydra.sweep.dir={where}", "seed=1", cwd=tmp_path, code=2)
    assert done.stderr.startswith("error: hydra.sweep.dir = ")
    assert done.stderr.count("\n") == 1


@pytest.mark.usefixtures("real_processes")
def test_jobs_that_are_the_same_run_wait_for_each_other(tmp_path) -> None:
    """Optuna may ask for a point twice. gpusim computes it once, and no job fails."""
    config = Config(
        vm=VmConfig(memory="64MiB"),
        workload=WriterConfig(working_set_percent=10.0, page_writes_per_s=1e4),
        link=LinkConfig(bandwidth="1Gbit/s"),
        backend=BackendConfig("numpy"),
        plot=False,
    )
    points = [(config, tmp_path / str(number // 4), None) for number in range(40)]
    returned = list(run_jobs(points, workers=4))
    assert len(set(returned)) == 1
    assert None not in returned
    assert len(list(tmp_path.glob("*/summary.json"))) == 10


def kills_itself(config_and_folder):
    """Kill the job's own process, as the system does when memory runs out."""
    if config_and_folder[1].name in ("3", "7"):
        os.kill(os.getpid(), signal.SIGKILL)
    return config_and_folder[1].name


@pytest.mark.slow
@pytest.mark.usefixtures("real_processes")
def test_worker_that_is_killed_does_not_stop_the_others(tmp_path) -> None:
    points = [(None, Path(str(number))) for number in range(10)]
    outcomes = list(map_in_order(kills_itself, points, 2, lambda point, _: f"lost {point[1]}"))
    assert outcomes == ["0", "1", "2", "lost 3", "4", "5", "6", "lost 7", "8", "9"]


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("engine", ["hydra/sweeper=batch", "hydra/sweeper=basic"])
def test_interrupt_at_any_moment_is_one_line(engine: str, workers: int, tmp_path) -> None:
    """The signal goes to all processes of the group, as from a terminal."""
    sweep = [*SWEEP[:2], engine, SWEEP[3], f"seed=range(0,{400 if 'batch' in engine else 40})"]
    if "batch" in engine:
        sweep.append(f"hydra.sweeper.workers={workers}")
    elif workers > 1:
        pytest.skip("the basic sweeper has no workers")
    with TemporaryFile() as stderr:
        process = Forked(MAIN, sweep, cwd=tmp_path, stderr=stderr)
        while len(computed(tmp_path)) < 3:
            with suppress(subprocess.TimeoutExpired):
                process.wait(POLL_S)
            assert process.poll() is None
        os.killpg(process.pid, signal.SIGINT)
        code = process.wait(60)
        stderr.seek(0)
        errors = stderr.read().decode()
    assert code == 130
    *log, line = errors.splitlines()
    assert line.startswith("error: interrupted by SIGINT. ")
    assert "hydra.sweep.dir=out" in line
    assert not any("error: " in one for one in log)
    assert {summary["status"] for summary in summaries(tmp_path).values()} == {"ok"}


def test_lone_run_is_computed_even_if_it_is_there(tmp_path) -> None:
    """A lone run is always computed."""
    for _ in range(2):
        done = gpusim("experiment=tiny", "hydra.run.dir=one", cwd=tmp_path)
        assert "computed in" in (tmp_path / "one/gpusim.log").read_text().splitlines()[-1]
        assert done.stdout.splitlines()[-1] == str(tmp_path / "one")


def test_interrupt_tells_how_to_go_on(tmp_path) -> None:
    interrupted = raising("KeyboardInterrupt", 3)
    done = gpusim(*SWEEP, "seed=1,2,3,4", cwd=tmp_path, before=interrupted, code=130)
    assert done.stderr.splitlines()[-1] == (
        "error: interrupted. Start it again with hydra.sweep.dir=out to continue"
    )
    assert set(summaries(tmp_path)) == {"seed=1", "seed=2"}
    done = gpusim(*SWEEP, "seed=1,2,3,4", cwd=tmp_path)
    assert done.stdout.splitlines()[-2] == "4 runs (2 computed earlier): 4 converged"


FULL_DISK = """
import errno, gpusim.files, os
replace = os.replace
def full(source, target):
    if "seed=2" in str(target) and {hit}: raise OSError(errno.ENOSPC, "No space left on device")
    replace(source, target)
gpusim.files.os.replace = full
"""


@pytest.mark.parametrize(
    ("hit", "recorded"),
    [("True", False), ("'events' in str(target)", True)],
    ids=["nothing can be written", "one file cannot"],
)
def test_full_disk_leaves_nothing_half_written(hit: str, recorded: bool, tmp_path) -> None:
    before = FULL_DISK.format(hit=hit)
    done = gpusim(*SWEEP, "seed=1,2,3", cwd=tmp_path, before=before, code=3)
    found = summaries(tmp_path)
    assert {name for name in found if found[name]["status"] == "ok"} == {"seed=1", "seed=3"}
    assert ("seed=2" in found) == recorded
    assert "2 converged, 1 failed" in done.stdout.splitlines()[-2]
    if not recorded:
        assert "It cannot be written" in done.stderr
    assert not list(tmp_path.rglob("*.tmp"))
    done = gpusim(*SWEEP, "seed=1,2,3", cwd=tmp_path)
    assert done.stdout.splitlines()[-2] == "3 runs (2 computed earlier): 3 converged"
