"""Run the command as a user does, and compose a config as Hydra does."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from tempfile import TemporaryFile

from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig

from gpusim import Config
from gpusim.config.compose import composed_config, register
from gpusim.config.presets import conf_folder
from tests.cli.forked import Forked

REPOSITORY = Path(__file__).parents[2]
CONF = REPOSITORY / "conf"
MAIN = "import sys; from gpusim.cli.entry import gpusim; sys.exit(gpusim())"


def composed(*overrides: str) -> Config:
    """Return the config that `gpusim OVERRIDES` would simulate."""
    return composed_config(overrides)


def composed_by_hydra(*overrides: str) -> DictConfig:
    """Return the same config with Hydra's own settings."""
    register()
    with initialize_config_dir(config_dir=str(conf_folder()), version_base="1.3"):
        return compose("config", overrides=list(overrides), return_hydra_config=True)


def jobs(arguments: list[str]) -> list[list[str]]:
    """Return jobs of a command that together have each value of each axis, without Hydra's overrides.

    Of an axis of many values, return some.
    """
    overrides = [text for text in arguments if not re.match(r"-|\+?hydra[./]", text)]
    parsed = OverridesParser.create().parse_overrides(overrides)
    (all_jobs,) = BasicSweeper.split_arguments(parsed, None)
    axes = [list(dict.fromkeys(values)) for values in zip(*all_jobs, strict=True)]
    axes = [values[:: max(1, len(values) // 8)] for values in axes]
    longest = max(map(len, axes), default=1)
    return [[values[place % len(values)] for values in axes] for place in range(longest)]


def gpusim(
    *arguments: str, cwd: Path, before: str = "", code: int = 0
) -> subprocess.CompletedProcess[str]:
    """Run the command in `cwd`, after the Python statements `before`, and expect an exit code."""
    with TemporaryFile() as stdout, TemporaryFile() as stderr:
        process = Forked(f"{before}\n{MAIN}", arguments, cwd=cwd, stdout=stdout, stderr=stderr)
        try:
            returncode = process.wait(300)
        finally:
            process.kill()
        texts = []
        for file in (stdout, stderr):
            file.seek(0)
            texts.append(file.read().decode())
    done = subprocess.CompletedProcess(["gpusim", *arguments], returncode, *texts)
    assert done.returncode == code, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done
