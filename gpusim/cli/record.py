"""gpusim-record: record a live migration of a real QEMU into one file.

It reads the command line, calls the recorder, and writes complete files.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from gpusim.arguments import Parser, file_name, input_path, output_path, path_text, seconds, whole
from gpusim.command import run_command, run_process
from gpusim.monitor.signals import run_until_signal

QEMU = "qemu-system-x86_64"
SAMPLING = "page-sampling"
NOT_ATTACHED = (
    "works only with a QEMU that gpusim-record starts. Leave it out with --qmp, --libvirt or "
    "--answers"
)
MOST_REPEATS = 26  # the letters at the end of a file's name


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return run_command("gpusim-record", lambda: _run(parse_options(arguments)))


def parse_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line.

    Options may stand before, between and after the scenario's changes.
    """
    return _parser().parse_intermixed_args(arguments)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="gpusim-record",
        description="Record a live migration of a real QEMU, for gpusim-validate.",
    )
    parser.add_argument(
        "scenario",
        type=path_text,
        nargs="?",
        metavar="SCENARIO",
        help="a name from --list, or a .yaml file of your own",
    )
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="KEY=VALUE",
        help="changes of the scenario, such as guest.rate=20000",
    )
    parser.add_argument("--list", action="store_true", help="list the scenarios and exit")
    parser.add_argument(
        "--qemu", type=path_text, metavar="BINARY", help=f"QEMU to start (default: {QEMU})"
    )
    parser.add_argument(
        "--repeats",
        type=whole(1, MOST_REPEATS),
        metavar="N",
        help="number of recordings (default: 1)",
    )
    parser.add_argument(
        "--measure",
        choices=("quick", "full"),
        help=(
            "before the migration, measure the dirty rate as gpusim-predict does, and keep the "
            "profile"
        ),
    )
    parser.add_argument(
        "--mode",
        choices=(SAMPLING, "dirty-bitmap"),
        help=f"with --measure: mode of calc-dirty-rate (default: {SAMPLING})",
    )
    parser.add_argument(
        "--out",
        type=output_path,
        default=Path("outputs/recordings"),
        metavar="FOLDER",
        help="folder for NAME.qemuMAJOR.a.json.xz, or b, c, ... (default: outputs/recordings)",
    )
    others = parser.add_argument_group(
        "record a VM that already runs (docs/how-to/watch-a-migration.md)"
    )
    others.add_argument(
        "--qmp",
        type=path_text,
        metavar="SOCKET",
        help="monitor of the VM: wait for a migration, or join one. Sends only queries",
    )
    others.add_argument(
        "--trace-log",
        type=input_path,
        metavar="FILE",
        help="with --qmp: file that QEMU traces into (-D)",
    )
    others.add_argument(
        "--limit",
        type=seconds,
        metavar="SECONDS",
        help="with --qmp: stop after so many seconds of the migration (default: at its end)",
    )
    others.add_argument(
        "--libvirt", type=input_path, metavar="FILE", help="convert a log of virsh domjobinfo"
    )
    others.add_argument(
        "--events",
        type=input_path,
        metavar="FILE",
        help="with --libvirt: log of virsh qemu-monitor-event",
    )
    others.add_argument(
        "--answers",
        type=input_path,
        metavar="FILE",
        help="convert a file of query-migrate's answers",
    )
    others.add_argument(
        "--fact",
        action="append",
        metavar="KEY=VALUE",
        help="with --answers: a fact that is not in the file, such as qemu=10.1, accelerator=kvm, "
        "max-bandwidth=1GiB/s or auto-converge=on",
    )
    others.add_argument(
        "--name",
        type=file_name,
        help="with --qmp, --libvirt and --answers: NAME of the file (default: attached)",
    )
    return parser


def _run(options: argparse.Namespace) -> int:
    if options.list:
        return _list()
    _check_together(options)
    if options.qmp or options.libvirt or options.answers:
        return _record_attached(options)
    return _record_own(options)


def _list() -> int:
    from gpusim.record.scenarios import list_scenarios
    from gpusim.text import text_table

    print(text_table(list_scenarios().items(), left_columns=(0, 1)))
    return 0


def _check_together(options: argparse.Namespace) -> None:
    from gpusim.config.checks import reject

    for option, wanted in (
        ("trace_log", ("qmp",)),
        ("limit", ("qmp",)),
        ("events", ("libvirt",)),
        ("fact", ("answers",)),
        ("name", ("qmp", "libvirt", "answers")),
        ("mode", ("measure",)),
    ):
        given = getattr(options, option)
        if given is not None and not any(getattr(options, key) for key in wanted):
            owners = " or ".join(f"--{key}" for key in wanted)
            reject(f"--{option.replace('_', '-')}", given, f"needs {owners}")
    sources = [key for key in ("qmp", "libvirt", "answers") if getattr(options, key)]
    if len(sources) > 1:
        key, others = sources[-1], " and ".join(f"--{key}" for key in sources[:-1])
        reject(f"--{key}", getattr(options, key), f"excludes {others}. Give one of them")
    if not sources:
        return
    for option in ("qemu", "repeats", "measure"):
        if getattr(options, option) is not None:
            reject(f"--{option}", getattr(options, option), NOT_ATTACHED)
    if options.scenario:
        reject("SCENARIO", options.scenario, NOT_ATTACHED)


def _record_attached(options: argparse.Namespace) -> int:
    """Record a migration of another program's VM, as it happens or from a file."""
    from gpusim.cli.progress_line import progress_line
    from gpusim.formats import recording_from_answers as answers
    from gpusim.formats.recording_from_virsh import convert
    from gpusim.monitor.errors import LiveError
    from gpusim.record.attached import attach
    from gpusim.record.cut_file import CutFile
    from gpusim.record.files import check_folder, write_recording
    from gpusim.record.summary import summarize_attached

    check_folder(options.out)
    name = options.name or "attached"
    cut = CutFile(options.out, name)
    if options.libvirt:
        document = convert(options.libvirt, options.events)
    elif options.answers:
        document = answers.convert(options.answers, answers.parse_facts(options.fact or ()))
    else:
        print(f"watching {options.qmp}. Ctrl-C stops and keeps the recording so far", flush=True)
        with progress_line() as progress:
            watching = attach(options.qmp, progress, options.trace_log, options.limit, cut)
            try:
                document = run_until_signal(watching)
            except LiveError:
                cut.remove()
                raise
    path = write_recording(document, options.out, name)
    cut.remove()
    print(summarize_attached(document, path), flush=True)
    return 0


def _record_own(options: argparse.Namespace) -> int:
    """Start a QEMU for each repeat, and record its migration."""
    from gpusim.cli.progress_line import progress_line
    from gpusim.config.checks import reject
    from gpusim.record.files import check_folder, write_recording
    from gpusim.record.machine import find_program
    from gpusim.record.scenarios import list_scenarios, load_scenario
    from gpusim.record.session import record
    from gpusim.record.summary import summarize_own

    if options.scenario is None:
        reject("SCENARIO", "none", f"give a .yaml file or one of {', '.join(list_scenarios())}")
    scenario = load_scenario(options.scenario, options.overrides)
    try:
        file_name(Path(options.scenario).stem)
    except argparse.ArgumentTypeError as error:
        reject("SCENARIO", options.scenario, f"its name, {error}")
    mode = options.mode or SAMPLING
    if mode != SAMPLING and scenario.accelerator == "tcg":
        reject("--mode", mode, f"counts nothing under TCG. Expected {SAMPLING}")
    check_folder(options.out)
    find_program(options.qemu or QEMU)
    for _ in range(options.repeats or 1):
        print(f"recording {options.scenario}, at most {scenario.limit_s:g} s", flush=True)
        with progress_line() as progress:
            recording = record(scenario, options.qemu or QEMU, progress, options.measure, mode)
            document = run_until_signal(recording)
        path = write_recording(document, options.out, Path(options.scenario).stem)
        print(summarize_own(document, path), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(run_process("gpusim-record", main))
