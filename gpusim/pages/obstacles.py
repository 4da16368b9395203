"""Why a backend cannot be used, and what an error of CUDA means.

CuPy raises an error with CUDA's number. This module turns it into one line that says what the user
can do. It does not import CuPy.

Source: the numbers are those of enum cudaError in driver_types.h and of CUresult in cuda.h, which
agree for every error that is named here [CUDA 12.8 and 13.0].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from gpusim.errors import one_line

HOW_TO_INSTALL = {
    "cupy": "install gpusim's extra: pip install -e '.[cuda13]', or '.[cuda12]' for an older driver or GPU",
    "numba": "install gpusim's extra: pip install -e '.[numba]'",
}
LONGEST_ERROR = 150  # characters of a library's error message
OUT_OF_MEMORY = 2  # cudaErrorMemoryAllocation, CUDA_ERROR_OUT_OF_MEMORY
FORKED = 3  # cudaErrorInitializationError, which every call of a forked child gives
NO_GPU = (100, 101)
NO_DRIVER = (34, 35, 36, 222, 803, 804)  # a driver that is missing, too old or of another version
NOT_SUPPORTED = (200, 209, 218, 220, 221, 223)  # no code for this GPU
BUSY = (OUT_OF_MEMORY, 46, 802, 805, 806, 807, 808, 809, 810, 811)  # may be over a little later


@dataclass(frozen=True)
class Obstacle:
    """Why a backend cannot be used.

    Attributes:
        code: not_installed, two_wheels, import_failed, no_gpu, no_driver, gpu_not_supported,
            compile_failed, cache_not_writable, wrong_results, gpu_busy, forked, gpu_failed or
            too_big.
        reason: one line without a full stop.
        advice: what the user can do. Empty if there is no advice.
    """

    code: str
    reason: str
    advice: str = ""

    def __str__(self) -> str:
        return f"{self.reason}: {self.advice}" if self.advice else self.reason

    @property
    def may_pass(self) -> bool:
        """Whether the backend may be usable a little later in the same process."""
        return self.code in ("gpu_busy", "forked", "gpu_failed", "too_big")


class BackendError(RuntimeError):
    """A backend cannot be used. The message has one line.

    Attributes:
        obstacle: why.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, obstacle: Obstacle) -> None:
        self.obstacle = obstacle
        super().__init__(str(obstacle))

    def __reduce__(self) -> tuple[type[BackendError], tuple[Obstacle]]:
        """A worker process sends the whole error back."""
        return type(self), (self.obstacle,)

    @property
    def too_big(self) -> bool:
        """Whether the bitmaps do not fit the backend's memory."""
        return self.obstacle.code == "too_big"


class DeviceError(BackendError):
    """The GPU failed while gpusim used it. The message has one line.

    Attributes:
        count: number of such errors in this process. After each, the GPU is tested again.
    """

    count: ClassVar[int] = 0

    def __init__(self, obstacle: Obstacle) -> None:
        super().__init__(obstacle)
        DeviceError.count += 1


def one_line_of(error: BaseException) -> str:
    """Return the type and the text of an error of a library on one bounded line."""
    return one_line(f"{type(error).__name__}: {error}", LONGEST_ERROR)


def device_obstacle(error: Any) -> Obstacle:
    """Return what an error of CUDA means for the backend cupy.

    Args:
        error: CUDARuntimeError or CUDADriverError, whose `status` is CUDA's number, or a
            MemoryError.
    """
    status, line = getattr(error, "status", None), one_line_of(error)
    if status in NO_GPU:
        return Obstacle(
            "no_gpu", f"there is no GPU ({line})", "check nvidia-smi and CUDA_VISIBLE_DEVICES"
        )
    if status in NO_DRIVER:
        return Obstacle(
            "no_driver",
            f"no NVIDIA driver that CuPy can use ({line})",
            "install or update the driver, or install gpusim's extra cuda12, which runs on older drivers",
        )
    if status in NOT_SUPPORTED:
        return Obstacle(
            "gpu_not_supported",
            f"the kernels cannot be loaded on this GPU ({line})",
            "install gpusim's extra cuda12, which runs on older GPUs, or set backend=numba",
        )
    if status == FORKED:
        return Obstacle(
            "forked",
            f"CUDA does not start in this process ({line})",
            "a child that was forked after its parent used the GPU cannot use it. Start processes "
            "with spawn, or set backend=numba. Otherwise look at nvidia-smi and dmesg",
        )
    if status in BUSY or isinstance(error, MemoryError):
        return Obstacle(
            "gpu_busy",
            f"the GPU cannot be used now ({line})",
            "nvidia-smi lists the processes on the GPU",
        )
    return Obstacle(
        "gpu_failed",
        f"the GPU failed ({line})",
        "look at nvidia-smi and dmesg, and start gpusim again, or set backend=numba",
    )


def kernel_obstacle(error: Exception) -> Obstacle:
    """Return why CuPy could not compile the kernels.

    Args:
        error: any error that is neither CUDA's nor a MemoryError. CuPy loads NVRTC when it compiles
            and writes the compiled kernels to its cache.
    """
    line = one_line_of(error)
    if isinstance(error, OSError):
        return Obstacle(
            "cache_not_writable",
            f"CuPy cannot write its cache of kernels ({line})",
            "set the environment variable CUPY_CACHE_DIR to a folder that can be written",
        )
    if "gpu-architecture" in str(error):  # NVRTC does not know the architecture
        return Obstacle(
            "gpu_not_supported",
            f"NVRTC has no code for this GPU ({line})",
            "install gpusim's extra cuda12, which runs on older GPUs, or set backend=numba",
        )
    return Obstacle(
        "compile_failed",
        f"the kernels cannot be compiled ({line})",
        f"to get NVRTC, {HOW_TO_INSTALL['cupy']}",
    )
