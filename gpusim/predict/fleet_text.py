"""The answer for a fleet as a table of 80 columns, as CSV, and as a JSON document."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from gpusim.errors import one_line
from gpusim.files import csv_text
from gpusim.formats.fleet import IN_MIGRATION, FleetVm
from gpusim.predict.fleet import FleetAnswer, FleetRow
from gpusim.predict.fleet_bounds import FURTHER, NEVER, SURELY, Answer
from gpusim.predict.messages import text_of
from gpusim.text import (
    SIZES,
    count_noun,
    format_number,
    join_words,
    text_table,
    version_name,
    wrap_texts,
)
from gpusim.units import GIB, MIB, format_bytes
from gpusim.version import __version__

FORMAT = 1  # of the JSON document
WIDTH = 80
MOST_ROWS = 40  # of the table on a terminal
LONGEST_TITLE = 19  # characters of a VM in it
CUT = "..."  # in the middle of a longer name, because names of a fleet often begin alike
PERIODS_S = (1, 2, 5, 10, 30)
# From this memory on, page-sampling is exact enough. It costs the guest nothing.
SAMPLED_FROM = 16 * GIB
MOST_DISTRIBUTIONS = 5  # VMs whose several periods are told
NOT_A_FLEETS = ("parameters_assumed", "tracking_assumed", "auto_converge_assumed")  # assumptions
OPTIONS = {  # of gpusim-predict, and the unit
    "total_time_s": ("--deadline", "s"),
    "downtime_ms": ("--max-downtime", "ms"),
    "longest_vcpu_stall_ms": ("--max-stall", "ms"),
    "guest_cpu_lost_percent": ("--max-loss", "%"),
}
LABELS: Mapping[Answer, str] = {NEVER: "never", FURTHER: "measure further", SURELY: "surely"}
SHORT: Mapping[Answer, str] = {NEVER: "never", FURTHER: "measure", SURELY: "surely"}
# code -> (a few words for the table, a sentence)
REASONS: Mapping[str, tuple[str, str]] = {
    "rate": (
        "rate over link",
        "even the fewest pages that give the measured rate are dirtied faster than the link sends "
        "them, at every throttle that QEMU may set",
    ),
    "deadline": ("deadline", "even the shortest migration takes longer than --deadline"),
    "downtime": ("downtime", "the downtime for all but RAM is already longer than --max-downtime"),
    "stall": ("stall", "only a throttle whose sleep is longer than --max-stall may suffice"),
    "needs_throttle": (
        "needs throttle",
        "the guest dirties memory faster than the link sends it. Whether a throttle brings it over "
        "depends on how it writes",
    ),
    "not_measured": ("no dirty rate", "the file has no dirty rate of the VM"),
    "no_upper_bound": (
        "in migration",
        "a rate during a migration is only a lower bound",
    ),
    "hot_set": (
        "hot pages",
        "if all pages of the period are written again at once, they do not fit the downtime limit",
    ),
    "rate_may_win": (
        "rate near link",
        "if no page repeats, the guest dirties nearly as much as the slowest host sends, or more",
    ),
    "deadline_may_break": ("deadline", "the longest migration takes longer than --deadline"),
    "downtime_may_break": ("downtime", "the longest downtime is longer than --max-downtime"),
    "stall_may_break": ("stall", "the throttle may sleep longer than --max-stall"),
    "loss_may_break": ("loss", "throttle and first writes may take more than --max-loss"),
    "both_bounds": ("both bounds", "it migrates with the fewest and with the most pages"),
}
BOUNDED = (
    "Nobody measured the working sets. At the least a guest writes the pages that its period saw. "
    "At the most it writes all its memory at that rate without a repeat, and all pages of the period "
    "again at once. Never: it fails even at the least. Surely: it migrates even at the most, without "
    "help from the throttle. Nothing is promised for a guest that writes otherwise than in the "
    "measured periods."
)
HEAD = ("VM", "dirty rate", "working set", "answer", "why")
LEFT = (0, 3, 4)  # columns of the table that are aligned left
PAGE_HEAD = ("VM", "Answer", "Why", "Memory", "Dirty rate", "Of the link", "Working set")
CSV_HEAD = (
    "vm", "namespace", "answer", "reason", "memory_bytes", "vcpus", "link_bytes_per_s",
    "dirty_rate_bytes_per_s", "period_s", "measurements", "working_set_least_bytes",
    "working_set_most_bytes", "least_total_time_s", "most_total_time_s", "least_throttle_percent",
    "most_downtime_ms", "surely_share", "never_share", "surely_up_to_bytes_per_s", "why",
    "working_set_bounds", "command",
)  # fmt: skip


def summary_lines(answer: FleetAnswer) -> list[str]:
    """Return what the file is, the host, and how many VMs have each answer."""
    counts = [f"{LABELS[one]}: {answer.count(one)}" for one in (NEVER, FURTHER, SURELY)]
    path = one_line(answer.fleet.path)
    vms = count_noun(len(answer.rows), "VM")
    return [
        f"{path}: {answer.fleet.kind}, {vms}. {_host(answer)}{_bounds(answer)}",
        f"{', '.join(counts)}".capitalize(),
    ]


def terminal_lines(answer: FleetAnswer) -> str:
    """Return the answer for a terminal of 80 columns."""
    shown = answer.rows[:MOST_ROWS]
    parts = [
        wrap_texts(summary_lines(answer), WIDTH),
        text_table([HEAD, *map(_cells, shown)], left_columns=LEFT).split("\n"),
    ]
    if more := len(answer.rows) - len(shown):
        parts[-1].append(f"... and {more} more. To see all, add --csv FILE or --report FOLDER")
    codes = list(dict.fromkeys(row.judged.reason for row in shown))
    notes = [f"{REASONS[code][0]}: {REASONS[code][1]}." for code in codes if code != "both_bounds"]
    for texts in (notes, [BOUNDED], distributions(answer), assumptions(answer)):
        parts.append(wrap_texts(texts, WIDTH))
    first = next((row for row in shown if row.judged.answer == FURTHER), None)
    if first is not None:
        heading = f"To measure {_title(first)} further, type:"
        parts.append([heading, *measure_lines(answer, first)])
        if answer.count(FURTHER) > 1:
            parts.append(["The commands for the other VMs: --csv FILE or --report FOLDER"])
    return "\n\n".join("\n".join(part) for part in parts if part)


def assumptions(answer: FleetAnswer) -> list[str]:
    """Return what the user did not specify, as sentences."""
    return [text_of(one) for one in answer.assumptions if one.code not in NOT_A_FLEETS]


def distributions(answer: FleetAnswer) -> Iterator[str]:
    """Yield what several rates over time say of the first VMs that are not sure to migrate."""
    found = [row for row in answer.rows if row.judged.surely_share is not None]
    unsure = [row for row in found if row.judged.answer != SURELY]
    for row in unsure[:MOST_DISTRIBUTIONS]:
        judged, count = row.judged, sum(len(one.rates) for one in row.vm.measured)
        share = format_number(100 * (judged.surely_share or 0.0))
        text = f"{_title(row)}: surely in {share} % of {count} periods"
        if judged.quiet_rate is not None:
            text += f", which are those up to {_rate(judged.quiet_rate)}"
        yield f"{text}."
    if len(unsure) > MOST_DISTRIBUTIONS:
        more = len(unsure) - MOST_DISTRIBUTIONS
        yield f"{more} more VMs have several periods: --csv FILE shows them."


def fleet_csv(answer: FleetAnswer) -> str:
    """Return all rows as CSV, the most urgent first."""
    return csv_text([CSV_HEAD, *(_csv_row(answer, row) for row in answer.rows)])


def fleet_document(answer: FleetAnswer) -> dict[str, Any]:
    """Return the answer as a JSON document. An unknown or infinite number is null."""
    return {
        "fleet": FORMAT,
        "gpusim_version": __version__,
        "kind": answer.fleet.kind,
        "version": answer.version,
        "settings": list(answer.overrides),
        "counts": {one: answer.count(one) for one in (NEVER, FURTHER, SURELY)},
        "working_set_bounds": BOUNDED,
        "bounds": dict(answer.bounds.items()),
        "assumptions": assumptions(answer),
        "vms": [dict(zip(CSV_HEAD, _csv_row(answer, row), strict=True)) for row in answer.rows],
        "unusable": [{"place": one.place, "reason": one.reason} for one in answer.faults],
    }


def page_cells(row: FleetRow) -> tuple[str, ...]:
    """Return the cells of a VM on the page, see PAGE_HEAD."""
    judged = row.judged
    return (
        row.vm.title,
        LABELS[judged.answer],
        REASONS[judged.reason][0],
        format_bytes(row.memory_bytes),
        _measured(row),
        _percent(row),
        _working_set(row),
    )


def measure_lines(answer: FleetAnswer, row: FleetRow) -> list[str]:
    """Return the commands that measure a VM over several periods, and then predict it."""
    vm = row.vm
    log = shlex.quote(f"{_file_name(vm.name)}.log")
    mode = "page-sampling" if row.memory_bytes >= SAMPLED_FROM else "dirty-bitmap"
    periods = " ".join(map(str, PERIODS_S))
    virsh, domain, lines = "virsh", shlex.quote(vm.name), []
    if vm.namespace:
        space, name = shlex.quote(vm.namespace), shlex.quote(vm.name)
        label = shlex.quote(f"vm.kubevirt.io/name={vm.name}")
        lines = [
            f"POD=$(kubectl get pod -n {space} -l {label} -o name)",
            f'in_pod() {{ kubectl exec -n {space} "$POD" -c compute -- "$@"; }}',
        ]
        virsh, domain = "in_pod virsh", f"{space}_{name}"
    lines += [
        f"{virsh} dominfo {domain} > {log}",
        f"for s in {periods}; do",
        f"  {virsh} domdirtyrate-calc {domain} --seconds $s --mode {mode}",
        f"  sleep $((s + 1)); {virsh} domstats {domain} --dirtyrate >> {log}",
        "done",
    ]
    return [*lines, " ".join(["gpusim-predict --domstats", log, *_settings(answer, row)])]


def _settings(answer: FleetAnswer, row: FleetRow) -> Iterator[str]:
    own_link = row.vm.link is not None
    for override in answer.overrides:
        is_link = override.lstrip("+").partition("=")[0] in ("link", "link.bandwidth")
        if not (own_link and is_link):
            yield shlex.quote(override)
    if own_link:
        is_finite = math.isfinite(row.bandwidth)
        yield f"link.bandwidth={row.bandwidth:.0f}B/s" if is_finite else "link=unlimited"
    yield from _limits(answer)


def _limits(answer: FleetAnswer) -> Iterator[str]:
    """Yield the limits of the user as options."""
    for name, most in answer.bounds.items():
        option, unit = OPTIONS[name]
        yield f"{option} {most:g}{unit}"


def _file_name(name: str) -> str:
    plain = "".join(char if char.isalnum() or char in "-_." else "_" for char in name)
    return plain.lstrip(".-")[:100] or "vm"


def _host(answer: FleetAnswer) -> str:
    parameters = answer.parameters
    on = "on" if parameters.auto_converge else "off"
    limit = f"downtime limit {parameters.downtime_limit_ms} ms"
    return f"{version_name(answer.version)}, auto-converge {on}, {limit}"


def _bounds(answer: FleetAnswer) -> str:
    limits = list(_limits(answer))
    return f", {join_words(limits)}" if limits else ""


def _cells(row: FleetRow) -> tuple[str, ...]:
    judged = row.judged
    return (
        _title(row),
        "-" if judged.rate is None else _rate(judged.rate),
        _working_set(row),
        SHORT[judged.answer],
        REASONS[judged.reason][0],
    )


def _title(row: FleetRow) -> str:
    title = row.vm.title
    if len(title) <= LONGEST_TITLE:
        return title
    kept = LONGEST_TITLE - len(CUT)
    return title[: kept // 2] + CUT + title[-(kept - kept // 2) :]


def _measured(row: FleetRow) -> str:
    if row.judged.rate is None:
        return "not measured"
    periods = join_words([f"{one.seconds:g} s" for one in row.vm.measured[:3]])
    count = sum(len(one.rates) for one in row.vm.measured)
    times = f"{count} times " if count > 1 else ""
    return f"{_rate(row.judged.rate)} ({times}over {periods})"


def _rate(bytes_per_s: float) -> str:
    return f"{format_number(bytes_per_s / MIB)} MiB/s"


def _percent(row: FleetRow) -> str:
    return "-" if row.judged.rate is None else f"{format_number(100 * row.link_share)} %"


def _working_set(row: FleetRow) -> str:
    """Return the bounds, such as "24 MiB to 16 GiB". The upper bound is the memory of the VM."""
    if row.judged.working_set is None:
        return f"0 to {format_bytes(row.memory_bytes)}"
    least, most = row.judged.working_set
    return f"{_short_size(least)} to {format_bytes(most)}"


def _short_size(size: float) -> str:
    """Return a size with three digits: 24.2 MiB."""
    name, unit = next((one for one in SIZES if size >= one[1]), SIZES[-1])
    return f"{format_number(size / unit)} {name}" if size else "0"


def _csv_row(answer: FleetAnswer, row: FleetRow) -> tuple[object, ...]:
    judged, vm = row.judged, row.vm
    least, most = judged.working_set or (None, None)
    command = "\n".join(measure_lines(answer, row)) if judged.answer == FURTHER else None
    return (
        vm.name,
        vm.namespace or None,
        judged.answer,
        judged.reason,
        row.memory_bytes,
        row.vcpus,
        _finite(row.bandwidth),
        judged.rate,
        " ".join(f"{one.seconds:g}" for one in vm.measured) or None,
        sum(len(one.rates) for one in vm.measured),
        least,
        most,
        _finite(judged.least_time_s),
        _finite(judged.most_time_s),
        judged.least_throttle,
        _finite(1000 * judged.most_downtime_s),
        judged.surely_share,
        judged.never_share,
        judged.quiet_rate,
        REASONS[judged.reason][1],
        _set_bounds(vm),
        command,
    )


def _set_bounds(vm: FleetVm) -> str:
    if not vm.measured:
        return "unknown"
    if vm.measured[0].mode == IN_MIGRATION:
        return "least: pages dirtied in 1 s of the migration, most: unknown"
    if vm.measured[0].mode == "dirty-ring":
        return "least: 0, because a dirty ring counts pages again, most: all memory"
    return "least: the pages of the period, most: all memory without a repeat"


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
