"""Does gpusim-predict take every file that an operator may hold, by its name alone?"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gpusim.cli import predict as cli
from gpusim.cli import validate
from tests.cli.command import REPOSITORY

LOGS = REPOSITORY / "docs" / "logs"
COARSE = (
    "domjobinfo.txt",
    "info-migrate.txt",
    "info-migrate-10.1.txt",
    "query-migrate.json",
    "nova-compute.log",
    "proxmox-task.log",
    "virt-launcher.log",
)
RECORDING = str(REPOSITORY / "gpusim/validation/data/converges.qemu10.a.json.xz")


@pytest.mark.parametrize("name", COARSE)
def test_a_coarse_answer_says_what_the_file_is(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([str(LOGS / name), "--deadline", "30min", "--max-downtime", "1s"]) == 0
    shown = capsys.readouterr()
    assert shown.err.startswith(f"{LOGS / name}: ") and len(shown.err.splitlines()) == 1
    lines = shown.out.splitlines()
    assert lines[1].startswith("Total time at most 30 min: ")
    assert max(map(len, lines)) <= 100


def test_json_stands_alone_on_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([str(LOGS / "domjobinfo.txt"), "--json", "-"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["kind"], found["code"], found["coarse"]) == ("domjobinfo", "no", True)


def test_a_recording_that_fits_no_guest_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([RECORDING, "--explain"]) == 0
    assert capsys.readouterr().out.startswith("Yes: the migration completed after ")


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        (["--explain"], "PROFILE = none: "),
        (["--explain", str(REPOSITORY / "docs/profiles/web.yaml")], "--explain = "),
        ([str(LOGS / "domjobinfo.txt"), "--memory", "1GiB"], "--memory = given: "),
        ([str(LOGS / "domjobinfo.txt"), "--experiment", "a.yaml"], "--experiment = a.yaml: "),
        ([str(LOGS / "domjobinfo.txt"), "--goal", "fastest"], "--goal = fastest: "),
        ([str(LOGS / "domjobinfo.txt"), "link=nosuch"], ""),
        (["empty"], "empty: "),
    ],
)
def test_wrong_input_is_one_line(
    arguments: list[str],
    key: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").touch()
    assert cli.main(arguments) == 2
    shown = capsys.readouterr()
    last = shown.err.splitlines()[-1]
    assert last.startswith(f"error: {key}") and not shown.out
    assert len(shown.err.splitlines()) <= 2
    assert list(tmp_path.iterdir()) == [tmp_path / "empty"]


def test_only_a_fitted_guest_needs_scipy(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A coarse answer comes without it. Others name the extra in one line."""
    monkeypatch.setattr("gpusim.errors.is_installed", lambda package: package != "scipy")
    assert cli.main([str(LOGS / "domjobinfo.txt")]) == 0
    capsys.readouterr()
    for command in (
        lambda: cli.main([str(REPOSITORY / "docs/profiles/web.yaml"), "--no-advice"]),
        lambda: cli.main([str(LOGS / "vdsm.log"), "--explain"]),
        lambda: validate.main(["profiles"]),
    ):
        assert command() == 2
        assert capsys.readouterr().err.splitlines()[-1] == (
            "error: fitting a guest: scipy is missing: install gpusim's extra: "
            "pip install -e '.[predict]'"
        )
