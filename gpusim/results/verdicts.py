"""How a run can end, as text: the only copy of the sentences about verdicts.

Pages, pictures, console lines and predictions take them from here. A run's outcome is its verdict,
or its status if it is not ok.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gpusim.results.plots import style
from gpusim.text import format_duration


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One way to end.

    Attributes:
        label: completes "3 runs ...".
        short: one word, for a cell of a picture.
        meaning: one or two sentences.
        after: completes "The run ...", with {time} for the total time.
        colour, mark: in pictures.
    """

    label: str
    short: str
    meaning: str
    after: str
    colour: str = style.ORANGE
    mark: str = "x"


OUTCOMES = {
    "converged": Outcome(
        label="converged",
        short="converged",
        meaning="The migration completed.",
        after="converged in {time}",
        colour=style.BLUE,
        mark="o",
    ),
    "postcopy": Outcome(
        label="migrated with post-copy",
        short="post-copy",
        meaning="The verdict is converged, and reason_code is postcopy: the migration switched to "
        "post-copy, and the last page arrived.",
        after="migrated with post-copy in {time}",
        colour=style.GREEN,
        mark="s",
    ),
    "not_converged": Outcome(
        label="did not converge",
        short="stalled",
        meaning="The throttle could not rise further, and the remaining memory fell by less than "
        "2 % over 60 s and ten passes.",
        after="did not converge in {time}",
    ),
    "time_limit": Outcome(
        label="reached the time limit",
        short="limit",
        meaning="The migration was still running after limit.simulated of simulated time.",
        after="reached the time limit of {time}",
    ),
    "cancelled": Outcome(
        label="cancelled",
        short="cancelled",
        meaning="A schedule or a manager cancelled the migration.",
        after="cancelled after {time}",
    ),
    "aborted": Outcome(
        label="cancelled, then QEMU aborted",
        short="aborted",
        meaning="The migration ended without success, and its leftover state made QEMU abort. "
        "Only versions that were never released do this.",
        after="cancelled after {time}, then QEMU aborted",
    ),
    "incomplete": Outcome(
        label="stopped without an outcome",
        short="stopped",
        meaning="limit.wall stopped the run before the migration ended.",
        after="stopped after {time} without an outcome",
    ),
    "failed": Outcome(
        label="failed",
        short="failed",
        meaning="The run stopped with an error. summary.json holds the error and its traceback.",
        after="failed",
    ),
}


COMPLETED = ("converged", "postcopy")  # the outcomes of whole migrations


def outcome_code(status: str, verdict: str | None, reason_code: str | None = None) -> str:
    """Return the key of OUTCOMES for a summary's status, verdict and reason_code.

    Only a run whose status is ok has a verdict. A failed run never counts as converged, whatever
    else its summary says.
    """
    if status != "ok" or not verdict:
        return status
    return "postcopy" if (verdict, reason_code) == ("converged", "postcopy") else verdict


def outcome_of(code: str) -> Outcome:
    """Return a way to end. Another version of gpusim may have written a code that is unknown."""
    unknown = Outcome(label=code, short=code, meaning="", after=f"ended with {code} after {{time}}")
    return OUTCOMES.get(code, unknown)


def describe_counts(counts: Mapping[str, int]) -> str:
    """Return how many runs ended in which way: "4 converged, 2 failed"."""
    codes = [*OUTCOMES, *sorted(counts.keys() - OUTCOMES.keys())]
    return ", ".join(f"{counts[code]} {outcome_of(code).label}" for code in codes if code in counts)


def describe_outcome(
    status: str, verdict: str | None, total_time_s: float, reason_code: str | None = None
) -> str:
    """Return how a run ended and when: "converged in 20.6 min"."""
    outcome = outcome_of(outcome_code(status, verdict, reason_code))
    return outcome.after.format(time=format_duration(total_time_s))
