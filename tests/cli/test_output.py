"""What goes to standard output, and what to standard error?"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.command import gpusim

TINY = ("experiment=tiny", "plot=false", "backend=numpy")


def test_the_result_goes_to_stdout_and_the_log_to_stderr(tmp_path: Path) -> None:
    done = gpusim(*TINY, cwd=tmp_path)
    assert done.stdout.startswith("verdict: converged\n")
    folder = Path(done.stdout.splitlines()[-1])
    assert "backend numpy" in done.stderr and "verdict" not in done.stderr
    log = (folder / "gpusim.log").read_text()
    assert "backend numpy" in log and "verdict: converged" in log


def test_json_is_one_line_with_the_folder(tmp_path: Path) -> None:
    done = gpusim(*TINY, "--json", "--quiet", cwd=tmp_path)
    assert (done.stdout.count("\n"), done.stderr) == (1, "")
    shown = json.loads(done.stdout)
    assert json.loads((Path(shown.pop("folder")) / "summary.json").read_text()) == shown


@pytest.mark.slow
def test_quiet_prints_the_folder(tmp_path: Path) -> None:
    done = gpusim(*TINY, "--quiet", cwd=tmp_path)
    assert (done.stdout.count("\n"), done.stderr) == (1, "")
    assert (Path(done.stdout.strip()) / "summary.json").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["hydra/sweeper=basic", "hydra/sweeper=batch"])
def test_a_sweep_prints_one_json_line_per_run(tmp_path: Path, engine: str) -> None:
    done = gpusim("-m", *TINY, "seed=1,2", engine, "--json", "--quiet", cwd=tmp_path)
    runs = [json.loads(line) for line in done.stdout.splitlines()]
    assert [run["verdict"] for run in runs] == ["converged", "converged"]
    assert len({run["folder"] for run in runs}) == 2


@pytest.mark.slow
def test_a_quiet_sweep_prints_its_folder(tmp_path: Path) -> None:
    done = gpusim("-m", *TINY, "seed=1,2", "--quiet", "hydra.sweep.dir=mine", cwd=tmp_path)
    assert (done.stdout, done.stderr) == ("mine\n", "")
