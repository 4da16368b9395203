"""Does the cupy backend run through the real CuPy, on the played device of fake_cuda.py?"""

from __future__ import annotations

import shutil
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest

from tests.parity.played import REPOSITORY, run_python

pytestmark = pytest.mark.slow
PLAY = "import tests.parity.fake_cuda"
SUITE = (
    "-m",
    "pytest",
    "-p",
    "tests.parity.fake_cuda",
    "-p",
    "no:cacheprovider",
    "-m",
    "gpu",
    "-q",
)


@pytest.mark.parametrize(
    ("late", "chosen"), [("1", "not 2_to_the_3"), ("0", "merge_of_the_lazy or clear")]
)
def test_the_gpu_suite_passes(late: str, chosen: str) -> None:
    """All of it with work of the stream as late as possible, and a part with work at once."""
    done = run_python(*SUITE, "-k", chosen, FAKE_CUDA_LATE=late, GPUSIM_REQUIRE_GPU="1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "passed" in done.stdout


def test_a_wheel_without_a_symbol_table_is_one_line(tmp_path: Path) -> None:
    """The played device cannot find the CUDA runtime in it."""
    folder = tmp_path / "cupy_backends/cuda/api"
    folder.mkdir(parents=True)
    (tmp_path / "cupy_backends/__init__.py").touch()
    stripped = folder / f"runtime{EXTENSION_SUFFIXES[0]}"
    shutil.copy(shutil.which("true") or "/bin/true", stripped)  # Debian strips its programs
    done = run_python("-c", PLAY, site=tmp_path)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert stripped.name in done.stderr
    assert "symbol table" in done.stderr


@pytest.mark.parametrize(
    "before", ["import platform; platform.machine = lambda: 'aarch64'", "import cupy"]
)
def test_where_no_device_can_be_played_is_one_line(before: str) -> None:
    done = run_python("-c", f"{before}; {PLAY}", site=REPOSITORY)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert "fake_cuda: " in done.stderr
