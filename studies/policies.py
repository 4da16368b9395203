"""`python -m studies.policies` runs two sweeps and writes the tables of docs/studies/policies.md.

A sweep computes only what is missing. Overrides after the command apply to both sweeps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import takewhile

from gpusim.results.sweeps.ensembles import Ensemble, ensembles
from gpusim.results.sweeps.runs import Run
from studies.fallback_interval import (
    TIME,
    having,
    lines,
    memory,
    parser_of,
    rule,
    runs_of,
    time_and_loss,
    writes,
)
from studies.tables import table, with_tables

RESPONSIVE, STALL = "responsive", "stall_timeout"
SWEEPS = (RESPONSIVE, STALL)
GUESTS = {"uniform": "uniform", "hot_cold": "hot and cold", "sequential": "sequential"}
PATTERN = "workload.pattern"
TIMEOUT = "migration.manager.args.stall_progress_timeout"  # the last one outlasts every migration


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is missing of the sweeps and write their tables into the document."""
    options = parser_of("studies.policies", __doc__, "docs/studies/policies.md").parse_args(
        arguments
    )
    runs = runs_of(SWEEPS, options.runs, options.overrides)
    text = options.document.read_text()
    options.document.write_text(with_tables(text, tables(runs)))


def tables(runs: Mapping[str, Sequence[Run]]) -> dict[str, list[str]]:
    """Return the lines of each table by its name."""
    return {
        "responsive": _responsive_table(runs[RESPONSIVE]),
        "cancelled": _cancelled_table(ensembles(runs[STALL])),
        "safe": _safe_table(runs[STALL]),
    }


def _responsive_table(runs: Sequence[Run]) -> list[str]:
    """Return medians over seeds and the largest difference between seeds."""
    throttles = list(_by(ensembles(runs), _throttle))
    rows = [
        [guest, line.name, *(time_and_loss(line.points.get(name), 1) for name in throttles)]
        for pattern, guest in GUESTS.items()
        for line in lines(having(runs, PATTERN, pattern), memory, _throttle)
    ]
    apart_s = max(map(_apart_s, ensembles(runs)))
    return [*table(["guest", "RAM", *throttles], rows), "", f"Seeds agree to {apart_s:.1f} s."]


def _throttle(group: Ensemble) -> str:
    """Return the version and whether it has its own throttle rule."""
    own = group.runs[0].config.get("migration.throttle_rule") is None
    return f"{rule(group)}, {'its own' if own else 'responsive'}"


def _apart_s(group: Ensemble) -> float:
    times_s = [float(run.summary[TIME.key]) for run in group.converged]
    return max(times_s, default=0.0) - min(times_s, default=0.0)


def _cancelled_table(groups: Sequence[Ensemble]) -> list[str]:
    """Return how many the detector cancels, and how many converge if it never cancels."""
    *timeouts, never = _by(groups, _timeout).items()
    rows = [
        [name, *(_share("cancelled", _by(of, rule)[name]) for _, of in timeouts)]
        for name in _by(groups, rule)
    ]
    line = f"If the detector never cancels, {_share('converged', never[1])} converge."
    return [*table(["cancelled", *dict(timeouts)], rows), "", line]


def _share(outcome: str, groups: Iterable[Ensemble]) -> str:
    outcomes = [run.outcome for group in groups for run in group.runs]
    return f"{outcomes.count(outcome)} of {len(outcomes)}"


def _safe_table(runs: Sequence[Run]) -> list[str]:
    """Return the smallest timeout from which on nothing is cancelled."""
    head, rows = ["guest", "million page writes per second"], []
    places = list(_by(ensembles(runs), _place))
    for pattern, guest in GUESTS.items():
        for rate, groups in _by(having(runs, PATTERN, pattern), writes).items():
            cells = _by(groups, _place)
            rows.append([guest, rate, *(_safe(cells[place]) for place in places)])
    return table([*head, *places], rows)


def _place(group: Ensemble) -> str:
    return f"{memory(group)}, {rule(group)}"


def _safe(groups: Iterable[Ensemble]) -> str:
    """Return that timeout for groups in the order of their timeouts, over all seeds."""
    *timeouts, _ = groups
    safe = list(takewhile(_is_spared, reversed(timeouts)))
    return _timeout(safe[-1]) if safe else f"above {_timeout(timeouts[-1])}"


def _is_spared(group: Ensemble) -> bool:
    return all(run.outcome != "cancelled" for run in group.runs)


def _timeout(group: Ensemble) -> str:
    return f"{group.value(TIMEOUT).number:g} s"


def _by(groups: Iterable[Ensemble], name: Callable[[Ensemble], str]) -> dict[str, list[Ensemble]]:
    """Return the groups of each name, in order."""
    found: dict[str, list[Ensemble]] = {}
    for group in groups:
        found.setdefault(name(group), []).append(group)
    return found


if __name__ == "__main__":
    main()
