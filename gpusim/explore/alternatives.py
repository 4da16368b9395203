"""Changes that would make a migration converge, each simulated alone over expected shares."""

from __future__ import annotations

from time import monotonic

from gpusim.config.scenario import Scenario
from gpusim.config.schema import Config
from gpusim.engine.records import Alternative
from gpusim.explore.changes import single_changes
from gpusim.explore.run_pool import RunPool
from gpusim.explore.value_search import ValueSearch, run_searches

LOOK_AHEAD_S = 4.0  # wall time for all changes together


def alternatives(
    config: Config, scenario: Scenario, *, look_ahead_s: float = LOOK_AHEAD_S
) -> list[Alternative]:
    """Find, for each single change, the smallest value with which a config converges.

    Assumes monotonicity: if a value converges, then every larger change converges. If time is up
    before the smallest value is found, then the smallest value known so far is returned with
    `smallest=False`. If no value converges, then the largest value is returned.

    Args:
        config: the config of a run that did not converge.
        scenario: the same config, resolved.
        look_ahead_s: wall time. Every change that is not tried by then is marked `not_tried`.
    """
    until_s = monotonic() + look_ahead_s
    searches = [ValueSearch.from_last(one, config) for one in single_changes(config, scenario)]
    with RunPool(0, small_bytes=0) as pool:
        # Each run gets its share of the time at first. The rest goes to the runs that need longer.
        for longest_run_s in (look_ahead_s / max(1, len(searches)), look_ahead_s):
            for search in searches:
                search.bisection.gave_up = search.is_refused
            run_searches(searches, pool, until_s, longest_run_s)
    return [search.alternative() for search in searches if not search.is_refused]
