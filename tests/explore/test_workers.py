"""Does one process for many runs give what one run at a time gives?"""

from __future__ import annotations

import json
import os
import select
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gpusim import Config, ConfigError, LinkConfig, Result, VmConfig, simulate, simulate_many
from gpusim.config.schema import WriterConfig
from gpusim.explore.workers import count_cores, kept_processes, map_in_order, processes
from tests.cli.command import REPOSITORY, gpusim
from tests.cli.engines import need_engine_of

pytestmark = pytest.mark.usefixtures("real_processes")
SAME_BYTES = ("config.json", "syncs.csv", "events.jsonl", "timeline.csv", "timeline.npz")
GRID = ["migration=qemu_9_1,qemu_9_2", "workload.working_set_percent=5,50", "seed=1,2", "link.bandwidth=1Gbit/s"]  # fmt: skip


def small(seed: int) -> Config:
    return Config(
        vm=VmConfig(memory="128MiB", vcpus=2),
        workload=WriterConfig(working_set_percent=20.0, page_writes_per_s=3e4),
        link=LinkConfig(bandwidth="1Gbit/s"),
        seed=seed,
    )


@pytest.mark.parametrize("workers", [1, 2])
def test_many_give_what_one_at_a_time_gives(workers: int) -> None:
    configs = [small(seed) for seed in range(4)]
    for config, result in zip(configs, simulate_many(configs, workers=workers), strict=True):
        alone = simulate(config)
        assert isinstance(result, Result)
        assert (result.syncs, result.events) == (alone.syncs, alone.events)


@pytest.mark.parametrize("workers", [1, 2])
def test_one_that_cannot_be_simulated_does_not_stop_the_others(workers: int) -> None:
    outcomes = list(simulate_many([small(1), small(-1), small(2)], workers=workers))
    assert [type(outcome) for outcome in outcomes] == [Result, ConfigError, Result]
    assert str(outcomes[1]).startswith("seed = -1: must lie")


def test_configs_are_asked_for_one_by_one() -> None:
    asked: list[int] = []
    outcomes = simulate_many(asked.append(seed) or small(seed) for seed in range(3))
    next(outcomes)
    assert asked == [0]


def test_workers_must_not_be_negative() -> None:
    with pytest.raises(ValueError, match="workers = -1"):
        simulate_many([], workers=-1)


def files(folder: Path) -> dict[str, bytes]:
    return {
        f"{path.parent.name}/{path.name}": path.read_bytes()
        for path in folder.glob("*/*")
        if path.name in SAME_BYTES
    }


@pytest.mark.slow
def test_batch_sweep_writes_what_hydras_own_sweeper_writes(tmp_path) -> None:
    """Every file of every job, byte for byte: presets, single keys and their types."""
    sweep = ["-m", "experiment=tiny", *GRID]
    gpusim(*sweep, "hydra.sweep.dir=basic", cwd=tmp_path)
    gpusim(*sweep, "hydra.sweep.dir=batch", "hydra/sweeper=batch", cwd=tmp_path)
    both = [*sweep, "hydra.sweep.dir=two", "hydra/sweeper=batch", "hydra.sweeper.workers=2"]
    gpusim(*both, cwd=tmp_path)
    basic = files(tmp_path / "basic")
    assert len(basic) == 8 * len(SAME_BYTES)
    assert files(tmp_path / "batch") == basic
    assert files(tmp_path / "two") == basic


@pytest.mark.parametrize(
    ("override", "refused"),
    [
        ("vm.memorx=1GiB", "vm.memorx = 1GiB"),
        ("vm.vcpus=1,many", "vm.vcpus = many"),
        ("migration=qemu_9_2,qemu_1_0", "migration = qemu_1_0"),
    ],
)
def test_typo_stops_a_batch_before_its_first_job(override: str, refused: str, tmp_path) -> None:
    sweep = ["-m", "experiment=tiny", "hydra/sweeper=batch", "hydra.sweep.dir=out", override]
    done = gpusim(*sweep, cwd=tmp_path, code=2)
    assert done.stderr.startswith(f"error: {refused}: ")
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_simulated_is_recorded_as_by_hydras_own_sweeper(tmp_path) -> None:
    """Values out of range beside one that can be simulated. Without it the sweep is refused."""
    sweep = ["-m", "experiment=tiny", "plot=false", "seed=1,-1", "vm.vcpus=1,0"]
    errors = []
    for name in ("basic", "batch"):
        engine = [f"hydra/sweeper={name}", f"hydra.sweep.dir={name}"]
        gpusim(*sweep, *engine, cwd=tmp_path, code=3)
        summaries = sorted(tmp_path.glob(f"{name}/*/summary.json"))
        errors.append([json.loads(path.read_text()).get("error") for path in summaries])
    assert errors[0] == errors[1]
    assert [error is None for error in errors[0]].count(True) == 1
    assert len(errors[0]) == 4


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("hydra.sweeper.workers=-2", "hydra.sweeper.workers = -2: must be 1 or more"),
        ("hydra/launcher=processes", "hydra.launcher = "),
        ("+hydra.job.env_set.A=1", "hydra.job.env_set = "),
        ("hydra.sweep.subdir=x", "hydra.sweep.subdir = x: hydra/sweeper=batch runs"),
    ],
)
def test_what_a_batch_would_pass_over_is_refused(override: str, key: str, tmp_path) -> None:
    need_engine_of(override)
    sweep = ["-m", "experiment=tiny", "hydra/sweeper=batch", "hydra.sweep.dir=out"]
    done = gpusim(*sweep, override, "seed=1,2", cwd=tmp_path, code=2)
    assert done.stderr.startswith(f"error: {key}")
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_refused_batch_leaves_an_earlier_sweep_as_it_is(tmp_path) -> None:
    sweep = ["-m", "experiment=tiny", "hydra/sweeper=batch", "hydra.sweep.dir=out", "seed=1"]
    gpusim(*sweep, cwd=tmp_path)
    gpusim(*sweep, "hydra.sweeper.workers=-1", cwd=tmp_path, code=2)
    assert len(list(tmp_path.glob("out/*/summary.json"))) == 1


def test_processes_never_see_an_interrupt() -> None:
    """Not even while they start, when a terminal's Ctrl-C would end them with a traceback each."""
    with processes(1) as pool:
        blocked = pool.submit(signal.pthread_sigmask, signal.SIG_BLOCK, []).result()
    assert signal.SIGINT in blocked
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


@pytest.mark.slow
def test_workers_of_joblib_never_see_a_signal() -> None:
    """One that a signal ends in the middle of a result would let joblib wait for the rest forever."""
    need_engine_of("hydra/launcher=processes")
    code = (
        "import signal, joblib; from gpusim.cli.joblib_workers import register; register();"
        "ask = joblib.delayed(signal.pthread_sigmask)(signal.SIG_BLOCK, []);"
        "print(sorted(joblib.Parallel(n_jobs=2, backend='loky')([ask])[0]))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        assert name in shown.stdout


def busy(queue_of: int) -> int:
    """Compute in C and hold the GIL far longer than any test lasts."""
    return sum(range(10**12)) + queue_of


def half_a_result(told: str) -> None:
    """Begin a message of 1000 bytes where results are sent, tell so, and compute on."""
    frame = sys._getframe()
    while "result_queue" not in frame.f_locals:
        assert frame.f_back is not None
        frame = frame.f_back
    os.write(frame.f_locals["result_queue"]._writer.fileno(), struct.pack("!i", 1000) + b"half")
    Path(told).write_text("sent")
    busy(0)


INTERRUPTED = """
import os, signal
from tests.explore.test_workers import busy
from gpusim.explore.workers import count_cores, kept_processes, map_in_order, processes
if __name__ == "__main__":
    with processes(2) as pool:
        pool.submit(abs, 1).result()
        running = [pool.submit(busy, number) for number in range(5)]
        {end}
"""
INTERRUPTED_IN_A_RESULT = """
import os, signal
from pathlib import Path
from tests.explore.test_workers import half_a_result
from gpusim.explore.workers import count_cores, kept_processes, map_in_order, processes
if __name__ == "__main__":
    os.mkfifo("told")
    with processes(1) as pool:
        pool.submit(half_a_result, "told")
        Path("told").read_text()
        signal.raise_signal(signal.SIGINT)
"""
EXIT_HOLDING_A_GENERATOR = """
import time
from gpusim.explore.workers import map_in_order
if __name__ == "__main__":
    outcomes = map_in_order(time.sleep, [0, 1000, 1000, 1000], 2, None)
    next(outcomes)
    raise KeyboardInterrupt
"""


@pytest.mark.parametrize(
    ("program", "code"),
    [
        (INTERRUPTED.format(end="signal.raise_signal(signal.SIGINT)"), -signal.SIGINT),
        (INTERRUPTED.format(end="os._exit(7)"), 7),
        (EXIT_HOLDING_A_GENERATOR, -signal.SIGINT),
        pytest.param(INTERRUPTED_IN_A_RESULT, -signal.SIGINT, marks=pytest.mark.slow),
    ],
    ids=["interrupt", "os._exit", "suspended generator", "half a result"],
)
def test_busy_workers_end_with_their_parent(program: str, code: int, tmp_path) -> None:
    """Every process inherits a pipe. Its end is the end of the last one."""
    (tmp_path / "program.py").write_text(program)
    reader, writer = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "program.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdout=writer,
        stderr=subprocess.DEVNULL,
    )
    os.close(writer)
    ended, _, _ = select.select([reader], [], [], 60)
    os.close(reader)
    if not ended:
        process.kill()
    assert process.wait(60) == code
    assert ended


def pid(_: object = None) -> int:
    return os.getpid()


def test_kept_processes_are_those_of_every_pool() -> None:
    with kept_processes(pid):
        with processes(count_cores()) as pool:
            first = {pool.submit(pid).result() for _ in range(4)}
            waiting = [pool.submit(time.sleep, 0) for _ in range(100)]
        again = set(map_in_order(pid, range(20), 0, lambda _, error: error))
        with processes(count_cores() + 1) as other:
            assert pool is not other
    assert all(call.done() for call in waiting)
    with processes(count_cores()) as later:
        assert later is not pool
    assert again & first


def test_a_kept_pool_that_broke_is_used_no_more() -> None:
    with kept_processes(pid):
        lost = list(map_in_order(kill_itself_at, [0, 1, 2], 0, lambda item, _: -item))
        assert lost == [0, -1, 2]
        with processes(count_cores()) as pool:
            assert pool.submit(pid).result() != os.getpid()


def kill_itself_at(item: int) -> int:
    if item == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return item
