"""Does gpusim-validate print, write and refuse what it promises?"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gpusim.cli import record
from gpusim.cli.validate import main
from gpusim.reading import read_bytes
from gpusim.validation import profile_accuracy
from gpusim.validation.accuracy import error_percent
from gpusim.validation.errors import ValidationError
from gpusim.validation.shipped import SHIPPED
from tests.golden import check_golden

QUANTITIES = [
    "total_time_s",
    "dirty_sync_count",
    "syncs_made",
    "max_throttle_percent",
    "first_throttle_s",
    "transferred_bytes",
    "converged",
    "downtime_ms",
]
SHORT = ("converges.qemu10.a", "converges.qemu7.a")


def shipped(case: str) -> str:
    return str(SHIPPED / f"{case}.json.xz")


def test_rows_and_summary_of_two_short_recordings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "validation.json"
    assert main([*map(shipped, SHORT), "--json", str(out), "--seeds", "2"]) == 0
    found = json.loads(out.read_text())
    assert set(found) == {"rows", "summary"}
    assert [(row["case"], row["mode"], row["quantity"]) for row in found["rows"]] == [
        (case, mode, quantity)
        for case in SHORT
        for mode in ("replay", "predict")
        for quantity in QUANTITIES
    ]
    for row in found["rows"]:
        assert set(row) == {"case", "mode", "quantity", "measured", "simulated", "error_percent"}
        if row["quantity"] == "converged":
            assert isinstance(row["measured"], bool)
            assert isinstance(row["simulated"], bool)
            assert row["error_percent"] is None
        if row["quantity"] == "first_throttle_s":  # neither QEMU throttled
            assert row["measured"] is None
            assert row["error_percent"] is None
    assert found["summary"]["replay"]["cpu_bound"]["completed"] == 2
    assert [band["seeds"] for band in found["summary"]["predict"]["ensembles"]] == [2, 2]
    printed = capsys.readouterr().out
    assert "converges.qemu7.a" in printed
    assert "median |total time error|" in printed
    assert list(tmp_path.iterdir()) == [out]


def test_one_mode_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([shipped("converges.qemu10.a"), "--mode", "replay"]) == 0
    printed = capsys.readouterr().out
    assert "replay" in printed
    assert "predict" not in printed


BAD = (b"", b"{}", b"not a recording", b'{"scenario": 1}')


def test_bad_files_are_named_at_their_place_and_hide_no_result(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, out = shipped("converges.qemu10.a"), tmp_path / "out.json"
    bad = [tmp_path / f"bad{number}.json" for number in range(len(BAD))]
    for path, content in zip(bad, BAD, strict=True):
        path.write_bytes(content)
    paths = [str(bad[0]), good, *map(str, bad[1:]), str(tmp_path / "none.json")]
    assert main([*paths, "--mode", "replay", "--json", str(out)]) == 1
    found = json.loads(out.read_text())
    assert {row["case"] for row in found["rows"]} == {"converges.qemu10.a"}
    codes = [row["code"] for row in found["not_used"]]
    assert codes == ["unreadable", "missing", "unreadable", "bad_value", "no_such_path"]
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    table = lines[: lines.index("")]
    places = [n for n, line in enumerate(table) if "  not used: " in line]
    assert places == [1, *range(len(table) - 4, len(table))]
    assert [line.split()[0] for line in lines[-5:]] == [
        "bad0.json:",
        *(f"{path.name}:" for path in bad[1:]),
        f"{tmp_path / 'none.json'}:",
    ]


def test_a_recording_that_cannot_be_simulated_hides_no_result(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = json.loads(read_bytes(SHIPPED / "converges.qemu10.a.json.xz"))
    document["parameters"]["max-bandwidth"] = 1  # slower than gpusim simulates
    (tmp_path / "slow.json").write_text(json.dumps(document))
    paths = [str(tmp_path), shipped("converges.qemu10.a")]
    assert main([*paths, "--mode", "replay", "--json", str(tmp_path / "out")]) == 1
    found = json.loads((tmp_path / "out").read_text())
    assert [row["code"] for row in found["not_used"]] == ["cannot_simulate"]
    assert len(found["rows"]) == len(QUANTITIES)


@pytest.mark.slow
def test_profiles_of_a_list_hide_no_result(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    predicted = profile_accuracy.predict_each
    monkeypatch.setattr(profile_accuracy, "predict_each", lambda paths: predicted(paths, members=2))
    (tmp_path / "bad.json").write_text("{}")
    with_profile = sorted(profile_accuracy.PROFILED.glob("*.xz"))[0]
    paths = [str(tmp_path), shipped("converges.qemu10.a"), str(with_profile)]
    out = tmp_path / "out"
    assert main(["profiles", *paths, "--json", str(out)]) == 1
    found = json.loads(out.read_text())
    assert [row["code"] for row in found["not_used"]] == ["missing", "no_profile"]
    assert len(found["rows"]) == 1
    assert main(["profiles", str(tmp_path / "bad.json")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_missing_paths_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 2
    assert main([str(tmp_path / "nothing.json")]) == 2
    assert main([shipped("converges.qemu10.a"), "--json", str(tmp_path / "no" / "x.json")]) == 2
    assert capsys.readouterr().err.count("\n") == 3


def test_two_recordings_of_one_name_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    original = SHIPPED / "converges.qemu10.a.json.xz"
    (tmp_path / original.name).write_bytes(original.read_bytes())
    out = tmp_path / "out"
    assert main([str(original), str(tmp_path), "--mode", "replay", "--json", str(out)]) == 1
    found = json.loads(out.read_text())
    assert [row["code"] for row in found["not_used"]] == ["repeated_name"]
    assert len(found["rows"]) == len(QUANTITIES)


@pytest.mark.parametrize(
    ("measured", "simulated", "error"),
    [
        (20, 30, 50.0),
        (10.0, 9.0, -10.0),
        (0, 0, 0.0),
        (0, 20, None),
        (None, 3.0, None),
        (3.0, None, None),
        (True, False, None),
    ],
)
def test_error_percent(
    measured: float | None, simulated: float | None, error: float | None
) -> None:
    assert error_percent(measured, simulated) == (error if error is None else pytest.approx(error))


def test_a_cost_of_first_writes_takes_two_scenarios(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([shipped("converges.qemu10.a"), "--first-write"]) == 2
    error = ValidationError("too_few_scenarios", scenarios=1)
    assert capsys.readouterr().err == f"error: {error}\n"


@pytest.mark.parametrize("command", ["gpusim-validate", "gpusim-record"])
def test_help_is_the_golden_text(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    run = {"gpusim-validate": main, "gpusim-record": record.main}[command]
    assert run(["--help"]) == 0
    check_golden(f"{command}-help", capsys.readouterr().out)


@pytest.mark.parametrize("command", ["profiles", "published"])
def test_each_command_has_its_own_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    assert capsys.readouterr().out.startswith(f"usage: gpusim-validate {command} ")


def test_a_mistyped_sub_command_has_a_suggestion(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["publishd"]) == 2
    assert "published?" in capsys.readouterr().err
