"""One run of the command: from a Config to files in a folder, or to the plan of a dry run.

Owns what happens around `simulate`: the progress bar, the log, what an error leads to, and which
folder stays. It knows neither Hydra nor the rules of a migration.
"""

from __future__ import annotations

import importlib.util
import logging
import math
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from tqdm import tqdm

from gpusim.config import Config, ConfigError
from gpusim.evacuation import evacuate
from gpusim.plan import plan
from gpusim.records import EvacuationProgress, Observer, Progress, Summary
from gpusim.results import write_evacuation, write_failure, write_run
from gpusim.results.files import SUMMARY
from gpusim.simulation import simulate
from gpusim.units import format_bytes

log = logging.getLogger(__name__)

EXIT_FAILED, EXIT_CONFIG, EXIT_INTERRUPTED = 1, 2, 130  # 128 + SIGINT

_HYDRAS_OWN = {".hydra", "gpusim.log"}
_BAR = "{percentage:3.0f}% |{bar:20}| {desc} [{elapsed}]"


def attempt(make_config: Callable[[], Config], folder: Path, *, alone: bool) -> float:
    """`run`, with every error turned into what a user of the command shall see.

    Args:
        make_config: may raise ConfigError too.
        folder: of the run; made already, and removed where nothing was written.
        alone: not a job of a sweep. A job of a sweep that fails leaves a summary saying so, and
            never raises SystemExit, which would end the jobs after it.

    Returns:
        What `run` does, or NaN where a job of a sweep failed.

    Raises:
        SystemExit: interrupted, a config that cannot be simulated, or out of memory.
        Exception: any other error of a lone run, once its summary is written.
    """
    fresh = holds_no_results(folder)
    try:
        return run(make_config(), folder)
    except KeyboardInterrupt:
        discard(folder, fresh)
        _stop("interrupted", EXIT_INTERRUPTED)
    except ConfigError as error:
        if alone:
            discard(folder, fresh)
            _stop(error, EXIT_CONFIG)
        write_failure(error, folder)
    except MemoryError as error:
        write_failure(error, folder)
        if alone:
            _stop(f"out of memory ({error or 'no details'}): use a smaller VM", EXIT_FAILED)
    except Exception as error:
        write_failure(error, folder)
        if alone:
            raise
    return math.nan


def _stop(message: object, code: int) -> NoReturn:
    print("error:", " ".join(str(message).split()), file=sys.stderr)
    sys.exit(code)


def run(config: Config, folder: Path) -> float:
    """Simulate and write the results; or, for a dry run, print the plan and leave nothing.

    Returns:
        Simulated seconds of the migration; 0 for a dry run.

    Raises:
        ConfigError: before memory is taken or a file is written.
    """
    if config.dry_run:
        print(plan(config))
        discard(folder, holds_no_results(folder))
        return 0.0
    if config.plot and importlib.util.find_spec("matplotlib") is None:
        hint = "needs matplotlib; install gpusim's extra: pip install '.[plot]', or set plot=false"
        raise ConfigError("plot", config.plot, hint)
    (folder / SUMMARY).unlink(missing_ok=True)  # an earlier run's: this one is not whole yet
    if config.evacuation is not None:
        return _run_evacuation(config, folder)
    with _progress_bar() as observe:
        result = simulate(config, observe=observe)
    write_run(result, folder, plot=config.plot)
    log.info(f"backend {result.summary.backend} ({result.summary.backend_reason})")
    log.info(result.summary.reason)
    log.info(headline(result.summary))
    print(folder)
    return result.summary.total_time_s


def _run_evacuation(config: Config, folder: Path) -> float:
    """Simulate the evacuation of a host and write what it leaves; its simulated seconds."""
    with tqdm(disable=None, bar_format=_BAR, miniters=0, total=100) as bar:

        def observe(progress: EvacuationProgress) -> None:
            state = (
                f"{progress.time_s:.0f} s simulated, {progress.ended} of {progress.guests} guests"
            )
            bar.set_description_str(state, refresh=False)
            bar.update(100 * progress.ended / progress.guests - bar.n)

        evacuation = evacuate(config, observe=observe)
    write_evacuation(evacuation, folder, plot=config.plot)
    summary = evacuation.summary
    log.info(f"backend {summary.backend} ({summary.backend_reason})")
    log.info(summary.reason)
    log.info(
        f"guest CPU lost {summary.guest_cpu_lost_s:.0f} vCPU s "
        f"({summary.guest_cpu_lost_percent:.1f} %), throttle up to {summary.max_throttle_percent} %, "
        f"{format_bytes(summary.transferred_bytes)} sent, {summary.simulated_runs} migrations "
        f"simulated in {summary.wall_time_s:.1f} s"
    )
    print(folder)
    return summary.total_time_s


def headline(summary: Summary) -> str:
    """The result in one line."""
    downtime = "" if summary.downtime_ms is None else f", downtime {summary.downtime_ms:.0f} ms"
    return (
        f"{summary.total_time_s:.1f} s{downtime}, {summary.dirty_sync_count} syncs "
        f"({summary.fallback_sync_count} fallback), throttle up to "
        f"{summary.max_throttle_percent} %, {format_bytes(summary.transferred_bytes)} sent, "
        f"guest CPU lost {summary.guest_cpu_lost_percent:.1f} %, "
        f"computed in {summary.wall_time_s:.1f} s"
    )


def holds_no_results(folder: Path) -> bool:
    """Whether only Hydra has written here: the folder is this run's own."""
    return folder != Path.cwd() and {path.name for path in folder.iterdir()} <= _HYDRAS_OWN


def discard(folder: Path, fresh: bool) -> None:
    """Remove the folder Hydra made, and what is empty of outputs/DATE above it.

    Args:
        folder: of the run.
        fresh: it held no results when the run began; another one is left as it is.
    """
    if not fresh:
        return
    shutil.rmtree(folder, ignore_errors=True)
    outputs = Path.cwd() / "outputs"
    for parent in folder.parents:
        if not parent.is_relative_to(outputs) or any(parent.iterdir()):
            return
        parent.rmdir()


class Completion:
    """How far a migration is, in percent; it never goes back.

    The first pass is the first half, by what is sent of it. The second half is how far the smallest
    remaining after a sync has fallen since the first pass, as convergence means that it falls to
    nothing; it stands still while the migration gets nowhere.
    """

    def __init__(self) -> None:
        self.percent = 0.0
        self._syncs = 0
        self._at_first_bytes = 0

    def to(self, progress: Progress) -> float:
        """Percent gained since the last call."""
        before = self.percent
        left = 1.0
        if progress.dirty_sync_count <= 1:  # QEMU counts the sync of the setup
            left = 0.5 + 0.5 * progress.remaining_bytes / progress.total_bytes
        elif progress.dirty_sync_count != self._syncs:
            self._at_first_bytes = self._at_first_bytes or max(progress.remaining_bytes, 1)
            left = 0.5 * progress.remaining_bytes / self._at_first_bytes
        self._syncs = progress.dirty_sync_count
        self.percent = max(before, 100 * (1 - left))
        return self.percent - before


@contextmanager
def _progress_bar() -> Iterator[Observer]:
    """A bar on a terminal, nothing elsewhere."""
    advance = Completion()
    with tqdm(disable=None, bar_format=_BAR, miniters=0, total=100) as bar:

        def observe(progress: Progress) -> None:
            state = (
                f"{progress.time_s:.0f} s simulated, {format_bytes(progress.remaining_bytes)} "
                f"left, throttle {progress.cpu_throttle_percentage} %, "
                f"{progress.dirty_sync_count} syncs"
            )
            bar.set_description_str(state, refresh=False)
            bar.update(advance.to(progress))

        yield observe
        bar.update(100 - advance.percent)  # the run is over, whatever its verdict
