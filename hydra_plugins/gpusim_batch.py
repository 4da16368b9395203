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
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.config_loader import ConfigLoader
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

if TYPE_CHECKING:
    from gpusim.config.schema import Config
    from gpusim.errors import ConfigError

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
        from gpusim import ConfigError
        from gpusim.cli import job
        from gpusim.results.sweeps.runs import SWEEP

        self.loader, self.master = hydra_context.config_loader, config
        try:
            self._check()
        except ConfigError as error:
            folder = Path(config.hydra.sweep.dir).absolute()
            fresh = folder.is_dir() and {path.name for path in folder.iterdir()} <= {SWEEP}
            job.discard(folder, fresh)
            job.stop(error, job.EXIT_CONFIG)

    def _check(self) -> None:
        """Refuse what would be passed over: this sweeper is its own launcher."""
        from gpusim import ConfigError

        settings = self.master.hydra
        way_out = "hydra/sweeper=batch runs all jobs itself; take hydra/sweeper=basic"
        if self.workers < 0:
            allowed = "must be 1 or more, or 0 for one a core"
            raise ConfigError("hydra.sweeper.workers", self.workers, allowed)
        if not settings.launcher._target_.endswith(".BasicLauncher"):
            raise ConfigError("hydra.launcher", settings.launcher._target_, way_out)
        if settings.job.env_set:
            raise ConfigError("hydra.job.env_set", settings.job.env_set, way_out)
        subdir = OmegaConf.to_container(settings.sweep, resolve=False)["subdir"]  # type: ignore[call-overload, index]
        if "gpusim_job_name" not in subdir:
            raise ConfigError("hydra.sweep.subdir", subdir, way_out)

    def sweep(self, arguments: list[str]) -> list[Any]:
        """Run the grid of all values.

        Raises:
            HydraException: an override that does not compose; before any job runs.
            SystemExit: interrupted, or jobs of a dry run cannot be run.
        """
        from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
        from hydra.core.override_parser.overrides_parser import OverridesParser
        from tqdm import tqdm

        from gpusim.cli import job
        from gpusim.cli.sweep_report import EXIT_SOME_FAILED, job_name

        parser = OverridesParser.create(config_loader=self.loader)
        grid = parser.parse_overrides([f"{key}={v}" for key, v in self.params.items()] + arguments)
        (jobs,) = BasicSweeper.split_arguments(grid, None)
        configs = list(self._composed(jobs))
        folder = Path(self.master.hydra.sweep.dir)
        folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(self.master, folder / "multirun.yaml")
        folders = [(folder / job_name(overrides, self.params)).absolute() for overrides in jobs]
        points = zip(configs, folders, strict=True)
        running = job.attempt_many(points, workers=self.workers)
        returned = list(tqdm(running, total=len(jobs), unit="run", disable=None))
        if self.master.dry_run and None in returned:
            sys.exit(EXIT_SOME_FAILED)
        return returned

    def _composed(self, jobs: Sequence[Sequence[str]]) -> Iterator[Config | ConfigError]:
        """Each job's config, as Hydra would compose it, or why it cannot be simulated."""
        from hydra._internal.config_loader_impl import ConfigLoaderImpl
        from hydra.core.override_parser.overrides_parser import OverridesParser

        from gpusim import ConfigError
        from gpusim.config.compose import converted

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
            try:
                yield converted(config)
            except ConfigError as error:
                yield error
