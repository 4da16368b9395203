"""Which sweep engines are installed. With GPUSIM_REQUIRE_ENGINES=1 a missing one is an error."""

from __future__ import annotations

import importlib.util
import os

import pytest


def need(module: str, extra: str) -> None:
    """Skip the test if an engine is not installed."""
    if importlib.util.find_spec("hydra_plugins." + module) is None:
        assert not os.environ.get("GPUSIM_REQUIRE_ENGINES"), f"extra {extra} is not installed"
        pytest.skip(f"gpusim's extra {extra} is not installed")


ENGINES = {
    "sweep=best_throttle": ("hydra_optuna_sweeper", "optuna"),
    "hydra/sweeper=optuna": ("hydra_optuna_sweeper", "optuna"),
    "hydra/launcher=processes": ("hydra_joblib_launcher", "joblib"),
    "hydra/launcher=ray_here": ("hydra_ray_launcher", "ray"),
    "hydra/launcher=slurm": ("hydra_submitit_launcher", "slurm"),
    "hydra/launcher=slurm_here": ("hydra_submitit_launcher", "slurm"),
}


def need_engine_of(option: str) -> None:
    """Skip the test if an override needs an engine that is not installed."""
    if option in ENGINES:
        need(*ENGINES[option])
