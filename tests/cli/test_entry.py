"""Do all commands have `--version`, and print no traceback if a pipe closes?"""

from __future__ import annotations

import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from gpusim import __version__
from gpusim.cli.entry import MODULES
from tests.cli.command import REPOSITORY

SCRIPTS = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["scripts"]


def command_line(command: str, *arguments: str) -> list[str]:
    """Return what an installed script does."""
    module, _, name = SCRIPTS[command].partition(":")
    start = f"import sys; from {module} import {name}; sys.exit({name}())"
    return [sys.executable, "-c", start, *arguments]


def test_every_command_has_an_entry() -> None:
    assert SCRIPTS.keys() == MODULES.keys()


@pytest.mark.parametrize("command", MODULES)
def test_version(command: str, tmp_path: Path) -> None:
    done = subprocess.run(
        command_line(command, "--version"), cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == (f"{command} {__version__}\n", "")
    assert list(tmp_path.iterdir()) == []


def run_with_closed_pipe(command: list[str], cwd: Path) -> tuple[int, str]:
    """Run a command whose standard output nobody reads. Return its exit code and errors."""
    with (
        (cwd / "errors").open("w+") as errors,
        subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, stderr=errors) as process,
    ):
        assert process.stdout is not None
        process.stdout.close()
        code = process.wait(timeout=300)
    return code, (cwd / "errors").read_text()


@pytest.mark.parametrize("command", MODULES)
def test_help_into_a_closed_pipe_is_quiet(command: str, tmp_path: Path) -> None:
    assert run_with_closed_pipe(command_line(command, "--help"), tmp_path) == (0, "")


def test_a_run_into_a_closed_pipe_leaves_its_results(tmp_path: Path) -> None:
    overrides = ["experiment=tiny", "hydra.run.dir=one"]
    code, errors = run_with_closed_pipe(command_line("gpusim", *overrides), tmp_path)
    assert code == 0
    assert "error: " not in errors
    assert (tmp_path / "one/summary.json").exists()


def test_python_m_gpusim_bench() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "gpusim.bench", "--version"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == f"gpusim-bench {__version__}\n"


def test_a_command_without_standard_streams_ends(tmp_path: Path) -> None:
    """As `gpusim --version >&- 2>&-` starts it: Python then has no streams."""
    command = " ".join(map(shlex.quote, command_line("gpusim", "--version")))
    done = subprocess.run(["sh", "-c", f"{command} >&- 2>&-"], cwd=tmp_path, check=False)
    assert done.returncode == 0


def test_an_unbuffered_stream_stays_unbuffered() -> None:
    start = (
        "import sys\nfrom gpusim.command import run_process\n"
        "run_process('gpusim', lambda: print(sys.stdout.write_through))"
    )
    done = subprocess.run(
        [sys.executable, "-u", "-c", start], capture_output=True, text=True, check=True
    )
    assert done.stdout == "True\n"
