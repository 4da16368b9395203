"""The folder of one run: whether it holds results, and how it goes away again."""

from __future__ import annotations

import shutil
from pathlib import Path

_WRITTEN_BY_HYDRA = {".hydra", "gpusim.log"}


def holds_no_results(folder: Path) -> bool:
    """Return whether only Hydra has written here, so that the run may remove the folder."""
    names = {path.name for path in folder.iterdir()}
    return folder != Path.cwd() and names <= _WRITTEN_BY_HYDRA


def discard(folder: Path, is_new: bool) -> None:
    """Remove the folder that Hydra made, and each empty folder of outputs/DATE above it.

    Args:
        folder: of the run.
        is_new: the folder held no results when the run began. Any other folder stays.
    """
    if not is_new:
        return
    shutil.rmtree(folder, ignore_errors=True)
    outputs = Path.cwd() / "outputs"
    for parent in folder.parents:
        if not parent.is_relative_to(outputs) or any(parent.iterdir()):
            return
        parent.rmdir()
