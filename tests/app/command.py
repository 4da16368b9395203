"""Running the command as a user does, and composing a config as Hydra does for it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from gpusim import Config
from gpusim.app import conf_folder, register
from gpusim.composed import converted

REPOSITORY = Path(__file__).parents[2]
CONF = REPOSITORY / "conf"
MAIN = "from gpusim.app import main; main()"


def composed(*overrides: str) -> Config:
    """The Config that `gpusim OVERRIDES` would simulate."""
    with _hydra():
        return converted(compose("config", overrides=list(overrides)))


def composed_by_hydra(*overrides: str) -> DictConfig:
    """The same as Hydra sees it, its own settings included."""
    with _hydra():
        return compose("config", overrides=list(overrides), return_hydra_config=True)


def _hydra() -> initialize_config_dir:
    register()
    return initialize_config_dir(config_dir=str(conf_folder()), version_base="1.3")


def gpusim(
    *arguments: str, cwd: Path, before: str = "", code: int = 0
) -> subprocess.CompletedProcess[str]:
    """Run the command in `cwd`, after the Python statements `before`, and expect an exit code."""
    done = subprocess.run(
        [sys.executable, "-c", f"{before}\n{MAIN}", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == code, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done
