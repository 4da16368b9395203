"""A file that exists is complete: it is written under a temporary name and then renamed.

Owns this promise, the lock that keeps two processes out of one folder, and the format of CSV files.
"""

from __future__ import annotations

import csv
import fcntl
import io
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

_TEMPORARY = ".gpusim.tmp"


def can_be_written(path: Path) -> bool:
    """Return whether a file can be written as `path`. Ask before the work that it will hold."""
    folder = path.absolute().parent
    return folder.is_dir() and os.access(folder, os.W_OK) and not path.is_dir()


@contextmanager
def whole_file(path: Path) -> Iterator[IO[bytes]]:
    """Yield a binary file that becomes `path` if the block ends without an error.

    The temporary file is hidden. It lies in the same folder, so the rename is atomic. It is removed
    if anything stops the block. An earlier file `path` stays until the rename.

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

    The lock is on the folder, and ends with the process. A file system without such locks, such as
    some network file systems, lets every process in.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, completely or not at all. Line ends stay as they are."""
    with whole_file(path) as file:
        file.write(text.encode())


def csv_text(rows: Iterable[Iterable[object]]) -> str:
    """Return rows as the text of a CSV file, with "\\n" line ends. None is an empty cell."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files of a process that was killed while it wrote here."""
    for path in folder.glob(f".*{_TEMPORARY}"):
        path.unlink(missing_ok=True)
