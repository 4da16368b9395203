"""Does the cupy backend run through the real CuPy, on the played device of fake_cuda.py?"""

from __future__ import annotations

import json
import re
import shutil
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any

import pytest

from tests.parity.played import REPOSITORY, run_python

ONE_LINE = ("ConfigError", "DeviceError", "MemoryError")  # that gpusim shows on one line
LOST = "look at nvidia-smi and dmesg"
TINY = ("experiment=tiny", "plot=false")

pytestmark = pytest.mark.slow
PLAY = "import tests.parity.fake_cuda"
LASTING = range(700, 730)  # errors of kernels, see fake_cuda.py
SUITE = (
    "-m",
    "pytest",
    "-p",
    "tests.parity.fake_cuda",
    "-p",
    "no:cacheprovider",
    "-m",
    "gpu",
    "-q",
)


# Tests of free memory, and of what `auto` chooses, in the process and in commands.
ORDINARY = (
    "tests/pages/test_backends.py",
    "tests/cli/test_bad_input.py",
    "tests/engine/evacuation/test_bad_input.py",
    "tests/parity/test_bare_machine.py",
)


@pytest.mark.parametrize(
    ("late", "folder", "chosen"),
    [("1", "tests", "not 2_to_the_3"), ("0", "tests/parity", "clear")],
)
def test_the_gpu_suite_passes(late: str, folder: str, chosen: str) -> None:
    """All of it with work of the stream as late as possible, and a part with work at once."""
    done = run_python(*SUITE, folder, "-k", chosen, FAKE_CUDA_LATE=late, GPUSIM_REQUIRE_GPU="1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "passed" in done.stdout


def test_ordinary_tests_pass_on_a_machine_with_a_gpu(tmp_path: Path) -> None:
    """A few that may assume that there is none. CONTRIBUTING.md has the command for all tests."""
    done = run_python(
        "-m", "pytest", "-p", "tests.parity.played.everywhere", "-p", "no:cacheprovider", "-q",
        *ORDINARY, "-k", "backend or memory or really_used",
        FAKE_CUDA_LOG=f"{tmp_path}/log", GPUSIM_REQUIRE_GPU="1",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    allocations = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert len({one["pid"] for one in allocations}) > 1  # the tests' process, and a command


def test_a_wheel_without_a_symbol_table_is_one_line(tmp_path: Path) -> None:
    """The played device cannot find the CUDA runtime in it."""
    folder = tmp_path / "cupy_backends/cuda/api"
    folder.mkdir(parents=True)
    (tmp_path / "cupy_backends/__init__.py").touch()
    stripped = folder / f"runtime{EXTENSION_SUFFIXES[0]}"
    shutil.copy(shutil.which("true") or "/bin/true", stripped)  # Debian strips its programs
    done = run_python("-c", PLAY, site=tmp_path)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert stripped.name in done.stderr
    assert "symbol table" in done.stderr


@pytest.mark.parametrize(
    "before", ["import platform; platform.machine = lambda: 'aarch64'", "import cupy"]
)
def test_where_no_device_can_be_played_is_one_line(before: str) -> None:
    done = run_python("-c", f"{before}; {PLAY}", site=REPOSITORY)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert "fake_cuda: " in done.stderr


def commands(*wanted: dict[str, Any], **environment: str) -> list[dict[str, Any]]:
    """Run commands of gpusim, see injected.py."""
    default = {"failures": "", "environment": {}}
    text = json.dumps([default | command for command in wanted])
    done = run_python("-m", "tests.parity.injected", "commands", stdin=text, **environment)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_every_call_may_fail() -> None:
    """gpusim shows one line and frees its memory. The next run with `auto` passes cupy over."""
    done = run_python("-m", "tests.parity.injected", GPUSIM_AUDIT="")
    assert done.returncode == 0, done.stderr
    clean, *rows = (json.loads(line) for line in done.stdout.splitlines())
    assert clean["cupy"]["backend"] == clean["auto"]["backend"] == "cupy"
    assert not clean["left_bytes"]
    assert not clean["printed"]
    (forked,) = (row for row in rows if row["name"] == "fork")
    rows.remove(forked)
    assert "forked" in forked["cupy"]["text"]
    assert forked["auto"]["backend"] == "numba"
    assert set(clean["calls"]) == {row["name"] for row in rows}
    assert len(clean["calls"]) >= 16
    for row in rows:
        cupy, auto = row["cupy"], row["auto"]
        for one in (cupy, auto):
            assert "backend" in one or (one["error"] in ONE_LINE and one["lines"] == 1), row
        if row["name"] in ("cudaFree", "cudaFreeHost"):
            assert cupy["backend"] == "cupy", row  # CuPy only prints that it could not free
            continue
        assert not row["printed"], row
        assert "backend" not in cupy, row
        if cupy["error"] == "MemoryError":
            assert not row["left_bytes"], row
            continue
        assert auto["backend"] == "numba", row
        assert "not cupy: the GPU" in auto["reason"], row
        if row["lost"] in LASTING:
            assert LOST in cupy["text"], row
            assert "backend=numba" in cupy["text"], row


def test_planted_faults_are_noticed() -> None:
    """A missing synchronize, a wrong order of arguments, a wrong size, a freed buffer."""
    done = run_python("-m", "tests.parity.planted")
    assert done.returncode == 0, done.stderr
    none, *faults = (json.loads(line) for line in done.stdout.splitlines())
    assert none == {"fault": "none", "noticed": ""}
    assert len(faults) > 20
    assert [one["fault"] for one in faults if not one["noticed"]] == []


def test_a_command_without_a_usable_gpu_prints_one_line(tmp_path: Path) -> None:
    """Also at the end of Python, when CuPy frees its memory and unloads the kernels."""
    run = [*TINY, "backend=cupy", f"hydra.run.dir={tmp_path}/run"]
    cases: list[tuple[dict[str, Any], int, str]] = [
        ({"failures": "kernel:12:700"}, 1, LOST),
        ({"failures": "kernel:1:700"}, 2, LOST),
        ({"failures": "cuModuleGetFunction:2:700"}, 2, LOST),
        ({"failures": "cudaMalloc:6:2"}, 1, "out of memory (GPU: "),
        ({"environment": {"CUDA_VISIBLE_DEVICES": "-1"}}, 2, "there is no GPU"),
        ({"environment": {"CUPY_GPU_MEMORY_LIMIT": "1000000"}}, 2, "of GPU memory is free"),
    ]  # fmt: skip
    found = commands(*({"arguments": run, **case} for case, _, _ in cases))
    for (case, code, line), done in zip(cases, found, strict=True):
        assert done["code"] == code, (case, done)
        assert line in done["errors"], (case, done)
        assert len(done["errors"].splitlines()) == 1, (case, done)


def test_a_cache_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    """As in a container whose HOME is read-only. CuPy makes the folder when it is imported."""
    (tmp_path / "file").touch()
    run = {"arguments": [*TINY, "backend=cupy", f"hydra.run.dir={tmp_path}/run"]}
    (done,) = commands(run, CUPY_CACHE_DIR=f"{tmp_path}/file/cache")
    assert done["code"] == 2
    assert "CUPY_CACHE_DIR to a folder that can be written" in done["errors"]
    assert len(done["errors"].splitlines()) == 1, done


def test_a_sweep_goes_on_without_its_gpu(tmp_path: Path) -> None:
    """The device is lost in the third of six jobs. A second start computes only that job."""
    seeds = range(1, 7)
    sweep = [*TINY, "-m", "seed=range(1,7)", "backend=auto", f"hydra.sweep.dir={tmp_path}"]
    (first,) = commands({"arguments": sweep, "failures": "kernel:50:700"})
    files = [tmp_path / f"tiny,seed={seed}/summary.json" for seed in seeds]
    found = [json.loads(file.read_text()) for file in files]
    assert first["code"] == 3, first
    assert [one.get("backend") for one in found] == ["cupy"] * 2 + [None] + ["numba"] * 3
    assert all("not cupy: the GPU failed" in one["backend_reason"] for one in found[3:])
    assert found[2]["error"].startswith("DeviceError: ")
    assert not re.search(r"^(error|warning|Traceback)", first["errors"], re.MULTILINE), first
    assert [line for line in first["output"].splitlines() if LOST in line] == [
        line for line in first["output"].splitlines() if line.startswith("tiny,seed=3")
    ]
    written = [file.stat().st_mtime_ns for file in files]
    (second,) = commands({"arguments": sweep})
    assert second["code"] == 0, second
    again = [file.stat().st_mtime_ns for file in files]
    assert [one != other for one, other in zip(written, again, strict=True)] == [
        seed == 3 for seed in seeds
    ]
    assert json.loads(files[2].read_text())["backend"] == "cupy"


def test_the_report_of_a_gpu_runs_to_its_end(tmp_path: Path) -> None:
    """The report of a played device is marked as such."""
    report = tmp_path / "gpu.json"
    done = run_python("-m", "gpusim.bench", "--gpu-report", str(report), "--quick", GPUSIM_AUDIT="")
    assert done.returncode == 0, done.stderr
    found = json.loads(report.read_text())
    assert found["is_played"]
    assert found["is_quick"]
    assert "1 passed" in found["tests"]
    assert [run["left_out"] for run in found["runs"]] == [""] * 4
    assert all(run["draws"] for run in found["runs"])
    assert {row["backend"] for row in found["primitives"]} == {"cupy"}
    text = report.with_suffix(".md").read_text()
    assert "A CPU played the GPU" in text
    assert text in done.stdout


def test_the_time_of_the_host_is_measured() -> None:
    """The command of docs/explanation/performance.md, with a tenth of one case and few repeats."""
    few = "host_time.REPEATS = 4; host_time.CASES = {'lazy': ['tracking=kvm_manual', 'vm.memory=1TB']}"
    done = run_python("-c", f"from tests.parity import host_time; {few}; host_time.main()")
    assert done.returncode == 0, done.stderr
    assert re.search(r"^\| lazy \| 233 \| [1-9]\d* \| [1-9]\d* \|$", done.stdout, re.MULTILINE)
