"""Which backend is taken, and what is said where one cannot be: one line, with the way out."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from gpusim import BackendConfig, Config, ConfigError, VmConfig
from gpusim.config.backend import choose_backend
from gpusim.config.scenario import resolve
from gpusim.pages import backends
from gpusim.pages.backends import BackendError, choose, lasting_obstacle, make_kernels, obstacle

GIB = 2**30


@pytest.fixture(autouse=True)
def _ask_anew() -> None:
    lasting_obstacle.cache_clear()
    yield
    lasting_obstacle.cache_clear()


def there(monkeypatch: pytest.MonkeyPatch, **why: str | None) -> None:
    """Pretend that backends can be used (None) or not."""
    monkeypatch.setattr(backends, "obstacle", why.get)
    monkeypatch.setattr(backends, "free_bytes", lambda name: 100 * GIB if name != "cupy" else GIB)


class CudaError(Exception):
    """Stands for cupy.cuda.runtime.CUDARuntimeError."""


def fake_cupy(monkeypatch: pytest.MonkeyPatch, count: Callable[[], int], **names: object) -> None:
    """A CuPy that finds devices, or does not."""
    runtime = SimpleNamespace(getDeviceCount=count, CUDARuntimeError=CudaError)
    cuda = SimpleNamespace(runtime=runtime)
    monkeypatch.setattr(backends.util, "find_spec", lambda name: object())
    monkeypatch.setattr(backends, "cupy_wheels", lambda: ["cupy-cuda13x"])
    module = SimpleNamespace(__version__="14.0", cuda=cuda, **names)
    monkeypatch.setitem(sys.modules, "cupy", module)


def raising(error: Exception) -> Callable[..., int]:
    def call(*_arguments: object, **_keywords: object) -> int:
        raise error

    return call


def test_auto_takes_the_first_that_can_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    there(monkeypatch)
    assert choose("auto", 1) == ("cupy", "auto: cupy")
    there(monkeypatch, cupy="no driver")
    assert choose("auto", 1) == ("numba", "auto: numba; not cupy: no driver")
    there(monkeypatch, cupy="no driver; install it", numba="not installed; pip install it")
    reason = "auto: numpy; not cupy: no driver; not numba: not installed"
    assert choose("auto", 1) == ("numpy", reason)


def test_auto_passes_over_a_gpu_that_is_too_small_and_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    there(monkeypatch)
    name, reason = choose("auto", 2 * GIB)
    assert name == "numba"
    assert reason == "auto: numba; not cupy: needs 2 GiB of bitmaps, and 1 GiB on the GPU is free"


@pytest.mark.parametrize("name", ["auto", "numpy", "numba", "cupy"])
def test_bitmaps_that_fit_nowhere(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    there(monkeypatch)
    with pytest.raises(BackendError, match=r"needs 1024 GiB|needs 1 TiB") as caught:
        choose(name, 1024 * GIB)
    assert caught.value.too_big


@pytest.mark.parametrize("name", ["cupy", "numba"])
def test_a_backend_asked_for_by_name_never_falls_back(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    there(monkeypatch, **{name: f"{name} is not installed; pip install it"})
    with pytest.raises(ConfigError) as caught:
        choose_backend(resolve(Config(backend=BackendConfig(name=name))))
    assert (caught.value.key, caught.value.code) == ("backend.name", "backend_not_available")
    assert f"{name} is not installed" in caught.value.message


def test_a_gpu_too_small_by_name_names_the_vm(monkeypatch: pytest.MonkeyPatch) -> None:
    there(monkeypatch)
    with pytest.raises(ConfigError) as caught:
        choose_backend(
            resolve(Config(vm=VmConfig(memory="24TiB"), backend=BackendConfig(name="cupy")))
        )
    assert (caught.value.key, caught.value.code) == ("vm.memory", "does_not_fit_memory")
    assert "1 GiB on the GPU is free" in str(caught.value)


def test_an_unknown_name_lists_those_there_are() -> None:
    with pytest.raises(ConfigError, match="must be one of auto, cupy, numba, numpy"):
        resolve(Config(backend=BackendConfig(name="opencl")))


@pytest.mark.parametrize(("name", "extra"), [("cupy", ".[cuda13]"), ("numba", ".[numba]")])
def test_not_installed_names_the_extra(
    name: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backends.util, "find_spec", lambda name: None)
    monkeypatch.setattr(backends, "cupy_wheels", list)
    assert obstacle(name) is not None
    assert f"{name} is not installed; install gpusim's extra: pip install '{extra}'" in str(
        obstacle(name)
    )


def test_two_cupy_wheels(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_cupy(monkeypatch, lambda: 1)
    monkeypatch.setattr(backends, "cupy_wheels", lambda: ["cupy-cuda12x", "cupy-cuda13x"])
    assert str(obstacle("cupy")).startswith(
        "cupy-cuda12x and cupy-cuda13x are both installed and break each other; pip uninstall"
    )


def test_wheels_are_found_by_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["numpy", "cupy-cuda13x", "CuPy-CUDA12x", "cupyx-profiler", "fastrlock"]
    found = [SimpleNamespace(metadata={"Name": name}) for name in names]
    monkeypatch.setattr(backends.metadata, "distributions", lambda: found)
    assert backends.cupy_wheels() == ["cupy-cuda12x", "cupy-cuda13x"]


def test_no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_cupy(monkeypatch, raising(CudaError("cudaErrorInsufficientDriver: too\nold")))
    why = str(obstacle("cupy"))
    assert why.startswith("no NVIDIA driver that CuPy 14.0 can use (CudaError: cudaErrorIns")
    assert "install or update it, or take gpusim's extra cuda12" in why
    assert "\n" not in why


def test_a_driver_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    none = CudaError("cudaErrorNoDevice: no CUDA-capable device is detected")
    fake_cupy(monkeypatch, raising(none))
    assert str(obstacle("cupy")).startswith("there is no GPU (CudaError: cudaErrorNoDevice")
    assert "CUDA_VISIBLE_DEVICES" in str(obstacle("cupy"))


def test_no_nvrtc(monkeypatch: pytest.MonkeyPatch) -> None:
    missing = RuntimeError("CuPy failed to load libnvrtc.so.13: cannot open shared object file")
    fake_cupy(monkeypatch, lambda: 1, RawModule=raising(missing))
    why = str(obstacle("cupy"))
    assert why.startswith(
        "the kernels cannot be compiled (RuntimeError: CuPy failed to load libnvrtc"
    )
    assert "NVRTC comes with: install gpusim's extra: pip install '.[cuda13]'" in why


@pytest.mark.parametrize(
    "error", [MemoryError("out of memory"), CudaError("cudaErrorDevicesUnavailable: busy")]
)
def test_a_gpu_that_is_full_is_asked_again(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be free when the next job of a sweep starts; other reasons last as long as a process."""
    asked = []

    def ask(**_keywords: object) -> None:
        asked.append(1)
        raise error

    fake_cupy(monkeypatch, lambda: 1, RawModule=ask)
    for _ in range(2):
        assert str(obstacle("cupy")).startswith("the GPU cannot be used now (")
    assert len(asked) == 2


def test_no_folder_for_compiled_code(monkeypatch: pytest.MonkeyPatch) -> None:
    error = RuntimeError("cannot cache function '_planes': no locator available")
    monkeypatch.setattr(backends.util, "find_spec", lambda name: object())
    monkeypatch.setattr(backends.importlib, "import_module", raising(error))
    assert str(obstacle("numba")).endswith("set NUMBA_CACHE_DIR to a folder that can be written")


def test_no_kernels_of_an_unknown_name() -> None:
    with pytest.raises(ValueError, match="auto"):
        make_kernels("auto", 1, log=False, zero=False, threads=1)


def test_a_broken_installation(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = ImportError("Numba needs NumPy 2.3 or less. Got NumPy 2.9. " + "x" * 500)
    monkeypatch.setattr(backends.util, "find_spec", lambda name: object())
    monkeypatch.setattr(backends.importlib, "import_module", raising(broken))
    why = str(obstacle("numba"))
    assert why.startswith("numba cannot be imported (ImportError: Numba needs NumPy 2.3 or less.")
    assert len(why) < 300


def test_numpy_can_always_be_used() -> None:
    assert obstacle("numpy") is None


def test_the_largest_vm_can_be_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    there(monkeypatch)
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
    """Its own group, or one above it; version 2 and version 1."""
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text(f"3:cpuset:/\n{line}\n")
    group = tmp_path / "sys/fs/cgroup" / folder
    group.mkdir(parents=True)
    (group / limit).write_text("1000000\n")
    (group / used).write_text("300000\n")
    (tmp_path / "sys/fs/cgroup" / limit).write_text("max\n")
    (tmp_path / "sys/fs/cgroup" / used).write_text("5\n")
    assert backends._control_groups_free(tmp_path) == [700000]
