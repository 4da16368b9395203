"""Compilers that tests need. A missing one skips the test, or fails it in .ci/run."""

from __future__ import annotations

import os
import shutil

import pytest

REQUIRED = "GPUSIM_REQUIRE_COMPILERS"  # if it is 1, a missing compiler fails the test instead of skipping it


def missing(what: str) -> None:
    """Skip a test that needs a compiler, or fail if a compiler is required."""
    if os.environ.get(REQUIRED) == "1":
        pytest.fail(f"{what}, and {REQUIRED}=1")
    pytest.skip(what)


def cpp_compiler(why: str) -> str:
    """Return the path of g++. `why` says what is missing without it."""
    compiler = shutil.which("g++")
    if compiler is None:
        missing(why)
    return str(compiler)
