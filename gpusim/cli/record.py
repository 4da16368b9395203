"""gpusim-record: a live migration of a real QEMU, recorded into one file.

It reads the command line, calls what records, writes whole files and turns every error into a line.
What is imported before the signals have their handlers is small, so that Ctrl-C always ends in a line.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from gpusim.monitor.signals import ended_by_signals, interruptible

EXIT_FAILED, EXIT_INPUT = 1, 2
QEMU = "qemu-system-x86_64"
SAMPLING = "page-sampling"
MOST_REPEATS = 26  # letters of a file's name


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code: 0, 1 (no recording), 2 (bad input), 128 + signal."""
    return interruptible(lambda: _run(options_of(arguments)), whole_process=arguments is None)


def options_of(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line; options may stand before, between and behind the scenario's changes."""
    return _parser().parse_intermixed_args(arguments)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gpusim-record",
        description="Record a live migration of a real QEMU, for gpusim-validate.",
    )
    parser.add_argument(
        "scenario", nargs="?", metavar="SCENARIO", help="one of --list, or a .yaml file of your own"
    )
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="KEY=VALUE",
        help="of the scenario, such as guest.rate=20000",
    )
    parser.add_argument("--list", action="store_true", help="list the scenarios and end")
    parser.add_argument(
        "--qemu",
        metavar="BINARY",
        help=f"default: {QEMU}",
    )
    parser.add_argument(
        "--repeats", type=_repeats, metavar="N", help="recordings to make; default: 1"
    )
    parser.add_argument(
        "--measure",
        choices=("quick", "full"),
        help="measure the dirty rate before, as gpusim-predict does: a profile in the recording",
    )
    parser.add_argument(
        "--mode",
        choices=(SAMPLING, "dirty-bitmap"),
        help="with --measure: of calc-dirty-rate; default: page-sampling",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("outputs/recordings"),
        metavar="FOLDER",
        help="where NAME.qemuMAJOR.a.json.xz appears, or b, c, ...; default: outputs/recordings",
    )
    others = parser.add_argument_group("a VM that runs anyway (docs/attach.md)")
    others.add_argument(
        "--qmp",
        metavar="SOCKET",
        help="watch the VM behind this monitor: wait for a migration, or join one; only asks",
    )
    others.add_argument(
        "--trace-log", type=Path, metavar="FILE", help="with --qmp: that QEMU traces into (-D)"
    )
    others.add_argument(
        "--limit",
        type=_seconds,
        metavar="SECONDS",
        help="with --qmp: of the migration to watch; default: to its end",
    )
    others.add_argument(
        "--libvirt", type=Path, metavar="FILE", help="convert a log of virsh domjobinfo"
    )
    others.add_argument(
        "--events", type=Path, metavar="FILE", help="with --libvirt: of virsh qemu-monitor-event"
    )
    others.add_argument("--name", help="with --qmp and --libvirt: of the file; default: attached")
    return parser


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text}: seconds, above 0")
    return seconds


def _repeats(text: str) -> int:
    if not (text.isdecimal() and 1 <= int(text) <= MOST_REPEATS):
        raise argparse.ArgumentTypeError(f"{text}: a whole number from 1 to {MOST_REPEATS}")
    return int(text)


def _run(options: argparse.Namespace) -> int:
    from gpusim.errors import ConfigError
    from gpusim.monitor.qmp import LiveError
    from gpusim.record.files import CannotWriteError

    try:
        if options.list:
            return _list()
        _check_together(options)
        if options.qmp or options.libvirt:
            return _watch(options)
        return _record(options)
    except (ConfigError, CannotWriteError) as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_INPUT
    except LiveError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_FAILED


def _list() -> int:
    from gpusim.record.scenarios import names

    for name, purpose in names().items():
        print(f"{name:<18}{purpose}")
    return 0


def _check_together(options: argparse.Namespace) -> None:
    from gpusim.config.checks import reject

    for option, wanted in (
        ("trace_log", "qmp"),
        ("limit", "qmp"),
        ("events", "libvirt"),
        ("name", "qmp or libvirt"),
        ("mode", "measure"),
    ):
        given = getattr(options, option)
        if given is not None and not any(getattr(options, key) for key in wanted.split(" or ")):
            means = " or ".join(f"--{key}" for key in wanted.split(" or "))
            reject(f"--{option.replace('_', '-')}", given, f"goes with {means}")
    if options.qmp and options.libvirt:
        reject("--libvirt", options.libvirt, "converts logs, --qmp watches; name one of them")
    if not (options.qmp or options.libvirt):
        return
    for option in ("qemu", "repeats", "measure"):
        if getattr(options, option) is not None:
            reject(f"--{option}", getattr(options, option), "is for a QEMU of ours; leave it out")
    if options.scenario:
        reject(
            "SCENARIO", options.scenario, "is for a QEMU of ours; leave it out for one that runs"
        )


def _watch(options: argparse.Namespace) -> int:
    """Record a migration of somebody else's VM, as it happens or from virsh's logs."""
    from gpusim.monitor.qmp import require_qmp
    from gpusim.record.attached import attach
    from gpusim.record.files import check_folder, write_recording
    from gpusim.record.libvirt import convert
    from gpusim.record.report import line, seen

    check_folder(options.out)
    if options.libvirt:
        document = convert(options.libvirt, options.events)
    else:
        require_qmp()
        print(f"watching {options.qmp}; Ctrl-C ends, and keeps what was seen", flush=True)
        with line() as tell:
            watching = attach(options.qmp, tell, options.trace_log, options.limit)
            document = ended_by_signals(watching)
    path = write_recording(document, options.out, options.name or "attached")
    print(seen(document, path), flush=True)
    return 0


def _record(options: argparse.Namespace) -> int:
    """Start a QEMU of our own for each repeat."""
    from gpusim.config.checks import reject
    from gpusim.monitor.qmp import require_qmp
    from gpusim.record.files import check_folder, write_recording
    from gpusim.record.machine import program
    from gpusim.record.report import line, summary
    from gpusim.record.scenarios import load_scenario, names
    from gpusim.record.session import record

    if options.scenario is None:
        reject("SCENARIO", "none", f"name one of {', '.join(names())}, or a .yaml file")
    scenario = load_scenario(options.scenario, options.overrides)
    mode = options.mode or SAMPLING
    if mode != SAMPLING and scenario.accelerator == "tcg":
        reject("--mode", mode, f"under TCG it counts nothing; expected {SAMPLING}")
    check_folder(options.out)
    require_qmp()
    program(options.qemu or QEMU)
    for _ in range(options.repeats or 1):
        print(f"recording {options.scenario}, at most {scenario.limit_s:g} s", flush=True)
        with line() as tell:
            recording = record(scenario, options.qemu or QEMU, tell, options.measure, mode)
            document = ended_by_signals(recording)
        path = write_recording(document, options.out, Path(options.scenario).stem)
        print(summary(document, path), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
