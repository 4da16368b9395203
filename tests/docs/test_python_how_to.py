"""Do the programs and the table of types in docs/how-to/use-from-python.md hold?"""

from __future__ import annotations

import re
from collections import OrderedDict
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpusim import Config, ConfigError, MixConfig, VmConfig, WriterConfig
from gpusim.config.scenario import resolve

DOCUMENT = (Path(__file__).parents[2] / "docs/how-to/use-from-python.md").read_text()
SMALL = Config(vm=VmConfig("1GiB"), workload=WriterConfig(working_set="64MiB"))
WRITERS = {"one": {"pattern": "uniform", "working_set": "1MiB"}}

# The rows of the table in order: a key, what gpusim takes, and what it refuses.
ROWS: list[tuple[str, list[Any], list[Any]]] = [
    ("seed", [1, np.int64(1), np.uint8(1)], [True, 1.0, "1"]),
    ("workload.page_writes_per_s", [1, 1.0, np.float32(1)],
     [True, "1e3", float("nan"), float("inf")]),
    ("migration.auto_converge", [True, np.bool_(True)], [0, 1, "no", None]),
    ("vm.memory", ["1GiB", "10TB", 2**30], ["1 GB/s", "a lot", -1]),
    ("link.bandwidth", ["10Gbit/s", "128MiB/s", 10**9, 1e9, "unlimited"], ["10Gbit"]),
    ("limit.simulated", ["5s", "20min", 5, 5.5], [timedelta(seconds=5), 0, 1e9]),
    ("schedule", [[], (), np.array([])], [set(), (n for n in range(0))]),
    ("workload.writers", [WRITERS, OrderedDict(WRITERS)], [[("one", WRITERS["one"])]]),
    ("vm", [VmConfig("1GiB")], [{"memory": "1GiB"}, VmConfig]),
    ("limit.wall", [None], []),
]  # fmt: skip


def changed(key: str, value: Any) -> Config:
    group, _, name = key.rpartition(".")
    if not group:
        return replace(SMALL, **{name: value})
    base = replace(SMALL, workload=MixConfig()) if name == "writers" else SMALL
    return replace(base, **{group: replace(getattr(base, group), **{name: value})})


def test_the_programs_run() -> None:
    names: dict[str, Any] = {}
    programs = re.findall(r"^```python\n(.*?)^```", DOCUMENT, re.MULTILINE | re.DOTALL)
    assert len(programs) == 4
    for program in programs:
        exec(program, names)


@pytest.mark.parametrize(("key", "taken", "refused"), ROWS)
def test_the_table_of_types_holds(key: str, taken: list[Any], refused: list[Any]) -> None:
    for value in taken:
        resolve(changed(key, value))
    for value in refused:
        with pytest.raises(ConfigError) as caught:
            resolve(changed(key, value))
        assert caught.value.key.startswith(key)


def test_the_table_has_these_rows() -> None:
    table = DOCUMENT.partition("| the reference says |")[2].partition("\n\n")[0]
    rows = [line for line in table.splitlines()[2:] if line.startswith("|")]
    assert len(rows) == len(ROWS)
    for row, (key, _, _) in zip(rows, ROWS, strict=True):
        assert f"`{key}`" in row or key.rpartition(".")[2] in row or "null" in row
