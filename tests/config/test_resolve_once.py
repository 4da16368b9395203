"""A run checks its config once, and passes the scenario on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gpusim.cli import job
from gpusim.cli.output import SILENT
from gpusim.config import scenario as scenario_module
from gpusim.config.scenario import Scenario
from gpusim.config.schema import (
    AttemptConfig,
    Config,
    LinkConfig,
    MigrationConfig,
    VmConfig,
    WriterConfig,
)
from gpusim.engine.migration import Migration


@pytest.fixture
def resolved(monkeypatch: pytest.MonkeyPatch) -> list[Config]:
    """Record every config that is resolved, in order."""
    configs: list[Config] = []
    check: Callable[..., Any] = scenario_module._resolve_migration

    def watched(config: Config, *more: Any) -> Any:
        configs.append(config)
        return check(config, *more)

    monkeypatch.setattr(scenario_module, "_resolve_migration", watched)
    return configs


@pytest.fixture
def simulated(monkeypatch: pytest.MonkeyPatch) -> list[Config]:
    """Record the config of every migration that is simulated, in order."""
    configs: list[Config] = []
    start = Migration.__init__

    def watched(self: Migration, scenario: Scenario, *more: Any, **keys: Any) -> None:
        configs.append(scenario.config)
        start(self, scenario, *more, **keys)

    monkeypatch.setattr(Migration, "__init__", watched)
    return configs


def small(**keys: Any) -> Config:
    writer = WriterConfig(working_set_percent=5, page_writes_per_s=1000)
    return Config(vm=VmConfig(memory="64MiB"), workload=writer, plot=False, **keys)


def test_a_plain_run_resolves_once(resolved: list[Config], tmp_path: Path) -> None:
    config = small()
    job.run_config(config, tmp_path, output=SILENT)
    assert resolved == [config]


def test_a_dry_run_resolves_once(resolved: list[Config], tmp_path: Path) -> None:
    config = small(dry_run=True)
    job.run_config(config, tmp_path, output=SILENT)
    assert resolved == [config]


def test_each_attempt_is_resolved_once(resolved: list[Config], tmp_path: Path) -> None:
    cancelled = AttemptConfig(schedule=[{"at": "10ms", "do": "cancel"}])
    job.run_config(small(attempts=[cancelled, AttemptConfig(after=1)]), tmp_path, output=SILENT)
    assert [config.seed for config in resolved] == [1, 2]


def test_a_run_with_alternatives_resolves_each_simulated_config_once(
    resolved: list[Config], simulated: list[Config], tmp_path: Path
) -> None:
    stalled = Config(
        vm=VmConfig(memory="256MiB", vcpus=2),
        workload=WriterConfig(working_set="128MiB", page_writes_per_s=2e5),
        link=LinkConfig(bandwidth="1Gbit/s"),
        migration=MigrationConfig(auto_converge=False),
    )
    job.run_config(stalled, tmp_path, output=SILENT)
    assert len(simulated) > 2
    assert len(resolved) == len(simulated)
