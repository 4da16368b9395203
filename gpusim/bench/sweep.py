"""`gpusim-bench --sweep POINTS` measures the cost of a point besides the migration itself.

The same small points run three ways: in a plain loop that only simulates and writes, in the
sweeper `batch`, and on Hydra's own launcher. A sweep of one point measures the start of an engine.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from gpusim.config.schema import Config, LinkConfig, VmConfig, WriterConfig
from gpusim.engine.attempts import simulate
from gpusim.parent import die_with_me
from gpusim.results import begin_run, write_run

ENGINES = {
    "hydra/sweeper=batch": ["hydra/sweeper=batch"],
    "hydra/sweeper=batch, 2 processes": ["hydra/sweeper=batch", "hydra.sweeper.workers=2"],
    "Hydra's basic launcher": [],
}
FEW = 20  # Hydra's launcher gets one point out of this many, because it is slow
HEADER = f"{'engine':<34} {'points':>6} {'s':>8} {'ms/point':>11} {'points/s':>11} {'x loop':>7}"


def main(points: int, backend: str) -> None:
    """Measure and print the table. Every point is experiment=tiny with another seed.

    Args:
        points: number of points of the sweep.
        backend: of all points.
    """
    print(HEADER)
    with TemporaryDirectory() as folder:
        _loop(
            1, backend, Path(folder)
        )  # a process's first run loads code, which is no cost of a point
        start = time.perf_counter()
        _loop(points, backend, Path(folder))
        plain_s = (time.perf_counter() - start) / points
        _line("plain loop: simulate, write", points, plain_s * points, plain_s)
    for name, overrides in ENGINES.items():
        count = points if overrides else max(points // FEW, 2)
        start_s, all_s = (_sweep(n, backend, overrides) for n in (1, count))
        _line(
            name, count - 1, all_s - start_s, plain_s
        )  # without the start and the one point in it


def _line(name: str, points: int, spent_s: float, plain_s: float) -> None:
    each_s = max(spent_s, 0.0) / points
    cells = (
        [f"{1e3 * each_s:.2f}", f"{1 / each_s:.1f}", f"{each_s / plain_s:.1f}"] if each_s else []
    )
    ms, rate, times = cells or ["-"] * 3  # the start of the engine took longer in the short sweep
    print(
        f"{name:<34} {points:>6} {each_s * points:>8.2f} {ms:>11} {rate:>11} {times:>7}", flush=True
    )


def _loop(points: int, backend: str, folder: Path) -> None:
    config = Config(
        vm=VmConfig(memory="256MiB", vcpus=2),
        workload=WriterConfig(working_set_percent=10.0, page_writes_per_s=2e4),
        link=LinkConfig(bandwidth="1Gbit/s"),
        plot=False,
    )
    config.backend.name = backend
    for seed in range(points):
        config.seed = seed
        run = folder / str(seed)
        begin_run(config, run)
        write_run(simulate(config), run, plot=False)


def _sweep(points: int, backend: str, overrides: list[str]) -> float:
    """Return the seconds of the whole command."""
    with TemporaryDirectory() as folder:
        command = [sys.executable, "-c", "from gpusim.cli.app import main; main()", "-m"]
        command += ["experiment=tiny", f"seed=range(0,{points})", f"backend={backend}"]
        command += [f"hydra.sweep.dir={folder}/sweep", *overrides]
        start = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, preexec_fn=die_with_me())
        return time.perf_counter() - start
