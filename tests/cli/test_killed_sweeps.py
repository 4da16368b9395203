"""A sweep that is killed again and again leaves what an undisturbed sweep leaves.

A case is a kind of sweep with a seed, which draws the signals, whom they reach, and when.
"""

from __future__ import annotations

import json
import random
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

from tests.cli.engines import need_engine_of
from tests.cli.test_orphans import ENDS_WITHIN_S, SIGNALS, kill, left_behind, started

KILLS = {"basic": 6, "batch, 1 worker": 16, "batch, 2 workers": 10, "joblib": 4, "plots": 5}
SWEEP = ["gpusim", "-m", "experiment=tiny", "backend=numpy", "hydra.sweep.dir=out"]
KINDS = {
    "basic": ["seed=range(0,14)"],
    "batch, 1 worker": ["seed=range(0,50)", "hydra/sweeper=batch"],
    "batch, 2 workers": ["seed=range(0,50)", "hydra/sweeper=batch", "hydra.sweeper.workers=2"],
    "joblib": ["seed=range(0,12)", "hydra/launcher=processes", "hydra.launcher.n_jobs=2"],
    "plots": ["seed=range(0,10)", "hydra/sweeper=batch", "plot=true"],
}
LONGEST_START_S, LONGEST_RUN_S = 0.3, {"plots": 0.15}
FILES = ("config.json", "syncs.csv", "events.jsonl", "timeline.csv", "timeline.npz")


def computed(folder: Path) -> dict[str, tuple[int, int]]:
    """Return which file the summary of each run is."""
    found = {}
    for path in folder.glob("out/*/summary.json"):
        status = path.stat()
        found[path.parent.name] = (status.st_ino, status.st_mtime_ns)
    return found


def contents(folder: Path) -> dict[str, bytes]:
    """Return the files that are a function of config and seed."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for name in FILES
        for path in folder.glob(f"out/*/{name}")
    }


def whole_sweep(command: list[str], folder: Path) -> None:
    """Run a sweep to its end."""
    with started(command, folder) as process:
        assert process.wait(120) == 0, (folder / "stderr").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_kills_change_nothing(kind: str, tmp_path: Path) -> None:
    command = [*SWEEP, *KINDS[kind]]
    if kind == "joblib":
        need_engine_of("hydra/launcher=processes")
    draw = random.Random(kind)
    earlier: dict[str, tuple[int, int]] = {}
    killed = 0
    for _ in range(KILLS[kind]):
        more = draw.choice((0, 0, 1, 1, 2))  # 0: while it starts
        latest_s = LONGEST_START_S if more == 0 else LONGEST_RUN_S.get(kind, 0.02)
        with started(command, tmp_path) as process:
            while process.poll() is None and len(computed(tmp_path)) < len(earlier) + more:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(0.005)
            try:  # wherever in the next run that is: between two files, or inside one
                process.wait(draw.uniform(0, latest_s))
            except subprocess.TimeoutExpired:
                kill(process, draw.choice((signal.SIGKILL, *SIGNALS)), group=draw.random() < 0.5)
                killed += 1
            process.wait(ENDS_WITHIN_S)
            assert left_behind(process.pid) == []
        found = computed(tmp_path)
        assert {name: found[name] for name in earlier} == earlier  # none computed twice
        for name in found:  # a file that is there is whole
            summary = json.loads((tmp_path / "out" / name / "summary.json").read_text())
            assert summary["status"] == "ok"
        earlier = found
    assert killed >= KILLS[kind] * 3 // 4, f"the sweep was over after {killed} kills"
    whole_sweep(command, tmp_path)
    assert {name: computed(tmp_path)[name] for name in earlier} == earlier
    assert not list(tmp_path.rglob("*.tmp"))
    calm = tmp_path / "calm"
    calm.mkdir()
    whole_sweep(command, calm)
    assert contents(tmp_path) == contents(calm)
