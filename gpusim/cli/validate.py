"""gpusim-validate: recordings of a real QEMU beside what gpusim makes of them.

It reads the command line, checks every recording before the first run, spreads the runs over
processes and prints; the arithmetic is report.py's.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TypeAlias

from gpusim.cli import published
from gpusim.config.backend import choose_backend
from gpusim.config.scenario import resolve
from gpusim.config.schema import Config
from gpusim.engine.attempts import simulate
from gpusim.errors import ConfigError
from gpusim.explore.workers import map_with_bar
from gpusim.files import can_be_written, write_text
from gpusim.formats.quantities import Quantities, measured, simulated
from gpusim.formats.recording import RecordingError
from gpusim.validation import profiled
from gpusim.validation.first_write import cross_fitted, halves
from gpusim.validation.replay import predict_config, replay_config
from gpusim.validation.report import Case, Mode, rows, summary, summary_text, table
from gpusim.validation.shipped import RECORDER, SHIPPED, load_recordings

DEFAULT_SEEDS = 20
Task: TypeAlias = tuple[int, Mode, Config]  # place of the case, mode, what to run
UNPREDICTABLE = "nobody counted what the guest wrote before the migration"
MODES: dict[str, tuple[Mode, ...]] = {
    "replay": ("replay",),
    "predict": ("predict",),
    "both": ("replay", "predict"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code: 0, or 2 for bad input."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:1] == ["published"]:
        return published.main(words[1:])
    if words[:1] == ["profiles"]:
        return profiled.main(words[1:])
    options = _parser().parse_args(words)
    try:
        cases = [
            Case(recording=recording, measured=measured(recording))
            for recording in load_recordings(options.paths or [SHIPPED, RECORDER])
        ]
        _check_writable(options.json)
        _check_predictable(cases, options.mode)
        costs = _first_write_costs(cases) if options.first_write else {}
        tasks = plan(cases, MODES[options.mode], options.seeds, costs)
    except RecordingError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    run(cases, tasks)
    found_rows, found_summary = rows(cases), summary(cases)
    if options.json is not None:
        found = {"rows": found_rows, "summary": found_summary}
        write_text(options.json, json.dumps(found, indent=1, allow_nan=False) + "\n")
    print(table(found_rows), end="\n\n")
    unknown = [case.recording.case for case in cases if not case.recording.predictable]
    if unknown and options.mode == "both":
        print(f"replayed only, as {UNPREDICTABLE}: {', '.join(unknown)}\n")
    for cost_ns in sorted(set(costs.values())):
        names = ", ".join(case for case, cost in costs.items() if cost == cost_ns)
        print(f"first write {cost_ns:.0f} ns, fitted on the others: {names}\n")
    print(summary_text(found_summary))
    return 0


def _check_predictable(cases: Sequence[Case], mode: str) -> None:
    for case in cases:
        if mode == "predict" and not case.recording.predictable:
            message = f"cannot be predicted: {UNPREDICTABLE}; expected --mode replay"
            raise RecordingError(case.recording.case, message)


def _first_write_costs(cases: Sequence[Case]) -> dict[str, float]:
    recordings = [case.recording for case in cases]
    if not all(halves(recordings)):
        message = (
            "takes two scenarios of known guests that are not paced: each gives the other its cost"
        )
        raise RecordingError("--first-write", message)
    return cross_fitted(recordings)


def _check_writable(path: Path | None) -> None:
    if path is not None and not can_be_written(path):
        raise RecordingError(path, "cannot be written; expected a file in a folder that exists")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gpusim-validate",
        description="Simulate recorded migrations of a real QEMU; print measured beside simulated.",
        epilog="gpusim-validate published [TABLE ...]: others' published measurements instead. "
        "gpusim-validate profiles: predictions from calc-dirty-rate alone.",
    )
    parser.add_argument(
        "paths",
        nargs="*",
        type=Path,
        metavar="PATH",
        help="recordings, or folders of them; default: the shipped ones",
    )
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write rows and summary to this file, too"
    )
    parser.add_argument(
        "--mode",
        choices=MODES,
        default="both",
        help="replay: recorded writes and wire; predict: what was known before; default: both",
    )
    parser.add_argument(
        "--first-write",
        action="store_true",
        help="predict with a cost of first writes, fitted on the other half of the scenarios",
    )
    parser.add_argument(
        "--seeds",
        type=_seeds,
        default=DEFAULT_SEEDS,
        metavar="N",
        help=f"of each prediction; default: {DEFAULT_SEEDS}",
    )
    return parser


def _seeds(text: str) -> int:
    if not (text.isdecimal() and 1 <= int(text) <= 10_000):
        raise argparse.ArgumentTypeError(f"{text}: a whole number from 1 to 10000")
    return int(text)


def plan(
    cases: Sequence[Case],
    modes: Sequence[Mode],
    seeds: int,
    first_write_costs_ns: Mapping[str, float] | None = None,
) -> list[Task]:
    """Every run there is to make: one replay of a case, and a prediction of it for each seed.

    A recording of an unknown guest is replayed alone.

    Args:
        first_write_costs_ns: of the predictions, by case; 0 where it is not named.

    Raises:
        RecordingError: a recording that cannot be simulated.
    """
    tasks: list[Task] = []
    for place, case in enumerate(cases):
        for mode in modes:
            if mode == "predict" and not case.recording.predictable:
                continue
            cost_ns = (first_write_costs_ns or {}).get(case.recording.case, 0.0)
            predict = partial(predict_config, first_write_cost_ns=cost_ns)
            build: Callable[..., Config] = replay_config if mode == "replay" else predict
            try:
                choose_backend(resolve(build(case.recording)))
            except ConfigError as error:
                message = f"cannot be simulated: {error}"
                raise RecordingError(case.recording.case, message) from None
            runs = 1 if mode == "replay" else seeds
            tasks += [(place, mode, build(case.recording, seed)) for seed in range(1, runs + 1)]
    return tasks


def run(cases: Sequence[Case], tasks: Sequence[Task]) -> None:
    """Make the runs, in parallel processes where there is more than one core, and file them."""
    for (place, mode, _), result in zip(tasks, map_with_bar(_simulate, tasks), strict=True):
        cases[place].runs.setdefault(mode, []).append(result)


def _simulate(task: Task) -> Quantities:
    return simulated(simulate(task[2]))


if __name__ == "__main__":
    sys.exit(main())
