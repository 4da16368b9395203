"""The tables of docs/validation/ and README.md are what the command computes today."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import pytest

from gpusim.formats.recording import Recording
from gpusim.formats.recording_file import find_recordings
from gpusim.published.accuracy import is_close
from gpusim.validation.profile_accuracy import (
    PROFILED,
    PROFILED_KVM,
    predict_recordings,
    profile_figures,
)
from gpusim.validation.shipped import SHIPPED, load_recordings
from studies import stripped, validation
from studies.tables import places, with_tables
from studies.validation import TABLES, _changed, main, outcomes
from tests.cli.command import REPOSITORY

OWN_STUDY = ("post-copy.md",)  # tests/studies/test_postcopy.py has it
PAGES = [p for p in REPOSITORY.glob("docs/validation/*.md") if p.name not in OWN_STUDY]
DOCUMENTS = [*sorted(PAGES), REPOSITORY / "README.md"]
# Predictions from a profile hang on the last bit of a fit, and so on the versions of numpy and scipy: they are
# held to what is claimed of them.
FROM_PROFILES = (
    "profiles", "profiles_figures", "profiles_headline", "profiles_kvm", "profiles_kvm_figures",
    "coverage", "estimates",
)  # fmt: skip
EXACT = [name for name in TABLES if name not in FROM_PROFILES]
# Each row is a run of its own, or the runs of one scenario, so a sample is checked.
BY_ROW = (
    "replay", "recorder", "short", "unknown_guests", "repeats",
    "the_10tb_case", "steps_of_the_10tb_case",
)  # fmt: skip
WHOLE = ("published", "published_headline", "first_write")
EVERY, SCENARIO = 6, "uniform_mid.qemu10."  # which recordings are in the sample
CHECK = ["--check", "--documents", *map(str, DOCUMENTS)]
STEPS = {"STEPS": 500, "BURST_STEPS": 30}  # of a walk, half of them
MEMBERS = 8  # of a prediction, which has four times as many by default


def test_every_table_has_a_place_and_every_place_a_table() -> None:
    found = [name for path in DOCUMENTS for name in places(path.read_text())]
    assert sorted(found) == sorted(TABLES)


def text_of(name: str) -> str:
    """Return the document that has a table."""
    (text,) = (t for path in DOCUMENTS if name in places(t := path.read_text()))
    return text


def test_a_table_is_what_is_computed() -> None:
    """A line that has changed is printed by the failing assertion, ready to be pasted."""
    text = text_of("awake")
    new = with_tables(text, {"awake": TABLES["awake"]()})
    changed = [line for line in new.splitlines() if line not in text.splitlines()]
    assert new == text, "\n".join(changed)


def sample(paths: Sequence[Path]) -> list[Recording]:
    """Return some recordings, with each kind of guest and the repeats of one scenario."""
    found = load_recordings(paths)
    kinds = {one.guest.kind: place for place, one in reversed([*enumerate(found)]) if one.guest}
    return [
        one
        for place, one in enumerate(found)
        if place % EVERY == 0 or place in kinds.values() or one.case.startswith(SCENARIO)
    ]


@pytest.mark.slow
def test_a_sample_of_rows_is_what_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    cases = validation.CASES_OF_10TB
    monkeypatch.setattr(validation, "load_recordings", sample)
    monkeypatch.setattr(validation, "CASES_OF_10TB", (cases[0], cases[-1]))
    paths = find_recordings(SHIPPED)[::EVERY]
    monkeypatch.setattr(validation, "without_a_counter", cache(lambda: stripped.replayed(paths)))
    for name in ("recorded", "the_10tb_case"):
        monkeypatch.setattr(validation, name, cache(getattr(validation, name).__wrapped__))
    for name in BY_ROW:
        rows = TABLES[name]()
        assert len(rows) > 2, name
        assert set(rows) <= set(text_of(name).splitlines()), name


@pytest.mark.slow
@pytest.mark.skipif(
    not os.environ.get("GPUSIM_ALL_TABLES"),
    reason="GPUSIM_ALL_TABLES=1 computes every table, which takes minutes",
)
def test_all_tables_are_what_is_computed(capsys: pytest.CaptureFixture[str]) -> None:
    """Check all at once, because they share runs."""
    assert main([*EXACT, *CHECK]) == 0, capsys.readouterr().out


@pytest.mark.slow
def test_published_tables_are_what_is_computed(capsys: pytest.CaptureFixture[str]) -> None:
    """The published cells agree within their limits."""
    assert main([*WHOLE, *CHECK]) == 0, capsys.readouterr().out
    cells = [outcome for outcome in outcomes() if outcome.table.name == "gudkov"]
    assert len(cells) == 48
    assert sum(cell.converged == cell.row.converges for cell in cells) >= 45
    for cell in cells:
        edge = cell.row.cell[0] == "5G" and cell.row.cell[1] in ("125 ms", "250 ms")
        if cell.converged and cell.row.converges and not edge:
            assert is_close(cell), cell.row.name
    errors = {outcome.row.name: outcome.error_percent for outcome in outcomes()}
    assert abs(errors["raised from 150 ms"] or 99) < 15
    (fixed,) = (outcome for outcome in outcomes() if outcome.row.name == "fixed 300 ms")
    times = sorted(run.total_s for run in fixed.runs)
    assert f"{times[0]:.0f} to {times[-1]:.0f} s, where the ten" in fixed.table.notes


@pytest.fixture
def short_walks(monkeypatch: pytest.MonkeyPatch) -> None:
    """tests/fit judges whole walks."""
    for name, steps in STEPS.items():
        monkeypatch.setattr(f"gpusim.fit.posterior.{name}", steps)


@pytest.mark.slow
@pytest.mark.usefixtures("short_walks")
def test_predictions_from_a_profile_hold_what_is_claimed_of_them() -> None:
    """Verdicts right in all, the time in the band in eleven of twelve, the middle off by less than 10 %."""
    found = profile_figures(predict_recordings([PROFILED], MEMBERS))
    assert (found["migrations"], found["completed"]) == (14, 12)
    assert found["verdict_right"] == 14
    assert found["within_band"] >= 11
    assert found["median_abs_error_percent"] < 10


@pytest.mark.slow
@pytest.mark.usefixtures("short_walks")
def test_predictions_from_a_profile_under_kvm_hold_what_is_claimed_of_them() -> None:
    found = profile_figures(predict_recordings([PROFILED_KVM], MEMBERS))
    assert (found["migrations"], found["completed"]) == (18, 16)
    assert found["verdict_right"] == 18
    assert found["median_abs_error_percent"] < 5


def test_a_check_writes_nothing_and_names_what_changed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = tmp_path / "d.md"
    document.write_text("before\n<!-- awake -->\nan old line\n<!-- end -->\nbehind\n")
    arguments = ["awake", "--documents", str(document)]
    assert main([*arguments, "--check"]) == 1
    assert "an old line" in document.read_text()
    assert "speed awake" in capsys.readouterr().out
    assert main(arguments) == 0
    assert "an old line" not in document.read_text()
    assert document.read_text().startswith("before\n")
    assert document.read_text().endswith("<!-- end -->\nbehind\n")
    assert main([*arguments, "--check"]) == 0


def test_a_line_that_goes_is_a_change_too() -> None:
    assert _changed("a\nb\nb\nc\n", "a\nb\nc\n") == ["-b"]
    assert _changed("a\nb\n", "b\na\n")
    assert _changed("a\n", "a\n") == []
