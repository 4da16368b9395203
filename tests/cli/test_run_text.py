"""The lines that `gpusim` prints, compared with golden files."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from gpusim import (
    AttemptConfig,
    Config,
    LinkConfig,
    MigrationConfig,
    PolicyConfig,
    VmConfig,
    WriterConfig,
)
from gpusim.cli.dry_run_text import plan_text
from gpusim.cli.run_text import attempt_lines, outcome_lines, start_lines
from gpusim.config.backend import Backend
from gpusim.config.scenario import resolve
from gpusim.engine.attempts import simulate_scenario
from gpusim.explore.dry_run import RunPlan
from gpusim.explore.run_cost import Estimate
from tests.golden import check_golden

NUMPY = Backend("numpy", "chosen by name", 1)


def config(**keys: Any) -> Config:
    return Config(
        vm=VmConfig(memory="64MiB", vcpus=2, zero_percent=10.0),
        workload=WriterConfig(working_set="8MiB", page_writes_per_s=1000.0),
        link=LinkConfig(bandwidth="1Gbit/s"),
        migration=MigrationConfig(version="qemu_9_2"),
        **keys,
    )


def test_the_lines_of_a_run() -> None:
    cancelled = AttemptConfig(schedule=[{"at": "10ms", "do": "cancel"}])
    scenario = resolve(config(attempts=[cancelled, AttemptConfig(after=1)]))
    result = simulate_scenario(scenario, NUMPY)
    summary = replace(result.summary, wall_time_s=0.5)
    lines = [*attempt_lines(scenario, result), *outcome_lines(summary)]
    check_golden("gpusim-run", "\n".join(lines) + "\n")


@pytest.mark.parametrize("is_complete", [True, False])
def test_the_lines_of_a_dry_run(is_complete: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpusim.cli.dry_run_text.device_name", lambda name: "CPU, 2 cores")
    scenario = resolve(replace(config(), limit=replace(config().limit, wall="1s")))
    summary = simulate_scenario(scenario, NUMPY).summary
    status = "ok" if is_complete else "incomplete"
    plan = RunPlan(
        scenario=scenario,
        backend=NUMPY,
        free_bytes=2**34,
        largest_vm_bytes=2**48,
        estimate=Estimate(replace(summary, status=status), 12.34, 56.78),
    )
    check_golden(f"gpusim-dry-run-{status}", plan_text(plan) + "\n")


@pytest.mark.parametrize("skips", [True, False])
def test_the_wait_for_a_manager_is_told(skips: bool) -> None:
    """Before the run if it is simulated, and after the run if it was not."""
    nova = PolicyConfig(target="gpusim.policies.nova:Nova")
    limit = replace(config().limit, skip_waiting=skips)
    run = replace(config(), migration=replace(config().migration, manager=nova), limit=limit)
    assert bool(list(start_lines(resolve(run)))) is not skips
    assert not list(start_lines(resolve(config(limit=limit))))
    summary = replace(simulate_scenario(resolve(run), NUMPY).summary, skipped_s=7200.0)
    assert "7200.0 s" in list(outcome_lines(summary))[-1]
