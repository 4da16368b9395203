"""Are the statistics over seeds numpy's statistics of the converged runs?"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpusim.results.plots.pareto import front
from gpusim.results.sweeps.ensembles import ensembles
from gpusim.results.sweeps.runs import find_runs
from tests.results.sweep_folders import write, write_failed

TIMES = [12.5, 3.0, 88.25, 41.0, 7.5, 60.0, 19.0]


def test_quantiles_are_numpys_quantiles_of_the_converged_runs(tmp_path: Path) -> None:
    for seed, time_s in enumerate(TIMES):
        write(tmp_path / f"good={seed}", {"seed": seed}, total_time_s=time_s)
    for seed in (100, 101, 102):
        write(
            tmp_path / f"stalled={seed}", {"seed": seed}, total_time_s=1e6, verdict="not_converged"
        )
    write_failed(tmp_path / "failed", {"seed": 200})
    (group,) = ensembles(find_runs([tmp_path]).runs)
    assert group.quantiles("total_time_s") == pytest.approx(np.quantile(TIMES, [0.05, 0.5, 0.95]))
    assert group.share == "7 of 11"
    assert group.median("total_time_s") == 19.0


def test_without_a_converged_run_there_are_no_quantiles(tmp_path: Path) -> None:
    write(tmp_path / "0", {}, verdict="time_limit")
    (group,) = ensembles(find_runs([tmp_path]).runs)
    assert group.quantiles("total_time_s") is None
    assert group.share == "0 of 1"


def test_groups_ignore_only_the_seed_and_are_sorted(tmp_path: Path) -> None:
    for memory in ("512MiB", "2GiB", "1GiB"):
        for seed in (1, 2):
            write(tmp_path / f"{memory},{seed}", {"vm.memory": memory, "seed": seed})
    write(tmp_path / "no config")
    found = ensembles(find_runs([tmp_path]).runs)
    assert [group.value("vm.memory").text for group in found] == ["512 MiB", "1 GiB", "2 GiB"]
    assert [len(group.runs) for group in found] == [2, 2, 2]


def test_a_repeated_seed_counts_once_and_a_finished_run_wins(tmp_path: Path) -> None:
    write_failed(tmp_path / "a", {"backend.name": "cupy"})
    write(tmp_path / "b", {"backend.name": "numpy"}, total_time_s=7.0)
    write(tmp_path / "c", {"backend.name": "numba"}, total_time_s=7.0)
    (group,) = ensembles(find_runs([tmp_path]).runs)
    assert [run.name for run in group.runs] == ["b"]


points = st.tuples(st.integers(0, 8).map(float), st.integers(0, 8).map(float))


@given(st.lists(points, max_size=30))
def test_no_point_beats_a_point_of_the_front(points: list[tuple[float, float]]) -> None:
    def beaten(one: tuple[float, float]) -> bool:
        return any(other[0] <= one[0] and other[1] <= one[1] and other != one for other in points)

    expected = {index for index, point in enumerate(points) if not beaten(point)}
    assert set(front(points)) == expected
    assert sorted(points[i] for i in expected) == [points[i] for i in front(points)]
