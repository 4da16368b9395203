"""paint.cu on the CPU: a device for CupyKernels whose threads are fibers."""

from __future__ import annotations

import ctypes
import subprocess
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from gpusim.layout import U64Array
from gpusim.pages.cupy_kernels import SOURCE
from tests.compilers import cpp_compiler

HERE = Path(__file__).parent
GARBAGE = 2**64 - 1


@cache
def library(source: str) -> ctypes.CDLL:
    """Compile the kernels of a source text for the CPU."""
    with TemporaryDirectory() as folder:
        return ctypes.CDLL(str(compile_kernels(source, Path(folder))))


def compile_kernels(source: str, folder: Path) -> Path:
    """Compile the kernels of a source text into a folder. Return the library."""
    compiler = cpp_compiler("no g++ to compile the kernels for the CPU with")
    kernels, built = folder / "paint.cu", folder / "shim.so"
    kernels.write_text(source)
    subprocess.run(
        [compiler, "-std=c++17", "-O2", "-Wall", "-Werror", "-Wno-unknown-pragmas",
         "-shared", "-fPIC", f"-I{HERE}", f'-DKERNELS="{kernels}"', str(HERE / "host.cpp"),
         "-o", str(built)],
        check=True,
    )  # fmt: skip
    return built


class ShimDevice:
    """See cupy_kernels.Device. Memory is numpy's, and each launch runs fibers in another order."""

    def __init__(self, source: str | None = None, seed: int = 0) -> None:
        self._library = library(source if source is not None else SOURCE.read_text())
        self._seed = seed
        self._sent = self._host = self.zeros(0)

    def zeros(self, words: int) -> U64Array:
        return np.zeros(words, np.uint64)

    def address(self, array: U64Array, word: int = 0) -> int:
        return int(array.ctypes.data) + 8 * word

    def clear(self, address: int, words: int) -> None:
        ctypes.memset(address, 0, 8 * words)

    def room(self, words: int) -> U64Array:
        self._host = np.full(words, GARBAGE, np.uint64)
        return self._host

    def send(self, words: int) -> int:
        self._sent[:] = GARBAGE  # the old contents must not be read again
        self._sent = self._host[:words].copy()
        return self.address(self._sent)

    def receive(self, address: int, words: int) -> U64Array:
        return np.frombuffer(ctypes.string_at(address, 8 * words), np.uint64).copy()

    def launch(self, kernel: str, blocks: int, threads: int, *arguments: Any) -> None:
        self._seed += 1
        run = getattr(self._library, f"run_{kernel}")
        values = [
            ctypes.c_int(int(one)) if isinstance(one, np.int32) else ctypes.c_void_p(one)
            for one in arguments
        ]
        run(ctypes.c_int(blocks), ctypes.c_int(threads), ctypes.c_uint(self._seed), *values)

    def close(self) -> None:
        self._sent = self._host = self.zeros(0)
