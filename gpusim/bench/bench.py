"""gpusim-bench: what the primitives, a look and a whole run cost, against memcpy in the same run.

A row is a median over repeats, warmed up and synchronised, as a multiple of copying one bitmap of the
same size on the same device. Beside it stands the floor: the bytes that must move, each read and each
written once, as the same multiple.
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gpusim.bench import dry_run as bench_dry_run
from gpusim.bench import sweep as bench_sweep
from gpusim.config.schema import (
    BackendConfig,
    Config,
    LinkConfig,
    MigrationConfig,
    TrackingConfig,
    VmConfig,
    WriterConfig,
)
from gpusim.engine.attempts import simulate
from gpusim.files import can_be_written, write_text
from gpusim.layout import CHUNK_PAGES, Layout, Writes
from gpusim.pages import backends
from gpusim.pages.backends import BACKENDS, device_name, obstacle, too_big
from gpusim.pages.draw import Cells, cells_of, certain_cells
from gpusim.pages.pages import Pages
from gpusim.pages.primitives import Kernels, Op, Step
from gpusim.version import __version__

MEANS = (0.001, 1 / 64, 0.05, 0.69, 5.0)  # writes a page; 0.69 takes all planes and costs most
TAKES = (100_000, 15_000_000)  # pages
DEFAULT_PAGES = (2**26, 2**30, 2**33)
LINE_PAGES = 512  # a cache line of 64 bytes
ENOUGH_S = 5.0  # of repeats of one row
PASS_S = 800  # of the run: that of 10^13 bytes at 100 Gbit/s
WRITES_A_PAGE_S = 8e6 / 2_441_406_250
NOTHING = np.zeros(0, np.int64)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One measurement.

    Attributes:
        times_memcpy: median over that of memcpy; None for a whole run.
        floor_times_memcpy: bytes that must move over those of memcpy; None where none is known.
        split_s: of a whole run, where its time went, seconds.
    """

    backend: str
    pages: int
    what: str
    repeats: int
    median_ms: float
    least_ms: float
    most_ms: float
    times_memcpy: float | None = None
    floor_times_memcpy: float | None = None
    split_s: dict[str, float] = field(default_factory=dict)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code: 0, 2 for bad input, 130 if interrupted."""
    try:
        return _main(_parser().parse_args(arguments))
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        return 130


def _main(options: argparse.Namespace) -> int:
    there = [name for name in BACKENDS if obstacle(name) is None]
    names = options.backend or there
    for name in names:
        if name not in there:
            return _stop(f"--backend {name}: cannot be used here: {obstacle(name)}")
    if options.sweep is not None:
        bench_sweep.main(options.sweep, names[0])
        return 0
    sizes = options.pages or list(DEFAULT_PAGES)
    if options.dry_run:
        bench_dry_run.main(names)
        return 0
    plan = []
    for name in names:
        for pages in sizes:
            why = too_big(name, _bytes(pages))
            if why is None:
                plan.append((name, pages))
            elif options.pages:
                return _stop(f"--pages {pages}: {why}; take fewer pages")
            else:
                print(f"{name}, {pages} pages: left out, {why}", file=sys.stderr)
    if options.json is not None and not can_be_written(options.json):
        message = "cannot be written; name a file in a folder that exists and can be written"
        return _stop(f"--json {options.json}: {message}")
    machine = _machine(names, options.threads)
    rows = []
    print("\n".join(f"{name}: {value}" for name, value in machine.items()), end="\n\n")
    print(HEADER)
    for name, pages in plan:
        for row in measured(name, pages, options.threads, options.repeats, runs=options.runs):
            rows.append(row)
            print(_line(row), flush=True)
    if options.json is not None:
        found = {"machine": machine, "rows": [asdict(row) for row in rows]}
        write_text(options.json, json.dumps(found, indent=1, allow_nan=False) + "\n")
    return 0


def measured(backend: str, pages: int, threads: int, repeats: int, *, runs: bool) -> Iterator[Row]:
    """The rows of one backend and size.

    Args:
        pages: of the VM.
        threads: over chunks, on a CPU.
        repeats: of a row, fewer if that takes longer than ENOUGH_S.
        runs: with a whole run, too.
    """
    bench = _Bench(backend, pages, threads, repeats)
    try:
        yield from bench.rows()
    finally:
        bench.close()
    if runs:
        yield _run(backend, pages, threads, repeats)


class _Bench:
    """Bitmaps of one size on one backend, and what is measured on them."""

    def __init__(self, backend: str, pages: int, threads: int, repeats: int) -> None:
        self.backend, self.pages, self.threads, self.repeats = backend, pages, threads, repeats
        self.layout = Layout([pages])
        self.chunks = np.arange(self.layout.chunks)
        self.kernels = backends.make_kernels(
            backend, self.layout.chunks, log=True, zero=False, threads=threads
        )
        self.synchronise: Callable[[], Any] = lambda: None
        if backend == "cupy":
            import cupy

            self.synchronise = cupy.cuda.Device().synchronize
        self.memcpy_ms = self.time(_copy(backend, self.layout.chunks))

    def close(self) -> None:
        self.kernels.close()

    def rows(self) -> Iterator[Row]:
        """memcpy, the primitives, looks, takes."""
        count, kernels, chunks = self.layout.chunks, self.kernels, self.chunks
        yield self.row("memcpy of one bitmap", self.memcpy_ms, 1.0)
        first = chunks * CHUNK_PAGES
        for what, last, floor in (
            ("merge, one page a chunk", first + 1, 0.5),
            ("merge, every page", first + self.layout.chunk_pages, 1.0),
        ):
            yield self.paint(what, [(Op.MERGE, certain_cells(first, last))], floor)
        for mean in MEANS:
            floor = 0.5 + 0.5 * -math.expm1(-LINE_PAGES * mean)
            yield self.paint(
                f"look, {mean:.3g} writes a page", [(Op.MERGE, self.cells(mean))], floor
            )
        lazy = [(Op.CLEAR_LOG, self.cells(1 / 64)), (Op.MERGE_LOG, self.cells(1 / 64))]
        yield self.paint("lazy look, 0.0156 twice", lazy, 3.0)
        times = self.time(lambda: cells_of(self.writes(1 / 64), 1, 1, 0))
        yield self.row("integers of a look (host)", times, None)
        times = self.time(lambda: kernels.clear_chunks(0, count))
        yield self.row("clear all chunks", times, 0.5)
        yield from self.of_pages()

    def of_pages(self) -> Iterator[Row]:
        """What takes the counts on the host, too."""
        pages = Pages(
            self.layout,
            zero_first=NOTHING,
            zero_last=NOTHING,
            lazy=False,
            initially_set=False,
            seed=1,
            backend=self.backend,
            threads=self.threads,
        )
        writes = self.writes(1 / 64)
        times = self.time(lambda: pages.sync(writes))
        yield self.row("look that changes nothing", times, 0.0)
        for count in TAKES:
            if 2 * count < self.pages:
                room = min(self.repeats, self.pages // count - 1)
                times = self.time(lambda count=count: pages.take([(count, 1, 1)]), most=room)  # type: ignore[misc]
                yield self.row(f"take of {count} pages", times, 0.5 * count / self.pages)
                pages.sync(_everything(self.layout))
        pages.close()

    def paint(self, what: str, steps: list[tuple[Op, Cells]], floor: float) -> Row:
        """A look on bitmaps in which nothing is dirty before each repeat."""
        look = [Step(op, cells, self.chunks) for op, cells in steps]
        times = self.time(
            lambda: self.kernels.paint(look),
            prepare=lambda: self.kernels.clear_chunks(0, self.layout.chunks),
        )
        return self.row(what, times, floor)

    def writes(self, mean: float) -> Writes:
        first = self.chunks * CHUNK_PAGES
        last = first + self.layout.chunk_pages
        means = np.full(len(first), mean)
        return Writes(
            first=first, last=last, mean=means, certain_first=NOTHING, certain_last=NOTHING
        )

    def cells(self, mean: float) -> Cells:
        return cells_of(self.writes(mean), seed=1, look=1, step=0)

    def time(
        self,
        work: Callable[[], Any],
        prepare: Callable[[], Any] = lambda: None,
        most: int | None = None,
    ) -> list[float]:
        """Milliseconds of each repeat; the first call is not counted."""
        times: list[float] = []
        started = time.perf_counter()
        for repeat in range((most or self.repeats) + 1):
            prepare()
            self.synchronise()
            start = time.perf_counter()
            work()
            self.synchronise()
            if repeat:
                times.append(1e3 * (time.perf_counter() - start))
                if time.perf_counter() - started > ENOUGH_S:
                    break
        return times

    def row(self, what: str, times: list[float], floor: float | None) -> Row:
        return _row(
            self.backend, self.pages, what, times,
            times_memcpy=statistics.median(times) / statistics.median(self.memcpy_ms),
            floor_times_memcpy=floor,
        )  # fmt: skip


def run_config(backend: str, pages: int, threads: int) -> Config:
    """The 10 TB case of docs/validation.md at 25 % and 8 million writes a second, cut to a size.

    Link and guest are slowed in proportion, so that a pass takes 800 s and a page is written as often.
    """
    free: dict[str, Any] = {
        "zero_page_scan": "unlimited",
        "page_cost_ns": 0.0,
        "wakeup_latency_us": 0.0,
    }
    return Config(
        vm=VmConfig(memory=pages * 4096, vcpus=64),
        workload=WriterConfig(working_set_percent=25.0, page_writes_per_s=WRITES_A_PAGE_S * pages),
        link=LinkConfig(bandwidth="unlimited", **free),
        migration=MigrationConfig(max_bandwidth=pages * 4096 // PASS_S),
        tracking=TrackingConfig(
            mode="kvm_legacy",
            first_write_cost_ns=0,
            protect_ns_per_page=0,
            log_sync_ns_per_gib=0,
            merge_ns_per_gib=0,
        ),
        backend=BackendConfig(name=backend, threads=threads),
    )


def _run(backend: str, pages: int, threads: int, repeats: int) -> Row:
    """A whole run, and where its time went."""
    config = run_config(backend, pages, threads)
    times: list[float] = []
    splits: list[dict[str, float]] = []
    while not times or (len(times) < repeats and sum(times) < 1e3 * ENOUGH_S):
        with _stopwatch() as spent:
            start = time.perf_counter()
            looks = simulate(config).summary.simulated_looks
            times.append(1e3 * (time.perf_counter() - start))
        splits.append(_split(spent, times[-1] / 1e3))
    middle = splits[times.index(statistics.median_low(times))]
    return _row(backend, pages, f"whole run, {looks} looks", times, split_s=middle)


@contextmanager
def _stopwatch() -> Iterator[dict[str, float]]:
    """Seconds spent in the parts of `Pages` while this lasts."""
    spent = dict.fromkeys(("start", "paint", "look", "take"), 0.0)

    def timed(name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **keywords: Any) -> Any:
            start = time.perf_counter()
            try:
                return work(*arguments, **keywords)
            finally:
                spent[name] += time.perf_counter() - start

        return call

    def make(*arguments: Any, **keywords: Any) -> Kernels:
        kernels = made(*arguments, **keywords)
        kernels.paint = timed("paint", kernels.paint)  # type: ignore[method-assign]
        return kernels

    made = backends.make_kernels
    watched = {"__init__": "start", "sync": "look", "take": "take"}
    methods = {name: getattr(Pages, name) for name in watched}
    try:
        backends.make_kernels = make
        for name, part in watched.items():
            setattr(Pages, name, timed(part, methods[name]))
        yield spent
    finally:
        backends.make_kernels = made
        for name, method in methods.items():
            setattr(Pages, name, method)


def _split(spent: dict[str, float], total_s: float) -> dict[str, float]:
    return {
        "start": spent["start"],
        "paint": spent["paint"],
        "look_host": spent["look"] - spent["paint"],
        "take": spent["take"],
        "rest": total_s - spent["start"] - spent["look"] - spent["take"],
    }


def _copy(backend: str, chunks: int) -> Callable[[], Any]:
    """Copies one bitmap on the backend's own device."""
    words = chunks * CHUNK_PAGES // 64
    if backend == "cupy":
        import cupy

        source, target = cupy.ones(words, np.uint64), cupy.zeros(words, np.uint64)
        return lambda: cupy.copyto(target, source)
    host_source, host_target = np.ones(words, np.uint64), np.zeros(words, np.uint64)
    return lambda: np.copyto(host_target, host_source)


def _everything(layout: Layout) -> Writes:
    first = np.arange(layout.chunks) * CHUNK_PAGES
    return Writes(
        first=NOTHING,
        last=NOTHING,
        mean=np.zeros(0),
        certain_first=first,
        certain_last=first + layout.chunk_pages,
    )


def _bytes(pages: int) -> int:
    """Most that is taken at a time: dirty and log, and those of a second Pages or of memcpy."""
    return 4 * -(-pages // CHUNK_PAGES) * CHUNK_PAGES // 8


def _row(backend: str, pages: int, what: str, times: list[float], **more: Any) -> Row:
    return Row(
        backend=backend,
        pages=pages,
        what=what,
        repeats=len(times),
        median_ms=statistics.median(times),
        least_ms=min(times),
        most_ms=max(times),
        **more,
    )


HEADER = (
    f"{'backend':<7} {'pages':>11}  {'what':<27} {'median ms':>10} {'least':>9} {'most':>9} "
    f"{'x memcpy':>9} {'floor':>7}"
)


def _line(row: Row) -> str:
    times, floor = (
        "" if value is None else f"{value:.4g}"
        for value in (row.times_memcpy, row.floor_times_memcpy)
    )
    line = (
        f"{row.backend:<7} {row.pages:>11}  {row.what:<27} {row.median_ms:>10.4g} "
        f"{row.least_ms:>9.4g} {row.most_ms:>9.4g} {times:>9} {floor:>7}"
    )
    if row.split_s:
        line += "  of it " + ", ".join(f"{part} {s:.3g} s" for part, s in row.split_s.items())
    return line


def _machine(names: Sequence[str], threads: int) -> dict[str, Any]:
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


def _stop(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gpusim-bench",
        description="Measure the primitives, looks and a whole run on each backend, against memcpy.",
    )
    parser.add_argument(
        "--backend",
        action="append",
        choices=BACKENDS,
        help="again for more; default: all there are",
    )
    parser.add_argument(
        "--pages",
        type=_pages,
        action="append",
        metavar="N",
        help=f"of the VM, 2^30 or a number, again for more; default: {', '.join(f'2^{p.bit_length() - 1}' for p in DEFAULT_PAGES)}, those that fit memory",
    )
    parser.add_argument("--threads", type=_count, default=1, metavar="N", help="default: 1")
    parser.add_argument("--repeats", type=_count, default=7, metavar="N", help="default: 7")
    parser.add_argument(
        "--runs", action=argparse.BooleanOptionalAction, default=True, help="whole runs, too"
    )
    parser.add_argument(
        "--sweep",
        type=_points,
        metavar="POINTS",
        help="measure instead what a point of a sweep costs beside its migration; 2000 takes a minute",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="measure instead what dry runs foretell, and what the runs then take; ten minutes",
    )
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write all rows to this file, too"
    )
    return parser


def _pages(text: str) -> int:
    power = text.removeprefix("2^")
    pages = 2 ** int(power) if power != text and power.isdecimal() and len(power) < 3 else text
    if not str(pages).isdecimal() or not CHUNK_PAGES <= int(pages) <= 2**38:
        message = "a whole number of pages, or 2^N, from 2^18 to 2^38"
        raise argparse.ArgumentTypeError(f"{text}: {message}")
    return int(pages)


def _points(text: str) -> int:
    if not (text.isdecimal() and 2 <= int(text) <= 10**6):
        raise argparse.ArgumentTypeError(f"{text}: a whole number from 2 to 1000000")
    return int(text)


def _count(text: str) -> int:
    if not (text.isdecimal() and 1 <= int(text) <= 1000):
        raise argparse.ArgumentTypeError(f"{text}: a whole number from 1 to 1000")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
