"""Does any config give either a result or one line that names a key?"""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpusim import (
    AttemptConfig,
    BackendConfig,
    Config,
    ConfigError,
    HotColdConfig,
    LimitConfig,
    LinkConfig,
    MigrationConfig,
    MixConfig,
    Result,
    SequentialConfig,
    TrackingConfig,
    VmConfig,
    WithoutReplacementConfig,
    WorkloadConfig,
    WriterConfig,
    ZipfConfig,
    simulate,
)

VERSIONS = ["qemu_7_2", "qemu_9_1", "qemu_9_2", "qemu_10_1", "seed_v2"]
TRACKING = ["kvm_manual", "kvm_legacy", "dirty_ring", "tcg"]
ODD_NUMBERS = [-1, 0, 1, 50, 100, 101, 2**31, 2**63, -0.5, 1e-9, 1e300, math.nan, math.inf]
ODD_SIZES = [*ODD_NUMBERS, "", "4KiB", "1 TiB", "-1GiB", "12 parsecs", "1e400B", "unlimited", "0"]
ODD_LISTS: list[Any] = [
    [],
    [[]],
    [[0, 1]],
    [["0s", "1s"], ["2s", "9s"]],
    [[3, 1]],
    ["64MiB"],
    [[0, "x"]],
]

writer_keys = {
    "working_set_percent": st.floats(0.01, 100),
    "page_writes_per_s": st.floats(0, 1e6),
    "throttled": st.booleans(),
    "granule": st.sampled_from([None, None, "4KiB", "64KiB", "2MiB"]),
    "windows": st.sampled_from([None, None, [["0s", "1s"]], [[1, 2], [3, 600]]]),
}
bursts = {"on_time": 0.2, "off_time": 0.5}
drift = {"drift_period": 0.3, "drift_step": "8MiB"}
kinds_of_guests = st.sampled_from(
    [
        {},
        {},
        {},
        bursts,
        {**bursts, "on_off_lengths": "exponential", "on_off_start_percent": 10},
        drift,
        {"zeroed_percent": 30.0},
        {"memory_page_writes_per_s": 1e4},
        {"vcpu_groups": [[25, 90], [75, 10]]},
        {**drift, **bursts, "drift_range": "32MiB", "zeroed_percent": 100.0},
    ]
)
paces = st.one_of(
    st.just({}),
    st.builds(
        lambda rate, faster: {
            "pace": "paced",
            "page_writes_per_s": rate,
            "catch_up_page_writes_per_s": rate * faster,
        },
        st.floats(1, 1e5),
        st.floats(1, 10),
    ),
)


def writers(kind: type[WriterConfig], **keys: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    settled = st.fixed_dictionaries({**writer_keys, **keys})
    return st.builds(
        lambda some, pace, guest: kind(**{**some, **pace, **guest}), settled, paces, kinds_of_guests
    )


one_writer = st.one_of(
    writers(WriterConfig),
    writers(HotColdConfig, hot_percent=st.floats(1, 99), hot_writes_percent=st.floats(0, 100)),
    writers(ZipfConfig, exponent=st.floats(0, 3), heat=st.sampled_from(["by_address", "shuffled"])),
    writers(WithoutReplacementConfig, first_write=st.sampled_from(["auto", 0, 10**9])),
    writers(SequentialConfig, threads=st.integers(1, 5), first_write=st.integers(0, 10**9)),
)
workloads = st.one_of(
    st.builds(WorkloadConfig),
    one_writer,
    st.dictionaries(st.sampled_from("abc"), one_writer, max_size=3).map(
        lambda named: MixConfig(writers=named)
    ),
)
SCHEDULES: list[list[Any]] = [
    [],
    [],
    [{"at": "0.5s", "do": "pause"}, {"at": "1s", "do": "resume"}, {"at_sync": 3, "do": "cancel"}],
    [
        {"at": 0, "set": {"downtime_limit": 7, "max_bandwidth": "20MiB/s"}},
        {"at_sync": 1, "do": "pause"},
    ],
]
sound_configs = st.builds(
    Config,
    vm=st.builds(
        VmConfig,
        memory=st.sampled_from(["4KiB", "1MiB", "48MiB", "256MiB"]),
        vcpus=st.integers(1, 8),
        zero_percent=st.sampled_from([0.0, 0.0, 10.0]),
    ),
    workload=workloads,
    link=st.builds(
        LinkConfig,
        bandwidth=st.sampled_from(["100Mbit/s", "1Gbit/s", "10Gbit/s", "unlimited"]),
        zero_page_scan=st.sampled_from(["2GB/s", "unlimited"]),
        page_cost_ns=st.sampled_from([0.0, 500.0]),
        non_ram_downtime_ms=st.sampled_from([0.0, 20.0]),
    ),
    migration=st.builds(
        MigrationConfig,
        version=st.sampled_from(VERSIONS),
        auto_converge=st.booleans(),
        max_bandwidth=st.sampled_from([0, 0, "10MiB/s", "128MiB/s"]),
        downtime_limit=st.sampled_from([0, 1, 300]),
        cpu_throttle_tailslow=st.booleans(),
        cpu_throttle_initial=st.integers(1, 99),
        cpu_throttle_increment=st.integers(1, 99),
        multifd_channels=st.sampled_from([0, 0, 2, 255]),
    ),
    tracking=st.builds(
        TrackingConfig,
        mode=st.sampled_from(TRACKING),
        initially_set=st.booleans(),
        listeners_ms=st.sampled_from([0.0, 0.5, 150.0]),
        waits_for_burst=st.booleans(),
        first_write_cost_ns=st.sampled_from([0.0, 224.0, 1e6]),
        first_write_serial_percent=st.sampled_from([0.0, 2.5, 69.0, 100.0]),
        remote_clear_us=st.sampled_from([0.0, 40.0, 1e5]),
        protect_ns_per_page=st.sampled_from([0.0, 13.4, 1e4]),
    ),
    backend=st.builds(BackendConfig, threads=st.just(1)),
    limit=st.builds(LimitConfig, simulated=st.sampled_from(["50ms", "3s", "20s"])),
    schedule=st.sampled_from(SCHEDULES),
    attempts=st.sampled_from(
        [[], [], [], [AttemptConfig(schedule=SCHEDULES[1]), AttemptConfig(after=3)]]
    ),
    seed=st.integers(0, 2**62),
    plot=st.just(False),
)

ODD: dict[str, list[Any]] = {
    "vm.memory": [*ODD_SIZES, "8MiB"],
    "vm.page_size": [*ODD_NUMBERS, 8192, 65536],
    "vm.vcpus": ODD_NUMBERS,
    "vm.vfio_devices": ODD_NUMBERS,
    "vm.backing": [*ODD_SIZES, "4k", "thp", "hugetlb_2m", "hugetlb_1g", "hugetlb"],
    "vm.zero_percent": ODD_NUMBERS,
    "vm.zero_ranges": [*ODD_LISTS, [["0", "4KiB"]], [["1MiB", "2MiB"], ["2MiB", "8MiB"]]],
    "vm.blocks": [*ODD_LISTS, ["128MiB", "128MiB"], ["1MiB"], ["16MiB", "32MiB"]],
    "workload.working_set": ODD_SIZES,
    "workload.working_set_percent": [*ODD_NUMBERS, None],
    "workload.start": ODD_SIZES,
    "workload.page_writes_per_s": ODD_NUMBERS,
    "workload.pace": ["paced", "recorded", "", "brisk"],
    "workload.catch_up_page_writes_per_s": ODD_NUMBERS,
    "workload.recorded": [*ODD_LISTS, [[0, 0], [1, 500], [2, 500]]],
    "workload.windows": ODD_LISTS,
    "workload.granule": ODD_SIZES,
    "workload.on_time": ODD_NUMBERS,
    "workload.off_time": ODD_NUMBERS,
    "workload.on_off_lengths": ["exponential", "", "long"],
    "workload.on_off_start_percent": [*ODD_NUMBERS, "auto", "now"],
    "workload.drift_period": ODD_NUMBERS,
    "workload.drift_step": ODD_SIZES,
    "workload.drift_step_percent": ODD_NUMBERS,
    "workload.drift_range": ODD_SIZES,
    "workload.drift_start_percent": [*ODD_NUMBERS, "auto", "now"],
    "workload.memory_page_writes_per_s": ODD_NUMBERS,
    "workload.vcpu_groups": [*ODD_LISTS, [[100, 100]], [[50, 1], [50, 99]], [[100, math.nan]]],
    "workload.zeroed_percent": ODD_NUMBERS,
    "workload.heat": ["shuffled", "", "hot"],
    "workload.vcpus": ODD_NUMBERS,
    "workload.pattern": ["uniform", "zipf", "mix", ""],
    "workload.hot_percent": ODD_NUMBERS,
    "workload.exponent": ODD_NUMBERS,
    "workload.threads": ODD_NUMBERS,
    "workload.first_write": ODD_NUMBERS,
    "workload.writers": [{}, {"a": 1}, {"a": {}}, {"a": {"pattern": "zipf"}}, {"a": {"x": 1}}],
    "link.bandwidth": ODD_SIZES,
    "link.page_header_bytes": ODD_NUMBERS,
    "link.zero_page_bytes": ODD_NUMBERS,
    "link.zero_page_scan": ODD_SIZES,
    "link.page_cost_ns": ODD_NUMBERS,
    "link.queue_cost_ns": ODD_NUMBERS,
    "link.wakeup_latency_us": ODD_NUMBERS,
    "link.non_ram_downtime_ms": [*ODD_NUMBERS, "auto", "", "20ms"],
    "link.recorded": [*ODD_LISTS, [[0, 0], [1, 10**7], [2, 10**8]]],
    "link.changes": [*ODD_LISTS, [[0.5, "1Gbit/s"]], [["1s", "unlimited"], [2, "20MB/s"]]],
    "migration.version": ["qemu_1_0", ""],
    "migration.max_bandwidth": ODD_SIZES,
    "migration.downtime_limit": ODD_NUMBERS,
    "migration.avail_switchover_bandwidth": [*ODD_SIZES, "1GB/s"],
    "migration.throttle_trigger_threshold": ODD_NUMBERS,
    "migration.cpu_throttle_initial": ODD_NUMBERS,
    "migration.cpu_throttle_increment": ODD_NUMBERS,
    "migration.max_cpu_throttle": [*ODD_NUMBERS, 20, 40],
    "migration.multifd_channels": ODD_NUMBERS,
    "migration.fallback_sync_interval": [*ODD_SIZES, "never", "1ms", "5s"],
    "tracking.mode": ["", "magic"],
    "tracking.listeners_ms": ODD_NUMBERS,
    "tracking.first_write_cost_ns": ODD_NUMBERS,
    "tracking.page_size": [*ODD_SIZES, 4096, "64KiB", "16MiB", "1GiB"],
    "tracking.first_write_serial_percent": ODD_NUMBERS,
    "tracking.merge_ns_per_gib": ODD_NUMBERS,
    "tracking.remote_clear_us": ODD_NUMBERS,
    "tracking.protect_ns_per_page": ODD_NUMBERS,
    "tracking.split_ns_per_page": ODD_NUMBERS,
    "tracking.eager_page_split": [False, 0, "no", None],
    "backend.name": ["auto", "numpy", "cupy", ""],
    "backend.threads": ODD_NUMBERS,
    "schedule": [*ODD_LISTS, [{}], [{"at": 1}], [{"at": 0.2, "do": "cancel"}], {"at": 1}],
    "limit.simulated": [*ODD_SIZES, "1us"],
    "limit.wall": [*ODD_SIZES, "1ms", "10s"],
    "seed": ODD_NUMBERS,
}
oddities = st.sampled_from(sorted(ODD)).flatmap(
    lambda key: st.tuples(st.just(key), st.sampled_from(ODD[key]))
)


def put(config: Config, key: str, value: object) -> None:
    """Set a key if the config has it. Hydra refuses other keys."""
    *parents, name = key.split(".")
    owner: Any = config
    for parent in parents:
        owner = getattr(owner, parent)
    if hasattr(owner, name):
        setattr(owner, name, value)


@pytest.mark.slow
@settings(max_examples=1000, deadline=None, suppress_health_check=list(HealthCheck))
@given(sound_configs, st.lists(oddities, max_size=2))
def test_a_config_gives_a_result_or_one_line(
    config: Config, changes: list[tuple[str, object]]
) -> None:
    for key, value in changes:
        put(config, key, value)
    try:
        result = simulate(config)
    except ConfigError as error:
        assert str(error).startswith(f"{error.key} = ")
    else:
        assert isinstance(result, Result)
        assert result.summary.status in ("ok", "incomplete")
