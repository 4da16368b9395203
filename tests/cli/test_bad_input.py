"""A config that cannot be simulated gives one line that names its key, and leaves nothing."""

from __future__ import annotations

import pickle
from dataclasses import replace

import pytest

from gpusim import ConfigError
from gpusim.config.backend import choose_backend
from gpusim.config.scenario import resolve
from gpusim.errors import LONGEST_MESSAGE, LONGEST_VALUE
from gpusim.pages.obstacles import Obstacle
from gpusim.qemu.versions import VERSIONS
from tests.cli.command import composed, gpusim

MIX = ("database", "log", "network_card")
BAD = {  # code -> key -> overrides
    "out_of_range": {
        "vm.vcpus": ["vm.vcpus=0"],
        "vm.memory": ["vm.memory=0"],
        "vm.zero_percent": ["workload=idle", "vm.zero_percent=101"],
        "vm.zero_ranges": ["workload=idle", "vm.zero_ranges=[[2GiB,1GiB]]"],
        "seed": ["seed=-1"],
        "link.bandwidth": ["link.bandwidth=0"],
        "link.bandwidth ": ["link.bandwidth=10"],
        "vm.vfio_devices": ["vm.vfio_devices=-1"],
        "link.page_cost_ns": ["link.page_cost_ns=-1"],
        "link.non_ram_downtime_ms": ["link.non_ram_downtime_ms=-1"],
        "link.queue_cost_ns": ["link.queue_cost_ns=inf"],
        "link.recorded": ["link.recorded=[[0,0],[1,0]]"],
        "migration.multifd_channels": ["migration.multifd_channels=256"],
        "migration.downtime_limit": ["migration.downtime_limit=-5"],
        "migration.throttle_trigger_threshold": ["migration.throttle_trigger_threshold=101"],
        "migration.cpu_throttle_increment": ["migration.cpu_throttle_increment=0"],
        "migration.max_bandwidth": ["migration.max_bandwidth=1e300B/s"],
        "tracking.first_write_cost_ns": ["tracking.first_write_cost_ns=-1"],
        "tracking.page_size": ["tracking=kvm_legacy", "tracking.page_size=3MiB"],
        "tracking.first_write_serial_percent": ["tracking.first_write_serial_percent=101"],
        "tracking.listeners_ms": ["tracking.listeners_ms=nan"],
        "tracking.remote_clear_us": ["tracking.remote_clear_us=-1"],
        "tracking.protect_ns_per_page": ["tracking.protect_ns_per_page=1e6"],
        "tracking.recorded_sleeps": ["tracking=tcg", "tracking.recorded_sleeps=[[2,3],[1,4]]"],
        "limit.simulated": ["limit.simulated=0s"],
        "workload.page_writes_per_s": ["workload=uniform", "workload.page_writes_per_s=-1"],
        "workload.page_writes_per_s ": [
            "workload.page_writes_per_s=1e12",
            "limit.simulated=1000h",
        ],
        "workload.working_set_percent": ["workload=uniform", "workload.working_set_percent=110"],
        "workload.recorded": ["workload.pace=recorded", "workload.recorded=[[0,0],[1,1e300]]"],
        "workload.threads": ["workload=sequential", "workload.threads=0"],
        "workload.first_write": ["workload=without_replacement", "workload.first_write=-1"],
        "workload.exponent": ["workload=zipf", "workload.exponent=-1"],
        "workload.hot_percent": ["workload=hot_cold", "workload.hot_percent=0"],
        "workload.windows": ["workload=uniform", "workload.windows=[[5s,1s]]"],
        "workload.granule": ["workload.granule=12KiB"],
        "workload.granule ": ["workload.granule=3KiB"],
        "workload.on_time": ["workload=bursts", "workload.on_time=1ms"],
        "workload.on_off_start_percent": ["workload=bursts", "workload.on_off_start_percent=101"],
        "workload.drift_period": ["workload=drift", "workload.drift_period=1ms"],
        "workload.drift_step_percent": ["workload=drift", "workload.drift_step_percent=0"],
        "workload.drift_step_percent ": ["workload=drift", "workload.drift_step_percent=60"],
    },
    "unknown_choice": {
        "vm.backing": ["vm.backing=hugetlb"],
        "vm.page_size": ["vm.page_size=1000"],
        "migration.version": ["migration.version=qemu_1_0"],
        "tracking.mode": ["tracking.mode=magic"],
        "workload.pace": ["workload=uniform", "workload.pace=leisurely"],
        "workload.on_off_lengths": ["workload=bursts", "workload.on_off_lengths=long"],
        "workload.heat": ["workload=zipf", "workload.heat=random"],
        "workload.writers.new.pattern": ["workload=mix", "+workload.writers.new={pattern: none}"],
    },
    "wrong_format": {
        "migration.max_bandwidth": ["migration.max_bandwidth=fast"],
        "limit.wall": ["limit.wall=soon"],
        "tracking.recorded_sleeps": ["tracking=tcg", "tracking.recorded_sleeps=[3]"],
        "vm.zero_ranges": ["workload=idle", "vm.zero_ranges=[5]"],
        "workload.on_off_start_percent": ["workload=bursts", "workload.on_off_start_percent=now"],
    },
    "contradiction": {
        "tracking.page_size": ["tracking.page_size=16MiB"],
        "migration.max_cpu_throttle": [
            "migration.cpu_throttle_initial=50",
            "migration.max_cpu_throttle=40",
        ],
        "vm.blocks": ["vm.blocks=[1GiB,2GiB]"],
        "workload.working_set": ["workload.working_set=1GiB"],  # and working_set_percent
        "workload.pattern": ["workload=uniform", "workload.pattern=zipf"],
        "workload.start": ["workload=uniform", "workload.start=1GiB", "workload.granule=2MiB"],
        "workload.on_time": [
            "workload=bursts",
            "workload.pace=recorded",
            "workload.recorded=[[0,0],[1,1]]",
        ],
        "workload.heat": [
            "workload=zipf_shuffled",
            "workload.drift_period=1min",
            "workload.drift_step=256MiB",
        ],
        "workload.drift_step": ["workload=drift", "workload.drift_step=1GiB"],  # and its percent
        "workload.drift_period": [
            "workload=sequential",
            "workload.drift_period=1min",
            "workload.drift_step=256MiB",
        ],
    },
    "not_supported": {
        "migration.fallback_sync_interval": [
            "migration=qemu_9_1",
            "migration.fallback_sync_interval=5s",
        ],
        "migration.avail_switchover_bandwidth": [
            "migration=qemu_7_2",
            "migration.avail_switchover_bandwidth=1GB/s",
        ],
        "migration.cpu_throttle_tailslow": [
            "migration=qemu_2_6",
            "migration.cpu_throttle_tailslow=true",
        ],
    },
    "not_used": {  # KVM waits for no vCPU
        "tracking.recorded_sleeps": ["tracking.recorded_sleeps=[[1,2]]"],
        "workload.on_off_lengths": ["workload.on_off_lengths=exponential"],
        "workload.drift_range": ["workload.drift_range=1GiB"],
    },
    "missing": {
        "workload.off_time": ["workload.on_time=5s"],
        "workload.drift_step": ["workload.drift_period=1min"],
        "workload.catch_up_page_writes_per_s": ["workload=uniform", "workload.pace=paced"],
        "workload.writers": ["workload=mix", *(f"~workload.writers.{name}" for name in MIX)],
    },
    "unknown_key": {  # Hydra accepts a new key because of its plus
        "surprise": ["+surprise=1"],
        "migration.max_bandwith": ["+migration.max_bandwith=1GB/s"],
        "workload.writers.log.colour": ["workload=mix", "+workload.writers.log.colour=red"],
    },
    "not_a_number": {
        "workload.first_write": ["workload=sequential", "workload.first_write=middle"],
        "workload.writers.log.threads": ["workload=mix", "workload.writers.log.threads=many"],
    },
    "backend_not_available": {
        "backend.name": ["backend.name=cupy"],
    },
}
CASES = [(code, key, overrides) for code, keys in BAD.items() for key, overrides in keys.items()]


@pytest.mark.parametrize(("code", "key", "overrides"), CASES)
def test_a_bad_value_names_its_key(
    code: str, key: str, overrides: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    no_gpu = {"cupy": Obstacle("no_gpu", "there is no GPU")}  # this machine may have one
    monkeypatch.setattr("gpusim.pages.backends.obstacle", no_gpu.get)
    with pytest.raises(ConfigError) as caught:
        choose_backend(resolve(composed(*overrides)))
    assert (caught.value.key, caught.value.code) == (key.strip(), code)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"{key.strip()} = ")


def test_a_message_has_a_bounded_length() -> None:
    error = ConfigError("vm.blocks", list(range(10_000)), "x" * 10_000, "wrong_type")
    assert len(str(error)) < LONGEST_VALUE + LONGEST_MESSAGE + 100
    again = pickle.loads(pickle.dumps(error))
    assert (again.key, again.value, again.code) == (error.key, error.value, error.code)


def test_a_qemu_without_multifd_refuses_channels(monkeypatch: pytest.MonkeyPatch) -> None:
    without = replace(VERSIONS["qemu_7_2"], has_multifd=False)
    monkeypatch.setitem(VERSIONS, "qemu_7_2", without)
    resolve(composed("migration=qemu_7_2"))
    with pytest.raises(ConfigError) as caught:
        resolve(composed("migration=qemu_7_2", "migration.multifd_channels=2"))
    assert (caught.value.key, caught.value.code) == ("migration.multifd_channels", "not_supported")


def test_vm_that_does_not_fit_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpusim.pages.backends.free_bytes", lambda name: 10**9)
    scenario = resolve(composed("vm=huge_24tib"))
    with pytest.raises(ConfigError) as caught:
        choose_backend(scenario)
    assert (caught.value.key, caught.value.code) == ("vm.memory", "does_not_fit_memory")
    assert "needs 1.5 GiB of bitmaps" in caught.value.message


@pytest.mark.parametrize(
    "overrides",
    [
        ["experiment=tiny", "workload.working_set_percent=110"],
        ["migration.cpu_throttle_initial=50", "migration.max_cpu_throttle=40", "vm=tiny_256mib"],
        ["vm.memory=1PiB", "workload=idle", "dry_run=true"],
        ["vm.memory=1000TiB", "workload=idle"],  # 62 GiB of bitmaps
    ],
    ids=" ".join,
)
def test_the_command_prints_one_line_and_leaves_nothing(overrides: list[str], tmp_path) -> None:
    before = "import gpusim.pages.backends as s; s.free_bytes = lambda name: 8 * 2**30"
    done = gpusim(*overrides, cwd=tmp_path, before=before, code=2)
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_the_folder_of_an_earlier_run_stays(tmp_path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep me")
    gpusim("seed=-1", "hydra.run.dir=mine", cwd=tmp_path, code=2)
    assert (tmp_path / "mine" / "notes.txt").read_text() == "keep me"
