"""`hydra/sweeper=batch`: a sweep whose jobs share one process, for thousands of small points.

Hydra composes each job's config anew, twice, and sets up logging and four files around it: a
quarter of a second, where a small migration takes a few thousandths. Here a config is composed once
for each choice of files, and single keys are then set in it, under the same types; all of that
before the first job runs, so that a typo stops the sweep as it does in Hydra.

The file lies here because Hydra takes plugins from the package hydra_plugins alone. Every Hydra
program of the environment imports it, so it imports gpusim only when it sweeps.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.config_loader import ConfigLoader
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

if TYPE_CHECKING:
    from gpusim.config import Config

_SETS_A_KEY = re.compile(r"seed=.*|[a-z_]+\.[\w.]+=.*", re.DOTALL)  # all else may choose a file


class BatchSweeper(Sweeper):
    """Runs all points of a grid in this process, or in a few.

    A job's folder holds the same files as any run's, but neither .hydra/ nor gpusim.log.

    Args:
        workers: processes; 1: this one, 0: one a core.
        params: override -> its values, as the basic sweeper has them.
    """

    def __init__(self, workers: int = 1, params: dict[str, str] | None = None) -> None:
        self.workers, self.params = workers, params or {}
        self.loader: ConfigLoader
        self.master: DictConfig

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Keep what `sweep` needs; the jobs are not run through `task_function`."""
        self.loader, self.master = hydra_context.config_loader, config

    def sweep(self, arguments: list[str]) -> list[Any]:
        """Run the grid of all values.

        Raises:
            HydraException: an override that does not compose; before any job runs.
            SystemExit: `workers` is negative, or interrupted.
        """
        from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
        from hydra.core.override_parser.overrides_parser import OverridesParser
        from tqdm import tqdm

        from gpusim import ConfigError, job
        from gpusim.multirun import job_name

        if self.workers < 0:
            allowed = "must be 1 or more, or 0 for one a core"
            error = ConfigError("hydra.sweeper.workers", self.workers, allowed)
            job.stop(error, job.EXIT_CONFIG)
        parser = OverridesParser.create(config_loader=self.loader)
        grid = parser.parse_overrides([f"{key}={v}" for key, v in self.params.items()] + arguments)
        (jobs,) = BasicSweeper.split_arguments(grid, None)
        configs = list(self._composed(jobs))
        folder = Path(self.master.hydra.sweep.dir)
        folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(self.master, folder / "multirun.yaml")
        folders = [(folder / job_name(overrides, self.params)).absolute() for overrides in jobs]
        returned = job.attempt_many(zip(configs, folders, strict=True), workers=self.workers)
        return list(tqdm(returned, total=len(jobs), unit="run", disable=None))

    def _composed(self, jobs: Sequence[Sequence[str]]) -> Iterator[Config]:
        """Each job's config, as Hydra would compose it."""
        from hydra._internal.config_loader_impl import ConfigLoaderImpl
        from hydra.core.override_parser.overrides_parser import OverridesParser

        from gpusim.composed import converted

        parse = cache(OverridesParser.create(config_loader=self.loader).parse_override)

        @cache
        def of_files(files: tuple[str, ...]) -> DictConfig:
            config = self.loader.load_sweep_config(self.master, list(files))
            with open_dict(config):
                del config.hydra
            return config

        for overrides in jobs:
            keys = [text for text in overrides if _SETS_A_KEY.fullmatch(text)]
            config = copy.deepcopy(of_files(tuple(text for text in overrides if text not in keys)))
            ConfigLoaderImpl._apply_overrides_to_config([parse(key) for key in keys], config)
            yield converted(config)
