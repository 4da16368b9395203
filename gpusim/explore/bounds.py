"""What a user allows a migration: its total time, downtime, longest stall and the guest's loss."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

from gpusim.engine.records import Summary

ROUNDING = 1e-6  # of a bound: the simulated clock has whole nanoseconds


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """The largest allowed value of each quantity. None: any value.

    Attributes:
        total_time_s: s, from the migrate command to the end.
        downtime_ms: ms in which the guest stands still at the switchover. At a switch to post-copy
            that is postcopy_blackout_ms, which is longer than what QEMU reports.
        longest_vcpu_stall_ms: ms. The longest time in which the throttle keeps a vCPU asleep.
        guest_cpu_lost_percent: percent of the vCPU time, as summary.json has it.
    """

    total_time_s: float | None = None
    downtime_ms: float | None = None
    longest_vcpu_stall_ms: float | None = None
    guest_cpu_lost_percent: float | None = None

    def __bool__(self) -> bool:
        return any(True for _ in self.items())

    def items(self) -> Iterator[tuple[str, float]]:
        """Yield each bound: a field of Summary, and its largest allowed value."""
        for field in fields(self):
            most = getattr(self, field.name)
            if most is not None:
                yield field.name, most

    def excess(self, summary: Summary) -> float:
        """Return the largest share by which a summary exceeds a bound. 0: it keeps all of them.

        Infinite: the migration does not converge.
        """
        if summary.verdict != "converged":
            return float("inf")
        shares = [_excess(value_of(summary, name), most) for name, most in self.items()]
        return max(shares, default=0.0)

    def keeps(self, summary: Summary, name: str) -> bool:
        """Return whether a migration converges within one bound."""
        if summary.verdict != "converged":
            return False
        return _excess(value_of(summary, name), getattr(self, name)) == 0


def _excess(value: float, most: float) -> float:
    """Return the share by which a value exceeds its bound, or 0."""
    return 0.0 if value <= most * (1 + ROUNDING) else value / most - 1


def value_of(summary: Summary, name: str) -> float:
    """Return a number of a migration that converged. What never happened took no time.

    The guest's own downtime counts, and not what the source of a post-copy migration reports.
    """
    value = float(getattr(summary, name) or 0.0)
    return max(value, summary.postcopy_blackout_ms or 0.0) if name == "downtime_ms" else value


NO_BOUNDS = Bounds()
