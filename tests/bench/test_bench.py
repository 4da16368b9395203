"""gpusim-bench prints and writes its rows, and refuses bad input in one line."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from gpusim import Config
from gpusim.bench import dry_run as bench_dry_run
from gpusim.bench import gpu_report
from gpusim.bench import sweep as bench_sweep
from gpusim.bench.cli import main
from gpusim.bench.primitives import MEANS
from gpusim.bench.whole_run import run_config
from gpusim.config.backend import too_many_threads
from gpusim.config.scenario import resolve
from gpusim.pages.backends import BACKENDS, obstacle
from gpusim.pages.obstacles import Obstacle
from tests.cli.command import composed

SMALL = ["--pages", "2^19", "--repeats", "2"]


def test_rows_of_every_backend(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "bench.json"
    assert main([*SMALL, "--json", str(file)]) == 0
    found = json.loads(file.read_text())
    there = [name for name in BACKENDS if obstacle(name) is None]
    assert [row["backend"] for row in found["rows"] if "memcpy of" in row["what"]] == there
    assert found["machine"]["threads"] == 1
    printed = capsys.readouterr().out
    for row in found["rows"]:
        assert row["what"] in printed
        assert row["pages"] == 2**19
        assert 0 < row["least_ms"] <= row["median_ms"] <= row["most_ms"]
        if "whole run" in row["what"]:
            assert set(row["split_s"]) == {"start", "paint", "draw_host", "take", "rest"}
            assert sum(row["split_s"].values()) <= row["most_ms"] / 1e3 * 1.001
        else:
            assert row["times_memcpy"] > 0
    draws = [row for row in found["rows"] if row["what"].startswith("draw, ")]
    assert len(draws) == len(MEANS) * len(there)


def test_takes_are_measured_where_they_fit(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SMALL, "--backend", "numpy", "--no-runs"]) == 0
    printed = capsys.readouterr().out
    assert "take of 100000 pages" in printed
    assert "take of 15000000 pages" not in printed
    assert "whole run" not in printed


def test_the_run_is_the_documented_case() -> None:
    """At 10^13 bytes the run is experiment=peter_xu_10tb."""
    ours = resolve(run_config("numpy", 2_441_406_250, 1))
    theirs = resolve(composed("experiment=peter_xu_10tb", "backend=numpy"))
    assert ours.layout.blocks == theirs.layout.blocks
    assert ours.parameters == theirs.parameters
    assert ours.link == theirs.link
    for name in ("log_sync_ns", "merge_ns", "lazy"):
        assert getattr(ours.tracking, name) == getattr(theirs.tracking, name)
    assert ours.writers[0].pattern == theirs.writers[0].pattern
    assert ours.writers[0].pace.rate == pytest.approx(theirs.writers[0].pace.rate)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--pages", "2^50"], "must be a whole number of pages, or 2^N, from 2^18 to 2^38"),
        (["--pages", "many"], "must be a whole number of pages, or 2^N, from 2^18 to 2^38"),
        (["--repeats", "0"], "must be a whole number from 1 to 1000"),
        (["--backend", "opencl"], "invalid choice"),
        (["--pages", "2^38"], "error: --pages 274877906944: needs"),
        ([*SMALL, "--json", "nowhere/x.json"], "error: --json nowhere/x.json: cannot be written"),
        ([*SMALL, "--json", "."], "error: --json .: cannot be written"),
    ],
)
def test_bad_input(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("gpusim.pages.backends.available_memory_bytes", lambda: 2**33)
    assert main(arguments) == 2
    assert says in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_backend_that_is_not_there(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "gpusim.bench.cli.obstacle", lambda name: "no driver" if name == "cupy" else None
    )
    assert main([*SMALL, "--backend", "cupy"]) == 2
    assert capsys.readouterr().err == "error: --backend cupy: is not available here: no driver\n"


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--quick"], "--gpu-report FILE"),
        (["--gpu-report", "missing/gpu.json"], "cannot be written"),
        (["--gpu-report", "gpu.md"], "cannot be written"),
    ],
)
def test_a_report_that_cannot_be_made(
    options: list[str],
    named: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("gpusim.bench.cli.obstacle", lambda name: None)
    assert main(options) == 2
    assert named in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_report_needs_a_gpu(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gpusim.bench.cli.obstacle", lambda name: Obstacle("no_gpu", "no GPU"))
    assert main(["--gpu-report", "gpu.json"]) == 2
    assert "needs a GPU: no GPU" in capsys.readouterr().err


def test_a_report_leaves_out_what_does_not_fit_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A size of the primitives that would take too long, and a run that its wall limit stops."""
    clock_s = [0.0]
    limits: list[object] = []

    def measure(_name: str, pages: int, **_options: int) -> list[object]:
        clock_s[0] += pages / 1e6
        return []

    def simulate(config: Config) -> SimpleNamespace:
        limits.append(config.limit.wall)
        clock_s[0] += 300
        status = "ok" if len(limits) == 1 else "incomplete"
        return SimpleNamespace(
            summary=SimpleNamespace(status=status, simulated_looks=7, wall_time_s=300)
        )

    monkeypatch.setattr(gpu_report, "time", SimpleNamespace(monotonic=lambda: clock_s[0]))
    monkeypatch.setattr(gpu_report, "too_big", lambda name, size: None)
    monkeypatch.setattr(gpu_report.primitives, "measure", measure)
    monkeypatch.setattr(gpu_report, "simulate", simulate)
    _, left_out = gpu_report._primitives(540, quick=False)
    assert left_out == [f"{pages} pages: no time was left" for pages in (2**30, 2_441_406_250)]
    runs = gpu_report._whole_runs(540, quick=False)
    assert limits == ["473s", "173s"]
    assert [run.left_out for run in runs] == [
        "",
        "not finished within 173 s, 7 draws",
        "no time was left",
        "no time was left",
    ]


def test_interrupted(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def measured(*_arguments: object, **_keywords: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("gpusim.bench.primitives.measure", measured)
    assert main([*SMALL, "--json", str(tmp_path / "bench.json")]) == 130
    assert capsys.readouterr().err.endswith("error: interrupted\n")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_sweep_is_measured_against_a_loop(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--backend", "numpy", "--sweep", "2"]) == 0
    _, plain, *engines = capsys.readouterr().out.splitlines()
    assert plain.split()[-1] == "1.0"
    assert [line.split("  ")[0] for line in engines] == list(bench_sweep.ENGINES)


def test_a_difference_below_the_noise_is_no_number(capsys: pytest.CaptureFixture[str]) -> None:
    bench_sweep._line("an engine", 1, -0.08, 0.009)
    assert capsys.readouterr().out.split() == ["an", "engine", "1", "0.00", "-", "-", "-"]


def test_more_threads_than_cores_are_a_warning(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1})
    for threads, warns in (("2", False), ("3", True)):
        main([*SMALL, "--threads", threads, "--repeats", "1", "--no-runs"])
        assert ("--threads = 3" in capsys.readouterr().err) == warns
    assert too_many_threads("backend.threads", 2) == ""


def test_a_dry_run_is_measured_beside_its_run(capsys: pytest.CaptureFixture[str]) -> None:
    bench_dry_run.main(["numpy"], ["vm=tiny_256mib"])
    *_, row = capsys.readouterr().out.splitlines()
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[:4] == ["vm=tiny_256mib", "numpy", "2 / 2", "0 / 0"]
    assert float(cells[5]) > 0


def test_what_a_dry_run_did_not_see_the_end_of_is_no_ratio() -> None:
    dry, real = (bench_dry_run.Side(9, 8.0, 7.0, complete) for complete in (False, True))
    assert bench_dry_run._row("", "numba", dry, real) == (
        "| (none) | numba | > 9 / 9 | > 8 / 8 | > 7 / 7 | - |"
    )
