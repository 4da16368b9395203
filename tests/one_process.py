"""Runs the work of a process pool in this process. Starting a process of a pool takes 1.4 s of CPU.

pytest-xdist already keeps all cores busy, so a pool saves no time. Calls and results are pickled, as
for a real pool.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from typing import Any

PLACES = ("gpusim.explore.workers.processes", "gpusim.explore.run_pool.processes")


class OneProcess(Executor):
    """Runs each call at once."""

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        done: Future[Any] = Future()
        function, args, kwargs = pickle.loads(pickle.dumps((function, args, kwargs)))
        try:
            done.set_result(pickle.loads(pickle.dumps(function(*args, **kwargs))))
        except Exception as error:
            copied = pickle.loads(pickle.dumps(error))
            copied.__cause__ = error  # has the traceback
            done.set_exception(copied)
        return done


@contextmanager
def one_process(count: int) -> Iterator[Executor]:
    """Yield an executor in place of `gpusim.explore.workers.processes`."""
    yield OneProcess()
