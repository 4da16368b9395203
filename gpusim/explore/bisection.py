"""Bisection over an ordered list of values: find the first value that is enough.

The class knows neither the values nor how a value is tried. It numbers the values (steps) from the
hardest to the easiest. The caller tries the step that `next_step` names and records the result.
"""

from __future__ import annotations


class Bisection:
    """The state of one bisection.

    Assumes monotonicity: if a step is enough, then every later step is enough, unless a try shows
    otherwise.

    Attributes:
        steps: the number of steps.
        tried: step -> whether the step is enough.
        gave_up: a step could not be tried, so the search asks for no more tries.

    Args:
        steps: the number of steps.
        start: the first step to try.
        stride: length of the first leap from `start`, in steps. Every further leap doubles the
            distance until the result changes. Then the interval is halved. None: halve at once
            and try no extra step.
        extra: in the end one more step is tried, so many steps before the last failing step. None:
            one `stride`.
    """

    def __init__(
        self, steps: int, start: int, stride: int | None = None, *, extra: int | None = None
    ) -> None:
        self.tried: dict[int, bool] = {}
        self.gave_up = False
        self.steps, self._start, self._stride = steps, start, stride
        self._extra = stride if extra is None else extra

    @property
    def last_failing(self) -> int:
        """Return the last tried step that is not enough, or -1."""
        return max((step for step, enough in self.tried.items() if not enough), default=-1)

    @property
    def best(self) -> int | None:
        """Return the first tried step that is enough and has no later failing step."""
        low = self.last_failing
        return min(
            (step for step, enough in self.tried.items() if enough and step > low), default=None
        )

    @property
    def exceptions(self) -> list[int]:
        """Return the steps that are enough although a later step is not."""
        return sorted(
            step for step, enough in self.tried.items() if enough and step < self.last_failing
        )

    @property
    def is_finished(self) -> bool:
        """Return whether the step before `best` is known to fail, or no such step exists."""
        return self.last_failing + 1 == self._high

    @property
    def _high(self) -> int:
        return self.steps if self.best is None else self.best

    def next_step(self) -> int | None:
        """Return the step to try now. None: the search is over."""
        if self.gave_up:
            return None
        if self.is_finished:
            step = self.last_failing - (self._extra or self.steps)
            return step if step >= 0 and all(tried > step for tried in self.tried) else None
        if self._start not in self.tried:
            return self._start
        low, high = self.last_failing, self._high
        if self._stride is not None:
            leap = max(self._stride, 2 * abs((low if low >= self._start else high) - self._start))
            if low >= self._start:
                step = min(self._start + leap, self.steps - 1)
            else:
                step = max(self._start - leap, 0)
            if low < step < high:
                return step
        return (low + 1 + high) // 2

    def restart_at(self, start: int, stride: int) -> None:
        """Start at another step with another stride, and try no extra step in the end."""
        self._start, self._stride, self._extra = start, stride, None

    def record(self, step: int, is_enough: bool | None) -> None:
        """Record the result of a try.

        Args:
            step: the step that was tried.
            is_enough: None: the step could not be tried.
        """
        if is_enough is None:
            self.gave_up = True
        else:
            self.tried[step] = is_enough
