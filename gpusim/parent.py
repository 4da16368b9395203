"""A process that gpusim starts never outlives the process that started it.

Owns how the kernel learns that two processes belong together. It works however the parent ends, and
while the child computes without ever returning to Python. It knows nothing of pools and of QEMU.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from functools import partial

PR_SET_PDEATHSIG = 1  # linux/prctl.h
_prctl = ctypes.CDLL(None).prctl  # a forked child must not load it


def die_with(parent: int) -> None:
    """Let the kernel kill this process when its parent ends.

    The kernel means the thread that started this process. That thread must live as long as the
    work is wanted.

    Args:
        parent: process id. If this process has another parent by now, then it ends at once.

    Source: prctl(2), PR_SET_PDEATHSIG.
    """
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # the parent ended before prctl took effect
        os._exit(1)


def die_with_me() -> Callable[[], None]:
    """Return a `preexec_fn` for subprocess: the child dies with this process."""
    return partial(die_with, os.getpid())


def become_worker() -> None:
    """Prepare a process of a pool: it dies with its parent, and leaves an interrupt to it.

    tqdm's own lock is a semaphore of the system, which a killed process leaves behind. A worker gets
    a lock that belongs to its process.
    """
    from tqdm import tqdm

    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    parent = multiprocessing.parent_process()
    assert parent is not None and parent.pid is not None, "runs in a process of a pool only"
    die_with(parent.pid)
    tqdm.set_lock(threading.RLock())
