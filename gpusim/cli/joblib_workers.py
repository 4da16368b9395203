"""Worker processes of joblib that die with the sweep, however it ends.

joblib starts them, and asks the backend that is registered as "loky" how. Hydra's launcher names it.
"""

from __future__ import annotations

import signal
from typing import Any

from joblib.parallel import LokyBackend, register_parallel_backend

from gpusim.command import ENDING
from gpusim.parent import become_worker


def _become_worker() -> None:
    """Prepare a worker. It leaves every signal to its parent, which ends it with SIGKILL.

    A worker that a signal ends in the middle of a result lets joblib wait for the rest forever.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    become_worker()


class _Backend(LokyBackend):  # type: ignore[misc]
    """joblib's own backend. Its workers prepare themselves before their first job."""

    def configure(self, *arguments: Any, **named: Any) -> Any:
        """Choose the number of workers."""
        return super().configure(*arguments, initializer=_become_worker, **named)

    def submit(self, *arguments: Any, **named: Any) -> Any:
        """Start a job, and perhaps a worker. The worker inherits that signals are blocked."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
        try:
            return super().submit(*arguments, **named)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def register() -> None:
    """Let joblib use this backend in this process."""
    register_parallel_backend("loky", _Backend)
