"""Changes that would make a migration converge, each simulated alone over expected shares."""

from __future__ import annotations

from dataclasses import replace

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
    converges, then the largest value is returned. A run that was cut shows nothing about its value,
    see `Alternative`.

    Args:
        config: the config of a run that did not converge.
        scenario: the same config, resolved.
        most_steps: see `run_pool.outcome`.
    """
    searches = [ValueSearch.from_last(one, config) for one in single_changes(config, scenario)]
    with RunPool(0, small_bytes=0, most_steps=most_steps) as pool:
        run_searches(searches, pool)
    return [without_cut_runs(search) for search in searches if not search.is_refused]


def without_cut_runs(search: ValueSearch) -> Alternative:
    """Return the answer of a search. A run that was cut does not count as one that fails."""
    found, last = search.alternative(), search.outcomes.get(search.bisection.last_failing)
    if last is None or last.status == "ok":
        return found
    if found.outcome == "converges":
        return replace(found, smallest=False)
    return replace(found, outcome="not_tried")
