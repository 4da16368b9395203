"""Python processes with the played CUDA device of tests/parity/fake_cuda.py."""

from __future__ import annotations

import atexit
import os
import platform
import subprocess
import sys
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from gpusim.pages.cupy_kernels import SOURCE
from tests.compilers import missing
from tests.parity.shim import compile_kernels

REPOSITORY = Path(__file__).parents[3]
SITE = Path(__file__).parent  # has sitecustomize.py


def wrong_machine() -> str:
    """Return why no device can be played on this machine, or ""."""
    if (platform.machine(), sys.platform) == ("x86_64", "linux"):
        return ""
    return f"a CUDA device is played on x86-64 Linux only, not on {platform.machine()}"


def need_played_device() -> None:
    """Skip a test where no device can be played. A missing CuPy or NVRTC fails it in .ci/run."""
    if reason := wrong_machine():
        pytest.skip(reason)
    try:
        from cupy.cuda import nvrtc

        nvrtc.getVersion()
    except Exception as error:  # CuPy raises many kinds
        missing(f"no CuPy or no NVRTC to play a CUDA device for: {type(error).__name__}: {error}")


@cache
def _compiled_kernels() -> str:
    """Compile the kernels for the CPU once for all processes. Return the library."""
    folder = TemporaryDirectory()
    atexit.register(folder.cleanup)
    return str(compile_kernels(SOURCE.read_text(), Path(folder.name)))


def run_python(
    *arguments: str, site: Path = SITE, stdin: str = "", **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run Python in the repository. The process and its children find the played device.

    Args:
        arguments: of Python.
        site: the first folder on PYTHONPATH.
        stdin: text for its standard input.
        environment: more variables, such as those of fake_cuda.py.
    """
    need_played_device()
    found = {"PYTHONPATH": f"{site}:{REPOSITORY}", "FAKE_CUDA_KERNELS": _compiled_kernels()}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=REPOSITORY,
        env={**os.environ, **found, **environment},
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
    )
