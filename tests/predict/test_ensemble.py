"""An ensemble is repeatable, as wide as the unknowns, and right if everything is known."""

from __future__ import annotations

import math
import statistics
from dataclasses import replace
from typing import Any

import pytest

from gpusim.config.link import default_non_ram_downtime_ms
from gpusim.config.scenario import resolve
from gpusim.errors import ConfigError
from gpusim.fit.estimates import Fit, WriterEstimate
from gpusim.fit.writers import fit_writers
from gpusim.formats.profile import Profile
from gpusim.predict.ensemble import (
    LEAST_MEMBERS,
    MEMBERS,
    RUN_TO_RUN,
    TCG_SPEED_MEAN,
    TCG_SPEED_SD,
    count_members,
    member_config,
    predict,
)
from gpusim.predict.host_config import host_config
from gpusim.predict.member_guest import utilisation
from gpusim.predict.prediction import Prediction
from gpusim.predict.strata import Strata
from gpusim.text import Message
from tests.formats.profiles import exact_profile, uniform_pages

pytest.importorskip("scipy")

GIB, MIB = 2**30, 2**20
PAGES = 16_384  # 64 MiB
SLOW_LINK = ["link.bandwidth=1Gbit/s"]


def small(rate: float = 2000.0, **more: Any) -> Profile:
    return exact_profile(uniform_pages(PAGES, rate), GIB // 2, **more)


def answer(profile: Profile, *overrides: str, members: int = 6, seed: int = 1) -> Prediction:
    host = host_config(profile, [*SLOW_LINK, *overrides])
    return predict(profile, host, members=members, seed=seed, workers=1)


def configs(profile: Profile, count: int, fit: Fit | None = None) -> list[Any]:
    host, fit = host_config(profile, SLOW_LINK), fit or fit_writers(profile)
    return [
        member_config(profile, host, fit, Strata(seed=1, place=n, count=count), n)
        for n in range(count)
    ]


def zero_bytes(config: Any) -> float:
    if config.vm.zero_ranges is None:
        return float(config.vm.zero_percent / 100 * config.vm.memory)
    return float(sum(last - first for first, last in config.vm.zero_ranges))


def test_a_known_guest_is_predicted_as_simulated() -> None:
    """One pass over 0.5 GiB at 1 Gbit/s takes 4.3 s. The pages of 2000 writes per second follow."""
    found = answer(small())
    assert found.probability == 1
    band = found.band("total_time_s")
    assert band is not None
    first_pass_s = GIB / 2 / 4096 * 4104 / 125e6
    assert first_pass_s < band.low <= band.middle <= band.high < 1.2 * first_pass_s
    assert found.band("max_throttle_percent").high == 0  # type: ignore[union-attr]


def test_the_same_seed_gives_the_same_prediction() -> None:
    profile = small(zero_sampled=1000, zero_found=300)
    first, again, other = (answer(profile, members=4, seed=seed) for seed in (1, 1, 2))
    times = [[one.summary.total_time_s for one in p.members] for p in (first, again, other)]
    assert times[0] == times[1] != times[2]


def test_a_vm_that_cannot_converge() -> None:
    """It writes four times as fast as the link sends, without a throttle."""
    found = answer(
        small(
            120_000.0,
            measurements=exact_profile(uniform_pages(100_000, 120_000.0), GIB // 2).measurements,
        ),
        "migration.auto_converge=false",
        members=3,
    )
    assert (found.probability, found.converges) == (0, False)
    assert found.median_member.summary.verdict == "not_converged"
    assert found.band("downtime_ms") is None


def test_an_idle_vm() -> None:
    idle = small(measurements=exact_profile(lambda t: 0.0, GIB // 2).measurements)
    found = answer(idle, members=2)
    assert found.fit.writers == ()
    assert found.probability == 1


def test_under_tcg_speeds_spread_as_in_recorded_migrations() -> None:
    profile = small(accelerator="tcg", mode="page-sampling", sample_pages=16384)
    writer = WriterEstimate(kind="random", pages=PAGES, page_writes_per_s=2000.0)
    fit = replace(fit_writers(profile), writers=(writer,))
    logs = [
        math.log(config.workload.writers["writer_1"]["page_writes_per_s"] / 2000)
        for config in configs(profile, 400, fit)
    ]
    assert statistics.mean(logs) == pytest.approx(TCG_SPEED_MEAN, abs=4 * TCG_SPEED_SD / 20)
    assert statistics.stdev(logs) == pytest.approx(TCG_SPEED_SD, rel=0.2)


@pytest.mark.parametrize(("drift", "spread"), [(0.02, RUN_TO_RUN), (0.1, 0.1)])
def test_a_migration_is_no_steadier_than_repeats_of_one_are(drift: float, spread: float) -> None:
    """Periods of one minute agree within 2 %, and repeats of a migration do not."""
    profile = small()
    writer = WriterEstimate(kind="random", pages=PAGES, page_writes_per_s=2000.0)
    fit = replace(fit_writers(profile), writers=(writer,), drift=drift)
    logs = [
        math.log(config.workload.writers["writer_1"]["page_writes_per_s"] / 2000)
        for config in configs(profile, 400, fit)
    ]
    assert statistics.stdev(logs) == pytest.approx(spread, rel=0.2)


def test_the_zero_share_spreads_as_its_sample_does() -> None:
    profile = small(zero_sampled=1000, zero_found=300)
    shares = [100 * zero_bytes(config) / (GIB // 2) for config in configs(profile, 200)]
    assert statistics.mean(shares) == pytest.approx(30, abs=0.5)
    assert statistics.stdev(shares) == pytest.approx(1.45, rel=0.25)  # of a binomial distribution


@pytest.mark.parametrize(("shares", "pace"), [((1.0, 0.0), "cpu_bound"), ((0.5, 0.5), "paced")])
def test_a_guest_that_idles_catches_up(shares: tuple[float, ...], pace: str) -> None:
    """One vCPU that is always busy makes the guest busy. Two that run half the time do not."""
    profile = small(utilisation=shares)
    writer = configs(profile, 1)[0].workload.writers["writer_1"]
    assert writer["pace"] == pace
    if pace == "paced":
        assert utilisation(profile) == 0.5
        assert writer["catch_up_page_writes_per_s"] == pytest.approx(
            2 * writer["page_writes_per_s"]
        )


def test_vcpus_that_always_idle_differ_from_unmeasured_ones() -> None:
    assert utilisation(small(utilisation=(0.0, 0.0))) == 0
    assert utilisation(small()) is None


def test_a_wrong_config_is_one_error() -> None:
    with pytest.raises(ConfigError, match=r"migration\.downtime_limit"):
        answer(small(), "migration.downtime_limit=-1")


@pytest.mark.parametrize(
    ("gib", "writers", "expected"),
    [(1, 0, MEMBERS), (1024, 4, MEMBERS), (1024, 8, MEMBERS // 2), (2**14, 4, LEAST_MEMBERS)],
)
def test_a_large_vm_has_fewer_members(gib: int, writers: int, expected: int) -> None:
    """The number depends on the work and on no clock."""
    profile = Profile(source="a test", memory_bytes=gib * GIB)
    one = WriterEstimate(kind="random", pages=PAGES, page_writes_per_s=2000.0)
    fit = replace(fit_writers(small()), writers=(one,) * writers)
    assert count_members(profile, fit) == expected


def test_an_answer_of_few_members_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpusim.predict.ensemble.MOST_WORK", 1)
    monkeypatch.setattr("gpusim.predict.ensemble.LEAST_MEMBERS", 3)
    profile = small()
    found = predict(profile, host_config(profile, SLOW_LINK), workers=1)
    assert len(found.members) == 3
    assert found.assumptions[0] == Message("fewer_members", {"members": 3, "wanted": MEMBERS})


def test_the_members_have_the_bottlenecks_of_their_costs() -> None:
    """A thread of 2580 ns and more is slower than 12.8 Gbit/s, one of 1000 ns is faster."""
    found = answer(small(), "link.bandwidth=12.8Gbit/s", members=20)
    slow = [one for one in found.members if one.config.link.page_cost_ns > 4104 / 1.6]
    assert 0 < len(slow) < 20
    bound = [one for one in found.members if one.summary.bottleneck_code == "page_cost"]
    assert bound == slow


def test_unmeasured_vcpus_are_idle_in_some_members_and_busy_in_others() -> None:
    writers = [config.workload.writers["writer_1"] for config in configs(small(), 60)]
    paces = {one["pace"] for one in writers}
    assert paces == {"paced", "cpu_bound"}
    assert "utilisation_drawn" in [one.code for one in answer(small(), members=2).assumptions]


def test_zero_pages_end_the_ram_in_some_members_and_start_it_in_others() -> None:
    """An idle guest's downtime depends on it: zero pages take almost no time."""
    profile = small(zero_sampled=1000, zero_found=500)
    found = configs(profile, 60, replace(fit_writers(profile), writers=()))
    for config in found:
        resolve(config)
    assert {config.vm.zero_ranges[0][0] == 0 for config in found} == {True, False}


def test_costs_of_the_host_are_drawn_unless_they_are_stated() -> None:
    profile = small()
    link = [config.link for config in configs(profile, 200)]
    assert min(one.zero_page_scan for one in link) > 0.38e9
    assert max(one.zero_page_scan for one in link) < 27e9
    median_ms = statistics.median(one.non_ram_downtime_ms for one in link)
    middle_ms = default_non_ram_downtime_ms(host_config(profile).config.vm)
    assert median_ms == pytest.approx(middle_ms * math.sqrt(0.25 * 2), rel=0.02)
    host = host_config(profile, ["link.page_cost_ns=0", "link.zero_page_scan=1GB/s"])
    assert set(host.costs) == {"non_ram_downtime_ms"}
    one = member_config(profile, host, fit_writers(profile), Strata(seed=1), 1)
    assert (one.link.page_cost_ns, one.link.zero_page_scan) == (0.0, "1GB/s")
