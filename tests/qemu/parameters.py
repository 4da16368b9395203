"""QEMU's default parameters for the tests of its rules.

Source: migration/options.c [10.1].
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from gpusim.qemu.parameters import Parameters

DEFAULTS = Parameters(
    auto_converge=True,
    max_bandwidth=134_217_728,
    downtime_limit_ms=300,
    avail_switchover_bandwidth=0,
    throttle_trigger_threshold=50,
    cpu_throttle_initial=20,
    cpu_throttle_increment=10,
    cpu_throttle_tailslow=False,
    max_cpu_throttle=99,
    fallback_sync_interval_ns=None,
)


def parameters(**changes: Any) -> Parameters:
    """Return the defaults with changes."""
    return replace(DEFAULTS, **changes)
