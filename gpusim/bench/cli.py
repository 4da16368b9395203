"""The command `gpusim-bench`: its options, and the table of what was measured."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from gpusim.arguments import Parser, output_path, parse_digits, refuse, whole
from gpusim.bench import dry_run, gpu_report, primitives, sweep, whole_run
from gpusim.bench.primitives import Row
from gpusim.command import EXIT_INPUT, run_command
from gpusim.config.backend import too_many_threads
from gpusim.files import can_be_written, write_text
from gpusim.layout import CHUNK_PAGES
from gpusim.pages.backends import BACKENDS, device_name, obstacle, too_big
from gpusim.version import __version__

DEFAULT_PAGES = (2**26, 2**30, 2**33)
HEADER = (
    f"{'backend':<7} {'pages':>11}  {'what':<27} {'median ms':>10} {'least':>9} {'most':>9} "
    f"{'x memcpy':>9} {'floor':>7}"
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return run_command("gpusim-bench", lambda: _run(_parser().parse_args(arguments)))


class _InputError(Exception):
    """An option that cannot be used here."""

    exit_code = EXIT_INPUT


def _run(options: argparse.Namespace) -> int:
    if options.gpu_report is not None:
        return _report_gpu(options.gpu_report, quick=options.quick)
    if options.quick:
        raise _InputError("--quick: belongs to --gpu-report FILE. Add it, or leave --quick out")
    names = _backends(options.backend)
    if options.sweep is not None:
        sweep.main(options.sweep, names[0])
        return 0
    if options.dry_run:
        dry_run.main(names)
        return 0
    if warning := too_many_threads("--threads", options.threads):
        print(warning, file=sys.stderr)
    plan = _plan(names, options.pages)
    if options.json is not None and not can_be_written(options.json):
        hint = "cannot be written. Name a file in a writable folder"
        raise _InputError(f"--json {options.json}: {hint}")
    machine = _describe_machine(names, options.threads)
    print("\n".join(f"{name}: {value}" for name, value in machine.items()), end="\n\n")
    print(HEADER)
    rows = []
    for name, pages in plan:
        for row in primitives.measure(name, pages, options.threads, options.repeats):
            rows.append(row)
            print(_row_text(row), flush=True)
        if options.runs:
            rows.append(whole_run.measure(name, pages, options.threads, options.repeats))
            print(_row_text(rows[-1]), flush=True)
    if options.json is not None:
        found = {"machine": machine, "rows": [asdict(row) for row in rows]}
        write_text(options.json, json.dumps(found, indent=1, allow_nan=False) + "\n")
    return 0


def _report_gpu(path: Path, *, quick: bool) -> int:
    found = obstacle("cupy")
    if found is not None:
        raise _InputError(f"--gpu-report {path}: needs a GPU: {found}")
    beside = gpu_report.markdown_path(path)
    if beside == path or not (can_be_written(path) and can_be_written(beside)):
        hint = "cannot be written. Name a file FILE.json in a writable folder"
        raise _InputError(f"--gpu-report {path}: {hint}")
    report = gpu_report.write_report(path, quick=quick)
    print(gpu_report.markdown(report), end="")
    print(path)
    print(beside)
    return 0


def _backends(wanted: list[str] | None) -> list[str]:
    available = [name for name in BACKENDS if obstacle(name) is None]
    for name in wanted or []:
        if name not in available:
            raise _InputError(f"--backend {name}: is not available here: {obstacle(name)}")
    return wanted or available


def _plan(names: Sequence[str], wanted: list[int] | None) -> list[tuple[str, int]]:
    """Return each backend and size that fits memory. A size that the user asks for must fit."""
    plan = []
    for name in names:
        for pages in wanted or DEFAULT_PAGES:
            reason = too_big(name, primitives.count_bytes(pages))
            if reason is None:
                plan.append((name, pages))
            elif wanted:
                raise _InputError(f"--pages {pages}: {reason}. Use fewer pages")
            else:
                print(f"{name}, {pages} pages: left out, {reason}", file=sys.stderr)
    return plan


def _row_text(row: Row) -> str:
    times, floor = (
        "" if value is None else f"{value:.4g}"
        for value in (row.times_memcpy, row.floor_times_memcpy)
    )
    line = (
        f"{row.backend:<7} {row.pages:>11}  {row.what:<27} {row.median_ms:>10.4g} "
        f"{row.least_ms:>9.4g} {row.most_ms:>9.4g} {times:>9} {floor:>7}"
    )
    if row.split_s:
        line += "  parts: " + ", ".join(f"{part} {s:.3g} s" for part, s in row.split_s.items())
    return line


def _describe_machine(names: Sequence[str], threads: int) -> dict[str, Any]:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    cpu = next((n.split(":", 1)[1].strip() for n in lines if n.startswith("model name")), "unknown")
    machine: dict[str, Any] = {
        "gpusim": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "cpu": f"{cpu}, {len(os.sched_getaffinity(0))} cores",
        "threads": threads,
    }
    for name in names:
        if name != "numpy":
            machine[name] = importlib.import_module(name).__version__
    if "cupy" in names:
        machine["gpu"] = device_name("cupy")
    return machine


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="gpusim-bench",
        description="Measure the primitives, draws and a whole run on each backend, in multiples "
        "of memcpy.",
    )
    parser.add_argument(
        "--backend",
        action="append",
        choices=BACKENDS,
        help="repeat it for more. Default: all that are available",
    )
    default = ", ".join(f"2^{pages.bit_length() - 1}" for pages in DEFAULT_PAGES)
    parser.add_argument(
        "--pages",
        type=_pages,
        action="append",
        metavar="N",
        help="pages of the VM: a number or 2^N. Repeat it for more. "
        f"Default: {default}, those that fit memory",
    )
    parser.add_argument("--threads", type=whole(1, 1000), default=1, metavar="N", help="default: 1")
    parser.add_argument("--repeats", type=whole(1, 1000), default=7, metavar="N", help="default: 7")
    parser.add_argument(
        "--runs", action=argparse.BooleanOptionalAction, default=True, help="measure whole runs too"
    )
    parser.add_argument(
        "--sweep",
        type=whole(2, 10**6),
        metavar="POINTS",
        help="measure only the cost of a point of a sweep besides its migration. "
        "2000 points take a minute",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="measure only what dry runs predict and what the runs then take. It takes ten minutes",
    )
    parser.add_argument(
        "--gpu-report",
        type=output_path,
        metavar="FILE.json",
        help="run the suite of the GPU, the primitives and whole runs, and write them to this file "
        "and to FILE.md. It takes about ten minutes",
    )
    parser.add_argument(
        "--quick", action="store_true", help="with --gpu-report: a small part, to try the command"
    )
    parser.add_argument(
        "--json", type=output_path, metavar="FILE", help="write all rows to this file too"
    )
    return parser


def _pages(text: str) -> int:
    power = parse_digits(text.removeprefix("2^"))
    is_power = text.startswith("2^") and power is not None and power < 64
    pages = 2 ** int(power or 0) if is_power else parse_digits(text)
    if pages is None or not CHUNK_PAGES <= pages <= 2**38:
        refuse(text, "a whole number of pages, or 2^N, from 2^18 to 2^38")
    return pages
