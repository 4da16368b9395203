"""Starts commands of gpusim fast: a server imports gpusim once, and each command is a fork of it.

Most of a start is imports, 1.5 s of CPU. A fork has its own folder, environment, streams and session,
and ends as Python ends. tests/cli/test_entry.py, test_wheel.py and test_orphans.py start commands anew.
"""

from __future__ import annotations

import atexit
import functools
import gc
import importlib.util
import json
import os
import select
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

REPOSITORY = Path(__file__).parents[2]
IMPORTED = ("gpusim.cli.app", "gpusim.cli.collect", "gpusim.cli.predict")
MOST_BYTES = 2**17  # of a request: arguments, environment and code
ANSWER_BYTES = 8  # a process id by the fork, then an exit code by the server
SERVER = "from tests.cli.forked import serve; exec(serve())"


class Forked:
    """A command that runs, as subprocess.Popen has it. It leads a session of its own.

    Args:
        code: Python code of its `__main__`.
        arguments: sys.argv without the program.
        cwd: its folder.
        stdout, stderr: files for its streams. None: dropped.
    """

    def __init__(
        self,
        code: str,
        arguments: Sequence[str],
        *,
        cwd: Path,
        stdout: IO[bytes] | None = None,
        stderr: IO[bytes] | None = None,
    ) -> None:
        request = {"code": code, "arguments": arguments, "cwd": str(cwd), "env": dict(os.environ)}
        reader, writer = os.pipe()
        self._answers = os.fdopen(reader, "rb", buffering=0)
        with open(os.devnull, "r+b") as null, os.fdopen(writer):
            files = [null.fileno(), (stdout or null).fileno(), (stderr or null).fileno(), writer]
            socket.send_fds(_server(), [json.dumps(request).encode()], files)
        self.pid = int(self._answers.read(ANSWER_BYTES))
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Return the exit code, or None while the command runs."""
        return self.returncode if self._ended(0) else None

    def wait(self, timeout: float) -> int:
        """Return the exit code.

        Raises:
            TimeoutExpired: the command still runs after `timeout` seconds.
        """
        if not self._ended(timeout):
            raise subprocess.TimeoutExpired("a command", timeout)
        assert self.returncode is not None
        return self.returncode

    def kill(self) -> None:
        """End the command, if it has not ended."""
        if self.poll() is None:
            os.kill(self.pid, 9)

    def _ended(self, timeout: float) -> bool:
        if self.returncode is None and select.select([self._answers], [], [], timeout)[0]:
            self.returncode = int(self._answers.read(ANSWER_BYTES))
            self._answers.close()
        return self.returncode is not None


@functools.cache
def _server() -> socket.socket:
    """Start the server of this process."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    path = [*filter(None, [os.environ.get("PYTHONPATH")]), str(REPOSITORY)]
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-c", SERVER, str(theirs.fileno())],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path)},
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )

    def end() -> None:
        ours.close()
        process.wait()

    atexit.register(end)
    return ours


def serve() -> str:
    """Fork for each request until the tests end. Return the code to run, in a fork."""
    from gpusim import BackendConfig, Config, VmConfig, WriterConfig, simulate
    from gpusim.config.compose import composed_config

    for module in IMPORTED:
        importlib.import_module(module)
    if importlib.util.find_spec("numba") is not None:  # its kernels take 0.5 s to load
        backend = BackendConfig(name="numba", threads=1)
        writer = WriterConfig(working_set_percent=10.0, page_writes_per_s=1e4)
        simulate(Config(vm=VmConfig(memory="64MiB"), workload=writer, backend=backend))
    with suppress(Exception):  # what a command then tells. The import asks no GPU
        importlib.import_module("cupy")
    composed_config([])  # Hydra imports every plugin that is installed
    gc.freeze()  # a fork that ends does not look through all modules
    requests = socket.socket(fileno=int(sys.argv[1]))
    running: dict[int, tuple[int, int]] = {}  # by pidfd: process id, and where its end is awaited
    while True:
        for ready in select.select([requests, *running], [], [])[0]:
            if ready in running:
                pid, answers = running.pop(ready)
                _, status = os.waitpid(pid, 0)
                _answer(answers, os.waitstatus_to_exitcode(status))
                os.close(answers)
                os.close(ready)
                continue
            message, files, _, _ = socket.recv_fds(requests, MOST_BYTES, 4)
            if not message:
                return ""
            pid = os.fork()
            if pid == 0:
                return _become_command(json.loads(message), files)
            for number in files[:3]:
                os.close(number)
            running[os.pidfd_open(pid)] = pid, files[3]


def _answer(answers: int, number: int) -> None:
    """Write a number into a pipe, unless the test has ended."""
    with suppress(BrokenPipeError):
        os.write(answers, f"{number:{ANSWER_BYTES}}".encode())


def _become_command(request: dict, files: list[int]) -> str:
    """Take over what a request asks for, and return its code."""
    os.setsid()
    _answer(files[3], os.getpid())
    for number, file in enumerate(files[:3]):
        os.dup2(file, number)
    os.closerange(3, 1024)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    sys.argv[1:] = request["arguments"]
    return request["code"]
