"""Compares two runs, or two sweeps run by run: the differences in the config and in the result.

A comparison of two runs shows what depends on the machine, such as the wall time. A comparison of
two sweeps ignores that.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpusim.errors import ResultsError, one_line
from gpusim.files import csv_text, write_text
from gpusim.results.errors import RunsError
from gpusim.results.plots.compare import write_comparison
from gpusim.results.run_files import CONFIG, SUMMARY
from gpusim.results.summary_fields import MACHINE_KEYS, NUMBER_KEYS
from gpusim.results.sweeps.axes import is_input, varying_keys
from gpusim.results.sweeps.runs import FoundRuns, Run, find_runs
from gpusim.results.sweeps.sentences import no_finished_run
from gpusim.text import count_noun, text_table

CSV, PICTURE = "diff.csv", "diff.png"
MOST_PRINTED = 40  # changed runs. diff.csv has all of them.
MOST_NAMES = 5  # of runs that only one sweep has
LONGEST_CELL = 28  # characters. Longer values get a line each.
LONGEST_TEXT, LONGEST_NAME = 400, 120  # characters. diff.csv has the whole texts.
_MISSING = object()


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One key whose values in A and B differ.

    Attributes:
        run: the name of the run in both sweeps.
        source: "config" or "result".
        key: of the config or of the summary.
        a, b: the values.
    """

    run: str
    source: str
    key: str
    a: Any
    b: Any

    @property
    def change(self) -> float | None:
        """B minus A, or None if one of them is not a number."""
        return self.b - self.a if _is_number(self.a) and _is_number(self.b) else None

    @property
    def percent(self) -> float | None:
        """The change as a share of A, or None if A is zero or not a number."""
        return 100 * self.change / self.a if self.change is not None and self.a else None


def write_diff(a: Path, b: Path, out: Path) -> str:
    """Compare two folders. Write diff.csv and, for two runs, diff.png into `out`.

    Returns:
        The text to print.

    Raises:
        ResultsError: if the folders are not two runs or two sweeps.
        OSError: if a file cannot be written.
    """
    is_run = [(folder / SUMMARY).is_file() for folder in (a, b)]
    if is_run[0] != is_run[1]:
        run, other = (a, b) if is_run[0] else (b, a)
        raise RunsError("run_and_sweep", run=run, other=other)
    found = [find_runs([folder]) for folder in (a, b)]
    for folder, one in zip((a, b), found, strict=True):
        if is_run[0]:
            one.runs[:] = [run for run in one.runs if run.folder == folder.resolve()]
        if not one.runs:
            raise no_finished_run(str(folder), one)
    if is_run[0]:
        return _compare_runs(a, b, found[0].runs[0], found[1].runs[0], out)
    return _compare_sweeps(a, b, found[0], found[1], out)


def differences(a: Run, b: Run, *, machine: bool) -> list[Difference]:
    """Return the differences between two runs, those of the config first.

    Args:
        a, b: the runs.
        machine: include keys that depend on the machine and on the version of gpusim.
    """
    return [
        Difference(run=a.name, source=source, key=key, a=one, b=other)
        for source, left, right in (
            ("config", a.config, b.config),
            ("result", _results(a.summary), _results(b.summary)),
        )
        for key, one, other in _unequal(left, right)
        if machine or (key not in MACHINE_KEYS and is_input(key))
    ]


def _results(summary: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in summary.items() if k not in ("run_hash", "traceback", "seed")}


def _unequal(a: Mapping[str, Any], b: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    for key in dict.fromkeys((*a, *b)):
        one, other = a.get(key, _MISSING), b.get(key, _MISSING)
        if one != other:
            yield key, one, other


def _compare_runs(a: Path, b: Path, one: Run, other: Run, out: Path) -> str:
    found = differences(one, other, machine=True)
    _write(found, out / CSV)
    lines = [f"A  {one_line(a)}", f"B  {one_line(b)}"]
    for run, name in ((one, "A"), (other, "B")):
        if not run.config:
            lines.append(f"{name} has no {CONFIG}, so its settings are not known")
    for source, heading in (("config", "settings"), ("result", "results")):
        ours = [difference for difference in found if difference.source == source]
        rows = [_row(difference) for difference in ours if not _is_long(difference)]
        if rows:
            lines += ["", text_table([(heading, "A", "B", "B - A", "%"), *rows])]
        for difference in filter(_is_long, ours):
            lines += ["", f"{_name(difference.key)}:"]
            lines += [f"  A  {_text(difference.a)}", f"  B  {_text(difference.b)}"]
        lines += [] if ours else ["", f"{heading}: no difference"]
    same = sum(one.summary.get(key) == other.summary.get(key) for key in NUMBER_KEYS)
    lines += ["", f"{same} of {len(NUMBER_KEYS)} numbers are the same", one_line(out / CSV)]
    try:
        write_comparison([a.resolve(), b.resolve()], out / PICTURE)
        lines.append(one_line(out / PICTURE))
    except ResultsError as error:
        lines.append(f"no picture: {error}")
    return "\n".join(lines)


def _compare_sweeps(a: Path, b: Path, one: FoundRuns, other: FoundRuns, out: Path) -> str:
    runs_a, runs_b = _paired(a, b, one, other)
    common = [name for name in runs_a if name in runs_b]
    if not common:
        raise RunsError("no_common_run", a=a, b=b)
    changed = {
        name: found
        for name in common
        if (found := differences(runs_a[name], runs_b[name], machine=False))
    }
    _write([difference for found in changed.values() for difference in found], out / CSV)
    lines = [f"A  {one_line(a)}", f"B  {one_line(b)}", ""]
    lines.append(
        f"{count_noun(len(common), 'run')} in both: {len(changed)} changed, "
        f"{len(common) - len(changed)} the same"
    )
    for own, others, name in ((runs_a, runs_b, "A"), (runs_b, runs_a, "B")):
        only = [run for run in own if run not in others]
        if only:
            more = f" and {len(only) - MOST_NAMES} more" if len(only) > MOST_NAMES else ""
            lines.append(
                f"only in {name}: {len(only)}: {', '.join(map(_name, only[:MOST_NAMES]))}{more}"
            )
    if changed:
        head = ("run", "outcome", "total time A", "B", "%", "guest CPU lost % A", "B")
        shown = list(changed)[:MOST_PRINTED]
        rows = [(_name(n), *_changed_row(runs_a[n], runs_b[n])) for n in shown]
        lines += ["", text_table([head, *rows])]
        if len(changed) > MOST_PRINTED:
            lines.append(f"and {len(changed) - MOST_PRINTED} more, which {CSV} lists")
    return "\n".join([*lines, "", one_line(out / CSV)])


def _paired(
    a: Path, b: Path, one: FoundRuns, other: FoundRuns
) -> tuple[dict[str, Run], dict[str, Run]]:
    """Return the runs of two sweeps by a name that the same run has in both.

    The name is the folder of the run. If the sweeps have no folder in common, for example because
    an option of one sweep is part of its names, then the name is made from the varying keys.
    """
    by_folder = [
        {run.folder.relative_to(folder.resolve()).as_posix(): run for run in found.runs}
        for found, folder in ((one, a), (other, b))
    ]
    keys = dict.fromkeys([*varying_keys(one.runs), *varying_keys(other.runs)])
    if by_folder[0].keys() & by_folder[1].keys() or not keys:
        return by_folder[0], by_folder[1]
    by_value = [
        {",".join(f"{k.rpartition('.')[2]}={run.config.get(k)}" for k in keys): run for run in runs}
        for runs in (one.runs, other.runs)
    ]
    return by_value[0], by_value[1]


def _changed_row(one: Run, other: Run) -> tuple[str, ...]:
    outcome = one.outcome if one.outcome == other.outcome else f"{one.outcome} -> {other.outcome}"
    times = [run.number("total_time_s") for run in (one, other)]
    losses = [run.number("guest_cpu_lost_percent") for run in (one, other)]
    before_s, after_s = times
    percent = f"{100 * (after_s / before_s - 1):+.2f}" if before_s and after_s is not None else ""
    shown = ["-" if time_s is None else f"{time_s:.2f} s" for time_s in times]
    lost = ["-" if loss is None else f"{loss:.2f}" for loss in losses]
    return outcome, *shown, percent, *lost


def _name(run: str) -> str:
    return one_line(run, LONGEST_NAME)


def _row(difference: Difference) -> tuple[str, ...]:
    change = difference.change
    return (
        _name(difference.key),
        _text(difference.a),
        _text(difference.b),
        "" if change is None else f"{change:+.6g}" if isinstance(change, float) else f"{change:+d}",
        "" if difference.percent is None else f"{difference.percent:+.2f}",
    )


def _is_long(difference: Difference) -> bool:
    return max(len(_text(difference.a)), len(_text(difference.b))) > LONGEST_CELL


def _text(value: Any) -> str:
    if value is _MISSING:
        return "-"
    if isinstance(value, float):
        return f"{value:.9g}"
    return one_line(value if isinstance(value, str) else json.dumps(value), LONGEST_TEXT)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _write(found: Sequence[Difference], path: Path) -> None:
    rows: list[list[object]] = [["run", "source", "key", "A", "B", "difference", "percent"]]
    for one in found:
        cells = ["" if value is _MISSING else _csv_cell(value) for value in (one.a, one.b)]
        rows.append([one.run, one.source, one.key, *cells, one.change, one.percent])
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, csv_text(rows))


def _csv_cell(value: Any) -> Any:
    return value if isinstance(value, str) or _is_number(value) else json.dumps(value)
