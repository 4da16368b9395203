"""QEMU's migration parameters, as numbers (migration/options.c; defaults are config.py's)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """One migration's parameters.

    Attributes:
        max_bandwidth, avail_switchover_bandwidth: bytes a second; 0: unlimited, as measured.
        fallback_sync_interval_ns: None: there is no fallback sync. Not a parameter of QEMU's.
    """

    auto_converge: bool
    max_bandwidth: int
    downtime_limit_ms: int
    avail_switchover_bandwidth: int
    throttle_trigger_threshold: int
    cpu_throttle_initial: int
    cpu_throttle_increment: int
    cpu_throttle_tailslow: bool
    max_cpu_throttle: int
    fallback_sync_interval_ns: int | None
