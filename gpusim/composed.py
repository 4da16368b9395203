"""From a config that Hydra composed to the data classes, once, at the border."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf

from gpusim.config import Config, ConfigError, EvacuationConfig, PolicyConfig
from gpusim.plug_ins import policies_of


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
