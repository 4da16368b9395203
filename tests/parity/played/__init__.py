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
KERNELS = "FAKE_CUDA_KERNELS"  # see fake_cuda.py


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


def environment(site: Path = SITE) -> dict[str, str]:
    """Return the environment in which Python and its children find the played device."""
    return {"PYTHONPATH": f"{site}:{REPOSITORY}", KERNELS: _compiled_kernels()}


@cache
def _compiled_kernels() -> str:
    """Compile the kernels for the CPU, unless a parent process has. Return the library."""
    if KERNELS in os.environ:
        return os.environ[KERNELS]
    folder = TemporaryDirectory()
    atexit.register(folder.cleanup)
    return str(compile_kernels(SOURCE.read_text(), Path(folder.name)))


def run_python(
    *arguments: str, site: Path = SITE, stdin: str = "", **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run Python in the repository. The process and its children find the played device.

    Args:
        arguments: of Python.
        site: the first folder on PYTHONPATH.
        stdin: text for its standard input.
        variables: of the environment, such as those of fake_cuda.py.
    """
    need_played_device()
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=REPOSITORY,
        env={**os.environ, **environment(site), **variables},
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
    )
