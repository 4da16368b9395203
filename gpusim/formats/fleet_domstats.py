"""A fleet from `virsh domstats --dirtyrate --balloon --vcpu` of many domains, once or repeatedly."""

from __future__ import annotations

from pathlib import Path

from gpusim.formats.errors import ProfileError
from gpusim.formats.fleet import LONGEST_VM_NAME, DirtyRates, Fault, FleetVm
from gpusim.formats.profile import MODES
from gpusim.formats.virsh import (
    finished_runs,
    last_values,
    memory_of,
    number_of,
    split_domains,
    vcpus_of,
)
from gpusim.shapes import ShapeError
from gpusim.text import join_words
from gpusim.units import MIB, MOST_BYTES, MOST_VCPUS


def read_domstats(path: Path, text: str) -> tuple[list[FleetVm], list[Fault]]:
    """Return the VMs of a log of virsh, and those that cannot be used.

    A VM whose measurement has not ended has no dirty rate.
    """
    vms: list[FleetVm] = []
    faults: list[Fault] = []
    for name, lines in split_domains(text).items():
        try:
            vms.append(_vm_of(path, name, lines))
        except (ProfileError, ShapeError, ValueError) as error:
            reason = str(error).removeprefix(f"{path}: ")
            faults.append(Fault(place=f"domain {name[:LONGEST_VM_NAME]}", reason=reason))
    return vms, faults


def _vm_of(path: Path, name: str, lines: str) -> FleetVm:
    if not 0 < len(name) <= LONGEST_VM_NAME or not name.isprintable():
        raise ValueError(f"a name must have 1 to {LONGEST_VM_NAME} printable characters")
    values = last_values(lines)
    memory, vcpus = memory_of(values), vcpus_of(values)
    if memory > MOST_BYTES or vcpus > MOST_VCPUS:
        raise ValueError(f"must have at most 1 PiB and {MOST_VCPUS} vCPUs")
    vm = FleetVm(name=name, memory_bytes=memory or None, vcpus=vcpus or None)
    measured: list[DirtyRates] = []
    for run in finished_runs(lines):
        mode = run.get("dirtyrate.calc_mode", MODES[0])
        if mode not in MODES:
            raise ValueError(f"dirtyrate.calc_mode must be {join_words(MODES, 'or')}")
        seconds = number_of(path, run, "calc_period", 1.0)
        rate = MIB * number_of(path, run, "megabytes_per_second")
        measured.append(DirtyRates(seconds=seconds, rates=(rate,), mode=mode))
    return vm.with_rates(measured)
