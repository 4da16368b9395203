"""Do the scripts of examples/ run as their first lines say?"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.command import REPOSITORY


def run(name: str, folder: Path) -> str:
    """Run an example in an empty folder, with the commands of this environment on the path."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [sys.executable, str(REPOSITORY / "examples" / name)],
        cwd=folder,
        env=os.environ | {"PATH": path},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_rule_of_ones_own_is_compared_with_qemus(tmp_path: Path) -> None:
    shown = run("write_a_throttle_rule.py", tmp_path).splitlines()
    assert [line[:11] for line in shown] == ["QEMU's rule", "Impatient  "]
    assert shown[0][11:] != shown[1][11:]


@pytest.mark.slow
def test_a_sweep_is_read_with_pandas(tmp_path: Path) -> None:
    pytest.importorskip("pandas", reason="pandas reads the tables of the example")
    shown = run("read_a_sweep.py", tmp_path)
    assert len(list(tmp_path.glob("outputs/multirun/example/*/summary.json"))) == 12
    assert "qemu_9_2" in shown
    assert "fallback" in shown or "exact" in shown


def test_every_example_is_tested() -> None:
    tested = Path(__file__).read_text()
    assert all(path.name in tested for path in (REPOSITORY / "examples").glob("*.py"))
