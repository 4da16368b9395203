"""`hydra/sweeper=batch`: a sweep whose jobs share one process, for thousands of small points.

Hydra composes each job's config twice, and sets up logging and four files for it. This takes a
quarter of a second, and a small migration takes a few milliseconds. This sweeper composes a config
once for each choice of files. Then it sets single keys in it, and OmegaConf checks their types.
It does this before the first job runs, so a mistyped key stops the sweep as in Hydra.

Hydra finds plugins only in the package hydra_plugins, so the file lies here. Every Hydra program of
the environment imports it. For this reason it imports gpusim only when it sweeps.
"""

from __future__ import annotations

import copy
import re
import sys
from collections.abc import Callable, Iterator, Sequence
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

_SETS_A_KEY = re.compile(
    r"seed=.*|[a-z_]+\.[\w.]+=.*", re.DOTALL
)  # any other override may choose a file


class BatchSweeper(Sweeper):
    """Runs all points of a grid in this process, or in several.

    A job's folder holds the same files as other runs, but neither .hydra/ nor gpusim.log.

    Args:
        workers: number of processes. 1 is this process, 0 is one process per core.
        params: override -> its values, as for Hydra's basic sweeper.
    """

    def __init__(self, workers: int = 1, params: dict[str, str] | None = None) -> None:
        self.workers, self.params = workers, params or {}
        self.loader: ConfigLoader
        self.master: DictConfig

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Keep what `sweep` needs. The jobs do not run through `task_function`.

        Raises:
            ConfigError: this sweeper would ignore a setting.
        """
        self.loader, self.master = hydra_context.config_loader, config
        self._check()

    def _check(self) -> None:
        """Refuse settings that this sweeper would ignore, because it is its own launcher."""
        from gpusim import ConfigError

        settings = self.master.hydra
        hint = "hydra/sweeper=batch runs all jobs itself. Set hydra/sweeper=basic"
        if not isinstance(self.workers, int) or self.workers < 0:
            allowed = "must be 1 or more, or 0 for one per core"
            raise ConfigError("hydra.sweeper.workers", self.workers, allowed, "out_of_range")
        if not settings.launcher._target_.endswith(".BasicLauncher"):
            raise ConfigError("hydra.launcher", settings.launcher._target_, hint, "not_supported")
        if settings.job.env_set:
            raise ConfigError("hydra.job.env_set", settings.job.env_set, hint, "not_supported")
        subdir = OmegaConf.to_container(settings.sweep, resolve=False)["subdir"]  # type: ignore[call-overload, index]
        if "gpusim_job_name" not in subdir:
            raise ConfigError("hydra.sweep.subdir", subdir, hint, "not_supported")

    def sweep(self, arguments: list[str]) -> list[Any]:
        """Run the grid of all values and return the objectives.

        Raises:
            ConfigError, HydraException: an override does not compose. No job has run then.
            SystemExit: the sweep was interrupted, or a job of a dry run failed.
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
        points = (
            (config, path, show) for (config, show), path in zip(configs, folders, strict=True)
        )
        running = job.run_jobs(points, workers=self.workers)
        returned = list(tqdm(running, total=len(jobs), unit="run", disable=None))
        if self.master.dry_run and None in returned:
            sys.exit(EXIT_SOME_FAILED)
        return returned

    def _composed(
        self, jobs: Sequence[Sequence[str]]
    ) -> Iterator[tuple[Config | ConfigError, Callable[[ConfigError], ConfigError]]]:
        """Yield each job's config as Hydra would compose it, or the error in its place.

        The function beside it shows the value of an error as the user typed it.
        """
        from hydra._internal.config_loader_impl import ConfigLoaderImpl
        from hydra.core.override_parser.overrides_parser import OverridesParser

        from gpusim import ConfigError
        from gpusim.config.compose import as_typed, converted
        from gpusim.config.compose_errors import one_compose_error

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
            with one_compose_error(overrides):
                ConfigLoaderImpl._apply_overrides_to_config([parse(key) for key in keys], config)
            try:
                found: Config | ConfigError = converted(config, overrides)
            except ConfigError as error:
                found = error
            yield found, as_typed(config)
