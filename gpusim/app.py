"""The command `gpusim`: Hydra in front, data classes behind.

Registers config.py's classes so that typos stop in Hydra, and converts a composed config once.
What then happens, and what an error leads to, is job.py's.
"""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import MISSING, DictConfig, OmegaConf

from gpusim import job
from gpusim.config import PATTERNS, Config, ConfigError
from gpusim.multirun import job_name


def conf_folder() -> Path:
    """Absolute folder of config.yaml: the wheel's copy, or the working tree's of `pip install -e`."""
    package = Path(__file__).resolve().parent
    folders = (package / "conf", package.parent / "conf")
    return next(folder for folder in folders if (folder / "config.yaml").is_file())


def register() -> None:
    """Tell Hydra the type of every key, and the keys of every workload."""
    store = ConfigStore.instance()
    # The default workload must not be there: another class would be merged over its keys.
    store.store(name="base_config", node=Config(workload=MISSING))
    for pattern, kind in PATTERNS.items():
        store.store(group="workload", name=f"base_{pattern}", node=kind)
    OmegaConf.register_new_resolver("gpusim_job_name", job_name, replace=True)


def converted(composed: DictConfig) -> Config:
    """The data classes of a composed config.

    Raises:
        ConfigError: a key that Hydra let in because of its `+`, and that nothing would read.
    """
    config = OmegaConf.to_object(composed)
    assert isinstance(config, Config)
    _reject_strays(config, "")
    return config


def _reject_strays(part: Any, prefix: str) -> None:
    """Refuse what data classes were given besides their fields, however deep."""
    if is_dataclass(part):
        for name in vars(part).keys() - {field.name for field in fields(part)}:
            raise ConfigError(prefix + name, getattr(part, name), "no such key; remove it")
    inner = part if isinstance(part, dict) else vars(part) if is_dataclass(part) else {}
    for name, value in inner.items():
        _reject_strays(value, f"{prefix}{name}.")


def task(composed: DictConfig) -> float:
    """One job: simulated seconds of the migration, or NaN where a job of a sweep failed."""
    settings = HydraConfig.get()
    folder, alone = Path(settings.runtime.output_dir), settings.mode == RunMode.RUN
    return job.attempt(lambda: converted(composed), folder, alone=alone)


def main() -> None:
    """Entry point of the command `gpusim`."""
    register()
    start = hydra.main(version_base="1.3", config_path=str(conf_folder()), config_name="config")
    start(task)()
