"""Is every run found, once, and everything else named?"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gpusim.results.sweeps.runs import find_runs
from tests.results.sweep_folders import write, write_failed


def names(folder: Path, *more: Path) -> list[str]:
    return [run.name for run in find_runs([folder, *more]).runs]


def reasons(folder: Path) -> dict[str, str]:
    return dict(find_runs([folder]).passed_over)


def test_runs_are_found_at_any_depth_in_natural_order(tmp_path: Path) -> None:
    for name in ("seed=10", "seed=9", "deep/er/seed=2"):
        write(tmp_path / name, {})
    write_failed(tmp_path / "failed")
    assert names(tmp_path) == ["deep/er/seed=2", "failed", "seed=9", "seed=10"]
    assert reasons(tmp_path) == {}


def test_a_run_itself_is_one_run(tmp_path: Path) -> None:
    assert names(write(tmp_path / "seed=1", {})) == ["seed=1"]


def test_overlapping_folders_give_each_run_once(tmp_path: Path) -> None:
    write(tmp_path / "a" / "seed=1", {})
    write(tmp_path / "b" / "seed=1", {})
    assert names(tmp_path / "a", tmp_path / "b") == ["a/seed=1", "b/seed=1"]
    assert names(tmp_path, tmp_path / "a", tmp_path / "a" / ".." / "a") == ["a/seed=1", "b/seed=1"]


def test_an_evacuation_is_one_run_and_its_guests_are_none(tmp_path: Path) -> None:
    guests = {"evacuation": {"guests": 2}}
    write(tmp_path / "evacuation", {}, kind="evacuation", downtime_ms=None, **guests)
    write(tmp_path / "evacuation" / "guests" / "db", {})
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "config.json").write_text("{}")
    write(tmp_path / "begun" / "guests" / "db", {})
    assert names(tmp_path) == ["evacuation"]
    assert reasons(tmp_path) == {"begun": "unfinished: there is no summary.json yet"}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "cannot be read"),
        ("[]", "has no status"),
        ('{"status": "ok"}', "total_time_s = None is no number"),
        ('{"status": "great", "total_time_s": 1}', "not a summary of gpusim"),
        ('{"status": "ok", "verdict": "maybe", "total_time_s": 1}', "not a summary of gpusim"),
        ('{"status": "ok", "verdict": "converged", "total_time_s": "1"}', "damaged"),
        ('{"status": "ok", "verdict": "converged", "total_time_s": NaN}', "damaged"),
        ('{"status": "ok", "total_time_s": 1, "vm_bytes": 1' + "0" * 400 + "}", "damaged"),
    ],
)
def test_a_foreign_or_damaged_summary_is_named(text: str, reason: str, tmp_path: Path) -> None:
    write(tmp_path / "good", {})
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "summary.json").write_text(text)
    assert names(tmp_path) == ["good"]
    assert reason in reasons(tmp_path)["bad"]
    assert str(tmp_path) not in reasons(tmp_path)["bad"]


@pytest.mark.parametrize("text", ["{", "[]", "[" * 100_000])
def test_a_damaged_config_is_named_and_the_run_stays(text: str, tmp_path: Path) -> None:
    (write(tmp_path / "run") / "config.json").write_text(text)
    (run,) = find_runs([tmp_path]).runs
    assert run.config == {}
    assert list(reasons(tmp_path)) == ["run/config.json"]


def test_folders_without_runs_are_named_at_their_top(tmp_path: Path) -> None:
    write(tmp_path / "sweep" / "seed=1", {})
    (tmp_path / "notes" / "of" / "mine").mkdir(parents=True)
    (tmp_path / "sweep" / "seed=1" / ".hydra").mkdir()
    (tmp_path / "sweep" / "seed=1" / "attachments").mkdir()
    (tmp_path / "sweep" / "seed=2" / ".hydra").mkdir(parents=True)
    assert reasons(tmp_path) == {
        "notes": "holds no run of gpusim",
        "sweep/seed=2": "unfinished: there is no summary.json yet",
    }


def test_a_link_to_a_folder_is_named_and_not_followed(tmp_path: Path) -> None:
    write(tmp_path / "seed=1", {})
    (tmp_path / "latest").symlink_to(tmp_path)
    assert names(tmp_path) == ["seed=1"]
    assert "not followed" in reasons(tmp_path)["latest"]


def test_what_the_sweep_says_is_read(tmp_path: Path) -> None:
    write(tmp_path / "seed=1", {})
    sweep = {"question": "Why?", "command": "gpusim -m", "x": None}
    (tmp_path / "sweep.json").write_text(json.dumps(sweep))
    assert find_runs([tmp_path]).sweeps == [sweep]


def test_the_config_is_dotted_with_lists_as_text(tmp_path: Path) -> None:
    write(tmp_path / "run", {"vm.blocks": ["1GiB", "2GiB"], "vm.vcpus": 4})
    (run,) = find_runs([tmp_path]).runs
    assert run.config["vm.vcpus"] == 4
    assert run.config["vm.blocks"] == '["1GiB", "2GiB"]'
