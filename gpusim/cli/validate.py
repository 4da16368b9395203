"""gpusim-validate: recordings of a real QEMU, profiles and published tables beside simulations.

It reads the command line, checks all inputs before the first run, and prints tables. The
sub-command `profiles` judges predictions from profiles alone, and `published` the tables of others.
validation/ and published/ compute the numbers and make the text.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gpusim.arguments import Parser, input_path, output_path, whole
from gpusim.command import EXIT_INPUT, run_command, run_process
from gpusim.config.checks import reject
from gpusim.files import can_be_written, write_text
from gpusim.formats.quantities import recorded_quantities
from gpusim.text import did_you_mean
from gpusim.validation.accuracy import Case, Mode, list_rows, summarize
from gpusim.validation.errors import ValidationError

if TYPE_CHECKING:
    from gpusim.validation.accuracy_text import LeftOut
    from gpusim.validation.runs import Task

DEFAULT_SEEDS = 20
MODES: dict[str, tuple[Mode, ...]] = {
    "replay": ("replay",),
    "predict": ("predict",),
    "both": ("replay", "predict"),
}
EXIT_CODES = (
    "Exit codes: 0, 1 if some recordings are not used (the table says why), 2 if none is used or "
    "for bad input."
)
EXIT_NOT_ALL = 1
MOST_SEEDS = 10_000


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. Return its exit code.

    It is 0, 1 if some of the files are not used, or 2 for bad input or if no file is used.
    """
    return run_command("gpusim-validate", lambda: _run(arguments))


def _run(arguments: Sequence[str] | None) -> int:
    given = list(sys.argv[1:] if arguments is None else arguments)
    commands = {
        "profiles": (_profiles_parser, _profiles),
        "published": (_published_parser, _published),
    }
    first = given[0] if given else ""
    parser, run = commands.get(first, (_parser, _validate))
    hint = did_you_mean(first, commands)
    if hint and run is _validate and not os.path.lexists(first):
        reject("PATH", first, f"no such file or folder, and no such sub-command.{hint}")
    options = parser().parse_args(given[1:] if run is not _validate else given)
    if options.json is not None and not can_be_written(options.json):
        reject("--json", options.json, "cannot be written. Expected a file in an existing folder")
    return run(options)


def _parser() -> argparse.ArgumentParser:
    parser = _new_parser(
        "",
        "Simulate recorded migrations of a real QEMU. Print the measured and the simulated values.",
        "gpusim-validate published [TABLE ...]: the same for the measurements that others published. "
        "gpusim-validate profiles [PATH ...]: predictions from calc-dirty-rate alone. "
        f"{EXIT_CODES}",
    )
    _add_paths(
        parser, "recordings, or folders of recordings (default: those that come with gpusim)"
    )
    parser.add_argument(
        "--mode",
        choices=MODES,
        default="both",
        help="replay: with the recorded writes and link, predict: with facts from before the "
        "migration (default: both)",
    )
    parser.add_argument(
        "--first-write",
        action="store_true",
        help="predict with a cost of first writes, fitted to the other half of the scenarios",
    )
    parser.add_argument(
        "--seeds",
        type=whole(1, MOST_SEEDS),
        default=DEFAULT_SEEDS,
        metavar="N",
        help=f"seeds for each prediction (default: {DEFAULT_SEEDS})",
    )
    return parser


def _profiles_parser() -> argparse.ArgumentParser:
    parser = _new_parser(
        " profiles",
        "Predict recorded migrations from their profile alone. Print both total times.",
        EXIT_CODES,
    )
    _add_paths(
        parser,
        "recordings of gpusim-record --measure, or folders (default: those that come with gpusim)",
    )
    return parser


def _published_parser() -> argparse.ArgumentParser:
    from gpusim.published.tables import list_files

    parser = _new_parser(
        " published",
        "Simulate migrations that others published. Print the published and the simulated values.",
    )
    parser.add_argument(
        "tables", nargs="*", metavar="TABLE", help=f"{', '.join(list_files())} (default: all)"
    )
    return parser


def _new_parser(command: str, description: str, epilog: str = "") -> argparse.ArgumentParser:
    parser = Parser(prog=f"gpusim-validate{command}", description=description, epilog=epilog)
    parser.add_argument(
        "--json",
        type=output_path,
        metavar="FILE",
        help="also write the rows and the summary to this file",
    )
    return parser


def _add_paths(parser: argparse.ArgumentParser, text: str) -> None:
    parser.add_argument("paths", nargs="*", type=input_path, metavar="PATH", help=text)


def _validate(options: argparse.Namespace) -> int:
    from gpusim.validation import accuracy_text as text
    from gpusim.validation.first_write import fit_costs
    from gpusim.validation.runs import make_runs, plan_runs
    from gpusim.validation.shipped import RECORDER, SHIPPED, NotUsed, load_each

    modes, seeds = MODES[options.mode], options.seeds
    cases: list[Case] = []
    tasks: list[Task] = []
    left_out: list[tuple[int, NotUsed]] = []
    for found in load_each(options.paths or [SHIPPED, RECORDER]):
        if isinstance(found, NotUsed):
            left_out.append((len(cases), found))
            continue
        case = Case(recording=found, measured=recorded_quantities(found))
        try:
            if modes == ("predict",) and not found.predictable:
                raise ValidationError("not_predictable", case=found.case)
            planned = plan_runs([case], modes, seeds)
        except ValidationError as error:
            left_out.append((len(cases), NotUsed(name=found.case, error=error)))
        else:
            tasks += [(len(cases), mode, config) for _, mode, config in planned]
            cases.append(case)
    if not cases:
        return _finish_without(left_out)
    costs_ns = {}
    if options.first_write:
        costs_ns = fit_costs([case.recording for case in cases])
        tasks = plan_runs(cases, modes, seeds, costs_ns)
    make_runs(cases, tasks)
    rows, summary = list_rows(cases), summarize(cases)
    parts = [text.rows_table(rows, left_out)]
    unpredictable = [case.recording.case for case in cases if not case.recording.predictable]
    if unpredictable and options.mode == "both":
        parts.append(text.describe_unpredictable(unpredictable))
    if costs_ns:
        parts.append(text.describe_first_write_costs(costs_ns))
    return _finish(options, rows, summary, [*parts, text.describe_summary(summary)], left_out)


def _profiles(options: argparse.Namespace) -> int:
    from gpusim.fit import require_scipy
    from gpusim.validation import accuracy_text as text
    from gpusim.validation import profile_accuracy as profiles
    from gpusim.validation.shipped import NotUsed

    require_scipy()
    cases: list[profiles.ProfiledCase] = []
    left_out: list[tuple[int, NotUsed]] = []
    for found in profiles.predict_each(options.paths or [profiles.PROFILED, profiles.PROFILED_KVM]):
        if isinstance(found, NotUsed):
            left_out.append((len(cases), found))
        else:
            cases.append(found)
    if not cases:
        return _finish_without(left_out)
    rows = [dict(zip(text.PROFILE_HEAD, text.profile_cells(case), strict=True)) for case in cases]
    groups = profiles.group_by_accelerator(cases)
    summary = {name: profiles.profile_figures(group) for name, group in groups.items()}
    lines = [
        f"under {name.upper()}: {text.describe_profile_figures(group)}"
        for name, group in groups.items()
    ]
    parts = [text.profile_table(cases, left_out), "\n".join(lines)]
    return _finish(options, rows, summary, parts, left_out)


def _published(options: argparse.Namespace) -> int:
    from gpusim.published import accuracy_text as text
    from gpusim.published import tables
    from gpusim.published.accuracy import summarize as summarize_outcomes
    from gpusim.published.outcomes import simulate_tables

    chosen = [tables.load(name) for name in dict.fromkeys(options.tables or tables.names())]
    outcomes = simulate_tables(chosen)
    rows, summary = text.list_rows(outcomes), summarize_outcomes(outcomes)
    return _finish(options, rows, summary, [text.describe_outcomes(outcomes)])


def _finish(
    options: argparse.Namespace,
    rows: Sequence[Mapping[str, Any]],
    summary: Mapping[str, Any],
    parts: Sequence[str],
    left_out: LeftOut = (),
) -> int:
    """Write the file of --json, and print the parts of the text. Return the exit code."""
    document: dict[str, Any] = {"rows": rows, "summary": summary}
    if left_out:
        from gpusim.validation.accuracy_text import describe_left_out

        document["not_used"] = [
            {"name": one.name, "code": one.error.code, "error": str(one.error)}
            for _, one in left_out
        ]
        parts = [*parts, describe_left_out(left_out)]
    if options.json is not None:
        write_text(options.json, json.dumps(document, indent=1, allow_nan=False) + "\n")
    print("\n\n".join(parts))
    return EXIT_NOT_ALL if left_out else 0


def _finish_without(left_out: LeftOut) -> int:
    """Print why no file is used. Return the exit code."""
    for _, one in left_out:
        print(f"error: {one.error}", file=sys.stderr)
    return EXIT_INPUT


if __name__ == "__main__":
    sys.exit(run_process("gpusim-validate", main))
