"""Does gpusim-predict answer, write whole files or none, and say in one line what is wrong with its input?"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from gpusim.live.monitor import LiveError
from gpusim.predict import cli
from tests.predict.profiles import exact_profile, uniform_pages

pytest.importorskip("scipy")

GIB = 2**30
QUICK = ["--members", "2", "--no-advice", "link.bandwidth=1Gbit/s"]


@pytest.fixture
def profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A VM of half a GiB that converges, in the current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("gpusim.predict.ensemble.in_turn", _here)
    found = exact_profile(uniform_pages(16_384, 2000), GIB // 2).document()
    (tmp_path / "vm.json").write_text(json.dumps(found))
    return "vm.json"


def _here(function: Any, items: Any, workers: int, lost: Any) -> Any:
    return map(function, items)


def test_it_answers(profile: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([profile, *QUICK]) == 0
    text = capsys.readouterr().out
    assert "Converges: all 2 simulated migrations do." in text
    assert "Total time" in text


def test_overrides_and_options_in_any_order(
    profile: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["link.bandwidth=1Gbit/s", "--members", "2", profile, "--no-advice"]) == 0
    first = capsys.readouterr().out
    assert cli.main([profile, "--members", "2", "link.bandwidth=1Gbit/s", "--no-advice"]) == 0
    assert capsys.readouterr().out == first


def test_json_alone_on_stdout(profile: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([profile, *QUICK, "--json", "-"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["converges"] is True
    assert found["total_time_s"]["low"] <= found["total_time_s"]["high"]


def test_files_are_written_where_asked(profile: str, tmp_path: Path) -> None:
    assert cli.main([profile, *QUICK, "--json", "a.json", "--experiment", "mine.yaml"]) == 0
    assert json.loads((tmp_path / "a.json").read_text())["probability"] == 1
    assert "# @package _global_" in (tmp_path / "mine.yaml").read_text()


def error_of(arguments: list[str], capsys: pytest.CaptureFixture[str], code: int = 2) -> str:
    before = sorted(Path().iterdir())
    assert cli.main(arguments) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    assert sorted(Path().iterdir()) == before, "something was left behind"
    return captured.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "name one profile, or --measure --qmp SOCKET, or --domstats FILE"),
        (["none.json"], "none.json: cannot be read"),
        (["vm.json", "other.json"], "PROFILE = vm.json, other.json: name one"),
        (["vm.json", "link", "25gbit"], "PROFILE = vm.json, link, 25gbit: name one"),
        (["vm.json", "--measure", "--qmp", "s"], "name one profile"),
        (["--measure"], "--measure needs the VM's monitor"),
        (["vm.json", "--quick"], "--quick = True: goes with --measure"),
        (["vm.json", "--deadline", "5min"], "goes with --goal"),
        (["vm.json", "--goal", "fastest", "--deadline", "soon"], "--deadline = soon"),
        (["vm.json", "--members", "1"], "--members = 1: must lie between 2 and"),
        (["vm.json", "--json", "no/such/folder.json"], "--json = no/such/folder.json"),
        (["vm.json", "--experiment", "no/such.yaml"], "--experiment = no/such.yaml"),
        (["vm.json", "--memory", "1GiB"], "goes with --domstats"),
        (["--domstats", "vm.json", "--memory", "lots"], "--memory = lots"),
        (["vm.json", "vm=huge_1tib"], "vm = huge_1tib: the profile says it"),
        (["vm.json", "link=none_such"], "none_such"),
        (["vm.json", "migration.colour=red"], "colour"),
        (["vm.json", "migration.downtime_limit=-3"], "migration.downtime_limit = -3"),
        (["vm.json", "link.bandwidth=fast"], "link.bandwidth = fast"),
    ],
)
def test_wrong_input(
    arguments: list[str], words: str, profile: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert words in error_of(arguments, capsys)


def test_a_profile_is_not_written_over(profile: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = error_of(["--measure", "--qmp", "socket", "--save", "vm.json"], capsys)
    assert "is there already" in text


def test_a_monitor_that_is_not_there(profile: str, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("qemu.qmp")
    assert "no such socket" in error_of(["--measure", "--qmp", "socket"], capsys, 1)


def test_what_fails_while_measuring_leaves_no_file(
    profile: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(options: Any) -> Any:
        await asyncio.sleep(0)
        raise LiveError("calc-dirty-rate: QEMU refused: busy")

    monkeypatch.setattr(cli, "_measured", fails)
    assert "QEMU refused" in error_of(["--measure", "--qmp", "socket"], capsys, 1)
