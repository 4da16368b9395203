"""Are recordings named after repeats, complete, and never written over each other?"""

from __future__ import annotations

import json
import lzma
from pathlib import Path

import pytest

from gpusim.record.files import check_folder, write_recording
from gpusim.record.messages import CannotWriteError

DOCUMENT = {"qemu": {"major": 7}, "samples": []}


def test_repeats_get_the_next_letter(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    check_folder(folder)
    assert not folder.exists()
    found = [write_recording(DOCUMENT, folder, "case").name for _ in range(3)]
    assert found == [f"case.qemu7.{letter}.json.xz" for letter in "abc"]
    assert sorted(path.name for path in folder.iterdir()) == found
    (folder / found[1]).write_bytes(b"mine")
    write_recording(DOCUMENT, folder, "case")
    assert (folder / found[1]).read_bytes() == b"mine"
    assert json.loads(lzma.decompress((folder / found[0]).read_bytes())) == DOCUMENT


def test_no_letter_left(tmp_path: Path) -> None:
    for letter in "abcdefghijklmnopqrstuvwxyz":
        (tmp_path / f"case.qemu7.{letter}.json.xz").touch()
    with pytest.raises(CannotWriteError) as caught:
        write_recording(DOCUMENT, tmp_path, "case")
    assert (caught.value.code, caught.value.data["stem"]) == ("no_letter", "case.qemu7")


def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CannotWriteError) as caught:
        check_folder(tmp_path / "file" / "out")
    assert caught.value.code == "no_folder"
