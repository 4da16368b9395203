"""Golden files: the exact text of each command, so that other tests need not quote sentences."""

from __future__ import annotations

import os
from pathlib import Path

GOLDEN = Path(__file__).with_name("golden")


def check_golden(name: str, text: str) -> None:
    """Compare a text with tests/golden/NAME.txt.

    With GPUSIM_WRITE_GOLDEN=1 in the environment it writes the file instead.
    """
    path = GOLDEN / f"{name}.txt"
    if os.environ.get("GPUSIM_WRITE_GOLDEN") == "1":
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, "utf-8")
    assert path.read_text("utf-8") == text, (
        f"{path} is different: read both, then run pytest with GPUSIM_WRITE_GOLDEN=1"
    )
