"""`python -m studies.qemu_11_1` runs three sweeps and writes the tables of docs/studies/qemu-11-1.md.

A sweep computes only what is missing. Overrides after the command apply to all sweeps. The guest of
10 TiB is in no sweep: it runs over expected counts of pages, because QEMU 11.1 makes 20 000 syncs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from itertools import filterfalse
from pathlib import Path

from gpusim.config.scenario import resolve
from gpusim.config.schema import Config, LinkConfig, MigrationConfig, VmConfig, WriterConfig
from gpusim.engine.expected_run import expected_run
from gpusim.results.settings import flat_settings
from gpusim.results.sweeps.config_values import VERSION
from gpusim.results.sweeps.ensembles import Ensemble, ensembles
from gpusim.results.sweeps.runs import Run
from gpusim.text import format_number
from gpusim.units import NS_PER_S
from gpusim.wall_limit import WallLimit
from studies.fallback_interval import memory, parser_of, rule, runs_of
from studies.tables import table, with_tables

SIZES, KUBEVIRT, RECORDED = "qemu_11_1", "qemu_11_1_kubevirt", "qemu_11_1_recorded"
SWEEPS = (SIZES, KUBEVIRT, RECORDED)
LARGEST = "10TiB"
VERSIONS = ("qemu_11_0", "qemu_11_1", "what_if_11_1_fixed")
WALL_LIMIT_NS = 3600 * NS_PER_S
PERMITS = "migration.postcopy_ram"
MANAGER = "migration.manager"
GRANULE = "workload.granule"
FIXED = {"what_if_11_1_fixed": "11.1 fixed"}
MANAGERS = {"KubeVirtStall": "stall detection", "KubeVirt": "downtime ramp"}
# What was recorded of QEMU 11.1.3 under KVM, without and with post-copy permitted.
MEASURED = {False: ("13", "34.5", "44.8"), True: ("330", "27.3", "33.6")}
RECORDED_COLUMNS = {
    "bitmap_sync_count": "syncs made",
    "first_throttle_s": "first throttle (s)",
    "total_time_s": "total time (s)",
}
COSTS = {
    "bitmap_sync_count": "syncs made",
    "dirty_sync_count": "reported",
    "sync_stall_s": "sender stalled (s)",
    "main_loop_stall_s": "main loop stalled (s)",
    "first_throttle_s": "first throttle (s)",
    "guest_cpu_lost_percent": "guest CPU lost (%)",
    "total_time_s": "total time (s)",
}
SEEN = {
    "dirty_sync_count": "iterations reported",
    "max_throttle_percent": "highest throttle (%)",
    "guest_cpu_lost_percent": "guest CPU lost (%)",
    "downtime_ms": "downtime (ms)",
    "total_time_s": "total time (s)",
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is missing of the sweeps and write their tables into the document."""
    parser = parser_of("studies.qemu_11_1", __doc__, "docs/studies/qemu-11-1.md")
    options = parser.parse_args(arguments)
    runs = runs_of(SWEEPS, options.runs, options.overrides)
    runs[LARGEST] = largest_runs()
    text = options.document.read_text()
    options.document.write_text(with_tables(text, tables(runs)))


def largest_runs(memory: str = LARGEST) -> list[Run]:
    """Return the runs of the largest guest, over expected counts of pages."""
    return [
        _expected(memory, version, is_permitted, granule)
        for granule in (None, "1GiB")
        for version in VERSIONS
        for is_permitted in (False, True)
    ]


def _expected(memory: str, version: str, is_permitted: bool, granule: str | None) -> Run:
    """Return a run of the guest of the sweep `SIZES` with another size."""
    config = Config(
        vm=VmConfig(memory=memory, vcpus=64),
        workload=WriterConfig(working_set_percent=20, page_writes_per_s=8e6, granule=granule),
        link=LinkConfig(bandwidth="100Gbit/s"),
        migration=MigrationConfig(version=version, multifd_channels=8, postcopy_ram=is_permitted),
    )
    summary, _ = expected_run(resolve(config), WallLimit(WALL_LIMIT_NS))
    name = f"{version},{is_permitted},{granule}"
    settings = dict(flat_settings(asdict(config)))
    return Run(name=name, folder=Path(), summary=asdict(summary), config=settings)


def tables(runs: Mapping[str, Sequence[Run]]) -> dict[str, list[str]]:
    """Return the lines of each table by its name."""
    costs = sorted(ensembles([*runs[SIZES], *runs[LARGEST]]), key=_order)
    managed = sorted(ensembles(runs[KUBEVIRT]), key=_order)
    return {
        "default": _table(["writes", "RAM"], [_place, memory], COSTS, filter(_is_default, costs)),
        "vhost": _table(
            ["writes", "RAM"], [_place, memory], COSTS, filterfalse(_is_default, costs)
        ),
        "kubevirt": _table(
            ["manager", "writes", "RAM"], [_manager, _pattern, memory], SEEN, managed
        ),
        "recorded": _recorded_table(ensembles(runs[RECORDED])),
    }


def _table(
    head: Sequence[str],
    names: Sequence[Callable[[Ensemble], str]],
    columns: Mapping[str, str],
    groups: Iterable[Ensemble],
) -> list[str]:
    """Return one row for each QEMU, or two if its figures depend on the capability.

    Args:
        head, names: the first columns, and what tells their cells.
        columns: key of the summary -> head.
        groups: of each QEMU those without the capability come first.
    """
    found: dict[tuple[str, ...], list[list[str]]] = {}
    for group in groups:
        place: tuple[str, ...] = (*(name(group) for name in names), _version(group))
        cells = [*_numbers(group, columns), _verdict(group)]
        rows = found.setdefault(place, [])
        if cells not in [row[1:] for row in rows]:
            rows.append([_qemu(group), *cells])
    lines = [[*place[:-1], *row] for place, rows in found.items() for row in rows]
    return table([*head, "QEMU", *columns.values(), "verdict"], lines)


def _recorded_table(groups: Iterable[Ensemble]) -> list[str]:
    """Return what was recorded beside what gpusim computes."""
    rows = []
    for is_permitted, measured in MEASURED.items():
        post_copy = "permitted" if is_permitted else "off"
        rows.append([post_copy, "recorded", *measured])
        for group in groups:
            if _permits(group) == is_permitted:
                place = f"gpusim, {_place(group)}"
                rows.append([post_copy, place, *_numbers(group, RECORDED_COLUMNS)])
    return table(["post-copy", "guest", *RECORDED_COLUMNS.values()], rows)


def _numbers(group: Ensemble, keys: Iterable[str]) -> list[str]:
    """Return numbers of the only seed, whatever its verdict is."""
    found = [group.runs[0].number(key) for key in keys]
    return ["-" if number is None else format_number(number) for number in found]


def _verdict(group: Ensemble) -> str:
    return group.runs[0].outcome.replace("_", " ")


def _qemu(group: Ensemble) -> str:
    return f"{_version(group)}, post-copy" if _permits(group) else _version(group)


def _version(group: Ensemble) -> str:
    version = str(group.runs[0].config[VERSION])
    return FIXED.get(version) or rule(group).removeprefix("QEMU ")


def _manager(group: Ensemble) -> str:
    return MANAGERS[str(group.runs[0].config[MANAGER]).rpartition(":")[2]]


def _pattern(group: Ensemble) -> str:
    return f"{group.value('workload.pattern').text}, {_place(group)}"


def _place(group: Ensemble) -> str:
    """Return where the working set lies."""
    return "contiguous" if group.runs[0].config[GRANULE] is None else "scattered"


def _order(group: Ensemble) -> tuple[str, str, bool]:
    """Return a sort key. Sorting keeps the order of sizes and versions."""
    name = _manager(group) if group.runs[0].config[MANAGER] else ""
    return name, _pattern(group), _permits(group)


def _permits(group: Ensemble) -> bool:
    return str(group.runs[0].config[PERMITS]).lower() == "true"


def _is_default(group: Ensemble) -> bool:
    return not group.runs[0].config["tracking.listeners_ms"]


if __name__ == "__main__":
    main()
