"""Do config values have the right text and the right number?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gpusim.results.sweeps.config_values import Value, describe_value, sort_values, value_of
from tests.results.sweep_folders import runs_of

FALLBACK = "migration.fallback_sync_interval"


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
def test_the_text_and_the_number_of_a_value(
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
def test_null_is_the_interval_of_the_version(
    version: str, text: str, number: float | None, tmp_path: Path
) -> None:
    (run,) = runs_of(tmp_path, {FALLBACK: None, "migration.version": version})
    assert value_of(run, FALLBACK) == Value(text, number)


def test_a_value_with_its_name_and_unit() -> None:
    assert describe_value("workload.working_set_percent", "20") == "working set 20 % of RAM"
    assert describe_value("workload.page_writes_per_s", "1,000") == "1,000 page writes per second"
    assert describe_value("migration.version", "QEMU 9.1") == "QEMU 9.1"
    assert describe_value(FALLBACK, "off") == "fallback sync off"
    assert describe_value("link.page_cost_ns", "3") == "page cost ns 3"


def test_numbers_are_sorted_before_texts() -> None:
    values = [Value("off", None), Value("10 s", 10.0), Value("2 s", 2.0), Value("10 s", 10.0)]
    assert [v.text for v in sort_values(values)] == ["2 s", "10 s", "off"]
