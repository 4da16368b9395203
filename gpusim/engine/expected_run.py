"""A migration over expected counts of pages instead of bitmaps (pages/expected.py).

It makes the same decisions as a run with bitmaps, except for chance, and takes a fraction of a
second. A dry run estimates its cost with it. explore/estimate.py takes larger steps.
"""

from __future__ import annotations

from gpusim.config.backend import EXPECTED
from gpusim.config.scenario import Scenario
from gpusim.engine.migration import Migration
from gpusim.engine.records import Summary
from gpusim.pages.expected import ExpectedKernels
from gpusim.wall_limit import WallLimit

FEWEST_SAMPLED = 3  # one each of a draw's beginning, middle and end


def expected_run(
    scenario: Scenario, limit: WallLimit, sample_chunks: int = FEWEST_SAMPLED
) -> tuple[Summary, ExpectedKernels]:
    """Run a scenario over expected counts of pages.

    Args:
        scenario: what to simulate. Its wall limit is ignored.
        limit: a run that takes longer, or more steps, ends with the status `incomplete`.
        sample_chunks: how many chunks of some draws to keep, so that a caller can time them.

    Returns:
        The summary of the run, and the kernels with the chunks that they kept.
    """
    migration = Migration(scenario, EXPECTED, limit=limit)
    expected = migration.state.pages.kernels
    assert isinstance(expected, ExpectedKernels)
    expected.sample_chunks = sample_chunks
    return migration.run().summary, expected
