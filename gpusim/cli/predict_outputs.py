"""Where gpusim-predict writes, and that it can, before any work starts."""

from __future__ import annotations

import argparse
from collections.abc import Iterable


def check_outputs(options: argparse.Namespace, keys: Iterable[str]) -> None:
    """Check the files of some options, and the folder of --report.

    Args:
        options: of the command.
        keys: names of options with a file. A file named - is standard output.

    Raises:
        ConfigError: a file cannot be written, or the folder is not empty.
        CannotWriteError: files cannot be written to the folder.
    """
    from gpusim.config.checks import reject
    from gpusim.files import can_be_written
    from gpusim.record.files import check_folder

    for key in keys:
        path = getattr(options, key)
        if path is not None and str(path) != "-" and not can_be_written(path):
            reject(f"--{key}", path, "cannot be written. Name a file in an existing folder")
    if options.report:
        check_folder(options.report)
        if options.report.is_dir() and any(options.report.iterdir()):
            reject("--report", options.report, "is not empty. Name an empty or a new folder")
