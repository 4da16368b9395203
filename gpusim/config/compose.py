"""Hydra's config groups become data classes, once, at the border.

Owns where conf/ lies and which class checks which key. It is the only module below the commands that imports Hydra.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf

from gpusim.config.plugins import KINDS, policies_of
from gpusim.config.schema import PATTERNS, Config, EvacuationConfig, PolicyConfig
from gpusim.errors import ConfigError


def conf_folder(name: str = "conf") -> Path:
    """Return the absolute folder `conf` or `conf_record`: the wheel's copy or the working tree's."""
    package = Path(__file__).resolve().parents[1]
    return next(folder / name for folder in (package, package.parent) if (folder / name).is_dir())


def register() -> None:
    """Tell Hydra the type of every key, and the keys of every workload."""
    store = ConfigStore.instance()
    # The default workload must not be there: another class would be merged over its keys.
    # And an evacuation and policies must be there, or their keys could not be set one by one.
    base = OmegaConf.structured(Config(workload=MISSING, evacuation=EvacuationConfig()))
    for name in KINDS:
        base.migration[name] = PolicyConfig()
        OmegaConf.set_struct(base.migration[name].args, False)  # the class says what it takes
    store.store(name="base_config", node=base)
    for pattern, kind in PATTERNS.items():
        store.store(group="workload", name=f"base_{pattern}", node=kind)


def composed_config(overrides: Sequence[str]) -> Config:
    """The config that `gpusim OVERRIDES` would simulate.

    Raises:
        HydraException, OmegaConfBaseException, ConfigError: there is no such preset, key or type.
    """
    register()
    with initialize_config_dir(config_dir=str(conf_folder()), version_base="1.3"):
        return converted(compose("config", overrides=list(overrides)))


def converted(composed: DictConfig) -> Config:
    """The data classes of a composed config.

    Raises:
        ConfigError: a key that Hydra let in because of its `+`, and that nothing would read.
    """
    config = OmegaConf.to_object(composed)
    assert isinstance(config, Config)
    _reject_strays(config, "")
    if config.evacuation == EvacuationConfig():  # nobody asked for one
        config.evacuation = None
    for name, policy in policies_of(config.migration).items():
        if policy == PolicyConfig():
            setattr(config.migration, name, None)
    return config


def _reject_strays(part: Any, prefix: str) -> None:
    """Refuse what data classes were given besides their fields, however deep."""
    if is_dataclass(part):
        for name in vars(part).keys() - {field.name for field in fields(part)}:
            raise ConfigError(prefix + name, getattr(part, name), "no such key; remove it")
    inner = part if isinstance(part, dict) else vars(part) if is_dataclass(part) else {}
    for name, value in inner.items():
        _reject_strays(value, f"{prefix}{name}.")
