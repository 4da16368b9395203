"""Is every value of another type refused in one line, before it is used?"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, fields, is_dataclass, replace
from typing import Any

import numpy as np
import pytest

from gpusim import (
    AttemptConfig,
    BackendConfig,
    Config,
    ConfigError,
    EvacuationConfig,
    GuestConfig,
    HotColdConfig,
    LimitConfig,
    MigrationConfig,
    MixConfig,
    SequentialConfig,
    VmConfig,
    WriterConfig,
    ZipfConfig,
    evacuate,
    simulate,
)  # fmt: skip
from gpusim.config.scenario import resolve
from gpusim.engine.evacuation import Host

HOSTILE = [
    None, True, 0, -1, 1.5, 4096.0, math.nan, math.inf, 10**30, 10**5000, "", "no", "1", "\ud800",
    b"x", [], [[]], [[1, 2]], (1,), {}, {"memory": "1GiB"}, {1: 2}, object(), VmConfig, VmConfig(),
    {1}, np.float64("nan"), np.int64(7), np.zeros((2, 2)), lambda: 1,
]  # fmt: skip


def small() -> Config:
    return Config(vm=VmConfig("64MiB"), workload=WriterConfig(working_set_percent=5.0))


def replaced(part: Any) -> Iterator[Any]:
    """Yield copies of a data class in which one key, at any depth, has a hostile value."""
    for field in fields(part):
        for value in HOSTILE:
            yield replace(part, **{field.name: value})
        inner = getattr(part, field.name)
        if is_dataclass(inner):
            yield from (replace(part, **{field.name: one}) for one in replaced(inner))


@pytest.mark.parametrize(
    ("config", "key", "code"),
    [
        (Config(migration=MigrationConfig(auto_converge="no")), "migration.auto_converge",
         "wrong_type"),
        (Config(vm=VmConfig(page_size=4096.0)), "vm.page_size", "not_a_number"),
        (Config(vm=None), "vm", "wrong_type"),
        (Config(vm={"memory": "1GiB"}), "vm", "wrong_type"),
        (Config(vm=VmConfig), "vm", "wrong_type"),
        (Config(seed=True), "seed", "not_a_number"),
        (Config, "config", "wrong_type"),
    ],
)  # fmt: skip
def test_a_wrong_type_names_its_key(config: Any, key: str, code: str) -> None:
    with pytest.raises(ConfigError) as error:
        resolve(config)
    assert (error.value.key, error.value.code) == (key, code)
    assert "\n" not in str(error.value)


def test_numpy_values_are_plain_values() -> None:
    config = replace(small(), seed=np.int64(3))
    assert type(resolve(config).seed) is int


WRITER = WriterConfig(working_set_percent=5.0)
WORKLOADS = [
    HotColdConfig(working_set_percent=5.0),
    ZipfConfig(working_set_percent=5.0),
    SequentialConfig(working_set_percent=5.0),
    MixConfig(writers={"one": asdict(WRITER)}),
    *(MixConfig(writers={"one": one}) for one in replaced(WRITER)),
]
ATTEMPTS = [
    *replaced(AttemptConfig()),
    *(
        AttemptConfig(migration={field.name: value})
        for field in fields(MigrationConfig)
        for value in HOSTILE
    ),
]
SCHEDULES = [
    [entry]
    for value in HOSTILE
    for entry in (value, {"at": value, "do": "cancel"}, {"at_sync": value, "do": "cancel"},
                  {"at": 1, "do": value}, {"at": 1, "set": {"downtime_limit": value}})
]  # fmt: skip


def test_every_key_with_every_hostile_value_is_accepted_or_refused() -> None:
    configs = [
        *replaced(small()),
        *(replace(small(), workload=one) for base in WORKLOADS[:4] for one in replaced(base)),
        *(replace(small(), workload=one) for one in WORKLOADS),
        *(replace(small(), attempts=[one]) for one in ATTEMPTS),
        *(replace(small(), schedule=one) for one in SCHEDULES),
    ]
    for config in configs:
        with suppress(ConfigError):
            resolve(config)


def test_every_key_of_an_evacuation_with_every_hostile_value_is_accepted_or_refused() -> None:
    guest = GuestConfig(vm=VmConfig("64MiB"), workload=WRITER)
    evacuations = [
        *replaced(EvacuationConfig(guests={"db": guest})),
        *(EvacuationConfig(guests={"db": one}) for one in replaced(guest)),
    ]
    for evacuation in evacuations:
        with suppress(ConfigError):
            Host(replace(small(), evacuation=evacuation))


@pytest.mark.parametrize("function", [resolve, simulate, evacuate])
def test_a_hostile_value_in_place_of_a_config_is_refused(function: Any) -> None:
    for value in HOSTILE:
        with pytest.raises(ConfigError) as error:
            function(value)
        assert error.value.code == "wrong_type"
        assert "\n" not in str(error.value)


@pytest.mark.slow
def test_every_accepted_config_runs_or_is_refused() -> None:
    """`simulate` and `evacuate` raise ConfigError alone. The simulated time is short."""
    limit = LimitConfig(simulated="2s")
    base = replace(small(), limit=limit, backend=BackendConfig("numpy"))
    guest = GuestConfig(vm=VmConfig("64MiB"), workload=WRITER)
    configs = [
        *(one for one in replaced(base) if isinstance(one.limit, LimitConfig)),
        *(replace(base, workload=one) for workload in WORKLOADS[:4] for one in replaced(workload)),
        *(replace(base, attempts=[one]) for one in ATTEMPTS[::3]),
        *(replace(base, schedule=one) for one in SCHEDULES),
    ]
    for config in configs:
        with suppress(ConfigError):
            simulate(config)
    for one in replaced(guest):
        with suppress(ConfigError):
            evacuate(replace(base, evacuation=EvacuationConfig(guests={"db": one})))
