"""Lets calls of CuPy to CUDA fail, on the played device, and reports what gpusim does then.

`python -m tests.parity.injected` prints one line of JSON per failure. Each failure has a process of
its own, a fork in which the device is new. It runs a small migration on cupy. Then it runs one with
`auto`, as the next job of a sweep does.

`python -m tests.parity.injected commands` reads a list of JSON from standard input, with
`arguments` of gpusim, `failures` as of FAKE_CUDA_FAIL and `environment`. It runs each as a command
of its own and prints its exit code and its output as JSON.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from tempfile import TemporaryFile
from typing import Any

from gpusim import BackendConfig, Config, LinkConfig, VmConfig, WriterConfig, simulate
from gpusim.pages.backends import obstacle
from tests.parity.fake_cuda import Failure, failures_from, machine  # before CuPy

# CUDA's numbers of errors: out of memory, devices unavailable, an illegal address in a kernel.
OUT_OF_MEMORY, BUSY, ILLEGAL_ADDRESS = 2, 46, 700
ALLOCATING = ("cudaMalloc", "cudaHostAlloc", "cuModuleLoadData")


def migration(backend: str) -> Config:
    """Return a migration of one chunk with a few draws and zero pages."""
    return Config(
        vm=VmConfig(memory="64MiB", vcpus=1, zero_percent=10),
        workload=WriterConfig(working_set_percent=50.0, page_writes_per_s=2e4),
        link=LinkConfig(bandwidth="4Gbit/s"),
        backend=BackendConfig(name=backend),
    )


def outcome(backend: str) -> dict[str, Any]:
    """Run a migration. Return its backend, or its error."""
    try:
        summary = simulate(migration(backend)).summary
    except Exception as error:
        text = str(error)
        return {"error": type(error).__name__, "text": text, "lines": len(text.splitlines())}
    return {"backend": summary.backend, "reason": summary.backend_reason}


def start_anew(failures: dict[str, Failure]) -> None:
    """Make this fork a process of its own for the played device."""
    machine.process = os.getpid()
    machine.calls.clear()
    machine.failures = failures


def after(failures: dict[str, Failure] | None) -> dict[str, Any]:
    """Return what a fork of this process does if calls fail.

    Args:
        failures: see Machine. None: the device is not made anew, so it sees a forked process.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        with TemporaryFile() as errors:
            os.dup2(errors.fileno(), 2)  # CuPy's own warnings, and Python's ignored exceptions
            if failures is not None:
                start_anew(failures)
            found = {"cupy": outcome("cupy"), "auto": outcome("auto")}
            found |= {"left_bytes": machine.used(0), "lost": machine.lost}
            sys.stderr.flush()
            errors.seek(0)
            found["printed"] = errors.read().decode()
            found["calls"] = dict(machine.calls)
        os.write(writer, json.dumps(found).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as answer:
        text = answer.read()
    os.waitpid(child, 0)
    answered: dict[str, Any] = json.loads(text)
    return answered


def temporary(name: str) -> int:
    """Return an error of a function that may pass."""
    return OUT_OF_MEMORY if name in ALLOCATING else BUSY


def inject(name: str, failure: Failure) -> None:
    found = after({name: failure})
    del found["calls"]
    print(json.dumps({"name": name, "first": failure.first, "number": failure.error, **found}))


def run_command(arguments: list[str], failures: str, environment: dict[str, str]) -> None:
    """Run gpusim in a fork that ends as Python ends, and print what it did."""
    with TemporaryFile() as output, TemporaryFile() as errors:
        sys.stdout.flush()
        child = os.fork()
        if child == 0:
            os.dup2(output.fileno(), 1)
            os.dup2(errors.fileno(), 2)
            os.environ.update(environment)
            machine.device_bytes = int(environment.get("FAKE_CUDA_BYTES", machine.device_bytes))
            start_anew(failures_from(failures))
            from gpusim.cli.entry import gpusim

            sys.argv = ["gpusim", *arguments]
            sys.exit(gpusim())
        status = os.waitpid(child, 0)[1]
        texts = []
        for file in (output, errors):
            file.seek(0)
            texts.append(file.read().decode())
    code = os.waitstatus_to_exitcode(status)
    print(json.dumps({"code": code, "output": texts[0], "errors": texts[1]}))


def main() -> None:
    """Print what runs without failures do, what a plain fork does, and a line per failure."""
    obstacle("numba")  # loads its kernels once for all forks
    simulate(migration("numba"))
    clean = after({})
    print(json.dumps(clean))
    for name in clean["calls"]:  # while the device is opened and tested
        inject(name, Failure(1, temporary(name)))
    simulate(migration("cupy"))  # the forks now find the device open
    print(json.dumps({"name": "fork", "first": 0, "number": 0, **after(None)}))
    for name, count in after({})["calls"].items():  # during the first run
        for error in (temporary(name), ILLEGAL_ADDRESS):
            inject(name, Failure(max(1, count // 4), error))


def run_commands() -> None:
    """Run the commands of standard input."""
    import gpusim.cli.app  # noqa: F401 - once for all forks

    with suppress(OSError):  # the folder of its cache cannot be made
        import cupy  # noqa: F401

    for command in json.load(sys.stdin):
        run_command(**command)


if __name__ == "__main__":
    run_commands() if sys.argv[1:] == ["commands"] else main()
