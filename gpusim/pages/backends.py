"""The backends: which of them can be used here, which one a run uses, and its kernels.

If the user names a backend that cannot be used, gpusim stops with an error. With `auto`, gpusim
uses the first backend that can be used and reports why it did not use an earlier one.
"""

from __future__ import annotations

import importlib
import os
from functools import cache
from importlib import metadata, util
from pathlib import Path

import numpy as np

from gpusim.pages.budget import Budget
from gpusim.pages.obstacles import (
    HOW_TO_INSTALL,
    BackendError,
    DeviceError,
    Obstacle,
    device_obstacle,
    kernel_obstacle,
    one_line_of,
)
from gpusim.pages.primitives import ChunkTaken, Kernels
from gpusim.units import format_bytes

BACKENDS = ("cupy", "numba", "numpy")  # `auto` uses the first that can be used
EXPECTED = "expected"  # counts without bitmaps: for dry runs, predictions and searches
OTHER_HOST_BYTES = 200_000_000  # counts per chunk, cells, the interpreter
OTHER_DEVICE_BYTES = 50_000_000  # counts of a draw, modules


def obstacle(name: str) -> Obstacle | None:
    """Return why a backend cannot be used on this machine, or None if it can."""
    try:
        return _lasting_obstacle(name, DeviceError.count if name == "cupy" else 0)
    except BackendError as error:
        return error.obstacle


@cache
def _lasting_obstacle(name: str, errors: int) -> Obstacle | None:
    """The obstacle, checked once per process, and again after each error of a GPU.

    Args:
        name: one of BACKENDS.
        errors: number of errors of a GPU so far.

    Raises:
        BackendError: an obstacle that may pass, which the cache does not keep.
    """
    if name == "numpy":
        return None
    if util.find_spec(name) is None:
        return Obstacle("not_installed", f"{name} is not installed", HOW_TO_INSTALL[name])
    if name == "cupy" and len(wheels := _cupy_wheels()) > 1:
        return Obstacle(
            "two_wheels",
            f"{' and '.join(wheels)} are both installed and break each other",
            f"pip uninstall all of them, then {HOW_TO_INSTALL[name]}",
        )
    try:
        module = importlib.import_module("cupy" if name == "cupy" else "gpusim.pages.numba_kernels")
    except Exception as error:  # a broken installation may raise anything
        if name == "cupy" and isinstance(error, OSError):  # CuPy makes the folder of its cache
            return kernel_obstacle(error)
        reason = f"{name} cannot be imported ({one_line_of(error)})"
        return Obstacle("import_failed", reason, HOW_TO_INSTALL[name])
    if name == "cupy":
        return _device_obstacle()
    try:
        module.compile_kernels()
    except Exception as error:  # numba and LLVM raise many kinds of errors
        reason = f"numba cannot compile the kernels ({one_line_of(error)})"
        return Obstacle("compile_failed", reason, HOW_TO_INSTALL[name])
    return None


def _cupy_wheels() -> list[str]:
    """The installed distributions that contain CuPy. Two of them break each other."""
    names = {str(d.metadata["Name"]).lower() for d in metadata.distributions()}
    return sorted(n for n in names if n == "cupy" or n.startswith(("cupy-cuda", "cupy-rocm")))


def choose(name: str, bitmap_bytes: int, draw_bytes: int = 0) -> tuple[str, str]:
    """Return the backend to use, and why.

    Args:
        name: one of BACKENDS, or "auto".
        bitmap_bytes: size of all bitmaps.
        draw_bytes: memory of a GPU that a draw needs beside them, see `cupy_kernels.draw_bytes_of`.

    Raises:
        BackendError: the named backend cannot be used, or the bitmaps do not fit its memory.
    """
    found: Obstacle | None = None
    refused: list[str] = []
    for candidate in BACKENDS if name == "auto" else (name,):
        found = obstacle(candidate) or too_big(candidate, bitmap_bytes, draw_bytes)
        if found is None:
            chosen = f"auto: {candidate}" if name == "auto" else "chosen by name"
            return candidate, ", ".join([chosen, *refused])
        refused.append(f"not {candidate}: {found.reason}")
    assert found is not None
    raise BackendError(found)


def too_big(name: str, bitmap_bytes: int, draw_bytes: int = 0) -> Obstacle | None:
    """Return why bitmaps do not fit a backend's memory, or None if they fit.

    A GPU that does not even tell its free memory is an obstacle, too: it was lost, or it is busy.

    Args:
        name: one of BACKENDS.
        bitmap_bytes, draw_bytes: see `choose`.
    """
    try:
        free = free_bytes(name)
    except DeviceError as error:
        return error.obstacle
    needed = bitmap_bytes + _other_bytes(name, draw_bytes)
    if needed <= free:
        return None
    memory, what = "memory", "of bitmaps"
    if name == "cupy":
        memory = "GPU memory"
        if draw_bytes > bitmap_bytes:
            what = f"of bitmaps and {format_bytes(draw_bytes)} for a draw"
    reason = f"needs {format_bytes(bitmap_bytes)} {what} but only {format_bytes(free)} of {memory} is free"
    return Obstacle("too_big", reason)


def largest_bytes(name: str, vm_bytes: int, bitmap_bytes: int, draw_bytes: int = 0) -> int:
    """Return the size of the largest VM that fits, in whole GiB or TiB.

    Args:
        name: one of BACKENDS.
        vm_bytes, bitmap_bytes, draw_bytes: size of a VM and of what it needs, see `choose`.

    Raises:
        DeviceError: the GPU does not tell its free memory.
    """
    if name == "cupy":
        bitmap_bytes += draw_bytes  # both grow with the VM
    bitmaps_bytes = max(0, free_bytes(name) - _other_bytes(name))
    largest = bitmaps_bytes * vm_bytes // bitmap_bytes
    unit = 2**40 if largest >= 10 * 2**40 else 2**30
    return largest // unit * unit


def _other_bytes(name: str, draw_bytes: int = 0) -> int:
    """About how much memory a run needs besides its bitmaps."""
    return OTHER_DEVICE_BYTES + draw_bytes if name == "cupy" else OTHER_HOST_BYTES


def free_bytes(name: str) -> int:
    """Return the memory that is free for a backend's bitmaps.

    CuPy's own limit, which CUPY_GPU_MEMORY_LIMIT sets, counts as well.

    Raises:
        DeviceError: the GPU is lost or busy.
    """
    if name != "cupy":
        return available_memory_bytes()
    import cupy

    pool = cupy.get_default_memory_pool()
    try:
        free = int(cupy.cuda.runtime.memGetInfo()[0]) + int(pool.free_bytes())
        limit = int(pool.get_limit())
    except cupy.cuda.runtime.CUDARuntimeError as error:
        raise DeviceError(device_obstacle(error)) from error
    return min(free, max(0, limit - int(pool.used_bytes()))) if limit else free


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


def visible_gpus() -> list[str]:
    """Return the GPUs that this process sees, as CUDA_VISIBLE_DEVICES names them.

    Raises:
        BackendError: CuPy cannot use a GPU.
    """
    found = obstacle("cupy")
    if found is not None:
        raise BackendError(found)
    import cupy

    count = int(cupy.cuda.runtime.getDeviceCount())
    names = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    return names[:count] if names[0] else [str(number) for number in range(count)]


def make_kernels(name: str, chunks: int, *, log: bool, zero: bool, threads: int) -> Kernels:
    """Allocate the bitmaps of a VM on a backend.

    Args:
        name: one of BACKENDS, or EXPECTED, which has no bitmaps.
        chunks: number of chunks.
        log, zero: whether the log and the zero bitmap exist.
        threads: threads that share the chunks of a draw on a CPU.

    Raises:
        MemoryError: the bitmaps do not fit.
        DeviceError: the GPU cannot be used any more.
        ValueError: there is no backend of that name.
    """
    if name == "cupy":
        from gpusim.pages.cupy_kernels import CupyDevice, CupyKernels

        try:
            device = CupyDevice()
        except BackendError as error:
            raise DeviceError(error.obstacle) from error
        return CupyKernels(chunks, log=log, zero=zero, device=device)
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
    """Find a device, compile the kernels, and run each of them once.

    Raises:
        BackendError: an obstacle that may pass.
    """
    import cupy

    found: Obstacle | None = None
    try:
        cupy.cuda.runtime.getDeviceCount()
        found = _smoke_test()
    except (cupy.cuda.runtime.CUDARuntimeError, MemoryError) as error:
        found = device_obstacle(error)
    except BackendError as error:
        found = error.obstacle
    if found is not None and found.may_pass:
        raise BackendError(found)
    return found


def _smoke_test() -> Obstacle | None:
    """Write and take pages of one chunk on the GPU.

    Raises:
        MemoryError, BackendError: as of CupyDevice.
    """
    from gpusim.pages.cupy_kernels import CupyDevice, CupyKernels

    kernels = CupyKernels(1, log=False, zero=False, device=CupyDevice())
    try:
        kernels.fill(kernels.dirty, np.array([5]), np.array([105]))
        taken = kernels.clear_in_chunk(0, 0, [Budget(100, 2, 2)])
        left = int(np.bitwise_count(kernels.read(kernels.dirty, 0, 1)).sum())
    finally:
        kernels.close()
    if (taken, left) == (ChunkTaken(55, 50, 0, True), 50):
        return None
    return Obstacle(
        "wrong_results",
        f"the GPU computes wrong results ({taken.normal} pages taken and {left} left of 100)",
        "look at nvidia-smi and dmesg, or set backend=numba",
    )
