"""Is a file whole or absent, and is a CSV file the same and harmless on every machine?"""

from __future__ import annotations

import csv
import fcntl
import io
import os
from pathlib import Path

import pytest

from gpusim.files import (
    can_be_written,
    csv_text,
    remove_leftovers,
    whole_file,
    whole_folder,
    write_text,
)


def test_csv_text_has_plain_line_ends_and_quotes_what_it_must() -> None:
    assert csv_text([["a", "b"], [1, None], ["x,y", 'say "no"']]) == (
        'a,b\n1,\n"x,y","say ""no"""\n'
    )


@pytest.mark.parametrize("text", ["=1+1", "+a", "-a", "@SUM(A1)", "\t=1", "\r=1", "\uff1d1", "-"])
def test_a_spreadsheet_runs_no_cell(text: str) -> None:
    (row,) = csv.reader(io.StringIO(csv_text([["run", text]]), newline=""))
    assert row == ["run", "'" + text.replace("\r", "\n")]


@pytest.mark.parametrize("number", [-1.5, "-1.5", "+3", "-1e-09", "-.5", -7])
def test_numbers_stay_numbers(number: object) -> None:
    assert csv_text([[number]]) == f"{number}\n"


def test_leftovers_are_removed_but_no_file_of_a_living_writer(tmp_path: Path) -> None:
    killed = tmp_path / ".runs.csv.1.gpusim.tmp"
    killed.write_text("half of a ta")
    empty = tmp_path / ".index.html.3.gpusim.tmp"
    empty.touch()
    os.mkfifo(tmp_path / ".pipe.gpusim.tmp")
    with whole_file(tmp_path / "runs.csv") as file:
        file.write(b"whole")
        file.flush()
        remove_leftovers(tmp_path)
        assert not killed.exists()
        assert not empty.exists()
    assert (tmp_path / "runs.csv").read_bytes() == b"whole"


def test_a_file_that_was_removed_before_its_lock_is_opened_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, removals = fcntl.flock, []

    def lock_late(file: object, operation: int) -> None:
        if not removals:
            removals.append(list(tmp_path.iterdir()))
            remove_leftovers(tmp_path)
        lock(file, operation)  # type: ignore[arg-type]

    monkeypatch.setattr("gpusim.files.fcntl.flock", lock_late)
    with whole_file(tmp_path / "runs.csv") as file:
        file.write(b"whole")
    assert len(removals[0]) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["runs.csv"]
    assert (tmp_path / "runs.csv").read_bytes() == b"whole"


def test_a_device_and_an_open_file_are_written_as_they_are(tmp_path: Path) -> None:
    """A rename would put a file in the place of /dev/null, if the user may do that."""
    null = Path("/dev/null")
    assert can_be_written(null)
    write_text(null, "dropped")
    assert null.is_char_device()
    with (tmp_path / "open").open("wb") as file:
        for name in (f"/dev/fd/{file.fileno()}", f"/proc/self/fd/{file.fileno()}"):
            path = Path(name)
            assert can_be_written(path)
            write_text(path, "written")
            assert path.is_symlink()
    assert (tmp_path / "open").read_text() == "written"
    assert [one.name for one in tmp_path.iterdir()] == ["open"]


def test_a_full_device_is_named(tmp_path: Path) -> None:
    link = tmp_path / "full"
    link.symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left") as raised:
        write_text(link, "text")
    assert raised.value.filename == str(link)


def test_a_link_stays_and_its_target_is_written(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for name, target in (("to a file", "data/old"), ("to nothing yet", "data/new")):
        link = tmp_path / name
        link.symlink_to(target)
        if name == "to a file":
            (tmp_path / target).write_text("before")
        assert can_be_written(link)
        write_text(link, "text")
        assert link.is_symlink()
        assert (tmp_path / target).read_text() == "text"
    assert sorted(one.name for one in (tmp_path / "data").iterdir()) == ["new", "old"]


def test_a_link_to_itself_or_into_no_folder_cannot_be_written(tmp_path: Path) -> None:
    for target in ("loop", "no folder/file"):
        link = tmp_path / "loop"
        link.symlink_to(target)
        assert not can_be_written(link)
        with pytest.raises(OSError) as raised:
            write_text(link, "text")
        assert raised.value.filename == str(link)
        assert link.is_symlink()
        link.unlink()


def test_a_part_of_a_write_is_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is nearly full takes a part, and says that it is full the next time."""
    write = io.FileIO.write

    class Nearly(io.FileIO):
        def write(self, data: memoryview) -> int:  # type: ignore[override]
            return write(self, data[:3])

    monkeypatch.setattr("gpusim.files.io.FileIO", Nearly)
    write_text(tmp_path / "whole", "a long text")
    assert (tmp_path / "whole").read_text() == "a long text"


@pytest.mark.parametrize("is_new", [True, False])
def test_a_folder_is_whole_or_as_it_was(is_new: bool, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    if not is_new:
        folder.mkdir()
    with pytest.raises(OSError, match="full"), whole_folder(folder):
        folder.mkdir(exist_ok=True)
        (folder / "half").write_text("half")
        raise OSError("full")
    assert [one.name for one in tmp_path.rglob("*")] == ([] if is_new else ["out"])
