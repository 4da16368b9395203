"""Which keys vary, which key is the axis, and which keys follow from others?"""

from __future__ import annotations

from itertools import product
from pathlib import Path

from gpusim.results.sweeps.axes import choose_axes, varying_keys
from tests.results.sweep_folders import runs_of

FALLBACK = "migration.fallback_sync_interval"


def test_a_key_that_changes_no_result_does_not_vary(tmp_path: Path) -> None:
    quiet = {"backend.name": "numpy", "plot": True, "dry_run": True, "limit.wall": "1h"}
    runs = runs_of(tmp_path, {"seed": 1}, {"seed": 2, **quiet})
    assert varying_keys(runs) == ["seed"]


def test_a_key_that_follows_from_the_axis_is_not_a_series(tmp_path: Path) -> None:
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


def test_the_keys_of_one_pattern_follow_from_the_pattern(tmp_path: Path) -> None:
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


def test_texts_are_the_axis_if_there_are_no_numbers(tmp_path: Path) -> None:
    versions = ({"migration.version": f"qemu_{v}"} for v in ("7_2", "9_1", "9_2"))
    axes = choose_axes(runs_of(tmp_path, *versions))
    assert (axes.x, axes.is_numeric) == ("migration.version", False)
