"""A played Slurm: one node with GPUs, which runs what submitit submits.

`commands` writes sbatch, srun and sacct into a folder for PATH. sbatch runs the tasks of an array in
the background, one per GPU at a time. A task sees its GPU alone through CUDA_VISIBLE_DEVICES, as
Slurm's plugin gres/gpu sets it. A script without --gpus-per-node sees no GPU.

Source: the options that submitit writes, submitit/slurm/slurm.py:_make_sbatch_string [1.5], and
Slurm's man pages sbatch, srun, sacct and gres.conf [22.05].
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

GPUS, STATES = "FAKE_SLURM_GPUS", "FAKE_SLURM_STATES"  # number of GPUs, folder of ended tasks
ARRAY = "1"  # number of the only array
NO_GPU = "-1"


def commands(folder: Path, gpus: int) -> dict[str, str]:
    """Write the commands of Slurm. Return the environment that finds them.

    Args:
        folder: a new folder.
        gpus: number of GPUs of the node.
    """
    folder.mkdir()
    for name in ("sbatch", "srun", "sacct"):
        command = folder / name
        command.write_text(f'#!/bin/sh\nexec {sys.executable} -m {__name__} {name} "$@"\n')
        command.chmod(0o755)
    path = f"{folder}:{os.environ['PATH']}"
    return {"PATH": path, GPUS: str(gpus), STATES: str(folder)}


def options_of(script: str) -> dict[str, str]:
    """Return the options of the lines #SBATCH."""
    return dict(re.findall(r"^#SBATCH --([a-z-]+)='?([^'\n]*)'?$", script, re.MULTILINE))


def sbatch(script: str) -> None:
    """Start the tasks of an array, print its number and do not wait for them."""
    print(f"Submitted batch job {ARRAY}", flush=True)
    if os.fork():
        return
    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(null, stream)
    options = options_of(Path(script).read_text())
    first, last, at_a_time = map(int, re.split("[-%]", options["array"]))
    gpus: SimpleQueue[str] = SimpleQueue()
    for gpu in range(int(os.environ[GPUS])):
        gpus.put(str(gpu))
    with ThreadPoolExecutor(min(at_a_time, int(os.environ[GPUS]))) as pool:
        for task in range(first, last + 1):
            pool.submit(run_task, script, task, gpus, has_gpu=options.get("gpus-per-node") == "1")


def run_task(script: str, task: int, gpus: SimpleQueue[str], *, has_gpu: bool) -> None:
    """Run the script of a task on a GPU that no other task uses, and note that it has ended."""
    gpu = gpus.get()
    given = {
        "CUDA_VISIBLE_DEVICES": gpu if has_gpu else NO_GPU,
        "SLURM_JOB_ID": str(int(ARRAY) + task),
        "SLURM_ARRAY_JOB_ID": ARRAY,
        "SLURM_ARRAY_TASK_ID": str(task),
        "SLURM_NTASKS": "1",
        "SLURM_JOB_NUM_NODES": "1",
        "SLURM_JOB_NODELIST": "localhost",
        "SLURM_NODEID": "0",
        "SLURM_PROCID": "0",
        "SLURM_LOCALID": "0",
    }
    done = subprocess.run(["/bin/bash", script], env=os.environ | given, check=False)
    state = "FAILED" if done.returncode else "COMPLETED"
    (Path(os.environ[STATES]) / f"{ARRAY}_{task}.state").write_text(state)
    gpus.put(gpu)


def srun(arguments: list[str]) -> int:
    """Run a command with its output in the files of --output and --error. Return its exit code."""
    files: dict[str, str] = {}
    while arguments[0].startswith("-"):
        option = arguments.pop(0)
        if option != "--unbuffered":
            files[option] = arguments.pop(0)
    task = os.environ["SLURM_ARRAY_TASK_ID"]
    for number, option in ((1, "--output"), (2, "--error")):
        name = files[option].replace("%A", ARRAY).replace("%a", task).replace("%t", "0")
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    return subprocess.call(arguments)


def sacct() -> None:
    """Print the state of each task that has ended."""
    print("JobID|State|NodeList")
    for file in sorted(Path(os.environ[STATES]).glob("*.state")):
        print(f"{file.stem}|{file.read_text()}|localhost")


if __name__ == "__main__":
    name, *given = sys.argv[1:]
    if name == "sbatch":
        sbatch(*given)
    elif name == "srun":
        sys.exit(srun(given))
    else:
        sacct()
