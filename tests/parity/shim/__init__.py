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


@cache
def library(source: str) -> ctypes.CDLL:
    """Compile the kernels of a source text for the CPU."""
    compiler = cpp_compiler("no g++ to compile the kernels for the CPU with")
    with TemporaryDirectory() as folder:
        kernels, built = Path(folder) / "paint.cu", Path(folder) / "shim.so"
        kernels.write_text(source)
        subprocess.run(
            [compiler, "-std=c++17", "-O2", "-Wall", "-Werror", "-Wno-unknown-pragmas",
             "-shared", "-fPIC", f"-I{HERE}", f'-DKERNELS="{kernels}"', str(HERE / "host.cpp"),
             "-o", str(built)],
            check=True,
        )  # fmt: skip
        return ctypes.CDLL(str(built))


class ShimDevice:
    """See cupy_kernels.Device. Memory is numpy's, and each launch runs fibers in another order."""

    def __init__(self, source: str | None = None, seed: int = 0) -> None:
        self._library = library(source if source is not None else SOURCE.read_text())
        self._seed = seed
        self._uploaded = self.zeros(1)

    def zeros(self, words: int) -> U64Array:
        return np.zeros(words, np.uint64)

    def clear(self, array: U64Array) -> None:
        array[:] = 0

    def upload(self, words: U64Array) -> U64Array:
        self._uploaded[:] = 2**64 - 1  # the old contents must not be read again
        self._uploaded = words.copy()
        return self._uploaded

    def download(self, array: U64Array) -> U64Array:
        return array.copy()

    def launch(self, kernel: str, blocks: int, threads: int, *arguments: Any) -> None:
        self._seed += 1
        run = getattr(self._library, f"run_{kernel}")
        values = [self._value(argument) for argument in arguments]
        run(ctypes.c_int(blocks), ctypes.c_int(threads), ctypes.c_uint(self._seed), *values)

    def close(self) -> None:
        self._uploaded = self.zeros(0)

    @staticmethod
    def _value(argument: Any) -> Any:
        if isinstance(argument, np.int32):
            return ctypes.c_int(int(argument))
        return ctypes.c_void_p(
            argument.ctypes.data if isinstance(argument, np.ndarray) else argument
        )
