"""Do pictures and texts leave out the time that was not simulated?"""

from __future__ import annotations

import pytest

from gpusim import simulate
from gpusim.results.narrative import find_steps
from gpusim.results.timeline import timeline
from gpusim.results.turning_points import pass_borders, stop_s
from tests.engine.test_skip_waiting import simulated, stalls


def test_pictures_and_texts_have_one_clock() -> None:
    """The skipped time is neither an empty stretch nor a stop of the guest."""
    config = stalls([{"at": "400s", "do": "cancel"}])
    result = simulate(config)
    end_s = result.summary.total_time_s - result.summary.skipped_s
    assert result.summary.simulated_s == end_s < 200
    columns = timeline(result)
    assert columns["time_s"][-1] == pytest.approx(end_s)
    assert columns["guest_run_s"][-1] == pytest.approx(end_s, rel=1e-3)
    assert pass_borders(result)[-1] == stop_s(result.summary) == end_s
    assert "skipped" in [step.code for step in find_steps(result)]
    assert "skipped" not in [step.code for step in find_steps(simulated(config))]
