"""A sweep as a whole: the name of each job's folder, and the report at its end.

The report runs in the process that started the sweep and knows its jobs by their folders alone, so
that it does not matter where they ran.
"""

from __future__ import annotations

import hashlib
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from gpusim.results import ResultsError, read_summary
from gpusim.results.compare import draw

EXIT_SOME_FAILED = 3

_GROUPS = {"vm", "workload", "link", "migration", "tracking", "backend", "experiment"}
_LONGEST_NAME = 100
_MTIME_SLACK_S = 1.0  # a file system's clock may lag behind the process's


def job_name(overrides: Sequence[str]) -> str:
    """A folder's name made of a job's overrides: the same for the same job, whatever its number.

    >>> job_name(["vm=huge_4tib", "workload.working_set_percent=25", "seed=1"])
    'seed=1,huge_4tib,working_set_percent=25'
    """
    parts = []
    for override in sorted(overrides):
        key, _, value = override.partition("=")
        key = key.lstrip("+~")
        parts.append(value if key in _GROUPS else f"{key.rsplit('.')[-1]}={value}")
    wanted = ",".join(parts) or "job"
    name = re.sub(r"[^A-Za-z0-9._=,+-]", "_", wanted)[:_LONGEST_NAME]
    if name == wanted and not name.startswith("."):
        return name
    digest = hashlib.sha256(wanted.encode()).hexdigest()[:8]  # two names may have become one
    return f"{name.lstrip('.')},{digest}"


class SweepReport(Callback):
    """Prints a line a job when a sweep ends, draws its picture, and fails if a job failed.

    Args:
        picture: file name, in the sweep's folder, of one picture of all jobs; null: none.
    """

    def __init__(self, picture: str | None = None) -> None:
        self.picture = picture
        self._since_s = 0.0

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Remember when: a sweep's folder may hold jobs of earlier sweeps."""
        self._since_s = time.time() - _MTIME_SLACK_S

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Report.

        Raises:
            SystemExit: a job failed, or the picture could not be drawn; code 3.
        """
        folder = Path(config.hydra.sweep.dir)
        jobs = self._jobs(folder)  # of a dry run, those that failed: the others left nothing
        summaries = [_summary(job) for job in jobs]
        width = max((len(job.name) for job in jobs), default=0)
        for job, summary in zip(jobs, summaries, strict=True):
            print(f"{job.name:<{width}}  {_line(summary)}")
        fine = all(summary["status"] != "failed" for summary in summaries)
        if self.picture and not config.dry_run:
            try:
                draw(jobs, folder / self.picture)
                print(folder / self.picture)
            except ResultsError as error:
                fine = False
                print(f"error: {error}", file=sys.stderr)
        if not fine:
            sys.exit(EXIT_SOME_FAILED)

    def _jobs(self, folder: Path) -> list[Path]:
        """Folders of this sweep's jobs, in the order they started."""
        started = {
            mark.parent.parent: mark.stat().st_mtime
            for mark in folder.glob("*/.hydra/overrides.yaml")
        }
        return sorted((job for job in started if started[job] >= self._since_s), key=started.get)  # type: ignore[arg-type]


def _summary(job: Path) -> dict[str, Any]:
    try:
        return read_summary(job)
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
