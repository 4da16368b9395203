"""Does paint.cu compile for every GPU, and does the shim find lost barriers?"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gpusim.layout import CHUNK_SHIFT, CHUNK_WORDS
from gpusim.pages import cupy_kernels, draw
from gpusim.pages.budget import Budget
from gpusim.pages.cupy_kernels import SOURCE, CupyKernels
from gpusim.pages.draw import Cells
from gpusim.pages.primitives import Op, Step
from tests.compilers import missing
from tests.parity.devices import NO_POOL, load, need, random_cells, random_words, state
from tests.parity.shim import ShimDevice

ARCHITECTURES = (75, 80, 86, 89, 90, 100, 120)
TEXT = SOURCE.read_text()
BARRIER = "__syncthreads();\n"


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_nvrtc_compiles_every_kernel_without_spills(architecture: int) -> None:
    """NVRTC needs no GPU. CUDA 13 supports all these architectures, and 12.8 added 120."""
    try:
        from cupy.cuda import nvrtc

        program = nvrtc.createProgram(TEXT, "paint.cu", [], [])
    except Exception as error:
        missing(f"no CuPy or no NVRTC: {type(error).__name__}: {error}")
        raise
    nvrtc.compileProgram(program, (f"-arch=sm_{architecture}", "-std=c++17", "--ptxas-options=-v"))
    log = nvrtc.getProgramLog(program)
    assert nvrtc.getCUBIN(program)
    assert set(re.findall(r"entry function '(\w+)'", log)) == {"paint", "take"}
    spills = re.findall(r"(\d+) bytes spill stores, (\d+) bytes spill loads", log)
    assert spills == [("0", "0")] * 2, log
    registers = [int(used) for used in re.findall(r"Used (\d+) registers", log)]
    assert max(registers) <= 64, log  # take has 1024 threads with 64 registers each


def constant(name: str) -> int:
    """Return the value of a #define of paint.cu."""
    match = re.search(rf"#define {name} (?:\(1 << )?(0x[0-9A-Fa-f]+|\d+)", TEXT)
    assert match, name
    return int(match[1], 0)


def test_the_source_and_python_agree() -> None:
    """Both contain sizes, the hash, the codes of Op, and the packing of a cell."""
    assert constant("CHUNK_SHIFT") == CHUNK_SHIFT
    assert [constant(n) for n in ("GOLDEN", "MIX1", "MIX2")] == [draw.GOLDEN, draw.MIX1, draw.MIX2]
    assert [constant(op.name) for op in Op] == list(Op)
    assert constant("PAINT_THREADS") == cupy_kernels.PAINT_THREADS
    assert constant("TAKE_THREADS") == cupy_kernels.TAKE_THREADS
    assert constant("INVERTED") == 1 << cupy_kernels.INVERTED_BIT
    assert constant("COUNT_SHIFT") == cupy_kernels.COUNT_SHIFT


def test_numba_and_python_agree() -> None:
    """numba caches compiled code by its file alone, so the file must contain the constants."""
    need("numba")
    from gpusim.pages import numba_kernels as ours

    assert (ours.GOLDEN, ours.MIX1, ours.MIX2) == (draw.GOLDEN, draw.MIX1, draw.MIX2)
    assert (ours.CHUNK_SHIFT, ours.CHUNK_WORDS) == (CHUNK_SHIFT, CHUNK_WORDS)
    assert (ours.CLEAR_LOG, ours.MERGE_LOG, ours.ZERO) == (Op.CLEAR_LOG, Op.MERGE_LOG, Op.ZERO)
    text = Path(ours.__file__).read_text()
    imported = " ".join(re.findall(r"^from gpusim.* import (.*)$", text, re.MULTILINE))
    assert not re.search(r"\b[A-Z]+_?[A-Z0-9]+\b", imported), imported


def test_tiles_are_written_by_atomics_where_cells_may_meet() -> None:
    """The shim cannot find a missing atomic, because nothing interrupts a fiber."""
    halves = [line for line in TEXT.splitlines() if "halves[" in line]
    assert len(halves) == 4
    assert all(re.search(r"atomic(Or|And)\(&halves\[", line) for line in halves)
    assert "atomicAdd(&total, counts)" in TEXT


def mask_of(op: Op) -> Cells | None:
    return random_cells(4, 9, cells_a_chunk=8) if op is Op.ZERO else None


def worked(source: str | None, seed: int) -> list[np.ndarray]:
    """Return bitmaps and counts after draws and takes, with fibers in a seeded order."""
    kernels = CupyKernels(4, log=True, zero=True, device=ShimDevice(source, seed))
    for number, bitmap in enumerate((kernels.dirty, kernels.log, kernels.zero)):
        load(bitmap, random_words(4, number))
    steps = [
        Step(
            op, random_cells(4, 3 + op, cells_a_chunk=(3, 40, 12, 5)[op]), np.arange(4), mask_of(op)
        )
        for op in Op
    ]
    found = [np.concatenate(counts) for counts in kernels.paint(steps)]
    taken = [
        kernels.clear_in_chunk(chunk, 70, [Budget(70_000 + chunk, 1, 1)]) for chunk in range(2)
    ]
    return [*found, np.array(taken), *state(kernels, 4)]


def equal(ours: list[np.ndarray], theirs: list[np.ndarray]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_the_order_of_threads_does_not_matter() -> None:
    first = worked(None, 1)
    assert all(equal(worked(None, seed), first) for seed in (2, 3))


@pytest.mark.parametrize("barrier", range(TEXT.count(BARRIER)))
def test_a_missing_barrier_is_found(barrier: int) -> None:
    """Without any one barrier of paint.cu, some order of the threads gives other bits."""
    parts = TEXT.split(BARRIER)
    planted = BARRIER.join(parts[: barrier + 1]) + ";\n" + BARRIER.join(parts[barrier + 1 :])
    assert planted.count(BARRIER) == TEXT.count(BARRIER) - 1
    right = worked(None, 1)
    assert any(not equal(worked(planted, seed), right) for seed in range(1, 6))


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.parametrize("tool", ["memcheck", "racecheck"])
def test_compute_sanitizer_finds_nothing(tool: str) -> None:
    """It runs on the primitives on a device. The exit status is 9 if it finds an error."""
    need("cupy")
    sanitizer = shutil.which("compute-sanitizer")
    if sanitizer is None:
        pytest.skip("compute-sanitizer, of the CUDA toolkit, is not on the path")
    suite = Path(__file__).with_name("test_primitives.py")
    done = subprocess.run(
        [sanitizer, "--tool", tool, "--error-exitcode", "9", sys.executable, "-m", "pytest", "-q",
         "-m", "gpu", str(suite), "-k", "merge or clear or fill or small"],
        capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2],
        env={**os.environ, NO_POOL: "1"},
    )  # fmt: skip
    if "Device not supported" in done.stdout:
        pytest.skip("compute-sanitizer does not support this device")
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
