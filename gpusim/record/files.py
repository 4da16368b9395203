"""Files of recordings: named after repeats, complete, and never written over another file."""

from __future__ import annotations

import json
import lzma
import os
import string
from pathlib import Path
from typing import Any

from gpusim.files import alone_in, whole_file
from gpusim.record.messages import CannotWriteError


def check_folder(folder: Path) -> None:
    """Check before QEMU starts that files can be written to a folder. It may not exist yet.

    Raises:
        CannotWriteError: they cannot.
    """
    parent = folder.absolute()
    while not parent.exists():
        parent = parent.parent
    if not (parent.is_dir() and os.access(parent, os.W_OK)):
        raise CannotWriteError("no_folder", folder=folder)


def write_recording(document: dict[str, Any], folder: Path, name: str) -> Path:
    """Write a recording as the next repeat of its name. Return its path.

    Raises:
        CannotWriteError: all letters are taken.
        OSError: disk full, or no permission.
    """
    stem = f"{name}.qemu{document['qemu']['major']}"
    folder.mkdir(parents=True, exist_ok=True)
    with alone_in(folder):
        path = free_path(folder, stem, ".json.xz")
        _write_packed(document, path)
    return path


def _write_packed(document: dict[str, Any], path: Path) -> None:
    """Write a recording as JSON, packed with xz. The file is complete or does not appear.

    Raises:
        OSError: it cannot be written.
    """
    packed = lzma.compress(json.dumps(document, separators=(",", ":"), allow_nan=False).encode())
    with whole_file(path) as file:
        file.write(packed)


def free_path(folder: Path, stem: str, suffix: str) -> Path:
    """Return the first of STEM.a.SUFFIX, STEM.b.SUFFIX, ... that does not exist.

    Raises:
        CannotWriteError: all letters are taken.
    """
    for letter in string.ascii_lowercase:
        path = folder / f"{stem}.{letter}{suffix}"
        if not path.exists():
            return path
    raise CannotWriteError("no_letter", folder=folder, stem=stem)
