"""Does each job of a sweep get a GPU of its own, on two played devices?"""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

import pytest

from tests.cli.engines import need_engine_of
from tests.parity.fake_slurm import commands
from tests.parity.played import run_python

pytestmark = pytest.mark.slow
COMMAND = "import sys; from gpusim.cli.entry import gpusim; sys.exit(gpusim())"


def swept(launcher: str, folder: Path, jobs: int, **environment: str) -> dict[int, list[dict]]:
    """Run a sweep. Return the allocations of each process on a device."""
    need_engine_of(f"hydra/launcher={launcher}")
    sweep = ["-m", "experiment=tiny", "plot=false", "backend=cupy", f"seed=range(0,{jobs})"]
    done = run_python(
        "-c", COMMAND, *sweep, f"hydra/launcher={launcher}", f"hydra.sweep.dir={folder}/out",
        FAKE_CUDA_LOG=f"{folder}/log", GPUSIM_AUDIT="", RAY_USAGE_STATS_ENABLED="0", **environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(list(folder.glob("out/*/summary.json"))) == jobs
    found = defaultdict(list)
    for line in (folder / "log").read_text().splitlines():
        row = json.loads(line)
        if len(row["seen"]) == 1:  # the process that started the sweep tests a device and sees all
            found[row["pid"]].append(row)
    return found


@pytest.mark.parametrize("launcher", ["gpus", "ray_gpus", "slurm_gpus"])
def test_jobs_run_on_both_gpus(launcher: str, tmp_path: Path) -> None:
    """Each process sees one device alone, so it cannot see what the others allocate.

    The machine on which somebody submits jobs to Slurm may have no GPU.
    """
    jobs, more = 6, {}
    if launcher == "slurm_gpus":  # it starts a process for each job, and the second sees a busy GPU
        jobs, more = 4, commands(tmp_path / "slurm", gpus=2) | {"CUDA_VISIBLE_DEVICES": "-1"}
    found = swept(launcher, tmp_path, jobs, FAKE_CUDA_DEVICES="2", **more)
    devices = [{row["device"] for row in rows} for rows in found.values()]
    assert all(len(one) == 1 for one in devices), found
    assert set.union(*devices) == {0, 1}
    for rows in found.values():
        assert all(row["seen"] == [row["device"]] for row in rows)
