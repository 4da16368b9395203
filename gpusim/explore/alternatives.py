"""Changes that would make a migration converge, each simulated alone over expected shares."""

from __future__ import annotations

from gpusim.config.scenario import Scenario
from gpusim.config.schema import Config
from gpusim.engine.records import Alternative
from gpusim.explore.changes import single_changes
from gpusim.explore.run_pool import MOST_STEPS, RunPool
from gpusim.explore.value_search import ValueSearch, run_searches


def alternatives(
    config: Config, scenario: Scenario, *, most_steps: int = MOST_STEPS
) -> list[Alternative]:
    """Find, for each single change, the smallest value with which a config converges.

    Assumes monotonicity: if a value converges, then every larger change converges. If no value
    converges, then the largest value is returned.

    Args:
        config: the config of a run that did not converge.
        scenario: the same config, resolved.
        most_steps: see `run_pool.outcome`.
    """
    searches = [ValueSearch.from_last(one, config) for one in single_changes(config, scenario)]
    with RunPool(0, small_bytes=0, most_steps=most_steps) as pool:
        run_searches(searches, pool)
    return [search.alternative() for search in searches if not search.is_refused]
