"""Do the answers for a fleet hold for guests whose working set is known?"""

from __future__ import annotations

import math
import random
from collections import Counter
from dataclasses import replace

import pytest

from gpusim.explore.bounds import Bounds
from gpusim.formats.fleet import IN_MIGRATION, DirtyRates, FleetVm
from gpusim.predict.fleet_bounds import (
    ANSWERS,
    FURTHER,
    NEVER,
    SURELY,
    Answer,
    Judgement,
    judge,
)
from gpusim.units import GIB, MIB
from tests.cli.command import REPOSITORY
from tests.predict.fleet_guests import HOSTS, Case, border_case, draw_case, hosts_of, run

NO_BOUNDS = Bounds()
QUICK, SLOW, COUNTED = range(8), range(1000, 1080), range(2000)
WITHOUT_THROTTLE = HOSTS[5]
DOCUMENT = REPOSITORY / "docs/validation/fleet.md"


def judged(
    mib_per_s: float, *, bounds: Bounds = NO_BOUNDS, seconds: float = 1.0, **given: object
) -> Judgement:
    rates = DirtyRates(
        seconds=seconds, rates=(mib_per_s * MIB,), mode=str(given.get("mode", "dirty-bitmap"))
    )
    vm = FleetVm(name="vm", memory_bytes=8 * GIB, measured=(rates,))
    overrides = given.get("overrides", WITHOUT_THROTTLE)
    assert isinstance(overrides, tuple)
    return judge(vm, hosts_of(overrides).of(None), bounds, 8 * GIB, 2)


def check(case: Case) -> str:
    """Simulate the whole migration, and return its verdict if the judgement holds."""
    found, summary = case.judged, run(case)
    what = f"{case.overrides} {case.vm} {case.config.workload} {found}"
    converged = summary.verdict == "converged"
    if found.answer == SURELY:
        assert converged, what
        assert summary.total_time_s <= found.most_time_s, what
        assert summary.downtime_ms is not None
        assert summary.downtime_ms / 1000 <= found.most_downtime_s, what
    if found.answer == NEVER:
        assert not converged, what
    if converged:
        assert summary.total_time_s >= found.least_time_s, what
        assert summary.max_throttle_percent >= (found.least_throttle or 0), what
    return summary.verdict


@pytest.mark.parametrize("seed", QUICK)
def test_answer_holds_for_a_random_guest(seed: int) -> None:
    check(draw_case(seed, NO_BOUNDS, (HOSTS[0], WITHOUT_THROTTLE)))


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_no_answer_is_wrong_for_many_guests() -> None:
    found: Counter[str] = Counter()
    for seed in SLOW:
        case = draw_case(seed, NO_BOUNDS)
        if case.judged.answer != FURTHER or seed % 5 == 0:
            check(case)
            found[case.judged.answer] += 1
    assert found[SURELY] >= 20


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_answers_within_limits_of_the_user_hold() -> None:
    found: Counter[str] = Counter()
    for seed in range(3000, 3150):
        bounds = _draw_bounds(random.Random(seed))
        case = draw_case(seed, bounds)
        if case.judged.answer != FURTHER:
            is_kept = bounds.excess(run(case)) == 0
            assert is_kept == (case.judged.answer == SURELY), f"{bounds} {case}"
            found[case.judged.answer] += 1
    assert found[SURELY] >= 10


def _draw_bounds(draw: random.Random) -> Bounds:
    """Return limits of which about half are set."""
    powers = {
        "total_time_s": (0, 6),
        "downtime_ms": (4, 12),
        "longest_vcpu_stall_ms": (0, 11),
        "guest_cpu_lost_percent": (-3, 7),
    }
    drawn = {name: 2 ** draw.uniform(*range_) for name, range_ in powers.items()}
    return Bounds(**{name: most for name, most in drawn.items() if draw.random() < 0.5})


@pytest.mark.slow
@pytest.mark.parametrize("answer", [NEVER, SURELY])
def test_guest_at_the_border_of_an_answer_keeps_it(answer: Answer) -> None:
    found = [border_case(seed, answer) for seed in range(20 if answer == SURELY else 12)]
    held = [case for case in found if case.judged.answer == answer]
    assert len(held) >= 6
    for case in held:
        check(case)


@pytest.mark.slow
def test_document_has_the_share_of_each_answer() -> None:
    count = Counter(draw_case(seed, NO_BOUNDS).judged.answer for seed in COUNTED)
    shares = [100 * count[answer] / sum(count.values()) for answer in ANSWERS]
    text = DOCUMENT.read_text()
    for answer, share in zip(("never", "measure further", "surely"), shares, strict=True):
        assert f"| {answer} | {share:.1f} % |" in text


def test_answer_gets_harder_with_the_rate() -> None:
    places = [ANSWERS.index(judged(rate).answer) for rate in (0, 10, 30, 100, 300, 1000, 4000)]
    assert places == sorted(places, reverse=True)
    assert set(places) == {0, 1, 2}


def test_rate_beyond_the_link_is_never_only_if_the_throttle_cannot_help() -> None:
    assert judged(4000).answer == NEVER
    throttled = judged(4000, overrides=HOSTS[0])
    assert (throttled.answer, throttled.reason) == (FURTHER, "needs_throttle")
    assert throttled.least_throttle is not None
    assert throttled.least_throttle > 90


def test_pages_of_a_long_period_may_all_be_hot() -> None:
    short, long = judged(10, seconds=1.0), judged(10, seconds=30.0)
    assert short.answer == SURELY
    assert (long.answer, long.reason) == (FURTHER, "hot_set")


def test_limit_of_the_user_changes_the_answer() -> None:
    free = judged(5)
    assert free.answer == SURELY
    for bounds, code in (
        (Bounds(total_time_s=free.most_time_s / 2), "deadline_may_break"),
        (Bounds(downtime_ms=1000 * free.most_downtime_s / 2), "downtime_may_break"),
        (Bounds(guest_cpu_lost_percent=1e-6), "loss_may_break"),
    ):
        assert (judged(5, bounds=bounds).answer, judged(5, bounds=bounds).reason) == (FURTHER, code)
    assert judged(5, bounds=Bounds(total_time_s=2 * free.most_time_s)).answer == SURELY
    assert judged(5, bounds=Bounds(total_time_s=free.least_time_s / 2)).reason == "deadline"
    assert judged(5, bounds=Bounds(downtime_ms=0.1)).answer == NEVER
    stalled = judged(4000, bounds=Bounds(longest_vcpu_stall_ms=1), overrides=HOSTS[0])
    assert (stalled.answer, stalled.reason) == (NEVER, "stall")


def test_modes_bound_the_rate_from_the_sides_that_they_know() -> None:
    assert judged(1, mode=IN_MIGRATION).reason == "no_upper_bound"
    assert judged(4000, mode="dirty-ring").answer == FURTHER  # it counts pages again
    exact, sampled = judged(20, mode="dirty-bitmap"), judged(20, mode="page-sampling")
    assert sampled.most_time_s > exact.most_time_s


def test_nobody_measured() -> None:
    vm = FleetVm(name="vm", memory_bytes=GIB)
    found = judge(vm, hosts_of(HOSTS[0]).of(None), NO_BOUNDS, GIB, 1)
    assert (found.answer, found.reason) == (FURTHER, "not_measured")


def test_rates_over_time_give_shares() -> None:
    rates = tuple(rate * MIB for rate in (5.0, 8.0, 6.0, 60.0, 4000.0))
    vm = FleetVm(
        name="vm",
        memory_bytes=8 * GIB,
        measured=(DirtyRates(seconds=1.0, rates=rates, mode="dirty-bitmap"),),
    )
    found = judge(vm, hosts_of(WITHOUT_THROTTLE).of(None), NO_BOUNDS, 8 * GIB, 2)
    assert found.answer == FURTHER
    assert found.surely_share == pytest.approx(0.6)
    assert found.never_share == pytest.approx(0.2)
    assert found.quiet_rate == 8 * MIB


def test_a_second_period_narrows_the_answer() -> None:
    """A short period says what may be hot, a long one what may grow."""
    measured = [
        DirtyRates(seconds=seconds, rates=(rate * MIB,), mode="dirty-bitmap")
        for seconds, rate in ((1.0, 20), (30.0, 4))
    ]
    both = FleetVm(name="vm", memory_bytes=8 * GIB).with_rates(measured)
    host = hosts_of(WITHOUT_THROTTLE).of(None)
    alone = [replace(both, measured=(one,)) for one in both.measured]
    answers = [judge(vm, host, NO_BOUNDS, 8 * GIB, 2) for vm in (both, *alone)]
    assert answers[0].most_time_s <= min(one.most_time_s for one in answers[1:])
    assert math.isfinite(answers[0].most_time_s)
