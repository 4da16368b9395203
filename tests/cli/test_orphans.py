"""Does every command take its worker processes with it, however it ends?

A command runs in a session of its own, so /proc shows which processes it has left behind.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.cli.command import REPOSITORY
from tests.cli.engines import need_engine_of
from tests.cli.forked import Forked

ENDS_WITHIN_S = 20.0  # a guard against hangs
POLL_S = 0.02  # a worker of a command needs a second to import gpusim
GONE_WITHIN_S = 2.0
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
LONG = ["vm=large_256gib", "workload.page_writes_per_s=3e6", "limit.stop_when_stuck=false"]
LONG += ["migration.fallback_sync_interval=100ms", "plot=false", "backend=numpy"]
SWEEP = ["-m", *LONG, "seed=1,2,3", "hydra.sweep.dir=out"]
PROFILE = str(REPOSITORY / "docs/profiles/web.yaml")
COMMANDS = {
    "run": ["gpusim", *LONG, "hydra.run.dir=out"],
    "basic": ["gpusim", *SWEEP],
    "batch": ["gpusim", *SWEEP, "hydra/sweeper=batch", "hydra.sweeper.workers=2"],
    "joblib": ["gpusim", *SWEEP, "hydra/launcher=processes", "hydra.launcher.n_jobs=2"],
    "validate": ["validate", "published", "dirty_quota"],
    "predict": ["predict", PROFILE, "link=10gbit", "--members", "100"],
}
WORKERS = {"joblib": b"LokyProcess"}
ALONE = ("run", "basic")


def processes_of(session: int) -> dict[int, bytes]:
    """Return id and command line of the processes of a session that run."""
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            with suppress(OSError):
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
                if int(fields[3]) == session and fields[0] != "Z":
                    found[int(folder.name)] = (folder / "cmdline").read_bytes()
    return found


def left_behind(session: int) -> list[bytes]:
    """Return the commands that still run after they had time to end, and end them."""
    until = time.monotonic() + GONE_WITHIN_S
    for pid in processes_of(session):
        with suppress(ProcessLookupError):
            handle = os.pidfd_open(pid)
            select.select([handle], [], [], max(0.0, until - time.monotonic()))
            os.close(handle)
    left = processes_of(session)
    for pid in left:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return list(left.values())


@contextmanager
def started(command: list[str], folder: Path) -> Iterator[Forked]:
    """Yield a command in a session of its own, and kill it if the block fails."""
    name, *arguments = command
    code = f"from gpusim.cli import entry; sys.exit(entry.{name}())"
    with (folder / "stderr").open("wb") as errors:
        process = Forked(f"import sys; {code}", arguments, cwd=folder, stderr=errors)
    try:
        yield process
    finally:
        process.kill()
        process.wait(ENDS_WITHIN_S)


def kill(process: Forked, number: signal.Signals, *, group: bool) -> None:
    """Send a signal to a command, or to all processes of its group as a terminal does."""
    with suppress(ProcessLookupError):
        (os.killpg if group else os.kill)(process.pid, number)


def check(kind: str, number: signal.Signals, folder: Path, *, group: bool = False) -> None:
    """Start a command, wait for its workers, signal it, and expect that nothing is left."""
    worker = WORKERS.get(kind, b"multiprocessing.spawn")

    def works(process: Forked) -> bool:
        if kind in ALONE:
            return (folder / "out").exists()
        return any(worker in line for line in processes_of(process.pid).values())

    with started(COMMANDS[kind], folder) as process:
        until = time.monotonic() + ENDS_WITHIN_S
        while not works(process):
            with suppress(subprocess.TimeoutExpired):
                process.wait(POLL_S)
            assert process.poll() is None, (folder / "stderr").read_text()
            assert time.monotonic() < until
        kill(process, number, group=group)
        if number == signal.SIGINT:  # Python drops an interrupt that comes in a finaliser
            with suppress(subprocess.TimeoutExpired):
                process.wait(GONE_WITHIN_S)
            if process.poll() is None:
                kill(process, number, group=group)
        process.wait(ENDS_WITHIN_S)
        assert process.returncode != 0
        assert left_behind(process.pid) == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_workers_of_a_batch_die_with_it(number: signal.Signals, tmp_path: Path) -> None:
    check("batch", number, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("kind", COMMANDS)
def test_nothing_outlives_a_command(kind: str, number: signal.Signals, tmp_path: Path) -> None:
    if kind == "joblib":
        need_engine_of("hydra/launcher=processes")
    check(kind, number, tmp_path, group=number == signal.SIGINT)
