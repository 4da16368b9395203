"""Are values read as people mean them, and is what was swept told from what follows from it?"""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import pytest

from gpusim.results.sweeps.axes import choose_axes, varying_keys
from gpusim.results.sweeps.config_values import Value, describe_value, sort_values, value_of
from gpusim.results.sweeps.runs import Run, find_runs
from tests.results.sweep_folders import write

FALLBACK = "migration.fallback_sync_interval"


def runs_of(folder: Path, *configs: dict[str, Any]) -> list[Run]:
    for index, config in enumerate(configs):
        write(folder / str(index), config)
    return find_runs([folder]).runs


@pytest.mark.parametrize(
    ("key", "raw", "text", "number"),
    [
        ("vm.memory", "1TiB", "1 TiB", 2**40),
        ("vm.memory", "10TB", "10 TB", 10**13),
        ("vm.memory", 2**30, "1 GiB", 2**30),
        ("link.bandwidth", "10Gbit/s", "10 Gbit/s", 1.25e9),
        ("link.bandwidth", "unlimited", "unlimited", None),
        ("migration.max_bandwidth", 12500000000, "12.5 GB/s", 1.25e10),
        ("limit.simulated", "24h", "24 h", 86400.0),
        ("workload.page_writes_per_s", 1e6, "1 million", 1e6),
        ("workload.working_set_percent", 12.5, "12.5", 12.5),
        ("workload.pattern", "zipf", "zipf", None),
        ("migration.auto_converge", True, "on", None),
        ("migration.version", "qemu_9_1", "QEMU 9.1", None),
        (FALLBACK, "5s", "5 s", 5.0),
        (FALLBACK, 5, "5 s", 5.0),
        (FALLBACK, "never", "off", None),
    ],
)
def test_a_value_for_people_and_for_an_axis(
    key: str, raw: Any, text: str, number: float | None, tmp_path: Path
) -> None:
    (run,) = runs_of(tmp_path, {key: raw})
    assert value_of(run, key) == Value(text, number)


@pytest.mark.parametrize(
    ("version", "text", "number"),
    [
        ("qemu_7_2", "none (default of QEMU 7.2)", None),
        ("qemu_9_1", "none (default of QEMU 9.1)", None),
        ("qemu_9_2", "5 s (default of QEMU 9.2)", 5.0),
        ("qemu_10_1", "5 s (default of QEMU 10.1)", 5.0),
        ("seed_v2", "5 s (default of seed v2)", 5.0),
        ("qemu_99_0", "default of QEMU 99.0", None),
    ],
)
def test_no_interval_is_the_versions_own(
    version: str, text: str, number: float | None, tmp_path: Path
) -> None:
    (run,) = runs_of(tmp_path, {FALLBACK: None, "migration.version": version})
    assert value_of(run, FALLBACK) == Value(text, number)


def test_names_with_units_read_as_sentences() -> None:
    assert describe_value("workload.working_set_percent", "20") == "working set 20 % of RAM"
    assert describe_value("workload.page_writes_per_s", "1,000") == "1,000 page writes per second"
    assert describe_value("migration.version", "QEMU 9.1") == "QEMU 9.1"
    assert describe_value(FALLBACK, "off") == "fallback sync off"
    assert describe_value("link.page_cost_ns", "3") == "page cost ns 3"


def test_numbers_come_by_size_then_the_rest() -> None:
    values = [Value("off", None), Value("10 s", 10.0), Value("2 s", 2.0), Value("10 s", 10.0)]
    assert [v.text for v in sort_values(values)] == ["2 s", "10 s", "off"]


def test_what_changes_no_result_does_not_vary(tmp_path: Path) -> None:
    quiet = {"backend.name": "numpy", "plot": True, "dry_run": True, "limit.wall": "1h"}
    runs = runs_of(tmp_path, {"seed": 1}, {"seed": 2, **quiet})
    assert varying_keys(runs) == ["seed"]


def test_a_key_that_follows_from_the_axis_is_no_series(tmp_path: Path) -> None:
    memories = (("64GiB", 8), ("1TiB", 32), ("4TiB", 64))
    runs = runs_of(
        tmp_path,
        *(
            {"vm.memory": memory, "vm.vcpus": vcpus, FALLBACK: timer, "seed": seed}
            for (memory, vcpus), timer, seed in product(memories, ("5s", "never"), (1, 2, 3, 4))
        ),
    )
    axes = choose_axes(runs)
    assert (axes.x, axes.is_numeric, axes.series) == ("vm.memory", True, [FALLBACK])
    assert choose_axes(runs, FALLBACK).series == ["vm.memory"]
    assert choose_axes(runs, "link.bandwidth").x == "vm.memory"  # it does not vary


def test_keys_of_one_pattern_alone_follow_from_it(tmp_path: Path) -> None:
    runs = runs_of(
        tmp_path,
        *(
            {"workload": {"pattern": pattern, **own}, "vm.memory": memory}
            for (pattern, own), memory in product(
                (("uniform", {}), ("zipf", {"exponent": 1.0}), ("hot_cold", {"hot_percent": 10.0})),
                ("1GiB", "2GiB"),
            )
        ),
    )
    axes = choose_axes(runs)
    assert (axes.x, axes.series) == ("vm.memory", ["workload.pattern"])


def test_sampled_values_do_not_follow_from_each_other(tmp_path: Path) -> None:
    keys = ("migration.cpu_throttle_initial", "migration.cpu_throttle_increment")
    samples = [dict(zip(keys, pair, strict=True)) for pair in ((5, 40), (10, 7), (20, 33), (60, 9))]
    assert choose_axes(runs_of(tmp_path, *samples)).series == [keys[1]]


def test_seeds_alone_have_no_axis(tmp_path: Path) -> None:
    assert choose_axes(runs_of(tmp_path, {"seed": 1}, {"seed": 2})).x is None
    assert choose_axes([]).x is None


def test_words_make_an_axis_where_there_are_no_numbers(tmp_path: Path) -> None:
    versions = ({"migration.version": f"qemu_{v}"} for v in ("7_2", "9_1", "9_2"))
    axes = choose_axes(runs_of(tmp_path, *versions))
    assert (axes.x, axes.is_numeric) == ("migration.version", False)
