"""`gpusim-bench --gpu-report FILE`: everything that only a machine with a GPU can tell, in one file.

It runs the suite of the GPU, the primitives against the device's own copies, and whole runs. The
result is one JSON file and, beside it, Markdown for docs/explanation/performance.md. A part that
does not fit the time is left out, and the report says so. On a device that a CPU plays, those are most
whole runs.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from gpusim.bench import primitives
from gpusim.engine.attempts import simulate
from gpusim.errors import one_line
from gpusim.files import write_text
from gpusim.pages.backends import device_name, too_big
from gpusim.parent import die_with_me

LONGEST_S = 540.0  # of the whole report, which takes less than ten minutes
TESTS_S = 200.0  # at most for the suite
PLAYED = "a CPU that plays a GPU"  # the name of the device of tests/parity/fake_cuda.py
PAGES = (2**26, 2**30, 2_441_406_250)  # the last one is 10 TB
SEEDS = 32
SHORTEST_S = 1.0  # that is left for a run
NO_TIME = "no time was left"
BACKEND = ["backend=cupy", "plot=false"]
CASES = (  # the number of seeds, and the overrides. The longest is the last
    ("10 TB, 25 %", 1, ["experiment=peter_xu_10tb"]),
    (f"{SEEDS} seeds of 256 GiB", SEEDS, ["vm=large_256gib"]),
    ("24 TiB, hot and cold", 1, ["vm=huge_24tib", "link=100gbit", "migration.multifd_channels=8"]),
    ("10 TB, 90 %", 1, ["experiment=peter_xu_10tb", "workload.working_set_percent=90"]),
)
QUICK = ["vm.memory=256MiB", "workload.page_writes_per_s=1e4", "migration.max_bandwidth=50MB/s"]


class Run(NamedTuple):
    """A whole run, or several.

    Attributes:
        what: for people.
        overrides: of gpusim.
        draws: how often writes were drawn.
        wall_s: wall time.
        left_out: why it was not run. Empty: it was.
    """

    what: str
    overrides: str
    draws: int = 0
    wall_s: float = 0.0
    left_out: str = ""


def write_report(path: Path, *, quick: bool) -> dict[str, Any]:
    """Measure everything, write the JSON file and its Markdown, and return the report.

    Args:
        path: the JSON file.
        quick: a small part of each measurement, to try the command.

    Raises:
        OSError: a file cannot be written.
    """
    start_s = time.monotonic()
    until_s = start_s + LONGEST_S
    name, tests = device_name("cupy"), _run_tests(quick=quick)
    rows, left_out = _primitives(until_s, quick=quick)
    report: dict[str, Any] = {
        "device": name,
        "is_played": name == PLAYED,
        "is_quick": quick,
        "tests": tests,
        "primitives": [asdict(row) for row in rows],
        "left_out": left_out,
        "runs": [run._asdict() for run in _whole_runs(until_s, quick=quick)],
    }
    report["wall_s"] = time.monotonic() - start_s
    write_text(path, json.dumps(report, indent=1, allow_nan=False) + "\n")
    write_text(markdown_path(path), markdown(report))
    return report


def markdown_path(path: Path) -> Path:
    """Return the Markdown file that belongs to a JSON file."""
    return path.with_suffix(".md")


def _run_tests(*, quick: bool) -> str:
    """Run `pytest -m gpu` in the checkout. Return its last line, or why it did not run."""
    checkout = Path(__file__).parents[2]
    if not (checkout / "tests/parity").is_dir():
        return "not run: gpusim is installed without its tests. Run the command in a checkout"
    chosen = ["-k", "clear_chunks"] if quick else []
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-m", "gpu", "-q", "-p", "no:cacheprovider", *chosen],
            cwd=checkout, env={**os.environ, "GPUSIM_REQUIRE_GPU": "1"}, preexec_fn=die_with_me(),
            capture_output=True, text=True, check=False, timeout=TESTS_S,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"not finished within {TESTS_S:.0f} s"
    lines = (done.stdout.strip() or done.stderr.strip() or "no output").splitlines()
    return one_line(lines[-1], 200)


def _primitives(until_s: float, *, quick: bool) -> tuple[list[primitives.Row], list[str]]:
    """Return the rows of each size, and why a size was left out.

    A size takes at least as long per page as the size before. The first is always measured.
    """
    rows: list[primitives.Row] = []
    left_out: list[str] = []
    page_s = 0.0
    for pages in (2**19,) if quick else PAGES:
        start_s = time.monotonic()
        if found := too_big("cupy", primitives.count_bytes(pages)):
            left_out.append(f"{pages} pages: {one_line(found.reason, 200)}")
        elif start_s + page_s * pages > until_s:
            left_out.append(f"{pages} pages: {NO_TIME}")
        else:
            rows += primitives.measure("cupy", pages, threads=1, repeats=1 if quick else 7)
            page_s = (time.monotonic() - start_s) / pages
    return rows, left_out


def _whole_runs(until_s: float, *, quick: bool) -> list[Run]:
    return [
        _whole_run(what, 2 if quick and seeds > 1 else seeds, overrides, until_s, quick=quick)
        for what, seeds, overrides in CASES
    ]


def _whole_run(what: str, seeds: int, overrides: list[str], until_s: float, *, quick: bool) -> Run:
    """Simulate a case, once per seed."""
    from gpusim.config.compose import composed_config

    if quick:
        what = f"{what}, but 256 MiB"
    shown, draws, wall_s = " ".join(overrides), 0, 0.0
    for seed in range(1, seeds + 1):
        left_s = until_s - time.monotonic()
        if left_s < SHORTEST_S:
            return Run(what, shown, left_out=NO_TIME)
        more = [*BACKEND, f"seed={seed}", f"limit.wall={left_s:.0f}s", *(QUICK if quick else [])]
        try:
            summary = simulate(composed_config([*overrides, *more])).summary
        except Exception as error:  # one case must not lose the others
            return Run(what, shown, left_out=one_line(error, 200))
        draws, wall_s = draws + summary.simulated_looks, wall_s + summary.wall_time_s
        if summary.status == "incomplete":
            return Run(what, shown, left_out=f"not finished within {left_s:.0f} s, {draws} draws")
    return Run(what, shown, draws, wall_s)


def markdown(report: dict[str, Any]) -> str:
    """Return the report as Markdown."""
    lines = [f"Measured on {report['device']}."]
    if report["is_played"]:
        lines += ["", "**A CPU played the GPU. These figures say nothing about a GPU.**"]
    if report["is_quick"]:
        lines += ["", "**Only a small part was measured, to try the command.**"]
    lines += ["", f"`pytest -m gpu`: {report['tests']}", ""]
    lines += ["| run | overrides | draws | s |", "|---|---|---|---|"]
    for run in report["runs"]:
        cost = f"{run['draws']} | {run['wall_s']:.3g}"
        lines.append(f"| {run['what']} | {run['overrides']} | {run['left_out'] or cost} |")
    lines += ["", "| pages | what | median ms | x memcpy | floor |", "|---|---|---|---|---|"]
    for row in report["primitives"]:
        times, floor = (
            "" if row[key] is None else f"{row[key]:.3g}"
            for key in ("times_memcpy", "floor_times_memcpy")
        )
        cells = [str(row["pages"]), row["what"], f"{row['median_ms']:.4g}", times, floor]
        lines.append(f"| {' | '.join(cells)} |")
    lines += [line for reason in report["left_out"] for line in ("", f"Left out: {reason}.")]
    copies = [row for row in report["primitives"] if row["what"].startswith("memcpy")]
    for row in copies:
        rate = 2 * row["pages"] / 8 / (row["median_ms"] / 1e3) / 1e9  # read and written
        lines += ["", f"The device copies a bitmap of {row['pages']} pages at {rate:.3g} GB/s."]
    return "\n".join(lines) + "\n"
