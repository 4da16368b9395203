"""What does gpusim-collect do with folders and files that another program, or a fault, left?

Each case changes one value of one file of a sweep. The tables and the page must be written, and a run
that is left out must be named.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import socket
import subprocess
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes
from zipfile import ZIP_DEFLATED, ZIP_LZMA, ZipFile

import numpy as np
import pytest

from gpusim.cli import collect, sweep_report
from gpusim.errors import is_installed
from gpusim.results.errors import RunsError
from gpusim.results.plots import compare
from gpusim.results.plots.compare import MAX_RUNS, ComparedRun, read_runs, write_comparison
from gpusim.results.run_files import read_summary, write_run
from gpusim.results.sweeps.axes import varying_keys
from gpusim.results.sweeps.ensembles import ensembles
from gpusim.results.sweeps.runs import find_runs
from gpusim.results.sweeps.sentences import describe_skipped
from gpusim.results.sweeps.tables import run_columns
from tests.results.hostile import HOSTILE, Case, hostile_versions
from tests.results.html.strict_page import Page
from tests.results.runs import RUNS
from tests.results.sweep_folders import SUMMARY, config_of, write

SWEEP = {"question": "Does it help?", "command": "gpusim -m seed=1,2", "x": "vm.memory"}
CONTENTS = {
    "summary.json": SUMMARY | {"run_hash": "0" * 16, "left_behind": ["db"]},
    "config.json": config_of({"vm.memory": "2GiB", "seed": 3}),
    "sweep.json": SWEEP,
}
CASES = [(file, case) for file, content in CONTENTS.items() for case in hostile_versions(content)]
TABLES = ("runs.csv", "statistics.csv", "index.html")
MOST_OUTPUT = 4000  # characters
PARQUET = ["--parquet"] if is_installed("pyarrow") else []


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """Three runs, whose third is the victim."""
    for name, memory, time_s in (("a", "1GiB", 5.0), ("b", "4GiB", 20.0), ("victim", "2GiB", 9.0)):
        write(tmp_path / name, {"vm.memory": memory, "seed": 3}, total_time_s=time_s)
    return tmp_path


def place_of(sweep: Path, file: str) -> Path:
    return sweep / file if file == "sweep.json" else sweep / "victim" / file


def runs_in(folder: Path) -> set[str]:
    csv.field_size_limit(10**7)
    with (folder / "runs.csv").open(newline="") as file:
        return {row["run"] for row in csv.DictReader(file)}


def check_collected(sweep: Path, printed: Any, what: object = "") -> None:
    """Check that all files are there, and that the victim is a row or is named."""
    assert all((sweep / name).is_file() for name in TABLES), what
    assert len(printed.out) < MOST_OUTPUT, what
    assert printed.err == "", what
    missing = {"a", "b", "victim"} - runs_in(sweep)
    assert missing <= {"victim"}, what
    assert not missing or "victim" in printed.out, what


def check_each(
    cases: Iterable[tuple[str, Case]], sweep: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for file, case in cases:
        place = place_of(sweep, file)
        before = place.read_text() if place.exists() else json.dumps(SWEEP)
        place.write_text(case.text)
        assert collect.main([str(sweep), *PARQUET]) == 0, (file, case.name)
        check_collected(sweep, capsys.readouterr(), (file, case.name))
        Page((sweep / "index.html").read_text("utf-8"))
        place.write_text(before)


@pytest.mark.usefixtures("without_pictures")
def test_some_hostile_values(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check_each(CASES[::53], sweep, capsys)


@pytest.mark.slow
@pytest.mark.usefixtures("without_pictures")
def test_many_hostile_values(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check_each(CASES[1::5], sweep, capsys)


def test_hostile_values_are_read(tmp_path: Path) -> None:
    """Half of the cases are runs of one sweep. None stops the search, and each is a run or is named."""
    cases = [(file, case) for file, case in CASES[::2] if file != "sweep.json"]
    for number, (file, case) in enumerate(cases):
        folder = tmp_path / str(number)
        folder.mkdir()
        for name in ("summary.json", "config.json"):
            text = case.text if name == file else json.dumps(CONTENTS[name])
            (folder / name).write_text(text)
    found = find_runs([tmp_path])
    named = {one.name.partition("/")[0] for one in found.skipped}
    assert {run.name for run in found.runs} | named == set(map(str, range(len(cases))))
    assert all(len(describe_skipped(one.reason)) < 300 for one in found.skipped)
    columns = {name: np.array([0.0, 1.0]) for name in compare.COLUMNS}
    for run in found.runs:
        summary = read_summary(run.folder)
        assert summary == run.summary
        assert len(sweep_report._line(summary)) < 2100
        if run.outcome != "failed":
            compare._label(ComparedRun(name="run", summary=summary, columns=columns))
    groups = ensembles(found.runs)
    assert len(run_columns(found.runs, varying_keys(found.runs))[0].values) == len(found.runs)
    assert sum(len(group.runs) for group in groups) > 100


@pytest.mark.parametrize(("file", "case"), CASES[7::331])
def test_some_hostile_values_are_drawn(
    file: str, case: Case, sweep: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    check_each([(file, case)], sweep, capsys)
    assert (sweep / "sweep.png").is_file()


@pytest.mark.slow
def test_many_hostile_values_are_drawn(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check_each(CASES[::121], sweep, capsys)


def make_fifo(place: Path) -> None:
    os.mkfifo(place)


def make_socket(place: Path) -> None:
    here = Path.cwd()
    os.chdir(place.parent)  # the path of a socket has at most 107 bytes
    try:
        with socket.socket(socket.AF_UNIX) as unix:
            unix.bind(place.name)
    finally:
        os.chdir(here)


def make_terabyte(place: Path) -> None:
    place.touch()
    os.truncate(place, 2**40)


STRANGE: dict[str, Callable[[Path], None]] = {
    "fifo": make_fifo,
    "socket": make_socket,
    "folder": Path.mkdir,
    "device": lambda place: place.symlink_to("/dev/zero"),
    "terminal": lambda place: place.symlink_to("/dev/tty"),
    "memory": lambda place: place.symlink_to("/proc/self/mem"),
    "loop": lambda place: place.symlink_to(place.name),
    "link to nothing": lambda place: place.symlink_to("nothing"),
    "empty": Path.touch,
    "a terabyte": make_terabyte,
}


@pytest.mark.usefixtures("without_pictures")
@pytest.mark.parametrize("kind", STRANGE)
def test_something_else_in_the_place_of_a_file(
    kind: str, sweep: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for file in ("summary.json", "config.json", "sweep.json", "report.html", "gpusim.log"):
        place = place_of(sweep, file)
        before = place.read_text() if place.exists() else None
        place.unlink(missing_ok=True)
        STRANGE[kind](place)
        assert collect.main([str(sweep)]) == 0
        check_collected(sweep, capsys.readouterr(), file)
        place.rmdir() if kind == "folder" else place.unlink()
        if before is not None:
            place.write_text(before)


@pytest.mark.usefixtures("without_pictures")
@pytest.mark.parametrize("error", [PermissionError(13, "denied"), FileNotFoundError(2, "gone")])
@pytest.mark.parametrize("file", ["summary.json", "config.json", "victim"])
def test_what_cannot_be_opened_or_goes_away(
    error: OSError,
    file: str,
    sweep: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Root may read everything, so the refusal is simulated."""
    stat, scan = os.stat, os.scandir

    def refuse(function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(path: Any, *more: Any, **options: Any) -> Any:
            if isinstance(path, str | Path) and str(path).endswith(("victim", f"victim/{file}")):
                raise error
            return function(path, *more, **options)

        return wrapped

    monkeypatch.setattr(os, "scandir", refuse(scan)) if file == "victim" else None
    monkeypatch.setattr(os, "stat", refuse(stat)) if file != "victim" else None
    assert collect.main([str(sweep)]) == 0
    monkeypatch.undo()
    check_collected(sweep, capsys.readouterr())


@pytest.mark.usefixtures("without_pictures")
def test_a_sweep_that_was_killed(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("empty", "begun/.hydra", "hydra only/.hydra", "deep/" + "d/" * 1500):
        folder = sweep
        for part in name.split("/"):  # a path that is too long cannot be made in one step
            folder = folder / part
            with suppress(OSError):
                folder.mkdir(exist_ok=True)
    (sweep / "begun" / "config.json").write_text("{")
    (sweep / "begun" / ".summary.json.1234.gpusim.tmp").write_text("half")
    (sweep / "loop").symlink_to(sweep)
    (sweep / "lost").symlink_to("lost")
    code = collect.main([str(sweep)])
    subprocess.run(["rm", "-r", sweep / "deep"], check=True)  # too deep for pytest's own clean-up
    assert code == 0
    printed = capsys.readouterr()
    check_collected(sweep, printed)
    lines = printed.out.splitlines()
    assert lines[1].startswith("skipped: ")
    assert [line.split(":")[0].strip() for line in lines[2:4]] == ["begun", "hydra only"]


@pytest.mark.usefixtures("without_pictures")
def test_foreign_folders_are_counted_and_a_damaged_run_is_named(
    sweep: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(1200):
        (sweep / f"a foreign folder {number}").mkdir()
    (sweep / "victim" / "summary.json").write_text("{")
    assert collect.main([str(sweep)]) == 0
    printed = capsys.readouterr()
    check_collected(sweep, printed)
    lines = printed.out.splitlines()
    assert lines[1] == "skipped: 1201"
    assert "victim/summary.json" in lines[2]
    assert len(lines) == 14
    page = Page((sweep / "index.html").read_text("utf-8"))
    assert page.text.count("victim/summary.json") == 1
    assert len(page.all("li")) < 1100


def test_the_search_opens_each_folder_once(sweep: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its time is linear in the folders, because it makes no second pass over them."""
    for number in range(500):
        (sweep / f"foreign {number}").mkdir()
    opened: Counter[str] = Counter()
    scan = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: (opened.update([str(path)]), scan(path))[1])
    found = find_runs([sweep, sweep / "a"])
    assert (len(found.runs), len(found.skipped)) == (3, 500)
    assert len(opened) == 504
    assert set(opened.values()) == {1}


NAMES = (
    b"$x^{$ _\\frac",
    b"a\nb\tc\x1b[31m",
    b"undecodable \xff\xfe",
    "\u4e2d\u6587 \U0001f600 \u202e \u0639\u0631\u0628".encode(),
    b"'quotes\" <script>alert(1)</script>".replace(b"/", b"|"),
    b"per%20cent # and ? & ; javascript:alert(1)",
    b"=cmd|calc!A1",
    b"x" * 250,
    b"9" * 250,
    b"{braces} %s {0}",
)


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_with_any_name(
    name: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))
    for run in (b"one", name):
        values = {"vm.memory": "1GiB" if run == name else "2GiB"}
        write(Path(os.fsdecode(os.fsencode(folder) + b"/" + run)), values)
    assert collect.main([str(folder)]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert printed.out.replace("\n", "").isprintable()
    page = Page((folder / "index.html").read_text("utf-8"))
    assert not page.all("script")[1:]
    assert [str(one.get("http-equiv")) for one in page.all("meta")][-1] == "Content-Security-Policy"
    links = [link for link in page.links if link.endswith("/summary.json")]
    assert len(links) == 2
    here = os.fsencode(folder)
    assert all(os.path.isfile(here + b"/" + unquote_to_bytes(link)) for link in links)
    assert not any(":" in link or "?" in link or "#" in link for link in links)


def test_two_runs_with_any_name_and_values_are_compared(
    sweep: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hostile = SUMMARY | {f"added {kind}": value for kind, value in HOSTILE.items()}
    del hostile["added 30 digits"], hostile["added NaN"], hostile["added surrogate"]
    folder = write(
        Path(os.fsdecode(os.fsencode(sweep) + NAMES[2])), {"vm.memory": "$x$"}, **hostile
    )
    for value in HOSTILE.values():
        (sweep / "victim" / "config.json").write_text(json.dumps({"vm": {"memory": value}}))
        pair = [str(folder), str(sweep / "victim")]
        assert collect.main([*pair, "--diff", "--out", str(sweep / "out")]) == 0
        printed = capsys.readouterr()
        assert len(printed.out) < 12_500
        assert printed.out.replace("\n", "").isprintable()
        assert (sweep / "out" / "diff.csv").is_file()


def numpy_file(description: str, content: bytes = b"") -> bytes:
    head = description.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head + content


def dictionary(kind: str, shape: str) -> str:
    return f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}"


COLUMNS: dict[str, bytes] = {
    "nothing": b"",
    "no numpy": b"text" * 100,
    "a terabyte": numpy_file(dictionary("<f8", "(137438953472,)")),
    "cut": numpy_file(dictionary("<f8", "(3,)"), bytes(8)),
    "no rows": numpy_file(dictionary("<f8", "(0,)")),
    "objects": numpy_file(dictionary("|O", "(1,)"), b"cos\nsystem\n"),
    "text": numpy_file(dictionary("<U8", "(1,)"), bytes(32)),
    "two rows": numpy_file(dictionary("<f8", "(1, 1)"), bytes(8)),
    "nested": numpy_file("(" * 110),
    "NaN": numpy_file(dictionary("<f8", "(1,)"), b"\xff" * 8),
    "one more": numpy_file(dictionary("<f8", "(2,)"), bytes(16)),
}


@pytest.mark.parametrize("kind", [*COLUMNS, "missing", "lzma", "no archive"])
def test_a_damaged_timeline_is_named(kind: str, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    write_run(RUNS["converged"](), folder, plot=False)
    assert not read_runs([folder])[1]
    place = folder / "timeline.npz"
    with ZipFile(place) as archive:
        whole = {name: archive.read(name) for name in archive.namelist()}
    packing = ZIP_LZMA if kind == "lzma" else ZIP_DEFLATED
    with ZipFile(place, "w", packing) as archive:
        for name, content in whole.items():
            if name != "time_s.npy":
                archive.writestr(name, content)
            elif kind in COLUMNS:
                archive.writestr(name, COLUMNS[kind])
            elif kind != "missing":
                archive.writestr(name, content)
    if kind == "no archive":
        place.write_bytes(place.read_bytes()[:-30])
    runs, [(name, _)] = read_runs([folder])
    assert (runs, name) == ([], "run")


def test_a_comparison_of_summaries_with_few_numbers(tmp_path: Path) -> None:
    few = {"status": "ok", "verdict": "converged", "total_time_s": 1.0}
    write_run(RUNS["converged"](), tmp_path / "$x^{$", plot=False)
    (tmp_path / "$x^{$" / "summary.json").write_text(json.dumps(few))
    assert sweep_report._line(few)
    for number in range(MAX_RUNS + 3):
        shutil.copytree(tmp_path / "$x^{$", tmp_path / f"$x^{{${number}")
    runs, [(more, _)] = read_runs(sorted(tmp_path.iterdir()))
    assert (len(runs), more) == (MAX_RUNS, "4 more folders")
    write_comparison(sorted(tmp_path.iterdir()), tmp_path / "many.png")
    write_comparison(sorted(tmp_path.glob("*/"))[:2], tmp_path / "two.png")
    (tmp_path / "many.png").unlink()
    with pytest.raises(RunsError):
        write_comparison([tmp_path], tmp_path / "none.png")


@pytest.mark.parametrize("name", [*TABLES, "sweep.png", "diff.csv", "loop"])
def test_a_place_that_cannot_hold_the_result_is_refused_before_anything_is_written(
    name: str, sweep: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    if name == "loop":
        out.symlink_to("out")
    else:
        (out / name).mkdir(parents=True)
    pair = [str(sweep / "a"), str(sweep / "b"), "--diff"]
    for arguments in ([str(sweep)], pair):
        assert collect.main([*arguments, "--out", str(out)]) == 2
        printed = capsys.readouterr()
        assert (printed.out, printed.err.count("\n")) == ("", 1)
        assert "Traceback" not in printed.err
    assert name == "loop" or [path.name for path in out.iterdir()] == [name]
