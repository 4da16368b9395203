"""Published tables as data: the measurements, the missing numbers, and the command of each row.

Each source has one file under data/. If a source does not give a value that the simulator needs,
the value is fitted on the first row of its table that it decides. That row then judges nothing.
Loading a table checks it.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from gpusim.published.errors import TableError
from gpusim.reading import ReadingError, read_yaml
from gpusim.shapes import Fields, ShapeError, check
from gpusim.text import did_you_mean

DATA = Path(__file__).parent / "data"
KINDS = ("measured", "model")  # migrations of a real QEMU, or results of another model
FITTED_QUANTITIES = ("total_s", "first_pass_s")
COMMAND = "gpusim"  # a row's command begins with it


@dataclass(kw_only=True)
class Source:
    """The source of a table: author, title, date, and the list, document or message id."""

    author: str
    title: str
    date: str
    where: str


@dataclass(kw_only=True)
class FittedValue:
    """A number that the source does not give.

    Attributes:
        what: the number, for people.
        unit: of the number, for people.
        key: of the config. The presets hold the value.
        value: the candidate whose run is closest to the row.
        row: name of the row on which it is fitted.
        quantity: of that row.
        low: lowest candidate.
        high: highest candidate.
        step: between two candidates.
        holds: lowest and highest candidate that keep the row within 5 %, or within its repeats if
            these differ by more.
    """

    what: str
    unit: str
    key: str
    value: float
    row: str
    quantity: str = "total_s"
    low: float
    high: float
    step: float
    holds: list[float] = field(default_factory=list)


@dataclass(kw_only=True)
class Row:
    """One published case: its published values, and the command that simulates it.

    Attributes:
        name: unique in its table.
        run: `gpusim ...`. Empty: it is not simulated, and `not_judged` or the table's `left_out`
            says why.
        total_s: published total times of the repeats, seconds.
        converges: whether the published migration converged.
        first_pass_s: published lengths of the first pass, seconds.
        downtime_ms: published downtimes, milliseconds.
        syncs: published numbers of syncs.
        max_throttle_percent: published highest throttles, percent.
        sent_mib: published amounts of sent data, MiB.
        seeds: number of seeds to run, as many as the repeats behind a published mean.
        first_writes: values of workload.first_write, each of which is run with all seeds. Empty:
            that of the command. A sequential writer's position at the start decides which pages the
            cursor meets, and sources do not give it.
        not_judged: why this row does not judge the simulator. Empty: it does.
        cell: row and column in the source's grid, if the source prints a grid.
    """

    name: str
    run: str = ""
    total_s: list[float] = field(default_factory=list)
    converges: bool = True
    first_pass_s: list[float] = field(default_factory=list)
    downtime_ms: list[float] = field(default_factory=list)
    syncs: list[float] = field(default_factory=list)
    max_throttle_percent: list[float] = field(default_factory=list)
    sent_mib: list[float] = field(default_factory=list)
    seeds: int = 1
    first_writes: list[int] = field(default_factory=list)
    not_judged: str = ""
    cell: list[str] = field(default_factory=list)

    @property
    def overrides(self) -> list[str]:
        """Return the Hydra overrides of the command."""
        return shlex.split(self.run)[1:]


@dataclass(kw_only=True)
class Sampled:
    """A published calc-dirty-rate curve: distinct dirtied pages of a sample.

    Attributes:
        pages: of the VM.
        sampled: pages in the sample. It may be all pages of the VM.
        zero: sampled pages that are zero and stay zero.
        milliseconds: rising times.
        dirty: sampled pages that were dirtied by each time.
    """

    pages: int = 1
    sampled: int = 1
    zero: int = 0
    milliseconds: list[float] = field(default_factory=list)
    dirty: list[float] = field(default_factory=list)


@dataclass(kw_only=True)
class Table:
    """One source.

    Attributes:
        name: of the file.
        heading: of its section in the documentation.
        kind: measured or model.
        source: where the table was published.
        what: the experiment, and how it was measured.
        not_published: facts that the simulation needs and the source does not give.
        readings: what gpusim infers, and what is read off charts.
        fitted: the numbers that are not published.
        rounded_up: whether total times are whole seconds, rounded up.
        only_verdicts: whether the source says only whether a migration converges.
        times_not_judged: why total times do not judge the simulator, although they are shown. Its
            verdicts are judged. Empty: total times are judged.
        left_out: why the table is not simulated.
        notes: differences and their causes, Markdown.
        curve: an input of the rows.
        rows: the published cases.
    """

    name: str
    heading: str
    kind: str
    source: Source
    what: str
    not_published: list[str] = field(default_factory=list)
    readings: list[str] = field(default_factory=list)
    fitted: list[FittedValue] = field(default_factory=list)
    rounded_up: bool = False
    only_verdicts: bool = False
    times_not_judged: str = ""
    left_out: str = ""
    notes: str = ""
    curve: Sampled | None = None
    rows: list[Row] = field(default_factory=list)

    def row(self, name: str) -> Row:
        """Return the row of a name."""
        return next(row for row in self.rows if row.name == name)

    def judges(self, row: Row) -> bool:
        """Return whether a row judges the simulator: no value was fitted on it."""
        return bool(row.run) and not row.not_judged and not self.fitted_on(row)

    def fitted_on(self, row: Row) -> list[FittedValue]:
        """Return the values that were fitted on a row."""
        return [value for value in self.fitted if value.row == row.name]


def names() -> list[str]:
    """Return the names of all tables in the order in which they are printed.

    Measured tables come before models, and tables with more judged rows before others. Tables that
    are left out come last.
    """

    def place(name: str) -> tuple[bool, int, int, str]:
        table = load(name)
        judged = sum(table.judges(row) for row in table.rows)
        return bool(table.left_out), KINDS.index(table.kind), -judged, name

    return sorted(list_files(), key=place)


def list_files() -> list[str]:
    """Return the names of all tables in alphabetical order, without loading them."""
    return sorted(path.stem for path in DATA.glob("*.yaml"))


@cache
def load(name: str) -> Table:
    """Return a table by its name.

    Raises:
        TableError: there is no table of that name, or its file is not usable.
    """
    path = DATA / f"{name}.yaml"
    if name not in list_files():
        known = list_files()
        hint = did_you_mean(name, known)
        names = f"{', '.join(known)}{hint and '.'}{hint}"
        raise TableError("no_such_table", table=name, known=names)
    try:
        document = read_yaml(path)
        named = document | {"name": name} if isinstance(document, dict) else document
        table = check(named, Fields(Table))
    except (ReadingError, ShapeError) as error:
        raise TableError("unusable", table=path.name, reason=error) from None
    assert isinstance(table, Table)
    _check(table, path.name)
    return table


def _check(table: Table, file: str) -> None:
    """Raise TableError for the first problem of a table."""
    names_of_rows = [row.name for row in table.rows]
    if table.kind not in KINDS:
        raise TableError("wrong_kind", table=file, kind=table.kind, allowed=", ".join(KINDS))
    if not names_of_rows or len(set(names_of_rows)) != len(names_of_rows):
        raise TableError("wrong_names", table=file)
    for value in table.fitted:
        if value.row not in names_of_rows or value.quantity not in FITTED_QUANTITIES:
            allowed = ", ".join(FITTED_QUANTITIES)
            raise TableError("fitted_elsewhere", table=file, key=value.key, allowed=allowed)
    for row in table.rows:
        if row.run and row.run.split()[0] != COMMAND:
            raise TableError("wrong_command", table=file, row=row.name, command=COMMAND)
        if not row.run and not (table.left_out or row.not_judged):
            raise TableError("no_command", table=file, row=row.name)
        if row.converges != bool(row.total_s) and not table.only_verdicts:
            raise TableError("total_time_or_never", table=file, row=row.name)
