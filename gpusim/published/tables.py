"""Published tables as data: what was measured where, what was not said, and the command of each row.

One file a source under data/. A value that the source does not give, and that the simulator needs, is fitted
on the first row of its table that it decides; that row then judges nothing. Loading a table checks it.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import yaml
from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from gpusim.published.curve import Curve

DATA = Path(__file__).parent / "data"
KINDS = ("measured", "model")  # migrations of a real QEMU, or what somebody's formula says of one
FITTED_QUANTITIES = ("total_s", "first_pass_s")
RUNS = "gpusim"  # what a row's command begins with


class TableError(ValueError):
    """A table that cannot be used: one line, file first."""


@dataclass
class Source:
    """Where a table can be read: its author, title, date, and the list, document or message id."""

    author: str = MISSING
    title: str = MISSING
    date: str = MISSING
    where: str = MISSING


@dataclass
class FittedValue:
    """A number that the source does not give.

    Attributes:
        what, unit: in words.
        key: of the config; its value stands in the presets.
        value: the candidate whose run comes nearest to the row.
        row: name of the row it is fitted on.
        quantity: of that row.
        low, high, step: the candidates.
        holds: lowest and highest candidate that keeps that row within 5 %, or within its repeats where
            those are further apart.
    """

    what: str = MISSING
    unit: str = MISSING
    key: str = MISSING
    value: float = MISSING
    row: str = MISSING
    quantity: str = "total_s"
    low: float = MISSING
    high: float = MISSING
    step: float = MISSING
    holds: list[float] = field(default_factory=list)


@dataclass
class Row:
    """One published case: the command that simulates it, and what was published; lists hold repeats.

    Attributes:
        run: `gpusim ...`; empty: it is not simulated, and the table's `left_out` says why.
        converges: false: it was published as never converging.
        seeds: the command is run with seeds 1 to this, as many as there were repeats behind a mean.
        not_judged: why this row tells nothing of the simulator, if it does not.
        cell: row and column of the grid that the source prints, if it is one.
    """

    name: str = MISSING
    run: str = ""
    total_s: list[float] = field(default_factory=list)
    converges: bool = True
    first_pass_s: list[float] = field(default_factory=list)
    downtime_ms: list[float] = field(default_factory=list)
    syncs: list[float] = field(default_factory=list)
    max_throttle_percent: list[float] = field(default_factory=list)
    sent_mib: list[float] = field(default_factory=list)
    seeds: int = 1
    not_judged: str = ""
    cell: list[str] = field(default_factory=list)

    @property
    def overrides(self) -> list[str]:
        """Hydra's, of the command."""
        return shlex.split(self.run)[1:]


@dataclass
class Sampled:
    """A calc-dirty-rate curve as published: see curve.py."""

    pages: int = 1
    sampled: int = 1
    zero: int = 0
    milliseconds: list[float] = field(default_factory=list)
    dirty: list[float] = field(default_factory=list)


@dataclass
class Table:
    """One source.

    Attributes:
        name: of the file.
        heading: of its section in docs/validation.md.
        kind: measured or model.
        what: what was done there, and how it was measured.
        not_published: what one would have to know, and cannot.
        readings: what is inferred, and what is read off charts.
        fitted: the numbers that are not published.
        rounded_up: total times are whole seconds, rounded up.
        only_verdicts: the source says whether a migration converges, not when.
        left_out: why nothing is simulated.
        notes: what disagrees, and why; Markdown.
        curve: an input of the rows.
    """

    name: str = MISSING
    heading: str = MISSING
    kind: str = MISSING
    source: Source = field(default_factory=Source)
    what: str = MISSING
    not_published: list[str] = field(default_factory=list)
    readings: list[str] = field(default_factory=list)
    fitted: list[FittedValue] = field(default_factory=list)
    rounded_up: bool = False
    only_verdicts: bool = False
    left_out: str = ""
    notes: str = ""
    curve: Sampled | None = None
    rows: list[Row] = field(default_factory=list)

    def row(self, name: str) -> Row:
        """By name."""
        return next(row for row in self.rows if row.name == name)

    def judges(self, row: Row) -> bool:
        """Whether a row says how good the simulator is: nothing was fitted on it, and it is the same case."""
        return bool(row.run) and not row.not_judged and not self.fitted_on(row)

    def fitted_on(self, row: Row) -> list[FittedValue]:
        """What was fitted on this row."""
        return [value for value in self.fitted if value.row == row.name]

    def sampled_curve(self) -> Curve:
        """The curve as arrays."""
        import numpy as np

        assert self.curve is not None
        return Curve(
            pages=self.curve.pages,
            sampled=self.curve.sampled,
            zero=self.curve.zero,
            seconds=np.array(self.curve.milliseconds) / 1000,
            dirty=np.array(self.curve.dirty),
        )


def names() -> list[str]:
    """Of all tables, in the order in which they are told: measured ones first, those that judge most rows.

    What is left out comes last.
    """

    def place(name: str) -> tuple[bool, int, int, str]:
        table = load(name)
        judged = sum(table.judges(row) for row in table.rows)
        return bool(table.left_out), KINDS.index(table.kind), -judged, name

    return sorted((path.stem for path in DATA.glob("*.yaml")), key=place)


@cache
def load(name: str) -> Table:
    """A table by its name.

    Raises:
        TableError: there is none of that name, or its file is not a sound table.
    """
    path = DATA / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(path.stem for path in DATA.glob("*.yaml")))
        raise TableError(f"{name}: no such table; there are {known}")
    try:
        merged = OmegaConf.merge(OmegaConf.structured(Table(name=name)), OmegaConf.load(path))
        table = OmegaConf.to_object(merged)
    except (OmegaConfBaseException, yaml.YAMLError) as error:
        raise TableError(f"{path.name}: {str(error).splitlines()[0]}") from None
    assert isinstance(table, Table)
    for problem in _problems(table):
        raise TableError(f"{path.name}: {problem}")
    return table


def _problems(table: Table) -> list[str]:
    """What is wrong with a table, in words."""
    found = []
    named = [row.name for row in table.rows]
    if table.kind not in KINDS:
        found.append(f"kind = {table.kind}: must be one of {', '.join(KINDS)}")
    if not named or len(set(named)) != len(named):
        found.append("rows: one or more, each with a name of its own")
    for value in table.fitted:
        if value.row not in named or value.quantity not in FITTED_QUANTITIES:
            found.append(f"fitted {value.key}: on a quantity of a row of this table")
    for row in table.rows:
        if row.run and row.run.split()[0] != RUNS:
            found.append(f"row {row.name}: its command is `{RUNS} ...`")
        if not row.run and not table.left_out:
            found.append(f"row {row.name}: a command, or the table says why it is left out")
        if row.converges != bool(row.total_s) and not table.only_verdicts:
            found.append(f"row {row.name}: total_s if it converges, and only then")
    return found
