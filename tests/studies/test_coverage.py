"""Does the study of coverage measure its guests as QEMU does, and do bands hold them?"""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from gpusim.config.scenario import resolve
from gpusim.layout import Writes
from gpusim.predict.bands import Band
from studies.coverage import (
    FIRST_CASE,
    KINDS,
    MIB,
    PAGE,
    ZERO_PAGES,
    Case,
    count_distinct,
    draw_truth,
    host_of,
    measure,
    rows,
    run_case,
    true_config,
)

pytest.importorskip("scipy")


@pytest.mark.parametrize("kind", KINDS)
def test_every_true_guest_can_be_simulated_and_is_drawn_by_its_number(kind: str) -> None:
    for number in range(3):
        truth = draw_truth(kind, number)
        assert truth == draw_truth(kind, number) != draw_truth(kind, number + 3)
        profile = measure(truth, number)
        assert profile == measure(truth, number)
        scenario = resolve(true_config(truth, host_of(profile), number))
        assert len(scenario.writers) == len(truth.writers)


def test_distinct_pages_are_those_of_a_set() -> None:
    """Certain runs may overlap and come in any order. Pages that are surely hit count once."""
    first, last = np.array([50, 10, 12, 300]), np.array([60, 30, 20, 310])
    certain = {page for low, high in zip(first, last, strict=True) for page in range(low, high)}
    writes = Writes(
        first=np.array([1000, 2000]),
        last=np.array([1100, 2007]),
        mean=np.array([1e3, 0.0]),
        certain_first=first,
        certain_last=last,
    )
    assert count_distinct(writes, np.random.default_rng(1)) == len(certain) + 100


def test_random_pages_are_hit_as_a_poisson_process_hits_them() -> None:
    nothing = np.zeros(0, np.int64)
    writes = Writes(
        first=np.array([0]),
        last=np.array([100_000]),
        mean=np.array([0.5]),
        certain_first=nothing,
        certain_last=nothing,
    )
    found = count_distinct(writes, np.random.default_rng(1))
    assert found == pytest.approx(100_000 * (1 - np.exp(-0.5)), rel=0.01)


@pytest.mark.parametrize("kind", KINDS)
def test_a_profile_shows_no_more_than_its_guest(kind: str) -> None:
    """No period finds more pages than are written in it, or more than the writers have."""
    truth = draw_truth(kind, 0)
    profile = measure(truth, 0)
    writes_per_s = sum(
        one.get("catch_up_page_writes_per_s", one["page_writes_per_s"])
        for one in truth.writers.values()
    )
    size = sum(one.get("drift_range", one["working_set"]) for one in truth.writers.values())
    noise = 5 * np.sqrt(truth.pages * truth.pages / profile.sampled)
    for one in profile.measurements:
        pages = one.dirty_rate * one.seconds * MIB / PAGE
        assert pages <= 1.3 * writes_per_s * one.seconds + noise
        assert pages <= size / PAGE + noise
    assert profile.zero_sampled == ZERO_PAGES


def test_the_table_counts_wrong_verdicts_as_outside() -> None:
    band = Band(low=10.0, middle=11.0, high=12.0)
    ends = itertools.product((True, False), (9.0, 11.0, 13.0), (True, False))
    cases = [
        Case(
            kind="steady",
            converges=converges,
            total_time_s=seconds,
            throttle_percent=20,
            predicted_to_converge=predicted,
            band=band,
        )
        for converges, seconds, predicted in ends
    ]
    (*_, row) = rows(cases)
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[1:7] == ["6 of 12", "12 of 12", "1 of 6 (17 %)", "5 to 52 %", "1", "1"]


def test_a_case_of_few_members_has_a_verdict() -> None:
    found = run_case(("scattered", 1), members=2)
    assert found.kind == "scattered"
    assert found.is_right


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["bursty", "scattered", "moving"])
def test_bands_hold_most_true_guests(kind: str) -> None:
    """Of six, at least five. The table of docs/validation/unknown-guests.md has more of them."""
    cases = [run_case((kind, FIRST_CASE + number)) for number in range(6)]
    assert all(case.is_right for case in cases)
    assert sum(case.is_within for case in cases) >= 5
