"""The entry points of all commands. They import a command only to run it, inside of the wrapper."""

from __future__ import annotations

import sys
from functools import partial
from importlib import import_module

from gpusim.command import run_process
from gpusim.version import __version__

MODULES = {
    "gpusim": "gpusim.cli.app",
    "gpusim-collect": "gpusim.cli.collect",
    "gpusim-validate": "gpusim.cli.validate",
    "gpusim-record": "gpusim.cli.record",
    "gpusim-predict": "gpusim.cli.predict",
    "gpusim-bench": "gpusim.bench.cli",
}


def run(command: str) -> int:
    """Run a command as the whole process. Return its exit code."""
    return run_process(command, partial(_start, command))


def _start(command: str) -> int | None:
    if "--version" in sys.argv[1:]:  # before Hydra, which would print its own version
        print(f"{command} {__version__}")
        return 0
    code: int | None = import_module(MODULES[command]).main()
    return code


gpusim = partial(run, "gpusim")
collect = partial(run, "gpusim-collect")
validate = partial(run, "gpusim-validate")
record = partial(run, "gpusim-record")
predict = partial(run, "gpusim-predict")
bench = partial(run, "gpusim-bench")
