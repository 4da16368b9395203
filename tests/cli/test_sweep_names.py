"""The name of a job's folder."""

from __future__ import annotations

import pytest

from gpusim.cli.sweep_report import job_name


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        ([], "job"),
        (["seed=1", "migration=qemu_9_1"], "qemu_9_1,seed=1"),
        (["migration=qemu_9_1", "seed=1"], "qemu_9_1,seed=1"),
        (["+workload.writers.log.threads=2"], "threads=2"),
        (["link.bandwidth=10Gbit/s", "migration.max_bandwidth=1GB/s"], "bandwidth=10Gbitps,max_bandwidth=1GBps"),
        (["migration.cpu_throttle_initial=20", "migration.throttle_trigger_threshold=50"], "initial=20,trigger_threshold=50"),
        (["workload.page_writes_per_s=1000000.0"], "page_writes_per_s=1000000"),
        (["seed=1", "seed=2"], "seed=2"),
        (["sweep=seeds", "seed=1", "backend=numba", "backend.threads=2", "plot=False", "dry_run=False", "limit.wall=1h", "objective=[downtime_ms]"], "seed=1"),
    ],
)  # fmt: skip
def test_job_name(overrides: list[str], name: str) -> None:
    assert job_name(overrides) == name


def test_what_the_sweeps_file_only_sets_is_left_out() -> None:
    params = {"seed": "1,2", "link": "1gbit", "vm.vcpus": 4}
    overrides = ["seed=1", "link=1gbit", "vm.vcpus=4"]
    assert job_name(overrides, params) == "seed=1"
    assert job_name(["seed=1", "link=10gbit", "vm.vcpus=4"], params) == "10gbit,seed=1"


def test_job_names_differ_and_can_be_folders() -> None:
    odd = [
        ["vm.memory=1 TiB"],
        ["vm.memory=1_TiB"],
        ["hydra.x=../../etc"],
        ["a=" + "x" * 300],
        ["a=" + "x" * 301],
    ]
    names = [job_name(overrides) for overrides in odd]
    assert len(set(names)) == len(names)
    assert all(len(name) <= 120 and "/" not in name for name in names)
