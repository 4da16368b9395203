"""The built wheel works without the source tree."""

from __future__ import annotations

import subprocess
import sys
import sysconfig

import pytest

from tests.cli.command import REPOSITORY


def run(*command: object, cwd) -> str:
    done = subprocess.run(
        [str(word) for word in command], cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_wheel_runs_from_any_directory(tmp_path) -> None:
    build = ("-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path / "dist", REPOSITORY)
    run(sys.executable, *build, cwd=tmp_path)
    (wheel,) = (tmp_path / "dist").glob("*.whl")

    venv = tmp_path / "venv"
    python = venv / "bin" / "python"
    run(sys.executable, "-m", "venv", "--without-pip", venv, cwd=tmp_path)
    install = ("-m", "pip", "--python", python, "install", "--no-deps", "--no-index", wheel)
    run(sys.executable, *install, cwd=tmp_path)
    # The dependencies come from this environment. Its own gpusim comes later on the path.
    (site,) = venv.glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")

    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    where = run(python, "-c", "import gpusim; print(gpusim.__file__)", cwd=elsewhere)
    assert where.startswith(str(venv))
    run(venv / "bin" / "gpusim", "experiment=tiny", cwd=elsewhere)
    assert len(list(elsewhere.glob("outputs/*/*/summary.json"))) == 1
    sweep = ("-m", "experiment=tiny", "seed=1,2", "hydra/sweeper=batch", "hydra.sweep.dir=out")
    run(venv / "bin" / "gpusim", *sweep, cwd=elsewhere)
    run(venv / "bin" / "gpusim-collect", "out", cwd=elsewhere)
    assert "aria-sort" in (elsewhere / "out/index.html").read_text()
    recordings = site / "gpusim" / "validation" / "data"
    assert list(recordings.glob("*.json.xz"))
    run(venv / "bin" / "gpusim-validate", "--help", cwd=elsewhere)
    assert "small " in run(venv / "bin" / "gpusim-record", "--list", cwd=elsewhere)
    assert (site / "gpusim" / "record" / "guest.c").is_file()
