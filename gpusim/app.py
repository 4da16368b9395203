"""The command `gpusim`: Hydra in front, data classes behind.

Registers config.py's classes so that typos stop in Hydra. What happens with a composed config, and
what an error leads to, is job.py's.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import hydra
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import MISSING, DictConfig, OmegaConf

import gpusim.multirun  # noqa: F401  its resolvers name a job's folder, in a launcher's worker too
from gpusim import job
from gpusim.composed import converted
from gpusim.config import PATTERNS, Config, EvacuationConfig, PolicyConfig
from gpusim.plug_ins import KINDS


def conf_folder() -> Path:
    """Absolute folder of config.yaml: the wheel's copy, or the working tree's of `pip install -e`."""
    package = Path(__file__).resolve().parent
    folders = (package / "conf", package.parent / "conf")
    return next(folder for folder in folders if (folder / "config.yaml").is_file())


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


def task(composed: DictConfig) -> float | list[float] | None:
    """One job: its objective, or None where a job of a sweep failed."""
    settings = HydraConfig.get()
    folder, alone = Path(settings.runtime.output_dir), settings.mode == RunMode.RUN
    return job.attempt(lambda: converted(composed), folder, alone=alone)


def main() -> None:
    """Entry point of the command `gpusim`."""
    register()
    start = hydra.main(version_base="1.3", config_path=str(conf_folder()), config_name="config")
    try:
        start(task)()
    except KeyboardInterrupt:  # between two jobs, or in another process's stead
        hint = "interrupted; a sweep goes on when it is started again in the same hydra.sweep.dir"
        job.stop(hint, job.EXIT_INTERRUPTED)
