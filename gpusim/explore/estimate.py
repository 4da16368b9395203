"""Simulates one migration for a prediction or a search: as exactly as these need, and quickly.

A VM up to SMALL_BYTES is simulated over bitmaps. A larger VM is simulated over expected shares of its
pages (pages/expected.py), in larger granules, and with many bursts and clears in one step. In millions
of pages, chance changes less than two members of a prediction differ.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from gpusim.config.backend import EXPECTED, Backend, choose_backend
from gpusim.config.scenario import Scenario, resolve
from gpusim.config.schema import Config, MixConfig
from gpusim.engine.attempts import run_attempts
from gpusim.engine.migration import Migration
from gpusim.engine.records import Result
from gpusim.qemu.process import Process
from gpusim.units import parse_bytes
from gpusim.wall_limit import WallLimit

SMALL_BYTES = 2**32  # up to this size real bitmaps take no longer than expected shares
# Granules of a VM in a run over expected shares. Where a granule lies is chance, so fewer and larger
# granules change a total time by about 1 %, and take a tenth of the time.
MOST_GRANULES = 4096


def estimate(
    config: Config,
    *,
    backend: Backend | None = None,
    most_steps: int | None = None,
    small_bytes: float = SMALL_BYTES,
) -> Result:
    """Simulate one migration for a prediction or a search.

    Args:
        config: what to simulate.
        backend: where the bitmaps of a small VM live. None: where the config says.
        most_steps: how many steps of the engine at most, in each attempt. A run that takes more, or more time than
            the config's `limit.wall`, has the status `incomplete` and no verdict.
        small_bytes: a VM up to this size is simulated over bitmaps.

    Raises:
        ConfigError: a value cannot be simulated.
        RuleError: a user's rule raises or breaks its contract.
    """
    scenario = resolve(config)
    is_small = scenario.vm_bytes <= small_bytes
    if not is_small:
        larger = in_larger_granules(config, scenario.vm_bytes)
        scenario = scenario if larger is config else resolve(larger)

    where = EXPECTED if not is_small else backend or choose_backend(scenario)

    def migration(own: Scenario, process: Process) -> Migration:
        return Migration(
            own,
            where,
            process=process,
            limit=WallLimit(own.wall_limit_ns, most_checks=most_steps),
            is_estimate=not is_small,
        )

    return run_attempts(scenario, migration)


def in_larger_granules(config: Config, vm_bytes: int) -> Config:
    """Return a mix with larger granules, at most MOST_GRANULES in the VM or 1 GiB each.

    Only granules in bytes change, as predictions have them. A mix stays as it is if its writers do
    not fit the VM in such granules.
    """
    workload = config.workload
    if not isinstance(workload, MixConfig):
        return config
    least = 2 ** (max(1, vm_bytes // MOST_GRANULES) - 1).bit_length()
    writers = {name: _in_granules(writer, least) for name, writer in workload.writers.items()}
    scattered = [one for one in writers.values() if isinstance(one, dict) and one.get("granule")]
    try:
        needed = sum(-(-parse_bytes(one["working_set"]) // least) for one in scattered)
    except (KeyError, TypeError, ValueError):
        return config
    if not scattered or needed > vm_bytes // least:
        return config
    return replace(config, workload=replace(workload, writers=writers))


def _in_granules(writer: Any, least: int) -> Any:
    """Return a writer whose granule has at least so many bytes, or 1 GiB if that is less."""
    if not isinstance(writer, dict) or not isinstance(writer.get("granule"), int):
        return writer
    return writer | {"granule": max(writer["granule"], min(least, 2**30))}
