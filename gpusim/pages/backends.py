"""The backends: which of them can be used here, which one a run uses, and its kernels.

If the user names a backend that cannot be used, gpusim stops with an error. With `auto`, gpusim
uses the first backend that can be used and reports why it did not use an earlier one.
"""

from __future__ import annotations

import importlib
import os
from dataclasses import dataclass
from functools import cache
from importlib import metadata, util
from pathlib import Path

from gpusim.pages.primitives import Kernels
from gpusim.text import shorten
from gpusim.units import format_bytes

BACKENDS = ("cupy", "numba", "numpy")  # `auto` uses the first that can be used
EXPECTED = "expected"  # counts without bitmaps, for a dry run only
HOW_TO_INSTALL = {
    "cupy": "install gpusim's extra: pip install -e '.[cuda13]', or '.[cuda12]' for an older driver or GPU",
    "numba": "install gpusim's extra: pip install -e '.[numba]'",
}
OTHER_HOST_BYTES = 200_000_000  # counts per chunk, cells, the interpreter
OTHER_DEVICE_BYTES = 50_000_000  # cells and counts of a draw, modules
LONGEST_ERROR = 150  # characters of a library's error message


@dataclass(frozen=True)
class Obstacle:
    """Why a backend cannot be used.

    Attributes:
        code: not_installed, two_wheels, import_failed, no_gpu, no_driver, compile_failed, gpu_busy
            or too_big.
        reason: one line without a full stop.
        advice: what the user can do. Empty if there is no advice.
    """

    code: str
    reason: str
    advice: str = ""

    def __str__(self) -> str:
        return f"{self.reason}: {self.advice}" if self.advice else self.reason


class BackendError(RuntimeError):
    """A backend cannot be used. The message has one line.

    Attributes:
        obstacle: why.
    """

    def __init__(self, obstacle: Obstacle) -> None:
        self.obstacle = obstacle
        super().__init__(str(obstacle))

    @property
    def too_big(self) -> bool:
        """Whether the bitmaps do not fit the backend's memory."""
        return self.obstacle.code == "too_big"


class _TemporaryError(Exception):
    """An obstacle that may go away while the process runs."""

    def __init__(self, obstacle: Obstacle) -> None:
        self.obstacle = obstacle
        super().__init__(str(obstacle))


def obstacle(name: str) -> Obstacle | None:
    """Return why a backend cannot be used on this machine, or None if it can."""
    try:
        return _lasting_obstacle(name)
    except _TemporaryError as error:
        return error.obstacle


@cache
def _lasting_obstacle(name: str) -> Obstacle | None:
    """The obstacle, checked once per process.

    Raises:
        _TemporaryError: a temporary obstacle, which the cache does not keep.
    """
    if name == "numpy":
        return None
    if name == "cupy" and len(wheels := _cupy_wheels()) > 1:
        return Obstacle(
            "two_wheels",
            f"{' and '.join(wheels)} are both installed and break each other",
            f"pip uninstall all of them, then {HOW_TO_INSTALL[name]}",
        )
    if util.find_spec(name) is None:
        return Obstacle("not_installed", f"{name} is not installed", HOW_TO_INSTALL[name])
    try:
        module = importlib.import_module("cupy" if name == "cupy" else "gpusim.pages.numba_kernels")
    except Exception as error:  # a broken installation may raise anything
        reason = f"{name} cannot be imported ({_one_line(error)})"
        return Obstacle("import_failed", reason, HOW_TO_INSTALL[name])
    if name == "cupy":
        return _device_obstacle()
    try:
        module.compile_kernels()
    except Exception as error:  # numba and LLVM raise many kinds of errors
        reason = f"numba cannot compile the kernels ({_one_line(error)})"
        return Obstacle("compile_failed", reason, HOW_TO_INSTALL[name])
    return None


def _cupy_wheels() -> list[str]:
    """The installed distributions that contain CuPy. Two of them break each other."""
    names = {str(d.metadata["Name"]).lower() for d in metadata.distributions()}
    return sorted(n for n in names if n == "cupy" or n.startswith(("cupy-cuda", "cupy-rocm")))


def choose(name: str, bitmap_bytes: int) -> tuple[str, str]:
    """Return the backend to use, and why.

    Args:
        name: one of BACKENDS, or "auto".
        bitmap_bytes: size of all bitmaps.

    Raises:
        BackendError: the named backend cannot be used, or the bitmaps do not fit its memory.
    """
    found: Obstacle | None = None
    refused: list[str] = []
    for candidate in BACKENDS if name == "auto" else (name,):
        found = obstacle(candidate) or too_big(candidate, bitmap_bytes)
        if found is None:
            chosen = f"auto: {candidate}" if name == "auto" else "chosen by name"
            return candidate, ", ".join([chosen, *refused])
        refused.append(f"not {candidate}: {found.reason}")
    assert found is not None
    raise BackendError(found)


def too_big(name: str, bitmap_bytes: int) -> Obstacle | None:
    """Return why bitmaps do not fit a backend's memory, or None if they fit.

    Args:
        name: one of BACKENDS.
        bitmap_bytes: size of all bitmaps.
    """
    free = free_bytes(name)
    if bitmap_bytes + _other_bytes(name) <= free:
        return None
    memory = "GPU memory" if name == "cupy" else "memory"
    reason = f"needs {format_bytes(bitmap_bytes)} of bitmaps but only {format_bytes(free)} of {memory} is free"
    return Obstacle("too_big", reason)


def largest_bytes(name: str, vm_bytes: int, bitmap_bytes: int) -> int:
    """Return the size of the largest VM whose bitmaps fit, in whole GiB or TiB.

    Args:
        name: one of BACKENDS.
        vm_bytes, bitmap_bytes: size of a VM and of its bitmaps.
    """
    bitmaps_bytes = max(0, free_bytes(name) - _other_bytes(name))
    largest = bitmaps_bytes * vm_bytes // bitmap_bytes
    unit = 2**40 if largest >= 10 * 2**40 else 2**30
    return largest // unit * unit


def _other_bytes(name: str) -> int:
    """About how much memory a run needs besides its bitmaps."""
    return OTHER_DEVICE_BYTES if name == "cupy" else OTHER_HOST_BYTES


def free_bytes(name: str) -> int:
    """Return the memory that is free for a backend's bitmaps."""
    if name != "cupy":
        return available_memory_bytes()
    import cupy

    free: int = cupy.cuda.runtime.memGetInfo()[0] + cupy.get_default_memory_pool().free_bytes()
    return free


def available_memory_bytes() -> int:
    """Return the memory that this process may still use.

    The machine or one of the process's control groups may set the limit.
    """
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        rows = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
        free = int(rows["MemAvailable"].split()[0]) * 1024 if "MemAvailable" in rows else free
    return min([free, *_control_groups_free()])


def _control_groups_free(root: Path = Path("/")) -> list[int]:
    """Free bytes of each control group of the process and of its parents, version 1 or 2."""
    own, files = root / "proc/self/cgroup", []
    for line in own.read_text().splitlines() if own.exists() else []:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            base, names = root / "sys/fs/cgroup", ("memory.max", "memory.current")
        elif "memory" in controllers.split(","):
            base = root / "sys/fs/cgroup/memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes")
        else:
            continue
        group = Path(path.lstrip("/"))
        files += [[base / g / n for n in names] for g in (group, *group.parents)]
    return [
        max(0, int(limit.read_text()) - int(used.read_text()))
        for limit, used in files
        if limit.exists() and used.exists() and limit.read_text().strip().isdigit()
    ]


def device_name(name: str) -> str:
    """Return the name of the device of a backend, for people."""
    if name != "cupy":
        return f"CPU, {len(os.sched_getaffinity(0))} cores"
    import cupy

    properties = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.runtime.getDevice())
    return str(properties["name"].decode())


def make_kernels(name: str, chunks: int, *, log: bool, zero: bool, threads: int) -> Kernels:
    """Allocate the bitmaps of a VM on a backend.

    Args:
        name: one of BACKENDS, or EXPECTED, which has no bitmaps.
        chunks: number of chunks.
        log, zero: whether the log and the zero bitmap exist.
        threads: threads that share the chunks of a draw on a CPU.

    Raises:
        MemoryError: the bitmaps do not fit.
        ValueError: there is no backend of that name.
    """
    if name == "cupy":
        from gpusim.pages.cupy_kernels import CupyDevice, CupyKernels

        return CupyKernels(chunks, log=log, zero=zero, device=CupyDevice())
    if name == "numba":
        from gpusim.pages.numba_kernels import NumbaKernels

        return NumbaKernels(chunks, log=log, zero=zero, threads=threads)
    if name == EXPECTED:
        from gpusim.pages.expected import ExpectedKernels

        return ExpectedKernels(chunks, log=log, zero=zero)
    if name != "numpy":
        raise ValueError(f"there is no backend {name!r}, only {', '.join(BACKENDS)}")
    from gpusim.pages.numpy_kernels import NumpyKernels

    return NumpyKernels(chunks, log=log, zero=zero, threads=threads)


def _device_obstacle() -> Obstacle | None:
    """Find a device and compile the kernels.

    Raises:
        _TemporaryError: the device is busy or full.
    """
    import cupy

    try:
        cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        if "NoDevice" in str(error):
            return Obstacle(
                "no_gpu",
                f"there is no GPU ({_one_line(error)})",
                "check nvidia-smi and CUDA_VISIBLE_DEVICES",
            )
        return Obstacle(
            "no_driver",
            f"no NVIDIA driver that CuPy {cupy.__version__} can use ({_one_line(error)})",
            "install or update the driver, or install gpusim's extra cuda12, which runs on older drivers",
        )
    from gpusim.pages.cupy_kernels import CupyDevice

    try:
        CupyDevice().close()
    except (MemoryError, cupy.cuda.runtime.CUDARuntimeError) as error:
        reason = f"the GPU cannot be used now ({_one_line(error)})"
        busy = Obstacle("gpu_busy", reason, "nvidia-smi lists the processes on the GPU")
        raise _TemporaryError(busy) from None
    except Exception as error:  # CuPy loads NVRTC when it compiles, and may not find it
        return Obstacle(
            "compile_failed",
            f"the kernels cannot be compiled ({_one_line(error)})",
            f"to get NVRTC, {HOW_TO_INSTALL['cupy']}",
        )
    return None


def _one_line(error: BaseException) -> str:
    return shorten(" ".join(f"{type(error).__name__}: {error}".split()), LONGEST_ERROR)
