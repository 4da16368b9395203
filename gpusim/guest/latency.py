"""How late a sleeping thread wakes: random delays under the run's seed.

The delay of one wake-up is exponential. A caller that needs many wake-ups in a row draws their mean
at once, so the cost does not grow with their number.
"""

from __future__ import annotations

from gpusim.stream import Stream

MOST_DRAWN = 256  # wake-ups of one mean. The mean of more is drawn as if there were so many


class WakeupLatency:
    """Draws the delays of one kind of thread.

    Args:
        mean_ns: mean delay. 0: no delay, and no draw.
        stream: draws the delays. None: no delay.
    """

    def __init__(self, mean_ns: int = 0, stream: Stream | None = None) -> None:
        self.mean_ns = mean_ns
        self._stream = stream if mean_ns else None

    def draw_ns(self, wakeups: int = 1) -> int:
        """Return the mean delay of a number of wake-ups in a row, in whole ns.

        The sum of n exponential delays has the gamma distribution of shape n. The draw adds up n
        delays, which gives exactly this distribution.
        """
        if self._stream is None:
            return 0
        count = min(max(wakeups, 1), MOST_DRAWN)
        return round(self.mean_ns * float(self._stream.exponential(count).mean()))
