"""Does `gpusim-collect A B --diff` find every difference, and nothing else?"""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from gpusim.cli.collect import main
from gpusim.results import write_run
from gpusim.results.errors import RunsError
from gpusim.results.sweeps.diff import write_diff
from tests.results.conftest import MakeResult
from tests.results.sweep_folders import write, write_failed


def rows(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file))[1:]


def test_two_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = write(tmp_path / "a", {"vm.vcpus": 8}, total_time_s=200.0, reason="a" * 60)
    b = write(tmp_path / "b", {"vm.vcpus": 16}, total_time_s=150.0, reason="b" * 60)
    assert main([str(a), str(b), "--diff", "--out", str(tmp_path / "new")]) == 0
    found = rows(tmp_path / "new" / "diff.csv")
    assert [row[1:5] for row in found] == [
        ["config", "vm.vcpus", "8", "16"],
        ["result", "reason", "a" * 60, "b" * 60],
        ["result", "total_time_s", "200.0", "150.0"],
    ]
    assert [float(cell) for cell in found[2][5:]] == [-50.0, -25.0]
    out = capsys.readouterr().out
    assert f"  A  {'a' * 60}\n  B  {'b' * 60}\n" in out
    assert "no picture: " in out  # These runs have no timeline.
    (line,) = [line for line in out.splitlines() if line.startswith("total_time_s")]
    assert line.split() == ["total_time_s", "200", "150", "-50", "-25.00"]


def test_two_timelines_are_one_picture_in_the_current_folder(
    tmp_path: Path, make_result: MakeResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, rate in (("a", 1e8), ("b", 2e8)):
        write_run(make_result(link_rate=rate), tmp_path / name / "seed=1", plot=False)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert main(["../a/seed=1", "../b/seed=1", "--diff"]) == 0
    assert {path.name for path in Path().iterdir()} == {"diff.csv", "diff.png"}
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b", "here"}


def test_the_same_run_has_no_difference(tmp_path: Path) -> None:
    a = write(tmp_path / "a", {})
    assert main([str(a), str(a), "--diff", "--out", str(tmp_path)]) == 0
    assert rows(tmp_path / "diff.csv") == []


def test_two_sweeps_are_compared_by_the_names_of_their_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for sweep, changed_s in (("a", 100.0), ("b", 125.0)):
        write(tmp_path / sweep / "same", {"seed": 1}, wall_time_s=changed_s)
        write(tmp_path / sweep / "slower", {"seed": 2}, total_time_s=changed_s)
    write(tmp_path / "a" / "breaks", {"seed": 3})
    write_failed(tmp_path / "b" / "breaks", {"seed": 3})
    write(tmp_path / "a" / "gone", {})
    write(tmp_path / "b" / "new", {})
    folders = [str(tmp_path / name) for name in ("a", "b")]
    assert main([*folders, "--diff", "--out", str(tmp_path / "out")]) == 0
    out = capsys.readouterr().out
    table = {line.split()[0]: line.split()[1:] for line in out.splitlines() if line[:1].islower()}
    assert table["slower"][:7] == ["converged", "100.00", "s", "125.00", "s", "+25.00", "0.00"]
    assert table["breaks"][:3] == ["converged", "->", "failed"]
    found = rows(tmp_path / "out" / "diff.csv")
    assert ["slower", "result", "total_time_s", "100.0", "125.0", "25.0", "25.0"] in found
    assert {row[0] for row in found} == {"slower", "breaks"}


def test_a_run_against_a_sweep_is_an_error(tmp_path: Path) -> None:
    run = write(tmp_path / "sweep" / "run", {})
    with pytest.raises(RunsError) as error:
        write_diff(run, tmp_path / "sweep", tmp_path)
    assert error.value.code == "run_and_sweep"


def test_sweeps_without_a_common_name_are_an_error(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(tmp_path / name / name, {})
    with pytest.raises(RunsError) as error:
        write_diff(tmp_path / "a", tmp_path / "b", tmp_path)
    assert error.value.code == "no_common_run"


def test_a_damaged_run_is_an_error(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(tmp_path / name, {})
    (tmp_path / "b" / "summary.json").write_text("{")
    with pytest.raises(RunsError) as error:
        write_diff(tmp_path / "a", tmp_path / "b", tmp_path)
    assert error.value.code == "no_finished_run_skipped"
    assert f"{tmp_path / 'b'} (" in str(error.value)


def test_a_sweep_with_another_option_is_paired_by_the_varying_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for memory in ("1TiB", "4TiB"):
        write(tmp_path / f"a/memory={memory}", {"vm.memory": memory, "plot": True})
        link = {"vm.memory": memory, "link.bandwidth": "25Gbit/s", "plot": False}
        write(tmp_path / f"b/25gbit,memory={memory}", link, total_time_s=20.0)
    assert main(["a", "b", "--diff"]) == 0
    assert {row[0] for row in rows(Path("diff.csv"))} == {"memory=1TiB", "memory=4TiB"}


def test_a_key_that_changes_no_result_is_no_difference_of_sweeps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, plot in (("a", True), ("b", False)):
        for seed in (1, 2):
            write(tmp_path / f"{name}/seed={seed}", {"seed": seed, "plot": plot})
    assert main(["a", "b", "--diff"]) == 0
    assert rows(Path("diff.csv")) == []
