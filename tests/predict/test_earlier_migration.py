"""Does a known outcome come first, and is a model that contradicts it reported?"""

from __future__ import annotations

from dataclasses import replace

import pytest

from gpusim.formats.migration_history import Outcome
from gpusim.predict import prediction_text
from gpusim.predict.bands import Band
from gpusim.predict.document import document
from gpusim.predict.earlier_migration import EarlierMigration, compare, earlier_link
from gpusim.predict.ensemble import predict
from gpusim.predict.host_config import host_config
from gpusim.predict.terminal import prediction_lines
from tests.formats.profiles import exact_profile, uniform_pages
from tests.predict import predictions

pytest.importorskip("scipy")

LIMIT = 64 * 2**20
PARAMETERS = {"max-bandwidth": LIMIT, "downtime-limit": 300}
TOOK = Outcome(completed=True, seconds=110.0, bytes_per_s=LIMIT)
CUT = Outcome(completed=False, seconds=110.0, bytes_per_s=LIMIT)


def earlier(
    outcome: Outcome = TOOK, model: tuple[float, float] | None = (33.0, 40.0), **more: object
) -> EarlierMigration:
    band = None if model is None else Band(low=model[0], middle=sum(model) / 2, high=model[1])
    known = {"differing": (), "converges": model is not None}
    return EarlierMigration(outcome=outcome, total_time_s=band, **(known | more))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("outcome", "model", "disagrees"),
    [
        (TOOK, (33.0, 40.0), True),
        (TOOK, None, True),
        (TOOK, (105.0, 120.0), False),
        (TOOK, (112.0, 120.0), False),  # repeats of a migration differ as much
        (TOOK, (150.0, 160.0), True),
        (CUT, (33.0, 40.0), True),
        (CUT, (150.0, 160.0), False),
        (CUT, None, False),
    ],
)
def test_a_model_disagrees_if_repeats_do_not_explain_it(
    outcome: Outcome, model: tuple[float, float] | None, disagrees: bool
) -> None:
    assert earlier(outcome, model).disagrees is disagrees
    assert not earlier(outcome, None, converges=None).disagrees  # time was up


def test_the_majority_of_the_simulated_migrations_is_the_model() -> None:
    ended = [replace(predictions.summary(), total_time_s=s) for s in (30.0, 40.0, 50.0)]
    stalled = [predictions.summary("not_converged")] * 2
    found = compare(TOOK, (), [*ended, *stalled])
    assert found.converges and found.total_time_s is not None
    assert found.total_time_s.middle == 40
    assert compare(TOOK, (), [*ended, *stalled * 2]).total_time_s is None
    assert compare(TOOK, (), []).converges is None


@pytest.mark.parametrize(("outcome", "first"), [(TOOK, "Yes: "), (CUT, "No: ")])
def test_the_outcome_comes_first_and_then_the_model(outcome: Outcome, first: str) -> None:
    found = predictions.prediction(earlier=earlier(outcome))
    lines = prediction_text.answer(found)
    assert lines[0] == f"{prediction_text.headline(found)}."
    assert lines[0].startswith(first) and "110 s" in lines[0]
    assert "36.5 s" in lines[1]
    assert prediction_text.title(found) in lines[2]
    assert prediction_lines(found).split("\n\n")[1].startswith(first)


def test_an_outcome_with_other_settings_comes_after_the_verdict() -> None:
    found = predictions.prediction(earlier=earlier(differing=("migration.downtime_limit",)))
    lines = prediction_text.answer(found)
    assert prediction_text.headline(found) == prediction_text.title(found)
    assert lines[0].startswith(prediction_text.title(found))
    assert "migration.downtime_limit" in lines[1] and "36.5 s" in lines[1]


def test_the_document_has_outcome_and_model() -> None:
    row = document(predictions.prediction(earlier=earlier()))["earlier"]
    assert (row["completed"], row["total_time_s"], row["same_settings"]) == (True, 110.0, True)
    assert row["model_disagrees"] and row["model_total_time_s"]["high"] == 40.0
    assert document(predictions.prediction())["earlier"] is None


@pytest.mark.parametrize(
    ("bytes_per_s", "link"),
    [(LIMIT, "link=unlimited"), (0.0, "link=unlimited"), (2e7, "link.bandwidth=20000000")],
)
def test_the_link_was_as_fast_as_the_migration(bytes_per_s: float, link: str) -> None:
    outcome = replace(TOOK, bytes_per_s=bytes_per_s)
    profile = predictions.profile(outcome=outcome, parameters=PARAMETERS)
    assert earlier_link(profile) == [link]


@pytest.mark.parametrize(
    ("overrides", "differing"),
    [
        (["link=unlimited"], ()),
        (["link=25gbit"], ()),
        (["link.bandwidth=100Mbit/s"], ("link.bandwidth",)),
        (["migration.max_bandwidth=0"], ("migration.max_bandwidth",)),
        (["migration.auto_converge=false", "migration.downtime_limit=500"],
         ("migration.auto_converge", "migration.downtime_limit")),
    ],
)  # fmt: skip
def test_settings_decide_whether_the_members_are_the_model(
    overrides: list[str], differing: tuple[str, ...]
) -> None:
    """The guest of 128 MiB takes about 2 s at 64 MiB per second, and not 110 s."""
    profile = exact_profile(
        uniform_pages(1000, 500.0), 2**27, parameters=PARAMETERS,
        capabilities=("auto-converge",), outcome=TOOK,
    )  # fmt: skip
    found = predict(profile, host_config(profile, overrides), members=2, workers=1).earlier
    assert found is not None
    assert found.differing == differing
    assert found.total_time_s is not None and found.total_time_s.high < 4
    assert found.disagrees
