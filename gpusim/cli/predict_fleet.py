"""gpusim-predict --fleet: the answer for many VMs from one dirty rate of each."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from gpusim.cli.predict_outputs import check_outputs
from gpusim.explore.bounds import Bounds
from gpusim.files import write_text

# What one dirty rate cannot answer, and what describes one VM.
NOT_FOR_A_FLEET = (
    "domstats", "domain", "measure", "qmp", "mode", "quick", "save", "goal", "members", "experiment",
    "no_advice", "explain", "effort",
)  # fmt: skip


def check_fleet(options: argparse.Namespace, files: Sequence[str]) -> None:
    """Check the options of a fleet and their combination before any work starts.

    Args:
        options: of the command.
        files: arguments that are no settings.

    Raises:
        ConfigError: an option that no fleet uses, or a file that cannot be written.
    """
    from gpusim.config.checks import reject

    if files:
        reject(
            "PROFILE", ", ".join(files), "--fleet needs no profile. Write a setting as KEY=VALUE"
        )
    for name in NOT_FOR_A_FLEET:
        if getattr(options, name):
            option = f"--{name.replace('_', '-')}"
            reject(option, "given", "does not fit --fleet. Remove one of the two")
    if str(options.json) == str(options.csv) == "-":
        reject("--csv", "-", "only one of --csv and --json can be standard output. Name a file")
    check_outputs(options, ("json", "csv"))


def run_fleet(options: argparse.Namespace, bounds: Bounds) -> int:
    """Answer for a fleet, write the files and return the exit code."""
    from gpusim.formats.fleet import fault_lines, load_fleet
    from gpusim.predict.fleet import answer_fleet
    from gpusim.predict.fleet_text import fleet_csv, fleet_document, terminal_lines

    answer = answer_fleet(
        load_fleet(options.fleet),
        options.overrides,
        bounds,
        memory_bytes=options.memory,
        vcpus=options.vcpus,
    )
    for line in fault_lines(options.fleet, answer.faults):
        print(line, file=sys.stderr)
    printed = ""
    if options.csv:
        printed += _write(options.csv, fleet_csv(answer))
    if options.json:
        document = json.dumps(fleet_document(answer), indent=1, allow_nan=False)
        printed += _write(options.json, f"{document}\n")
    print(printed or f"{terminal_lines(answer)}\n", end="")
    if options.report:
        from gpusim.predict.fleet_page import write_fleet

        page = write_fleet(answer, options.report)
        print(page, file=sys.stderr if printed else sys.stdout)
    return 0


def _write(path: Path, text: str) -> str:
    """Write a file, or return what belongs on standard output."""
    if str(path) == "-":
        return text
    write_text(path, text)
    return ""
