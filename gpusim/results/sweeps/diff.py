"""Two runs, or two sweeps run by run: what differs in the config and in the result.

Owns the comparison, its table and diff.csv. What a machine needed (wall time, memory) is told of two
runs and changes nothing for two sweeps.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpusim.errors import ResultsError
from gpusim.files import write_text
from gpusim.results.plots import compare
from gpusim.results.run_files import CONFIG, SUMMARY
from gpusim.results.sweeps.runs import NUMBERS, Found, Run, find_runs
from gpusim.results.sweeps.swept import is_no_input, varying

CSV, PICTURE = "diff.csv", "diff.png"
MOST_PRINTED = 40  # changed runs; diff.csv has them all
LONG = 28  # characters of a value that would make the table wider than a terminal
_MACHINE = ("wall_time_s", "process_peak_rss_bytes", "bitmap_bytes", "simulated_looks")
_MACHINE_WORDS = ("backend", "backend_reason", "gpusim_version", "run_hash", "traceback")
_MISSING = object()


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One key that is not the same in A and B; `run` is its name in both sweeps."""

    run: str
    source: str  # config or result
    key: str
    a: Any
    b: Any

    @property
    def change(self) -> float | None:
        """B minus A, where both are numbers."""
        return self.b - self.a if _is_number(self.a) and _is_number(self.b) else None

    @property
    def percent(self) -> float | None:
        """The change as a share of A, where A is not zero."""
        return 100 * self.change / self.a if self.change is not None and self.a else None


def diff(a: Path, b: Path, out: Path) -> str:
    """Compare two folders and write diff.csv, and diff.png of two runs, into `out`.

    Returns:
        What to print.

    Raises:
        ResultsError: they are not two runs or two sweeps, and what they are.
        OSError: a file cannot be written.
    """
    kinds = [(folder / SUMMARY).is_file() for folder in (a, b)]
    if kinds[0] != kinds[1]:
        run, other = (a, b) if kinds[0] else (b, a)
        raise ResultsError(f"{run} is a run and {other} is none: name two runs, or two sweeps")
    found = [find_runs([folder]) for folder in (a, b)]
    itself = [
        [r for r in one.runs if r.folder == f.resolve()]
        for f, one in zip((a, b), found, strict=True)
    ]
    for folder, one, own in zip((a, b), found, itself, strict=True):
        if not (own if kinds[0] else one.runs):
            why = "; ".join(f"{name}: {reason}" for name, reason in one.passed_over[:1])
            raise ResultsError(f"{folder}: no finished run to compare ({why or 'it is empty'})")
    if kinds[0]:
        return _of_runs(a, b, itself[0][0], itself[1][0], out)
    return _of_sweeps(a, b, found[0], found[1], out)


def differences(a: Run, b: Run, *, machine: bool) -> list[Difference]:
    """What differs between two runs, config first.

    Args:
        a, b: the runs.
        machine: also what depends on the machine and the version of gpusim.
    """
    left_out = () if machine else (*_MACHINE, *_MACHINE_WORDS)
    return [
        Difference(run=a.name, source=source, key=key, a=one, b=other)
        for source, left, right in (
            ("config", a.config, b.config),
            ("result", _results(a.summary), _results(b.summary)),
        )
        for key, one, other in _unequal(left, right)
        if key not in left_out and (machine or not is_no_input(key))
    ]


def _results(summary: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in summary.items() if k not in ("run_hash", "traceback", "seed")}


def _unequal(a: Mapping[str, Any], b: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    for key in dict.fromkeys((*a, *b)):
        one, other = a.get(key, _MISSING), b.get(key, _MISSING)
        if one != other:
            yield key, one, other


def _of_runs(a: Path, b: Path, one: Run, other: Run, out: Path) -> str:
    found = differences(one, other, machine=True)
    _write(found, out / CSV)
    lines = [f"A  {a}", f"B  {b}"]
    for run, name in ((one, "A"), (other, "B")):
        if not run.config:
            lines.append(f"{name} has no {CONFIG}: its settings are not known")
    for source, heading in (("config", "settings"), ("result", "results")):
        ours = [difference for difference in found if difference.source == source]
        rows = [_row(difference) for difference in ours if not _is_long(difference)]
        lines += ["", *_aligned([(heading, "A", "B", "B - A", "%"), *rows])] if rows else []
        for difference in filter(_is_long, ours):  # a line each
            lines += ["", f"{difference.key}:"]
            lines += [f"  A  {_text(difference.a)}", f"  B  {_text(difference.b)}"]
        lines += [] if ours else ["", f"{heading}: no difference"]
    same = sum(one.summary.get(key) == other.summary.get(key) for key in NUMBERS)
    lines += ["", f"{same} of {len(NUMBERS)} numbers are the same", str(out / CSV)]
    try:
        compare.draw([a.resolve(), b.resolve()], out / PICTURE)
        lines.append(str(out / PICTURE))
    except ResultsError as error:
        lines.append(f"no picture: {error}")
    return "\n".join(lines)


def _of_sweeps(a: Path, b: Path, one: Found, other: Found, out: Path) -> str:
    names = [
        {_inner(run, folder): run for run in found.runs} for found, folder in ((one, a), (other, b))
    ]
    if not names[0].keys() & names[1].keys():  # one option was typed, and names hold it
        swept = list(dict.fromkeys([*varying(one.runs), *varying(other.runs)]))
        if swept:
            names = [{_point(run, swept): run for run in found.runs} for found in (one, other)]
    common = [name for name in names[0] if name in names[1]]
    if not common:
        raise ResultsError(
            f"no run of {a} has the name or the swept values of one of {b}: nothing to compare; "
            "name two runs, or sweeps over the same values"
        )
    changed: dict[str, list[Difference]] = {}
    for name in common:
        if found := differences(names[0][name], names[1][name], machine=False):
            changed[name] = found
    _write([difference for found in changed.values() for difference in found], out / CSV)
    lines = [f"A  {a}", f"B  {b}", ""]
    lines.append(
        f"{len(common)} runs in both: {len(changed)} changed, {len(common) - len(changed)} the same"
    )
    for index, label in ((0, "A"), (1, "B")):
        only = [name for name in names[index] if name not in names[1 - index]]
        if only:
            more = f" and {len(only) - 5} more" if len(only) > 5 else ""
            lines.append(f"only in {label}: {len(only)}: {'; '.join(only[:5])}{more}")
    if changed:
        rows = [_changed_row(names[0][n], names[1][n]) for n in list(changed)[:MOST_PRINTED]]
        head = ("run", "outcome", "total time A", "B", "%", "guest CPU lost % A", "B")
        lines += [
            "",
            *_aligned([head, *((name, *row) for name, row in zip(changed, rows, strict=False))]),
        ]
        if len(changed) > MOST_PRINTED:
            lines.append(f"and {len(changed) - MOST_PRINTED} more, which {CSV} has")
    return "\n".join([*lines, "", str(out / CSV)])


def _point(run: Run, swept: Sequence[str]) -> str:
    """A run by what was swept, whatever else it was given."""
    return ",".join(f"{key.rsplit('.')[-1]}={run.config.get(key)}" for key in swept)


def _inner(run: Run, folder: Path) -> str:
    return run.folder.relative_to(folder.resolve()).as_posix()


def _changed_row(one: Run, other: Run) -> tuple[str, ...]:
    outcome = one.outcome if one.outcome == other.outcome else f"{one.outcome} -> {other.outcome}"
    times = [run.number("total_time_s") for run in (one, other)]
    losses = [run.number("guest_cpu_lost_percent") for run in (one, other)]
    before_s, after_s = times
    percent = f"{100 * (after_s / before_s - 1):+.2f}" if before_s and after_s is not None else ""
    shown = ["-" if time_s is None else f"{time_s:.2f} s" for time_s in times]
    lost = ["-" if loss is None else f"{loss:.2f}" for loss in losses]
    return outcome, *shown, percent, *lost


def _row(difference: Difference) -> tuple[str, ...]:
    change = difference.change
    return (
        difference.key,
        _text(difference.a),
        _text(difference.b),
        "" if change is None else f"{change:+.6g}" if isinstance(change, float) else f"{change:+d}",
        "" if difference.percent is None else f"{difference.percent:+.2f}",
    )


def _is_long(difference: Difference) -> bool:
    return max(len(_text(difference.a)), len(_text(difference.b))) > LONG


def _text(value: Any) -> str:
    if value is _MISSING:
        return "-"
    if isinstance(value, float):
        return f"{value:.9g}"
    return value if isinstance(value, str) else json.dumps(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns under each other; words to the left, what can be counted to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if index == 0 else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _write(found: Sequence[Difference], path: Path) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["run", "source", "key", "A", "B", "difference", "percent"])
    for d in found:
        numbers = ["" if number is None else number for number in (d.change, d.percent)]
        cells = ["" if value is _MISSING else _csv_cell(value) for value in (d.a, d.b)]
        writer.writerow([d.run, d.source, d.key, *cells, *numbers])
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, text.getvalue())


def _csv_cell(value: Any) -> Any:
    return value if isinstance(value, str) or _is_number(value) else json.dumps(value)
