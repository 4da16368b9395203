"""A burst ends if no page fits what is left of it, also where the cursor has reached the end of RAM."""

from __future__ import annotations

from gpusim.config.schema import Config, LinkConfig, MigrationConfig, MixConfig, VmConfig
from gpusim.engine.attempts import simulate

PAGE = 4096


def test_a_burst_at_the_end_of_ram_ends() -> None:
    """Before, this run never ended: the burst wrapped again and again without a page."""
    sizes, threads = (44, 23626, 16136), (1, 8, 2)
    starts, first = (57381, 67717, 38031), (39, 789, 7415)
    rates = (3292.491225764376, 2810.8357161407243, 491.393054645299)
    writers = {
        f"writer_{place + 1}": {
            "pattern": "sequential", "threads": threads[place], "first_write": first[place],
            "page_writes_per_s": rates[place], "working_set": sizes[place] * PAGE,
            "start": starts[place] * PAGE, "vcpus": 1 / 3,
        }
        for place in range(3)
    }  # fmt: skip
    config = Config(
        vm=VmConfig(
            memory=537403392,
            vcpus=1,
            timer_latency_us=95.17033902567348,
            zero_ranges=[
                [148832256, 155774976], [233431040, 235032576], [235212800, 243699712],
                [532914176, 537403392],
            ],
            blocks=[536870912, 262144, 131072, 131072, 4096, 4096],
        ),
        workload=MixConfig(writers=writers),
        link=LinkConfig(
            bandwidth="unlimited",
            zero_page_scan=15712128012.234653,
            page_cost_ns=1838.2831288248035,
            wakeup_latency_us=950.6542649208754,
            non_ram_downtime_ms=8.20309979817789,
        ),
        migration=MigrationConfig(
            version="qemu_11_1", auto_converge=True, max_bandwidth=31457280, downtime_limit=2000
        ),
        seed=11,
    )  # fmt: skip
    assert simulate(config).summary.verdict == "converged"
