"""How late a sleeping thread wakes: random delays under the run's seed.

The delay of one wake-up is exponential. A caller that needs many wake-ups in a row draws their mean
at once, so the cost does not grow with their number.
"""

from __future__ import annotations

import numpy as np

MOST_DRAWN = 256  # wake-ups of one mean. The mean of more is drawn as if there were so many


class WakeupLatency:
    """Draws the delays of one kind of thread.

    Args:
        mean_ns: mean delay. 0: no delay, and no draw.
        seed: of the run.
        stream: number of the kind of thread. Each kind has its own random numbers.
    """

    def __init__(self, mean_ns: int = 0, seed: int = 0, stream: int = 0) -> None:
        self.mean_ns = mean_ns
        self._bits = np.random.Philox(key=[seed, stream]) if mean_ns else None

    def draw_ns(self, wakeups: int = 1) -> int:
        """Return the mean delay of a number of wake-ups in a row, in whole ns.

        The sum of n exponential delays has the gamma distribution of shape n. The draw adds up n
        delays, which gives exactly this distribution.
        """
        if self._bits is None:
            return 0
        count = min(max(wakeups, 1), MOST_DRAWN)
        uniform = ((self._bits.random_raw(count) >> np.uint64(11)) + 0.5) * 2.0**-53
        return round(self.mean_ns * float(-np.log(uniform).mean()))
