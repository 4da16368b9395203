"""Which engines of a sweep are installed; GPUSIM_REQUIRE_ENGINES=1 makes a missing one an error."""

from __future__ import annotations

import importlib.util
import os

import pytest


def need(module: str, extra: str) -> None:
    """Skip where an engine is not installed."""
    if importlib.util.find_spec("hydra_plugins." + module) is None:
        assert not os.environ.get("GPUSIM_REQUIRE_ENGINES"), f"extra {extra} is not installed"
        pytest.skip(f"gpusim's extra {extra} is not installed")


def need_engine_of(option: str) -> None:
    """Skip a preset of conf/ that wants an engine which is not installed."""
    if option == "sweep=best_throttle":
        need("hydra_optuna_sweeper", "optuna")
