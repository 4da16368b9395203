"""Given the recorded writes and the recorded wire, does gpusim decide as a real QEMU did?

CPU-bound guests only: between two samples of its counter, 0.2 s apart, a replay cannot see the
bursts of a paced guest.
"""

from __future__ import annotations

from typing import Any

import pytest

from gpusim.validation import cli
from gpusim.validation.quantities import measured
from gpusim.validation.recording import SHIPPED
from gpusim.validation.report import Case, cpu_bound_figures

MEDIAN_PERCENT = 0.6
NINE_IN_TEN_PERCENT = 3.0
THROTTLE_EQUAL_SHARE = 0.8


@pytest.fixture(scope="module")
def figures() -> dict[str, Any]:
    """The summary of a replay of every shipped recording of a CPU-bound guest."""
    cases = [
        Case(recording=recording, measured=measured(recording))
        for recording in cli.load_recordings([SHIPPED])
        if recording.guest.kind == "cpu_bound"
    ]
    cli.run(cases, cli.plan(cases, ["replay"], seeds=1))
    return cpu_bound_figures(cases, "replay")


def test_all_cpu_bound_recordings_were_replayed(figures: dict[str, Any]) -> None:
    assert (figures["completed"], figures["not_converged"]) == (31, 4)


def test_total_times_are_those_of_qemu(figures: dict[str, Any]) -> None:
    assert figures["median_abs_total_time_error_percent"] <= MEDIAN_PERCENT
    assert figures["p90_abs_total_time_error_percent"] <= NINE_IN_TEN_PERCENT


def test_the_highest_throttle_is_that_of_qemu(figures: dict[str, Any]) -> None:
    assert figures["max_throttle_equal_share"] >= THROTTLE_EQUAL_SHARE
    assert figures["largest_throttle_difference_steps"] <= 1


def test_what_did_not_converge_is_simulated_not_to(figures: dict[str, Any]) -> None:
    assert figures["not_converged_simulated_not_to"] == figures["not_converged"]
