"""One run of the command: from a config to files in a folder, or to the plan of a dry run.

Owns what happens around a simulation: the log, the consequence of an error, and which folder
stays. It knows neither Hydra nor the rules of a migration.
"""

from __future__ import annotations

import errno
import json
import logging
import math
import os
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gpusim.cli.dry_run_text import plan_text
from gpusim.cli.output import NORMAL, SILENT, Output
from gpusim.cli.run_folder import discard, holds_no_results
from gpusim.cli.run_progress import evacuation_bar, migration_bar
from gpusim.cli.run_text import attempt_lines, outcome_lines, start_lines
from gpusim.command import interruption
from gpusim.config.backend import choose_backend
from gpusim.config.run_hash import run_hash
from gpusim.config.scenario import resolve
from gpusim.config.schema import Config
from gpusim.config.types import checked
from gpusim.engine.attempts import simulate_scenario
from gpusim.engine.evacuation import Host
from gpusim.engine.records import EvacuationSummary, Summary
from gpusim.errors import ConfigError, install_command, is_installed, one_line
from gpusim.explore.alternatives import alternatives
from gpusim.explore.dry_run import make_plan
from gpusim.explore.workers import map_in_order
from gpusim.files import alone_in
from gpusim.qemu.rules import RuleError
from gpusim.results import (
    begin_run,
    read_summary,
    whole_evacuation,
    whole_run,
    write_evacuation,
    write_failure,
    write_run,
)
from gpusim.results.summary_fields import EVACUATION_FIELDS, RUN_FIELDS

log = logging.getLogger(__name__)
result_log = logging.getLogger("gpusim.result")  # on standard output

AsTyped = Callable[[ConfigError], ConfigError]
DISK_IS_FULL = (errno.ENOSPC, errno.EDQUOT)
Objective = float | list[float]


def run_job(
    make_config: Callable[[], Config],
    folder: Path,
    *,
    alone: bool,
    output: Output = NORMAL,
    as_typed: AsTyped | None = None,
) -> Objective | None:
    """Run one job. Leave whole results, or a summary that says why there are none, or nothing.

    Args:
        make_config: may raise ConfigError too.
        folder: of the run. It exists, and is removed if nothing was written.
        alone: not a job of a sweep. A job of a sweep that fails leaves a summary that says so. It
            raises none of its own errors, because this would end the jobs after it.
        output: what is printed.
        as_typed: shows the value of an error as the user typed it.

    Returns:
        The objective, or None if a job of a sweep failed.

    Raises:
        KeyboardInterrupt: the run leaves nothing.
        ConfigError: of a lone run, which leaves nothing.
        OSError: a lone run finds the disk full. It leaves nothing.
        Exception: any other error of a lone run, after its summary is written.
    """
    is_new, config = holds_no_results(folder), None
    try:
        os.utime(folder)  # a sweep's report recognises its own jobs by this time
        config = make_config()
        try:
            return run_config(config, folder, again=alone, output=output)
        except ConfigError as error:
            shown = as_typed(error) if as_typed else error
            if shown is error:
                raise
            raise shown from None  # not even a traceback shows the value
    except KeyboardInterrupt as error:
        _forget(folder, is_new, error, alone=alone)
        raise
    except (ConfigError, RuleError) as error:
        is_dry = config is not None and config.dry_run
        if is_dry or (alone and isinstance(error, ConfigError)):  # no simulation began
            discard(folder, is_new)
        else:
            _record_error(error, folder, config)
        if alone:
            raise
        if is_dry:
            print(f"error: {folder.name}: {error}", file=sys.stderr)
    except Exception as error:
        interrupt = interruption(error)
        if interrupt is not None:
            _forget(folder, is_new, interrupt, alone=alone)
            raise interrupt from None
        if alone and isinstance(error, OSError) and error.errno in DISK_IS_FULL:
            discard(folder, is_new)
            raise
        _record_error(error, folder, config)
        if alone:
            raise
    return None


def _forget(folder: Path, is_new: bool, interrupt: KeyboardInterrupt, *, alone: bool) -> None:
    """Remove what an interrupted run has written. Say how to continue a sweep."""
    discard(folder, is_new)
    if not alone:
        add_hint(interrupt, folder.parent)


def add_hint(interrupt: KeyboardInterrupt, sweep: Path) -> None:
    """Let the error of an interrupted sweep say how to continue, once."""
    if not getattr(interrupt, "__notes__", ()):
        folder = shlex.quote(os.path.relpath(sweep))
        interrupt.add_note(f"Start it again with hydra.sweep.dir={folder} to continue")


def run_jobs(
    points: Iterable[tuple[Config | ConfigError, Path, AsTyped | None]], *, workers: int = 1
) -> Iterator[Objective | None]:
    """Run the jobs of a sweep quietly, in this process or in several.

    Args:
        points: of each job its config, or the error in its place, its folder, and what shows the
            value of an error as the user typed it, or None.
        workers: number of processes, as for `simulate_many`.

    Yields:
        What `run_job` returns, in order.
    """
    return map_in_order(_run_point, points, workers, _record_lost)


def _run_point(point: tuple[Config | ConfigError, Path, AsTyped | None]) -> Objective | None:
    config, folder, as_typed = point

    def make_config() -> Config:
        if isinstance(config, ConfigError):
            raise config
        return config

    folder.mkdir(parents=True, exist_ok=True)
    return run_job(make_config, folder, alone=False, output=SILENT, as_typed=as_typed)


def _record_lost(point: tuple[Config | ConfigError, Path, AsTyped | None], _: Exception) -> None:
    config, folder, _as_typed = point
    error = ChildProcessError("its process was killed, which happens when memory runs out")
    _record_error(error, folder, None if isinstance(config, ConfigError) else config)


def _record_error(error: Exception, folder: Path, config: Config | None) -> None:
    """Leave the error in the run's folder, unless the folder holds the same run already."""
    if config is not None and _earlier_summary(config, folder, run_hash(config), plot=False):
        print(f"error: {folder.name}: {error}. The earlier results stay", file=sys.stderr)
        return
    try:
        write_failure(error, folder, config)
    except OSError as reason:
        print(f"error: {folder}: {error}. It cannot be written: {reason}", file=sys.stderr)


def run_config(
    config: Config, folder: Path, *, again: bool = True, output: Output = NORMAL
) -> Objective:
    """Simulate and write the results. A dry run prints its plan and leaves nothing.

    Args:
        config: what to simulate.
        folder: where to write.
        again: simulate even if the folder holds the complete results of the same run.
        output: what is printed.

    Returns:
        The objective's numbers, or a float if it is one number. A dry run returns 0.

    Raises:
        ConfigError: before gpusim takes memory or writes a file.
    """
    config = checked(config, Config)
    check_output_keys(config.objective, plot=config.plot, evacuates=config.evacuation is not None)
    if config.dry_run:
        print(plan_text(make_plan(config)))
        discard(folder, holds_no_results(folder))
        return 0.0
    identity = run_hash(config)
    run = _run_migration if config.evacuation is None else _run_evacuation
    with alone_in(folder):  # two jobs of a sweep may be the same run
        earlier = None if again else _earlier_summary(config, folder, identity, plot=config.plot)
        if earlier is not None:
            if output.has_log:
                log.info(f"already computed with the same version and config: {folder}")
            return _objective(config.objective, earlier)
        summary = run(config, folder, identity, output)
    _show(summary, folder, output)
    return _objective(config.objective, vars(summary))


def _show(summary: Summary | EvacuationSummary, folder: Path, output: Output) -> None:
    if output.has_log:
        log.info(f"backend {summary.backend} ({summary.backend_reason})")
        shown = result_log if output.shows == "text" else log
        for line in outcome_lines(summary):
            shown.info(line)
    if output.shows == "summary":
        print(summary_line(folder, read_summary(folder)))
    elif output.shows != "nothing":
        print(folder)


def summary_line(folder: Path, summary: Mapping[str, Any]) -> str:
    """Return the summary of a run as JSON on one line, with the folder."""
    return json.dumps({"folder": str(folder.absolute()), **summary})


def _run_migration(config: Config, folder: Path, identity: str, output: Output) -> Summary:
    scenario = resolve(config)
    backend = choose_backend(scenario)  # an error up to here leaves earlier results in place
    if backend.too_many_threads and output.has_log:
        log.warning(backend.too_many_threads)
    if output.has_log:
        for line in start_lines(scenario):
            log.info(line)
    begin_run(config, folder)
    with migration_bar(not output.has_bar) as observe:
        result = simulate_scenario(scenario, backend, observe=observe)
    summary, helpful = result.summary, None
    if config.plot and summary.verdict in ("not_converged", "time_limit"):
        try:
            helpful = alternatives(config, scenario)
        except RuleError as error:  # in a run with other settings
            log.warning(f"no search for changes that would make it converge: {error}")
        except Exception as error:  # the result is worth more than the search for a better one
            if interruption(error):
                raise
            reason = f"{type(error).__name__}: {one_line(error)}"
            log.warning(f"the search for changes that would make it converge failed: {reason}")
            log.debug("", exc_info=error)
    if output.has_log:
        for line in attempt_lines(scenario, result):
            log.info(line)
        for action in result.actions_not_done:
            log.warning(f"the migration ended before this action: {action.text}")
    settings = asdict(scenario.attempts[summary.attempt - 1].config)
    write_run(
        result, folder, plot=config.plot, config=settings, alternatives=helpful, run_hash=identity
    )
    return summary


def _run_evacuation(
    config: Config, folder: Path, identity: str, output: Output
) -> EvacuationSummary:
    host = Host(config)  # a config error leaves earlier results in place
    if output.has_log and (warning := host.vms[0].backend.too_many_threads):
        log.warning(warning)
    begin_run(config, folder)
    with evacuation_bar(not output.has_bar) as observe:
        evacuation = host.evacuate(observe)
    write_evacuation(evacuation, folder, plot=config.plot, run_hash=identity)
    return evacuation.summary


def _earlier_summary(
    config: Config, folder: Path, identity: str, *, plot: bool
) -> dict[str, Any] | None:
    """Return the summary of the same run if the folder holds its complete results."""
    read = whole_run if config.evacuation is None else whole_evacuation
    return read(folder, identity, plot=plot)


def check_output_keys(objective: list[str], *, plot: bool, evacuates: bool) -> None:
    """Check `plot` and `objective`, which decide nothing about the migration.

    Raises:
        ConfigError: matplotlib is missing, or the objective is no number of the summary.
    """
    if plot and not is_installed("matplotlib"):
        hint = f"needs matplotlib. In gpusim's folder type {install_command('plot')}, or set plot=false"
        raise ConfigError("plot", plot, hint, "not_installed")
    known = EVACUATION_FIELDS if evacuates else RUN_FIELDS
    numbers = [key for key, field in known.items() if field.is_number]
    if not objective or set(objective) - set(numbers):
        allowed = f"must be a list of {', '.join(numbers)}"
        raise ConfigError("objective", objective, allowed, "unknown_choice")


def _objective(objective: list[str], summary: Mapping[str, Any]) -> Objective:
    """Return the numbers. Each is infinite if the migration did not converge."""
    found = [summary[name] if summary["verdict"] == "converged" else None for name in objective]
    values = [math.inf if value is None else float(value) for value in found]
    return values[0] if len(values) == 1 else values
