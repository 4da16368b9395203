"""How close simulations come to published tables: rows, and figures over them.

It computes with outcomes and starts no run. Migrations of a real QEMU and results of other models
are two groups, and no figure mixes them. accuracy_text.py prints the results.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median
from typing import Any, NamedTuple

from gpusim.published.outcomes import Outcome
from gpusim.published.tables import KINDS, Table
from gpusim.text import Message

QUANTITIES = ("downtime_ms", "syncs", "max_throttle_percent", "first_pass_s", "sent_mib")


class TotalTime(NamedTuple):
    """A published total time beside the simulated one, which is infinite if it did not converge."""

    name: str
    measured_s: float
    simulated_s: float
    table: str


def judged_total_times(outcomes: Sequence[Outcome], kind: str = "measured") -> list[TotalTime]:
    """Return every judged row of a group whose published total time judges the simulator."""
    return [
        TotalTime(
            outcome.row.name,
            outcome.measured_s,
            math.inf if outcome.simulated_s is None else outcome.simulated_s,
            outcome.table.name,
        )
        for outcome in outcomes
        if outcome.judged
        and outcome.table.kind == kind
        and not outcome.table.times_not_judged
        and outcome.measured_s is not None
    ]


def find_role(outcome: Outcome) -> Message:
    """Return whether a row judges the simulator.

    The codes are judged, verdict_judged, fitted, not_simulated and not_judged.
    """
    fitted = outcome.table.fitted_on(outcome.row)
    if fitted:
        return Message("fitted", {"keys": [value.key for value in fitted]})
    if not outcome.row.run:
        return Message("not_simulated", {"reason": outcome.row.not_judged})
    if outcome.row.not_judged:
        return Message("not_judged", {"reason": outcome.row.not_judged})
    return Message("verdict_judged" if outcome.table.times_not_judged else "judged")


def summarize(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Return for each group the number of judged rows, their errors, and the fitted values."""
    found: dict[str, Any] = {}
    for kind in KINDS:
        group = [outcome for outcome in outcomes if outcome.table.kind == kind]
        if not group:
            continue
        times = judged_total_times(group, kind)
        errors = [abs(100 * (row.simulated_s / row.measured_s - 1)) for row in times]
        verdicts = [outcome for outcome in group if outcome.judged]
        middle = median(errors) if errors else math.inf
        found[kind] = {
            "judged_total_times": len(errors),
            "never_simulated_to_converge": errors.count(math.inf),
            "median_abs_error_percent": middle if math.isfinite(middle) else None,
            "largest_abs_error_percent": max(filter(math.isfinite, errors), default=None),
            "judged_verdicts": len(verdicts),
            "verdicts_agreed_on": sum(o.converged == o.row.converges for o in verdicts),
            "fitted": [
                {"table": table.name, "row": value.row, "key": value.key, "value": value.value}
                for table in _tables(group)
                for value in table.fitted
            ],
        }
    return found


def _tables(outcomes: Sequence[Outcome]) -> list[Table]:
    return list({outcome.table.name: outcome.table for outcome in outcomes}.values())


def is_close(outcome: Outcome, share: float = 0.15, seconds: float = 1.0) -> bool:
    """Return whether both total times are close, or neither side converges."""
    published_s, ours_s = outcome.measured_s, outcome.simulated_s
    if published_s is None or ours_s is None:
        return published_s is ours_s
    limit_s = max(share * published_s, seconds)
    return math.isclose(ours_s, published_s, rel_tol=0, abs_tol=limit_s)
