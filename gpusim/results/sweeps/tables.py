"""runs.csv, statistics.csv and runs.parquet: all numbers of a sweep for other tools.

Column names contain the unit. Config values keep the text of the user, such as "4TiB".
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from gpusim.errors import require
from gpusim.files import csv_text, whole_file, write_text
from gpusim.results.summary_fields import NUMBER_KEYS, POSTCOPY_KEYS, STATISTICS_KEYS
from gpusim.results.sweeps.config_values import ABSENT, SEED
from gpusim.results.sweeps.ensembles import QUANTILES, Ensemble
from gpusim.results.sweeps.runs import Run

RUNS, STATISTICS, PARQUET = "runs.csv", "statistics.csv", "runs.parquet"
TEXT_KEYS = ("status", "verdict", "reason", "bottleneck_code", "error")


class Column(NamedTuple):
    """A column of a table, one value per row. `is_config`: the values are from config.json."""

    name: str
    values: list[Any]
    is_config: bool = False


def require_pyarrow() -> None:
    """Check that runs.parquet can be written.

    Raises:
        ResultsError: if pyarrow is not installed.
    """
    require("pyarrow", "parquet", "--parquet: ")


def run_columns(runs: Sequence[Run], keys: Iterable[str]) -> list[Column]:
    """Return the columns of runs.csv. Those of post-copy are left out if no run switched to it.

    Args:
        runs: one per row.
        keys: the config keys that get a column.
    """
    own = dict.fromkeys(
        key
        for run in runs
        for key, value in run.summary.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    )
    switched = any(run.number(key) is not None for run in runs for key in POSTCOPY_KEYS)
    known = [key for key in NUMBER_KEYS if switched or key not in POSTCOPY_KEYS]
    numbers = [*known, *(key for key in own if key not in NUMBER_KEYS and key != SEED)]
    return [
        Column("run", [run.name for run in runs]),
        *(Column(key, [run.config.get(key, ABSENT) for run in runs], True) for key in keys),
        *(Column(key, [run.summary.get(key) for run in runs]) for key in (*numbers, *TEXT_KEYS)),
    ]


def statistics_columns(groups: Sequence[Ensemble], keys: Iterable[str]) -> list[Column]:
    """Return the columns of statistics.csv.

    Args:
        groups: one per row.
        keys: the config keys that get a column, except the seed.
    """
    columns = [
        Column(key, [group.runs[0].config.get(key, ABSENT) for group in groups], True)
        for key in keys
        if key != SEED
    ]
    runs = [len(group.runs) for group in groups]
    converged = [len(group.converged) for group in groups]
    shares = [100 * part / whole for part, whole in zip(converged, runs, strict=True)]
    columns += [Column("runs", runs), Column("converged", converged)]
    columns.append(Column("converged_percent", shares))
    for key in STATISTICS_KEYS:
        rows = [group.quantiles(key) or (None, None, None) for group in groups]
        columns += [
            Column(f"{name}_{key}", [row[place] for row in rows])
            for place, name in enumerate(QUANTILES)
        ]
    return columns


def write_csv(columns: Sequence[Column], path: Path) -> None:
    """Write columns as a CSV file with a head.

    A missing number is an empty cell. A config value can be null, for example an interval that the
    QEMU version decides, and the cell then holds "null".

    Raises:
        OSError: if the file cannot be written.
    """
    cells = [[_cell(value, column.is_config) for value in column.values] for column in columns]
    rows = zip(*cells, strict=True)
    write_text(path, csv_text([[column.name for column in columns], *rows]))


def _cell(value: Any, is_config: bool) -> Any:
    if value is None:
        return "null" if is_config else ""
    return json.dumps(value) if isinstance(value, bool) else value


def write_parquet(columns: Sequence[Column], path: Path) -> None:
    """Write columns as a Parquet file. A column with numbers and texts becomes text.

    Raises:
        OSError: if the file cannot be written.
    """
    import pyarrow as arrow  # type: ignore[import-untyped]
    from pyarrow import parquet

    table = arrow.table({c.name: arrow.array(_typed(c.values)) for c in columns})
    with whole_file(path) as file:
        parquet.write_table(table, file)


def _typed(values: list[Any]) -> list[Any]:
    known = [None if value is ABSENT else value for value in values]
    types = {type(value) for value in known if value is not None}
    if types <= {int, float} and float in types:
        return [None if value is None else float(value) for value in known]
    if len(types) <= 1:
        return known
    return [None if value is ABSENT else str(_cell(value, True)) for value in values]
