"""From a config that Hydra composed to the data classes, once, at the border."""

from __future__ import annotations

from dataclasses import fields, is_dataclass

from omegaconf import DictConfig, OmegaConf

from gpusim.config import Config, ConfigError


def converted(composed: DictConfig) -> Config:
    """The data classes of a composed config.

    Raises:
        ConfigError: a key that Hydra let in because of its `+`, and that nothing would read.
    """
    config = OmegaConf.to_object(composed)
    assert isinstance(config, Config)
    groups = {f"{name}.": group for name, group in vars(config).items()}
    for prefix, part in {"": config, **groups}.items():
        if is_dataclass(part):
            for name in vars(part).keys() - {field.name for field in fields(part)}:
                raise ConfigError(prefix + name, getattr(part, name), "no such key; remove it")
    return config
