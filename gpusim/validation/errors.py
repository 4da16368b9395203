"""Errors of a validation: codes, and the table of their texts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from gpusim.errors import CodedError

UNPREDICTABLE = "nobody counted the guest's writes before the migration"


class ValidationError(CodedError, ValueError):
    """Recordings that cannot be compared with a simulation in this way."""

    texts: ClassVar[Mapping[str, str]] = {
        "repeated_name": "{path}: a second recording named {case}. Expected each name once",
        "not_predictable": f"{{case}}: cannot be predicted: {UNPREDICTABLE}. Use --mode replay",
        "too_few_scenarios": (
            "--first-write: {scenarios} scenarios of known guests that are not paced. Expected two "
            "or more, because each half gives the other half its cost"
        ),
        "cannot_simulate": "{case}: cannot be simulated: {reason}",
        "no_profile": "{case}: has no profile. Expected a recording of gpusim-record --measure",
    }
