"""A dry run: what a config needs, costs and probably does, as data without any text."""

from __future__ import annotations

from dataclasses import dataclass

from gpusim.config.backend import Backend, choose_backend
from gpusim.config.scenario import Scenario, resolve
from gpusim.config.schema import Config
from gpusim.engine.evacuation import Host
from gpusim.engine.records import EvacuationSummary
from gpusim.explore.run_cost import Estimate, estimate_run
from gpusim.pages import backends


@dataclass(frozen=True, kw_only=True)
class RunPlan:
    """The needs and the probable result of one migration.

    Attributes:
        scenario: the checked config. Of several attempts it is the last.
        backend: where the bitmaps would live.
        free_bytes: memory there that is free now.
        largest_vm_bytes: the largest VM whose bitmaps fit that memory.
        estimate: verdict and times.
    """

    scenario: Scenario
    backend: Backend
    free_bytes: int
    largest_vm_bytes: int
    estimate: Estimate


@dataclass(frozen=True, kw_only=True)
class EvacuationPlan:
    """The needs and the probable result of the evacuation of a host.

    Attributes:
        guests: names in the order in which they start.
        largest_guest: the guest with the largest bitmaps.
        scenario, backend: of the largest guest.
        free_bytes: memory of that backend that is free now.
        summary: of the evacuation over expected counts.
        wall_s: wall time of all simulated migrations.
    """

    guests: tuple[str, ...]
    largest_guest: str
    scenario: Scenario
    backend: Backend
    free_bytes: int
    summary: EvacuationSummary
    wall_s: float


def make_plan(config: Config) -> RunPlan | EvacuationPlan:
    """Return what a config needs and probably does. It checks the config as a run does.

    Raises:
        ConfigError: as `simulate` would.
    """
    if config.evacuation is not None:
        return _plan_evacuation(config)
    scenario = resolve(config)
    backend = choose_backend(scenario)
    return RunPlan(
        scenario=scenario,
        backend=backend,
        free_bytes=backends.free_bytes(backend.name),
        largest_vm_bytes=backends.largest_bytes(
            backend.name, scenario.vm_bytes, scenario.bitmap_bytes, scenario.draw_bytes
        ),
        estimate=estimate_run(scenario, backend),
    )


def _plan_evacuation(config: Config) -> EvacuationPlan:
    host = Host(config)
    ahead = host.over_expected_shares()
    largest = max(host.vms, key=lambda vm: vm.scenario.bitmap_bytes)
    summary = ahead.evacuate().summary
    costs_s: dict[str, float] = {}  # guests with the same VM and workload cost the same
    wall_s = 0.0
    for vm, expected in zip(host.vms, ahead.vms, strict=True):
        kind = repr((vm.config.vm, vm.config.workload))
        if kind not in costs_s:
            costs_s[kind] = estimate_run(vm.scenario, vm.backend).wall_s
        wall_s += expected.runs * costs_s[kind]
    return EvacuationPlan(
        guests=tuple(vm.name for vm in host.vms),
        largest_guest=largest.name,
        scenario=largest.scenario,
        backend=largest.backend,
        free_bytes=backends.free_bytes(largest.backend.name),
        summary=summary,
        wall_s=wall_s,
    )
