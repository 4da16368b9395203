"""Do all commands keep exit codes and results if a standard stream is closed, full or not read?"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gpusim.cli.entry import MODULES
from tests.cli.command import MAIN, REPOSITORY
from tests.cli.forked import Forked

ENDS_WITHIN_S = 120.0  # a guard against hangs
RUN = ["experiment=tiny", "hydra.run.dir=out", "plot=false", "backend=numpy"]
# Its arguments, which make "out" in a few seconds.
COMMANDS = {
    "gpusim": RUN,
    "gpusim-collect": ["{runs}", "--out", "out"],
    "gpusim-validate": ["published", "qatzip", "--json", "out"],
    "gpusim-record": ["--libvirt", str(REPOSITORY / "docs/libvirt/jobs.log"), "--out", "out"],
    "gpusim-predict": [
        str(REPOSITORY / "docs/profiles/web.yaml"), "link=10gbit", "--members", "2",
        "--no-advice", "--experiment", "out",
    ],
    "gpusim-bench": [
        "--backend", "numpy", "--pages", "2^18", "--repeats", "1", "--no-runs", "--json", "out",
    ],
}  # fmt: skip
CLOSED = {"stdin": "<&-", "stdout": ">&-", "stderr": "2>&-", "all": "<&- >&- 2>&-"}
FULL = "/dev/full"
ON_STREAMS = """
import atexit, os
def check():
    for number in range(3):
        target = os.readlink(f"/proc/self/fd/{number}")
        if os.path.isfile(target): os._exit(99)
atexit.register(check)
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a whole run."""
    folder = tmp_path_factory.mktemp("runs")
    process = Forked(MAIN, RUN, cwd=folder)
    assert process.wait(ENDS_WITHIN_S) == 0
    return folder


def expand(command: str, runs: Path) -> list[str]:
    """Return the arguments of a command."""
    return [one.format(runs=runs) for one in COMMANDS[command]]


LOG = "backend numpy (chosen by name)\n"  # of a run


def entry(command: str) -> str:
    """Return the statements that run a command and exit."""
    name = command.removeprefix("gpusim-")
    return f"import sys; from gpusim.cli import entry; sys.exit(entry.{name}())"


def start(
    command: str, redirections: str, folder: Path, runs: Path, stdout: int = subprocess.DEVNULL
) -> tuple[int, str]:
    """Run a command anew, as a shell starts it. Return its exit code and errors, without the log."""
    code = f"{ON_STREAMS}\n{entry(command)}"
    line = shlex.join([sys.executable, "-c", code, *expand(command, runs)])
    done = subprocess.run(
        ["sh", "-c", f"exec {line} {redirections}"],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        timeout=ENDS_WITHIN_S,
        check=False,
    )
    return done.returncode, done.stderr.removeprefix(LOG)


def check_whole(command: str, folder: Path) -> None:
    """Check that the results are those of a command that nothing disturbed."""
    out = folder / "out"
    assert not list(folder.rglob("*.tmp"))
    if command == "gpusim":
        assert json.loads((out / "summary.json").read_text())["status"] == "ok"
    elif command == "gpusim-collect":
        assert (out / "index.html").read_text().rstrip().endswith("</html>")
    elif command == "gpusim-record":
        assert len(list(out.iterdir())) == 1
    else:
        assert out.stat().st_size > 0


FEW = [("gpusim", "all")]


def slow_but_few(cases: list[tuple[str, str]], few: list[tuple[str, str]]) -> list[Any]:
    """Return the cases as parameters, of which `few` are in the ordinary suite."""
    return [
        pytest.param(*case, marks=[] if case in few else pytest.mark.slow, id=" ".join(case))
        for case in cases
    ]


@pytest.mark.parametrize(
    ("command", "closed"),
    slow_but_few(
        [*(("gpusim", one) for one in CLOSED), *((one, "all") for one in list(COMMANDS)[1:])], FEW
    ),
)
def test_a_closed_stream_changes_nothing(
    command: str, closed: str, tmp_path: Path, runs: Path
) -> None:
    code, errors = start(command, CLOSED[closed], tmp_path, runs)
    assert (code, errors) == (0, "")
    check_whole(command, tmp_path)


@pytest.mark.parametrize(
    ("command", "option"),
    slow_but_few(
        [("gpusim", "PYTHONUNBUFFERED"), *((command, "") for command in COMMANDS)],
        [("gpusim-record", "")],
    ),
)
def test_a_full_standard_output_is_one_line_after_whole_results(
    command: str, option: str, tmp_path: Path, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONUNBUFFERED", "1" if option else "")
    code, errors = start(command, f">{FULL}", tmp_path, runs)
    assert code == 1
    assert errors.startswith("error: standard output: ")
    assert errors.count("\n") == 1
    check_whole(command, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_a_full_standard_error_changes_nothing(command: str, tmp_path: Path, runs: Path) -> None:
    assert start(command, f"2>{FULL}", tmp_path, runs) == (0, "")
    check_whole(command, tmp_path)


@pytest.mark.parametrize("redirections", ["2>/dev/full", "2>&-", "2>&- >&-"])
def test_an_error_keeps_its_code_if_nobody_reads_it(
    redirections: str, tmp_path: Path, runs: Path
) -> None:
    redirections = f"--nosuch {redirections}"
    assert start("gpusim-record", redirections, tmp_path, runs) == (2, "")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_a_closed_pipe_is_quiet(command: str, tmp_path: Path, runs: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        assert start(command, "", tmp_path, runs, stdout=writer) == (0, "")
    finally:
        os.close(writer)
    check_whole(command, tmp_path)


def test_every_command_is_tried() -> None:
    assert COMMANDS.keys() == MODULES.keys()
