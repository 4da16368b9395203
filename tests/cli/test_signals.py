"""Does a signal at any moment end a command with one line, and leave nothing half-written?

A command sends the signal to itself at a planned moment: at an import, or at a call.
tests/test_command.py asks about second signals and about nohup.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterable, Sequence
from itertools import cycle
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import pytest

from tests.cli.command import gpusim
from tests.cli.forked import Forked
from tests.cli.test_streams import COMMANDS, ENDS_WITHIN_S, entry, expand, runs

__all__ = ["runs"]  # a fixture

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
AT_CALL = """
import importlib, os
owner = importlib.import_module({module!r})
for part in {path!r}[:-1]: owner = getattr(owner, part)
name, skipped = {path!r}[-1], {skipped}
real = getattr(owner, name)
def signalling(*arguments, **named):
    global skipped
    skipped -= 1
    if skipped < 0:
        setattr(owner, name, real)
        os.kill(os.getpid(), {number})
    return real(*arguments, **named)
setattr(owner, name, signalling)
"""
AT_IMPORT = """
import os, sys
class Signals:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            sys.meta_path.remove(self)
            os.kill(os.getpid(), {number})
sys.meta_path.insert(0, Signals())
"""
MOMENTS = {  # of a run: a function, and how many calls of it come before
    "options": ("gpusim.cli.hydra_run:get_args_parser", 0),
    "composing": ("hydra._internal.config_loader_impl:ConfigLoaderImpl.load_configuration", 0),
    "log": ("hydra.core.utils:configure_log", 0),
    "config": ("gpusim.cli.app:converted", 0),
    "resolving": ("gpusim.cli.job:resolve", 0),
    "beginning": ("gpusim.cli.job:begin_run", 0),
    "simulating": ("gpusim.cli.job:simulate_scenario", 0),
    "sync": ("gpusim.engine.syncs:Syncs.run", 1),
    "writing": ("gpusim.cli.job:write_run", 0),
    "first file": ("os:replace", 0),
    "third file": ("os:replace", 2),
    "fourth file": ("os:replace", 3),
}


def at_call(where: str, number: int, skipped: int = 0) -> str:
    """Return statements after which a call of a function sends a signal."""
    module, _, path = where.partition(":")
    return AT_CALL.format(module=module, path=path.split("."), number=int(number), skipped=skipped)


def forked(command: str, before: str, folder: Path, runs: Path) -> tuple[int, str]:
    """Run a command after the statements `before`. Return its exit code and standard error."""
    with TemporaryFile() as errors:
        code = f"{before}\n{entry(command)}"
        process = Forked(code, expand(command, runs), cwd=folder, stderr=errors)
        try:
            code = process.wait(ENDS_WITHIN_S)
        finally:
            process.kill()
        errors.seek(0)
        return code, errors.read().decode()


def check_line(number: signal.Signals, code: int, errors: str) -> None:
    assert (code, errors) == (128 + number, f"error: interrupted by {number.name}\n")


MODULES = (  # that a run imports
    *("logging.handlers", "omegaconf", "antlr4", "gpusim.cli.app", "numpy.random"),
    *("gpusim.engine.migration", "gpusim.results.run_files", "hydra._internal.core_plugins"),
)
FEW = ("composing", "third file")


def rotated(names: Iterable[str], few: Sequence[str]) -> list[Any]:
    """Return each name with one of the signals as parameters. The names `few` are not slow."""
    return [
        pytest.param(name, number, marks=[] if name in few else pytest.mark.slow)
        for name, number in zip(names, cycle(SIGNALS), strict=False)
    ]


@pytest.mark.parametrize(("moment", "number"), rotated(MOMENTS, FEW))
def test_an_interrupted_run_leaves_nothing(
    moment: str, number: signal.Signals, tmp_path: Path, runs: Path
) -> None:
    where, skipped = MOMENTS[moment]
    code, errors = forked("gpusim", at_call(where, number, skipped), tmp_path, runs)
    check_line(number, code, errors)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("command", "number"), rotated(COMMANDS, ["gpusim-record"]))
def test_a_command_that_is_interrupted_while_it_writes_leaves_no_part(
    command: str, number: signal.Signals, tmp_path: Path, runs: Path
) -> None:
    code, errors = forked(command, at_call("os:replace", number), tmp_path, runs)
    check_line(number, code, errors)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize(
    ("command", "module", "number"),
    [
        ("gpusim", "hydra", signal.SIGINT),
        *(
            pytest.param(command, "numpy", number, marks=pytest.mark.slow)
            for command, number in zip(COMMANDS, cycle(SIGNALS), strict=False)
        ),
        *(
            pytest.param("gpusim", module, number, marks=pytest.mark.slow)
            for module, number in zip(MODULES, cycle(SIGNALS), strict=False)
        ),
    ],
)
def test_a_signal_during_imports_is_one_line(
    command: str, module: str, number: signal.Signals, tmp_path: Path, runs: Path
) -> None:
    before = AT_IMPORT.format(module=module, number=int(number))
    done = subprocess.run(
        [sys.executable, "-c", f"{before}\n{entry(command)}", *expand(command, runs)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=ENDS_WITHIN_S,
        check=False,
    )
    check_line(number, done.returncode, done.stderr)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("engine", "number"),
    [
        ("hydra/sweeper=basic", signal.SIGTERM),
        pytest.param("hydra/sweeper=basic", signal.SIGHUP, marks=pytest.mark.slow),
        pytest.param("hydra/sweeper=batch", signal.SIGTERM, marks=pytest.mark.slow),
        pytest.param("hydra/sweeper=batch", signal.SIGINT, marks=pytest.mark.slow),
    ],
)
def test_an_interrupted_sweep_keeps_whole_runs_and_tells_how_to_go_on(
    engine: str, number: signal.Signals, tmp_path: Path
) -> None:
    sweep = ["-m", "experiment=tiny", "plot=false", engine, "hydra.sweep.dir=out", "seed=1,2,3,4"]
    before = at_call("gpusim.cli.job:simulate_scenario", number, 2)
    done = gpusim(*sweep, cwd=tmp_path, before=before, code=128 + number)
    *log, line = done.stderr.splitlines()
    assert line.startswith(f"error: interrupted by {number.name}. ")
    assert "hydra.sweep.dir=out" in line
    assert not any("error: " in one for one in log)
    summaries = list(tmp_path.glob("out/*/summary.json"))
    assert [json.loads(path.read_text())["status"] for path in summaries] == ["ok"] * 2
    assert len(list(tmp_path.glob("out/*/"))) == 2
