"""What summary.json must look like. All that reads a summary checks it here, once.

A summary may come from another program, from another version of gpusim, or from a damaged disk. Keys
that the registry of fields does not know are allowed, because newer versions may have more of them.
"""

from __future__ import annotations

from typing import get_args

from gpusim.engine.records import Status, Verdict
from gpusim.errors import one_line
from gpusim.results.summary_fields import SUMMARY_FIELDS, SummaryField
from gpusim.shapes import LARGEST, Keys, Number, Rows, Shape, ShapeError, Text, Whole, check
from gpusim.text import Message

STATUSES = get_args(Status)
VERDICTS = (*get_args(Verdict), None)
LONGEST_VALUE = 80  # characters of a value in a message
ROUNDING = -1e-6  # a difference of two equal times may be less than zero
# The engine's clock ends after 2^63 ns, which is 292 years. Counts and bytes fit 64 bits.
MOST = {"s": 1e10, "ms": 1e13, "vCPU s": 1e14, "%": 1e6, "Gbit/s": 1e12}


class AnyText(Text):
    """A text of any length."""

    @property
    def allowed(self) -> str:
        """Return what a value must be, for people."""
        return "must be a text"


TEXT = AnyText(LARGEST)  # The reader limits the file.


def _shape_of(field: SummaryField) -> Shape:
    if field.unit == "text":
        return TEXT
    if field.unit == "names":
        return Rows(TEXT, "must be a list of texts")
    if field.key == "seed":
        return Whole(-LARGEST)
    return Number(0.0, MOST.get(field.unit, float(LARGEST)), f" {field.unit}")


SHAPES = {key: _shape_of(field) for key, field in SUMMARY_FIELDS.items()}
FAILED = Keys(optional=SHAPES)
ENDED = Keys(required={"total_time_s": SHAPES["total_time_s"]}, optional=SHAPES)


def find_fault(summary: object) -> Message | None:
    """Return why a value is no summary of gpusim, or which key is damaged. None if it is whole.

    Args:
        summary: what gpusim.reading read, so that all its numbers are finite.
    """
    if not isinstance(summary, dict):
        return Message("not_an_object")
    status, verdict = summary.get("status"), summary.get("verdict")
    if status not in STATUSES or verdict not in VERDICTS:
        data = {"status": one_line(repr(status), LONGEST_VALUE)}
        return Message(
            "foreign_summary", data | {"verdict": one_line(repr(verdict), LONGEST_VALUE)}
        )
    rounded = {key: 0.0 if _is_rounded(value) else value for key, value in summary.items()}
    return find_damage(rounded, FAILED if status == "failed" else ENDED)


def find_damage(content: object, shape: Shape) -> Message | None:
    """Return which key of a JSON object has another shape, or None."""
    try:
        check(content, shape)
    except ShapeError as error:
        return Message("damaged", {"key": error.data["key"], "fault": str(error)})
    return None


def _is_rounded(value: object) -> bool:
    return isinstance(value, float) and ROUNDING <= value < 0
