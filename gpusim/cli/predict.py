"""gpusim-predict: predict the migration of a VM from its dirty rate, and advise on its settings.

It reads the command line, calls the modules that measure, predict and advise, and writes whole files.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TextIO, TypeVar

from gpusim.arguments import (
    Parser,
    duration_ns,
    input_path,
    is_file,
    output_path,
    path_text,
    percent,
    short_ns,
    size_bytes,
    whole,
)
from gpusim.cli.explain import explain_file, read_file
from gpusim.cli.predict_fleet import check_fleet, run_fleet
from gpusim.cli.predict_outputs import check_outputs
from gpusim.command import run_command, run_process
from gpusim.monitor.signals import run_until_signal
from gpusim.units import MOST_VCPUS

if TYPE_CHECKING:
    from gpusim.explore.bounds import Bounds
    from gpusim.explore.bounds_search import ChangeWithin
    from gpusim.explore.goal_search import BetterSettings
    from gpusim.explore.run_pool import RunPool
    from gpusim.explore.setting_limits import Advice
    from gpusim.formats.profile import Profile
    from gpusim.predict.host_config import HostConfig
    from gpusim.predict.prediction import Prediction

MOST_SEED = 2**62
GOALS = ("fastest", "least-loss")
MOST_EFFORT = 100
UNITS = ("ms", "s", "min", "h", "%")  # of a limit
T = TypeVar("T")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return run_command("gpusim-predict", lambda: _run(_parsed(arguments)))


def _parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    return _parser().parse_intermixed_args(arguments)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="gpusim-predict",
        description="Predict the live migration of a VM from its dirty rate, and advise on settings.",
    )
    parser.add_argument(
        "arguments",
        nargs="*",
        metavar="FILE | KEY=VALUE",
        help="FILE: a profile (JSON or YAML), a recording of an earlier migration, answers of "
        "query-migrate, output of virsh domjobinfo or info migrate, or a log of virt-launcher, "
        "vdsm, nova-compute or Proxmox VE. Its content tells its kind. KEY=VALUE: a setting of the "
        "host, as gpusim takes it, such as link=25gbit or migration.downtime_limit=500",
    )
    _add_measuring(parser.add_argument_group("measure a profile first"))
    _add_answer(parser.add_argument_group("the answer"))
    return parser


def _add_measuring(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--measure", action="store_true", help="measure a running VM with QEMU's calc-dirty-rate")
    add(
        "--qmp",
        type=path_text,
        metavar="SOCKET",
        help="the VM's monitor. No other program may use it meanwhile",
    )
    add(
        "--mode",
        choices=("page-sampling", "dirty-bitmap", "dirty-ring"),
        help="how QEMU measures. Default: page-sampling, which does not slow the guest",
    )
    add("--quick", action="store_true", help="measure up to 10 s instead of up to 60 s")
    add(
        "--save",
        type=output_path,
        metavar="FILE",
        help="file of the profile. Default: profile.json",
    )
    add(
        "--domstats",
        type=input_path,
        metavar="FILE",
        help="instead of --measure: a log of virsh domstats --dirtyrate, printed after each of "
        "several virsh domdirtyrate-calc",
    )
    add("--domain", metavar="NAME", help="the VM, if the log of virsh domstats has several")
    add(
        "--fleet",
        type=input_path,
        metavar="FILE",
        help="instead of a profile: one dirty rate for each of many VMs, as CSV, virsh domstats "
        "--dirtyrate, Prometheus text or JSON. Answers never, surely or measure further",
    )
    source = "with virsh domstats or --fleet. Default: from virsh dominfo, or from the file"
    add("--memory", type=size_bytes, metavar="SIZE", help=f"memory of the VM, {source}")
    add("--vcpus", type=whole(1, MOST_VCPUS), metavar="N", help=f"vCPUs of the VM, {source}")


def _add_answer(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add(
        "--explain",
        action="store_true",
        help="FILE is of an earlier migration: what happened, why, and what would have helped",
    )
    add(
        "--goal",
        choices=GOALS,
        help="search for better throttle settings: least total time, or least guest CPU lost",
    )
    add(
        "--deadline",
        type=duration_ns,
        metavar="TIME",
        help='is the total time at most this long, such as "20min"?',
    )
    add(
        "--max-downtime",
        type=short_ns,
        metavar="TIME",
        help='is the downtime at most this long, such as "1s"?',
    )
    add(
        "--max-stall",
        type=short_ns,
        metavar="TIME",
        help='does the throttle stop a vCPU for at most this long, such as "200ms"?',
    )
    add(
        "--max-loss",
        type=percent,
        metavar="PERCENT",
        help='does the guest lose at most this share of its CPU time, such as "5%%"?',
    )
    add("--no-advice", action="store_true", help="predict only")
    add(
        "--effort",
        type=whole(1, MOST_EFFORT),
        metavar="N",
        help="of advice and --goal: N times finer values, N times as many settings, and runs that "
        "may take N times as long. Default: 1",
    )
    add(
        "--members",
        type=_members,
        metavar="N",
        help="number of migrations to simulate. Default: 32, and down to 12 for large VMs",
    )
    add(
        "--seed",
        type=whole(0, MOST_SEED),
        default=1,
        metavar="N",
        help="of all random draws. Default: 1",
    )
    add(
        "--json",
        type=output_path,
        metavar="FILE",
        help="write the answer as JSON. - is standard output",
    )
    add(
        "--csv",
        type=output_path,
        metavar="FILE",
        help="with --fleet: write all VMs as CSV. - is standard output",
    )
    add(
        "--report",
        type=output_path,
        metavar="FOLDER",
        help="write a page with the prediction and an example migration",
    )
    add(
        "--experiment",
        type=output_path,
        metavar="FILE",
        help="write the fitted VM as an experiment for gpusim",
    )


def _members(text: str) -> int:
    from gpusim.predict.ensemble import FEWEST, MOST

    return whole(FEWEST, MOST)(text)


def _run(options: argparse.Namespace) -> int:
    from gpusim.fit import require_scipy

    settings = [one for one in options.arguments if "=" in one or one.startswith("~")]
    files = [one for one in options.arguments if one not in settings or is_file(one)]
    options.overrides = [one for one in options.arguments if one not in files]
    if options.fleet:
        check_fleet(options, files)
        return run_fleet(options, _bounds(options))
    _check(options, files)
    if options.profile is None:
        return _answer(options, _profile(options))
    intake = read_file(options)
    if intake.profile is not None:  # a coarse answer fits no guest
        require_scipy()
    if intake.profile is None or options.explain:
        return explain_file(
            options, intake, _bounds(options), _messages_to(options), _with_progress_bar
        )
    return _answer(options, intake.profile)


def _messages_to(options: argparse.Namespace) -> TextIO:
    """Return the stream for messages, which must not mix with JSON on standard output."""
    return sys.stderr if str(options.json) == "-" else sys.stdout


def _check(options: argparse.Namespace, files: Sequence[str]) -> None:
    """Check the options and their combination before any work starts."""
    from gpusim.config.checks import reject
    from gpusim.errors import require
    from gpusim.fit import require_scipy
    from gpusim.predict.host_config import check_overrides

    options.profile = files[0] if files else None
    if len(files) > 1:
        hint = "name one profile. Write a setting as KEY=VALUE"
        unit = next((one for one in files if one in UNITS), None)
        if unit is not None:
            hint = f"name one profile. Write a limit without a space, such as 30{unit}"
        reject("PROFILE", ", ".join(files), hint)
    sources = [options.profile, "--measure" * options.measure, options.domstats]
    if sum(map(bool, sources)) != 1:
        given = ", ".join(str(one) for one in sources if one) or "none"
        reject(
            "PROFILE",
            given,
            "name one of: a profile, --measure --qmp SOCKET, --domstats FILE, --fleet FILE",
        )
    if options.measure and not options.qmp:
        reject("--qmp", "none", "--measure needs the VM's monitor. Add --qmp SOCKET")
    for option, needed in (
        ("qmp", "measure"), ("mode", "measure"), ("quick", "measure"), ("save", "measure"),
        ("memory", "domstats"), ("vcpus", "domstats"), ("domain", "domstats"), ("csv", "fleet"),
    ):  # fmt: skip
        if getattr(options, option) and not getattr(options, needed):
            if needed == "domstats" and options.profile:
                continue  # the file may be one of virsh domstats
            reject(f"--{option}", "given", f"needs --{needed}")
    if options.explain and not options.profile:
        reject("--explain", "given", "needs the file of a migration")
    options.save = options.save or Path("profile.json")
    if options.measure and options.save.exists():
        reject("--save", options.save, "exists. Name another file, or predict from this one")
    check_outputs(options, ("save", "json", "experiment"))
    if options.report:
        require("matplotlib", "plot", "--report: ")
    if not options.profile:
        require_scipy()
    if options.goal:
        require("optuna", "predict", "--goal: ")
    if options.measure:
        check_overrides(options.overrides)


def _profile(options: argparse.Namespace) -> Profile:
    if options.measure:
        return run_until_signal(_measured(options))
    from gpusim.formats.virsh import load_domstats

    return load_domstats(options.domstats, options.memory, options.vcpus, options.domain)


async def _measured(options: argparse.Namespace) -> Profile:
    from gpusim.cli.progress_line import progress_line
    from gpusim.files import write_text
    from gpusim.formats.profile import check_plausible
    from gpusim.monitor.commands import MEASURING
    from gpusim.monitor.dirty_rate import inspect_vm, measure_dirty_rate, plan_measurements
    from gpusim.monitor.plan_text import describe_plan
    from gpusim.monitor.qmp import Monitor

    async with Monitor(options.qmp, MEASURING) as monitor:
        vm = await inspect_vm(monitor)
        plan = plan_measurements(vm, options.mode or "page-sampling", quick=options.quick)
        print("\n".join(describe_plan(vm, plan)), file=_messages_to(options), flush=True)
        with progress_line() as progress:
            profile = await measure_dirty_rate(monitor, vm, plan, progress)
    write_text(options.save, json.dumps(profile.document(), indent=1, allow_nan=False) + "\n")
    print(
        f"{options.save}: {len(profile.measurements)} measurements\n",
        file=_messages_to(options),
        flush=True,
    )
    check_plausible(options.save, profile)
    return profile


def _answer(options: argparse.Namespace, profile: Profile) -> int:
    from gpusim.explore.workers import kept_processes
    from gpusim.files import write_text
    from gpusim.predict.document import document
    from gpusim.predict.ensemble import load_engine, predict
    from gpusim.predict.experiment import experiment_yaml
    from gpusim.predict.host_config import host_config
    from gpusim.predict.terminal import prediction_lines

    host = host_config(profile, options.overrides)
    if options.goal:
        _check_goal(options.goal, host)
    with kept_processes(load_engine):  # they start while the guest is fitted
        prediction = predict(
            profile,
            host,
            members=options.members,
            seed=options.seed,
            progress=_with_progress_bar,
        )
        prediction = replace(prediction, bounds=_bounds(options))
        prediction, advice, better = _advised(options, prediction, host)
    numbers = json.dumps(document(prediction, advice, better), indent=1, allow_nan=False) + "\n"
    if str(options.json) == "-":
        print(numbers, end="")
    else:
        print(prediction_lines(prediction, advice, better))
        if options.json:
            write_text(options.json, numbers)
    if options.experiment:
        write_text(options.experiment, experiment_yaml(prediction, options.experiment))
    if options.report:
        from gpusim.predict.report import write_report

        print(write_report(prediction, advice, better, options.report), file=_messages_to(options))
    return 0


def _check_goal(goal: str, host: HostConfig) -> None:
    """Refuse a search for settings of a throttle if the manager has no throttle."""
    from gpusim.config.checks import reject
    from gpusim.explore.changes import has_throttle

    if not has_throttle(host.config):
        reject("--goal", goal, "needs a throttle, and Cloud Hypervisor has none. Leave --goal out")


def _advised(
    options: argparse.Namespace, prediction: Prediction, host: HostConfig
) -> tuple[Prediction, Advice | None, BetterSettings | None]:
    """Return the prediction with a change that keeps the bounds, the advice, and better settings.

    All of them share their runs. A migration that ends with the load needs settings under which it
    ends before.
    """
    from gpusim.explore.run_pool import MOST_STEPS, RunPool

    advice, better = None, None
    if options.no_advice and not options.goal:
        return prediction, None, None
    median_guest = prediction.median_member.config_under_load
    p95_guest = prediction.p95_member.config_under_load
    effort = options.effort or 1
    with RunPool(most_steps=MOST_STEPS * effort) as pool:
        if not options.no_advice:
            from gpusim.explore.setting_limits import advise
            from gpusim.predict.postcopy_comparison import compare_ways, ways_to_compare

            ways = ways_to_compare(prediction, host.postcopy_costs, options.seed)
            pool.run_when_idle(ways.runs())
            prediction = replace(prediction, change_within=_change_within(prediction, pool))
            advice = advise(median_guest, p95_guest, effort=effort, pool=pool)
            compared = compare_ways(ways, prediction.bounds, pool)
            prediction = replace(prediction, ways=compared)
        if options.goal:
            from gpusim.explore.goal_search import TRIALS, search_goal

            hardest = prediction.p95_within_bounds if prediction.bounds else prediction.p95_member
            better = search_goal(
                median_guest,
                options.goal.replace("-", "_"),
                prediction.bounds,
                p95_guest=hardest.config_under_load,
                members=[(one.config_under_load, one.summary) for one in prediction.members],
                trials=TRIALS * effort,
                pool=pool,
            )
    return prediction, advice, better


def _bounds(options: argparse.Namespace) -> Bounds:
    """Return what the user allows."""
    from gpusim.explore.bounds import Bounds
    from gpusim.units import NS_PER_MS, NS_PER_S

    def in_units(time_ns: int | None, unit_ns: int) -> float | None:
        return None if time_ns is None else time_ns / unit_ns

    return Bounds(
        total_time_s=in_units(options.deadline, NS_PER_S),
        downtime_ms=in_units(options.max_downtime, NS_PER_MS),
        longest_vcpu_stall_ms=in_units(options.max_stall, NS_PER_MS),
        guest_cpu_lost_percent=options.max_loss,
    )


def _change_within(prediction: Prediction, pool: RunPool) -> ChangeWithin | None:
    """Return the change with which the bounds are kept, if 19 of 20 migrations do not keep them."""
    from gpusim.explore.bounds_search import find_change
    from gpusim.predict.bounds_text import kept

    if all(one.code == "yes" for one in kept(prediction)):
        return None
    return find_change(
        prediction.median_member.config_under_load,
        prediction.p95_within_bounds.config_under_load,
        prediction.bounds,
        pool=pool,
    )


def _with_progress_bar(members: Iterator[T], count: int) -> Iterator[T]:
    from tqdm import tqdm

    yield from tqdm(members, total=count, unit="run", desc="simulating", disable=None, leave=False)


if __name__ == "__main__":
    sys.exit(run_process("gpusim-predict", main))
