"""The answer for a fleet: one judgement for each VM, the most urgent first. Data only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gpusim.explore.bounds import Bounds
from gpusim.formats.fleet import Fault, Fleet, FleetError, FleetVm
from gpusim.predict.fleet_bounds import (
    ANSWERS,
    DEFAULT_VCPUS,
    FURTHER,
    Answer,
    Judgement,
    judge,
)
from gpusim.predict.fleet_host import FleetHosts
from gpusim.qemu.parameters import Parameters
from gpusim.text import Message

URGENT_REASONS = ("needs_throttle", "not_measured")  # of the answers to measure further


@dataclass(frozen=True, kw_only=True)
class FleetRow:
    """One VM and its answer.

    Attributes:
        vm: as in the file.
        memory_bytes, vcpus: of the VM, or of the command line if the file does not say them.
        bandwidth: of its link, bytes per second.
        link_share: the highest dirty rate as a share of what the sender sends at the most.
        judged: the answer.
    """

    vm: FleetVm
    memory_bytes: int
    vcpus: int
    bandwidth: float
    link_share: float
    judged: Judgement


@dataclass(frozen=True, kw_only=True)
class FleetAnswer:
    """The answers for a fleet.

    Attributes:
        fleet: the file.
        rows: what needs attention first: never, then measure further, then surely.
        faults: rows of the file without an answer.
        overrides: the settings of the user.
        version: the QEMU version whose rules decide.
        parameters: QEMU's migration parameters.
        bounds: what the user allows each VM.
        assumptions: what the user did not specify.
    """

    fleet: Fleet
    rows: tuple[FleetRow, ...]
    faults: tuple[Fault, ...]
    overrides: tuple[str, ...]
    version: str
    parameters: Parameters
    bounds: Bounds
    assumptions: tuple[Message, ...]

    def count(self, answer: Answer) -> int:
        """Return how many VMs have an answer."""
        return sum(row.judged.answer == answer for row in self.rows)


def answer_fleet(
    fleet: Fleet,
    overrides: Sequence[str],
    bounds: Bounds,
    *,
    memory_bytes: int | None = None,
    vcpus: int | None = None,
) -> FleetAnswer:
    """Return the answer for each VM of a fleet.

    Args:
        fleet: the VMs.
        overrides: settings of the host, as gpusim takes them.
        bounds: what the user allows each VM.
        memory_bytes, vcpus: of VMs whose file does not say them. None: unknown.

    Raises:
        ConfigError: a setting cannot be used.
        FleetError: no VM has a size.
    """
    hosts = FleetHosts(overrides)
    rows: list[FleetRow] = []
    faults = list(fleet.faults)
    for vm in fleet.vms:
        memory = vm.memory_bytes or memory_bytes
        if memory is None:
            reason = "has no memory size in the file. Add it, or --memory 64GiB"
            faults.append(Fault(place=f"VM {vm.title}", reason=reason))
            continue
        host = hosts.of(vm.link)
        found = judge(vm, host, bounds, memory, vm.vcpus or vcpus)
        rows.append(
            FleetRow(
                vm=vm,
                memory_bytes=memory,
                vcpus=vm.vcpus or vcpus or DEFAULT_VCPUS,
                bandwidth=host.bandwidth,
                link_share=(found.rate or 0.0) / host.fast_bytes_per_s,
                judged=found,
            )
        )
    if not rows:
        raise FleetError("no_vm", path=fleet.path, kind=fleet.kind, first=f". {faults[0]}")
    assumptions = [*hosts.drawn.assumptions, hosts.sender()]
    if any(vm.vcpus is None for vm in fleet.vms) and vcpus is None:
        assumptions.append(Message("fleet_vcpus_assumed", {"vcpus": DEFAULT_VCPUS}))
    return FleetAnswer(
        fleet=fleet,
        rows=tuple(sorted(rows, key=_urgency)),
        faults=tuple(faults),
        overrides=tuple(overrides),
        version=hosts.version,
        parameters=hosts.parameters,
        bounds=bounds,
        assumptions=tuple(assumptions),
    )


def _urgency(row: FleetRow) -> tuple[int, bool, float, str]:
    """Return the place of a VM in the answer: the lower, the earlier."""
    is_urgent = row.judged.answer == FURTHER and row.judged.reason in URGENT_REASONS
    return ANSWERS.index(row.judged.answer), not is_urgent, -row.link_share, row.vm.title
