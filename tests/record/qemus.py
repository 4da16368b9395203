"""The QEMUs to test: qemu-system-x86_64, and those in GPUSIM_QEMU, separated by colons.

GPUSIM_REQUIRE_QEMU=1 makes it an error that there is none, or nothing to build its guest with.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess

import pytest

QEMUS = [
    name
    for name in ["qemu-system-x86_64", *filter(None, os.environ.get("GPUSIM_QEMU", "").split(":"))]
    if shutil.which(name)
] or ["none"]
every_qemu = pytest.mark.parametrize("qemu", QEMUS)


def need(qemu: str) -> None:
    """Skip, or fail where QEMU is required, if a recording cannot be made here."""
    lacking = [name for name in ("gcc", "ld") if shutil.which(name) is None]
    if qemu == "none":
        lacking.append("qemu-system-x86_64")
    if lacking:
        why = f"not installed: {', '.join(lacking)}"
        if os.environ.get("GPUSIM_REQUIRE_QEMU") == "1":
            pytest.fail(f"{why}, and GPUSIM_REQUIRE_QEMU=1 asks for it", pytrace=False)
        pytest.skip(why)


def need_since(major: int, minor: int) -> str:
    """Return the first QEMU of at least this version, or skip if there is none."""
    for qemu in QEMUS:
        if qemu != "none" and _version(qemu) >= (major, minor):
            need(qemu)
            return qemu
    pytest.skip(f"GPUSIM_QEMU names no QEMU {major}.{minor} or later")


def _version(qemu: str) -> tuple[int, int]:
    text = subprocess.run([qemu, "--version"], capture_output=True, text=True, check=True).stdout
    match = re.search(r"version (\d+)\.(\d+)", text)
    assert match is not None, text
    return int(match[1]), int(match[2])
