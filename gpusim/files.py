"""A file that exists is complete: it is written under a temporary name and then renamed.

Owns this promise, the lock that keeps two processes out of one folder, and the format of CSV files.
"""

from __future__ import annotations

import csv
import errno
import fcntl
import io
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

_TEMPORARY = ".gpusim.tmp"
_FORMULA = ("=", "+", "-", "@", "\t", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
_NUMBER = re.compile(r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")


def can_be_written(path: Path) -> bool:
    """Return whether a file can be written as `path`. Ask before the work that it will hold."""
    if _is_stream(path):
        return os.access(path, os.W_OK)
    path = _target_of(path)
    folder = path.absolute().parent
    return (
        not path.is_symlink()
        and folder.is_dir()
        and os.access(folder, os.W_OK)
        and not path.is_dir()
    )


@contextmanager
def whole_file(path: Path) -> Iterator[IO[bytes]]:
    """Yield a file in memory that becomes `path` if the block ends without an error.

    Its bytes are written under a hidden name in the same folder, so the rename is atomic. Nothing of
    it stays if that fails, and an earlier file `path` stays until the rename. A symbolic link stays,
    and the file that it leads to is written. A device such as /dev/stdout is written as it is,
    because a rename would put a file in its place.

    Raises:
        OSError: the file cannot be written or renamed. `filename` is `path`.
    """
    content = io.BytesIO()
    yield content
    try:
        _write(path, content.getbuffer())
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def _is_stream(path: Path) -> bool:
    """Return whether a path names a device, or an open file of a process: /dev/stdout, /dev/fd/63."""
    link = os.readlink(path) if path.is_symlink() else ""
    is_open_file = link.startswith("/proc/") or Path(os.path.realpath(path.parent)).is_relative_to(
        "/proc"
    )
    return path.is_char_device() or (is_open_file and path.exists())


def _target_of(path: Path) -> Path:
    """Return the file that a symbolic link leads to, also if it does not exist yet."""
    return Path(os.path.realpath(path)) if path.is_symlink() else path


def _write(path: Path, content: memoryview) -> None:
    if _is_stream(path):
        with path.open("wb") as stream:
            stream.write(content)
        return
    path = _target_of(path)
    if path.is_symlink():  # to itself
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
    temporary, file = _open_temporary(path)
    try:
        with file:
            left = content
            while left:  # a disk that is nearly full takes a part
                left = left[file.write(left) :]
            os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _open_temporary(path: Path) -> tuple[Path, io.FileIO]:
    """Return a new file beside `path`. Its lock tells `remove_leftovers` that the writer lives."""
    while True:
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}{_TEMPORARY}")
        file = io.FileIO(
            temporary, "x"
        )  # without a buffer, which would be written after the rename
        with suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_EX)
        if os.fstat(file.fileno()).st_nlink:
            return temporary, file
        file.close()  # remove_leftovers removed the file before this process locked it


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


@contextmanager
def whole_folder(folder: Path) -> Iterator[None]:
    """Empty a folder again if the block does not end. One that held files before stays as it is."""
    was_there = folder.exists()
    was_empty = not was_there or not any(folder.iterdir())
    try:
        yield
    except BaseException:
        if was_empty:
            shutil.rmtree(folder, ignore_errors=True)
        if was_there:
            folder.mkdir(exist_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, completely or not at all. Line ends stay as they are."""
    with whole_file(path) as file:
        file.write(text.encode())


def csv_text(rows: Iterable[Iterable[object]]) -> str:
    """Return rows as the text of a CSV file, with "\\n" line ends. None is an empty cell.

    A text that a spreadsheet would run as a formula begins with an apostrophe. Numbers stay numbers,
    also as text: -1.5.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([_without_formula(cell) for cell in row] for row in rows)
    return text.getvalue()


def _without_formula(cell: object) -> object:
    if not isinstance(cell, str):
        return cell
    text = cell.replace("\r\n", "\n").replace("\r", "\n")  # csv does not quote a lone "\r"
    is_formula = text.startswith(_FORMULA) and not _NUMBER.fullmatch(text)
    return f"'{text}" if is_formula else text


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files of processes that were killed while they wrote here.

    A writer holds a lock on its file until the rename, so the file of a living process stays, also if
    the process runs on another host. On a file system without locks every file stays.
    """
    for path in folder.glob(f".*{_TEMPORARY}"):
        with suppress(OSError):  # it went away, or it cannot be locked or removed
            _remove_unlocked(path)


def _remove_unlocked(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
    try:
        if stat.S_ISREG(os.fstat(handle).st_mode):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
    finally:
        os.close(handle)
