"""Is there one text for every way a run can end?"""

from __future__ import annotations

from typing import get_args

from gpusim.engine.records import Status, Verdict
from gpusim.results.verdicts import (
    OUTCOMES,
    describe_counts,
    describe_outcome,
    outcome_code,
    outcome_of,
)


def test_every_verdict_and_every_status_without_one_has_texts() -> None:
    assert {*OUTCOMES} == {*get_args(Verdict), *get_args(Status), "postcopy"} - {"ok"}
    for text in ("label", "short", "meaning", "after"):
        assert len({getattr(outcome, text) for outcome in OUTCOMES.values()}) == len(OUTCOMES)
    for code, outcome in OUTCOMES.items():
        assert (outcome.mark == "o") == (code == "converged")
        assert " " not in outcome.short
        assert outcome.meaning.endswith(".")
        assert ("{time}" in outcome.after) == (code != "failed")


def test_an_outcome_is_the_verdict_or_the_status() -> None:
    assert outcome_code("ok", "time_limit") == "time_limit"
    assert outcome_code("incomplete", None) == "incomplete"
    for verdict in get_args(Verdict):
        assert "20.6 min" in describe_outcome("ok", verdict, 1234.0)
    assert "3 s" in describe_outcome("incomplete", None, 3.0)


def test_a_migration_with_post_copy_has_an_outcome_of_its_own() -> None:
    assert outcome_code("ok", "converged", "postcopy") == "postcopy"
    assert outcome_code("ok", "converged", "converged") == "converged"
    assert outcome_code("ok", "time_limit", "postcopy_paused") == "time_limit"
    assert describe_outcome("ok", "converged", 3.0, "postcopy") == "migrated with post-copy in 3 s"


def test_a_code_of_another_gpusim_stays_readable() -> None:
    assert outcome_of("vanished").short == "vanished"
    assert describe_counts({"vanished": 1, "failed": 2, "converged": 3}) == (
        "3 converged, 2 failed, 1 vanished"
    )
    assert describe_outcome("ok", "vanished", 90.0) == "ended with vanished after 90 s"
