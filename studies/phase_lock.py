"""`python -m studies.phase_lock` makes docs/studies/phase-lock.md: its picture and its tables.

It simulates a throttle that is fixed at one percentage, with fallback syncs that hold the big lock
for a given time. It compares the vCPUs' run time with ten recorded runs of QEMU under KVM, whose
cycles are in studies/recordings/phase_lock.csv.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import numpy as np

from gpusim.config.backend import choose_backend
from gpusim.config.scenario import resolve
from gpusim.config.schema import (
    Config,
    LimitConfig,
    LinkConfig,
    MigrationConfig,
    TrackingConfig,
    VmConfig,
    WriterConfig,
)
from gpusim.engine.expected_run import expected_run
from gpusim.engine.migration import Migration
from gpusim.engine.records import Summary
from gpusim.results.plots import style
from gpusim.results.plots.canvas import is_narrow, save_pictures
from gpusim.units import NS_PER_S
from gpusim.wall_limit import WallLimit
from studies.tables import table, with_tables

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

RECORDED = Path(__file__).parent / "recordings" / "phase_lock.csv"
# Five of the runs show how much longer than its period the time between two wake-ups is, on
# average: 0.68, 0.61, 0.48, 0.55 and 0.29 ms. This is their mean.
RECORDED_LATENCY_US = 520.0
BARE_METAL_LATENCY_US = VmConfig.timer_latency_us
PERCENTS = (90, 95, 98, 99)
SYNCS_MS = (0, 10, 30, 60, 100, 150, 200, 282, 400, 500, 600, 700)
LIMIT_S = 400.0
WITH, WITHOUT = "qemu_9_2", "what_if_tick_outside_lock"
LARGE_THROTTLES = (90, 95, 97, 98, 99)
WALL_LIMIT_NS = 600 * NS_PER_S


@dataclass(frozen=True, kw_only=True)
class Cycle:
    """A recorded cycle: a fallback sync, and the time to the next one.

    Attributes:
        run: the recorded run.
        percent: the throttle.
        sync_ms: how long the sync held the big lock.
        ran_percent: CPU time of the vCPU, in percent of the cycle.
    """

    run: str
    percent: int
    sync_ms: float
    ran_percent: float


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw the picture and write the tables into the document."""
    parser = argparse.ArgumentParser(prog="python -m studies.phase_lock", description=__doc__)
    parser.add_argument("--document", type=Path, default=Path("docs/studies/phase-lock.md"))
    parser.add_argument("--figures", type=Path, default=Path("docs/figures"))
    options = parser.parse_args(arguments)
    draw(options.figures / "study_phase_lock.png")
    tables = {"measured": measured_table(), "large": large_table()}
    options.document.write_text(with_tables(options.document.read_text(), tables))


def read_cycles() -> list[Cycle]:
    """Return the recorded cycles without syncs of the migration thread.

    The first cycle of a run and of each length of the syncs is left out, because it began before.
    """
    with RECORDED.open() as file:
        rows = list(csv.DictReader(file))
    cycles, before = [], None
    for row in rows:
        sync_ms = float(row["sync_ms"])
        kind = row["run"], _nominal_ms(sync_ms)
        if kind == before and row["natural_syncs"] == "0":
            ran = float(row["cpu_percent"])
            cycles.append(
                Cycle(run=kind[0], percent=int(row["percent"]), sync_ms=kind[1], ran_percent=ran)
            )
        before = kind
    return cycles


def fixed_throttle(
    percent: int,
    sync_ms: float,
    *,
    latency_us: float = BARE_METAL_LATENCY_US,
    version: str = WITH,
    limit_s: float = LIMIT_S,
) -> Config:
    """Return the recorded guest: after its first pass the link is so slow that all syncs are forced.

    Args:
        percent: the throttle, from its first step on.
        sync_ms: how long a sync holds the big lock.
        latency_us: how late timers wake, on average.
        version: QEMU's rules.
        limit_s: simulated time.
    """
    return Config(
        vm=VmConfig(memory="640MiB", vcpus=1, timer_latency_us=latency_us),
        workload=WriterConfig(working_set="512MiB", page_writes_per_s=15_000),
        migration=MigrationConfig(
            version=version,
            max_bandwidth="60MiB/s",
            downtime_limit=1,
            cpu_throttle_initial=percent,
            max_cpu_throttle=percent,
        ),
        tracking=TrackingConfig(
            log_sync_ns_per_gib=0, merge_ns_per_gib=0, waits_for_burst=False, listeners_ms=sync_ms
        ),
        limit=LimitConfig(simulated=limit_s, stop_when_stuck=False),
        schedule=[{"at_sync": 2, "set": {"max_bandwidth": 200_000}}],
    )


def ran_percents(config: Config) -> list[float]:
    """Return how much the vCPUs ran in each cycle of a fallback sync under the throttle, percent."""
    scenario = resolve(config)
    with closing(Migration(scenario, choose_backend(scenario))) as migration:
        result = migration.run()
        starts_ns = [
            round(sync.time_s * NS_PER_S)
            for sync in result.syncs
            if sync.kind == "fallback" and sync.cpu_throttle_percentage
        ]
        run_ns = migration.state.run_time.at(np.array(starts_ns))
    return [float(ran) for ran in 100 * np.diff(run_ns) / np.diff(starts_ns)]


@cache
def median_ran_percent(percent: int, sync_ms: float, latency_us: float) -> float:
    """Return the median over these cycles. The picture and the table share some of the runs."""
    return median(ran_percents(fixed_throttle(percent, sync_ms, latency_us=latency_us)))


def measured_table() -> list[str]:
    """Compare the median of the recorded cycles with gpusim."""
    rows = []
    for (percent, sync_ms), cycles in sorted(_by_kind(read_cycles()).items()):
        ran = [cycle.ran_percent for cycle in cycles]
        nested, bare = (
            median_ran_percent(percent, sync_ms, latency_us)
            for latency_us in (RECORDED_LATENCY_US, BARE_METAL_LATENCY_US)
        )
        rows.append([
            f"{percent} %", f"{sync_ms:g}", str(len(ran)), f"{100 - percent}",
            f"{median(ran):.2f} ({min(ran):.2f} to {max(ran):.2f})", f"{nested:.2f}", f"{bare:.2f}",
        ])  # fmt: skip
    return table(
        ["throttle", "sync, ms", "cycles", "nominal, %", "recorded, %",
         f"gpusim, {RECORDED_LATENCY_US:g} us, %", f"gpusim, {BARE_METAL_LATENCY_US:g} us, %"],
        rows,
    )  # fmt: skip


def large_vm(version: str, max_cpu_throttle: int) -> Config:
    """Return a VM of 10 TB that writes 60 million pages per second to a quarter of its RAM."""
    return Config(
        vm=VmConfig(memory="10TB", vcpus=512),
        workload=WriterConfig(working_set_percent=25, page_writes_per_s=6e7),
        link=LinkConfig(bandwidth="100Gbit/s"),
        migration=MigrationConfig(
            version=version, multifd_channels=8, max_cpu_throttle=max_cpu_throttle
        ),
    )


def large_summary(version: str, max_cpu_throttle: int) -> Summary:
    """Return the summary of the VM's migration, over expected counts of pages."""
    scenario = resolve(large_vm(version, max_cpu_throttle))
    return expected_run(scenario, WallLimit(WALL_LIMIT_NS))[0]


def large_table() -> list[str]:
    """Return the verdicts of the large VM with and without the main loop."""
    rows = [
        [f"{top} %", *(_verdict(large_summary(version, top)) for version in (WITH, WITHOUT))]
        for top in LARGE_THROTTLES
    ]
    return table(["max_cpu_throttle", "as QEMU 9.2", "tick outside the big lock"], rows)


def draw(path: Path) -> None:
    """Draw the run fraction over the length of a sync, one panel for each throttle."""
    save_pictures(path, partial(_draw, recorded=_by_kind(read_cycles())))


def _draw(figure: Figure, recorded: dict[tuple[int, float], list[Cycle]]) -> None:
    narrow = is_narrow(figure)
    title, text, small = (13.0, 11.0, 10.5) if narrow else (24.0, 18.0, 15.5)
    figure.text(0.05, 0.955, "Run time of a throttled vCPU", fontsize=title, weight="bold")
    subtitle = "fallback syncs every 5 s hold QEMU's big lock"
    figure.text(0.05, 0.917, subtitle, fontsize=0.95 * text, color=style.QUIET)
    axes = figure.subplots(*((4, 1) if narrow else (2, 2)), sharex=True)
    figure.subplots_adjust(
        left=0.15 if narrow else 0.085,
        right=0.975,
        bottom=0.165,
        top=0.85,
        hspace=0.45 if narrow else 0.24,
        wspace=0.17,
    )
    for place, percent in enumerate(PERCENTS):
        _draw_panel(axes.flat[place], percent, recorded)
        axes.flat[place].set_title(f"throttle {percent} %", fontsize=text)
        axes.flat[place].tick_params(labelsize=small)
    figure.supxlabel("length of a sync (ms)", fontsize=text, y=0.085)
    figure.supylabel("vCPU runs (% of the time)", fontsize=text, x=0.012)
    handles, labels = axes.flat[0].get_legend_handles_labels()
    columns = 2 if narrow else 4
    figure.legend(handles, labels, loc="lower center", ncols=columns, fontsize=small)


def _draw_panel(axes: Axes, percent: int, recorded: dict[tuple[int, float], list[Cycle]]) -> None:
    for latency_us, colour, line in (
        (BARE_METAL_LATENCY_US, style.BLUE, "-"),
        (RECORDED_LATENCY_US, style.ORANGE, "--"),
    ):
        ran = [median_ran_percent(percent, sync_ms, latency_us) for sync_ms in SYNCS_MS]
        label = f"gpusim, {latency_us:g} µs late"
        axes.plot(SYNCS_MS, ran, line, color=colour, linewidth=3, label=label)
    points = [
        (sync_ms, median(cycle.ran_percent for cycle in cycles))
        for (of, sync_ms), cycles in sorted(recorded.items())
        if of == percent
    ]
    axes.plot(*zip(*points, strict=True), "o", color=style.INK, markersize=10, label="recorded")
    axes.axhline(100 - percent, color=style.GREY, linewidth=2.5, linestyle=":", label="nominal")
    axes.set_ylim(bottom=0)
    axes.set_xlim(-15, 730)


def _by_kind(cycles: Sequence[Cycle]) -> dict[tuple[int, float], list[Cycle]]:
    kinds: dict[tuple[int, float], list[Cycle]] = {}
    for cycle in cycles:
        kinds.setdefault((cycle.percent, cycle.sync_ms), []).append(cycle)
    return kinds


def _nominal_ms(sync_ms: float) -> float:
    """Return the delay that the recording asked for."""
    return float(min((0, 30, 100, 282, 300, 700), key=lambda nominal: abs(nominal - sync_ms)))


def _verdict(summary: Summary) -> str:
    verdict = (summary.verdict or "incomplete").replace("_", " ")
    return f"{verdict} after {summary.total_time_s:,.0f} s"


if __name__ == "__main__":
    main()
