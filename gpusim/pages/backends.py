"""Which devices there are: why one cannot be used here, which one `auto` takes, and its kernels.

Nothing falls back in silence: a backend asked for by name is used or refused, and `auto` says which
it took and why not an earlier one.
"""

from __future__ import annotations

import importlib
import os
from functools import cache
from importlib import metadata, util
from pathlib import Path

from gpusim.pages.primitives import Kernels
from gpusim.units import format_bytes

BACKENDS = ("cupy", "numba", "numpy")  # `auto` takes the first that can be used
EXPECTED = "expected"  # no backend of a run: counts without bitmaps
HOW_TO_GET = {  # as README.md says
    "cupy": "install gpusim's extra: pip install '.[cuda13]', or '.[cuda12]' for an older driver or GPU",
    "numba": "install gpusim's extra: pip install '.[numba]'",
}
OTHER_HOST_BYTES = 200_000_000  # counts a chunk, cells, the interpreter
OTHER_DEVICE_BYTES = 50_000_000  # cells and counts of a look, modules


class BackendError(RuntimeError):
    """A backend cannot be used: one line.

    Attributes:
        too_big: it is the bitmaps that do not fit it.
    """

    def __init__(self, message: str, *, too_big: bool) -> None:
        self.too_big = too_big
        super().__init__(message)


class _NotNowError(Exception):
    """A reason that may pass."""


def obstacle(name: str) -> str | None:
    """Why a backend cannot be used on this machine, in one line; None if it can."""
    try:
        return lasting_obstacle(name)
    except _NotNowError as error:
        return str(error)


@cache
def lasting_obstacle(name: str) -> str | None:
    """The same, asked once a process.

    Raises:
        _NotNowError: a reason that may pass, and is asked for again.
    """
    if name == "numpy":
        return None
    if name == "cupy" and len(wheels := cupy_wheels()) > 1:
        return f"{' and '.join(wheels)} are both installed and break each other; pip uninstall all of them, then {HOW_TO_GET[name]}"
    if util.find_spec(name) is None:
        return f"{name} is not installed; {HOW_TO_GET[name]}"
    try:
        importlib.import_module("cupy" if name == "cupy" else "gpusim.pages.numba_kernels")
    except Exception as error:  # whatever a broken installation raises
        way_out = HOW_TO_GET[name]
        if "cannot cache" in str(error):  # numba finds no folder to keep compiled code in
            way_out = "set NUMBA_CACHE_DIR to a folder that can be written"
        return f"{name} cannot be imported ({_line(error)}); {way_out}"
    return _device_obstacle() if name == "cupy" else None


def cupy_wheels() -> list[str]:
    """The distributions installed that bring CuPy; there should be one at most."""
    names = {str(d.metadata["Name"]).lower() for d in metadata.distributions()}
    return sorted(n for n in names if n == "cupy" or n.startswith(("cupy-cuda", "cupy-rocm")))


def choose(name: str, bitmap_bytes: int) -> tuple[str, str]:
    """The backend to use for bitmaps of a size, and why.

    Args:
        name: of BACKENDS, or "auto".

    Raises:
        BackendError: asked for by name, and not to be used here; or the bitmaps do not fit.
    """
    passed_over = []
    for candidate in BACKENDS if name == "auto" else (name,):
        why = obstacle(candidate)
        big = None if why else too_big(candidate, bitmap_bytes)
        if why or big:
            passed_over.append(f"not {candidate}: {str(why or big).split(';')[0]}")
            continue
        chosen = f"auto: {candidate}" if name == "auto" else "asked for by name"
        return candidate, "; ".join([chosen, *passed_over])
    raise BackendError(str(why or big), too_big=why is None)


def too_big(name: str, bitmap_bytes: int) -> str | None:
    """Why bitmaps of a size do not fit a backend's memory; None if they do."""
    free = free_bytes(name)
    if bitmap_bytes + other_bytes(name) <= free:
        return None
    where = "on the GPU" if name == "cupy" else "of memory"
    return (
        f"needs {format_bytes(bitmap_bytes)} of bitmaps, and {format_bytes(free)} {where} is free"
    )


def largest_bytes(name: str, vm_bytes: int, bitmap_bytes: int) -> int:
    """The largest VM whose bitmaps fit, by a VM's size and that of its bitmaps; whole GiB or TiB."""
    room = max(0, free_bytes(name) - other_bytes(name))
    largest = room * vm_bytes // bitmap_bytes
    unit = 2**40 if largest >= 10 * 2**40 else 2**30
    return largest // unit * unit


def other_bytes(name: str) -> int:
    """What a run needs besides its bitmaps, about."""
    return OTHER_DEVICE_BYTES if name == "cupy" else OTHER_HOST_BYTES


def free_bytes(name: str) -> int:
    """Memory that a backend's bitmaps may still take."""
    if name != "cupy":
        return available_memory_bytes()
    import cupy

    free: int = cupy.cuda.runtime.memGetInfo()[0] + cupy.get_default_memory_pool().free_bytes()
    return free


def available_memory_bytes() -> int:
    """Memory this process may still take: the machine's, or a control group's of its own if less."""
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        rows = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
        free = int(rows["MemAvailable"].split()[0]) * 1024 if "MemAvailable" in rows else free
    return min([free, *_control_groups_free()])


def _control_groups_free(root: Path = Path("/")) -> list[int]:
    """What each of the process's control groups leaves, version 2 or 1, from its own up to the root."""
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
    """What a backend runs on, for people."""
    if name != "cupy":
        return f"CPU, {len(os.sched_getaffinity(0))} cores"
    import cupy

    properties = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.runtime.getDevice())
    return str(properties["name"].decode())


def make_kernels(name: str, chunks: int, *, log: bool, zero: bool, threads: int) -> Kernels:
    """Bitmaps of so many chunks on a backend that can be used; "expected" has none, for a dry run.

    Raises:
        MemoryError: they do not fit.
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
        raise ValueError(f"{name}: no backend")
    from gpusim.pages.numpy_kernels import NumpyKernels

    return NumpyKernels(chunks, log=log, zero=zero, threads=threads)


def _device_obstacle() -> str | None:
    """Find a device, compile the kernels: what fails, and what helps."""
    import cupy

    try:
        cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        if "NoDevice" in str(error):
            return f"there is no GPU ({_line(error)}); check nvidia-smi and CUDA_VISIBLE_DEVICES"
        return f"no NVIDIA driver that CuPy {cupy.__version__} can use ({_line(error)}); install or update it, or take gpusim's extra cuda12, which older drivers can run"
    from gpusim.pages.cupy_kernels import CupyDevice

    try:
        CupyDevice().close()
    except (MemoryError, cupy.cuda.runtime.CUDARuntimeError) as error:
        message = (
            f"the GPU cannot be used now ({_line(error)}); see nvidia-smi for what else runs on it"
        )
        raise _NotNowError(message) from None
    except Exception as error:  # NVRTC is a library that CuPy loads, or does not, when it compiles
        return f"the kernels cannot be compiled ({_line(error)}); NVRTC comes with: {HOW_TO_GET['cupy']}"
    return None


def _line(error: BaseException, longest: int = 150) -> str:
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return text if len(text) <= longest else text[:longest] + "..."
