"""gpusim-validate: recordings of a real QEMU, profiles and published tables beside simulations.

It reads the command line, checks all inputs before the first run, and prints tables. The
sub-command `profiles` judges predictions from profiles alone, and `published` the tables of others.
validation/ and published/ compute the numbers and make the text.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gpusim.config.checks import reject
from gpusim.errors import ConfigError
from gpusim.files import can_be_written, write_text
from gpusim.formats.errors import ProfileError, RecordingError
from gpusim.formats.quantities import recorded_quantities
from gpusim.published.errors import TableError
from gpusim.validation.accuracy import Case, Mode, list_rows, summarize
from gpusim.validation.errors import ValidationError
from gpusim.version import __version__

DEFAULT_SEEDS = 20
MODES: dict[str, tuple[Mode, ...]] = {
    "replay": ("replay",),
    "predict": ("predict",),
    "both": ("replay", "predict"),
}
EXIT_INPUT = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. Return its exit code: 0, or 2 for bad input."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    commands = {
        "profiles": (_profiles_parser, _profiles),
        "published": (_published_parser, _published),
    }
    parser, run = commands.get(given[0] if given else "", (_parser, _validate))
    options = parser().parse_args(given[1:] if run is not _validate else given)
    try:
        if options.json is not None and not can_be_written(options.json):
            reject(
                "--json", options.json, "cannot be written. Expected a file in an existing folder"
            )
        run(options)
    except (ConfigError, RecordingError, ProfileError, ValidationError, TableError) as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_INPUT
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = _new_parser(
        "",
        "Simulate recorded migrations of a real QEMU. Print the measured and the simulated values.",
        "gpusim-validate published [TABLE ...]: the same for the measurements that others published. "
        "gpusim-validate profiles [PATH ...]: predictions from calc-dirty-rate alone.",
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
        type=_seeds,
        default=DEFAULT_SEEDS,
        metavar="N",
        help=f"seeds for each prediction (default: {DEFAULT_SEEDS})",
    )
    return parser


def _profiles_parser() -> argparse.ArgumentParser:
    parser = _new_parser(
        " profiles", "Predict recorded migrations from their profile alone. Print both total times."
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
    parser = argparse.ArgumentParser(
        prog=f"gpusim-validate{command}", description=description, epilog=epilog
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="also write the rows and the summary to this file"
    )
    return parser


def _add_paths(parser: argparse.ArgumentParser, text: str) -> None:
    parser.add_argument("paths", nargs="*", type=Path, metavar="PATH", help=text)


def _seeds(text: str) -> int:
    if not (text.isdecimal() and 1 <= int(text) <= 10_000):
        raise argparse.ArgumentTypeError(f"{text}: must be a whole number from 1 to 10000")
    return int(text)


def _validate(options: argparse.Namespace) -> None:
    from gpusim.validation import accuracy_text as text
    from gpusim.validation.first_write import fit_costs
    from gpusim.validation.runs import make_runs, plan_runs
    from gpusim.validation.shipped import RECORDER, SHIPPED, load_recordings

    recordings = load_recordings(options.paths or [SHIPPED, RECORDER])
    cases = [Case(recording=one, measured=recorded_quantities(one)) for one in recordings]
    unpredictable = [case.recording.case for case in cases if not case.recording.predictable]
    if unpredictable and options.mode == "predict":
        raise ValidationError("not_predictable", case=unpredictable[0])
    costs_ns = fit_costs(recordings) if options.first_write else {}
    make_runs(cases, plan_runs(cases, MODES[options.mode], options.seeds, costs_ns))
    rows, summary = list_rows(cases), summarize(cases)
    parts = [text.rows_table(rows)]
    if unpredictable and options.mode == "both":
        parts.append(text.describe_unpredictable(unpredictable))
    if costs_ns:
        parts.append(text.describe_first_write_costs(costs_ns))
    _finish(options, rows, summary, [*parts, text.describe_summary(summary)])


def _profiles(options: argparse.Namespace) -> None:
    from gpusim.validation import accuracy_text as text
    from gpusim.validation import profile_accuracy as profiles

    paths = options.paths or [profiles.PROFILED, profiles.PROFILED_KVM]
    cases = profiles.predict_recordings(paths)
    rows = [dict(zip(text.PROFILE_HEAD, text.profile_cells(case), strict=True)) for case in cases]
    groups = profiles.group_by_accelerator(cases)
    summary = {name: profiles.profile_figures(group) for name, group in groups.items()}
    lines = [
        f"under {name.upper()}: {text.describe_profile_figures(group)}"
        for name, group in groups.items()
    ]
    _finish(options, rows, summary, [text.profile_table(cases), "\n".join(lines)])


def _published(options: argparse.Namespace) -> None:
    from gpusim.published import accuracy_text as text
    from gpusim.published import tables
    from gpusim.published.accuracy import summarize as summarize_outcomes
    from gpusim.published.outcomes import simulate_tables

    chosen = [tables.load(name) for name in dict.fromkeys(options.tables or tables.names())]
    outcomes = simulate_tables(chosen)
    rows, summary = text.list_rows(outcomes), summarize_outcomes(outcomes)
    _finish(options, rows, summary, [text.describe_outcomes(outcomes)])


def _finish(
    options: argparse.Namespace,
    rows: Sequence[Mapping[str, Any]],
    summary: Mapping[str, Any],
    parts: Sequence[str],
) -> None:
    """Write the file of --json, and print the parts of the text."""
    if options.json is not None:
        document = {"rows": rows, "summary": summary}
        write_text(options.json, json.dumps(document, indent=1, allow_nan=False) + "\n")
    print("\n\n".join(parts))


if __name__ == "__main__":
    sys.exit(main())
