"""The command `gpusim`: Hydra composes the config, and data classes check it.

Owns the registration of the schema with Hydra, so that Hydra refuses a mistyped key. job.py runs
the config and handles its errors.
"""

from __future__ import annotations

from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

import gpusim.cli.sweep_report  # noqa: F401  its resolvers name a job's folder in every process
from gpusim.cli import job
from gpusim.config.compose import converted, register
from gpusim.config.presets import conf_folder


def task(composed: DictConfig) -> job.Objective | None:
    """Run one job. Return its objective, or None if a job of a sweep failed."""
    settings = HydraConfig.get()
    folder, alone = Path(settings.runtime.output_dir), settings.mode == RunMode.RUN
    return job.run_job(lambda: converted(composed), folder, alone=alone)


def main() -> None:
    """Run the command `gpusim`."""
    register()
    start = hydra.main(version_base="1.3", config_path=str(conf_folder()), config_name="config")
    try:
        start(task)()
    except KeyboardInterrupt:  # between two jobs, or in a launcher's process
        hint = "interrupted. To continue a sweep, start it again in the same hydra.sweep.dir"
        job.stop(hint, job.EXIT_INTERRUPTED)
