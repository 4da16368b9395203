"""Are whole runs equal, byte for byte, on every device?"""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import pytest

from gpusim import (
    BackendConfig,
    Config,
    HotColdConfig,
    LimitConfig,
    LinkConfig,
    MigrationConfig,
    MixConfig,
    SequentialConfig,
    TrackingConfig,
    VmConfig,
    WriterConfig,
    simulate,
)
from gpusim.pages.cupy_kernels import CupyKernels
from gpusim.results import write_run
from tests.parity.devices import OTHERS, need
from tests.parity.shim import ShimDevice

WORKLOADS = {
    "uniform": WriterConfig(working_set_percent=40.0, page_writes_per_s=4e4),
    "hot and cold, scattered": HotColdConfig(
        working_set_percent=30.0, page_writes_per_s=4e4, granule="8MiB"
    ),
    "sequential over random": MixConfig(
        writers={
            "log": SequentialConfig(
                working_set_percent=40.0, page_writes_per_s=2e4, threads=3, first_write=0
            ),
            "heap": WriterConfig(working_set_percent=60.0, page_writes_per_s=2e4),
        }
    ),
}
TRACKING = {
    "eager": TrackingConfig(mode="kvm_legacy"),
    "huge pages": TrackingConfig(mode="kvm_legacy", page_size="4MiB"),
    "lazy": TrackingConfig(mode="kvm_manual"),
    "post-copy": TrackingConfig(mode="kvm_manual"),
}


def migration(workload: str, tracking: str) -> Config:
    """Return a VM of four chunks, two of them partial, with zero pages and a slow link."""
    return Config(
        vm=VmConfig(memory="2300MiB", blocks=["1300MiB", "900MiB", "100MiB"], zero_percent=15),
        workload=WORKLOADS[workload],
        link=LinkConfig(bandwidth="800Mbit/s"),
        migration=MigrationConfig(fallback_sync_interval="2s"),
        tracking=TRACKING[tracking],
    )


def written(run: Config, backend: str, folder: Path) -> tuple[bytes, bytes]:
    """Return syncs.csv and events.jsonl of a run, and check the backend in its summary."""
    result = simulate(replace(run, backend=BackendConfig(name=backend)))
    assert result.summary.backend == backend
    assert result.summary.simulated_looks > 10
    write_run(result, folder, plot=False)
    return (folder / "syncs.csv").read_bytes(), (folder / "events.jsonl").read_bytes()


@pytest.mark.parametrize("device", OTHERS)
@pytest.mark.parametrize(
    ("tracking", "workload"),
    [
        *itertools.product(("eager", "lazy"), WORKLOADS),
        ("huge pages", "sequential over random"),
        ("post-copy", "sequential over random"),
    ],
)
def test_a_run_leaves_numpys_bytes(
    device: str, workload: str, tracking: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = migration(workload, tracking)
    if tracking == "huge pages":  # it does not converge
        often = replace(run.migration, fallback_sync_interval="1s")
        run = replace(run, migration=often, limit=LimitConfig(simulated="40s"))
    if tracking == "post-copy":  # the switch reads both bitmaps
        switch = replace(run.migration, postcopy_ram=True, start_postcopy="11passes")
        run = replace(run, migration=switch)
    numpys = written(run, "numpy", tmp_path / "numpy")
    name = device
    if device == "shim":  # it replaces numpy, so that only the device differs
        name = "numpy"
        monkeypatch.setattr(
            "gpusim.pages.backends.make_kernels",
            lambda name, chunks, *, log, zero, threads: CupyKernels(
                chunks, log=log, zero=zero, device=ShimDevice()
            ),
        )
    else:
        need(device)
    assert written(run, name, tmp_path / device) == numpys


@pytest.mark.gpu
def test_a_run_gives_the_device_memory_back() -> None:
    need("cupy")
    import cupy

    run = replace(migration("uniform", "lazy"), backend=BackendConfig(name="cupy"))
    simulate(run)
    assert cupy.get_default_memory_pool().total_bytes() == 0


@pytest.mark.gpu
def test_a_full_device_is_reported() -> None:
    need("cupy")
    from gpusim.pages.backends import make_kernels

    with pytest.raises(MemoryError):
        make_kernels("cupy", 2**24, log=True, zero=True, threads=1)  # 1.5 TiB
