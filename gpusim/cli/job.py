"""One run of the command: from a Config to files in a folder, or to the plan of a dry run.

Owns what happens around `simulate`: the progress bar, the log, what an error leads to, and which
folder stays. It knows neither Hydra nor the rules of a migration.
"""

from __future__ import annotations

import logging
import math
import os
import shlex
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, NoReturn

from tqdm import tqdm

from gpusim.config.backend import choose_backend
from gpusim.config.run_hash import run_hash
from gpusim.config.scenario import resolve
from gpusim.config.schema import Config
from gpusim.engine.attempts import simulate_scenario
from gpusim.engine.evacuation import Host
from gpusim.engine.reasons import TEXTS_WITH_VERDICT
from gpusim.engine.records import (
    EvacuationProgress,
    EvacuationSummary,
    Observer,
    Progress,
    Summary,
)
from gpusim.errors import ConfigError, is_installed
from gpusim.explore.alternatives import alternatives
from gpusim.explore.dry_run import plan, sending
from gpusim.explore.workers import map_in_order
from gpusim.files import alone_in
from gpusim.results import (
    begin_run,
    whole_evacuation,
    whole_run,
    write_evacuation,
    write_failure,
    write_run,
)
from gpusim.units import format_bytes

log = logging.getLogger(__name__)

EXIT_FAILED, EXIT_CONFIG, EXIT_INTERRUPTED = 1, 2, 130  # 128 + SIGINT

_HYDRAS_OWN = {".hydra", "gpusim.log"}
_BAR = "{percentage:3.0f}% |{bar:20}| {desc} [{elapsed}]"


def attempt(
    make_config: Callable[[], Config], folder: Path, *, alone: bool, quiet: bool = False
) -> float | list[float] | None:
    """`run`, with every error turned into what a user of the command shall see.

    Args:
        make_config: may raise ConfigError too.
        folder: of the run; made already, and removed where nothing was written.
        alone: not a job of a sweep. A job of a sweep that fails leaves a summary saying so, and
            never raises SystemExit, which would end the jobs after it.
        quiet: as `run` has it.

    Returns:
        What `run` does, or None where a job of a sweep failed.

    Raises:
        SystemExit: interrupted, a config that cannot be simulated, or out of memory.
        Exception: any other error of a lone run, once its summary is written.
    """
    fresh, config = holds_no_results(folder), None
    try:
        os.utime(folder)  # a sweep's report tells by this which jobs are its own
        config = make_config()
        return run(config, folder, again=alone, quiet=quiet)
    except KeyboardInterrupt:
        discard(folder, fresh)
        sweep = shlex.quote(os.path.relpath(folder.parent))
        hint = "" if alone else f"; start it again with hydra.sweep.dir={sweep} to go on"
        stop(f"interrupted{hint}", EXIT_INTERRUPTED)
    except ConfigError as error:
        if alone:
            discard(folder, fresh)
            stop(error, EXIT_CONFIG)
        if config is not None and config.dry_run:
            discard(folder, fresh)
            print(f"error: {folder.name}: {error}", file=sys.stderr)
        else:
            _record(error, folder, config)
    except MemoryError as error:
        _record(error, folder, config)
        if alone:
            stop(f"out of memory ({error or 'no details'}): use a smaller VM", EXIT_FAILED)
    except Exception as error:
        _record(error, folder, config)
        if alone:
            raise
    return None


def attempt_many(
    points: Iterable[tuple[Config | ConfigError, Path]], *, workers: int = 1
) -> Iterator[float | list[float] | None]:
    """`attempt`, as of a sweep's jobs and quietly, for many.

    Args:
        points: each with a config, or why there is none, and a folder, which is made if missing.
        workers: processes, as `simulate_many` has them.

    Yields:
        what `attempt` returns, in order.
    """
    return map_in_order(_attempt_one, points, workers, _lost)


def _attempt_one(point: tuple[Config | ConfigError, Path]) -> float | list[float] | None:
    config, folder = point

    def make_config() -> Config:
        if isinstance(config, ConfigError):
            raise config
        return config

    folder.mkdir(parents=True, exist_ok=True)
    return attempt(make_config, folder, alone=False, quiet=True)


def _lost(point: tuple[Config | ConfigError, Path], _: Exception) -> None:
    config, folder = point
    error = ChildProcessError("its process was killed, as it is when memory runs out")
    _record(error, folder, None if isinstance(config, ConfigError) else config)


def _record(error: Exception, folder: Path, config: Config | None) -> None:
    """Leave the error in the run's folder, unless the same run is there; a full disk may forbid it."""
    if config is not None and _there(config, folder, run_hash(config), plot=False) is not None:
        print(f"error: {folder.name}: {error}; what was there stays", file=sys.stderr)
        return
    try:
        write_failure(error, folder, config)
    except OSError as why:
        print(f"error: {folder}: {error}; nor can that be written: {why}", file=sys.stderr)


def stop(message: object, code: int) -> NoReturn:
    """End the command with one line on standard error."""
    print("error:", " ".join(str(message).split()), file=sys.stderr)
    sys.exit(code)


def run(
    config: Config, folder: Path, *, again: bool = True, quiet: bool = False
) -> float | list[float]:
    """Simulate and write the results; or, for a dry run, print the plan and leave nothing.

    Args:
        again: compute even what is there already, whole and with the same hash.
        quiet: no progress bar, no log, nothing printed; one of many.

    Returns:
        The objective's numbers, one as a float; 0 for a dry run.

    Raises:
        ConfigError: before memory is taken or a file is written.
    """
    check_wishes(config.objective, plot=config.plot, evacuates=config.evacuation is not None)
    if config.dry_run:
        print(plan(config))
        discard(folder, holds_no_results(folder))
        return 0.0
    identity = run_hash(config)
    migrate = _migrate if config.evacuation is None else _evacuate
    with alone_in(folder):  # two jobs of a sweep may be the same run
        there = None if again else _there(config, folder, identity, plot=config.plot)
        if there is not None:
            if not quiet:
                log.info(f"there already, of the same version and the same config: {folder}")
            return _objective(config.objective, there)
        summary, headline = migrate(config, folder, identity, quiet)
    if not quiet:
        log.info(f"backend {summary.backend} ({summary.backend_reason})")
        verdict = (summary.verdict or summary.status).replace("_", " ")
        names_verdict = summary.reason_code in TEXTS_WITH_VERDICT
        log.info(summary.reason if names_verdict else f"{verdict}: {summary.reason}")
        log.info(headline)
        print(folder)
    return _objective(config.objective, vars(summary))


def _migrate(config: Config, folder: Path, identity: str, quiet: bool) -> tuple[Summary, str]:
    """Simulate one migration and write its results; its outcome, also in one line."""
    scenario = resolve(config)
    backend = choose_backend(scenario)  # an error up to here leaves earlier results in place
    begin_run(config, folder)
    with _progress_bar(quiet) as observe:
        result = simulate_scenario(scenario, backend, observe=observe)
    tried = None
    if config.plot and result.summary.verdict in ("not_converged", "time_limit"):
        try:
            tried = alternatives(config, scenario)
        except Exception:  # what has been simulated is worth more than what might have helped
            log.exception("what would have made it converge could not be found out")
    summary = result.summary
    attempts = scenario.attempts
    if not quiet:
        if scenario.link.threads_bandwidth < scenario.link.bandwidth < math.inf:
            log.info(f"sent by {sending(scenario.link)}")
        for number, attempt in enumerate(result.before, start=1):
            log.info(f"attempt {number} of {len(attempts)}: {attempt.result.summary.reason}")
        if len(attempts) > 1:
            log.info(f"attempt {summary.attempt} of {len(attempts)}, whose results these are:")
        for action in result.actions_not_done:
            log.warning(f"not done before the migration ended: {action.text}")
    settings = asdict(attempts[summary.attempt - 1].config)
    write_run(
        result, folder, plot=config.plot, config=settings, alternatives=tried, run_hash=identity
    )
    return summary, headline(summary)


def _evacuate(
    config: Config, folder: Path, identity: str, quiet: bool
) -> tuple[EvacuationSummary, str]:
    """The same of the evacuation of a host."""
    host = Host(config)  # as resolve does above
    begin_run(config, folder)
    with tqdm(disable=quiet or None, bar_format=_BAR, miniters=0, total=100) as bar:

        def observe(progress: EvacuationProgress) -> None:
            done = f"{progress.ended} of {progress.guests} guests"
            bar.set_description_str(f"{progress.time_s:.0f} s simulated, {done}", refresh=False)
            bar.update(100 * progress.ended / progress.guests - bar.n)

        evacuation = host.evacuate(observe)
    write_evacuation(evacuation, folder, plot=config.plot, run_hash=identity)
    summary = evacuation.summary
    return summary, (
        f"guest CPU lost {summary.guest_cpu_lost_s:.0f} vCPU s, throttle up to "
        f"{summary.max_throttle_percent} %, {format_bytes(summary.transferred_bytes)} sent, "
        f"{summary.simulated_runs} migrations simulated in {summary.wall_time_s:.1f} s"
    )


def _there(config: Config, folder: Path, identity: str, *, plot: bool) -> dict[str, Any] | None:
    """The summary of the same run, if it is there and whole."""
    whole = whole_run if config.evacuation is None else whole_evacuation
    return whole(folder, identity, plot=plot)


def check_wishes(objective: list[str], *, plot: bool, evacuates: bool) -> None:
    """Check what a run is asked to leave and to return, which has nothing to do with what it is.

    Raises:
        ConfigError: matplotlib is missing, or the objective is no number of the summary.
    """
    if plot and not is_installed("matplotlib"):
        hint = "needs matplotlib; install gpusim's extra: pip install '.[plot]', or set plot=false"
        raise ConfigError("plot", plot, hint)
    summary = EvacuationSummary if evacuates else Summary
    numbers = [
        field.name for field in fields(summary) if str(field.type).startswith(("int", "float"))
    ]
    if not objective or set(objective) - set(numbers):
        raise ConfigError("objective", objective, f"must be a list of {', '.join(numbers)}")


def _objective(objective: list[str], summary: Mapping[str, Any]) -> float | list[float]:
    found = [summary[name] if summary["verdict"] == "converged" else None for name in objective]
    values = [math.inf if value is None else float(value) for value in found]
    return values[0] if len(values) == 1 else values


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
def _progress_bar(quiet: bool) -> Iterator[Observer]:
    """A bar on a terminal, nothing elsewhere."""
    advance = Completion()
    with tqdm(disable=quiet or None, bar_format=_BAR, miniters=0, total=100) as bar:

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
