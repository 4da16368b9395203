"""Third-party launchers and sweepers run the jobs of a sweep, and report those that fail.

Each with the real package.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from tests.cli.command import composed_by_hydra, gpusim
from tests.cli.engines import need_engine_of

SWEEP = ["-m", "experiment=tiny", "seed=1,2,-3", "hydra.sweep.dir=out"]
RAY = "import os; os.environ['RAY_USAGE_STATS_ENABLED'] = '0'"


def statuses(tmp_path: Path) -> dict[str, str]:
    return {
        path.parent.name: json.loads(path.read_text())["status"]
        for path in tmp_path.glob("out/*/summary.json")
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    "overrides",
    [
        ["hydra/launcher=processes", "hydra.launcher.n_jobs=2"],
        ["hydra/launcher=slurm_here"],
        ["hydra/launcher=ray_here", "hydra.launcher.ray.init.num_cpus=2"],
    ],
    ids=["joblib", "submitit", "ray"],
)
def test_launcher(overrides: list[str], tmp_path) -> None:
    """A sweep ends as on Hydra's own launcher.

    Starting it again computes nothing twice, which is tried with the launcher that starts fastest.
    """
    need_engine_of(overrides[0])
    done = gpusim(*SWEEP, *overrides, cwd=tmp_path, before=RAY, code=3)
    assert statuses(tmp_path) == {
        "tiny,seed=1": "ok",
        "tiny,seed=2": "ok",
        "tiny,seed=-3": "failed",
    }
    assert "3 runs: 2 converged, 1 failed" in done.stdout
    if overrides[0] != "hydra/launcher=processes":
        return
    again = gpusim(*SWEEP[:2], "seed=1,2", SWEEP[3], *overrides, cwd=tmp_path, before=RAY)
    assert "2 runs (2 computed earlier): 2 converged" in again.stdout


@pytest.mark.parametrize(
    ("launcher", "keys"),
    [
        ("ray_here", {"_target_", "ray"}),
        ("slurm", {"timeout_min", "cpus_per_task", "mem_gb", "gpus_per_node", "array_parallelism"}),
        ("slurm_gpus", {"timeout_min", "gpus_per_node", "array_parallelism"}),
        ("ray_gpus", {"_target_", "ray"}),
        ("gpus", {"_target_", "n_jobs"}),
    ],
)
def test_launcher_preset_composes(launcher: str, keys: set[str]) -> None:
    """Slurm needs a cluster. This test only checks that submitit accepts the preset."""
    need_engine_of(f"hydra/launcher={launcher}")
    settings = composed_by_hydra(f"hydra/launcher={launcher}").hydra.launcher
    assert keys <= set(settings)


@pytest.mark.slow
def test_optuna_looks_for_the_best_settings(tmp_path) -> None:
    need_engine_of("hydra/sweeper=optuna")
    sweep = ["sweep=best_throttle", "hydra.sweeper.n_trials=8", "hydra.sweep.dir=out"]
    fast = ["vm.memory=1GiB", "link.bandwidth=1Gbit/s", "workload.page_writes_per_s=1e5"]
    done = gpusim(*sweep, *fast, cwd=tmp_path)
    runs = {
        path.parent: json.loads(path.read_text()) for path in tmp_path.glob("out/*/summary.json")
    }
    assert len(runs) == 8
    assert "8 runs: 8 converged" in done.stdout
    found = yaml.safe_load((tmp_path / "out/optimization_results.yaml").read_text())
    costs = {(run["total_time_s"], run["guest_cpu_lost_s"]) for run in runs.values()}
    best = {
        cost
        for cost in costs
        if not any(o != cost and o[0] <= cost[0] and o[1] <= cost[1] for o in costs)
    }
    assert {tuple(solution["values"]) for solution in found["solutions"]} == best


def test_as_many_numbers_as_ways_are_asked_of_optuna(tmp_path) -> None:
    """Without this check Optuna would refuse each trial."""
    need_engine_of("hydra/sweeper=optuna")
    done = gpusim("sweep=best_throttle", "objective=[total_time_s]", cwd=tmp_path, code=2)
    expected = "error: objective = ['total_time_s']: must be as many numbers as hydra"
    assert done.stderr.startswith(expected)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_optuna_goes_on_past_trials_that_fail_or_do_not_converge(tmp_path) -> None:
    need_engine_of("hydra/sweeper=optuna")
    sweep = ["-m", "experiment=tiny", "hydra/sweeper=optuna", "hydra.sweep.dir=out"]
    trials = ["hydra.sweeper.n_trials=6", "hydra.sweeper.n_jobs=1"]
    space = ["workload.page_writes_per_s=choice(1e3,-1)", "hydra.sweeper.sampler.seed=1"]
    done = gpusim(*sweep, *trials, *space, "limit.simulated=1s", cwd=tmp_path, code=3)
    assert "time limit" in done.stdout
    assert "failed" in done.stdout


@pytest.mark.parametrize("launcher", ["gpus", "ray_gpus"])
def test_a_launcher_of_gpus_needs_one(launcher: str, tmp_path: Path) -> None:
    need_engine_of(f"hydra/launcher={launcher}")
    hide = "import os; os.environ['CUDA_VISIBLE_DEVICES'] = '-1'"
    done = gpusim(*SWEEP, f"hydra/launcher={launcher}", cwd=tmp_path, before=hide, code=2)
    assert done.stderr.startswith(f"error: hydra/launcher = {launcher}: needs a GPU")
    assert len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
