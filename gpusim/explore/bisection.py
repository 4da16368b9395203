"""A ladder of values, the hardest first: which to try next, to find the first that is enough.

It knows neither what a value is nor how it is tried; whoever asks tells it what came of a try.
"""

from __future__ import annotations


class Ladder:
    """What one step achieves the steps behind it are taken to achieve too, until a try tells otherwise.

    Attributes:
        steps: how many there are.
        tried: of each step that was tried, whether it is enough.
        given_up: a try did not end, so nothing more is asked for.

    Args:
        start: the first to try.
        stride: from there on it goes in leaps, this long and then twice as long, until a step answers
            otherwise; what lies between is then halved. At last it looks one such leap beyond what is not
            enough, whether that is too much to ask as well. None: it halves at once, and looks no further.
    """

    def __init__(self, steps: int, start: int, stride: int | None = None) -> None:
        self.tried: dict[int, bool] = {}
        self.given_up = False
        self.steps, self._start, self._stride, self._beyond = steps, start, stride, stride

    @property
    def too_hard(self) -> int:
        """The last step that was tried and is not enough; -1: none."""
        return max((step for step, enough in self.tried.items() if not enough), default=-1)

    @property
    def found(self) -> int | None:
        """The first step from which on all that was tried is enough; None: none is."""
        low = self.too_hard
        return min(
            (step for step, enough in self.tried.items() if enough and step > low), default=None
        )

    @property
    def exceptions(self) -> list[int]:
        """Steps that are enough although one behind them is not."""
        return sorted(
            step for step, enough in self.tried.items() if enough and step < self.too_hard
        )

    @property
    def finished(self) -> bool:
        """Whether the step before `found`, if there is one, is known not to be enough."""
        return self.too_hard + 1 == self._high

    @property
    def _high(self) -> int:
        return self.steps if self.found is None else self.found

    def next(self) -> int | None:
        """The step to try now; None: there is none."""
        if self.given_up:
            return None
        if self.finished:
            step = self.too_hard - (self._beyond or self.steps)
            return step if step >= 0 and all(tried > step for tried in self.tried) else None
        if self._start not in self.tried:
            return self._start
        low, high = self.too_hard, self._high
        if self._stride is not None:
            leap = max(self._stride, 2 * abs((low if low >= self._start else high) - self._start))
            if low >= self._start:
                step = min(self._start + leap, self.steps - 1)
            else:
                step = max(self._start - leap, 0)
            if low < step < high:
                return step
        return (low + 1 + high) // 2

    def begin_at(self, start: int, stride: int) -> None:
        """Begin where a ladder like it ended, with leaps of another length, and look beyond nothing."""
        self._start, self._stride, self._beyond = start, stride, None

    def tell(self, step: int, enough: bool | None) -> None:
        """What came of a try; None: it did not end."""
        if enough is None:
            self.given_up = True
        else:
            self.tried[step] = enough
