"""Whether a prediction keeps the user's bounds, in sentences: yes or no, the margin, what to change."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from gpusim.explore.bounds import Bounds, value_of
from gpusim.explore.bounds_search import ChangeWithin
from gpusim.predict.bands import band
from gpusim.predict.prediction import Prediction
from gpusim.results.summary_fields import RUN_FIELDS
from gpusim.text import capitalized, format_duration, format_number, join_words

SURE = 0.95  # share of the members. An answer that fewer members share is a probable one
NAMES = {
    "total_time_s": "total time",
    "downtime_ms": "downtime",
    "longest_vcpu_stall_ms": "longest vCPU sleep",
    "guest_cpu_lost_percent": "CPU loss",
}


class Kept(NamedTuple):
    """How many simulated migrations keep one bound.

    Attributes:
        name: of the field of Summary.
        most: the largest allowed value.
        members: how many migrations were simulated.
        keeping: how many of them converge within the bound.
        median: over the migrations with the prediction's verdict. None: they do not converge.
        margin: `most` minus the median. None as for `median`.
    """

    name: str
    most: float
    members: int
    keeping: int
    median: float | None
    margin: float | None

    @property
    def code(self) -> str:
        """Return yes, probably_yes, probably_no or no."""
        share = self.keeping / self.members
        answer = "yes" if share > 0.5 else "no"
        return answer if is_sure(share) else f"probably_{answer}"


def is_sure(share: float) -> bool:
    """Return whether so large a share of the members agrees, or disagrees, that they decide alone."""
    return max(share, 1 - share) >= SURE


def kept(prediction: Prediction) -> list[Kept]:
    """Return how each bound is kept."""
    bounds, found = prediction.bounds, []
    for name, most in bounds.items():
        keeping = sum(bounds.keeps(one.summary, name) for one in prediction.members)
        known = prediction.converges and prediction.band(name) is not None
        values = [value_of(one.summary, name) for one in prediction.agreeing()]
        median = band(values).middle if known else None
        margin = None if median is None else most - median
        found.append(Kept(name, most, len(prediction.members), keeping, median, margin))
    return found


def bounds_words(bounds: Bounds) -> str:
    """Return the bounds as a noun: "a total time of 20 min and a downtime of 1 s"."""
    return join_words([f"a {NAMES[name]} of {shown(name, most)}" for name, most in bounds.items()])


def bounds_lines(prediction: Prediction) -> list[str]:
    """Return a line for each bound, and one with what the change achieves. [] without bounds."""
    bounds = prediction.bounds
    if not bounds:
        return []
    change = prediction.change_within
    for_all = change.settings if change else ""
    for_one = change.for_one if change else {}
    lines = [_line(one, for_one.get(one.name, for_all)) for one in kept(prediction)]
    return [*lines, *_change(change, bounds)]


def _line(one: Kept, change: str) -> str:
    """Return "Total time at most 30 min: yes, in 31 of 32 migrations. Median 19.1 min, 10.9 min less"."""
    answer = one.code.replace("_", " ")
    text = f"{capitalized(NAMES[one.name])} at most {shown(one.name, one.most)}: {answer}, "
    text += f"in {one.keeping} of {one.members} migrations."
    if one.median is not None and one.margin is not None:
        size = "less" if one.margin >= 0 else "more"
        median, margin = shown(one.name, one.median), shown(one.name, abs(one.margin))
        text += f" Median {median}, {margin} {size}."
    return f"{text} To keep it, set {change}." if change and one.code != "yes" else text


def _change(found: ChangeWithin | None, bounds: Bounds) -> Iterator[str]:
    if found is None:
        return
    them = "it" if len(list(bounds.items())) == 1 else "all of them"
    if found.outcome is None:
        yield f"None of {found.tried} single changes keeps {them}."
        return
    guest = "95th-percentile" if found.for_p95_guest else "median"
    values = join_words(
        [
            f"{NAMES[name]} {shown(name, value_of(found.outcome, name))}"
            for name, _ in bounds.items()
        ]
    )
    only = (
        "" if found.for_p95_guest else " No single change is enough for the 95th-percentile guest."
    )
    yield f"With {found.settings} the {guest} guest keeps {them}: {values}.{only}"


def shown(name: str, value: float | None) -> str:
    """Return the value of a field of Summary for people: 1000 of downtime_ms is "1 s"."""
    unit = RUN_FIELDS[name].unit
    if unit == "%":
        return f"{format_number(value or 0.0)} %"
    return format_duration((value or 0.0) * (1e-3 if unit == "ms" else 1.0))


def bounds_document(prediction: Prediction) -> list[dict[str, Any]]:
    """Return the bounds for JSON."""
    return [one._asdict() | {"code": one.code} for one in kept(prediction)]
