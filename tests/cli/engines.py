"""Which sweep engines are installed. With GPUSIM_REQUIRE_ENGINES=1 a missing one is an error."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest
import yaml

CONF = Path(__file__).parents[2] / "conf"


def need(module: str, extra: str) -> None:
    """Skip the test if an engine is not installed."""
    if importlib.util.find_spec("hydra_plugins." + module) is None:
        assert not os.environ.get("GPUSIM_REQUIRE_ENGINES"), f"extra {extra} is not installed"
        pytest.skip(f"gpusim's extra {extra} is not installed")


PLUGINS = {  # a preset of Hydra's -> its package, and gpusim's extra that installs it
    "joblib": ("hydra_joblib_launcher", "joblib"),
    "ray": ("hydra_ray_launcher", "ray"),
    "submitit_slurm": ("hydra_submitit_launcher", "slurm"),
    "submitit_local": ("hydra_submitit_launcher", "slurm"),
    "optuna": ("hydra_optuna_sweeper", "optuna"),
}


def plugins_of(group: str, preset: str) -> set[str]:
    """Return the presets of Hydra's that a preset of gpusim builds on."""
    path = CONF / group / f"{preset}.yaml"
    if not path.exists():
        return {preset} & set(PLUGINS)
    found = set()
    for base in yaml.safe_load(path.read_text()).get("defaults", []):
        if isinstance(base, str):
            found |= plugins_of(group, base)
        else:
            for key, value in base.items():
                if key.startswith("override /hydra/"):
                    found |= plugins_of(key.removeprefix("override /"), str(value))
    return found


def need_engine_of(option: str) -> None:
    """Skip the test if an override needs an engine that is not installed."""
    group, _, preset = option.partition("=")
    if group in ("sweep", "hydra/launcher", "hydra/sweeper"):
        for plugin in sorted(plugins_of(group, preset)):
            need(*PLUGINS[plugin])
