"""Members place the fitted writers in every way that the measurements leave open."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from gpusim.config.scenario import resolve
from gpusim.config.schema import Config, MixConfig, VmConfig
from gpusim.fit.estimates import Bursts, Fit, WriterEstimate
from gpusim.formats.profile import Profile
from gpusim.predict.member_guest import HUGE_PAGE_BYTES, SCATTERED, THREADS, guest_keys
from gpusim.predict.strata import Strata

MIB, GIB = 2**20, 2**30
MEMORY = GIB // 2
COUNT = 200  # guests


def fit_of(*writers: WriterEstimate, bursts: Bursts | None = None) -> Fit:
    nothing = np.zeros(0)
    return Fit(writers=writers, residuals=nothing, chi_square=0, drift=0.02, bursts=bursts)


def writer(kind: str, pages: float = 30_000, *, in_bursts: bool = False) -> WriterEstimate:
    return WriterEstimate(kind=kind, pages=pages, page_writes_per_s=1000.0, in_bursts=in_bursts)


def guests(fit: Fit, *, zero_pages: int = 0, **known: Any) -> list[Config]:
    """Return configs of guests that are drawn for one fit."""
    profile = Profile(source="a test", memory_bytes=MEMORY, vcpus=4, **known)
    found = []
    for seed in range(COUNT):
        vm = VmConfig(memory=MEMORY, vcpus=4)
        workload, vm = guest_keys(
            profile,
            vm,
            fit,
            zero_pages,
            1.0,
            random.Random(seed),
            Strata(seed=1, place=seed, count=COUNT),
        )
        found.append(Config(vm=vm, workload=workload, seed=seed))
    return found


def writers_of(config: Config) -> list[dict[str, Any]]:
    assert isinstance(config.workload, MixConfig)
    return list(config.workload.writers.values())


def is_scattered(config: Config) -> bool:
    return all("granule" in one for one in writers_of(config))


def test_a_quarter_of_the_guests_lies_in_huge_pages_and_the_others_in_pieces() -> None:
    found = [is_scattered(one) for one in guests(fit_of(writer("random"), writer("sequential")))]
    assert np.mean(found) == SCATTERED


def test_pieces_overlap_neither_each_other_nor_zero_pages() -> None:
    fit = fit_of(writer("random"), writer("sequential"))
    for config in guests(fit, zero_pages=50_000):
        resolve(config)
        if is_scattered(config):
            continue
        runs = [(one["start"], one["start"] + one["working_set"]) for one in writers_of(config)]
        runs = sorted([*runs, *map(tuple, config.vm.zero_ranges or [])])
        assert all(one[1] <= two[0] for one, two in pairwise(runs))
        assert runs[-1][1] <= MEMORY


def test_scattered_writers_share_no_page() -> None:
    for config in guests(fit_of(writer("random"), writer("sequential"))):
        if is_scattered(config):
            one, two = (set(w.placement.guest_first.tolist()) for w in resolve(config).writers)
            assert not one & two


def test_scattered_guests_have_as_many_zero_pages() -> None:
    for config in guests(fit_of(writer("random")), zero_pages=65_536):
        scenario = resolve(config)
        zero = int((scenario.zero_last - scenario.zero_first).sum())
        assert zero == pytest.approx(65_536, abs=2)


def test_writers_shrink_to_the_pages_that_are_not_zero() -> None:
    """The sample of zero pages may show more of them than the writers leave."""
    fit = fit_of(writer("random", 60_000), writer("sequential", 40_000))
    for config in guests(fit, zero_pages=40_000):
        scenario = resolve(config)
        written = sum(last - first for one in scenario.writers for first, last in one.runs())
        assert written <= MEMORY // 4096 - 40_000
        assert written == pytest.approx(MEMORY // 4096 - 40_000, rel=0.01)


def test_every_writer_has_a_page_even_if_all_sampled_pages_are_zero() -> None:
    fit = fit_of(*[writer("random", 100.0) for _ in range(5)])
    for config in guests(fit, zero_pages=MEMORY // 4096 - 1):
        assert len(resolve(config).writers) == 5


def test_short_bursts_are_as_long_as_a_writer_may_have_them() -> None:
    fit = fit_of(writer("random", in_bursts=True), bursts=Bursts(on_s=1e-4, off_s=1e-3))
    for config in guests(fit)[:5]:
        resolve(config)


def test_writers_that_do_not_fit_in_granules_lie_in_pieces() -> None:
    granules = MEMORY // HUGE_PAGE_BYTES
    fit = fit_of(*[writer("random", 1.0) for _ in range(granules + 1)])
    assert not any(map(is_scattered, guests(fit)))


def test_a_sequential_writer_has_one_thread_or_several() -> None:
    found = Counter(writers_of(one)[0]["threads"] for one in guests(fit_of(writer("sequential"))))
    assert set(found) == set(THREADS)
    assert 0.4 < found[1] / COUNT < 0.6


def test_a_tiny_sequential_writer_has_a_thread_for_each_page_at_most() -> None:
    for config in guests(fit_of(writer("sequential", 3.0))):
        resolve(config)


def test_writers_in_bursts_pause_together_at_any_time() -> None:
    bursts = Bursts(on_s=2.0, off_s=6.0)
    fit = fit_of(
        writer("random", in_bursts=True), writer("sequential", in_bursts=True), writer("random"),
        bursts=bursts,
    )  # fmt: skip
    phases, lengths = [], []
    for config in guests(fit):
        resolve(config)
        found = [one for one in writers_of(config) if "on_time" in one]
        assert len(found) == 2
        (times,) = {(one["on_time"], one["off_time"]) for one in found}
        assert times == (2.0, 6.0)
        (phase,) = {one["on_off_start_percent"] for one in found}
        (kind,) = {one["on_off_lengths"] for one in found}
        lengths.append(kind)
        phases.append(phase)
    assert np.mean(phases) == pytest.approx(50, abs=0.5)
    assert lengths.count("fixed") == lengths.count("exponential") == COUNT // 2


@pytest.mark.parametrize(("busy", "pace"), [(0.25, "cpu_bound"), (0.1, "paced")])
def test_vcpus_idle_in_the_pauses_first(busy: float, pace: str) -> None:
    """Bursts take a quarter of the time. vCPUs that are busy for so long never idle in a burst."""
    fit = fit_of(writer("random", in_bursts=True), bursts=Bursts(on_s=2.0, off_s=6.0))
    found = {writers_of(one)[0]["pace"] for one in guests(fit, utilisation=(busy,) * 4)}
    assert found == {pace}


def test_a_guest_without_writers_is_idle() -> None:
    assert all(one.workload.pattern == "idle" for one in guests(fit_of(), zero_pages=10))


def test_the_same_draw_gives_the_same_guest() -> None:
    fit = fit_of(writer("sequential"))
    assert guests(fit)[3] == guests(replace(fit))[3]
