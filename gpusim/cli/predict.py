"""gpusim-predict: will this VM migrate, how long will it take, what will its guest feel, what should be set?

It reads the command line, calls what measures, predicts and advises, writes whole files and turns every
error into a line.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TextIO, TypeVar

from gpusim.monitor.signals import ended_by_signals, interruptible

if TYPE_CHECKING:
    from gpusim.explore.goal_search import BetterSettings
    from gpusim.explore.setting_limits import Advice
    from gpusim.formats.profile import Profile
    from gpusim.predict.prediction import Prediction

EXIT_FAILED, EXIT_INPUT = 1, 2
HINTS = r"\n\s*full_key:|\nTo append to your config|\nConfig search path:"  # behind what is wrong
GOALS = ("fastest", "least-loss")
# A whole answer shall take less than a minute on two cores: so long for the ensemble, where --members does not
# ask for so many, and for all of the advice.
MEMBERS_WALL_S, ADVICE_WALL_S = 28.0, 20.0
GOAL_WALL_S = 20.0  # the same for a goal
T = TypeVar("T")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code: 0, 1 (no answer), 2 (bad input), 128 + signal."""
    return interruptible(lambda: _run(_parsed(arguments)), whole_process=arguments is None)


def _parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    return _parser().parse_intermixed_args(arguments)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gpusim-predict",
        description="Predict the live migration of a VM from its dirty rate, and advise.",
    )
    parser.add_argument(
        "words",
        nargs="*",
        metavar="PROFILE | KEY=VALUE",
        help="a profile, JSON or YAML, or a recording of an earlier migration (gpusim-record --qmp); "
        "keys of the host as gpusim takes them: link=25gbit, migration.downtime_limit=500",
    )
    _add_measuring(parser.add_argument_group("measure first"))
    _add_answer(parser.add_argument_group("the answer"))
    return parser


def _add_measuring(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--measure",
        action="store_true",
        help="a running VM's dirty rate, by QEMU's calc-dirty-rate",
    )
    group.add_argument("--qmp", metavar="SOCKET", help="the VM's monitor, which nobody else uses")
    group.add_argument(
        "--mode",
        choices=("page-sampling", "dirty-bitmap", "dirty-ring"),
        help="default: page-sampling, which costs the guest nothing",
    )
    group.add_argument("--quick", action="store_true", help="periods of up to 10 s instead of 60 s")
    group.add_argument(
        "--save", type=Path, metavar="FILE", help="where the profile is kept; default: profile.json"
    )
    group.add_argument(
        "--domstats",
        type=Path,
        metavar="FILE",
        help="instead: a log of virsh domstats --dirtyrate after each of several domdirtyrate-calc",
    )
    group.add_argument(
        "--memory",
        metavar="SIZE",
        help="with --domstats: the VM's; default: as virsh dominfo says in the same log",
    )
    group.add_argument("--vcpus", type=int, metavar="N", help="the same")


def _add_answer(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--goal",
        choices=GOALS,
        help="look for better throttle settings: least time, or least guest loss",
    )
    group.add_argument(
        "--deadline", metavar="TIME", help='with --goal: total time, such as "20min"'
    )
    group.add_argument("--no-advice", action="store_true", help="predict only")
    group.add_argument(
        "--members", type=int, metavar="N", help="migrations to simulate; default: 32"
    )
    group.add_argument(
        "--seed", type=int, default=1, metavar="N", help="of all that is drawn; default: 1"
    )
    group.add_argument(
        "--json", type=Path, metavar="FILE", help="the answer for programs; - is stdout"
    )
    group.add_argument(
        "--report", type=Path, metavar="FOLDER", help="the middle run, with a page on top"
    )
    group.add_argument(
        "--experiment", type=Path, metavar="FILE", help="the fitted VM as an experiment for gpusim"
    )


def _run(options: argparse.Namespace) -> int:
    from concurrent.futures import BrokenExecutor

    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from gpusim.errors import ConfigError, ResultsError
    from gpusim.formats.profile import ProfileError
    from gpusim.formats.recording import RecordingError
    from gpusim.monitor.qmp import LiveError
    from gpusim.record.files import CannotWriteError

    try:
        _check(options)
        return _answer(options, _profile(options))
    except (ConfigError, ProfileError, RecordingError, ResultsError, CannotWriteError) as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_INPUT
    except (HydraException, OmegaConfBaseException) as error:
        print(f"error: {_in_a_line(error)}", file=sys.stderr)
        return EXIT_INPUT
    except (LiveError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_FAILED
    except (MemoryError, BrokenExecutor):
        print(
            "error: out of memory, or a process was killed, as it is when memory runs out",
            file=sys.stderr,
        )
        return EXIT_FAILED


def _in_a_line(error: BaseException) -> str:
    """What Hydra and OmegaConf say of a key, without their hints for other commands, and why."""
    said = " ".join(re.split(HINTS, str(error))[0].split())
    cause = error.__cause__
    why = "" if cause is None else " ".join(re.split(HINTS, str(cause))[0].split())
    return said if not why or why in said else f"{said.rstrip('.')}: {why}"


def _aside(options: argparse.Namespace) -> TextIO:
    """Where words go that are not the answer: not between a program and its JSON."""
    return sys.stderr if str(options.json) == "-" else sys.stdout


def _check(options: argparse.Namespace) -> None:
    """Refuse what does not go together, before anything is started."""
    from gpusim.config.checks import check_range, check_whole, parse_duration_ns, parse_size, reject
    from gpusim.errors import require
    from gpusim.files import can_be_written
    from gpusim.predict.ensemble import FEWEST, MOST
    from gpusim.predict.settings import check
    from gpusim.record.files import check_folder

    files = [one for one in options.words if "=" not in one or Path(one).is_file()]
    options.overrides = [one for one in options.words if one not in files]
    options.profile = files[0] if files else None
    if len(files) > 1:
        reject("PROFILE", ", ".join(files), "name one; what is changed is written as KEY=VALUE")
    sources = [options.profile, "--measure" * options.measure, options.domstats]
    if sum(map(bool, sources)) != 1:
        given = ", ".join(str(one) for one in sources if one) or "none"
        reject("PROFILE", given, "name one profile, or --measure --qmp SOCKET, or --domstats FILE")
    if options.measure and not options.qmp:
        reject("--qmp", "none", "--measure needs the VM's monitor: --qmp SOCKET")
    for option, wanted in (
        ("qmp", "measure"), ("mode", "measure"), ("quick", "measure"), ("save", "measure"),
        ("memory", "domstats"), ("vcpus", "domstats"), ("deadline", "goal"),
    ):  # fmt: skip
        if getattr(options, option) and not getattr(options, wanted):
            reject(f"--{option}", getattr(options, option), f"goes with --{wanted}")
    if options.memory:
        parse_size("--memory", options.memory)
    if options.vcpus is not None:
        check_whole("--vcpus", options.vcpus, 1, 4096)
    check_whole("--seed", options.seed, 0, 2**62)
    if options.members is not None:
        check_range("--members", options.members, FEWEST, MOST)
    if options.deadline:
        parse_duration_ns("--deadline", options.deadline)
    options.save = options.save or Path("profile.json")
    if options.measure and options.save.exists():
        reject("--save", options.save, "is there already; name another file, or predict from it")
    for key, path in (
        ("save", options.save),
        ("json", options.json),
        ("experiment", options.experiment),
    ):
        if path is not None and str(path) != "-" and not can_be_written(path):
            reject(f"--{key}", path, "cannot be written; expected a file in a folder that is there")
    if options.report:
        check_folder(options.report)
        if options.report.is_dir() and any(options.report.iterdir()):
            reject("--report", options.report, "is not empty; name another folder, or a new one")
        require("matplotlib", "plot", "--report: ")
    require("scipy", "predict", "fitting a guest: ")
    if options.goal:
        require("optuna", "predict", "--goal: ")
    if options.measure:
        check(options.overrides)


def _profile(options: argparse.Namespace) -> Profile:
    if options.measure:
        return ended_by_signals(_measured(options))
    if options.domstats:
        from gpusim.config.checks import parse_size
        from gpusim.formats.virsh import load_domstats

        memory = parse_size("--memory", options.memory) if options.memory else None
        return load_domstats(options.domstats, memory, options.vcpus)
    from gpusim.formats.profile_from_recording import load

    return load(Path(options.profile))


async def _measured(options: argparse.Namespace) -> Profile:
    from gpusim.files import write_text
    from gpusim.formats.profile import check_plausible
    from gpusim.monitor.dirty_rate import announced, looked_at, measured, planned
    from gpusim.monitor.qmp import Monitor, require_qmp
    from gpusim.record.report import line

    require_qmp()
    async with Monitor(options.qmp) as monitor:
        vm = await looked_at(monitor)
        plan = planned(vm, options.mode or "page-sampling", quick=options.quick)
        print("\n".join(announced(vm, plan)), file=_aside(options), flush=True)
        with line() as tell:
            profile = await measured(monitor, vm, plan, tell)
    write_text(options.save, json.dumps(profile.document(), indent=1, allow_nan=False) + "\n")
    print(
        f"{options.save}: {len(profile.measurements)} measurements\n",
        file=_aside(options),
        flush=True,
    )
    check_plausible(options.save, profile)
    return profile


def _answer(options: argparse.Namespace, profile: Profile) -> int:
    from gpusim.files import write_text
    from gpusim.predict import terminal
    from gpusim.predict.document import document
    from gpusim.predict.ensemble import MEMBERS, predicted
    from gpusim.predict.experiment import experiment_yaml
    from gpusim.predict.settings import host_of

    host = host_of(profile, options.overrides)
    count = options.members or MEMBERS
    prediction = predicted(
        profile,
        host,
        members=count,
        seed=options.seed,
        wall_s=None if options.members else MEMBERS_WALL_S,
        told=lambda found: _barred(found, count),
    )
    advice, better = _advised(options, prediction)
    found = json.dumps(document(prediction, advice, better), indent=1, allow_nan=False) + "\n"
    if str(options.json) == "-":
        print(found, end="")
    else:
        print(terminal.lines(prediction, advice, better))
        if options.json:
            write_text(options.json, found)
    if options.experiment:
        write_text(options.experiment, experiment_yaml(prediction, options.experiment))
    if options.report:
        from gpusim.predict.report import write_report

        print(write_report(prediction, advice, better, options.report), file=_aside(options))
    return 0


def _advised(
    options: argparse.Namespace, prediction: Prediction
) -> tuple[Advice | None, BetterSettings | None]:
    from gpusim.config.checks import parse_duration_ns
    from gpusim.explore.setting_limits import advise
    from gpusim.units import NS_PER_S

    median_guest, p95_guest = prediction.median_member.config, prediction.p95_member.config
    found = None
    if not options.no_advice:
        found = advise(median_guest, p95_guest, wall_s=ADVICE_WALL_S)
    if not options.goal:
        return found, None
    from gpusim.explore.goal_search import search_goal

    deadline_s = (
        parse_duration_ns("--deadline", options.deadline) / NS_PER_S if options.deadline else None
    )
    goal = options.goal.replace("-", "_")
    return found, search_goal(
        median_guest, goal, deadline_s, wall_s=GOAL_WALL_S, p95_guest=p95_guest
    )


def _barred(found: Iterator[T], count: int) -> Iterator[T]:
    from tqdm import tqdm

    yield from tqdm(found, total=count, unit="run", desc="simulating", disable=None, leave=False)


if __name__ == "__main__":
    sys.exit(main())
