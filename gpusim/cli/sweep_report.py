"""A sweep as a whole: the name of each job's folder, and the report at its end.

The report runs in the process that started the sweep. It finds the jobs by their folders, so the
jobs may run anywhere.
"""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from gpusim.cli import job
from gpusim.cli.run_folder import discard
from gpusim.command import EXIT_FAILED, EXIT_INPUT
from gpusim.config.compose import typed_overrides
from gpusim.config.compose_errors import one_compose_error
from gpusim.config.sweep_values import GRID_SWEEPERS
from gpusim.errors import ConfigError, ResultsError, one_line
from gpusim.files import remove_leftovers, write_text
from gpusim.pages.backends import visible_gpus
from gpusim.pages.obstacles import BackendError
from gpusim.results import read_summary
from gpusim.results.bottleneck import bottleneck_line, find_bottlenecks
from gpusim.results.plots.compare import write_comparison
from gpusim.results.run_files import SUMMARY
from gpusim.results.sweeps.natural_order import natural
from gpusim.results.sweeps.runs import SWEEP
from gpusim.results.verdicts import describe_counts, outcome_code, outcome_of
from gpusim.text import count_noun

EXIT_SOME_FAILED = 3
GPU_LAUNCHERS = ("gpus", "ray_gpus")  # presets that give each job a GPU of this machine

_GROUPS = {"vm", "workload", "link", "migration", "tracking", "experiment"}
_NO_EFFECT = re.compile(r"sweep|backend(\..*)?|plot|dry_run|objective|limit\.wall")
_LONGEST_NAME = 100
_MTIME_SLACK_S = 1.0  # the clock of a file system may lag behind
_MANY_ERRORS = 5
_MANY = 60  # of more runs, a report lists only those that failed


def job_name(overrides: Sequence[str], params: Mapping[str, Any] | None = None) -> str:
    """Return a folder's name made of a job's overrides. The job's number does not change it.

    The name leaves out keys that change no result, and keys that the sweep's file sets to one value.

    Args:
        overrides: of the job. The last override of a key counts.
        params: hydra.sweeper.params, which the sweep's file sets.

    >>> job_name(["vm=huge_4tib", "workload.working_set_percent=25", "seed=1"])
    'seed=1,huge_4tib,working_set_percent=25'
    >>> job_name(["seed=2", "link=1gbit", "plot=False"], {"seed": "1,2", "link": "1gbit"})
    'seed=2'
    """
    values = dict(override.lstrip("+~").partition("=")[::2] for override in overrides)
    fixed = {key.lstrip("+~"): str(value) for key, value in (params or {}).items()}
    parts = [
        value if key in _GROUPS else f"{_short_key(key)}={_short_value(value)}"
        for key, value in sorted(values.items())
        if not _NO_EFFECT.fullmatch(key) and fixed.get(key) != value
    ]
    wanted = ",".join(parts) or "job"
    name = re.sub(r"[^A-Za-z0-9._=,+-]", "_", wanted)[:_LONGEST_NAME]
    if name == wanted and not name.startswith("."):
        return name
    digest = hashlib.sha256(wanted.encode()).hexdigest()[:8]  # two different names may now be equal
    return f"{name.lstrip('.')},{digest}"


def _short_key(key: str) -> str:
    """Return the last part of a key, without the prefix of QEMU's throttle parameters."""
    return re.sub(r"^(cpu_)?throttle_", "", key.rsplit(".", maxsplit=1)[-1])


def _short_value(value: str) -> str:
    """Return a value that a folder's name can hold: 10Gbitps, 1000000."""
    return re.sub(r"\.0$", "", value).replace("bit/s", "bitps").replace("B/s", "Bps")


def count_gpus() -> int:
    """Return the number of GPUs, or 1 if there is none that CuPy can use."""
    try:
        return len(visible_gpus())
    except BackendError:
        return 1


# At import, because a launcher's worker imports this module and resolves the job's folder itself.
OmegaConf.register_new_resolver("gpusim_job_name", job_name, replace=True)
OmegaConf.register_new_resolver("gpusim_gpus", count_gpus, replace=True)


def _gpus_of(config: DictConfig) -> list[str]:
    """Return the GPUs that a launcher shares out: none, if it is not one of GPU_LAUNCHERS.

    Raises:
        SystemExit: code 2 if there is no GPU that CuPy can use.
    """
    launcher = config.hydra.runtime.choices.get("hydra/launcher")
    if launcher not in GPU_LAUNCHERS:
        return []
    try:
        return visible_gpus()
    except BackendError as error:
        hint = f"needs a GPU that CuPy can use: {error}. You can also set hydra/launcher=processes"
        _stop(ConfigError("hydra/launcher", launcher, hint, "backend_not_available"))


class SweepReport(Callback):
    """Prints the outcome of a sweep's jobs, draws its picture, and fails if a job failed.

    Args:
        picture: name of a file in the sweep's folder for one picture of all jobs. null: none.
        question: the question that the sweep answers. `gpusim-collect` shows it on its page.
        x: the config key of the figures' x axis. null: `gpusim-collect` chooses one.
        shows: what is printed at the end: text, folder or summary. See Output.
    """

    def __init__(
        self,
        picture: str | None = None,
        question: str | None = None,
        x: str | None = None,
        shows: str = "text",
    ) -> None:
        self.picture, self.question, self.x, self.shows = picture, question, x, shows
        self._since_s = 0.0
        self._is_new = False
        self._failed_dry_runs = 0

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Describe the sweep in its folder, which may hold jobs of earlier sweeps.

        Raises:
            SystemExit: code 2 if `plot`, `objective` or the folder cannot be used. Hydra would
                swallow any other error of a callback.
        """
        overrides = typed_overrides(config.hydra.overrides.task)
        try:
            with one_compose_error(overrides):
                evacuates, objective = bool(config.evacuation.guests), list(config.objective)
                job.check_output_keys(objective, plot=config.plot, evacuates=evacuates)
                _check_direction(config)
        except ConfigError as error:
            _stop(error)
        gpus = _gpus_of(config)
        if config.hydra.launcher._target_.endswith(".JoblibLauncher"):
            from gpusim.cli import joblib_workers

            joblib_workers.register(gpus)
        self._since_s = time.time() - _MTIME_SLACK_S
        if config.dry_run:
            return
        path = Path(config.hydra.sweep.dir) / SWEEP
        command = one_line(shlex.join(["gpusim", *sys.argv[1:]]))  # arguments may be any bytes
        sweep = {"question": self.question, "command": command, "x": self.x, **_planned(config)}
        self._is_new = not path.parent.is_dir()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            remove_leftovers(path.parent)
            write_text(path, json.dumps(sweep, indent=2) + "\n")
        except OSError as error:
            reason = f"cannot be written ({error.strerror or error}). Name another"
            code = EXIT_FAILED if error.errno in job.DISK_IS_FULL else EXIT_INPUT
            _stop(ConfigError("hydra.sweep.dir", path.parent, reason), code)
        self._since_s = path.stat().st_mtime  # by the clock of the jobs' file system

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Count the dry runs that failed, because a dry run leaves no folder."""
        if job_return.status == JobStatus.COMPLETED and config.dry_run:  # a lone run raises
            self._failed_dry_runs += job_return.return_value is None

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Print the report, and draw the picture.

        Raises:
            SystemExit: code 3 if a job failed or the picture cannot be drawn. Code 2 if the config of
                every job is wrong. Then a new folder goes away again.
        """
        if config.dry_run:
            if self._failed_dry_runs:
                sys.exit(EXIT_SOME_FAILED)
            return
        folder = Path(config.hydra.sweep.dir)
        summaries = {path: _summary(path) for path in self._jobs(folder)}
        codes = [summary.get("error_code") for summary in summaries.values()]
        if self._is_new and codes and all(codes):
            _refuse_all(folder, [summary["error"] for summary in summaries.values()])
        if self.shows == "folder":
            print(folder)
        elif self.shows == "summary":
            for path, summary in summaries.items():
                print(job.summary_line(path, summary))
        else:
            self._print(folder, summaries)
        is_complete = all(summary["status"] != "failed" for summary in summaries.values())
        if self.picture:
            try:
                write_comparison(list(summaries), folder / self.picture)
                if self.shows == "text":
                    print(folder / self.picture)
            except ResultsError as error:
                is_complete = False
                print(f"error: {error}", file=sys.stderr)
        if not is_complete:
            sys.exit(EXIT_SOME_FAILED)

    def _jobs(self, folder: Path) -> list[Path]:
        """Return the folders of this sweep's jobs. Each job touches its folder when it starts."""
        folders = (path for path in folder.glob("[!.]*/") if path.is_dir())
        ours = [path for path in folders if _mtime_s(path) >= self._since_s]
        return sorted(ours, key=lambda path: natural(path.name))

    def _print(self, folder: Path, summaries: dict[Path, dict[str, Any]]) -> None:
        names = {path: one_line(path.name) for path in summaries}
        width = max(map(len, names.values()), default=0)
        for path, summary in summaries.items():
            if len(summaries) <= _MANY or summary["status"] == "failed":
                print(f"{names[path]:<{width}}  {_line(summary)}")
        if not summaries:
            return
        counts = Counter(map(_outcome_code, summaries.values()))
        earlier = sum(0 < _mtime_s(path / SUMMARY) < self._since_s for path in summaries)
        computed = f" ({earlier} computed earlier)" if earlier else ""
        print(f"{count_noun(len(summaries), 'run')}{computed}: {describe_counts(counts)}")
        for found in find_bottlenecks(list(summaries.values())):
            print(bottleneck_line(found))
        print(f"show them on one page: gpusim-collect {shlex.quote(str(folder))}")


def _planned(config: DictConfig) -> dict[str, int]:
    """Return how many runs a sweep will have, if its sweeper runs a grid. A search has no plan."""
    sweeper = config.hydra.sweeper
    if not sweeper._target_.endswith(GRID_SWEEPERS):
        return {}
    texts = [f"{key}={value}" for key, value in (sweeper.params or {}).items()]
    try:
        overrides = OverridesParser.create().parse_overrides([*texts, *config.hydra.overrides.task])
        (jobs,) = BasicSweeper.split_arguments(overrides, None)
    except HydraException:
        return {}  # the sweeper itself says what is wrong
    return {"planned_runs": len({job_name(one, sweeper.params) for one in jobs})}


def _check_direction(config: DictConfig) -> None:
    """Check that a search has one direction for each number of the objective."""
    direction = config.hydra.sweeper.get("direction")
    directions = list(direction) if OmegaConf.is_list(direction) else [direction]
    if direction is not None and len(directions) != len(config.objective):
        allowed = f"must be as many numbers as hydra.sweeper.direction = {directions}. Set both"
        raise ConfigError("objective", list(config.objective), allowed, "contradiction")


def _mtime_s(path: Path) -> float:
    """Return when a file or folder was changed. 0 if there is none, or it cannot be seen."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _summary(folder: Path) -> dict[str, Any]:
    try:
        return read_summary(folder)
    except ResultsError as error:  # the job's process was killed
        return {"status": "failed", "error": str(error)}


def _outcome_code(summary: Mapping[str, Any]) -> str:
    return outcome_code(summary["status"], summary.get("verdict"), summary.get("reason_code"))


def _line(summary: dict[str, Any]) -> str:
    if summary["status"] == "failed":
        return f"failed: {one_line(summary.get('error') or 'no error was recorded')}"

    def shown(key: str, width: int, digits: int = 0) -> str:
        value = summary.get(key)
        return f"{'-' if value is None else f'{value:.{digits}f}':>{width}}"

    return (
        f"{outcome_of(_outcome_code(summary)).short:<14}{shown('total_time_s', 10, 1)} s  "
        f"downtime {shown('downtime_ms', 5)} ms  "
        f"syncs {shown('bitmap_sync_count', 4)}  throttle {shown('max_throttle_percent', 2)} %  "
        f"guest CPU lost {shown('guest_cpu_lost_percent', 4, 1)} %"
    )


def _refuse_all(folder: Path, errors: Sequence[str]) -> NoReturn:
    """Remove a sweep of which no job has a valid config, and print what is wrong."""
    discard(folder.absolute(), is_new=True)
    distinct = list(dict.fromkeys(error.removeprefix("ConfigError: ") for error in errors))
    for error in distinct[:_MANY_ERRORS]:
        print(f"error: {one_line(error)}", file=sys.stderr)
    if distinct[_MANY_ERRORS:]:
        print(f"error: {len(distinct) - _MANY_ERRORS} more runs are refused", file=sys.stderr)
    sys.exit(EXIT_INPUT)


def _stop(error: ConfigError, code: int = EXIT_INPUT) -> NoReturn:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(code)
