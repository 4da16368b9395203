"""The command `gpusim`: Hydra composes the config, and data classes check it.

Owns the registration of the schema with Hydra, so that Hydra refuses a mistyped key. hydra_run.py
runs Hydra. job.py runs the config and handles its errors.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

import gpusim.cli.sweep_report  # noqa: F401  its resolvers name a job's folder in every process
from gpusim.cli import job
from gpusim.cli.hydra_run import run_hydra
from gpusim.cli.output import NORMAL, Output
from gpusim.config.compose import as_typed, converted, register, typed_overrides


def task(composed: DictConfig, output: Output = NORMAL) -> job.Objective | None:
    """Run one job. Return its objective, or None if a job of a sweep failed."""
    settings = HydraConfig.get()
    folder, alone = Path(settings.runtime.output_dir), settings.mode == RunMode.RUN
    overrides = typed_overrides(settings.overrides.task)
    if not alone:
        output = replace(output, shows="nothing")
    return job.run_job(
        lambda: converted(composed, overrides),
        folder,
        alone=alone,
        output=output,
        as_typed=as_typed(composed),
    )


def main() -> None:
    """Run the command `gpusim`."""
    register()
    run_hydra(task, sys.argv[1:])
