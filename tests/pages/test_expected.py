"""Does a dry run with expected counts make the decisions of a run with bitmaps?

The reference is the run with bitmaps. The tests use more workloads than the development did, with
one tolerance for all.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpusim import (
    Config,
    HotColdConfig,
    LinkConfig,
    MigrationConfig,
    MixConfig,
    SequentialConfig,
    TrackingConfig,
    VmConfig,
    WriterConfig,
    ZipfConfig,
    simulate,
)
from gpusim.cli.dry_run_text import plan_text
from gpusim.config.backend import choose_backend
from gpusim.config.scenario import resolve
from gpusim.engine.expected_run import expected_run
from gpusim.explore.dry_run import RunPlan, make_plan
from gpusim.explore.run_cost import estimate_run
from gpusim.layout import CHUNK_PAGES, Layout, Writes
from gpusim.pages import expected
from gpusim.pages.budget import Budget
from gpusim.pages.expected import NORMAL, ExpectedKernels
from gpusim.pages.pages import Pages
from gpusim.wall_limit import WallLimit
from tests.pages.naive import SLOW_MACHINE

TIME_SHARE = 0.05  # share of the total time
DRAWS_SHARE, DRAWS = 0.15, 3  # share of the draws, or this number of draws
EMPTY = np.zeros(0, np.int64)

WORKLOADS = {
    "uniform": WriterConfig(working_set_percent=30.0, page_writes_per_s=3e5),
    "almost all": WriterConfig(working_set_percent=90.0, page_writes_per_s=2e5),
    "hot_cold": HotColdConfig(working_set_percent=40.0, page_writes_per_s=3e5),
    "zipf": ZipfConfig(working_set_percent=50.0, page_writes_per_s=4e5),
    "granules": WriterConfig(working_set_percent=20.0, page_writes_per_s=3e5, granule="1MiB"),
    "saturated granules": WriterConfig(
        working_set_percent=20.0, page_writes_per_s=1e7, granule="2MiB"
    ),
    "mix": MixConfig(
        writers={
            "heap": WriterConfig(working_set_percent=30.0, page_writes_per_s=2e5),
            "log": SequentialConfig(working_set_percent=5.0, page_writes_per_s=2e4, threads=1),
            "late": WriterConfig(
                working_set_percent=20.0, page_writes_per_s=1e5, windows=[["90s", "150s"]]
            ),
        }
    ),
    "sequential": SequentialConfig(working_set_percent=40.0, page_writes_per_s=2e5, threads=2),
    "paced": WriterConfig(
        working_set_percent=10.0,
        page_writes_per_s=1e5,
        pace="paced",
        catch_up_page_writes_per_s=1e6,
    ),
}


def migration(workload: str, mode: str, zero_percent: float, memory_gib: int = 64) -> Config:
    blocks = [f"{memory_gib - 4}GiB", "3.5GiB", "0.5GiB"]
    return Config(
        vm=VmConfig(memory=f"{memory_gib}GiB", zero_percent=zero_percent, blocks=blocks),
        workload=WORKLOADS[workload],
        link=LinkConfig(bandwidth="10Gbit/s"),
        migration=MigrationConfig(),
        tracking=TrackingConfig(mode=mode),
    )


@pytest.mark.parametrize("workload", WORKLOADS)
@pytest.mark.parametrize(
    ("mode", "zero"), [("kvm_legacy", 0.0), ("kvm_manual", 0.0), ("kvm_manual", 8.0)]
)
def test_draws_and_time_of_a_dry_run_are_those_of_a_run(
    workload: str, mode: str, zero: float
) -> None:
    config = migration(workload, mode, zero)
    run = simulate(config).summary
    scenario = resolve(config)
    estimate = estimate_run(scenario, choose_backend(scenario))
    expected = estimate.summary
    assert expected.verdict == run.verdict
    assert expected.total_time_s == pytest.approx(run.total_time_s, rel=TIME_SHARE)
    allowed = max(DRAWS, DRAWS_SHARE * run.simulated_looks)
    assert abs(expected.simulated_looks - run.simulated_looks) <= allowed
    assert 0 < estimate.wall_s <= estimate.slow_memory_wall_s


@pytest.mark.parametrize("workload", ["uniform", "hot_cold", "mix"])
def test_a_vm_of_few_chunks(workload: str) -> None:
    """In a small VM most pages are in chunks that are sent in part."""
    config = migration(workload, "kvm_manual", 0.0, memory_gib=12)
    run = simulate(config).summary
    scenario = resolve(config)
    expected = estimate_run(scenario, choose_backend(scenario)).summary
    assert expected.verdict == run.verdict
    assert expected.total_time_s == pytest.approx(run.total_time_s, rel=TIME_SHARE)
    allowed = max(DRAWS, DRAWS_SHARE * run.simulated_looks)
    assert abs(expected.simulated_looks - run.simulated_looks) <= allowed


def test_a_dry_run_stops_at_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpusim.explore.run_cost.LONGEST_NS", 1)
    plan = make_plan(migration("uniform", "kvm_legacy", 0.0))
    assert isinstance(plan, RunPlan)
    assert not plan.estimate.is_complete
    text = plan_text(plan)
    assert "more than" in text
    assert "converged" not in text


def test_a_dry_run_shows_what_a_24_tib_vm_needs() -> None:
    config = Config(vm=VmConfig(memory="24TiB"), link=LinkConfig(bandwidth="100Gbit/s"))
    plan = make_plan(replace(config, limit=replace(config.limit, simulated="600s")))
    assert isinstance(plan, RunPlan)
    assert plan.estimate.summary.verdict == "time_limit"
    assert plan.largest_vm_bytes > 0
    text = plan_text(plan)
    assert "bitmaps      1.5 GiB: dirty 768 MiB, clear log 768 MiB" in text
    assert "draws, 600 s simulated: reached the time limit" in text


@st.composite
def schedules(draw: st.DrawFn) -> list[tuple]:
    """Return draws and takes in any order."""
    mean = st.sampled_from([0.0, 1e-4, 0.02, 0.5, 3.0, 50.0])
    sync = st.tuples(st.just("sync"), mean, mean, st.integers(0, 3))
    budget = st.tuples(st.integers(0, 800_000), st.integers(0, 3), st.integers(0, 3))
    take = st.tuples(st.just("take"), st.lists(budget, min_size=1, max_size=2))
    return draw(st.lists(st.one_of(sync, take), max_size=12))


@given(schedules(), st.booleans(), st.booleans())
@settings(SLOW_MACHINE, max_examples=60)
def test_counts_stay_possible(schedule: list[tuple], lazy: bool, zero: bool) -> None:
    """Counts stay between 0 and a chunk's pages, add up to pending, and keep to the budgets."""
    layout = Layout([2 * CHUNK_PAGES + 77, 1000])
    runs = (np.array([5000]), np.array([CHUNK_PAGES + 9])) if zero else (EMPTY, EMPTY)
    pages = Pages(
        layout, zero_first=runs[0], zero_last=runs[1], lazy=lazy, initially_set=True, seed=1,
        backend="expected",
    )  # fmt: skip
    pages.start()
    first, last, _ = layout.cut(
        np.array([0, CHUNK_PAGES + 500]), np.array([CHUNK_PAGES + 400, layout.pages])
    )
    for kind, *details in schedule:
        if kind == "take":
            taken = pages.take(details[0])
            for limit, normal, zeros in details[0]:
                assert taken.normal * normal + taken.zero * zeros <= limit
        else:
            run = np.array([details[2] * 1000])
            writes = [
                Writes(first=first, last=last, mean=np.full(len(first), mean),
                        certain_first=run, certain_last=run + 900)
                for mean in details[:2]
            ]  # fmt: skip
            new = pages.sync(writes[0], before_clear=writes[1] if lazy else None)
            assert 0 <= new <= layout.pages
        assert (pages.counts.normal >= 0).all()
        assert (pages.counts.zero >= 0).all()
        assert (pages.counts.normal + pages.counts.zero <= layout.chunk_pages).all()
        assert pages.pending == int((pages.counts.normal + pages.counts.zero).sum())


@pytest.mark.parametrize("share", [0.3, 0.9])
def test_no_page_is_left_for_ever_when_few_fit_at_a_time(share: float) -> None:
    """Each take rounds down, and a later take sends the remaining pages."""
    kernels = ExpectedKernels(1, log=False, zero=False)
    kernels.fill("dirty", np.array([0]), np.array([CHUNK_PAGES]))
    kernels._shares[NORMAL] = share
    left, page, takes = round(share * CHUNK_PAGES), 0, 0
    kernels._normal_pages[0] = left
    while left and takes < 3000:
        taken = kernels.clear_in_chunk(0, page % CHUNK_PAGES, [Budget(1759, 10, 1)])
        page, normal = taken.behind, taken.normal
        left, takes = left - normal, takes + 1
    assert left == 0


@pytest.mark.parametrize("workload", ["sequential", "mix"])
def test_merged_pieces_decide_as_all_of_them(
    workload: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenario = resolve(migration(workload, "kvm_manual", 8.0))
    runs, pieces = [], []
    for most in (10**9, 100):
        monkeypatch.setattr(expected, "MERGED_FROM", most)
        summary, kernels = expected_run(scenario, WallLimit(None))
        runs.append(summary)
        pieces.append(len(kernels._borders))
    assert runs[1].total_time_s == pytest.approx(runs[0].total_time_s, rel=1e-3)
    assert runs[1].simulated_looks == runs[0].simulated_looks
    assert pieces[1] < pieces[0]


def test_with_too_many_pieces_a_sequential_writer_is_spread_over_its_chunk(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scenario = resolve(migration("sequential", "kvm_manual", 8.0))
    exact = expected_run(scenario, WallLimit(None))[0]
    monkeypatch.setattr(expected, "MOST_PIECES", 0)
    spread = expected_run(scenario, WallLimit(None))[0]
    assert spread.verdict == exact.verdict
    assert spread.total_time_s == pytest.approx(exact.total_time_s, rel=0.1)
