"""Does the GPU suite need only cupy, numpy and pytest, and does it run if it is required?"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
ABSENT = ("hydra", "omegaconf", "hypothesis", "tqdm", "matplotlib", "numba", "pytest_timeout")


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run Python without the packages that such a machine lacks."""
    absent = f"import sys\nfor name in {ABSENT}: sys.modules[name] = None\n"
    return subprocess.run(
        [sys.executable, "-c", absent + code],
        cwd=REPOSITORY,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_engine_and_the_benchmark_import() -> None:
    done = python(
        "import gpusim, gpusim.bench.cli, gpusim.pages.pages, gpusim.pages.cupy_kernels\n"
        "sys.exit(gpusim.bench.cli.main(['--backend', 'numpy', '--pages', '2^18', '--repeats', '1']))"
    )
    assert done.returncode == 0, done.stderr
    assert "whole run" in done.stdout


def test_marker_gpu_collects_the_parity_suite_alone() -> None:
    done = python("import pytest; sys.exit(pytest.main(['-m', 'gpu', '--collect-only', '-q']))")
    assert done.returncode == 0, done.stdout + done.stderr
    chosen = [line for line in done.stdout.splitlines() if "::" in line]
    assert len(chosen) > 50
    assert all(line.startswith("tests/parity/") for line in chosen)


def test_a_required_gpu_that_is_missing_fails() -> None:
    no_device = "import pytest; sys.exit(pytest.main(['-m', 'gpu', '-q', '-x', 'tests/parity/test_primitives.py']))"
    done = python(no_device, GPUSIM_REQUIRE_GPU="1", CUDA_VISIBLE_DEVICES="-1")
    assert done.returncode == 1, done.stdout
    assert "GPUSIM_REQUIRE_GPU=1" in done.stdout
    done = python(no_device, GPUSIM_REQUIRE_GPU="", CUDA_VISIBLE_DEVICES="-1")
    assert done.returncode == 0, done.stdout
    assert "skipped" in done.stdout


@pytest.mark.gpu
def test_a_device_was_really_used() -> None:
    """A successful `-m gpu` names its device."""
    from gpusim.pages.backends import device_name
    from tests.parity.devices import need

    need("cupy")
    print(device_name("cupy"))
    assert device_name("cupy")
