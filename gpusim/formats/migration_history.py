"""What an earlier migration of a VM shows: how it ended, and what its syncs found.

A profile may hold both. This module does not know recordings, nor how a guest is fitted to syncs.
"""

from __future__ import annotations

from dataclasses import dataclass

from gpusim.shapes import Flag, Keys, Number, Whole

OUTCOME = Keys(
    required={"completed": Flag(), "seconds": Number(0, 1e9, " s", above=True)},
    optional={
        "max_throttle_percent": Whole(0, 99, " %"),
        "bytes_per_s": Number(0, 1e15, " bytes/s"),
    },
    defaults={"max_throttle_percent": 0, "bytes_per_s": 0.0},
    refuse_others=True,
    allowed="must have completed (true or false) and seconds, and may have max_throttle_percent "
    "and bytes_per_s",
)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How an earlier migration of the VM ended, with the profile's parameters and capabilities.

    Attributes:
        completed: whether it completed.
        seconds: time until it completed. If it did not complete: time until it was cancelled or
            until the recording ended.
        max_throttle_percent: the highest throttle, percent.
        bytes_per_s: the rate on the link, bytes per second. 0: unknown.
    """

    completed: bool
    seconds: float
    max_throttle_percent: int = 0
    bytes_per_s: float = 0.0


@dataclass(frozen=True, kw_only=True)
class SyncPeriod:
    """The time from one sync of an earlier migration to the next one.

    Attributes:
        seconds: length.
        pages: newly dirty pages that the sync at its end found.
        left: share of the pages that were dirty after the sync before and still waited to be sent
            at its end, 0 to 1.
        running: share of it in which no throttle held the vCPUs, 0 to 1.
        deviation_s: standard deviation of `seconds`, because syncs lie between samples.
        counts: whether it is a measurement of the profile.
    """

    seconds: float
    pages: int
    left: float
    running: float = 1.0
    deviation_s: float = 0.0
    counts: bool = True


@dataclass(frozen=True, kw_only=True)
class SyncHistory:
    """All syncs of an earlier migration, and how its log of writes was cleared.

    Attributes:
        periods: in order. The first one is the first pass, in which all pages wait.
        chunks: pieces of memory whose log is cleared one after the other during a pass. 1: all at
            once.
        first_pass: for each chunk of the first pass: its share of the pages that are not zero, and
            for which share of the pass it was watched.
    """

    periods: tuple[SyncPeriod, ...]
    chunks: int = 1
    first_pass: tuple[tuple[float, float], ...] = ((1.0, 1.0),)

    @property
    def is_throttled(self) -> bool:
        """Return whether a throttle held the vCPUs in a period that counts."""
        return any(one.running < 1 for one in self.periods if one.counts)
