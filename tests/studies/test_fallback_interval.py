"""Does the study draw and tabulate what its sweeps left, and put it where the document has room?"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from gpusim.results.plots.canvas import blank_figure, narrow_path
from gpusim.results.plots.study import NEVER, Quantity, XAxis, draw_study
from gpusim.results.sweeps.ensembles import ensembles
from gpusim.results.sweeps.runs import Run, find_runs
from studies.fallback_interval import (
    AGAINST_NEVER,
    COSTS,
    SWEEPS,
    interval,
    lines,
    main,
    memory,
    tables,
)
from studies.tables import with_tables
from tests.cli.command import REPOSITORY
from tests.results.plots.drawn import figure_of, png_size
from tests.results.sweep_folders import write

DOCUMENT = REPOSITORY / "docs/studies/fallback-interval.md"
FIGURES = {f"study_{name}.png" for name in ("lazy", "eager", "costs_lazy", "costs_eager", "rules", "4tib")}  # fmt: skip


@pytest.fixture
def runs(tmp_path: Path) -> dict[str, list[Run]]:
    """Two sizes, three intervals, two seeds of everything. 5 s halves the time of "never"."""
    for sweep in SWEEPS:
        for size in ("512GiB", "4TiB"):
            for seconds, timer in ((100, "1s"), (110, "5s"), (220, "never")):
                for mode in ("kvm_manual", "kvm_legacy"):
                    for seed in (1, 2):
                        values = {
                            "vm.memory": size,
                            "migration.fallback_sync_interval": timer,
                            "tracking.mode": mode,
                            "seed": seed,
                        }
                        write(
                            tmp_path / sweep / f"{size},{timer},{mode},{seed}",
                            values,
                            total_time_s=seconds + seed - 1.5,
                            guest_cpu_lost_percent=12.5,
                            write_faults=3e6,
                            longest_main_loop_stall_ms=51.0,
                        )
    return {sweep: find_runs([tmp_path / sweep]).runs for sweep in SWEEPS}


def test_a_figure(runs: dict[str, list[Run]], tmp_path: Path) -> None:
    """With a place off the axis, a line without a band, and a quantity that no run has."""
    groups = ensembles(run for run in runs["study_paced"] if run.config["seed"] == 1)
    axis = XAxis(label="s", places={"1": 1.0, "5": 5.0, NEVER: None})
    columns = {"paced": lines(groups, memory, interval)}
    missing = Quantity(key="no_such_key", label="missing")
    quantities = (*AGAINST_NEVER, missing)
    with figure_of(draw_study, "Title", ["fact"], columns, quantities, axis) as figure:
        labels = [" ".join(panel.get_ylabel().split()) for panel in figure.axes]
        assert labels == [q.label for q in AGAINST_NEVER]


def test_labels_of_six_rows_do_not_overlap(runs: dict[str, list[Run]]) -> None:
    groups = ensembles(run for run in runs["study_paced"] if run.config["seed"] == 1)
    axis = XAxis(label="s", places={"1": 1.0, "5": 5.0, NEVER: None})
    columns = {"paced": lines(groups, memory, interval)}
    rows = tuple(replace(quantity, key="total_time_s") for quantity in COSTS)
    with figure_of(draw_study, "Title", ["fact"], columns, rows, axis) as figure:
        figure.canvas.draw()
        boxes = [panel.yaxis.label.get_window_extent() for panel in figure.axes]
    assert len(boxes) == 6
    assert not [a for a, b in pairwise(boxes) if a.overlaps(b)]


def test_a_narrow_figure_has_its_columns_below_each_other(runs: dict[str, list[Run]]) -> None:
    groups = ensembles(run for run in runs["study_paced"] if run.config["seed"] == 1)
    axis = XAxis(label="s", places={"1": 1.0, "5": 5.0, NEVER: None})
    columns = {name: lines(groups, memory, interval) for name in ("paced", "uniform")}
    with blank_figure(narrow=True) as figure:
        draw_study(figure, "Title", ["fact"], columns, COSTS[1:3] + AGAINST_NEVER[:1], axis)
        figure.canvas.draw()
        tops = [panel.get_position().y1 for panel in figure.axes]
        assert tops == sorted(tops, reverse=True)
        assert [panel.get_title(loc="left") for panel in figure.axes][::3] == ["paced", "uniform"]
        labels = [panel.yaxis.label.get_window_extent() for panel in figure.axes]
        assert not [a for a, b in pairwise(labels) if a.overlaps(b)]
        assert figure.axes[0].get_ylim() == figure.axes[3].get_ylim()


def test_figures_are_those_of_the_document() -> None:
    text = DOCUMENT.read_text()
    assert all(f"../figures/{name}" in text for name in FIGURES)


def test_tables(runs: dict[str, list[Run]]) -> None:
    found = tables(runs)
    assert (
        "| 4 TiB | uniform | lazy | 100 s, 12.5 % | - | 110 s, 12.5 % | - | - | - | 220 s, 12.5 % |"
        in found["intervals"]
    )
    assert len(found["intervals"]) == 2 + 4 * 2 * 2  # header, then guests, trackings, sizes
    faults = [row for row in found["costs"] if row.startswith("| 4 TiB | eager | 5 |")]
    assert faults[0].split("|")[5:6] == [" 3 "]
    assert found["costs"][-1].endswith("| 0 | 0 | 0.051 |")
    assert found["bands"][0].startswith("- study_uniform: total time within 0.5 %")


def test_runs_that_did_not_converge_have_no_time(
    runs: dict[str, list[Run]], tmp_path: Path
) -> None:
    values = {
        "workload.page_writes_per_s": 4e6,
        "migration.auto_converge": False,
        "vm.memory": "4TiB",
    }
    folder = write(tmp_path / "stuck", values, verdict="not_converged")
    runs["study_4tib"] = find_runs([folder]).runs
    assert tables(runs)["4tib"][-1] == "| 4 | no | - | - |"


def test_tables_take_the_place_of_older_ones() -> None:
    text = "a\n<!-- t -->\nold\n<!-- end -->\nb\n"
    new = "a\n<!-- t -->\n| \\1 |\n<!-- end -->\nb\n"
    assert with_tables(text, {"t": ["| \\1 |"]}) == new
    assert with_tables(new, {"t": ["| \\1 |"]}) == new
    with pytest.raises(ValueError, match="no place for the table 'other'"):
        with_tables(text, {"other": []})


def test_the_document_has_a_place_for_every_table(runs: dict[str, list[Run]]) -> None:
    with_tables(DOCUMENT.read_text(), tables(runs))


@pytest.mark.slow
def test_a_small_study_from_beginning_to_end(tmp_path: Path) -> None:
    document = tmp_path / "study.md"
    document.write_text(DOCUMENT.read_text())
    folders = ["--runs", str(tmp_path / "runs"), "--figures", str(tmp_path / "figures")]
    main(
        [
            *folders,
            "--document",
            str(document),
            "vm.memory=2GiB",
            "seed=1",
            "hydra.sweeper.workers=1",
        ]
    )
    pictures = list((tmp_path / "figures").iterdir())
    assert {path.name for path in pictures} == FIGURES | {
        narrow_path(Path(name)).name for name in FIGURES
    }
    for path in pictures:
        assert png_size(path) == (1200, 900) if path.name in FIGURES else png_size(path)[0] == 780
    assert "| 2 GiB | paced | eager |" in document.read_text()
