"""Hydra's part of the command `gpusim`: its options, one run, or a sweep.

It does what `hydra.main` does, without Hydra's printing of errors. A config that does not compose is
one ConfigError. A command that is refused leaves every folder as it was.
"""

from __future__ import annotations

import argparse
import io
import os
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from functools import partial
from pathlib import Path
from shutil import which
from typing import Any, NoReturn

from hydra import version
from hydra._internal.callbacks import Callbacks
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path, get_args_parser
from hydra.core.config_search_path import ConfigSearchPath, SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.core.utils import JobStatus, run_job
from hydra.errors import HydraException
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from gpusim.cli.job import DISK_IS_FULL, add_hint
from gpusim.cli.output import Output
from gpusim.cli.run_folder import FolderBefore
from gpusim.config.compose import typed_overrides
from gpusim.config.compose_errors import compose_error, one_compose_error
from gpusim.config.presets import conf_folder
from gpusim.config.schema import PATTERNS, Config
from gpusim.config.sweep_values import check_grid, check_values
from gpusim.errors import ConfigError, UsageError
from gpusim.results.sweeps.runs import SWEEP
from gpusim.text import join_words

Task = Callable[..., Any]
_MULTIRUN = "multirun.yaml"  # written by Hydra's and by our sweepers
_HYDRA_FILES = ("config.yaml", "hydra.yaml", "overrides.yaml")
_NAME = "config"
_DATA_CLASSES = {"base_config", *(f"base_{pattern}" for pattern in PATTERNS)}  # see compose.py
# What a sweeper raises before the first job, if its values do not compose.
_OF_COMPOSING = (HydraException, OmegaConfBaseException, AssertionError, TypeError, ValueError)


class _Loader(ConfigLoaderImpl):
    """Hydra's loader of configs, with its errors as ConfigError. Launchers send it to processes.

    Args:
        search_path: where configs lie.
        folders: of the user's, with more presets.
    """

    def __init__(self, search_path: ConfigSearchPath, folders: Sequence[Path]) -> None:
        super().__init__(search_path)
        self.folders = folders

    def load_configuration(
        self, config_name: str | None, overrides: list[str], *args: Any, **named: Any
    ) -> DictConfig:
        with one_compose_error(overrides, self.folders):
            config = super().load_configuration(config_name, overrides, *args, **named)
        if config_name is not None and not issubclass(OmegaConf.get_type(config) or dict, Config):
            allowed = 'is no config of gpusim. Its defaults must begin with "base_config"'
            raise ConfigError("--config-name", config_name, allowed, "wrong_type")
        return config

    def get_group_options(self, *arguments: Any, **named: Any) -> list[str]:
        """Return the presets of a group, without the data classes from which they take their keys."""
        names = super().get_group_options(*arguments, **named)
        return [name for name in names if name not in _DATA_CLASSES]


def run_hydra(task: Task, arguments: Sequence[str]) -> None:
    """Compose configs for a command line, and run the task with each.

    Args:
        task: runs one job, from its config and an Output. It returns the job's objective.
        arguments: Hydra's options and overrides.

    Raises:
        UsageError: an option is unknown. No folder is changed.
        ConfigError: a config does not compose. No folder is changed.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises its errors instead of printing them
    version.setbase("1.3")
    options, parser = _options(arguments)
    path = create_config_search_path(options.config_path or str(conf_folder()))
    folders = []
    if options.config_dir is not None:
        folders = [Path(options.config_dir)]
        where = f"file://{options.config_dir}"
        path.prepend("command-line", where, SearchPathQuery(provider="schema"))
    hydra = Hydra("app", _Loader(path, folders))
    GlobalHydra.instance().initialize(hydra)
    try:
        _run(hydra, task, options, parser)
    finally:
        GlobalHydra.instance().clear()


def _options(arguments: Sequence[str]) -> tuple[argparse.Namespace, argparse.ArgumentParser]:
    """Return Hydra's options, and their parser for the help.

    Raises:
        UsageError: there is no such option, or two exclude each other.
        ConfigError: a folder does not exist.
    """
    parser = get_args_parser()
    parser.add_argument("--quiet", action="store_true", help="Print only the folder of the results")
    parser.add_argument(
        "--json", action="store_true", help="Print summary.json on one line per run"
    )
    parser.error = _refuse_options  # type: ignore[method-assign]
    options = parser.parse_intermixed_args(arguments)
    modes = {
        "--run": options.run,
        "--multirun": options.multirun,
        "--cfg": options.cfg is not None,
        "--info": options.info is not None,
        "--shell-completion": options.shell_completion,
    }
    chosen = [name for name, is_set in modes.items() if is_set]
    if len(chosen) > 1:
        _refuse_options(f"{join_words(chosen)} exclude each other")
    if options.experimental_rerun is not None:
        _refuse_options("--experimental-rerun is not supported. Use .hydra/overrides.yaml")
    if options.resolve and not (options.cfg or options.help):
        _refuse_options("--resolve needs --cfg job or --help")
    for option in ("quiet", "json"):
        others = [name for name in chosen if name not in ("--run", "--multirun")]
        if getattr(options, option) and (others or options.help or options.hydra_help):
            _refuse_options(f"--{option} is for runs. Leave out {join_words(others or ['--help'])}")
        if getattr(options, option) and options.config_path is not None:
            _refuse_options(f"--{option} needs gpusim's own presets. Leave out --config-path")
    if options.package is not None and not options.cfg:
        _refuse_options("--package needs --cfg job, --cfg hydra or --cfg all")
    for key in ("config_path", "config_dir"):
        given = getattr(options, key)
        if given is not None and not given.startswith("pkg://"):
            if not os.path.isdir(given):
                option = f"--{key.replace('_', '-')}"
                raise ConfigError(option, given, "there is no such folder", "unknown_choice")
            setattr(options, key, os.path.abspath(given))
    options.config_name = options.config_name or _NAME
    return options, parser


def _refuse_options(message: str) -> NoReturn:
    raise UsageError("usage", message=message, command="gpusim")


def _run(
    hydra: Hydra, task: Task, options: argparse.Namespace, parser: argparse.ArgumentParser
) -> None:
    name, overrides = options.config_name, list(options.overrides)
    if options.help:
        hydra.app_help(name, parser, options)
    elif options.hydra_help:
        hydra.hydra_help(name, parser, options)
    elif options.cfg:
        _show_config(hydra, options)
    elif options.shell_completion:
        _complete(hydra, name, overrides)
    elif options.info:
        _compose(hydra, name, overrides, RunMode.RUN, is_final=False)  # an error comes first
        hydra.show_info(options.info, name, overrides)
    else:
        config = _compose(hydra, name, overrides, RunMode.MULTIRUN, is_final=False)
        check_values(overrides, hydra.config_loader)
        with one_compose_error(overrides):
            has_no_summary = options.json and config.dry_run
        if has_no_summary:
            allowed = "a dry run has no summary. Leave out dry_run or --json"
            raise ConfigError("dry_run", True, allowed, "contradiction")
        mode = RunMode.MULTIRUN if options.multirun else config.hydra.mode or RunMode.RUN
        run = _run_once if mode == RunMode.RUN else _run_sweep
        run(hydra, partial(task, output=_output(options)), name, [*_shows(options), *overrides])


def _output(options: argparse.Namespace) -> Output:
    if options.json:
        return Output(has_bar=not options.quiet, shows="summary")
    return Output(has_bar=not options.quiet, shows="folder" if options.quiet else "text")


def _shows(options: argparse.Namespace) -> list[str]:
    """Return the overrides that all processes of a run or sweep need for --quiet and --json."""
    shows = _output(options).shows
    logging = ["hydra/job_logging=quiet", "hydra/hydra_logging=quiet"] * options.quiet
    return logging + [f"hydra.callbacks.report.shows={shows}"] * (shows != "text")


def _compose(
    hydra: Hydra, name: str, overrides: list[str], mode: RunMode, *, is_final: bool = True
) -> DictConfig:
    """Return the config of a run or sweep. If it is final, then also set up the log."""
    with one_compose_error(overrides):
        config: DictConfig = hydra.compose_config(
            name,
            overrides,
            mode,
            with_log_configuration=is_final,
            validate_sweep_overrides=is_final,
        )
        if is_final:
            config.hydra.mode = mode
    return config


def _complete(hydra: Hydra, name: str, overrides: list[str]) -> None:
    """Print a shell's code for completion, or the completions of what the user typed so far."""
    try:
        with one_compose_error(overrides):
            hydra.shell_completion(name, overrides)
    except ConfigError:
        if not any(text.startswith("query=") for text in overrides):
            raise  # an unfinished word is no error


def _show_config(hydra: Hydra, options: argparse.Namespace) -> None:
    name, overrides, package = options.config_name, list(options.overrides), options.package
    try:
        with redirect_stderr(io.StringIO()), one_compose_error(overrides):
            hydra.show_cfg(name, overrides, options.cfg, package, options.resolve)
    except SystemExit:
        allowed = "no such key or group in the config"
        raise ConfigError("--package", package, allowed, "unknown_key") from None


def _run_once(hydra: Hydra, task: Task, name: str, overrides: list[str]) -> None:
    config = _compose(hydra, name, overrides, RunMode.RUN)
    with one_compose_error(overrides):
        folder, output = _folder("hydra.run.dir", config.hydra.run.dir), config.hydra.output_subdir
        files = [f"{output}/{file}" for file in _HYDRA_FILES] if output is not None else []
        callbacks, log = Callbacks(config), f"{config.hydra.job.name}.log"
    before = _folder_before("hydra.run.dir", folder, [*files, log])
    is_started = False

    def started(composed: DictConfig) -> Any:
        nonlocal is_started
        is_started = True
        return task(composed)

    try:
        callbacks.on_run_start(config=config, config_name=name)
        context = HydraContext(config_loader=hydra.config_loader, callbacks=callbacks)
        ret = run_job(started, config, "hydra.run.dir", None, context)
        if ret.status == JobStatus.FAILED:
            raise ret._return_value
    except BaseException as error:
        is_refused = isinstance(error, KeyboardInterrupt | ConfigError) or config.dry_run
        if not is_started or (is_refused and not before.has_more()):
            before.restore()
        if isinstance(error, Exception) and not is_started:
            raise _refusal(error, "hydra.run.dir", folder, overrides) from error
        raise
    if config.dry_run:
        before.restore()
    callbacks.on_run_end(config=config, config_name=name, job_return=ret)


def _run_sweep(hydra: Hydra, task: Task, name: str, overrides: list[str]) -> None:
    config = _compose(hydra, name, overrides, RunMode.MULTIRUN)
    of_jobs = config.hydra.overrides.hydra
    of_jobs.append("hydra.mode=MULTIRUN")
    if config.dry_run:  # it must not write over what earlier runs have left
        of_jobs.append("hydra.output_subdir=null")
    with one_compose_error(overrides):
        folder, callbacks = _folder("hydra.sweep.dir", config.hydra.sweep.dir), Callbacks(config)
        arguments = typed_overrides(config.hydra.overrides.task)
    _check_plugins(config)
    check_grid(config.hydra.sweeper, arguments, hydra.config_loader)
    before = _folder_before("hydra.sweep.dir", folder, [_MULTIRUN, SWEEP])
    _check_jobs(config, folder)
    context = HydraContext(config_loader=hydra.config_loader, callbacks=callbacks)
    try:
        callbacks.on_multirun_start(config=config, config_name=name)
        with one_compose_error(overrides):
            sweeper = Plugins.instance().instantiate_sweeper(
                config=config, hydra_context=context, task_function=task
            )
        sweeper.sweep(arguments=arguments)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            add_hint(error, folder)
        if before.has_more():
            raise
        before.restore()
        if isinstance(error, _OF_COMPOSING) or getattr(error, "filename", None) is not None:
            raise _refusal(error, "hydra.sweep.dir", folder, overrides) from error
        raise
    if config.dry_run and not before.has_more():
        before.restore()
    callbacks.on_multirun_end(config=config, config_name=name)


def _folder(key: str, value: object) -> Path:
    """Return the folder of a key. Refuse an empty text, such as "$FOLDER" that is not set."""
    if value is None or not str(value).strip():
        raise ConfigError(key, value, 'must be a folder. "." is the current one', "missing")
    return Path(str(value))


def _folder_before(key: str, folder: Path, files: Sequence[str]) -> FolderBefore:
    try:
        before = FolderBefore(folder, files)
    except OSError as error:
        raise _refusal(error, key, folder, []) from error
    for path in before.files:
        if path.exists() and not path.is_file():  # Hydra would wait for a reader of a pipe
            raise ConfigError(key, folder, f"{path.name} in it is no regular file. Remove it")
    return before


def _check_plugins(config: DictConfig) -> None:
    """Refuse a sweep without a sweeper or launcher, and Slurm's launcher on a machine without Slurm.

    They would fail after the folder is made.
    """
    for name in ("sweeper", "launcher"):
        if OmegaConf.is_missing(config.hydra, name) or config.hydra[name] is None:
            allowed = f"must not be null. Write hydra/{name}=basic"
            raise ConfigError(f"hydra.{name}", "null", allowed, "missing")
    target = str(config.hydra.launcher.get("_target_"))
    if target.endswith(".SlurmLauncher") and which("srun") is None:
        allowed = "needs Slurm, and there is no srun here. Type hydra/launcher=processes"
        name = config.hydra.runtime.choices.get("hydra/launcher", target)
        raise ConfigError("hydra/launcher", name, allowed, "not_installed")


def _check_jobs(config: DictConfig, folder: Path) -> None:
    """Refuse a sweep in whose job folders Hydra would wait for a reader of a pipe."""
    output, log = config.hydra.output_subdir or ".", f"{config.hydra.job.name}.log"
    for job in folder.glob("*/"):
        for name in (log, *(f"{output}/{file}" for file in _HYDRA_FILES)):
            path = job / name
            if path.exists() and not path.is_file():
                allowed = f"{job.name}/{name} in it is no regular file. Remove it"
                raise ConfigError("hydra.sweep.dir", folder, allowed)


def _refusal(
    error: BaseException, key: str, folder: Path, overrides: Sequence[str]
) -> BaseException:
    """Return why nothing was run: the folder or the config."""
    if isinstance(error, MemoryError) or getattr(error, "errno", None) in DISK_IS_FULL:
        return error
    if isinstance(error, OSError) and not isinstance(error, HydraException):
        reason = f"cannot be written ({error.strerror or error}). Name another"
        return ConfigError(key, folder, reason)
    return compose_error(error, overrides)
