"""The limit of a run, by the wall clock or by work. Long loops check it between two steps."""

from __future__ import annotations

import time
from collections.abc import Callable


class WallLimitReachedError(Exception):
    """The time of a run is over. Nothing that it left half done is read again."""


class WallLimit:
    """A limit that starts now.

    Args:
        limit_ns: how long. None: no limit.
        now_ns: returns the wall clock. None: the machine's. Tests pass one that counts calls.
        most_checks: how many checks at most, a bound that is the same on every machine. None: any.

    Attributes:
        limit_ns: how long. None: no limit.
        started_ns: the wall clock when it started.
    """

    def __init__(
        self,
        limit_ns: int | None,
        now_ns: Callable[[], int] | None = None,
        most_checks: int | None = None,
    ) -> None:
        self._checks_left = most_checks
        self.limit_ns, self._now_ns = limit_ns, now_ns or time.monotonic_ns
        self.started_ns = self._now_ns()

    def check(self) -> None:
        """Return while there is time.

        Raises:
            WallLimitReachedError: the time or the work is over.
        """
        if self._checks_left is not None:
            self._checks_left -= 1
            if self._checks_left < 0:
                raise WallLimitReachedError
        if self.limit_ns is not None and self._now_ns() - self.started_ns > self.limit_ns:
            raise WallLimitReachedError


NO_LIMIT = WallLimit(None)
