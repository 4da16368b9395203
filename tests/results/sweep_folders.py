"""Writes folders of sweeps from plain numbers, in the layout of `gpusim -m`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gpusim import Config, WriterConfig
from gpusim.results.sweeps.runs import Run, find_runs
from tests.results.conftest import FakeMigration

SUMMARY = asdict(FakeMigration(working_set_bytes=0).run().summary)
CONFIG = asdict(Config(workload=WriterConfig(working_set_percent=10.0), plot=False))


def config_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a whole config with some dotted keys set."""
    config = json.loads(json.dumps(CONFIG))
    for key, value in values.items():
        *path, last = key.split(".")
        place = config
        for part in path:
            place = place[part]
        place[last] = value
    return config


def write(
    folder: Path,
    values: Mapping[str, Any] | None = None,
    *,
    total_time_s: float = 10.0,
    verdict: str = "converged",
    **summary: Any,
) -> Path:
    """Write one run. `values` are dotted config keys. None: the run has no config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    if values is not None:
        (folder / "config.json").write_text(json.dumps(config_of(values)))
    whole = SUMMARY | {"total_time_s": total_time_s, "verdict": verdict} | summary
    whole["run_hash"] = "0" * 16
    (folder / "summary.json").write_text(json.dumps(whole))
    return folder


def write_failed(folder: Path, values: Mapping[str, Any] | None = None) -> Path:
    """Write a run that raised an error."""
    folder.mkdir(parents=True, exist_ok=True)
    if values is not None:
        (folder / "config.json").write_text(json.dumps(config_of(values)))
    failed = {"status": "failed", "error": "MemoryError: <b>too large</b>", "traceback": "..."}
    (folder / "summary.json").write_text(
        json.dumps(failed | {"gpusim_version": "0", "run_hash": ""})
    )
    return folder


def write_grid(folder: Path, runs: int) -> None:
    """Write a sweep of memory, bandwidth, timer and seeds. A tenth of the runs does not converge."""
    for index in range(runs):
        seed, place = index % 20 + 1, index // 20
        memory, bandwidth, timer = 2 ** (6 + place % 5), 5 * (1 + place // 5 % 5), place // 25 % 4
        interval = ("never", None, "2s", "10s")[timer]
        values = {
            "vm.memory": f"{memory}GiB",
            "vm.vcpus": memory // 8,
            "link.bandwidth": f"{bandwidth}Gbit/s",
            "migration.fallback_sync_interval": interval,
            "seed": seed,
        }
        stalled = memory >= 512 and timer == 0
        write(
            folder / f"memory={memory}GiB,bandwidth={bandwidth}Gbitps,timer={timer},seed={seed}",
            values,
            total_time_s=memory * 8.6 / bandwidth * (1 + timer / 10 + seed / 200),
            verdict="not_converged" if stalled else "converged",
            guest_cpu_lost_s=memory * 2.0 / bandwidth * (1 + seed / 100),
            guest_cpu_lost_percent=10.0 + seed / 10,
        )


def runs_of(folder: Path, *configs: dict[str, Any]) -> list[Run]:
    """Write one run for each config and return the runs."""
    for index, config in enumerate(configs):
        write(folder / str(index), config)
    return find_runs([folder]).runs
