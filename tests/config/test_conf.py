"""Every file in conf/ composes."""

from __future__ import annotations

import itertools
import shlex
from dataclasses import replace

import pytest
from hydra.types import RunMode

from gpusim.config.scenario import resolve
from tests.cli.command import CONF, composed, composed_by_hydra, jobs
from tests.cli.engines import need_engine_of

# gpusim-record's are in tests/record/test_scenarios.py.
ELSEWHERE = ("record", "experiment", "sweep")
OPTIONS = sorted(
    f"{path.parent.name}={path.stem}"
    for path in CONF.glob("*/*.yaml")
    if path.parent.name not in ELSEWHERE
)
QUESTIONS = sorted([*CONF.glob("experiment/*.yaml"), *CONF.glob("sweep/*.yaml")])
COMPANIONS = {"migration=qemu_2_6": ["tracking=kvm_legacy"]}  # what an option cannot be without
SWEEPS = sorted(CONF.glob("sweep/*.yaml"))


@pytest.fixture(autouse=True)
def _every_backend_and_memory_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretend that every backend is available and has enough memory."""
    monkeypatch.setattr("gpusim.pages.backends.obstacle", lambda name: None)
    monkeypatch.setattr("gpusim.pages.backends.free_bytes", lambda name: 2**40)


@pytest.mark.parametrize("option", OPTIONS)
def test_option_composes_and_can_be_simulated(option: str) -> None:
    need_engine_of(option)
    resolve(composed(option, *COMPANIONS.get(option, [])))


def test_defaults_can_be_simulated() -> None:
    resolve(composed())


@pytest.mark.parametrize("path", QUESTIONS, ids=lambda path: path.stem)
def test_question_starts_with_its_command(path) -> None:
    package, command, *rest = path.read_text().splitlines()
    comment = " ".join(itertools.takewhile(lambda line: line.startswith("#"), rest))
    assert package == "# @package _global_"
    assert "?" in comment
    program, *overrides = shlex.split(command.removeprefix("# "))
    assert (program, overrides[0]) == ("gpusim", f"{path.parent.name}={path.stem}")
    need_engine_of(overrides[0])
    resolve(composed(*overrides))


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_sweep_has_a_folder_a_question_and_an_axis_of_its_own(path) -> None:
    need_engine_of(f"sweep={path.stem}")
    config = composed_by_hydra(f"sweep={path.stem}")
    assert config.hydra.mode == RunMode.MULTIRUN
    assert config.hydra.sweep.dir == f"outputs/multirun/{path.stem}"
    report, params = config.hydra.callbacks.report, config.hydra.sweeper.params
    assert report.question
    assert report.x is None or report.x in params
    if "optuna" in config.hydra.sweeper._target_:
        return
    for job in jobs([f"{key}={values}" for key, values in params.items()]):
        resolve(composed(f"sweep={path.stem}", *job))


@pytest.mark.slow
def test_workloads_scale_with_every_vm() -> None:
    vms = [composed(vm).vm for vm in ("vm=tiny_256mib", "vm=small_16gib", "vm=huge_24tib")]
    for workload in (option for option in OPTIONS if option.startswith("workload=")):
        config = composed(workload)
        for vm in vms:
            resolve(replace(config, vm=vm))


def test_experiment_yields_to_the_command_line() -> None:
    config = composed(
        "experiment=peter_xu_10tb",
        "migration=qemu_9_1",
        "workload.working_set_percent=5",
        "workload.page_writes_per_s=4e6",
    )
    assert config.migration.version == "qemu_9_1"
    assert config.workload.working_set_percent == 5
    assert config.workload.page_writes_per_s == 4e6


def test_peter_xu_is_the_published_case() -> None:
    config = composed("experiment=peter_xu_10tb")
    assert config.link.wakeup_latency_us == 0
    scenario = resolve(config)
    assert scenario.layout.pages * scenario.page_bytes == 10**13
    assert scenario.zero_first.size == 0
    assert scenario.parameters.max_bandwidth == 12_500_000_000
    assert scenario.parameters.downtime_limit_ms == 300
    assert scenario.link.bandwidth == float("inf")
    assert (scenario.link.zero_page_ns, scenario.link.page_cost_ns) == (0, 0)
    assert scenario.link.non_ram_downtime_ns == 0
    assert (scenario.tracking.log_sync_ns, scenario.tracking.merge_ns) == (0, 0)
    assert scenario.tracking.mode == "kvm_legacy"
