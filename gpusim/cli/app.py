"""The command `gpusim`: Hydra in front, data classes behind.

Registers config.py's classes so that typos stop in Hydra. What happens with a composed config, and
what an error leads to, is job.py's.
"""

from __future__ import annotations

from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

import gpusim.cli.sweep_report  # noqa: F401  its resolvers name a job's folder, in a launcher's worker too
from gpusim.cli import job
from gpusim.config.compose import conf_folder, converted, register


def task(composed: DictConfig) -> float | list[float] | None:
    """One job: its objective, or None where a job of a sweep failed."""
    settings = HydraConfig.get()
    folder, alone = Path(settings.runtime.output_dir), settings.mode == RunMode.RUN
    return job.attempt(lambda: converted(composed), folder, alone=alone)


def main() -> None:
    """Entry point of the command `gpusim`."""
    register()
    start = hydra.main(version_base="1.3", config_path=str(conf_folder()), config_name="config")
    try:
        start(task)()
    except KeyboardInterrupt:  # between two jobs, or in another process's stead
        hint = "interrupted; a sweep goes on when it is started again in the same hydra.sweep.dir"
        job.stop(hint, job.EXIT_INTERRUPTED)
