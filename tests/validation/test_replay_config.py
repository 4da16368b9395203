"""Does a recording become the right Config in each mode?"""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import pytest

from gpusim.config.scenario import resolve
from gpusim.config.schema import Config, HotColdConfig, SequentialConfig, WriterConfig
from gpusim.formats.recording import Recording
from gpusim.formats.recording_file import find_recordings, load_recording
from gpusim.validation.replay import predict_config, replay_config
from gpusim.validation.shipped import SHIPPED

MIB = 2**20


def recorded(case: str) -> Recording:
    return load_recording(SHIPPED / f"{case}.json.xz")


def writer(config: Config) -> WriterConfig:
    assert isinstance(config.workload, WriterConfig)
    return config.workload


@pytest.mark.parametrize("path", find_recordings(SHIPPED), ids=lambda path: path.name)
def test_every_recording_makes_two_valid_configs(path: Path) -> None:
    recording = load_recording(path)
    resolve(replay_config(recording))
    resolve(predict_config(recording))


def test_a_replay_takes_the_counter_and_the_wire() -> None:
    recording = recorded("uniform-mid.qemu10.a")
    config = replay_config(recording)
    writes, link = writer(config).recorded, config.link.recorded
    assert writes is not None
    assert link is not None
    assert writes[0] == link[0] == [0.0, 0.0]
    for pairs in (writes, link):
        assert all(a[0] < b[0] and a[1] <= b[1] for a, b in itertools.pairwise(pairs))
    # Its first sample: 174400 writes at 0.0027 s, the second 183168 at 0.2067 s.
    assert writes[2][1] - writes[1][1] == pytest.approx(183168 - 174400)
    assert writes[2][0] == pytest.approx(0.2067)
    # The counter of the completed sample is that of the VM's stop, at 31.1669 s of the trace.
    assert writes[-1][0] == pytest.approx(31.1669 - 0.0003)
    assert writes[-1][1] - writes[1][1] == pytest.approx(1250432 - 174400)
    # The link ends with the last active sample: 31.005 s of the trace.
    assert link[-1][0] > recording.limit_s
    assert link[-2] == [pytest.approx(31.005 - 0.0003), 3256998511]


def test_beyond_its_record_a_guest_writes_at_its_last_speed_awake() -> None:
    config = replay_config(recorded("uniform-mid.qemu10.a"))
    # At 31.005 s of the trace 50 %: 25 writes/ms over the last 3 s, some of them at 40 %.
    writes = writer(config).recorded
    assert writes is not None
    since = next(pair for pair in reversed(writes) if writes[-1][0] - pair[0] >= 3.0)
    slope = (writes[-1][1] - since[1]) / (writes[-1][0] - since[0])
    assert writer(config).page_writes_per_s == pytest.approx(slope / 0.5)


def test_windows_are_as_long_as_recorded() -> None:
    # Of its samples 133 show windows of 100 ms (840.50064 Mbit/s) and 19 of 101 ms.
    latency_us = replay_config(recorded("uniform-mid.qemu10.a")).link.wakeup_latency_us
    assert 1000 * 19 / 152 <= latency_us < 300


def test_a_wakeup_is_never_early() -> None:
    """Windows with some zero pages more are shorter than the usual one by QEMU's bandwidth."""
    recording = recorded("uniform-mid.qemu10.a")
    samples = tuple(
        replace(sample, mbps=sample.mbps * (1.0099 if place % 3 else 1.0))
        for place, sample in enumerate(recording.samples)
    )
    for mbps in (samples, tuple(replace(sample, mbps=900.0) for sample in samples)):
        config = replay_config(replace(recording, samples=mbps))
        assert config.link.wakeup_latency_us >= 0
        resolve(config)


def test_the_final_stage_is_as_fast_as_recorded() -> None:
    recording = recorded("uniform-mid.qemu10.a")
    assert recording.downtime_s == pytest.approx(0.0239)
    counted = replace(recording, downtime_bytes=10_000_000)
    assert replay_config(counted).link.bandwidth == pytest.approx(10_000_000 / 0.0239)
    # A VM that its user had paused counts all its bytes. Then those after the last sample count.
    paused = replace(recording, downtime_bytes=3_000_000_000)
    assert replay_config(paused).link.bandwidth == replay_config(recording).link.bandwidth
    empty = replay_config(replace(recording, downtime_bytes=0)).link
    assert (empty.bandwidth, empty.non_ram_downtime_ms) == ("unlimited", pytest.approx(23.9))
    running = replay_config(replace(recording, total_time_s=None)).link
    assert (running.bandwidth, running.non_ram_downtime_ms) == ("unlimited", 0.0)


def test_memory_parameters_and_zero_pages_are_those_of_the_recording() -> None:
    config = replay_config(recorded("zero-pages.qemu7.a"))
    assert config.vm.memory == 2048 * MIB
    assert config.vm.zero_ranges == [[0, 16 * MIB], [528 * MIB, 2048 * MIB]]
    assert config.migration.version == "qemu_7_2"
    assert config.migration.max_bandwidth == 41943040
    assert config.migration.avail_switchover_bandwidth == 0
    assert (config.tracking.mode, config.tracking.merge_ns_per_gib) == ("tcg", 0)
    assert not config.limit.stop_when_stuck
    config = replay_config(recorded("max-40.qemu10.a"))
    assert config.vm.zero_ranges == [[0, 16 * MIB], [1022 * MIB, 1024 * MIB]]
    assert config.migration.version == "qemu_9_2"
    assert config.migration.max_cpu_throttle == 40
    assert config.limit.simulated == 150
    assert not replay_config(recorded("no-autoconverge.qemu10.a")).migration.auto_converge


def test_no_limit_as_libvirt_sets_it_is_none() -> None:
    recording = recorded("max-40.qemu10.a")
    unlimited = recording.parameters | {"max-bandwidth": 9223372036853727232}
    assert replay_config(replace(recording, parameters=unlimited)).migration.max_bandwidth == 0


def test_the_writer_is_the_recorded_guest() -> None:
    hot = writer(replay_config(recorded("hot-extreme.qemu10.a")))
    assert isinstance(hot, HotColdConfig)
    assert (hot.start, hot.working_set) == (32 * MIB, 768 * MIB)
    assert hot.hot_percent == pytest.approx(100 * 8 / 768)
    assert hot.hot_writes_percent == 97
    sequential = writer(replay_config(recorded("seq-mid.qemu10.a")))
    assert isinstance(sequential, SequentialConfig)
    assert sequential.threads == 1
    # 61056 writes 0.0027 s after setup, at 15101 a second before: 41 fewer at its start.
    assert sequential.first_write == (61056 - 41) % (512 * 256)


def test_a_prediction_knows_only_what_was_known_before() -> None:
    recording = recorded("uniform-mid.qemu10.a")
    config = predict_config(recording)
    assert config.link.recorded is None
    assert config.link.bandwidth == "unlimited"
    assert writer(config).recorded is None
    assert writer(config).pace == "cpu_bound"
    assert writer(config).page_writes_per_s == recording.page_writes_per_s_before


def test_a_paced_guest_is_predicted_paced_with_the_documented_catch_up_rate() -> None:
    paced = writer(predict_config(recorded("paced-high.qemu7.a")))
    assert (paced.pace, paced.page_writes_per_s) == ("paced", 30000)
    assert paced.catch_up_page_writes_per_s == pytest.approx((1.3e6 * 2.4e6) ** 0.5)


def test_the_phase_of_a_sequential_guest_is_drawn_with_the_seed() -> None:
    recording = recorded("seq-mid.qemu10.a")
    phases = set()
    for seed in range(1, 6):
        phased = writer(predict_config(recording, seed))
        assert isinstance(phased, SequentialConfig)
        phases.add(phased.first_write)
    assert len(phases) == 5
