"""A fleet from Prometheus: the text of an exporter, or answers of the query API in JSON.

Owns which metrics of KubeVirt and of libvirt's exporters say what of a VM. Sources:
kubevirt/kubevirt, pkg/monitoring/metrics/virt-handler: domainstats/dirty_rate_metrics.go (since v1.6.0,
2025-07-31, pull request 13806), domainstats/memory_metrics.go, domainstats/domainstats.go (labels),
migrationdomainstats/migrationstats_collector.go. KubeVirt measures one second: virt-launcher's
cmd-server (dirtyRateCalculationTime). inovex/prometheus-libvirt-exporter and
Tinkoff/libvirt-exporter: domain_info, domain_job_info and domain_vcpu. No exporter of libvirt has a
dirty rate.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from gpusim.errors import LONGEST_VALUE, one_line
from gpusim.formats.fleet import (
    IN_MIGRATION,
    LONGEST_VM_NAME,
    MOST_RATE,
    DirtyRates,
    Fault,
    FleetError,
    FleetVm,
)
from gpusim.formats.foreign_logs import hint_at_reader
from gpusim.formats.profile import MODES
from gpusim.reading import ReadingError, find_json, parse_json
from gpusim.units import MOST_BYTES, MOST_VCPUS

MEASURED_S = 1.0  # of KubeVirt's measurement
DIRTY_RATE = "kubevirt_vmi_dirty_rate_bytes_per_second"
# bytes per second during a migration: the name of releases now, and of older ones
MIGRATION_RATES = (
    "kubevirt_vmi_migration_dirty_memory_rate_bytes",
    "kubevirt_migrate_vmi_dirty_memory_rate_bytes",
)
MEMORY = (
    "kubevirt_vmi_memory_domain_bytes",
    "libvirt_domain_info_maximum_memory_bytes",
    "libvirt_domain_job_info_memory_total_bytes",
)
VCPUS = ("libvirt_domain_info_virtual_cpus", "libvirt_domain_vcpu_current")
# One series for each vCPU, and for each of its states.
PER_VCPU = {
    "kubevirt_vmi_vcpu_seconds_total": "id",
    "libvirt_domain_vcpu_time_seconds_total": "vcpu",
}
KNOWN = (DIRTY_RATE, *MIGRATION_RATES, *MEMORY, *VCPUS, *PER_VCPU)
LONGEST_LINE = 65_536  # characters of a line of the text format
_LINE = re.compile(
    r'([a-zA-Z_:][\w:]*)\s*(?:\{((?:[^"{}]++|"(?:[^"\\]|\\.)*+")*+)\})?\s+'
    r"(?:=>\s+)?(\S+)"  # => is promtool's
    r"(?:\s+(?:-?[0-9]+(?:\.[0-9]+)?|@\[[0-9.]+\]))?(?:\s+#.*)?",
    re.ASCII,
)
_LABEL = re.compile(r'\s*([a-zA-Z_]\w*)\s*=\s*"((?:[^"\\]|\\.)*)"\s*(?:,|$)', re.ASCII)
_ESCAPES = {r"\\": "\\", r"\"": '"', r"\n": "\n"}


@dataclass
class _Series:
    """What is known of one VM so far.

    Attributes:
        vm: with its memory and vCPUs.
        rates, migration_rates: bytes per second, in the order of the file.
        vcpus: names of vCPUs that have series of their own.
    """

    vm: FleetVm
    rates: list[float] = field(default_factory=list)
    migration_rates: list[float] = field(default_factory=list)
    vcpus: set[str] = field(default_factory=set)

    def add(self, metric: str, labels: Mapping[str, str], values: Sequence[float]) -> None:
        """Add the values of a series.

        Raises:
            ValueError: a value is not finite or out of range.
        """
        if metric in PER_VCPU:
            self.vcpus.add(labels.get(PER_VCPU[metric], ""))
        elif metric in MEMORY:
            self.vm = replace(self.vm, memory_bytes=_whole(metric, values[-1], MOST_BYTES))
        elif metric in VCPUS:
            self.vm = replace(self.vm, vcpus=_whole(metric, values[-1], MOST_VCPUS))
        else:
            for value in values:
                if not 0 <= value <= MOST_RATE:
                    raise ValueError(f"{metric} = {value:g}: must be from 0 to 2^50 bytes/s")
            found = self.rates if metric == DIRTY_RATE else self.migration_rates
            found += values

    def whole(self) -> FleetVm:
        """Return the VM with its measurements. A rate before a migration is better than one in it."""
        vm = self.vm
        if vm.vcpus is None and self.vcpus:
            vm = replace(vm, vcpus=min(len(self.vcpus), MOST_VCPUS))
        # The metric does not tell the mode. Page-sampling has the widest bounds.
        for rates, mode in ((self.rates, MODES[0]), (self.migration_rates, IN_MIGRATION)):
            if rates:
                one = DirtyRates(seconds=MEASURED_S, rates=tuple(rates), mode=mode)
                return vm.with_rates([one])
        return vm


class _Vms:
    """The VMs of a file, by namespace or host and name."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str], _Series] = {}
        self.faults: list[Fault] = []

    def add(
        self, place: str, metric: str, labels: Mapping[str, str], values: Sequence[float]
    ) -> None:
        """Add a series of a metric that is known. A series that cannot be used is a fault."""
        try:
            self._series(labels).add(metric, labels, values)
        except ValueError as error:
            self.faults.append(Fault(place=place, reason=str(error)))

    def whole(self) -> list[FleetVm]:
        """Return the VMs in the order of the file."""
        return [one.whole() for one in self._found.values()]

    def _series(self, labels: Mapping[str, str]) -> _Series:
        is_libvirt = "domain" in labels
        # Prometheus renames labels of an exporter that clash with those of the scrape.
        key = "domain" if is_libvirt else "name"
        name = labels.get(f"exported_{key}") or labels.get(key, "")
        namespace = labels.get("exported_namespace") or labels.get("namespace", "")
        if not 0 < len(name) <= LONGEST_VM_NAME or not (name + namespace).isprintable():
            raise ValueError('no label "name" (KubeVirt) or "domain" (libvirt) with the VM')
        host = labels.get("instance", "") if is_libvirt else namespace
        vm = FleetVm(name=name, namespace="" if is_libvirt else namespace[:LONGEST_VM_NAME])
        return self._found.setdefault((host, name), _Series(vm))


def read_exposition(path: Path, text: str) -> tuple[list[FleetVm], list[Fault]]:
    """Return the VMs of Prometheus text, and the lines that cannot be used.

    Source: prometheus.io/docs/instrumenting/exposition_formats.
    """
    vms = _Vms()
    for number, line in enumerate(map(str.strip, text.split("\n")), 1):
        if not line.startswith(KNOWN):
            continue
        place = f"line {number}"
        match = _LINE.fullmatch(line) if len(line) <= LONGEST_LINE else None
        if match is None:
            vms.faults.append(Fault(place=place, reason="is no metric{labels} value"))
        elif match[1] in KNOWN:
            try:
                labels, value = _labels(match[2] or ""), _number(match[3])
            except ValueError as error:
                vms.faults.append(Fault(place=place, reason=str(error)))
            else:
                vms.add(place, match[1], labels, [value])
    return vms.whole(), vms.faults


def read_answer(path: Path, text: str) -> tuple[list[FleetVm], list[Fault]]:
    """Return the VMs of one answer of Prometheus, or of several, one for each line.

    A matrix gives several dirty rates of one VM.

    Raises:
        FleetError: no JSON, no answer, or one with an error.
    """
    vms = _Vms()
    hint = hint_at_reader(text, "gpusim-predict --fleet")
    for answer in _answers(path, text, hint):
        for number, (labels, samples) in enumerate(_results(path, answer, hint), 1):
            place = f"result {number}"
            metric = labels.get("__name__", "")
            if metric not in KNOWN:
                shown = one_line(metric, LONGEST_VALUE) or "no __name__"
                reason = f"{shown}: query the metric itself, such as {DIRTY_RATE}"
                vms.faults.append(Fault(place=place, reason=reason))
                continue
            try:
                values = [_number(sample) for sample in samples]
            except ValueError as error:
                vms.faults.append(Fault(place=place, reason=str(error)))
                continue
            vms.add(place, metric, labels, values)
    return vms.whole(), vms.faults


def _answers(path: Path, text: str, hint: str) -> list[Any]:
    try:
        return [parse_json(text)]
    except ReadingError as error:
        reason = error.reason
    # Of an answer that was cut, only parts are whole.
    found = [
        one for one in find_json(text) if isinstance(one, Mapping) and {"data", "status"} & set(one)
    ]
    if not found:
        raise FleetError("not_json", path=path, reason=reason, hint=hint)
    return found


def _results(path: Path, answer: Any, hint: str) -> Iterator[tuple[dict[str, str], list[Any]]]:
    """Yield the labels and the values of each series of an answer."""
    if isinstance(answer, Mapping) and answer.get("status") == "error":
        raise FleetError("query_failed", path=path, reason=str(answer.get("error", "unknown")))
    data = answer.get("data", answer) if isinstance(answer, Mapping) else answer
    rows = data.get("result") if isinstance(data, Mapping) else data
    if not isinstance(rows, list):
        raise FleetError("not_an_answer", path=path, hint=hint)
    for row in rows:
        if not isinstance(row, Mapping) or not isinstance(row.get("metric"), Mapping):
            raise FleetError("not_an_answer", path=path, hint=hint)
        samples = row["values"] if "values" in row else [row.get("value")]
        if not isinstance(samples, list) or not samples or not all(map(_is_sample, samples)):
            raise FleetError("not_an_answer", path=path, hint=hint)
        labels = {str(key): str(value) for key, value in row["metric"].items()}
        yield labels, [sample[1] for sample in samples]


def _is_sample(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2


def _labels(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    at, end = 0, len(text.rstrip())
    while at < end:
        match = _LABEL.match(text, at)
        if match is None:
            raise ValueError('a label is not NAME="VALUE"')
        found[match[1]] = _unescaped(match[2])
        at = match.end()
    return found


def _unescaped(text: str) -> str:
    if "\\" not in text:
        return text
    return re.sub(r"\\.", lambda match: _ESCAPES.get(match[0], match[0]), text)


def _number(value: object) -> float:
    try:
        found = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        found = math.nan
    if not math.isfinite(found):
        raise ValueError(f"the value {one_line(value, LONGEST_VALUE)} is no finite number")
    return found


def _whole(metric: str, value: float, most: int) -> int:
    if not 1 <= value <= most:
        raise ValueError(f"{metric} = {value:g}: must be from 1 to {most}")
    return int(value)
