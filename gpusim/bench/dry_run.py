"""`gpusim-bench --dry-run` compares the predictions of dry runs with the real runs.

Each side runs in its own process, as when a user types it. Both sides include the time to load
code and to touch memory for the first time. The rows are Markdown for docs/explanation/performance.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from gpusim.explore.workers import processes
from gpusim.text import format_number

CASES = (
    "",
    "experiment=peter_xu_10tb",
    "experiment=peter_xu_10tb workload.working_set_percent=90",
    "experiment=peter_xu_10tb migration=qemu_9_1",
    "vm=tiny_256mib",
    "vm=small_16gib",
    "vm=large_256gib workload=zipf",
    "vm=large_256gib workload=sequential",
    "vm=large_256gib workload=mix",
    "vm=large_256gib workload=phases",
    "vm=large_256gib workload.granule=2MiB",
    "vm=large_256gib vm.zero_percent=40",
    "vm=huge_1tib workload.granule=16MiB",
    "vm=huge_4tib workload=zipf",
    "vm=huge_24tib",
    "vm=huge_24tib link=100gbit migration.multifd_channels=8",
)
HEADER = (
    "| overrides | backend | draws, dry / real | simulated, s, dry / real | wall, s, dry / real | ratio |\n"
    "|---|---|---|---|---|---|"
)


class Side(NamedTuple):
    """The cost of a run, measured or predicted by a dry run.

    Attributes:
        draws: how often writes are drawn.
        simulated_s: simulated time.
        wall_s: wall time.
        is_complete: False if the dry run did not see the end. The numbers are then lower bounds.
    """

    draws: int
    simulated_s: float
    wall_s: float
    is_complete: bool = True


def main(backends: Sequence[str], cases: Iterable[str] = CASES) -> None:
    """Measure and print the table.

    Args:
        backends: names of backends.
        cases: overrides of gpusim, separated by spaces.
    """
    print(HEADER, flush=True)
    for case in cases:
        for backend in backends:
            overrides = [*case.split(), f"backend={backend}", "plot=false"]
            dry, real = (_in_process(side, overrides) for side in (_dry, _real))
            print(_row(case, backend, dry, real), flush=True)


def _in_process(side: Callable[[list[str]], Side], overrides: list[str]) -> Side:
    """Run one side in a new process."""
    with processes(1) as pool:
        return pool.submit(side, overrides).result()


def _dry(overrides: list[str]) -> Side:
    from gpusim.config.backend import choose_backend
    from gpusim.config.compose import composed_config
    from gpusim.config.scenario import resolve
    from gpusim.explore.run_cost import estimate_run

    scenario = resolve(composed_config(overrides))
    estimate = estimate_run(scenario, choose_backend(scenario))
    summary = estimate.summary
    return Side(
        summary.simulated_looks, summary.total_time_s, estimate.wall_s, estimate.is_complete
    )


def _real(overrides: list[str]) -> Side:
    from gpusim.config.compose import composed_config
    from gpusim.engine.attempts import simulate

    summary = simulate(composed_config(overrides)).summary
    return Side(summary.simulated_looks, summary.total_time_s, summary.wall_time_s)


def _row(case: str, backend: str, dry: Side, real: Side) -> str:
    more = "" if dry.is_complete else "> "
    cells = [
        case or "(none)",
        backend,
        f"{more}{dry.draws} / {real.draws}",
        f"{more}{dry.simulated_s:.0f} / {real.simulated_s:.0f}",
        f"{more}{format_number(dry.wall_s)} / {format_number(real.wall_s)}",
        f"{dry.wall_s / real.wall_s:.2f}" if dry.is_complete else "-",
    ]
    return f"| {' | '.join(cells)} |"
