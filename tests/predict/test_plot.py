"""Does prediction.png draw the numbers of the prediction and of its members' runs?"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpusim.predict import plot
from gpusim.predict.plot import draw_prediction
from gpusim.predict.prediction import Prediction
from gpusim.predict.prediction_text import BAND, title
from gpusim.text import time_unit
from tests.predict import predictions
from tests.results.runs import RUNS

DRAWN = {
    "all": predictions.prediction,
    "none": lambda: predictions.prediction(0, 20),
    "one": lambda: predictions.prediction(1, 1),
    "not_measured": lambda: predictions.prediction(profile=predictions.profile(measurements=())),
    "never_throttled": lambda: predictions.prediction(
        members=tuple(replace(one, throttle_s={}) for one in predictions.members(5, 5))
    ),
}


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The figures that a test drew."""
    found: list[Any] = []
    picture = plot.picture

    @contextmanager
    def kept(path: Path) -> Iterator[Any]:
        with picture(path) as figure:
            yield figure
            found.append(figure)

    monkeypatch.setattr(plot, "picture", kept)
    return found


def drawn(prediction: Prediction, path: Path) -> Any:
    """Draw a prediction, and return the run that stands for its median member."""
    run = RUNS["converged" if prediction.converges else "not_converged"]()
    draw_prediction(prediction, run, [run, run], path)
    assert path.read_bytes().startswith(b"\x89PNG")
    return run


def line(axes: Any, label: str) -> Any:
    return next(one for one in axes.lines if one.get_label() == label)


@pytest.mark.parametrize("name", DRAWN)
def test_the_panels_show_the_members(name: str, tmp_path: Path, figures: list[Any]) -> None:
    prediction = DRAWN[name]()
    run = drawn(prediction, tmp_path / "prediction.png")
    (figure,) = figures
    remaining, _, throttle, totals = figure.axes
    assert title(prediction) in [text.get_text() for text in figure.texts]
    assert sum(bar.get_height() for bar in totals.patches[1:]) == len(prediction.agreeing())
    band = prediction.band("total_time_s")
    assert band is not None
    _, unit_s = time_unit(max(one.summary.total_time_s for one in prediction.agreeing()))
    assert line(totals, "median").get_xdata()[0] == pytest.approx(band.middle / unit_s)
    last = run.samples[-1]
    assert line(remaining, "median").get_ydata()[-1] == pytest.approx(
        last.remaining_bytes / (2**30 if remaining.get_ylabel() == "GiB" else 2**20)
    )
    has_limit = any(one.get_label() == "limit" for one in remaining.lines)
    assert has_limit == (not prediction.converges)
    steps = prediction.median_member.throttle_s
    if steps:
        assert list(line(throttle, "median").get_ydata()) == [0, *steps, max(steps)]
    else:
        assert not throttle.lines and len(throttle.texts) == 1


def test_each_throttle_step_has_a_bar_as_wide_as_its_band(
    tmp_path: Path, figures: list[Any]
) -> None:
    prediction = predictions.prediction()
    drawn(prediction, tmp_path / "prediction.png")
    throttle = figures[0].axes[2]
    unit_s = 60.0 if "(min)" in throttle.get_xlabel() else 1.0
    for bar, step in zip(throttle.patches, prediction.throttle_steps(), strict=True):
        assert bar.get_x() == pytest.approx(step.time_s.low / unit_s)
        assert bar.get_width() == pytest.approx((step.time_s.high - step.time_s.low) / unit_s)
        assert bar.get_y() + bar.get_height() == step.percent
    labels = [text.get_text() for text in throttle.get_legend().get_texts()]
    assert set(labels) == {BAND, "median"}


def test_the_curve_goes_through_exact_measurements(tmp_path: Path, figures: list[Any]) -> None:
    drawn(predictions.prediction(), tmp_path / "prediction.png")
    curve = figures[0].axes[1]
    measured = curve.containers[0].lines[0]
    np.testing.assert_allclose(sorted(set(measured.get_xdata())), predictions.PERIODS_S)
    seconds, megabytes = line(curve, "fitted guest").get_data()
    assert (np.diff(megabytes) >= 0).all()
    assert (seconds[0], seconds[-1]) == pytest.approx((0.1 / 1.3, 10 * 1.3))


def test_nothing_measured_is_written_in_the_panel(tmp_path: Path, figures: list[Any]) -> None:
    drawn(DRAWN["not_measured"](), tmp_path / "prediction.png")
    curve = figures[0].axes[1]
    assert not curve.lines and len(curve.texts) == 1
