"""Measures the wall time of a whole run and of its parts."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from gpusim.bench.primitives import ENOUGH_S, Row, make_row
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
from gpusim.pages import backends
from gpusim.pages.pages import Pages
from gpusim.pages.primitives import Kernels

PASS_S = 800  # length of a pass of 10^13 bytes at 100 Gbit/s
WRITES_PER_PAGE_S = 8e6 / 2_441_406_250


def run_config(backend: str, pages: int, threads: int) -> Config:
    """Return the 10 TB case of docs/validation/ with another size.

    It has a working set of 25 % and 8 million writes per second. Link and guest are scaled with
    the size. A pass takes 800 s, and the guest writes each page as often as in the published case.
    """
    free: dict[str, Any] = {
        "zero_page_scan": "unlimited",
        "page_cost_ns": 0.0,
        "wakeup_latency_us": 0.0,
        "non_ram_downtime_ms": 0.0,
    }
    return Config(
        vm=VmConfig(memory=pages * 4096, vcpus=64),
        workload=WriterConfig(
            working_set_percent=25.0, page_writes_per_s=WRITES_PER_PAGE_S * pages
        ),
        link=LinkConfig(bandwidth="unlimited", **free),
        migration=MigrationConfig(max_bandwidth=pages * 4096 // PASS_S),
        tracking=TrackingConfig(
            mode="kvm_legacy",
            first_write_cost_ns=0,
            protect_ns_per_page=0,
            start_ns_per_page=0,
            split_ns_per_page=0,
            log_sync_ns_per_gib=0,
            merge_ns_per_gib=0,
        ),
        backend=BackendConfig(name=backend, threads=threads),
    )


def measure(backend: str, pages: int, threads: int, repeats: int) -> Row:
    """Measure whole runs. Return the median, and where the time of the median run went."""
    config = run_config(backend, pages, threads)
    times_ms: list[float] = []
    splits: list[dict[str, float]] = []
    while not times_ms or (len(times_ms) < repeats and sum(times_ms) < 1e3 * ENOUGH_S):
        with _stopwatch() as spent_s:
            start = time.perf_counter()
            draws = simulate(config).summary.simulated_looks
            times_ms.append(1e3 * (time.perf_counter() - start))
        splits.append(_split(spent_s, times_ms[-1] / 1e3))
    median = splits[times_ms.index(statistics.median_low(times_ms))]
    return make_row(backend, pages, f"whole run, {draws} draws", times_ms, split_s=median)


@contextmanager
def _stopwatch() -> Iterator[dict[str, float]]:
    """Yield the seconds that the parts of `Pages` take in this block."""
    spent_s = dict.fromkeys(("start", "paint", "draw", "take"), 0.0)

    def timed(name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **keywords: Any) -> Any:
            start = time.perf_counter()
            try:
                return work(*arguments, **keywords)
            finally:
                spent_s[name] += time.perf_counter() - start

        return call

    def make(*arguments: Any, **keywords: Any) -> Kernels:
        kernels = make_kernels(*arguments, **keywords)
        kernels.paint = timed("paint", kernels.paint)  # type: ignore[method-assign]
        return kernels

    make_kernels = backends.make_kernels
    watched = {"__init__": "start", "sync": "draw", "take": "take"}
    methods = {name: getattr(Pages, name) for name in watched}
    try:
        backends.make_kernels = make
        for name, part in watched.items():
            setattr(Pages, name, timed(part, methods[name]))
        yield spent_s
    finally:
        backends.make_kernels = make_kernels
        for name, method in methods.items():
            setattr(Pages, name, method)


def _split(spent_s: dict[str, float], total_s: float) -> dict[str, float]:
    return {
        "start": spent_s["start"],
        "paint": spent_s["paint"],
        "draw_host": spent_s["draw"] - spent_s["paint"],
        "take": spent_s["take"],
        "rest": total_s - spent_s["start"] - spent_s["draw"] - spent_s["take"],
    }
