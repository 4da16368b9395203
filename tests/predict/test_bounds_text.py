"""The answer to a user's bounds: yes or no first, then the margin, then what to change."""

from __future__ import annotations

import pytest

from gpusim.explore.bounds import Bounds
from gpusim.explore.bounds_search import ChangeWithin
from gpusim.predict import prediction_text
from gpusim.predict.bounds_text import bounds_document, bounds_lines
from gpusim.predict.terminal import prediction_lines
from tests.predict import advised, predictions


@pytest.mark.parametrize(
    ("bounds", "converging", "code"),
    [
        (Bounds(total_time_s=120.0), 20, "yes"),
        (Bounds(total_time_s=114.5), 20, "probably_yes"),
        (Bounds(total_time_s=106.5), 20, "probably_no"),
        (Bounds(total_time_s=50.0), 20, "no"),
        (Bounds(guest_cpu_lost_percent=100.0), 0, "no"),  # none converges
    ],
)
def test_a_bound_is_answered_by_the_share_that_keeps_it(
    bounds: Bounds, converging: int, code: str
) -> None:
    prediction = predictions.prediction(converging, 20, bounds=bounds)
    (found,) = bounds_document(prediction)
    assert found["code"] == code
    (line,) = bounds_lines(prediction)
    assert f": {code.replace('_', ' ')}, in {found['keeping']} of 20" in line


def test_the_answer_comes_before_the_verdict() -> None:
    bounds = Bounds(total_time_s=120.0, downtime_ms=1.0)
    change = ChangeWithin(
        settings="", outcome=None, for_one={"downtime_ms": "a=1"}, for_p95_guest=False, tried=9
    )
    prediction = predictions.prediction(bounds=bounds, change_within=change)
    lines = prediction_text.answer(prediction)
    assert lines[0].startswith("Total time at most 2 min: yes, ")
    assert lines[0].endswith(" less.")
    assert lines[1].endswith(" more. To keep it, set a=1.")
    assert "None of 9 single changes keeps all of them" in lines[2]
    assert prediction_lines(prediction).startswith(lines[0])


@pytest.mark.parametrize("for_p95_guest", [True, False])
def test_one_change_that_keeps_all(for_p95_guest: bool) -> None:
    change = ChangeWithin(
        settings="link.bandwidth=25Gbit/s",
        outcome=advised.CONVERGES,
        for_one={},
        for_p95_guest=for_p95_guest,
        tried=3,
    )
    prediction = predictions.prediction(bounds=Bounds(total_time_s=1.0), change_within=change)
    first, line = bounds_lines(prediction)
    assert first.endswith(" To keep it, set link.bandwidth=25Gbit/s.")
    assert "With link.bandwidth=25Gbit/s" in line
    assert ("95th-percentile guest keeps it: " in line) == for_p95_guest
    assert ("No single change is enough" in line) == (not for_p95_guest)


def test_without_bounds_there_is_no_line() -> None:
    prediction = predictions.prediction()
    assert (bounds_lines(prediction), bounds_document(prediction)) == ([], [])
