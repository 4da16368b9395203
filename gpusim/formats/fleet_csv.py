"""A fleet as CSV: a header with name, memory and dirty_rate, and one row for each measurement."""

from __future__ import annotations

import csv
import itertools
import math
import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import TypeVar

from gpusim.arguments import parse_digits
from gpusim.config.checks import FASTEST, SLOWEST
from gpusim.config.presets import conf_folder, preset_names
from gpusim.errors import LONGEST_VALUE, one_line
from gpusim.formats.fleet import (
    LONGEST_VM_NAME,
    MOST_RATE,
    DirtyRates,
    Fault,
    FleetError,
    FleetVm,
)
from gpusim.formats.profile import LONGEST_S, MODES, SHORTEST_S
from gpusim.reading import read_yaml
from gpusim.text import did_you_mean, join_words
from gpusim.units import (
    MIB,
    MOST_BYTES,
    MOST_VCPUS,
    NS_PER_S,
    format_bytes,
    parse_bytes,
    parse_bytes_per_s,
    parse_ns,
)

REQUIRED = ("name", "memory", "dirty_rate")
COLUMNS = (*REQUIRED, "period", "link", "vcpus", "mode")
DELIMITERS = (",", ";", "\t")
NAMES = {  # as exports of other tools have them
    "vm": "name",
    "vm_name": "name",
    "domain": "name",
    "instance": "name",
    "ram": "memory",
    "mem": "memory",
    "dirtyrate": "dirty_rate",
    "dirty_page_rate": "dirty_rate",
    "cpu": "vcpus",
    "cpus": "vcpus",
    "vcpu": "vcpus",
    "cpu(s)": "vcpus",
    "bandwidth": "link",
}
UNIT = re.compile(r"([^(\[]*)[(\[]([\w/%]{1,20})[)\]]", re.ASCII)
# "45,5". "16,384" is left as it is and refused, because its comma may divide thousands.
DECIMAL_COMMA = re.compile(r"([0-9]),(?![0-9]{3}(?![0-9]))(?=[0-9])", re.ASCII)
WITH_UNITS = ("memory", "dirty_rate", "period", "link")
DEFAULT_PERIOD_S = 1.0  # of calc-dirty-rate, virsh domdirtyrate-calc and KubeVirt
LEAST_MEMORY = MIB  # a smaller number is a number without its unit
T = TypeVar("T")


def has_header(text: str) -> bool:
    """Return whether the first row names at least two of the columns."""
    header = _rows(text)
    first = next(header, None)
    return first is not None and len(set(map(_column, first[1])) & set(COLUMNS)) >= 2


def read_csv(path: Path, text: str) -> tuple[list[FleetVm], list[Fault]]:
    """Return the VMs of a CSV file, and the rows that cannot be used.

    Rows with the same name are measurements of one VM.

    Raises:
        FleetError: the header lacks a column, or has one twice.
    """
    rows = _rows(text)
    _, titles = next(rows)
    header = [_column(title) for title in titles]
    units = {name: _unit(title) for name, title in zip(header, titles, strict=True)}
    _check_header(path, header)
    vms: dict[str, FleetVm] = {}
    measured: dict[str, list[DirtyRates]] = {}
    faults = []
    for place, cells in rows:
        try:
            vm, rate = _vm_of(header, units, cells)
            _check_same(vms.setdefault(vm.name, vm), vm)
        except (ValueError, OverflowError) as error:
            faults.append(Fault(place=place, reason=str(error)))
        else:
            measured.setdefault(vm.name, []).append(rate)
    faults += _ignored(header)
    return [vm.with_rates(measured[name]) for name, vm in vms.items()], faults


@cache
def link_rate(text: str) -> float:
    """Return the bytes per second of "25Gbit/s", or of the name of a link's preset.

    Raises:
        ValueError: neither, or too slow or fast.
    """
    if text in preset_names("link"):
        keys = read_yaml(conf_folder() / "link" / f"{text}.yaml")
        assert isinstance(keys, dict)
        text = str(keys["bandwidth"])
    rate = parse_bytes_per_s(text)
    if not (SLOWEST <= rate <= FASTEST or math.isinf(rate)):
        raise ValueError("must lie between 1Mbit/s and 1e15 bytes per second")
    return rate


def _rows(text: str) -> Iterator[tuple[str, list[str]]]:
    """Yield the place and the cells of each row. The first row has names of columns.

    Empty rows and rows that begin with # are left out.
    """
    lines = text.split("\n")
    kept = ((n, one) for n, one in enumerate(lines, 1) if one.strip() and one.lstrip()[0] != "#")
    delimiter, may_have_comma = None, list[bool]()
    for number, line in kept:
        if delimiter is None:
            delimiter = max(DELIMITERS, key=line.count)
            cells = _cells(line, delimiter)
            if delimiter == ";":  # the comma is the decimal point
                may_have_comma = [_column(title) in WITH_UNITS for title in cells]
        else:
            cells = _cells(line, delimiter)
            for place in itertools.compress(range(len(cells)), may_have_comma):
                cells[place] = DECIMAL_COMMA.sub(r"\1.", cells[place])
        yield f"row {number}", cells


def _cells(line: str, delimiter: str) -> list[str]:
    try:
        return [cell.strip() for cell in next(csv.reader([line], delimiter=delimiter, strict=True))]
    except (csv.Error, StopIteration):
        return []


def _column(cell: str) -> str:
    """Return the name of a column as the code has it: "Dirty rate (MiB/s)" is dirty_rate."""
    name = cell.lower().strip().replace(" ", "_").replace("-", "_")
    name = NAMES.get(name, name)
    found = UNIT.fullmatch(name)
    if found is None:
        return name
    name = found[1].rstrip("_")
    return NAMES.get(name, name)


def _unit(cell: str) -> str:
    """Return the unit in the name of a column, or ""."""
    found = UNIT.fullmatch(cell.strip())
    return "" if found is None else found[2]


def _check_header(path: Path, header: list[str]) -> None:
    for name in COLUMNS:
        if header.count(name) > 1:
            raise FleetError("columns", path=path, problem=f"has the column {name} twice")
    lacks = [name for name in REQUIRED if name not in header]
    if lacks:
        others = [one for one in header if one not in COLUMNS and did_you_mean(one, lacks)]
        problem = f"lacks {join_words(lacks)}" + f", and has {join_words(others)}" * bool(others)
        raise FleetError("columns", path=path, problem=one_line(problem, 2 * LONGEST_VALUE))


def _ignored(header: list[str]) -> list[Fault]:
    """Return a line about columns that are not read, such as those of another tool."""
    others = [one_line(name, LONGEST_VALUE) for name in header if name not in COLUMNS]
    if not others:
        return []
    reason = f"not read: {join_words(others[:3])}. Known columns: {', '.join(COLUMNS)}"
    return [Fault(place="header", reason=reason)]


def _vm_of(
    header: list[str], units: Mapping[str, str], cells: list[str]
) -> tuple[FleetVm, DirtyRates]:
    if len(cells) != len(header):
        raise ValueError(f"has {len(cells)} cells. Expected {len(header)}, as the header")
    row = {
        name: f"{cell}{units[name]}" if name in WITH_UNITS and cell[-1:].isdigit() else cell
        for name, cell in zip(header, cells, strict=True)
    }
    name = row["name"]
    if not 0 < len(name) <= LONGEST_VM_NAME or not name.isprintable():
        raise ValueError(f"name must have 1 to {LONGEST_VM_NAME} printable characters")
    mode = row.get("mode") or MODES[0]
    if mode not in MODES:
        raise ValueError(f"mode = {one_line(mode, LONGEST_VALUE)}: must be {_choice(MODES)}")
    memory = _value(row, "memory", parse_bytes, LEAST_MEMORY, MOST_BYTES, "64GiB")
    assert memory is not None
    rate = _value(row, "dirty_rate", _dirty_rate, 0, MOST_RATE, "812MiB/s")
    assert rate is not None
    seconds = _value(row, "period", _seconds, SHORTEST_S, LONGEST_S, "1s")
    vm = FleetVm(
        name=name,
        memory_bytes=memory,
        vcpus=_value(row, "vcpus", _whole, 1, MOST_VCPUS, "8"),
        link=_value(row, "link", link_rate, 0, math.inf, "25gbit"),
    )
    return vm, DirtyRates(seconds=seconds or DEFAULT_PERIOD_S, rates=(rate,), mode=mode)


def _check_same(vm: FleetVm, found: FleetVm) -> None:
    for key in ("memory_bytes", "vcpus", "link"):
        if getattr(vm, key) != getattr(found, key):
            column = key.removesuffix("_bytes")
            shown = one_line(vm.name, LONGEST_VALUE)
            raise ValueError(f"{shown} has another {column} in an earlier row. Write the same")


def _value(
    row: Mapping[str, str],
    column: str,
    parse: Callable[[str], T],
    low: float,
    high: float,
    example: str,
) -> T | None:
    """Return the value of a cell. An empty cell of a column that is not required gives None."""
    text = row.get(column, "")
    if not text and column not in REQUIRED:
        return None
    shown = one_line(text, LONGEST_VALUE) or "empty"
    try:
        found = parse(text)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{column} = {shown}: {error}. Write it as {example}") from None
    if not low <= found <= high:  # type: ignore[operator]
        limits = f"{_shown(column, low)} to {_shown(column, high)}"
        raise ValueError(f"{column} = {shown}: must be {limits}, such as {example}")
    return found


def _dirty_rate(text: str) -> float:
    """Return bytes per second. A number without a unit is MiB/s, as calc-dirty-rate says."""
    try:
        return float(text) * MIB
    except ValueError:
        return parse_bytes_per_s(text)


def _whole(text: str) -> int:
    found = parse_digits(text)
    if found is None:
        raise ValueError("not a whole number")
    return found


def _seconds(text: str) -> float:
    return parse_ns(text) / NS_PER_S


def _choice(words: tuple[str, ...]) -> str:
    return join_words(words, "or")


def _shown(column: str, limit: float) -> str:
    return format_bytes(limit) if column in ("memory", "dirty_rate") else f"{limit:g}"
