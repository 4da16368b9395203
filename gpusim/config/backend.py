"""Where the bitmaps of a checked scenario go: the device, and whether they fit its free memory.

This is the only step between a config and a run that asks the machine. It takes no memory.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from gpusim.config.checks import reject
from gpusim.config.scenario import Scenario
from gpusim.pages import backends
from gpusim.pages.obstacles import BackendError
from gpusim.units import format_bytes


@dataclass(frozen=True)
class Backend:
    """The device that holds the bitmaps of a run.

    Attributes:
        name: one of backends.BACKENDS, or backends.EXPECTED for a run without bitmaps.
        reason: why this one, for people.
        threads: CPU threads over chunks.
    """

    name: str
    reason: str
    threads: int

    @property
    def too_many_threads(self) -> str:
        """A warning for people if there are more threads than cores, else ""."""
        return too_many_threads("backend.threads", self.threads)


def too_many_threads(key: str, threads: int) -> str:
    """Return a warning for people if there are more threads than cores, or ""."""
    cores = len(os.sched_getaffinity(0))
    if threads <= cores:
        return ""
    return f"{key} = {threads}: this machine has {cores} cores, so more threads only cost time"


EXPECTED = Backend(backends.EXPECTED, reason="expected shares of pages, no bitmaps", threads=1)


def choose_backend(scenario: Scenario) -> Backend:
    """Return the backend for a scenario, and ask whether its bitmaps fit free memory.

    Raises:
        ConfigError: the named backend is not available, or the bitmaps do not fit.
    """
    config, name = scenario.config, scenario.config.backend.name
    bitmap_bytes = max(attempt.bitmap_bytes for attempt in scenario.attempts)
    draw_bytes = max(attempt.draw_bytes for attempt in scenario.attempts)
    try:
        chosen, reason = backends.choose(name, bitmap_bytes, draw_bytes)
    except BackendError as error:
        if not error.too_big:
            hint = f"is not available here: {error}. You can also set backend=auto"
            reject("backend.name", name, hint, "backend_not_available")
        backend_name = "numpy" if name == "auto" else name
        largest = backends.largest_bytes(backend_name, scenario.vm_bytes, bitmap_bytes, draw_bytes)
        hint = f"{error}. The largest VM that fits has {format_bytes(largest)}"
        if scenario.tracking.lazy:
            hint += ". With tracking=kvm_legacy one bitmap fewer is needed"
        reject("vm.memory", config.vm.memory, hint, "does_not_fit_memory")
    threads = config.backend.threads or len(os.sched_getaffinity(0))
    return Backend(chosen, reason, threads)
