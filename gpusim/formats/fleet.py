"""A fleet: one dirty rate or more for each of many VMs, from whatever file an operator holds.

Owns what is known of a VM, which kind of file it is, and that a bad row costs one line and not the
file. The readers of each kind are fleet_csv.py, fleet_domstats.py and fleet_prometheus.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from gpusim.errors import CodedError, one_line
from gpusim.formats.foreign_logs import hint_at_reader
from gpusim.formats.pasted_text import clean, without_colours
from gpusim.reading import ReadingError, read_text
from gpusim.units import format_bytes

MOST_FAULTS = 10  # rows that are named one by one. The others are counted.
LONGEST_REASON = 160  # characters
LONGEST_VM_NAME = 200
MOST_VMS = 200_000
MOST_RATE = 2.0**50  # bytes per second that one VM may dirty
# In a migration QEMU counts only pages that are not waiting to be sent, and the guest may be
# throttled. So such a rate is a lower bound.
IN_MIGRATION = "migration"
ONCE_PER_PERIOD = ("page-sampling", "dirty-bitmap")  # modes that count a page once
_DOMSTATS = re.compile(r"^[ \t]*(?:Domain: '|dirtyrate\.\w)", re.M)
_METRIC = re.compile(
    r"^[ \t]*(?:# (?:HELP|TYPE) |(?:kubevirt|libvirt)_[\w:]+ *(?:\{|[-+0-9]))", re.M | re.ASCII
)


class FleetError(CodedError, ValueError):
    """A file that describes no fleet. The data of each error has the file's `path`."""

    texts: ClassVar[dict[str, str]] = {
        "unreadable": "{path}: cannot be read ({reason}). Name the file of a fleet",
        "unknown_kind": (
            "{path}: is no fleet. Expected CSV with the columns name, memory and dirty_rate, output "
            "of virsh domstats --dirtyrate, Prometheus text, or a Prometheus answer in JSON{hint}"
        ),
        "columns": "{path}: the header {problem}. Expected name,memory,dirty_rate and, if known, "
        "period,link,vcpus,mode",
        "no_vm": "{path}: {kind} without any usable VM{first}",
        "not_json": "{path}: is not JSON ({reason}). Expected the answer of Prometheus{hint}",
        "not_an_answer": (
            "{path}: is JSON, but no answer of Prometheus. Expected "
            '{{"status": "success", "data": {{"resultType": "vector", "result": [...]}}}}{hint}'
        ),
        "query_failed": "{path}: Prometheus refused the query ({reason}). Correct the query",
        "too_many_vms": "{path}: more than {most} VMs. Split the file",
    }


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A row that cannot be used.

    Attributes:
        place: where it stands, such as "row 7".
        reason: what is wrong and what is allowed, on one line.
    """

    place: str
    reason: str

    def __str__(self) -> str:
        return f"{self.place}: {one_line(self.reason, LONGEST_REASON)}"


@dataclass(frozen=True, kw_only=True)
class DirtyRates:
    """Dirty rates over periods of one length.

    Attributes:
        seconds: length of each period.
        rates: bytes per second, one for each measurement, in the order of the file. At least one.
        mode: how QEMU measured: a mode of profiles, or IN_MIGRATION.
        rounded: QEMU rounded the rate down to whole MiB/s.
    """

    seconds: float
    rates: tuple[float, ...]
    mode: str
    rounded: bool = True


@dataclass(frozen=True, kw_only=True)
class FleetVm:
    """What is known of one VM.

    Attributes:
        name: of the VM, for people and for commands.
        namespace: of KubeVirt. Empty: the VM is libvirt's.
        memory_bytes: RAM. None: unknown.
        vcpus: number of vCPUs. None: unknown.
        link: bytes per second of its own link. None: the link of the command.
        measured: its dirty rates, shortest period first. Empty: nobody measured.
    """

    name: str
    namespace: str = ""
    memory_bytes: int | None = None
    vcpus: int | None = None
    link: float | None = None
    measured: tuple[DirtyRates, ...] = ()

    @property
    def title(self) -> str:
        """Return the name for people, with the namespace."""
        return f"{self.namespace}/{self.name}" if self.namespace else self.name

    def with_rates(self, found: Iterable[DirtyRates]) -> FleetVm:
        """Return the VM with these measurements. Those of one length and mode belong together."""
        repeats: dict[tuple[float, str, bool], list[float]] = {}
        for one in found:
            repeats.setdefault((one.seconds, one.mode, one.rounded), []).extend(one.rates)
        measured = [
            DirtyRates(seconds=seconds, rates=tuple(rates), mode=mode, rounded=rounded)
            for (seconds, mode, rounded), rates in sorted(repeats.items(), key=lambda one: one[0])
        ]
        return replace(self, measured=tuple(measured))


@dataclass(frozen=True, kw_only=True)
class Fleet:
    """The VMs of a file.

    Attributes:
        path: of the file.
        kind: what the file is, for people.
        vms: in the order of the file. At least one.
        faults: rows that cannot be used.
    """

    path: Path
    kind: str
    vms: tuple[FleetVm, ...]
    faults: tuple[Fault, ...] = ()


def fault_lines(path: Path, faults: Sequence[Fault]) -> list[str]:
    """Return one line for each of the first faults, and one with the number of the others."""
    lines = [f"{one_line(path)}: {one}" for one in faults[:MOST_FAULTS]]
    if more := len(faults) - len(lines):
        lines.append(f"{one_line(path)}: {more} more rows cannot be used")
    return lines


def load_fleet(path: Path) -> Fleet:
    """Read the file of a fleet. Its content tells which kind of file it is.

    Raises:
        FleetError: the file cannot be read, is of another kind, or has no usable VM.
    """
    try:
        text = without_colours(read_text(path, errors="replace"))
    except ReadingError as error:
        raise FleetError("unreadable", path=path, reason=error.reason) from None
    try:
        kind, read = _reader(path, text)
    except FleetError:
        text = clean(text)  # as a collector printed it
        kind, read = _reader(path, text)
    found, faults = read(path, text)
    vms: list[FleetVm] = []
    for vm in found:
        if reason := _impossible(vm):
            faults.append(Fault(place=f"VM {vm.title}", reason=reason))
        else:
            vms.append(vm)
    if len(vms) > MOST_VMS:
        raise FleetError("too_many_vms", path=path, most=MOST_VMS)
    if not vms:
        first = f". {faults[0]}" if faults else ""
        raise FleetError("no_vm", path=path, kind=kind, first=first)
    return Fleet(path=path, kind=kind, vms=tuple(vms), faults=tuple(faults))


def _reader(
    path: Path, text: str
) -> tuple[str, Callable[[Path, str], tuple[list[FleetVm], list[Fault]]]]:
    from gpusim.formats.fleet_csv import has_header, read_csv
    from gpusim.formats.fleet_domstats import read_domstats
    from gpusim.formats.fleet_prometheus import read_answer, read_exposition

    if text.lstrip()[:1] in ("{", "["):
        return "answer of Prometheus", read_answer
    if _DOMSTATS.search(text):
        return "output of virsh domstats", read_domstats
    if _METRIC.search(text):
        return "Prometheus text", read_exposition
    if has_header(text):
        return "CSV", read_csv
    hint = hint_at_reader(text, "gpusim-predict --fleet") or _hint_at_log(path, text)
    raise FleetError("unknown_kind", path=path, hint=hint)


def _hint_at_log(path: Path, text: str) -> str:
    """Return which log of one migration a text is, or ""."""
    from gpusim.formats.errors import IntakeError
    from gpusim.formats.log_kinds import find_kind

    try:
        return f". This is {find_kind(path, text).name}. Type gpusim-predict FILE"
    except IntakeError:
        return ""


def _impossible(vm: FleetVm) -> str:
    """Return why the measurements of a VM cannot be right, or ""."""
    for one in vm.measured:
        dirtied = max(one.rates) * one.seconds
        if one.mode in ONCE_PER_PERIOD and vm.memory_bytes and dirtied > vm.memory_bytes:
            return (
                f"{format_bytes(dirtied)} are dirty after {one.seconds:g} s, and the VM has "
                f"{format_bytes(vm.memory_bytes)}. Give the dirty rate in MiB/s"
            )
    return ""
