"""The progress bar of a run: how far a migration or an evacuation is, in percent."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm

from gpusim.engine.records import EvacuationProgress, Observer, Progress
from gpusim.units import format_bytes

_FORMAT = "{percentage:3.0f}% |{bar:20}| {desc} [{elapsed}]"


class Completion:
    """How far a migration is, in percent. It never goes back.

    The first half is the first pass, by what the pass has sent. The second half is how far the
    smallest remaining memory after a sync has fallen since the first pass. It stands still while
    the migration stalls.
    """

    def __init__(self) -> None:
        self.percent = 0.0
        self._syncs = 0
        self._first_remaining_bytes = 0

    def advance(self, progress: Progress) -> float:
        """Return the percent gained since the last call."""
        before = self.percent
        left = 1.0
        if progress.is_first_pass:
            left = 0.5 + 0.5 * progress.remaining_bytes / progress.total_bytes
        elif progress.bitmap_sync_count != self._syncs:
            if not self._first_remaining_bytes:
                self._first_remaining_bytes = max(progress.remaining_bytes, 1)
            left = 0.5 * progress.remaining_bytes / self._first_remaining_bytes
        self._syncs = progress.bitmap_sync_count
        self.percent = max(before, 100 * (1 - left))
        return self.percent - before


@contextmanager
def migration_bar(quiet: bool) -> Iterator[Observer]:
    """Yield an observer that draws a bar on a terminal, and nothing elsewhere."""
    completion = Completion()
    with tqdm(disable=quiet or None, bar_format=_FORMAT, miniters=0, total=100) as bar:

        def observe(progress: Progress) -> None:
            state = (
                f"{progress.time_s:.0f} s simulated, {format_bytes(progress.remaining_bytes)} "
                f"left, throttle {progress.cpu_throttle_percentage} %, "
                f"{progress.bitmap_sync_count} syncs"
            )
            bar.set_description_str(state, refresh=False)
            bar.update(completion.advance(progress))

        yield observe
        bar.update(100 - completion.percent)  # the run is over, with any verdict


@contextmanager
def evacuation_bar(quiet: bool) -> Iterator[Callable[[EvacuationProgress], None]]:
    """Yield an observer of an evacuation. It counts the guests whose migration has ended."""
    with tqdm(disable=quiet or None, bar_format=_FORMAT, miniters=0, total=100) as bar:

        def observe(progress: EvacuationProgress) -> None:
            guests = f"{progress.ended} of {progress.guests} guests"
            bar.set_description_str(f"{progress.time_s:.0f} s simulated, {guests}", refresh=False)
            bar.update(100 * progress.ended / progress.guests - bar.n)

        yield observe
