"""Which backend does a run use, and what does gpusim report if a backend cannot be used?"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

from gpusim import BackendConfig, Config, ConfigError, VmConfig, WriterConfig
from gpusim.config.backend import choose_backend
from gpusim.config.scenario import resolve
from gpusim.pages import backends, cupy_kernels
from gpusim.pages.backends import choose, make_kernels, obstacle
from gpusim.pages.budget import Budget
from gpusim.pages.numpy_kernels import NumpyKernels
from gpusim.pages.obstacles import BackendError, DeviceError, Obstacle
from gpusim.pages.primitives import ChunkTaken

GIB = 2**30


@pytest.fixture(autouse=True)
def _clear_cache() -> None:
    backends._lasting_obstacle.cache_clear()
    yield
    backends._lasting_obstacle.cache_clear()


def pretend(monkeypatch: pytest.MonkeyPatch, **obstacles: Obstacle) -> None:
    """Pretend that some backends cannot be used, and that the GPU has 1 GiB of free memory."""
    monkeypatch.setattr(backends, "obstacle", obstacles.get)
    monkeypatch.setattr(backends, "free_bytes", lambda name: 100 * GIB if name != "cupy" else GIB)


class CudaError(Exception):
    """Stands for CuPy's CUDARuntimeError and CUDADriverError. `status` is CUDA's number."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


def fake_cupy(monkeypatch: pytest.MonkeyPatch, count: Callable[[], int], **names: object) -> None:
    """Install a fake CuPy whose `count` returns the number of devices."""
    runtime = SimpleNamespace(getDeviceCount=count, CUDARuntimeError=CudaError)
    driver = SimpleNamespace(CUDADriverError=CudaError)
    cuda = SimpleNamespace(runtime=runtime, driver=driver)
    monkeypatch.setattr(backends.util, "find_spec", lambda name: object())
    monkeypatch.setattr(backends, "_cupy_wheels", lambda: ["cupy-cuda13x"])
    module = SimpleNamespace(__version__="14.0", cuda=cuda, **names)
    monkeypatch.setitem(sys.modules, "cupy", module)


def raising(error: Exception) -> Callable[..., int]:
    def call(*_arguments: object, **_keywords: object) -> int:
        raise error

    return call


def test_auto_uses_the_first_usable_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch)
    assert choose("auto", 1) == ("cupy", "auto: cupy")
    cupy = Obstacle("no_driver", "no driver", "install it")
    pretend(monkeypatch, cupy=cupy)
    assert choose("auto", 1) == ("numba", "auto: numba, not cupy: no driver")
    pretend(monkeypatch, cupy=cupy, numba=Obstacle("not_installed", "not installed", "get it"))
    reason = "auto: numpy, not cupy: no driver, not numba: not installed"
    assert choose("auto", 1) == ("numpy", reason)


def test_auto_reports_that_a_gpu_is_too_small(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch)
    too_big = backends.too_big("cupy", 2 * GIB)
    assert too_big.code == "too_big"
    assert choose("auto", 2 * GIB) == ("numba", f"auto: numba, not cupy: {too_big.reason}")


@pytest.mark.parametrize("name", ["auto", "numpy", "numba", "cupy"])
def test_bitmaps_that_fit_no_backend(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch)
    with pytest.raises(BackendError) as caught:
        choose(name, 1024 * GIB)
    assert caught.value.too_big
    assert "1 TiB" in caught.value.obstacle.reason


@pytest.mark.parametrize("name", ["cupy", "numba"])
def test_a_named_backend_never_falls_back(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = Obstacle("not_installed", f"{name} is missing", "pip install it")
    pretend(monkeypatch, **{name: missing})
    with pytest.raises(ConfigError) as caught:
        choose_backend(resolve(Config(backend=BackendConfig(name=name))))
    assert (caught.value.key, caught.value.code) == ("backend.name", "backend_not_available")
    assert str(missing) in caught.value.message


def test_a_named_gpu_that_is_too_small_names_the_vm(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch)
    with pytest.raises(ConfigError) as caught:
        choose_backend(
            resolve(Config(vm=VmConfig(memory="24TiB"), backend=BackendConfig(name="cupy")))
        )
    assert (caught.value.key, caught.value.code) == ("vm.memory", "does_not_fit_memory")
    assert "1 GiB of GPU memory is free" in str(caught.value)


def test_an_unknown_name_lists_the_backends() -> None:
    with pytest.raises(ConfigError, match="must be one of auto, cupy, numba, numpy"):
        resolve(Config(backend=BackendConfig(name="opencl")))


@pytest.mark.parametrize(("name", "extra"), [("cupy", ".[cuda13]"), ("numba", ".[numba]")])
def test_not_installed_names_the_extra(
    name: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backends.util, "find_spec", lambda name: None)
    monkeypatch.setattr(backends, "_cupy_wheels", list)
    found = obstacle(name)
    assert found.code == "not_installed"
    assert f"pip install -e '{extra}'" in found.advice


def test_two_cupy_wheels(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_cupy(monkeypatch, lambda: 1)
    monkeypatch.setattr(backends, "_cupy_wheels", lambda: ["cupy-cuda12x", "cupy-cuda13x"])
    found = obstacle("cupy")
    assert found.code == "two_wheels"
    assert "cupy-cuda12x and cupy-cuda13x" in found.reason


def test_wheels_are_found_by_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["numpy", "cupy-cuda13x", "CuPy-CUDA12x", "cupyx-profiler", "fastrlock"]
    found = [SimpleNamespace(metadata={"Name": name}) for name in names]
    monkeypatch.setattr(backends.metadata, "distributions", lambda: found)
    assert backends._cupy_wheels() == ["cupy-cuda12x", "cupy-cuda13x"]


def test_no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_cupy(monkeypatch, raising(CudaError(35, "cudaErrorInsufficientDriver: too\nold")))
    found = obstacle("cupy")
    assert found.code == "no_driver"
    assert "cudaErrorInsufficientDriver: too old" in found.reason
    assert "cuda12" in found.advice


def test_a_driver_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    none = CudaError(100, "cudaErrorNoDevice: no CUDA-capable device is detected")
    fake_cupy(monkeypatch, raising(none))
    found = obstacle("cupy")
    assert found.code == "no_gpu"
    assert "CUDA_VISIBLE_DEVICES" in found.advice


def test_no_nvrtc(monkeypatch: pytest.MonkeyPatch) -> None:
    missing = RuntimeError("CuPy failed to load libnvrtc.so.13: cannot open shared object file")
    fake_cupy(monkeypatch, lambda: 1, RawModule=raising(missing))
    found = obstacle("cupy")
    assert found.code == "compile_failed"
    assert "CuPy failed to load libnvrtc" in found.reason
    assert "pip install -e '.[cuda13]'" in found.advice


@pytest.mark.parametrize(
    "error", [MemoryError("out of memory"), CudaError(46, "cudaErrorDevicesUnavailable: busy")]
)
def test_a_full_gpu_is_checked_again(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """The GPU may be free when the next job starts. Other obstacles stay in the cache."""
    checks = []

    def check(**_keywords: object) -> None:
        checks.append(1)
        raise error

    fake_cupy(monkeypatch, lambda: 1, RawModule=check)
    for _ in range(2):
        assert obstacle("cupy").code == "gpu_busy"
    assert len(checks) == 2


@pytest.mark.parametrize(
    ("status", "code", "lasts"),
    [
        (2, "gpu_busy", False),  # out of memory
        (3, "forked", False),
        (35, "no_driver", True),  # insufficient driver
        (46, "gpu_busy", False),  # devices unavailable
        (100, "no_gpu", True),
        (209, "gpu_not_supported", True),  # no binary for this GPU
        (222, "no_driver", True),  # unsupported PTX version
        (700, "gpu_failed", False),  # illegal address
        (803, "no_driver", True),  # driver and library differ
        (999, "gpu_failed", False),
    ],
)
@pytest.mark.parametrize("at", ["count", "load"])
def test_errors_of_cuda_are_told_apart(
    status: int, code: str, lasts: bool, at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CuPy raises them when it counts devices, and when it loads the kernels."""
    checks = []

    def check(**_keywords: object) -> int:
        checks.append(1)
        raise CudaError(status, "text")

    load = check if at == "load" else None
    fake_cupy(monkeypatch, check if at == "count" else lambda: 1, RawModule=load)
    assert [obstacle("cupy").code for _ in range(2)] == [code, code]
    assert len(checks) == (1 if lasts else 2)


@pytest.mark.parametrize(
    ("error", "code", "advice"),
    [
        (PermissionError(13, "denied", "/root/.cupy"), "cache_not_writable", "CUPY_CACHE_DIR"),
        (OSError(30, "Read-only file system"), "cache_not_writable", "CUPY_CACHE_DIR"),
        (RuntimeError("invalid value for --gpu-architecture"), "gpu_not_supported", "cuda12"),
        (RuntimeError("libnvrtc.so.13: cannot open"), "compile_failed", "cuda13"),
    ],
)
def test_why_kernels_are_not_compiled(
    error: Exception, code: str, advice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_cupy(monkeypatch, lambda: 1, RawModule=raising(error))
    found = obstacle("cupy")
    assert found.code == code
    assert advice in found.advice


def test_a_gpu_that_does_not_tell_its_memory_is_passed_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lost = Obstacle("gpu_failed", "the GPU failed", "look at dmesg")

    def free(name: str) -> int:
        if name == "cupy":
            raise DeviceError(lost)
        return GIB

    pretend(monkeypatch)
    monkeypatch.setattr(backends, "free_bytes", free)
    assert choose("auto", 1) == ("numba", f"auto: numba, not cupy: {lost.reason}")
    with pytest.raises(BackendError) as caught:
        choose("cupy", 1)
    assert caught.value.obstacle == lost


def test_a_gpu_that_computes_wrong_results(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first use in a process draws and takes a few pages."""

    class Wrong(NumpyKernels):
        def clear_in_chunk(self, chunk: int, page: int, budgets: Sequence[Budget]) -> ChunkTaken:
            return super().clear_in_chunk(chunk, page + 10, budgets)

    fake_cupy(monkeypatch, lambda: 1)
    monkeypatch.setattr(cupy_kernels, "CupyDevice", lambda: None)
    for kernels, code in ((NumpyKernels, None), (Wrong, "wrong_results")):
        backends._lasting_obstacle.cache_clear()
        monkeypatch.setattr(
            cupy_kernels,
            "CupyKernels",
            lambda chunks, log, zero, device, kernels=kernels: kernels(
                chunks, log=log, zero=zero, threads=1
            ),
        )
        found = obstacle("cupy")
        assert (found and found.code) == code


@pytest.mark.parametrize(
    ("visible", "names"), [(None, ["0", "1"]), ("3,GPU-7f", ["3", "GPU-7f"]), ("", ["0", "1"])]
)
def test_the_gpus_that_a_process_sees(
    visible: str | None, names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_cupy(monkeypatch, lambda: 2)
    monkeypatch.setattr(backends, "obstacle", lambda name: None)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert backends.visible_gpus() == names
    monkeypatch.setattr(backends, "obstacle", lambda name: Obstacle("no_gpu", "none"))
    with pytest.raises(BackendError):
        backends.visible_gpus()


def test_an_error_of_a_gpu_survives_pickle() -> None:
    lost = DeviceError(Obstacle("gpu_failed", "reason", "advice"))
    assert pickle.loads(pickle.dumps(lost)).obstacle == lost.obstacle


def test_a_draw_of_many_cells_needs_memory_of_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cells of a working set in 64 KiB pieces are larger than the bitmaps."""
    pretend(monkeypatch)
    workload = WriterConfig(working_set_percent=50.0, granule="64KiB")
    scenario = resolve(Config(vm=VmConfig(memory="64GiB"), workload=workload))
    pieces = 2**35 // 2**16
    assert pieces <= scenario.most_cells <= 1.1 * pieces
    assert scenario.draw_bytes > 32 * pieces > 3 * scenario.bitmap_bytes
    needed = scenario.bitmap_bytes + scenario.draw_bytes + backends.OTHER_DEVICE_BYTES
    free = {"cupy": needed, "numba": GIB}
    monkeypatch.setattr(backends, "free_bytes", free.get)
    assert choose_backend(scenario).name == "cupy"
    free["cupy"] -= 1
    chosen = choose_backend(scenario)
    assert chosen.name == "numba"
    assert "for a draw" in chosen.reason


def test_numba_that_cannot_compile(monkeypatch: pytest.MonkeyPatch) -> None:
    module = SimpleNamespace(compile_kernels=raising(OSError("LLVM ERROR:\nno such target")))
    monkeypatch.setattr(backends.util, "find_spec", lambda name: object())
    monkeypatch.setattr(backends.importlib, "import_module", lambda name: module)
    found = obstacle("numba")
    assert found.code == "compile_failed"
    assert "LLVM ERROR: no such target" in found.reason
    monkeypatch.setattr(backends, "_cupy_wheels", lambda: ["cupy-cuda12x", "cupy-cuda13x"])
    assert choose("auto", 1)[0] == "numpy"


def test_no_kernels_of_an_unknown_name() -> None:
    with pytest.raises(ValueError, match="auto"):
        make_kernels("auto", 1, log=False, zero=False, threads=1)


def test_a_broken_installation(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = ImportError("Numba needs NumPy 2.3 or less. Got NumPy 2.9. " + "x" * 500)
    monkeypatch.setattr(backends.util, "find_spec", lambda name: object())
    monkeypatch.setattr(backends.importlib, "import_module", raising(broken))
    found = obstacle("numba")
    assert found.code == "import_failed"
    assert "Numba needs NumPy 2.3 or less." in found.reason
    assert len(str(found)) < 300


def test_a_library_of_numba_that_cannot_be_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """llvmlite raises an OSError then. It has nothing to do with CuPy's cache."""
    broken = OSError("Could not find/load shared object file 'libllvmlite.so'")
    monkeypatch.setattr(backends.util, "find_spec", lambda name: object())
    monkeypatch.setattr(backends.importlib, "import_module", raising(broken))
    found = obstacle("numba")
    assert found.code == "import_failed"
    assert "libllvmlite.so" in found.reason
    assert "CuPy" not in str(found)


def test_numpy_can_always_be_used() -> None:
    assert obstacle("numpy") is None


def test_the_largest_vm_can_be_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch)
    with pytest.raises(ConfigError) as caught:
        choose_backend(
            resolve(Config(vm=VmConfig(memory="900TiB"), backend=BackendConfig(name="cupy")))
        )
    largest = str(caught.value).split("The largest VM that fits has ")[1].split(". ")[0]
    assert "tracking=kvm_legacy" in str(caught.value)
    fits = VmConfig(memory=largest.replace(" ", ""))
    scenario = resolve(Config(vm=fits, backend=BackendConfig(name="cupy")))
    assert choose_backend(scenario).name == "cupy"


@pytest.mark.parametrize(
    ("line", "folder", "limit", "used"),
    [
        ("0::/user/job", "user/job", "memory.max", "memory.current"),
        ("0::/user/job", "user", "memory.max", "memory.current"),
        ("7:cpu,memory:/job", "memory/job", "memory.limit_in_bytes", "memory.usage_in_bytes"),
    ],
)
def test_a_control_group_limits_memory(
    line: str, folder: str, limit: str, used: str, tmp_path: Path
) -> None:
    """The process's own group or a parent sets the limit, in version 2 and in version 1."""
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text(f"3:cpuset:/\n{line}\n")
    group = tmp_path / "sys/fs/cgroup" / folder
    group.mkdir(parents=True)
    (group / limit).write_text("1000000\n")
    (group / used).write_text("300000\n")
    (tmp_path / "sys/fs/cgroup" / limit).write_text("max\n")
    (tmp_path / "sys/fs/cgroup" / used).write_text("5\n")
    assert backends._control_groups_free(tmp_path) == [700000]
