"""Do bands and the 95th-percentile member cover the share of migrations that they promise?"""

from __future__ import annotations

import numpy as np
import pytest

from gpusim.predict.bands import Band, band
from tests.predict import predictions


def test_a_band_covers_nine_of_ten_further_values() -> None:
    """For 32 uniform numbers the width of the band is the share that it covers."""
    draw = np.random.default_rng(1)
    bands = [band(list(draw.random(32))) for _ in range(4000)]
    assert np.mean([one.high - one.low for one in bands]) == pytest.approx(0.9, abs=0.005)
    assert band([3.0, 1.0]) == Band(low=1.0, middle=2.0, high=3.0)


def test_19_of_20_members_are_no_harder_than_the_95th_percentile() -> None:
    """If 30 of 32 converge, then that is too few. 31 are enough."""
    assert not predictions.prediction(30, 32).p95_member.converges
    assert predictions.prediction(31, 32).p95_member.converges
