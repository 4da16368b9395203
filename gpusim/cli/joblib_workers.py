"""Worker processes of joblib that die with the sweep, however it ends.

joblib starts them, and asks the backend that is registered as "loky" how. Hydra's launcher names it.
"""

from __future__ import annotations

import atexit
import fcntl
import itertools
import os
import shutil
import signal
from collections.abc import Sequence
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, ClassVar

from joblib.parallel import LokyBackend, register_parallel_backend

from gpusim.command import ENDING
from gpusim.parent import become_worker


def _become_worker(folder: str | None, gpus: Sequence[str]) -> None:
    """Prepare a worker. It leaves every signal to its parent, which ends it with SIGKILL.

    A worker that a signal ends in the middle of a result lets joblib wait for the rest forever.

    Args:
        folder: where workers claim GPUs. None: the worker sees all of them.
        gpus: the GPUs, as CUDA_VISIBLE_DEVICES names them.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    become_worker()
    if folder is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = _claim_gpu(Path(folder), gpus)


def _claim_gpu(folder: Path, gpus: Sequence[str]) -> str:
    """Return a GPU for this process. Others get it only if there are more processes than GPUs.

    The lock of a place ends with the process, so a worker that replaces it gets the same GPU.
    """
    for place in itertools.count():
        lock = os.open(folder / str(place), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            continue
        return gpus[place % len(gpus)]  # the lock stays open
    raise AssertionError


class _Backend(LokyBackend):  # type: ignore[misc]
    """joblib's own backend. Its workers prepare themselves before their first job.

    Attributes:
        claims: the arguments of `_become_worker`.
    """

    claims: ClassVar[tuple[str | None, Sequence[str]]] = (None, ())

    def configure(self, *arguments: Any, **named: Any) -> Any:
        """Choose the number of workers."""
        return super().configure(
            *arguments, initializer=_become_worker, initargs=self.claims, **named
        )

    def submit(self, *arguments: Any, **named: Any) -> Any:
        """Start a job, and perhaps a worker. The worker inherits that signals are blocked."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
        try:
            return super().submit(*arguments, **named)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def register(gpus: Sequence[str] = ()) -> None:
    """Let joblib use this backend in this process.

    Args:
        gpus: GPUs that the workers share, one for each. Empty: each worker sees all.
    """
    if gpus:
        folder = mkdtemp(prefix="gpusim-gpus-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        _Backend.claims = (folder, tuple(gpus))
    register_parallel_backend("loky", _Backend)
