"""Does gpusim-predict end in a line, and keep its files and its output whole, whatever it is told?"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gpusim.cli import predict as cli
from gpusim.monitor.qmp import LiveError
from gpusim.predict import ensemble
from gpusim.predict.prediction import Member
from tests.formats.profiles import exact_profile, uniform_pages

MIB = 2**20
ANSWER = ("--members", "2", "--no-advice")


@pytest.fixture
def vm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A small VM's profile, in a folder of its own that is the current one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        ensemble, "map_in_order", lambda function, configs, *_: map(function, configs)
    )
    found = exact_profile(uniform_pages(2000, 500), 64 * MIB).document()
    Path("vm.json").write_text(json.dumps(found))
    yield "vm.json"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "PROFILE = none: name one profile"),
        (["link=25gbit"], "PROFILE = none"),
        (["vm.json", "--measure", "--qmp", "s"], "PROFILE = vm.json, --measure"),
        (["none.json"], "none.json: cannot be read"),
        (["."], "cannot be read (Is a directory)"),
        (["--measure"], "--qmp"),
        (["vm.json", "--quick"], "goes with --measure"),
        (["vm.json", "link=nosuch"], "nosuch"),
        (["vm.json", "link.bandwidth=fast"], "link.bandwidth = fast"),
        (["vm.json", "link.bandwidth=1Gbit/s,2Gbit/s"], "weep"),
        (["vm.json", "no.such=1"], "no"),
        (["vm.json", "nonsense"], "nonsense"),
        (["vm.json", "migration.version=qemu_1_0"], "qemu_1_0"),
        (["vm.json", "migration=qemu_2_6", "migration.max_cpu_throttle=50"], "max_cpu_throttle"),
        (["vm.json", "vm.memory=1GiB"], "the profile says it"),
        (["vm.json", "other.json"], "PROFILE = vm.json, other.json: name one"),
        (["vm.json", "--deadline", "5min"], "goes with --goal"),
        (["vm.json", "--memory", "1GiB"], "goes with --domstats"),
        (["--domstats", "vm.json", "--memory", "lots"], "--memory = lots"),
        (["vm.json", "migration.downtime_limit=-3"], "migration.downtime_limit = -3"),
        (["vm.json", "hydra/launcher=joblib"], "is not predicted"),
        (["vm.json", "--seed", "-1"], "--seed = -1"),
        (["vm.json", "--members", "1"], "--members = 1"),
        (["vm.json", "--goal", "fastest", "--deadline", "soon"], "--deadline = soon"),
        (["vm.json", "--json", "no/such/file"], "--json = no/such/file: cannot be written"),
        (["vm.json", "--report", "vm.json"], "vm.json: cannot be written; expected a folder"),
        (["--measure", "--qmp", "s", "--save", "vm.json"], "is there already"),
        (["--measure", "--qmp", "s", "link=nosuch"], "nosuch"),
    ],
)
def test_bad_input_is_a_line(
    words: list[str], said: str, vm: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(words) == 2
    shown = capsys.readouterr()
    assert shown.err.startswith("error: ") and shown.err.count("\n") == 1
    assert said in shown.err
    assert (shown.out, os.listdir()) == ("", [vm])


def test_json_is_all_there_is_on_standard_output(
    vm: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    assert cli.main([vm, *ANSWER, "--json", "-", "--report", "out"]) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out)["converges"]
    assert "report.html" in shown.err
    assert json.loads(Path("out/prediction.json").read_text()) == json.loads(shown.out)


def test_a_file_that_cannot_be_written_after_all_is_a_line(
    vm: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", "answer.json")

    monkeypatch.setattr("gpusim.files.write_text", full)
    assert cli.main([vm, *ANSWER, "--json", "answer.json"]) == 1
    assert "No space left on device: 'answer.json'\n" in capsys.readouterr().err
    assert os.listdir() == [vm]


def test_a_signal_while_it_simulates_is_a_line(
    vm: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(found: Iterator[Member], count: int) -> Iterator[Member]:
        yield next(found)
        os.kill(os.getpid(), signal.SIGTERM)  # SIGINT is ignored behind a shell's &
        yield from found

    monkeypatch.setattr(cli, "_barred", interrupted)
    assert cli.main([vm, *ANSWER, "--json", "answer.json"]) == 143
    shown = capsys.readouterr()
    assert shown.err == "\nerror: SIGTERM: stopped; what was not whole was not written\n"
    assert (shown.out, os.listdir()) == ("", [vm])


def test_it_answers(vm: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([vm, *ANSWER]) == 0
    text = capsys.readouterr().out
    assert "All 2 simulated migrations converge." in " ".join(text.split())
    assert "Total time" in text


def test_overrides_and_options_in_any_order(vm: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["link.bandwidth=1Gbit/s", "--members", "2", vm, "--no-advice"]) == 0
    first = capsys.readouterr().out
    assert cli.main([vm, "--members", "2", "link.bandwidth=1Gbit/s", "--no-advice"]) == 0
    assert capsys.readouterr().out == first


def test_files_are_written_where_asked(vm: str, tmp_path: Path) -> None:
    assert cli.main([vm, *ANSWER, "--json", "a.json", "--experiment", "mine.yaml"]) == 0
    assert json.loads((tmp_path / "a.json").read_text())["probability"] == 1
    assert "# @package _global_" in (tmp_path / "mine.yaml").read_text()


def test_what_fails_while_measuring_leaves_no_file(
    vm: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(options: Any) -> Any:
        raise LiveError("calc-dirty-rate: QEMU refused: busy")

    monkeypatch.setattr(cli, "_measured", fails)
    assert cli.main(["--measure", "--qmp", "socket"]) == 1
    assert "QEMU refused" in capsys.readouterr().err
    assert os.listdir() == [vm]


def test_a_monitor_that_is_not_there(vm: str, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("qemu.qmp")
    assert cli.main(["--measure", "--qmp", "socket"]) == 1
    assert "no such socket" in capsys.readouterr().err
