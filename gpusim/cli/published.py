"""gpusim-validate published: others' published tables beside what gpusim makes of them."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from gpusim.files import can_be_written, write_text
from gpusim.published import report, tables


def main(arguments: Sequence[str]) -> int:
    """Run the command; returns its exit code: 0, or 2 for bad input."""
    from gpusim.published.rows import simulated  # Hydra's, and slow to import

    options = _parser().parse_args(arguments)
    try:
        chosen = [tables.load(name) for name in dict.fromkeys(options.tables or tables.names())]
    except tables.TableError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if options.json is not None and not can_be_written(options.json):
        message = "cannot be written; expected a file in a folder that exists"
        print(f"error: {options.json}: {message}", file=sys.stderr)
        return 2
    outcomes = simulated(chosen)
    if options.json is not None:
        found = {"rows": report.rows(outcomes), "summary": report.summary(outcomes)}
        write_text(options.json, json.dumps(found, indent=1, allow_nan=False) + "\n")
    print(report.text(outcomes))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gpusim-validate published",
        description="Simulate migrations that others published; print published beside simulated.",
    )
    parser.add_argument(
        "tables",
        nargs="*",
        metavar="TABLE",
        help=f"of {', '.join(sorted(path.stem for path in tables.DATA.glob('*.yaml')))}; default: all",
    )
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write rows and summary to this file, too"
    )
    return parser
