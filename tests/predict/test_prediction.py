"""Do bands and the 95th-percentile member cover the share of migrations that they promise?"""

from __future__ import annotations

import numpy as np
import pytest

from gpusim.predict.bands import Band, band
from gpusim.predict.prediction import MODEL_ERROR
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


def test_the_band_of_the_total_time_has_the_error_of_gpusim() -> None:
    """Members that agree exactly do not promise a time without an error."""
    found = predictions.prediction(20, 20)
    times = [one.summary.total_time_s for one in found.members]
    total, downtime = found.band("total_time_s"), found.band("downtime_ms")
    assert total is not None and downtime is not None
    assert total.low == pytest.approx((1 - MODEL_ERROR) * min(times), rel=1e-3)
    assert total.high == pytest.approx((1 + MODEL_ERROR) * max(times), rel=1e-3)
    assert downtime == band([one.summary.downtime_ms for one in found.members])
    limit = predictions.prediction(0, 20).band("total_time_s")
    assert limit is not None and limit.high == 1018.95
