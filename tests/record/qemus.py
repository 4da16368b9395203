"""The QEMUs to test: qemu-system-x86_64, and those in GPUSIM_QEMU, separated by colons.

GPUSIM_REQUIRE_QEMU=1 makes it an error that there is none, or nothing to build its guest with.
"""

from __future__ import annotations

import os
import shutil

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
