"""The naive model of QEMU in C++ beside gpusim: one config for both, and the first difference.

naive.cpp gets the costs and the layout that gpusim resolves, so the comparison judges decisions and
not defaults. g++ builds it once per process into a temporary folder.

`python -m tests.oracle.model FIRST LAST` compares the scenarios FIRST to LAST - 1 of scenarios.py.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from gpusim import Config, MixConfig, SequentialConfig, simulate
from gpusim.config.scenario import Scenario, resolve
from gpusim.guest.writer import Writer
from gpusim.qemu.switchover import InclusiveSwitchoverRule
from gpusim.qemu.sync_timer import SeedV2, SyncTimerRule
from gpusim.qemu.throttle import EarlyThrottleRule
from gpusim.units import NEVER_NS, NS_PER_MS, NS_PER_S
from tests.compilers import cpp_compiler
from tests.oracle.scenarios import Features, draw_config

HERE = Path(__file__).parent
RUN_LIMIT_S = 300  # against hangs
SAME_TIME_NS = 2000  # gpusim's sender counts ps, and a page may end in another ns

# The naive model can decide in QEMU's way (1) or in another (0). gpusim decides as the values here.
GPUSIM_WAY = {"burst_counts_clears": 0, "vcpus_answer_first": 1, "whole_ms": 0}


@dataclass(frozen=True)
class SyncRow:
    """One dirty sync as both models report it. Times in ns."""

    count: int
    kind: str
    start_ns: int
    end_ns: int
    newly_dirty_pages: int
    remaining_bytes: int
    threshold_bytes: int
    percent: int
    high_periods: int
    period_ms: int


@dataclass(frozen=True)
class Run:
    """A run of one model.

    Attributes:
        downtime_ns: -1: the VM did not stop.
    """

    verdict: str
    total_ns: int
    downtime_ns: int
    normal_pages: int
    zero_pages: int
    sent_bytes: int
    pending_pages: int
    clears: int
    syncs: tuple[SyncRow, ...] = field(repr=False)

    @property
    def highest_percent(self) -> int:
        return max(sync.percent for sync in self.syncs)

    @property
    def fallback_syncs(self) -> int:
        return sum(sync.kind == "fallback" for sync in self.syncs)


def run_gpusim(config: Config) -> Run:
    """Simulate a config with gpusim."""
    result = simulate(config)
    summary = result.summary
    syncs = tuple(
        SyncRow(
            number,
            sync.kind,
            start_ns := round(sync.time_s * NS_PER_S),
            start_ns + round(sync.duration_ms * NS_PER_MS),
            sync.newly_dirty_pages,
            sync.remaining_bytes,
            sync.threshold_bytes,
            sync.cpu_throttle_percentage,
            sync.dirty_rate_high_cnt,
            -1 if sync.period_ms is None else sync.period_ms,
        )
        for number, sync in enumerate(result.syncs, 1)
    )
    return Run(
        str(summary.verdict),
        round(summary.total_time_s * NS_PER_S),
        -1 if summary.downtime_ms is None else round(summary.downtime_ms * NS_PER_MS),
        summary.normal_pages,
        summary.zero_pages,
        summary.transferred_bytes,
        summary.remaining_bytes // config.vm.page_size,
        summary.remote_clears,
        syncs,
    )


def run_naive(config: Config, ways: dict[str, int] | None = None) -> Run:
    """Run the naive model on a config. `ways` changes GPUSIM_WAY."""
    with TemporaryDirectory() as folder:
        keys = Path(folder) / "keys"
        keys.write_text("\n".join(_keys(config, GPUSIM_WAY | (ways or {}))) + "\n")
        done = subprocess.run(
            [program(), keys], check=True, capture_output=True, text=True, timeout=RUN_LIMIT_S
        )
    *rows, end = (line.split() for line in done.stdout.splitlines())
    syncs = tuple(SyncRow(int(r[1]), r[2], *map(int, r[3:])) for r in rows)
    return Run(end[1], *map(int, end[2:]), syncs)


@cache
def _build_folder() -> TemporaryDirectory[str]:
    return TemporaryDirectory()


@cache
def program() -> str:
    """Build naive.cpp and return the program. Without a compiler the test is skipped or fails."""
    compiler = cpp_compiler("no g++ to build the naive model of QEMU with")
    built = Path(_build_folder().name) / "naive"
    flags = ["-std=c++17", "-O2", "-Wall", "-Wextra", "-Werror"]
    subprocess.run([compiler, *flags, str(HERE / "naive.cpp"), "-o", str(built)], check=True)
    return str(built)


def _keys(config: Config, ways: dict[str, int]) -> Iterator[str]:
    """Yield the lines of naive.cpp's input."""
    scenario = resolve(config)
    values = _numbers(scenario) | ways
    yield from (f"{name} {value:d}" for name, value in values.items())
    link, multifd = scenario.link, scenario.link.multifd
    yield f"bandwidth {0.0 if np.isinf(link.bandwidth) else float(link.bandwidth)!r}"
    yield f"page_cost_ns {float(link.page_cost_ns)!r}"
    yield f"zero_page_ns {float(link.zero_page_ns)!r}"
    yield f"queue_cost_ns {float(multifd.queue_ns) if multifd else 0.0!r}"
    yield _line("blocks", scenario.layout.blocks)
    yield _line("zero", np.column_stack([scenario.zero_first, scenario.zero_last]).ravel())
    yield _line("link_changes", (number for change in link.changes for number in change))
    assert isinstance(config.workload, MixConfig)
    for writer, keys in zip(scenario.writers, config.workload.writers.values(), strict=True):
        yield _writer_line(writer, keys, scenario.page_bytes)
    for action in scenario.actions:
        at_ns = -1 if action.at_ns is None else action.at_ns
        at_sync = -1 if action.at_sync is None else action.at_sync
        ((what, value),) = action.settings.items() if action.do == "set" else [(action.do, 0)]
        yield _line("action", [at_ns, at_sync, what, value])


def _line(name: str, values: Iterable[object]) -> str:
    return " ".join([name, *map(str, values)])


def _numbers(scenario: Scenario) -> dict[str, int]:
    parameters, tracking, rules = scenario.parameters, scenario.tracking, scenario.rules
    link, multifd = scenario.link, scenario.link.multifd
    interval_ns = parameters.fallback_sync_interval_ns
    timer = rules.sync_timer(interval_ns or 0, None)
    assert isinstance(timer, SyncTimerRule)
    assert not (
        link.protect_ns or link.first_protect_ns or tracking.sync_protect_ns or tracking.start_ns
    )
    return {
        "page_bytes": scenario.page_bytes,
        "lazy": tracking.lazy,
        "initially_set": tracking.initially_set,
        "counts_flushed_bytes": rules.counts_flushed_bytes,
        "channels": multifd.channels if multifd else 0,
        "channels_find_zero_pages": multifd is not None and multifd.find_zero_pages,
        "channels_sync_every_section": multifd is not None and multifd.sync_every_section,
        "wakeup_latency_ns": link.wakeup_latency_ns,
        "non_ram_ns": link.non_ram_downtime_ns,
        "auto_converge": parameters.auto_converge,
        "max_bandwidth": parameters.max_bandwidth,
        "downtime_limit_ms": parameters.downtime_limit_ms,
        "switchover_bandwidth": parameters.avail_switchover_bandwidth,
        "trigger_percent": parameters.throttle_trigger_threshold,
        "initial_percent": parameters.cpu_throttle_initial,
        "increment_percent": parameters.cpu_throttle_increment,
        "max_percent": parameters.max_cpu_throttle,
        "tailslow": parameters.cpu_throttle_tailslow,
        "is_2_6": rules.throttle is EarlyThrottleRule,
        "ready_if_equal": rules.switchover is InclusiveSwitchoverRule,
        "clears_in_last_stage": rules.clears_in_last_stage,
        "timer_exists": interval_ns is not None and parameters.auto_converge,
        "timer_polls": isinstance(timer, SeedV2),
        "timer_starts_with_period": timer.starts_with_period,
        "timer_start_resets_count": type(timer).start is SyncTimerRule.start,
        "count_prev": timer.first_count,
        "fallback_interval_ns": interval_ns or 0,
        "log_sync_ns": tracking.log_sync_ns,
        "merge_ns": tracking.merge_ns,
        "slots_lock_ns": tracking.slots_lock_ns,
        "clear_ps": link.clear_ps[0],
        "waits_for_burst": tracking.waits_for_burst,
        "waits_for_vcpus": tracking.waits_for_vcpus is not None,
        "limit_ns": scenario.simulated_limit_ns,
    }


def _writer_line(writer: Writer, keys: SequentialConfig, page_bytes: int) -> str:
    """Return a writer's line. The naive model knows sequential writers in one piece."""
    assert keys.granule is None
    assert isinstance(keys.first_write, int)
    assert keys.on_time is None
    assert keys.pace in ("cpu_bound", "recorded")
    first, pages = int(keys.start) // page_bytes, int(keys.working_set or 0) // page_bytes
    windows: list[int] = []
    if writer.windows is not None:
        windows = np.column_stack(writer.windows.between(0, NEVER_NS)).ravel().tolist()
    record = [number for sample in keys.recorded or () for number in sample]
    throttled, rate = int(keys.throttled), repr(float(keys.page_writes_per_s))
    values = [first, pages, keys.threads, keys.first_write, rate, throttled, len(windows) // 2]
    return _line("writer", [*values, *windows, len(record) // 2, *record])


def first_difference(gpusim: Run, naive: Run) -> str | None:
    """Return the first difference for people, or None. Both models may stop a run at its limit."""
    for number, (ours, other) in enumerate(zip(gpusim.syncs, naive.syncs, strict=False), 1):
        for name in (f.name for f in fields(SyncRow) if f.name != "threshold_bytes"):
            a, b = getattr(ours, name), getattr(other, name)
            if abs(a - b) > SAME_TIME_NS if name.endswith("_ns") else a != b:
                return f"sync {number}: {name} {a} and {b}"
    if len(gpusim.syncs) != len(naive.syncs) or gpusim.verdict != naive.verdict:
        return f"{len(gpusim.syncs)} and {len(naive.syncs)} syncs, {gpusim.verdict} and {naive.verdict}"
    if gpusim.verdict == "time_limit":
        return None
    for name in (f.name for f in fields(Run) if f.name not in ("syncs", "sent_bytes")):
        a, b = getattr(gpusim, name), getattr(naive, name)
        if abs(a - b) > SAME_TIME_NS if name.endswith("_ns") else a != b:
            return f"end: {name} {a} and {b}"
    return None


@dataclass(frozen=True)
class Comparison:
    """Both runs of one scenario.

    Attributes:
        same_verdict, same_throttle, same_fallbacks: verdict, highest throttle, and number of fallback
            syncs are equal.
        total_percent: how much longer gpusim's migration lasts. None: not both converge.
    """

    number: int
    gpusim: Run
    naive: Run

    @property
    def same_verdict(self) -> bool:
        return self.gpusim.verdict == self.naive.verdict

    @property
    def same_throttle(self) -> bool:
        return self.gpusim.highest_percent == self.naive.highest_percent

    @property
    def same_fallbacks(self) -> bool:
        return self.gpusim.fallback_syncs == self.naive.fallback_syncs

    @property
    def total_percent(self) -> float | None:
        if {self.gpusim.verdict, self.naive.verdict} != {"converged"}:
            return None
        return 100 * (self.gpusim.total_ns / self.naive.total_ns - 1)

    def __str__(self) -> str:
        ours, other = self.gpusim, self.naive
        return (
            f"{self.number}: {ours.verdict} and {other.verdict}, highest throttle "
            f"{ours.highest_percent} and {other.highest_percent} %, fallback syncs "
            f"{ours.fallback_syncs} and {other.fallback_syncs}, {ours.total_ns / NS_PER_S:.3f} and "
            f"{other.total_ns / NS_PER_S:.3f} s, first difference: {first_difference(ours, other)}"
        )


def compare(number: int, features: Features | None = None, **ways: int) -> Comparison:
    """Run both models on the scenario of a number."""
    config = draw_config(number, features)
    return Comparison(number, run_gpusim(config), run_naive(config, ways))


def report(comparisons: Sequence[Comparison]) -> str:
    """Return how many scenarios agree, for people."""
    totals = sorted(abs(c.total_percent) for c in comparisons if c.total_percent is not None)
    middle, p99 = totals[len(totals) // 2], totals[int(0.99 * len(totals))]
    return (
        f"{len(comparisons)} scenarios. Equal: "
        f"{sum(c.same_verdict for c in comparisons)} verdicts, "
        f"{sum(c.same_throttle for c in comparisons)} highest throttles, "
        f"{sum(c.same_fallbacks for c in comparisons)} numbers of fallback syncs, "
        f"{sum(first_difference(c.gpusim, c.naive) is None for c in comparisons)} in all. "
        f"Total time of {len(totals)} that converge: median difference {middle:.4f} %, "
        f"99th percentile {p99:.4f} %, largest {totals[-1]:.4f} %."
    )


def main(first: str, last: str, *ways: str) -> None:
    """Print the scenarios that differ in a decision or by 0.5 % in time, and the report."""
    features = Features(multifd="multifd" in ways)
    chosen = {name: int(value) for name, _, value in (way.partition("=") for way in ways) if value}
    comparisons = []
    for number in range(int(first), int(last)):
        comparisons.append(found := compare(number, features, **chosen))
        same = found.same_verdict and found.same_throttle and found.same_fallbacks
        if not same or abs(found.total_percent or 0) > 0.5:
            print(found, flush=True)
    print(report(comparisons))


if __name__ == "__main__":
    main(*sys.argv[1:])
