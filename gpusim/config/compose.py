"""Hydra's config groups become data classes, once.

Owns which class checks which key. Of gpusim/config only this module, compose_errors.py and
sweep_values.py import Hydra.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins import file_config_source, structured_config_source
from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigResult
from omegaconf import MISSING, DictConfig, OmegaConf

from gpusim.config.compose_errors import one_compose_error
from gpusim.config.key_hints import unknown_key_text
from gpusim.config.plugins import KINDS, policies_of
from gpusim.config.presets import conf_folder
from gpusim.config.schema import PATTERNS, Config, EvacuationConfig, PolicyConfig
from gpusim.errors import ConfigError
from gpusim.reading import ReadingError, read_yaml

LEAST_SECRET = 4  # characters of a value that is looked for in a message


class FileConfigSource(file_config_source.FileConfigSource):
    """Hydra's files, read with limits first: aliases of aliases would take all memory.

    It has the name of Hydra's class. A worker registers Hydra's sources once more, and Hydra refuses
    a scheme whose class has another name.
    """

    def load_config(self, config_path: str) -> ConfigResult:
        path = Path(self.path, self._normalize_file_name(config_path))
        if not path.exists():
            return super().load_config(config_path)
        if conf_folder() in path.parents and ".." not in path.parts:
            return self._load_preset(path, config_path)
        try:
            read_yaml(path)
        except ReadingError as error:
            reason = f"cannot be read: {error.reason}"
            raise ConfigError("file", path, reason, "wrong_format") from None
        return super().load_config(config_path)

    def _load_preset(self, path: Path, config_path: str) -> ConfigResult:
        """Return a file of conf/. A process reads it once, unless the file changes."""
        key = (path, path.stat().st_mtime_ns)
        if key not in _PRESETS:
            _PRESETS[key] = super().load_config(config_path)
        found = _PRESETS[key]
        return replace(found, config=copy.deepcopy(found.config), provider=self.provider)


_PRESETS: dict[tuple[Path, int], ConfigResult] = {}  # files that this process has read


class StructuredConfigSource(structured_config_source.StructuredConfigSource):
    """Hydra's store of data classes. Hydra copies its sources for each composition.

    The store itself need not be copied, because it copies what it returns.
    """

    def __deepcopy__(self, _memo: dict[int, Any]) -> StructuredConfigSource:
        return copy.copy(self)


def register() -> None:
    """Tell Hydra the type of every key, the keys of every workload, and how to read a file."""
    Plugins.instance()  # registers Hydra's own sources
    for source in (FileConfigSource, StructuredConfigSource):
        SourcesRegistry.instance().types[source.scheme()] = source
    store = ConfigStore.instance()
    if "base_config.yaml" in store.repo:
        return
    # There must be no default workload, because another class would be merged over its keys.
    # There must be an evacuation and policies, so that a user can set their keys one by one.
    base = OmegaConf.structured(Config(workload=MISSING, evacuation=EvacuationConfig()))
    for name in KINDS:
        base.migration[name] = PolicyConfig()
        OmegaConf.set_struct(
            base.migration[name].args, False
        )  # the user's class decides which arguments it takes
    store.store(name="base_config", node=base)
    for pattern, kind in PATTERNS.items():
        store.store(group="workload", name=f"base_{pattern}", node=kind)


def composed_config(overrides: Sequence[str]) -> Config:
    """Return the config that `gpusim OVERRIDES` would simulate.

    Raises:
        ConfigError: there is no such preset, key or type, or an override cannot be parsed.
    """
    register()
    folder = str(conf_folder())
    with (
        one_compose_error(overrides),
        initialize_config_dir(config_dir=folder, version_base="1.3"),
    ):
        return converted(compose("config", overrides=list(overrides)), overrides)


def typed_overrides(overrides: Any) -> list[str]:
    """Return Hydra's list of overrides as the user typed them. A reference in one stays a text."""
    typed = OmegaConf.to_container(overrides, resolve=False)
    assert isinstance(typed, list)
    return typed


def converted(composed: DictConfig, overrides: Sequence[str] = ()) -> Config:
    """Return the data classes of a composed config.

    Args:
        composed: by Hydra.
        overrides: what the user typed, for the errors.

    Raises:
        ConfigError: a reference cannot be resolved, or Hydra accepted a key because of its `+`, and
            nothing would read the key.
    """
    with one_compose_error(overrides):
        config = OmegaConf.to_object(composed)
    assert isinstance(config, Config)
    _reject_unknown_keys(config, "")
    if config.evacuation == EvacuationConfig():  # the default of `register`
        config.evacuation = None
    for name, policy in policies_of(config.migration).items():
        if policy == PolicyConfig():
            setattr(config.migration, name, None)
    return config


def as_typed(composed: DictConfig) -> Callable[[ConfigError], ConfigError]:
    """Return a function that shows a reference in place of its value, which may be a secret.

    Args:
        composed: by Hydra, with its references.
    """
    typed = OmegaConf.to_container(composed, resolve=False)
    return partial(_with_reference, typed if "${" in str(typed) else {})


def _with_reference(typed: Any, error: ConfigError) -> ConfigError:
    part = typed
    for name in re.findall(r"[^.\[\]]+", error.key):
        if isinstance(part, dict) and name in part:
            part = part[name]
        elif isinstance(part, list) and name.isdecimal() and int(name) < len(part):
            part = part[int(name)]
        else:
            break
    if part is typed or "${" not in str(part):
        return error
    message = error.message
    if isinstance(error.value, str) and len(error.value) >= LEAST_SECRET:
        message = message.replace(error.value, str(part))
    return ConfigError(error.key, part, message, error.code)


def _reject_unknown_keys(part: Any, prefix: str) -> None:
    """Refuse attributes of data classes that are no fields, at any depth."""
    if is_dataclass(part):
        for name in vars(part).keys() - {field.name for field in fields(part)}:
            allowed = unknown_key_text(prefix + name, type(part), ())
            raise ConfigError(prefix + name, getattr(part, name), allowed, "unknown_key")
    inner = part if isinstance(part, dict) else vars(part) if is_dataclass(part) else {}
    for name, value in inner.items():
        _reject_unknown_keys(value, f"{prefix}{name}.")
