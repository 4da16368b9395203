"""The folder of one run or sweep: whether it holds results, and how it goes away again."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
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


class FolderBefore:
    """What a folder held before Hydra wrote there, so that a refused command can restore it.

    Attributes:
        folder: of the run or sweep. It may not exist yet.
        files: path -> bytes of each file that Hydra may write, or None if there was none.
        names: of everything in the folder.
    """

    def __init__(self, folder: Path, files: Sequence[str]) -> None:
        self.folder = folder.absolute()
        self.names = self._names()
        self.files = {path: _content(path) for path in (self.folder / name for name in files)}
        parents = {parent for path in self.files for parent in path.parents}
        self._folders = {parent: parent.is_dir() for parent in (self.folder, *parents)}

    def _names(self) -> set[str]:
        return {path.name for path in self.folder.iterdir()} if self.folder.is_dir() else set()

    def has_more(self) -> bool:
        """Return whether something is there besides the files and what was there before."""
        inside = (path for path in self.files if path.is_relative_to(self.folder))
        ours = {path.relative_to(self.folder).parts[0] for path in inside}
        return bool(self._names() - self.names - ours)

    def restore(self) -> None:
        """Write the files as they were, and remove each folder that is new and empty.

        A folder that was there before is there again. What cannot be restored stays as it is.
        """
        for path, content in self.files.items():
            try:
                if content is None:
                    path.unlink(missing_ok=True)
                elif _content(path) != content:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(content)
            except OSError:
                continue
        for folder, was_there in sorted(self._folders.items(), reverse=True):
            try:
                if was_there:
                    folder.mkdir(parents=True, exist_ok=True)
                else:
                    folder.rmdir()
            except OSError:
                continue


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes() if path.is_file() else None
    except OSError:
        return None
