"""A file that exists is whole: written under a temporary name in its folder, then renamed.

Owns that promise, what keeps two processes out of one folder, the error that this package raises,
and whether an optional package is there. It knows no format.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

_TEMPORARY = ".gpusim.tmp"


def can_be_written(path: Path) -> bool:
    """Whether a file can appear as `path`: to ask before the work whose result it shall hold."""
    folder = path.absolute().parent
    return folder.is_dir() and os.access(folder, os.W_OK) and not path.is_dir()


@contextmanager
def whole_file(path: Path) -> Iterator[IO[bytes]]:
    """A binary file that appears as `path` when the block ends well, and not at all otherwise.

    The temporary file is hidden, lies in the same folder, so that the rename is atomic, and is
    removed whatever stops the block. What `path` held before stays until the rename.

    Raises:
        OSError: the file cannot be written or renamed.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}{_TEMPORARY}")
    try:
        with temporary.open("wb") as file:
            yield file
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Wait until no other process is in this block for the same folder, and keep others out.

    The lock is the folder's own and goes with the process, however it ends. A file system that knows
    no such locks, as some of a network's do not, lets everyone in.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, whole or not at all; line ends stay as they are."""
    with whole_file(path) as file:
        file.write(text.encode())


def remove_leftovers(folder: Path) -> None:
    """Remove temporary files of a process that was killed while it wrote here."""
    for path in folder.glob(f".*{_TEMPORARY}"):
        path.unlink(missing_ok=True)
