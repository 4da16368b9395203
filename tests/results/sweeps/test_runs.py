"""Does the search find every run once, and report everything else?"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gpusim.results.sweeps.runs import find_runs
from gpusim.results.sweeps.sentences import describe_skipped
from tests.results.sweep_folders import write, write_failed


def names(folder: Path, *more: Path) -> list[str]:
    return [run.name for run in find_runs([folder, *more]).runs]


def skipped(folder: Path) -> dict[str, str]:
    """Return name -> code of what the search skipped. Every reason has a text."""
    found = find_runs([folder]).skipped
    assert all(describe_skipped(one.reason) for one in found)
    return {one.name: one.reason.code for one in found}


def test_runs_are_found_at_any_depth_in_natural_order(tmp_path: Path) -> None:
    for name in ("seed=10", "seed=9", "deep/er/seed=2"):
        write(tmp_path / name, {})
    write_failed(tmp_path / "failed")
    assert names(tmp_path) == ["deep/er/seed=2", "failed", "seed=9", "seed=10"]
    assert skipped(tmp_path) == {}


def test_sizes_rates_and_times_are_in_the_order_of_their_amount(tmp_path: Path) -> None:
    order = (
        *("memory=512MiB", "memory=1GiB", "memory=1.5GiB", "memory=10GB", "memory=1TiB"),
        *("simulated=300ms", "simulated=5s", "simulated=2min", "simulated=1h"),
        *("vm=tiny_256mib", "vm=tiny_16gib", "vm=tiny_1tib", "x=1Gbitps", "x=1GBps", "x=10Gbitps"),
    )
    for name in sorted(order):
        write(tmp_path / name, {})
    assert tuple(names(tmp_path)) == order


def test_a_run_itself_is_one_run(tmp_path: Path) -> None:
    assert names(write(tmp_path / "seed=1", {})) == ["seed=1"]


def test_overlapping_folders_give_each_run_once(tmp_path: Path) -> None:
    write(tmp_path / "a" / "seed=1", {})
    write(tmp_path / "b" / "seed=1", {})
    assert names(tmp_path / "a", tmp_path / "b") == ["a/seed=1", "b/seed=1"]
    assert names(tmp_path, tmp_path / "a", tmp_path / "a" / ".." / "a") == ["a/seed=1", "b/seed=1"]


def test_an_evacuation_is_one_run(tmp_path: Path) -> None:
    guests = {"evacuation": {"guests": 2}}
    write(tmp_path / "evacuation", {}, kind="evacuation", downtime_ms=None, **guests)
    write(tmp_path / "evacuation" / "guests" / "db", {})
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "config.json").write_text("{}")
    write(tmp_path / "begun" / "guests" / "db", {})
    assert names(tmp_path) == ["evacuation"]
    assert skipped(tmp_path) == {"begun": "unfinished"}


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("{", "unreadable"),
        ("[]", "not_an_object"),
        ("{}", "foreign_summary"),
        ('{"status": "ok"}', "damaged"),
        ('{"status": "great", "total_time_s": 1}', "foreign_summary"),
        ('{"status": "ok", "verdict": "maybe", "total_time_s": 1}', "foreign_summary"),
        ('{"status": "ok", "verdict": "converged", "total_time_s": "1"}', "damaged"),
        ('{"status": "ok", "verdict": "converged", "total_time_s": NaN}', "unreadable"),
        ('{"status": "ok", "total_time_s": 1, "vm_bytes": 1' + "0" * 400 + "}", "unreadable"),
    ],
)
def test_a_foreign_or_damaged_is_skipped(text: str, code: str, tmp_path: Path) -> None:
    write(tmp_path / "good", {})
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "summary.json").write_text(text)
    assert names(tmp_path) == ["good"]
    assert skipped(tmp_path) == {"bad/summary.json": code}


@pytest.mark.parametrize("text", ["{", "[]", "[" * 100_000])
def test_a_damaged_config_is_reported_and_the_run_stays(text: str, tmp_path: Path) -> None:
    (write(tmp_path / "run") / "config.json").write_text(text)
    (run,) = find_runs([tmp_path]).runs
    assert run.config == {}
    assert list(skipped(tmp_path)) == ["run/config.json"]


def test_the_topmost_folder_without_runs_is_reported(tmp_path: Path) -> None:
    write(tmp_path / "sweep" / "seed=1", {})
    (tmp_path / "notes" / "of" / "mine").mkdir(parents=True)
    (tmp_path / "sweep" / "seed=1" / ".hydra").mkdir()
    (tmp_path / "sweep" / "seed=1" / "attachments").mkdir()
    (tmp_path / "sweep" / "seed=2" / ".hydra").mkdir(parents=True)
    assert skipped(tmp_path) == {
        "notes": "no_run",
        "sweep/seed=2": "unfinished",
    }


def test_a_link_to_a_folder_is_reported_and_not_followed(tmp_path: Path) -> None:
    write(tmp_path / "seed=1", {})
    (tmp_path / "latest").symlink_to(tmp_path)
    assert names(tmp_path) == ["seed=1"]
    assert skipped(tmp_path) == {"latest": "link"}


def test_sweep_json_is_read(tmp_path: Path) -> None:
    write(tmp_path / "seed=1", {})
    sweep = {"question": "Why?", "command": "gpusim -m", "x": None}
    (tmp_path / "sweep.json").write_text(json.dumps(sweep))
    assert find_runs([tmp_path]).sweeps == [sweep]


def test_the_config_is_dotted_with_lists_as_text(tmp_path: Path) -> None:
    write(tmp_path / "run", {"vm.blocks": ["1GiB", "2GiB"], "vm.vcpus": 4})
    (run,) = find_runs([tmp_path]).runs
    assert run.config["vm.vcpus"] == 4
    assert run.config["vm.blocks"] == '["1GiB", "2GiB"]'
