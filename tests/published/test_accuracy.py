"""Do the figures count only judged rows, and does the command print, write and refuse?"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from gpusim.cli.validate import main
from gpusim.published import tables
from gpusim.published.accuracy import find_role, judged_total_times, summarize
from gpusim.published.accuracy_text import describe_outcomes
from gpusim.published.errors import TableError
from gpusim.published.outcomes import Outcome, Run
from studies.published import write_markdown
from tests.golden import check_golden

A_RUN = Run(
    converged=True,
    total_s=100.0,
    first_pass_s=50.0,
    downtime_ms=300.0,
    syncs=10,
    max_throttle_percent=99,
    sent_mib=1000.0,
)
NEVER = replace(A_RUN, converged=False, downtime_ms=None)


def outcomes(name: str, run: Run = A_RUN) -> list[Outcome]:
    """Return the outcomes of a table if every run gives the same values."""
    table = tables.load(name)
    return [
        Outcome(table=table, row=row, runs=(run,) * row.seeds if row.run else ())
        for row in table.rows
    ]


def test_only_judged_rows_count() -> None:
    """A fitted row, a row of another algorithm and a row that is left out do not count."""
    found = outcomes("smartx") + outcomes("rk4n_2016") + outcomes("dirty_limit")
    counted = judged_total_times(found)
    assert len(counted) == 6 + 6
    assert {row.table for row in counted} == {"smartx", "rk4n_2016"}
    assert counted[0] == ("v1 5000 MB, original", pytest.approx(592.32, abs=0.01), 100.0, "smartx")
    figures = summarize(found)["measured"]
    assert figures["judged_total_times"] == 12
    errors = sorted(abs(100 * (100 / row.measured_s - 1)) for row in counted)
    assert figures["median_abs_error_percent"] == pytest.approx(sum(errors[5:7]) / 2)
    assert [one["key"] for one in figures["fitted"]].count("link.zero_page_scan") == 2


def test_times_that_are_not_judged_leave_the_verdicts() -> None:
    found = outcomes("dirty_quota")
    assert {find_role(outcome).code for outcome in found} == {"verdict_judged"}
    figures = summarize(found)["measured"]
    assert (figures["judged_total_times"], figures["judged_verdicts"]) == (0, 15)
    assert figures["verdicts_agreed_on"] == 11  # A_RUN converges, and four loads never did
    assert all(outcome.error_percent is not None for outcome in found[:11])


def test_a_row_without_a_command_says_why() -> None:
    roles = [find_role(outcome) for outcome in outcomes("single_figures")]
    assert {role.code for role in roles} == {"not_judged", "not_simulated"}
    assert all(role.data["reason"] for role in roles)
    assert judged_total_times(outcomes("single_figures")) == []


def test_models_are_a_group_of_their_own() -> None:
    found = summarize(outcomes("rk4n_2016") + outcomes("simgrid"))
    assert found["measured"]["judged_total_times"] == 6
    assert found["model"]["judged_total_times"] == 7
    assert judged_total_times(outcomes("simgrid")) == []


def test_a_run_that_does_not_converge_is_the_worst_error() -> None:
    found = summarize(outcomes("rk4n_2016", NEVER))["measured"]
    assert (found["judged_total_times"], found["never_simulated_to_converge"]) == (6, 6)
    assert found["median_abs_error_percent"] is None  # infinite
    assert (found["judged_verdicts"], found["verdicts_agreed_on"]) == (6, 0)


def test_total_times_are_rounded_up_where_the_source_rounds() -> None:
    run = replace(A_RUN, total_s=99.01)
    assert {outcome.simulated_s for outcome in outcomes("gudkov", run)} == {100.0}


@pytest.mark.parametrize("name", tables.names())
def test_text_and_markdown_hold_every_row_and_what_was_given(name: str) -> None:
    found = outcomes(name)
    printed, document = describe_outcomes(found), write_markdown(found)
    table = tables.load(name)
    for row in table.rows:
        assert row.name in printed
        assert row.cell or f"| {row.name} |" in document
    for line in [*table.not_published, *table.readings]:
        assert line in printed
    for value in table.fitted:
        assert f"fitted: {value.what}" in printed
        assert value.what in document
    assert table.source.where in document
    assert table.notes.strip() in document


def test_each_row_has_a_role() -> None:
    roles = {outcome.row.name: find_role(outcome) for outcome in outcomes("smartx")}
    assert roles["v1 150 MB, original"].data == {"keys": ["link.zero_page_scan"]}
    assert roles["v1 5000 MB, original"].code == "judged"
    assert roles["v1 5000 MB, with sync, as merged"].code == "not_judged"
    assert {find_role(outcome).code for outcome in outcomes("dirty_limit")} == {"not_simulated"}


def test_command_prints_and_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "published.json"
    assert main(["published", "rk4n_2016", "--json", str(out)]) == 0
    found = json.loads(out.read_text())
    assert found["rows"][0]["row"] == "2 workers, 20/10"
    assert found["rows"][0]["role"] == "fitted: workload.page_writes_per_s"
    assert found["summary"]["measured"]["judged_total_times"] == 6
    check_golden("gpusim-validate-published", capsys.readouterr().out)
    assert list(tmp_path.iterdir()) == [out]


def test_an_unknown_table_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["published", "nothing"]) == 2
    printed = capsys.readouterr()
    known = ", ".join(tables.list_files())
    error = TableError("no_such_table", table="nothing", known=known)
    assert (printed.out, printed.err) == ("", f"error: {error}\n")


def test_a_file_that_cannot_be_written_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    path = "/nowhere/at/all.json"
    assert main(["published", "rk4n_2016", "--json", path]) == 2
    printed = capsys.readouterr()
    assert (printed.out, printed.err.count("\n")) == ("", 1)
    assert printed.err.startswith(f"error: --json = {path}: ")
