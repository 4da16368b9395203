"""A played CUDA device: the real CuPy runs the cupy backend on a machine without a GPU.

Import this module before CuPy, for example with `pytest -p tests.parity.fake_cuda`. CuPy opens the
CUDA driver by its name, so `ctypes.CDLL` returns functions of this module instead. The CUDA runtime
is linked into an extension of CuPy, so each of its functions is overwritten in memory with a jump to
a function of this module. NVRTC is the real one, and a launch runs the kernel on the CPU through
tests/parity/shim. The module changes the memory of the test process only. No file changes, and no
wheel of gpusim contains it. It needs x86-64 Linux and a CuPy wheel with a symbol table.

The played device is as strict as a real one. New memory holds garbage. A copy must lie inside one
allocation. Work of the stream runs as late as possible, so a result that is read too early is still
missing. After an error of a kernel every call fails. In a forked child every call fails.

Environment variables:
    FAKE_CUDA_DEVICES: number of devices. Default: 1.
    FAKE_CUDA_BYTES: memory of each device. Default: 16 GiB.
    FAKE_CUDA_LATE: 0 runs work of the stream at once.
    FAKE_CUDA_SKIP: 1 runs no kernel, to measure the time of the host.
    FAKE_CUDA_FAIL: CALL:FIRST:ERROR or CALL:FIRST:ERROR:LAST, with commas between several. The calls
        FIRST to LAST of a function fail with a CUDA error number. Default of LAST: no end. The name
        `kernel` stands for the execution of a launch.
    FAKE_CUDA_LOG: a file that gets one line of JSON for each allocation on a device.
    FAKE_CUDA_KERNELS: the kernels that somebody has compiled for the CPU, see shim.compile_kernels.
        Default: each process that launches one compiles them.
"""

from __future__ import annotations

import ctypes
import importlib.machinery
import json
import os
import re
import struct
import sys
import traceback
from collections import Counter
from collections.abc import Callable
from ctypes import c_char_p, c_int, c_size_t, c_uint, c_ulonglong, c_void_p
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tests.parity.played import wrong_machine

DRIVER = "libcuda.so.1"
RUNTIME = "cupy_backends.cuda.api.runtime"
# Functions that read tables and ask no device.
TABLES = ("cuGetErrorName",)
REAL = ("cudaGetErrorName", "cudaGetErrorString", "cudaRuntimeGetVersion")
INVALID, OUT_OF_MEMORY, FORKED, NO_DEVICE = 1, 2, 3, 100
BAD_DEVICE, NOT_FOUND, NOT_SUPPORTED, UNKNOWN = 101, 500, 801, 999
TO_DEVICE, TO_HOST, ON_DEVICE, ANY = 1, 2, 3, 4  # cudaMemcpyKind
LASTING = range(700, 730)  # errors of kernels, after which every call of the process fails
ATTRIBUTES = {16: 132, 75: 9, 76: 0}  # multiprocessors, compute capability 9.0
DRIVER_VERSION = 13050
NAME = b"a CPU that plays a GPU"
GARBAGE = 0xA5
X86_JUMP = b"\xff\x25\0\0\0\0"  # to the address behind it


class Failure(NamedTuple):
    """Calls of a function that fail: the numbers of the first and the last, and the error."""

    first: int
    error: int
    last: int = sys.maxsize


def failures_from(text: str) -> dict[str, Failure]:
    """Return the failures of FAKE_CUDA_FAIL."""
    parts = [part.split(":") for part in text.split(",") if part]
    return {name: Failure(*map(int, numbers)) for name, *numbers in parts}


class Machine:
    """The devices of the process, their memory and one stream.

    Attributes:
        failures: name of a function -> which of its calls fail.
        late: work of the stream runs when somebody waits for it.
        skip: kernels do not run.
        calls: name of a function -> number of calls.
        lost: the error that every call returns, or 0.
        memory: address -> allocation and the number of its device. PINNED is the host.
    """

    PINNED = -1

    def __init__(self) -> None:
        self.device_bytes = int(os.environ.get("FAKE_CUDA_BYTES", "17179869184"))
        self.devices = int(os.environ.get("FAKE_CUDA_DEVICES", "1"))
        self.late = os.environ.get("FAKE_CUDA_LATE", "1") == "1"
        self.skip = os.environ.get("FAKE_CUDA_SKIP") == "1"
        self.failures = failures_from(os.environ.get("FAKE_CUDA_FAIL", ""))
        self.log = os.environ.get("FAKE_CUDA_LOG")
        self.memory: dict[int, tuple[np.ndarray, int]] = {}
        self.queue: list[Callable[[], None]] = []
        self.calls: Counter[str] = Counter()
        self.current = self.lost = 0
        self.process: int | None = None  # the first process that made a call

    def enter(self, name: str) -> int:
        """Count a call. Return the error with which it fails before it does anything, or 0."""
        self.calls[name] += 1
        self.process = self.process or os.getpid()
        if self.process != os.getpid():
            return FORKED
        failure = self.failures.get(name)
        if failure and failure.first <= self.calls[name] <= failure.last:
            if failure.error not in LASTING:
                return failure.error
            self.lost = failure.error
        return self.lost

    def visible(self) -> list[int]:
        """Return the devices that CUDA_VISIBLE_DEVICES leaves, in its order."""
        wanted = os.environ.get("CUDA_VISIBLE_DEVICES")
        if wanted is None:
            return list(range(self.devices))
        found: list[int] = []
        for part in wanted.split(","):
            if not part.strip().isdigit() or int(part) >= self.devices:
                break  # CUDA ignores everything behind the first number that is wrong
            found.append(int(part))
        return found

    def used(self, device: int) -> int:
        """Return the bytes that are allocated on a device."""
        return sum(len(memory) for memory, place in self.memory.values() if place == device)

    def here(self) -> int:
        """Return the number of the current device on this machine."""
        return self.visible()[self.current]

    def allocate(self, device: int, out: int, size: int) -> int:
        """Allocate memory that holds garbage, and write its address to `out`."""
        if device != self.PINNED:
            if self.used(device) + size > self.device_bytes:
                return OUT_OF_MEMORY
            self._note(device, size)
        memory = np.full(size, GARBAGE, np.uint8)
        self.memory[memory.ctypes.data] = memory, device
        c_void_p.from_address(out).value = memory.ctypes.data
        return 0

    def free(self, address: int | None) -> int:
        """Free an allocation after all work of the stream."""
        self.wait()
        if address is None:
            return 0
        found = self.memory.pop(address, None)
        if found is None:
            return INVALID
        found[0][:] = GARBAGE  # whoever still reads it gets no result
        return 0

    def holds(self, address: int, size: int, *, pinned: bool = False) -> bool:
        """Tell whether one allocation of a device, or of pinned memory, holds these bytes."""
        return any(
            base <= address and address + size <= base + len(memory)
            for base, (memory, place) in self.memory.items()
            if (place == self.PINNED) is pinned
        )

    def put(self, work: Callable[[], Any], *, late: bool = True) -> int:
        """Add work to the stream."""
        self.queue.append(work)
        return 0 if self.late and late else self.wait()

    def wait(self) -> int:
        """Run all work of the stream. Return the error that lost the device, or 0."""
        while self.queue and not self.lost:
            self.queue.pop(0)()
        if self.lost:
            self.queue.clear()
        return self.lost

    def _note(self, device: int, size: int) -> None:
        if self.log:
            line = {"pid": os.getpid(), "device": device, "bytes": size, "seen": self.visible()}
            with open(self.log, "a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")


machine = Machine()
functions: dict[str, Any] = {}
_texts: list[bytes] = []  # C strings that CuPy may still read


def exported(*types: Any) -> Callable[[Callable[..., int | None]], Any]:
    """Decorate a function: CuPy finds it by its name. Its result is a CUDA error number."""

    def export(function: Callable[..., int | None]) -> Any:
        name = function.__name__

        def call(*arguments: Any) -> int:
            try:
                error = 0 if name in TABLES else machine.enter(name)
                return error or function(*arguments) or 0
            except BaseException:  # C code cannot pass an exception on
                traceback.print_exc()
                return UNKNOWN

        functions[name] = ctypes.CFUNCTYPE(c_int, *types)(call)
        # CuPy calls some functions while Python exits, after it has freed this module.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(functions[name]))
        return function

    return export


def put_int(out: int, value: int) -> None:
    c_int.from_address(out).value = value


@exported()
def cudaGetLastError() -> None: ...


@exported(c_void_p)
def cudaDriverGetVersion(out: int) -> None:
    put_int(out, DRIVER_VERSION)


@exported(c_void_p)
def cudaGetDeviceCount(out: int) -> int:
    put_int(out, len(machine.visible()))
    return 0 if machine.visible() else NO_DEVICE


@exported(c_void_p)
def cudaGetDevice(out: int) -> int:
    put_int(out, machine.current)
    return 0 if machine.visible() else NO_DEVICE


@exported(c_int)
def cudaSetDevice(device: int) -> int:
    if device >= len(machine.visible()):
        return BAD_DEVICE
    machine.current = device
    return 0


@exported(c_void_p, c_int, c_int)
def cudaDeviceGetAttribute(out: int, attribute: int, device: int) -> None:
    put_int(out, ATTRIBUTES.get(attribute, 0))


@exported(c_void_p, c_int)
def cudaGetDeviceProperties(out: int, device: int) -> None:
    ctypes.memmove(out, NAME + b"\0", len(NAME) + 1)


functions["cudaGetDeviceProperties_v2"] = functions["cudaGetDeviceProperties"]  # of CUDA 12


@exported(c_void_p, c_void_p)
def cudaMemGetInfo(free: int, total: int) -> None:
    c_size_t.from_address(total).value = machine.device_bytes
    c_size_t.from_address(free).value = machine.device_bytes - machine.used(machine.here())


@exported(c_void_p, c_size_t)
def cudaMalloc(out: int, size: int) -> int:
    return machine.allocate(machine.here(), out, size)


@exported(c_void_p, c_size_t, c_uint)
def cudaHostAlloc(out: int, size: int, flags: int) -> int:
    return machine.allocate(machine.PINNED, out, size)


@exported(c_void_p)
def cudaFree(address: int | None) -> int:
    return machine.free(address)


@exported(c_void_p)
def cudaFreeHost(address: int | None) -> int:
    return machine.free(address)


@exported(c_void_p, c_void_p, c_size_t, c_int, c_void_p)
def cudaMemcpyAsync(to: int, source: int, size: int, kind: int, stream: int | None) -> int:
    if kind == ANY and machine.holds(to, size) and machine.holds(source, size):
        kind = ON_DEVICE  # CuPy copies between arrays so
    if kind not in (TO_DEVICE, TO_HOST, ON_DEVICE):
        return NOT_SUPPORTED
    on_device = {TO_DEVICE: [to], TO_HOST: [source], ON_DEVICE: [to, source]}[kind]
    if size and not all(machine.holds(address, size) for address in on_device):
        return INVALID
    # A copy from or to memory that is not pinned is over when the call returns.
    host = source if kind == TO_DEVICE else to
    late = kind == ON_DEVICE or machine.holds(host, size, pinned=True)
    return machine.put(lambda: ctypes.memmove(to, source, size), late=late)


@exported(c_void_p, c_int, c_size_t, c_void_p)
def cudaMemsetAsync(to: int, value: int, size: int, stream: int | None) -> int:
    if not machine.holds(to, size):
        return INVALID
    return machine.put(lambda: ctypes.memset(to, value, size))


@exported(c_void_p, c_void_p)
def cudaStreamIsCapturing(stream: int | None, out: int) -> None:
    put_int(out, 0)


@exported(c_void_p)
def cudaStreamSynchronize(stream: int | None) -> int:
    return machine.wait()


@exported()
def cudaDeviceSynchronize() -> int:
    return machine.wait()


@exported(c_int, c_void_p)
def cuGetErrorName(error: int, out: int) -> None:
    _texts.append(f"CUDA_ERROR_{error}".encode())
    c_char_p.from_address(out).value = _texts[-1]


functions["cuGetErrorString"] = functions["cuGetErrorName"]


@exported(c_void_p, c_char_p)
def cuModuleLoadData(out: int, image: bytes) -> int:
    c_void_p.from_address(out).value = 1
    return 0 if image.startswith(b"\x7fELF") else INVALID


@exported(c_void_p)
def cuModuleUnload(module: int) -> None: ...


@exported(c_void_p, c_void_p, c_char_p)
def cuModuleGetFunction(out: int, module: int, name: bytes) -> int:
    kernels = list(parameters())
    if name.decode() not in kernels:
        return NOT_FOUND
    c_void_p.from_address(out).value = 1 + kernels.index(name.decode())
    return 0


@exported(c_void_p, *[c_uint] * 7, c_void_p, ctypes.POINTER(c_void_p), c_void_p)
def cuLaunchKernel(function: int, blocks: int, y: int, z: int, threads: int, *others: Any) -> int:
    if machine.skip:
        return 0
    name, types = list(parameters().items())[function - 1]
    if not 0 < threads <= 1024 or not blocks or (y, z, *others[:3]) != (1, 1, 1, 1, 0):
        return INVALID
    # CuPy frees the values when the call returns.
    values = [kind(kind.from_address(others[4][i]).value) for i, kind in enumerate(types)]
    run = getattr(_library(), f"run_{name}")

    def work() -> None:
        machine.lost = machine.enter("kernel")
        if not machine.lost:
            run(c_int(blocks), c_int(threads), c_uint(machine.calls["kernel"]), *values)

    return machine.put(work)


@cache
def _library() -> ctypes.CDLL:
    from tests.parity.shim import library

    compiled = os.environ.get("FAKE_CUDA_KERNELS")
    return ctypes.CDLL(compiled) if compiled else library(_source())


@cache
def _source() -> str:
    from gpusim.pages.cupy_kernels import SOURCE

    return SOURCE.read_text()


@cache
def parameters() -> dict[str, list[Any]]:
    """Return the type of each parameter of each kernel, as paint.cu declares them."""
    kinds = {"int": c_int, "i64": c_ulonglong, "u64": c_ulonglong}
    declared = re.findall(r"__global__.*?(\w+)\(([^()]*)\) \{", _source(), re.DOTALL)
    return {
        name: [c_void_p if "*" in part else kinds[part.split()[-2]] for part in text.split(",")]
        for name, text in declared
    }


class _Driver:
    """What CuPy gets instead of the CUDA driver."""

    def __getattr__(self, name: str) -> Any:
        if name in functions:
            return functions[name]
        raise AttributeError(name)


class _Finder:
    """Finds CuPy's extension that contains the CUDA runtime, and loads it with `_Loader`."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        spec = importlib.machinery.PathFinder.find_spec(name, path) if name == RUNTIME else None
        if spec is not None and spec.origin is not None:
            spec.loader = _Loader(name, spec.origin)
        return spec


class _Loader(importlib.machinery.ExtensionFileLoader):
    def create_module(self, spec: Any) -> Any:
        module = super().create_module(spec)  # maps the file, and runs nothing of it
        redirect(Path(self.path))
        return module


def redirect(extension: Path) -> None:
    """Overwrite each function of the CUDA runtime in a mapped extension with a jump."""
    lines = [line.split() for line in Path("/proc/self/maps").read_text().splitlines()]
    mapped = str(extension.resolve())
    code = next(m[0].split("-") for m in lines if m[-1] == mapped and "x" in m[1])
    base, end = (int(address, 16) for address in code)
    libc = ctypes.CDLL(None)
    libc.mprotect(c_void_p(base), c_size_t(end - base), 7)
    for name, offset in runtime_symbols(extension):
        if name in REAL:
            continue
        target = ctypes.cast(functions.get(name) or _refuse(name), c_void_p).value
        ctypes.memmove(base + offset, X86_JUMP + struct.pack("<Q", target), len(X86_JUMP) + 8)
    libc.mprotect(c_void_p(base), c_size_t(end - base), 5)


def _refuse(name: str) -> Any:
    """Return a function that says which call of CuPy this module does not know."""

    def call() -> int:
        print(f"fake_cuda has no {name}", file=sys.stderr)
        return NOT_SUPPORTED

    call.__name__ = name
    exported()(call)
    return functions[name]


@cache
def runtime_symbols(extension: Path) -> list[tuple[str, int]]:
    """Return name and offset of each function `cuda...` in the symbol table of an ELF file.

    Raises:
        SystemExit: the file has no symbol table. The message has one line.
    """
    elf = extension.read_bytes()
    (table,), (size, count) = struct.unpack_from("<Q", elf, 40), struct.unpack_from("<HH", elf, 58)
    sections = [struct.unpack_from("<IIQQQQIIQQ", elf, table + size * i) for i in range(count)]
    found = []
    for _, kind, _, _, offset, length, link, *_ in sections:
        if kind != 2:  # SHT_SYMTAB
            continue
        for at in range(offset, offset + length, 24):
            start, info, _, _, value, _ = struct.unpack_from("<IBBHQQ", elf, at)
            start += sections[link][4]
            if info & 15 == 2 and elf.startswith(b"cuda", start):
                found.append((elf[start : elf.index(b"\0", start)].decode(), value))
    if not found:
        raise SystemExit(
            f"fake_cuda: {extension.name} has no symbol table, so the CUDA runtime in it cannot be "
            "replaced. Install the wheel cupy-cuda13x or cupy-cuda12x from PyPI"
        )
    return found


def runtime_extension() -> Path:
    """Return the file of CuPy's extension that contains the CUDA runtime."""
    spec = find_spec(RUNTIME.partition(".")[0])
    assert spec is not None and spec.submodule_search_locations
    folder = Path(spec.submodule_search_locations[0], *RUNTIME.split(".")[1:-1])
    return next(folder.glob("runtime.*.so"))


def install() -> None:
    """Let the next `import cupy` find the played device. CuPy must not be imported yet.

    Raises:
        SystemExit: no device can be played here. The message has one line.
    """
    if RUNTIME in sys.modules:
        raise SystemExit("fake_cuda: CuPy is imported already. Import tests.parity.fake_cuda first")
    if reason := wrong_machine():
        raise SystemExit(f"fake_cuda: {reason}")
    runtime_symbols(runtime_extension())
    real = ctypes.CDLL

    class Opener(real):  # type: ignore[misc,valid-type]
        def __new__(cls, name: Any = None, *arguments: Any, **named: Any) -> Any:
            return _Driver() if name == DRIVER else super().__new__(cls)

    ctypes.CDLL = Opener  # type: ignore[misc]
    sys.meta_path.insert(0, _Finder())


install()
