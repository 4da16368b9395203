"""Errors of the published tables: codes, and the table of their texts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from gpusim.errors import CodedError


class TableError(CodedError, ValueError):
    """A table that does not exist, or whose file is not usable."""

    texts: ClassVar[Mapping[str, str]] = {
        "no_such_table": "{table}: no such table. Expected one of {known}",
        "unusable": "{table}: {reason}",
        "wrong_kind": "{table}: kind = {kind}: must be one of {allowed}",
        "wrong_names": "{table}: rows: expected one or more, each with a name of its own",
        "fitted_elsewhere": (
            "{table}: fitted {key}: must be fitted on a row of this table, to one of {allowed}"
        ),
        "wrong_command": "{table}: row {row}: its command must start with {command}",
        "no_command": "{table}: row {row}: needs a command or not_judged, or the table needs left_out",
        "total_time_or_never": "{table}: row {row}: needs total_s exactly if it converges",
    }
