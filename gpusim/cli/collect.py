"""gpusim-collect: a page, tables and figures of all runs under a folder, or a comparison.

This module reads the command line, checks the folders before it writes anything, and prints the
result.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gpusim.arguments import Parser, input_path, output_path
from gpusim.command import run_command, run_process
from gpusim.errors import ResultsError, install_command, one_line
from gpusim.files import can_be_written, remove_leftovers
from gpusim.results import require_matplotlib
from gpusim.results.errors import RunsError
from gpusim.results.html.sweep_page import INDEX, Figure, SweepPage, write_index
from gpusim.results.plots.canvas import narrow_png, picture
from gpusim.results.plots.grid import draw_grid, find_grid
from gpusim.results.plots.pareto import draw_pareto
from gpusim.results.plots.seeds import draw_seeds
from gpusim.results.plots.sweep import draw_sweep, layout
from gpusim.results.sweeps.axes import Axes, choose_axes, varying_keys
from gpusim.results.sweeps.diff import CSV, PICTURE, write_diff
from gpusim.results.sweeps.ensembles import Ensemble, ensembles
from gpusim.results.sweeps.findings import compute_findings, count_outcomes
from gpusim.results.sweeps.runs import FoundRuns, find_runs
from gpusim.results.sweeps.sentences import describe_outcomes, describe_skipped, no_finished_run
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

MOST_PRINTED = 10  # skipped files. The page lists all of them.
SWEEP_PLOT, GRID_PLOT, PARETO_PLOT = "sweep.png", "grid.png", "pareto.png"
OUTPUTS = (INDEX, RUNS, STATISTICS, PARQUET, SWEEP_PLOT, GRID_PLOT, PARETO_PLOT, CSV, PICTURE)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return run_command("gpusim-collect", lambda: _run(_parser().parse_args(arguments)))


def _run(options: argparse.Namespace) -> None:
    if options.diff:
        print(_diff(options.folders, options.out or Path(), parquet=options.parquet))
    else:
        print(_collect(options.folders, options.out, parquet=options.parquet))


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="gpusim-collect",
        description="Collect all runs under the folders into runs.csv, statistics.csv, figures and "
        "one page, index.html. With --diff, compare two runs or two sweeps.",
    )
    parser.add_argument(
        "folders",
        nargs="+",
        type=input_path,
        metavar="DIR",
        help="the folder of a sweep or of a run",
    )
    parser.add_argument(
        "--out",
        type=output_path,
        metavar="FOLDER",
        help="the folder to write to, created if it is missing. Default: DIR, or the current folder "
        "with --diff",
    )
    parser.add_argument("--parquet", action="store_true", help="also write runs.parquet")
    parser.add_argument(
        "--diff",
        action="store_true",
        help="print the differences between two runs, or between the runs of two sweeps that have "
        "the same name. Write diff.csv and, for two runs, diff.png",
    )
    return parser


def _collect(folders: Sequence[Path], out: Path | None, *, parquet: bool) -> str:
    """Write all files and return the text to print.

    Raises:
        ResultsError: if the arguments are wrong, there is no run, or an extra is missing.
        OSError: if a file cannot be written.
    """
    if parquet:
        require_pyarrow()
    _check_folders(folders)
    if out is None and len(folders) > 1:
        raise RunsError("out_missing")
    out = _checked_out(out or folders[0])
    found = find_runs(folders, out)
    if not found.runs:
        raise no_finished_run(", ".join(map(str, folders)), found)
    out.mkdir(parents=True, exist_ok=True)
    remove_leftovers(out)
    keys = varying_keys(found.runs)
    groups = ensembles(found.runs)
    axes = choose_axes(found.runs, wanted_axis(found))
    for name in (PARQUET, SWEEP_PLOT, GRID_PLOT, PARETO_PLOT):  # files of an earlier call
        (out / name).unlink(missing_ok=True)
    columns = run_columns(found.runs, keys)
    write_csv(columns, out / RUNS)
    write_csv(statistics_columns(groups, keys), out / STATISTICS)
    if parquet:
        write_parquet(columns, out / PARQUET)
    figures, notes = _draw(groups, axes, out)
    page = SweepPage(
        folder=out.resolve(),
        title=" and ".join(one_line(folder.resolve().name or folder) for folder in folders),
        questions=_distinct(found, "question"),
        commands=_distinct(found, "command"),
        findings=compute_findings(found.runs, groups, axes, _planned_runs(found)),
        figures=figures,
        notes=notes,
        runs=found.runs,
        groups=groups,
        keys=keys,
        skipped=found.skipped,
        files=[RUNS, STATISTICS, *([PARQUET] if parquet else [])],
    )
    write_index(page)
    outcomes = describe_outcomes(count_outcomes(found.runs))
    return "\n".join([outcomes, *_skipped_lines(found), one_line(out / INDEX)])


def _diff(folders: Sequence[Path], out: Path, *, parquet: bool) -> str:
    if parquet:
        raise RunsError("diff_with_parquet")
    if len(folders) != 2:
        raise RunsError("diff_of_two", count=len(folders))
    _check_folders(folders)
    return write_diff(folders[0], folders[1], _checked_out(out))


def _check_folders(folders: Sequence[Path]) -> None:
    for folder in folders:
        if not folder.is_dir():
            code = "not_a_folder" if folder.exists() else "folder_not_found"
            raise RunsError(code, folder=folder)


def _checked_out(out: Path) -> Path:
    """Return the folder for the result if all files can be written there.

    Raises:
        RunsError: the folder cannot be made or written to, or a folder has the name of a file.
    """
    existing = next(folder for folder in (out, *out.absolute().parents) if os.path.lexists(folder))
    taken = next((path for name in OUTPUTS if os.path.isdir(path := out / name)), None)
    if taken:
        raise RunsError("out_taken", path=taken)
    if not can_be_written(existing / INDEX):
        raise RunsError("out_not_writable", folder=out)
    return out


def wanted_axis(found: FoundRuns) -> str | None:
    """Return the axis that the sweeps want, or None if they do not agree."""
    wanted = {sweep["x"] for sweep in found.sweeps if isinstance(sweep.get("x"), str)}
    return wanted.pop() if len(wanted) == 1 else None


def _planned_runs(found: FoundRuns) -> int | None:
    """Return how many runs the sweeps planned, or None if one of them does not tell."""
    planned = [sweep.get("planned_runs") for sweep in found.sweeps]
    known = [runs for runs in planned if isinstance(runs, int)]
    return sum(known) if planned and len(known) == len(planned) else None


def _distinct(found: FoundRuns, key: str) -> list[str]:
    """Return the texts that the sweeps have under a key, each once."""
    texts = (sweep.get(key) for sweep in found.sweeps)
    return list(dict.fromkeys(text for text in texts if isinstance(text, str) and text))


def _draw(groups: Sequence[Ensemble], axes: Axes, out: Path) -> tuple[list[Figure], list[str]]:
    """Draw the figures that are possible, and return a note for each of the others."""
    try:
        require_matplotlib()
    except ResultsError:
        return [], [
            f"No figures: matplotlib is missing. Type {install_command('plot')}, then try again."
        ]
    grid = find_grid(groups, axes)
    drawings: dict[str, Callable[[Any], str]] = {}
    figures, notes = [], []
    if axes.x is None:
        drawings[SWEEP_PLOT] = lambda figure: draw_seeds(figure, groups)
    elif grid is None or layout(groups, axes.series):
        drawings[SWEEP_PLOT] = lambda figure: draw_sweep(figure, groups, axes)
    else:
        notes.append(f"No {SWEEP_PLOT}: there are too many series for lines. The grid shows them.")
    if grid is not None:
        drawings[GRID_PLOT] = lambda figure: draw_grid(figure, groups, grid)
    drawings[PARETO_PLOT] = lambda figure: draw_pareto(figure, groups, axes)
    for name, draw in drawings.items():
        try:
            with picture(out / name) as figure:
                caption = draw(figure)
            narrow = narrow_png(draw)
        except ResultsError as error:
            notes.append(f"No {name}: {error}.")
        else:
            png = (out / name).read_bytes()
            figures.append(Figure(name=name, png=png, narrow=narrow, caption=caption))
    return figures, notes


def _skipped_lines(found: FoundRuns) -> list[str]:
    if not found.skipped:
        return []
    shown = found.skipped[:MOST_PRINTED]
    lines = [f"  {one.name}: {describe_skipped(one.reason)}" for one in shown]
    more = len(found.skipped) - len(shown)
    lines += [f"  and {more} more, in {INDEX}"] if more else []
    return [f"skipped: {len(found.skipped)}", *lines]


if __name__ == "__main__":
    sys.exit(run_process("gpusim-collect", main))
