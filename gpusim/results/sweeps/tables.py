"""runs.csv, statistics.csv and runs.parquet: every number of a sweep for the reader's own tools.

Owns the columns, their order and their text. Units stand in the names; config values are as they
were written, "4TiB".
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from gpusim.errors import require
from gpusim.files import whole_file, write_text
from gpusim.results.sweeps.ensembles import QUANTILES, QUANTITIES, Ensemble
from gpusim.results.sweeps.runs import NUMBERS, Run
from gpusim.results.sweeps.swept import ABSENT, SEED

RUNS, STATISTICS, PARQUET = "runs.csv", "statistics.csv", "runs.parquet"
WORDS = ("status", "verdict", "reason", "error")


class Column(NamedTuple):
    """A column of a table, one value a row; `config` where the values are of config.json."""

    name: str
    values: list[Any]
    config: bool = False


def require_pyarrow() -> None:
    """Check that runs.parquet can be written, before anything is.

    Raises:
        ResultsError: pyarrow is not installed.
    """
    require("pyarrow", "parquet", "--parquet: ")


def run_columns(runs: Sequence[Run], keys: Iterable[str]) -> list[Column]:
    """Name and values of each column of runs.csv, one value a run.

    Args:
        runs: the rows.
        keys: dotted config keys to have as columns.
    """
    own = dict.fromkeys(
        key
        for run in runs
        for key, value in run.summary.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    )
    numbers = [*NUMBERS, *(key for key in own if key not in NUMBERS and key != SEED)]
    return [
        Column("run", [run.name for run in runs]),
        *(Column(key, [run.config.get(key, ABSENT) for run in runs], True) for key in keys),
        *(Column(key, [run.summary.get(key) for run in runs]) for key in (*numbers, *WORDS)),
    ]


def statistics_columns(groups: Sequence[Ensemble], keys: Iterable[str]) -> list[Column]:
    """Name and values of each column of statistics.csv, one value a group of seeds."""
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
    for quantity in QUANTITIES:
        found = [group.quantiles(quantity) or (None, None, None) for group in groups]
        columns += [
            Column(f"{name}_{quantity}", [row[place] for row in found])
            for place, name in enumerate(QUANTILES)
        ]
    return columns


def write_csv(columns: Sequence[Column], path: Path) -> None:
    """Write columns as a CSV file that begins with their names.

    A number that is not there is an empty cell; null is a value of the config, such as a timer that
    is the version's own, and is written.

    Raises:
        OSError: the file cannot be written.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(column.name for column in columns)
    for row in zip(
        *([_cell(v, column.config) for v in column.values] for column in columns), strict=True
    ):
        writer.writerow(row)
    write_text(path, text.getvalue())


def _cell(value: Any, is_config: bool) -> Any:
    if value is None:
        return "null" if is_config else ""
    return json.dumps(value) if isinstance(value, bool) else value


def write_parquet(columns: Sequence[Column], path: Path) -> None:
    """Write columns as a Parquet file; one that mixes numbers and words is text.

    Raises:
        OSError: the file cannot be written.
    """
    import pyarrow as arrow  # type: ignore[import-untyped]
    from pyarrow import parquet

    table = arrow.table({c.name: arrow.array(_typed(c.values)) for c in columns})
    with whole_file(path) as file:
        parquet.write_table(table, file)


def _typed(values: list[Any]) -> list[Any]:
    known = [None if value is ABSENT else value for value in values]
    kinds = {type(value) for value in known if value is not None}
    if kinds <= {int, float} and float in kinds:
        return [None if value is None else float(value) for value in known]
    if len(kinds) <= 1:
        return known
    return [None if v is ABSENT else str(_cell(v, True)) for v in values]
