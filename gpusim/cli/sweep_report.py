"""A sweep as a whole: the name of each job's folder, and the report at its end.

The report runs in the process that started the sweep and knows its jobs by their folders alone, so
that it does not matter where they ran.
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
from typing import Any

from hydra.core.utils import JobReturn
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from gpusim.cli import job
from gpusim.errors import ConfigError, ResultsError
from gpusim.files import write_text
from gpusim.results import read_summary
from gpusim.results.plots.compare import write_comparison
from gpusim.results.run_files import SUMMARY
from gpusim.results.sweeps.runs import SWEEP, natural

EXIT_SOME_FAILED = 3

_GROUPS = {"vm", "workload", "link", "migration", "tracking", "experiment"}
_DECIDES_NOTHING = re.compile(r"sweep|backend(\..*)?|plot|dry_run|objective|limit\.wall")
_LONGEST_NAME = 100
_MTIME_SLACK_S = 1.0  # a file system's clock may lag behind the process's
_MANY = 60  # runs, of which a report names only those that failed


def job_name(overrides: Sequence[str], params: Mapping[str, Any] | None = None) -> str:
    """A folder's name made of a job's overrides: the same for the same job, whatever its number.

    What decides no result is left out, and so is what the sweep's file sets without sweeping it.

    Args:
        overrides: of the job; of two for the same key the last one holds.
        params: hydra.sweeper.params, what the sweep's file sets and sweeps.

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
        if not _DECIDES_NOTHING.fullmatch(key) and fixed.get(key) != value
    ]
    wanted = ",".join(parts) or "job"
    name = re.sub(r"[^A-Za-z0-9._=,+-]", "_", wanted)[:_LONGEST_NAME]
    if name == wanted and not name.startswith("."):
        return name
    digest = hashlib.sha256(wanted.encode()).hexdigest()[:8]  # two names may have become one
    return f"{name.lstrip('.')},{digest}"


def _short_key(key: str) -> str:
    """The last part, of QEMU's throttle parameters without what they all begin with."""
    return re.sub(r"^(cpu_)?throttle_", "", key.rsplit(".", maxsplit=1)[-1])


def _short_value(value: str) -> str:
    """A value as people write it and as a folder can be called: 10Gbitps, 1000000."""
    return re.sub(r"\.0$", "", value).replace("bit/s", "bitps").replace("B/s", "Bps")


def gpu_of(gpus: int, *, _root_: DictConfig) -> str:
    """CUDA_VISIBLE_DEVICES of a job, for launchers that do not hand out GPUs: in turn."""
    return str(_root_.hydra.job.num % gpus)


# At import: a launcher's worker imports this through the task, and resolves a job's folder itself.
OmegaConf.register_new_resolver("gpusim_job_name", job_name, replace=True)
OmegaConf.register_new_resolver("gpusim_gpu", gpu_of, replace=True)


class SweepReport(Callback):
    """Prints what became of a sweep's jobs, draws its picture, and fails if a job failed.

    Args:
        picture: file name, in the sweep's folder, of one picture of all jobs; null: none.
        question: what the sweep answers; `gpusim-collect` puts it above its page.
        x: the config key of its figures' axis; null: `gpusim-collect` finds one.
    """

    def __init__(
        self, picture: str | None = None, question: str | None = None, x: str | None = None
    ) -> None:
        self.picture, self.question, self.x = picture, question, x
        self._since_s = 0.0
        self._failed_dry_runs = 0

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Say in the sweep's folder what it is for; it may hold jobs of earlier sweeps.

        Raises:
            SystemExit: what all jobs are asked to leave cannot be had; code 2.
        """
        evacuates = bool(config.evacuation.guests)
        try:
            job.check_wishes(list(config.objective), plot=config.plot, evacuates=evacuates)
            _check_direction(config)
        except ConfigError as error:
            job.stop(error, job.EXIT_CONFIG)
        self._since_s = time.time() - _MTIME_SLACK_S
        if config.dry_run:
            return
        path = Path(config.hydra.sweep.dir) / SWEEP
        command = shlex.join(["gpusim", *sys.argv[1:]])
        sweep = {"question": self.question, "command": command, "x": self.x}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_text(path, json.dumps(sweep, indent=2) + "\n")
        except OSError as error:
            hint = f"hydra.sweep.dir = {path.parent}: cannot be written ({error}); take another"
            job.stop(hint, job.EXIT_CONFIG)
        self._since_s = path.stat().st_mtime  # by the clock of the file system that jobs write to

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Count what cannot be run: a dry run leaves no folder that could tell."""
        self._failed_dry_runs += config.dry_run and job_return.return_value is None

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Report.

        Raises:
            SystemExit: a job failed, or could not be run, or the picture could not be drawn; code 3.
        """
        if config.dry_run:  # its jobs leave no folder
            if self._failed_dry_runs:
                sys.exit(EXIT_SOME_FAILED)
            return
        folder = Path(config.hydra.sweep.dir)
        summaries = {path: _summary(path) for path in self._jobs(folder)}
        self._print(folder, summaries)
        fine = all(summary["status"] != "failed" for summary in summaries.values())
        if self.picture:
            try:
                write_comparison(list(summaries), folder / self.picture)
                print(folder / self.picture)
            except ResultsError as error:
                fine = False
                print(f"error: {error}", file=sys.stderr)
        if not fine:
            sys.exit(EXIT_SOME_FAILED)

    def _jobs(self, folder: Path) -> list[Path]:
        """Folders of this sweep's jobs: each was touched when its job began."""
        folders = (path for path in folder.glob("[!.]*/") if path.is_dir())
        ours = [path for path in folders if path.stat().st_mtime >= self._since_s]
        return sorted(ours, key=lambda path: natural(path.name))

    def _print(self, folder: Path, summaries: dict[Path, dict[str, Any]]) -> None:
        width = max((len(path.name) for path in summaries), default=0)
        for path, summary in summaries.items():
            if len(summaries) <= _MANY or summary["status"] == "failed":
                print(f"{path.name:<{width}}  {_line(summary)}")
        ends = Counter(str(s.get("verdict") or s["status"]) for s in summaries.values())
        before = sum(_older(path / SUMMARY, self._since_s) for path in summaries)
        there = f" ({before} of them from before)" if before else ""
        counts = ", ".join(f"{n} {end.replace('_', ' ')}" for end, n in sorted(ends.items()))
        if summaries:
            runs = "1 run" if len(summaries) == 1 else f"{len(summaries)} runs"
            print(f"{runs}{there}: {counts}")
            print(f"one page of them: gpusim-collect {shlex.quote(str(folder))}")


def _check_direction(config: DictConfig) -> None:
    """A search takes each number of the objective its own way, or all of its trials are refused."""
    direction = config.hydra.sweeper.get("direction")
    ways = [direction] if isinstance(direction, str) else direction
    if ways is not None and len(ways) != len(config.objective):
        allowed = f"must be as many as hydra.sweeper.direction = {ways}; set both"
        raise ConfigError("objective", list(config.objective), allowed)


def _older(path: Path, time_s: float) -> bool:
    return path.exists() and path.stat().st_mtime < time_s


def _summary(folder: Path) -> dict[str, Any]:
    try:
        return read_summary(folder)
    except ResultsError as error:  # its process was killed
        return {"status": "failed", "error": str(error)}


def _line(summary: dict[str, Any]) -> str:
    if summary["status"] == "failed":
        return f"failed: {summary.get('error', 'no reason given')}"
    downtime_ms = summary["downtime_ms"]
    return (
        f"{summary['verdict'] or summary['status']:<14}{summary['total_time_s']:>10.1f} s  "
        f"downtime {'-' if downtime_ms is None else f'{downtime_ms:.0f}':>5} ms  "
        f"syncs {summary['dirty_sync_count']:>4}  throttle {summary['max_throttle_percent']:>2} %  "
        f"guest CPU lost {summary['guest_cpu_lost_percent']:>4.1f} %"
    )
