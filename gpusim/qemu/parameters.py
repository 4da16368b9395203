"""QEMU's migration parameters as numbers.

Source: migration/options.c [7.2 to 11.1]. Defaults are in the config.
"""

from __future__ import annotations

from dataclasses import dataclass

# The largest values that QEMU accepts. Source: migration/options.c:migrate_params_check.
MOST_DOWNTIME_LIMIT_MS = 2_000_000
MOST_MULTIFD_CHANNELS = 255


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """The parameters of one migration.

    Attributes:
        auto_converge: the capability auto-converge.
        max_bandwidth: bytes per second. 0: unlimited.
        downtime_limit_ms: the downtime limit.
        avail_switchover_bandwidth: bytes per second. 0: QEMU uses the measured bandwidth.
        throttle_trigger_threshold: percent of the sent bytes. A period that dirties more is high.
        cpu_throttle_initial, cpu_throttle_increment, max_cpu_throttle: percent.
        cpu_throttle_tailslow: take smaller steps if they are enough.
        fallback_sync_interval_ns: interval of the fallback timer. None: there is no such timer.
            QEMU has no parameter for it.
        max_postcopy_bandwidth: bytes per second after the switch to post-copy. 0: unlimited.
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
    max_postcopy_bandwidth: int = 0
