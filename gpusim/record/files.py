"""Recordings as files: named, whole, and never over another."""

from __future__ import annotations

import json
import lzma
import os
import string
from pathlib import Path
from typing import Any

from gpusim.files import alone_in, whole_file


class CannotWriteError(Exception):
    """The file of a recording cannot appear where it was asked for; one line for the user."""


def check_folder(folder: Path) -> None:
    """Check before QEMU starts that a file can appear there; the folder itself is made later.

    Raises:
        CannotWriteError: it cannot.
    """
    there = folder.absolute()
    while not there.exists():
        there = there.parent
    if not (there.is_dir() and os.access(there, os.W_OK)):
        raise CannotWriteError(f"{folder}: cannot be written; expected a folder, or where one can be made")  # fmt: skip


def write_recording(document: dict[str, Any], folder: Path, name: str) -> Path:
    """Write a recording as the next repeat of its name.

    Raises:
        CannotWriteError: disk full, no right, or all letters taken.
    """
    stem = f"{name}.qemu{document['qemu']['major']}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with alone_in(folder):
            path = free_path(folder, stem)
            write_packed(document, path)
    except OSError as error:
        raise CannotWriteError(f"{folder}: cannot be written ({error.strerror or error})") from None
    return path


def write_packed(document: dict[str, Any], path: Path) -> None:
    """Write a recording as JSON, packed with xz, whole or not at all.

    Raises:
        OSError: it cannot be written.
    """
    packed = lzma.compress(json.dumps(document, separators=(",", ":"), allow_nan=False).encode())
    with whole_file(path) as file:
        file.write(packed)


def free_path(folder: Path, stem: str) -> Path:
    """The first of STEM.a.json.xz, STEM.b.json.xz, ... that is not there.

    Raises:
        CannotWriteError: all are.
    """
    for letter in string.ascii_lowercase:
        path = folder / f"{stem}.{letter}.json.xz"
        if not path.exists():
            return path
    raise CannotWriteError(f"{folder}: {stem}.a to .z are there; expected a free letter, move some")
