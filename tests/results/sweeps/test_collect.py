"""Does gpusim-collect write its tables, page and pictures, and does it report bad input?"""

from __future__ import annotations

import csv
import json
import os
import re
import struct
import sys
from itertools import product
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

import numpy as np
import pytest

from gpusim.cli.collect import main
from tests.golden import check_golden
from tests.results.html.strict_page import Page
from tests.results.sweep_folders import write, write_failed, write_grid

FALLBACK = "migration.fallback_sync_interval"


def page_in(folder: Path) -> Page:
    return Page((folder / "index.html").read_text("utf-8"))


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def size_of(png: Path) -> tuple[int, int]:
    head = png.read_bytes()[:24]
    assert head.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", head[16:24])
    return width, height


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """Three sizes with and without the timer, with three seeds.

    One run failed, one did not converge, and one is unfinished.
    """
    folder = tmp_path / "a sweep & more"
    cases = product(enumerate(("512GiB", "1TiB", "4TiB"), start=1), ("5s", "never"), (1, 2, 3))
    for (index, memory), timer, seed in cases:
        name = f"memory={memory},timer={timer},seed={seed}"
        values = {"vm.memory": memory, FALLBACK: timer, "seed": seed}
        late = 2.0 if timer == "never" else 1.0
        if (memory, timer, seed) == ("4TiB", "never", 3):
            write_failed(folder / name, values)
            continue
        stalled = (memory, timer, seed) == ("4TiB", "never", 2)
        write(
            folder / name,
            values,
            total_time_s=100.0 * index * late + seed,
            verdict="not_converged" if stalled else "converged",
            guest_cpu_lost_s=50.0 * index / late,
        )
    (folder / "seed=4" / ".hydra").mkdir(parents=True)
    content = {"question": "Does <it> help?", "command": "gpusim -m 'a'", "x": "vm.memory"}
    (folder / "sweep.json").write_text(json.dumps(content))
    return folder


def test_everything_is_written(sweep: Path) -> None:
    before = {path.name for path in sweep.iterdir()}
    assert main([str(sweep)]) == 0
    made = {path.name for path in sweep.iterdir()} - before
    assert made == {"runs.csv", "statistics.csv", "sweep.png", "pareto.png", "index.html"}
    assert size_of(sweep / "sweep.png") == size_of(sweep / "pareto.png") == (1200, 900)


def test_the_text_of_the_command(
    sweep: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(sweep.parent)
    monkeypatch.setenv("COLUMNS", "100")
    sweep.rename("sweep")
    write(Path("slower/memory=1TiB,timer=5s,seed=1"), {"vm.memory": "1TiB"}, total_time_s=500.0)
    write(Path("slower/new"), {"vm.memory": "8TiB"})
    Path("empty").mkdir()
    Path("file").write_text("")
    run = "sweep/memory=1TiB,timer=5s,seed=1"
    lines = []
    for arguments in (
        "--help",
        "sweep",
        f"{run} slower/new --diff --out out",
        "sweep slower --diff --out out",
        f"{run} sweep --diff",
        "empty",
        "missing",
        "file",
        "empty --diff",
        "sweep slower",
        "sweep --out file",
        "sweep slower --diff --parquet",
    ):
        code = main(arguments.split())
        printed = capsys.readouterr()
        lines += [f"$ gpusim-collect {arguments}", f"{printed.out}{printed.err}exit code {code}\n"]
    check_golden("gpusim-collect", "\n".join(lines))


@pytest.mark.usefixtures("without_pictures")
def test_runs_csv_has_the_swept_keys_the_numbers_and_the_outcome(sweep: Path) -> None:
    main([str(sweep)])
    found = rows(sweep / "runs.csv")
    header = list(found[0])
    assert header[:4] == ["run", "vm.memory", FALLBACK, "seed"]
    assert header[4:6] == ["total_time_s", "downtime_ms"]
    assert header[-5:] == ["status", "verdict", "reason", "bottleneck_code", "error"]
    assert "wall_time_s" in header
    assert "backend_reason" not in header
    by_name = {row["run"]: row for row in found}
    failed = by_name["memory=4TiB,timer=never,seed=3"]
    assert (failed["status"], failed["verdict"], failed["total_time_s"]) == ("failed", "", "")
    assert failed["error"] == "MemoryError: <b>too large</b>"
    assert failed["vm.memory"] == "4TiB"
    assert float(by_name["memory=1TiB,timer=never,seed=2"]["total_time_s"]) == 402.0


@pytest.mark.usefixtures("without_pictures")
def test_statistics_csv_has_numpys_quantiles_of_the_converged_runs(sweep: Path) -> None:
    main([str(sweep)])
    found = {(row["vm.memory"], row[FALLBACK]): row for row in rows(sweep / "statistics.csv")}
    assert len(found) == 6
    row = found["1TiB", "5s"]
    assert (row["runs"], row["converged"], float(row["converged_percent"])) == ("3", "3", 100.0)
    expected = np.quantile([201.0, 202.0, 203.0], [0.05, 0.5, 0.95])
    names = ("p5_total_time_s", "median_total_time_s", "p95_total_time_s")
    assert [float(row[name]) for name in names] == pytest.approx(expected)
    partly = found["4TiB", "never"]
    assert (partly["runs"], partly["converged"]) == ("3", "1")
    assert float(partly["median_total_time_s"]) == 601.0


def test_the_page_is_whole_and_escapes_its_text(sweep: Path) -> None:
    main([str(sweep)])
    page = page_in(sweep)
    assert "Does <it> help?" in "".join(page.text)
    assert "gpusim -m 'a'" in "".join(page.text)
    assert "MemoryError: <b>too large</b>" in "".join(page.text)
    assert len([link for link in page.links if link.endswith("/summary.json")]) == 18
    assert all(image["alt"] and str(image["src"]).startswith("data:") for image in page.all("img"))
    assert not re.search(r"https?://", (sweep / "index.html").read_text())
    assert "1 of 3" in "".join(page.text)


def test_a_second_call_writes_the_same_bytes_except_the_date(sweep: Path) -> None:
    def contents() -> dict[str, bytes]:
        files = [path for path in sweep.iterdir() if path.is_file()]
        date = rb"at \d{4}-\d\d-\d\d \d\d:\d\d UTC"
        return {path.name: re.sub(date, b"", path.read_bytes()) for path in files}

    main([str(sweep), "--out", str(sweep / "collected")])
    main([str(sweep)])
    first = contents()
    main([str(sweep)])
    assert contents() == first
    assert b"collected" not in first["index.html"]


def test_files_of_an_earlier_call_do_not_stay(tmp_path: Path) -> None:
    write(tmp_path / "seed=1", {})
    for name in ("sweep.png", "grid.png", "pareto.png", "runs.parquet"):
        (tmp_path / name).write_bytes(b"old")
    assert main([str(tmp_path)]) == 0
    assert not list(tmp_path.glob("*.p*"))


@pytest.mark.usefixtures("without_pictures")
def test_links_lead_to_an_existing_report(tmp_path: Path) -> None:
    write(tmp_path / "runs" / "a b#1?", {"seed": 1})
    (write(tmp_path / "runs" / "b", {"seed": 2}) / "report.html").write_text("")
    assert main([str(tmp_path / "runs"), "--out", str(tmp_path / "new" / "out")]) == 0
    links = page_in(tmp_path / "new" / "out").links
    assert "../../runs/a%20b%231%3F/summary.json" in links
    assert "../../runs/b/report.html" in links
    assert not (tmp_path / "runs" / "index.html").exists()


@pytest.mark.usefixtures("without_pictures")
def test_several_folders_become_one_page(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(tmp_path / name / "seed=1", {"seed": 1, "vm.vcpus": 1 if name == "a" else 2})
    folders = [str(tmp_path / name) for name in ("a", "b")]
    assert main(folders) == 2
    assert main([*folders, "--out", str(tmp_path / "both")]) == 0
    assert [row["run"] for row in rows(tmp_path / "both" / "runs.csv")] == ["a/seed=1", "b/seed=1"]


@pytest.mark.usefixtures("without_pictures")
def test_a_run_without_its_config_is_a_row(tmp_path: Path) -> None:
    write(tmp_path / "a", {FALLBACK: None, "vm.memory": "1GiB"})
    write(tmp_path / "b", {FALLBACK: "never", "vm.memory": "2GiB"})
    write(tmp_path / "c")
    assert main([str(tmp_path)]) == 0
    found = rows(tmp_path / "runs.csv")
    assert [row[FALLBACK] for row in found] == ["null", "never", ""]
    assert "5 s (default of QEMU 9.2)" in page_in(tmp_path).text


@pytest.mark.usefixtures("without_pictures")
def test_an_evacuation_is_a_row(tmp_path: Path) -> None:
    folder = write(tmp_path / "one", {"seed": 1}, kind="evacuation", migrations=7)
    summary = json.loads((folder / "summary.json").read_text())
    for key in ("dirty_sync_count", "normal_pages", "first_pass_s", "qemu_version"):
        del summary[key]
    (folder / "summary.json").write_text(json.dumps(summary))
    write(folder / "guests" / "db", {})
    write(tmp_path / "two", {"seed": 2})
    assert main([str(tmp_path)]) == 0
    found = rows(tmp_path / "runs.csv")
    assert [(row["run"], row["migrations"]) for row in found] == [("one", "7"), ("two", "")]
    assert found[0]["dirty_sync_count"] == ""


def test_a_grid_of_two_numbers_is_a_heat_map(tmp_path: Path) -> None:
    for percent, rate in product((10, 20, 40), (1e5, 1e6, 1e7, 1e8)):
        values = {"workload.working_set_percent": percent, "workload.page_writes_per_s": rate}
        verdict = "converged" if rate * percent < 1e8 else "time_limit"
        write(tmp_path / f"{percent},{rate}", values, total_time_s=percent, verdict=verdict)
    assert main([str(tmp_path)]) == 0
    assert size_of(tmp_path / "grid.png") == (1200, 900)
    assert "grid.png" in page_in(tmp_path).links
    assert not (tmp_path / "pareto.png").exists()


SHAPES: dict[str, list[dict[str, Any]]] = {
    "seeds": [{"seed": seed} for seed in range(12)],
    "words": [
        {"tracking.mode": mode, "migration.version": version, "seed": seed}
        for mode in ("kvm_manual", "dirty_ring")
        for version in ("qemu_7_2", "qemu_9_2")
        for seed in (1, 2)
    ],
    "samples": [
        {
            "migration.cpu_throttle_increment": number,
            "migration.cpu_throttle_initial": number * 7 % 61,
            "migration.max_cpu_throttle": 99 - number * 13 % 40,
        }
        for number in range(5, 40)
    ],
    "mixed": [
        {FALLBACK: timer, "vm.memory": memory}
        for timer in ("1s", "20s", None, "never")
        for memory in ("1GiB", "2TiB")
    ],
    "powers": [
        {"vm.memory": f"{2**power}GiB", "seed": seed} for power in range(12) for seed in (1, 2)
    ],
    "linear": [{"vm.memory": f"{size}GiB"} for size in range(100, 140)],
}


@pytest.mark.parametrize("outcome", ["all", "some", "none"])
@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_of_a_sweep_can_be_drawn(shape: str, outcome: str, tmp_path: Path) -> None:
    for index, values in enumerate(SHAPES[shape]):
        good = outcome == "all" or (outcome == "some" and index % 3 > 0)
        write(
            tmp_path / str(index),
            values,
            total_time_s=10.0 + index**2,
            verdict="converged" if good else "not_converged",
            guest_cpu_lost_s=float(index % 4),
        )
    assert main([str(tmp_path)]) == 0
    assert size_of(tmp_path / "sweep.png") == (1200, 900)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_axes_contain_every_point(
    shape: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from matplotlib.figure import Figure

    drawn: list[Figure] = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda f, *a, **k: (drawn.append(f), save(f, *a, **k)))
    for index, values in enumerate(SHAPES[shape]):
        time_s = 50.0 + index * 37 % 50
        write(tmp_path / str(index), values, total_time_s=time_s, guest_cpu_lost_s=index % 4)
    main([str(tmp_path)])
    lines = [(axes, line) for figure in drawn for axes in figure.axes for line in axes.lines]
    assert len(drawn) >= 1
    assert sum(len(line.get_xdata()) for _, line in lines) >= len(SHAPES[shape]) / 2
    for axes, line in lines:
        if line.get_transform() != axes.transData:
            continue  # the median over seeds runs across
        for data, (low, high) in (
            (line.get_xdata(), axes.get_xlim()),
            (line.get_ydata(), axes.get_ylim()),
        ):
            known = [float(number) for number in data if np.isfinite(number)]
            assert all(low <= number <= high for number in known)


def test_the_points_of_a_front_have_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.figure import Figure

    drawn: list[Figure] = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda f, *a, **k: (drawn.append(f), save(f, *a, **k)))
    costs = {"1s": (10, 90), "5s": (20, 40), "20s": (30, 41), "never": (50, 1)}  # 20 s loses to 5 s
    for timer, (time_s, lost_s) in costs.items():
        write(tmp_path / timer, {FALLBACK: timer}, total_time_s=time_s, guest_cpu_lost_s=lost_s)
    main([str(tmp_path)])
    (panel,) = drawn[-1].axes
    assert {text.get_text() for text in panel.texts} == {"1 s", "5 s", "20 s", "off"}
    (line,) = [
        line for line in panel.lines if line.get_linestyle() == "-" and len(line.get_xdata())
    ]
    assert list(line.get_xdata()) == [10, 20, 50]


@pytest.mark.usefixtures("without_pictures")
def test_parquet_has_the_values_of_the_csv(sweep: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    assert main([str(sweep), "--parquet"]) == 0
    table = parquet.read_table(sweep / "runs.parquet")
    expected = rows(sweep / "runs.csv")
    assert table.column_names == list(expected[0])
    assert table.column("run").to_pylist() == [row["run"] for row in expected]
    times = [None if row["total_time_s"] == "" else float(row["total_time_s"]) for row in expected]
    assert table.column("total_time_s").to_pylist() == times
    assert table.column("vm.memory").to_pylist() == [row["vm.memory"] for row in expected]


def test_without_pyarrow_the_error_is_one_line_and_nothing_is_written(
    sweep: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert main([str(sweep), "--parquet"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "pip install -e '.[parquet]'" in error
    assert not (sweep / "runs.csv").exists()


def test_without_matplotlib_there_are_tables_and_a_page(
    sweep: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main([str(sweep)]) == 0
    assert not (sweep / "sweep.png").exists()
    assert page_in(sweep).all("img") == []


def test_no_argument_at_all_is_an_error() -> None:
    assert main([]) == 2


@pytest.mark.slow
def test_two_thousand_runs_are_two_thousand_rows(tmp_path: Path) -> None:
    write_grid(tmp_path, 2000)
    assert main([str(tmp_path)]) == 0
    assert len(rows(tmp_path / "runs.csv")) == 2000
    assert len(rows(tmp_path / "statistics.csv")) == 100
    links = [link for link in page_in(tmp_path).links if link.endswith("summary.json")]
    assert len(links) == 2000


def test_an_interrupt_is_one_line(
    sweep: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("gpusim.cli.collect.find_runs", interrupted)
    assert main([str(sweep)]) == 130
    assert capsys.readouterr().err == "error: interrupted\n"


def test_a_place_below_a_file_is_refused_before_anything_is_written(
    sweep: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert main([str(sweep), "--out", str(tmp_path / "file/out")]) == 2
    assert capsys.readouterr().err.startswith("error: ")
    assert not (sweep / "index.html").exists()


@pytest.mark.usefixtures("without_pictures")
def test_a_failed_run_never_counts_as_converged(tmp_path: Path) -> None:
    """Its summary holds a verdict and fast numbers, as a damaged or edited file may."""
    for seed in (1, 2):
        write(tmp_path / f"seed={seed}", {"seed": seed}, total_time_s=10.0 + seed)
    write(tmp_path / "seed=3", {"seed": 3}, total_time_s=1.0, status="failed")
    write(tmp_path / "seed=4", {"seed": 4}, total_time_s=1.0, status="incomplete")
    assert main([str(tmp_path)]) == 0
    (row,) = rows(tmp_path / "statistics.csv")
    assert (row["runs"], row["converged"]) == ("4", "2")
    assert float(row["p5_total_time_s"]) > 10
    text = " ".join(page_in(tmp_path).text)
    assert "2 converged" in text
    assert "fastest run that converged took 11 s" in text


@pytest.mark.usefixtures("without_pictures")
def test_a_cell_that_begins_like_a_formula(tmp_path: Path) -> None:
    write(tmp_path / "=1+1", {"seed": 1}, reason="@SUM(A1)")
    write(tmp_path / "-2", {"seed": 2})
    assert main([str(tmp_path)]) == 0
    assert [row["run"] for row in rows(tmp_path / "runs.csv")] == ["-2", "'=1+1"]
    assert rows(tmp_path / "runs.csv")[1]["reason"] == "'@SUM(A1)"


def test_leftovers_of_a_killed_collect_are_removed(sweep: Path) -> None:
    (sweep / ".runs.csv.1.gpusim.tmp").write_text("half")
    assert main([str(sweep)]) == 0
    assert not list(sweep.glob(".*"))


@pytest.mark.usefixtures("without_pictures")
def test_a_strict_policy_is_on_the_page(sweep: Path) -> None:
    assert main([str(sweep)]) == 0
    (policy,) = [m["content"] for m in page_in(sweep).all("meta") if "http-equiv" in m]
    rules = dict(rule.strip().split(" ", 1) for rule in str(policy).split(";"))
    assert rules == {
        "default-src": "'none'",
        "img-src": "data:",
        "style-src": "'unsafe-inline'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "script-src": "'unsafe-inline'",
    }


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", ["summary.json", "config.json", "sweep.json", "timeline.npz"])
@pytest.mark.usefixtures("without_pictures")
def test_a_pipe_in_place_of_a_file_stops_nothing(name: str, sweep: Path) -> None:
    folder = sweep / "foreign"
    write(folder, {"vm.memory": "1TiB", "seed": 9}, total_time_s=1.0)
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    assert main([str(sweep)]) == 0
    assert len(rows(sweep / "runs.csv")) >= 18


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, "1" * 5000, '{"status": NaN}', '{"status": "\\ud800"}', '{"a": 1, "a": 2}'],
)
@pytest.mark.usefixtures("without_pictures")
def test_a_damaged_summary_is_skipped(
    text: str, sweep: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (sweep / "foreign").mkdir()
    (sweep / "foreign" / "summary.json").write_text(text)
    assert main([str(sweep)]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if "foreign" in line)
    assert len(line) < 300
    assert len(rows(sweep / "runs.csv")) == 18


@pytest.mark.usefixtures("without_pictures")
def test_names_of_folders_may_be_any_bytes(tmp_path: Path) -> None:
    names = [b"caf\xe9", b"two\nlines", b"\x1b[31m", b"a?b#c%20", b"n" * 200]
    for seed, name in enumerate(names):
        folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))
        write(folder, {"vm.memory": "1TiB", "seed": seed}, total_time_s=1.0)
    assert main([str(tmp_path)]) == 0
    assert len(rows(tmp_path / "runs.csv")) == len(names)
    links = re.findall(r'<th scope="row"><a href="([^"]+)"', (tmp_path / "index.html").read_text())
    assert {unquote_to_bytes(link).split(b"/")[0] for link in links} == {*names}


@pytest.mark.usefixtures("without_pictures")
def test_the_page_and_its_table_name_the_bottlenecks(tmp_path: Path) -> None:
    for place, code in enumerate(("page_cost", "page_cost", "link")):
        keys = {"bottleneck_code": code, "bottleneck": f"the <{code}>", "sending_gbit_per_s": 12.7}
        write(tmp_path / f"seed={place}", {"seed": place}, **keys)
    main([str(tmp_path)])
    text = (tmp_path / "index.html").read_text("utf-8")
    assert "2 of 3 runs use 12.7 Gbit/s: the &lt;page_cost&gt;" in text
    assert text.count('<td class="text">the &lt;') == 3
    assert [row["bottleneck_code"] for row in rows(tmp_path / "runs.csv")] == [
        "page_cost",
        "page_cost",
        "link",
    ]
