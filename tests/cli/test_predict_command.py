"""Does gpusim-predict turn every error into one line, and keep its files and output whole?"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gpusim.cli import predict as cli
from gpusim.command import Interrupted
from gpusim.monitor.errors import LiveError
from gpusim.predict import ensemble
from gpusim.predict.prediction import Member
from gpusim.predict.prediction_text import ANSWERS
from tests.formats.profiles import exact_profile, uniform_pages
from tests.golden import check_golden

MIB = 2**20
ANSWER = ("--members", "2", "--no-advice")


@pytest.fixture
def vm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Write the profile of a small VM into an empty current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        ensemble, "map_in_order", lambda function, configs, *_: map(function, configs)
    )
    found = exact_profile(uniform_pages(2000, 500), 64 * MIB).document()
    Path("vm.json").write_text(json.dumps(found))
    yield "vm.json"


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        ([], "PROFILE = none: "),
        (["link=25gbit"], "PROFILE = none: "),
        (["vm.json", "--measure", "--qmp", "s"], "PROFILE = vm.json, --measure: "),
        (["none.json"], "none.json: "),
        (["."], ".: cannot be read (not a regular file but a folder"),
        (["--measure"], "--qmp = none: "),
        (["vm.json", "--quick"], "--quick = given: "),
        (["vm.json", "link=nosuch"], ""),  # Hydra's own text
        (["vm.json", "link.bandwidth=fast"], "link.bandwidth = fast: "),
        (["vm.json", "link.bandwidth=1Gbit/s,2Gbit/s"], ""),
        (["vm.json", "no.such=1"], ""),
        (["vm.json", "nonsense"], "PROFILE = vm.json, nonsense: "),
        (["vm.json", "migration.version=qemu_1_0"], "migration.version = qemu_1_0: "),
        (
            ["vm.json", "migration=qemu_2_6", "migration.max_cpu_throttle=50"],
            "migration.max_cpu_throttle = 50: ",
        ),
        (["vm.json", "vm.memory=1GiB"], "vm.memory = 1GiB: "),
        (["vm.json", "other.json"], "PROFILE = vm.json, other.json: "),
        (
            ["vm.json", "--deadline", "30", "min"],
            "PROFILE = vm.json, min: name one profile. Write a limit without",
        ),
        (["vm.json", "--max-loss", "-1%"], "argument --max-loss: "),
        (["vm.json", "--max-loss", "101"], "argument --max-loss: 101: "),
        (["vm.json", "--max-stall", "0"], "argument --max-stall: 0: "),
        (["vm.json", "--max-downtime", "300"], "argument --max-downtime: 300: must be a time with"),
        (["vm.json", "--max-stall", "0.2"], "argument --max-stall: 0.2: must be a time with its"),
        (["vm.json", "--deadlne", "3min"], "unrecognized arguments: --deadlne 3min (did you mean "),
        (["vm.json", "--memory", "1GiB"], "--memory = given: "),
        (["--domstats", "vm.json", "--memory", "lots"], "argument --memory: lots: "),
        (["vm.json", "migration.downtime_limit=-3"], "migration.downtime_limit = -3: "),
        (["vm.json", "hydra/launcher=joblib"], "hydra/launcher = joblib: "),
        (["vm.json", "--seed", "-1"], "argument --seed: -1: "),
        (["vm.json", "--members", "1"], "argument --members: 1: "),
        (["vm.json", "--goal", "fastest", "--deadline", "soon"], "argument --deadline: soon: "),
        (
            ["vm.json", "policy=cloud_hypervisor_upstream", "--goal", "fastest"],
            "--goal = fastest: ",
        ),
        (["vm.json", "--json", "no/such/file"], "--json = no/such/file: "),
        (["vm.json", "--report", "vm.json"], "vm.json: cannot be written"),
        (["--measure", "--qmp", "s", "--save", "vm.json"], "--save = vm.json: "),
        (["--measure", "--qmp", "s", "link=nosuch"], ""),
    ],
)
def test_wrong_input_is_one_line_that_names_it(
    arguments: list[str], key: str, vm: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(arguments) == 2
    shown = capsys.readouterr()
    assert shown.err.startswith(f"error: {key}") and shown.err.count("\n") == 1
    assert (shown.out, os.listdir()) == ("", [vm])


def test_the_help(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    assert cli.main(["--help"]) == 0
    check_golden("predict_help", capsys.readouterr().out)


def test_a_goal_is_for_all_simulated_migrations(
    vm: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The search gets each simulated migration with its outcome."""
    pytest.importorskip("optuna")
    given: dict[str, Any] = {}

    def search(*_: object, **options: Any) -> None:
        given.update(options)

    monkeypatch.setattr("gpusim.explore.goal_search.search_goal", search)
    assert cli.main([vm, *ANSWER, "--goal", "fastest"]) == 0
    configs, outcomes = zip(*given["members"], strict=True)
    assert len({config.seed for config in configs}) == len(outcomes) == 2
    assert {one.verdict for one in outcomes} == {"converged"}


def test_only_json_is_on_standard_output(vm: str, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    assert cli.main([vm, *ANSWER, "--json", "-", "--report", "out"]) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out)["converges"]
    assert "report.html" in shown.err
    assert json.loads(Path("out/prediction.json").read_text()) == json.loads(shown.out)


def test_a_full_disk_is_one_line(
    vm: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", "answer.json")

    monkeypatch.setattr("gpusim.files.write_text", full)
    assert cli.main([vm, *ANSWER, "--json", "answer.json"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: answer.json: No space left on device")
    assert os.listdir() == [vm]


def test_a_signal_is_one_line(
    vm: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(members: Iterator[Member], count: int) -> Iterator[Member]:
        yield next(members)
        raise Interrupted(signal.SIGTERM)

    monkeypatch.setattr(cli, "_with_progress_bar", interrupted)
    assert cli.main([vm, *ANSWER, "--json", "answer.json"]) == 143
    shown = capsys.readouterr()
    assert shown.err == "error: interrupted by SIGTERM\n"
    assert (shown.out, os.listdir()) == ("", [vm])


def test_it_answers(vm: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([vm, *ANSWER]) == 0
    text = capsys.readouterr().out
    assert ANSWERS["converges"] in text and "Total time" in text


def test_overrides_and_options_in_any_order(vm: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["link.bandwidth=1Gbit/s", "--members", "2", vm, "--no-advice"]) == 0
    first = capsys.readouterr().out
    assert cli.main([vm, "--members", "2", "link.bandwidth=1Gbit/s", "--no-advice"]) == 0
    assert capsys.readouterr().out == first


def test_files_are_written_to_the_given_paths(vm: str, tmp_path: Path) -> None:
    assert cli.main([vm, *ANSWER, "--json", "a.json", "--experiment", "mine.yaml"]) == 0
    assert json.loads((tmp_path / "a.json").read_text())["probability"] == 1
    assert "# @package _global_" in (tmp_path / "mine.yaml").read_text()


def test_a_failed_measurement_leaves_no_file(
    vm: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(options: Any) -> Any:
        raise LiveError("refused", command="calc-dirty-rate", reason="busy")

    monkeypatch.setattr(cli, "_measured", fails)
    assert cli.main(["--measure", "--qmp", "socket"]) == 1
    assert "QEMU refused" in capsys.readouterr().err
    assert os.listdir() == [vm]


def test_a_missing_monitor(vm: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--measure", "--qmp", "socket"]) == 1
    assert "no such socket" in capsys.readouterr().err
