"""gpusim-collect: every run under a folder in one page, one table and a few pictures; or two compared.

It reads the command line, checks before anything is written, and prints; what the runs say is found
out in `results/`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from gpusim.errors import ResultsError
from gpusim.files import can_be_written
from gpusim.results import require_matplotlib
from gpusim.results.html.sweep_page import INDEX, Page, write_index
from gpusim.results.plots.grid import draw_grid, find_grid
from gpusim.results.plots.pareto import draw_pareto
from gpusim.results.plots.seeds import draw_seeds
from gpusim.results.plots.sweep import draw_sweep, layout
from gpusim.results.sweeps.answer import counted, sentences
from gpusim.results.sweeps.diff import diff
from gpusim.results.sweeps.ensembles import Ensemble, ensembles
from gpusim.results.sweeps.runs import Found, find_runs
from gpusim.results.sweeps.swept import Axes, choose_axes, varying
from gpusim.results.sweeps.tables import (
    PARQUET,
    RUNS,
    STATISTICS,
    require_pyarrow,
    run_columns,
    statistics_columns,
    write_csv,
    write_parquet,
)

EXIT_INPUT, EXIT_INTERRUPTED = 2, 130
MOST_PRINTED = 10  # lines of what was passed over; the page has them all
SWEEP_PLOT, GRID_PLOT, PARETO_PLOT = "sweep.png", "grid.png", "pareto.png"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code: 0, 2 for bad input, 130 if interrupted."""
    options = _parser().parse_args(arguments)
    try:
        if options.diff and options.parquet:
            raise ResultsError("--parquet: --diff writes none; leave one of the two out")
        if options.diff:
            print(_diff(options.folders, options.out or Path()))
        else:
            print(_collect(options.folders, options.out, parquet=options.parquet))
    except (ResultsError, OSError) as error:
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        return EXIT_INPUT
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gpusim-collect",
        description="Collect all runs under the folders into runs.csv, statistics.csv, pictures and "
        "one page, index.html; or compare two runs or two sweeps.",
    )
    parser.add_argument("folders", nargs="+", type=Path, metavar="DIR", help="a sweep, or a run")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FOLDER",
        help="where to write, made if missing; default: DIR itself, with --diff the current folder",
    )
    parser.add_argument("--parquet", action="store_true", help="write runs.parquet too")
    parser.add_argument(
        "--diff",
        action="store_true",
        help="print what differs between two runs, or between the runs of the same name of two "
        "sweeps; write diff.csv and, of two runs, diff.png",
    )
    return parser


def _collect(folders: Sequence[Path], out: Path | None, *, parquet: bool) -> str:
    """Write everything; returns what to print.

    Raises:
        ResultsError: the arguments are wrong, there is no run, or an extra is missing.
        OSError: a file cannot be written.
    """
    if parquet:
        require_pyarrow()
    _check(folders)
    if out is None and len(folders) > 1:
        raise ResultsError("several folders and no place for the result: add --out FOLDER")
    out = _place(out or folders[0])
    found = find_runs(folders, out)
    if not found.runs:
        raise ResultsError(_nothing(folders, found))
    out.mkdir(parents=True, exist_ok=True)
    keys = varying(found.runs)
    groups = ensembles(found.runs)
    axes = choose_axes(found.runs, _wanted(found))
    for name in (PARQUET, SWEEP_PLOT, GRID_PLOT, PARETO_PLOT):  # of an earlier time
        (out / name).unlink(missing_ok=True)
    columns = run_columns(found.runs, keys)
    write_csv(columns, out / RUNS)
    write_csv(statistics_columns(groups, keys), out / STATISTICS)
    if parquet:
        write_parquet(columns, out / PARQUET)
    figures, notes = _draw(groups, axes, out)
    page = Page(
        folder=out.resolve(),
        title=" and ".join(folder.resolve().name or str(folder) for folder in folders),
        questions=_each(found, "question"),
        commands=_each(found, "command"),
        answer=sentences(found.runs, groups, axes),
        figures=figures,
        notes=notes,
        runs=found.runs,
        groups=groups,
        keys=keys,
        passed_over=found.passed_over,
        files=[RUNS, STATISTICS, *([PARQUET] if parquet else [])],
    )
    write_index(page)
    return "\n".join([counted(found.runs), *_passed_over(found), str(out / INDEX)])


def _diff(folders: Sequence[Path], out: Path) -> str:
    if len(folders) != 2:
        raise ResultsError(f"--diff compares two folders, not {len(folders)}: name A and B")
    _check(folders)
    return diff(folders[0], folders[1], _place(out))


def _check(folders: Sequence[Path]) -> None:
    for folder in folders:
        if not folder.is_dir():
            what = "not a folder" if folder.exists() else "not there"
            raise ResultsError(f"{folder}: {what}; name a folder in which gpusim has left runs")


def _place(out: Path) -> Path:
    there = next(folder for folder in (out, *out.absolute().parents) if folder.exists())
    if not can_be_written(there / INDEX):
        raise ResultsError(f"{out}: cannot be written to; name a folder with --out FOLDER")
    return out


def _nothing(folders: Sequence[Path], found: Found) -> str:
    where = ", ".join(map(str, folders))
    seen = f" ({found.passed_over[0][0]}: {found.passed_over[0][1]})" if found.passed_over else ""
    return (
        f"no finished run under {where}{seen}: name a folder with runs, or make some: gpusim -m ..."
    )


def _wanted(found: Found) -> str | None:
    """The axis that a sweep asks for, if all that ask agree."""
    wanted = {sweep["x"] for sweep in found.sweeps if isinstance(sweep.get("x"), str)}
    return wanted.pop() if len(wanted) == 1 else None


def _each(found: Found, key: str) -> list[str]:
    """What the sweeps say under a key, each once."""
    said = (sweep.get(key) for sweep in found.sweeps)
    return list(dict.fromkeys(text for text in said if isinstance(text, str) and text))


def _draw(
    groups: Sequence[Ensemble], axes: Axes, out: Path
) -> tuple[list[tuple[str, bytes, str]], list[str]]:
    """The pictures there can be, and a line for what there cannot."""
    try:
        require_matplotlib()
    except ResultsError:
        return [], ["No figures: matplotlib is missing; pip install '.[plot]' and collect again."]
    grid = find_grid(groups, axes)
    drawings: dict[str, Callable[[Path], str]] = {}
    figures, notes = [], []
    if axes.x is None:
        drawings[SWEEP_PLOT] = lambda path: draw_seeds(groups, path)
    elif grid is None or layout(groups, axes.series):
        drawings[SWEEP_PLOT] = lambda path: draw_sweep(groups, axes, path)
    else:
        notes.append(f"No {SWEEP_PLOT}: too many series to draw as lines; the grid shows them.")
    if grid is not None:
        drawings[GRID_PLOT] = lambda path: draw_grid(groups, grid, path)
    drawings[PARETO_PLOT] = lambda path: draw_pareto(groups, axes, path)
    for name, draw in drawings.items():
        try:
            shows = draw(out / name)
        except ResultsError as error:
            notes.append(f"No {name}: {error}.")
        else:
            figures.append((name, (out / name).read_bytes(), shows))
    return figures, notes


def _passed_over(found: Found) -> list[str]:
    if not found.passed_over:
        return []
    lines = [f"  {name}: {reason}" for name, reason in found.passed_over[:MOST_PRINTED]]
    more = len(found.passed_over) - len(lines)
    lines += [f"  and {more} more, which {INDEX} names"] if more else []
    return [f"passed over: {len(found.passed_over)}", *lines]


if __name__ == "__main__":
    sys.exit(main())
