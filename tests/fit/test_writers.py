"""The fit finds the writers of a known guest, and the sampled fits spread over what is unknown."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gpusim.fit.estimates import Fit, WriterEstimate, distinct_pages, drifting_share
from gpusim.fit.evidence import evidence_of
from gpusim.fit.posterior import sample_fits
from gpusim.fit.writers import fit_writers
from gpusim.formats.profile import Measurement, Profile
from tests.predict.sampler import PERIODS, Truth, profile_of, written

UNIFORM = (Truth("random", 65536, 60000),)
SEQUENTIAL = (Truth("sequential", 65536, 60000),)
HOT_COLD = (Truth("random", 8192, 40000), Truth("random", 100000, 8000))
BOTH = (Truth("random", 8192, 40000), Truth("sequential", 65536, 8000))
SLOW = (Truth("random", 150000, 500),)
GUESTS = {"uniform": UNIFORM, "sequential": SEQUENTIAL, "hot_cold": HOT_COLD, "both": BOTH}


def closed_form(truth: tuple[Truth, ...], seconds: np.ndarray) -> np.ndarray:
    found = np.zeros_like(seconds)
    for kind, pages, speed in truth:
        passes = speed * seconds / pages
        found += pages * (1 - np.exp(-passes) if kind == "random" else np.minimum(passes, 1))
    return found


def test_closed_forms_agree_with_single_pages() -> None:
    """Compared with the mean of twenty guests of pages with write times."""
    rng = np.random.default_rng(1)
    for kind in ("random", "sequential"):
        writer = WriterEstimate(kind=kind, pages=20000, page_writes_per_s=15000)
        for seconds in (0.2, 1.0, 3.0):
            truth = [Truth(kind, 20000, 15000.0)]
            found = [written(truth, seconds, 30000, rng).sum() for _ in range(20)]
            expected = distinct_pages([writer], np.array([seconds]))[0]
            assert np.mean(found) == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("sample_pages", [16384, None], ids=["page-sampling", "dirty-bitmap"])
@pytest.mark.parametrize("truth", GUESTS.values(), ids=GUESTS)
def test_writers_are_found_again(truth: tuple[Truth, ...], sample_pages: int | None) -> None:
    """As many writers or one more. The coldest has the same kind, size and speed."""
    fit = fit_writers(profile_of(truth, 3, sample_pages=sample_pages))
    assert len(truth) <= len(fit.writers) <= len(truth) + 1
    assert fit.chi_square < 2 * len(fit.residuals)
    coldest, true = fit.writers[-1], truth[-1]
    assert coldest.kind == true.kind
    assert coldest.pages == pytest.approx(true.pages, rel=0.05)
    assert coldest.page_writes_per_s == pytest.approx(true.page_writes_per_s, rel=0.08)
    seconds = np.geomspace(1, 60, 12)
    assert fit.distinct_pages(seconds) == pytest.approx(closed_form(truth, seconds), rel=0.06)
    assert fit.warnings == ()


def test_idle_vm_has_no_writers() -> None:
    fit = fit_writers(profile_of((), 0))
    assert fit.writers == ()
    assert fit.chi_square < 0.01
    assert fit.warnings == ()
    unseen = [
        one.distinct_pages(np.array([60.0]))[0] for one in sample_fits(profile_of(()), fit, 20, 1)
    ]
    assert max(unseen) < 60 * 256  # rounding down to whole MiB per second hides these


def test_a_rate_is_an_interval_that_contains_its_count() -> None:
    """For every count of a sample and several periods, in QEMU's integer arithmetic."""
    mib, samples = 1000, 1000 * 512 // 1024
    for ms in (100, 300, 1000, 60000):
        counts = np.arange(samples + 1)
        rates = counts * mib * 1000 // (samples * ms)
        profile = Profile(
            source="",
            memory_bytes=mib * 2**20,
            mode="page-sampling",
            measurements=tuple(Measurement(seconds=ms / 1000, dirty_rate=int(r)) for r in rates),
        )
        seen = evidence_of(profile)
        held = counts * profile.pages / samples
        assert (seen.low < held).all()
        assert (held < seen.high).all()
        for rate in np.unique(rates):  # and no other
            inside = (seen.low[rates == rate][0] < held) & (held < seen.high[rates == rate][0])
            assert (inside == (rates == rate)).all()


def test_a_dirty_ring_is_rounded_for_each_vcpu() -> None:
    """Eight vCPUs that dirty 1.9 MiB/s each give 8 MiB/s, not 15."""
    measured = Measurement(seconds=10.0, dirty_rate=8 * int(1.9))
    profile = Profile(
        source="", memory_bytes=2**30, vcpus=8, mode="dirty-ring", measurements=(measured,)
    )
    seen = evidence_of(profile)
    assert seen.low[0] < 8 * 1.0 * 10 * 256 < 8 * 1.9 * 10 * 256 < seen.high[0] <= 16 * 10 * 256


def test_a_zero_rate_among_rates_with_fractions_is_zero() -> None:
    """The syncs of an earlier migration count pages, so nothing was rounded."""
    rates = ((1.0, 3.25), (10.0, 0.0))
    found = evidence_of(
        Profile(
            source="a test",
            memory_bytes=2**30,
            measurements=tuple(Measurement(seconds=t, dirty_rate=rate) for t, rate in rates),
        )
    )
    assert found.high[1] == pytest.approx(0.5)
    assert found.high[0] == pytest.approx(3.25 * 256 + 0.5)


def test_rounding_does_not_bias_a_long_period() -> None:
    """QEMU reports 3.9 MiB/s over 60 s as 3. The fit does not move to 180 MiB."""
    truth = (Truth("random", 59000, 30000),)  # 230 MiB, all dirty long before the end
    fit = fit_writers(profile_of(truth, 1, sample_pages=None))
    assert sum(one.pages for one in fit.writers) == pytest.approx(59000, rel=0.02)
    assert np.abs(fit.residuals).max() < 2.5


def test_only_the_time_that_vcpus_ran_counts() -> None:
    """Twice the time at half the speed is the same guest. The rates were not rounded."""
    seconds = np.array([0.2, 1.0, 3.0, 10.0])
    mib = closed_form(UNIFORM, seconds) / 256
    found = [
        Measurement(seconds=2 * s, dirty_rate=m / (2 * s), running=0.5)
        for s, m in zip(seconds, mib, strict=True)
    ]
    fit = fit_writers(Profile(source="", memory_bytes=2**30, measurements=tuple(found)))
    assert fit.writers[0].pages == pytest.approx(65536, rel=0.001)
    assert fit.writers[0].page_writes_per_s == pytest.approx(60000, rel=0.001)


def test_writers_fit_into_the_pages_that_are_not_zero() -> None:
    profile = replace(profile_of(SLOW, 1), zero_sampled=100, zero_found=70)
    fit = fit_writers(profile)
    for one in [fit, *sample_fits(profile, fit, 20, 1)]:
        assert sum(writer.pages for writer in one.writers) <= 0.3 * profile.pages * 1.001


def test_dirty_ring_counts_a_page_again_each_second() -> None:
    """A guest that has written its pages after half a second looks like one that never ends."""
    hot = WriterEstimate(kind="random", pages=10000, page_writes_per_s=80000)
    found = [
        Measurement(
            seconds=s, dirty_rate=s and 10000 / 256 * (1 - np.exp(-8 * min(s, 1))) / min(s, 1)
        )
        for s in (0.1, 0.3, 1.0, 5.0, 10.0)
    ]
    profile = Profile(source="", memory_bytes=2**30, mode="dirty-ring", measurements=tuple(found))
    fit = fit_writers(profile)
    assert [one.kind for one in fit.writers] == [hot.kind]
    assert fit.writers[0].pages == pytest.approx(hot.pages, rel=0.05)
    assert "dirty_ring_recounts" in [warning.code for warning in fit.warnings]


def test_recounted_pages_do_not_make_the_guest_larger() -> None:
    """0.6 GiB per second for a minute are 36 GiB, but the VM has 1 GiB."""
    found = [Measurement(seconds=s, dirty_rate=600) for s in (1.0, 10.0, 60.0)]
    profile = Profile(source="", memory_bytes=2**30, mode="dirty-ring", measurements=tuple(found))
    fit = fit_writers(profile)
    for one in [fit, *sample_fits(profile, fit, 20, 1)]:
        assert sum(writer.pages for writer in one.writers) <= profile.pages * 1.001


def _spread(fits: list[Fit], seconds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    found = np.array([one.distinct_pages(seconds) for one in fits])
    low, high = np.percentile(found, [5, 95], axis=0)
    return low, high


def test_sampled_fits_depend_only_on_the_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpusim.fit.posterior.STEPS", 150)
    profile = profile_of(UNIFORM, 1)
    fit = fit_writers(profile)
    first, again, other = (sample_fits(profile, fit, 3, seed) for seed in (1, 1, 2))
    assert [one.writers for one in first] == [one.writers for one in again]
    assert [one.writers for one in first] != [one.writers for one in other]


def test_the_size_of_a_slow_writer_spreads_up_to_all_writable_pages() -> None:
    """In a minute 500 writes per second reach a fifth of 150000 pages: a straight line."""
    profile = profile_of(SLOW, 1)
    fits = sample_fits(profile, fit_writers(profile), 60, 1)
    low, high = _spread(fits, np.array([60.0, 600.0]))
    assert low[0] < 27000 < high[0]
    assert low[1] < 35000
    assert high[1] > 100000


def test_memory_that_no_period_showed_may_still_be_written() -> None:
    """Ten seconds show little of two cold pools, and the best fit ends with what they showed."""
    sizes, speeds = (4000, 16000, 40000, 60000, 80000), (40000, 20000, 8000, 2000, 600)
    pools = [Truth("random", *one) for one in zip(sizes, speeds, strict=True)]
    quick = (0.1, 0.2, 0.5, 1, 2, 5, 10)
    profile = profile_of(pools, 1, periods=quick, repeats=2, sample_pages=None)
    fits = sample_fits(profile, fit_writers(profile), 60, 1)
    _, high = _spread(fits, np.array([30.0, 120.0]))
    assert high[1] > 1.15 * high[0]


def test_kinds_spread_if_both_fit() -> None:
    """A step before the shortest period fits both kinds."""
    profile = profile_of((Truth("random", 30000, 3e6),), 1)
    fits = sample_fits(profile, fit_writers(profile), 60, 1)
    kinds = [max(one.writers, key=lambda writer: writer.pages).kind for one in fits]
    assert 5 < kinds.count("random") < 55


def test_a_large_random_writer_is_not_lost_to_a_sequential_one_that_just_ends() -> None:
    """512 MiB at random, as counted in ten seconds: 90 MiB in sequence fit as well, just ended."""
    rates = {0.1: (9, 12, 8, 9, 9), 0.2: (11, 11, 9, 8, 8), 0.5: (10, 11, 10, 9, 10)}
    rates |= {1.0: (9, 11, 11, 10, 11), 2.0: (10, 10, 10, 10, 9), 5.0: (10, 10), 10.0: (9, 8)}
    found = [Measurement(seconds=s, dirty_rate=r) for s, all_r in rates.items() for r in all_r]
    profile = Profile(source="a test", memory_bytes=2**30, measurements=tuple(found))
    fits = sample_fits(profile, fit_writers(profile), 60, 1)
    kinds = [max(one.writers, key=lambda writer: writer.pages).kind for one in fits]
    assert kinds.count("random") > 20
    assert np.mean([one.distinct_pages(np.array([60.0]))[0] > 65536 for one in fits]) > 0.25


def test_the_bend_of_a_sequential_writer_is_blurred_by_the_drift() -> None:
    """Mean and slope are those over speeds that were drawn, of mean one."""
    drift = 0.05
    normal = np.random.default_rng(1).standard_normal(400_000)
    speeds = np.exp(drift * normal - drift**2 / 2)
    for writes in (0.5, 0.97, 1.0, 1.03, 2.0):
        share, slope = drifting_share(np.array(writes), True, drift)
        found = np.minimum(writes * speeds, 1)
        assert share == pytest.approx(found.mean(), abs=2e-4)
        assert slope == pytest.approx(np.mean(found * (writes * speeds < 1)), abs=2e-3)


def test_the_kind_is_kept_if_the_curve_shows_it() -> None:
    for kind in ("random", "sequential"):
        profile = profile_of((Truth(kind, 65536, 30000),), 1)
        fits = sample_fits(profile, fit_writers(profile), 40, 1)
        kinds = [max(one.writers, key=lambda writer: writer.pages).kind for one in fits]
        assert kinds.count(kind) >= 36


@pytest.mark.slow
@pytest.mark.parametrize("drift", [0.0, 0.08], ids=["steady", "drifting"])
def test_the_truth_lies_in_nine_of_ten_bands(drift: float) -> None:
    """Distinct pages of each guest at five times: 60 results."""
    seconds = np.array([0.15, 0.7, 3.0, 15.0, 45.0])
    inside = []
    for guest, truth in enumerate(GUESTS.values()):
        true = closed_form(truth, seconds)
        for seed in range(3):
            profile = profile_of(truth, 10 * guest + seed, repeats=2, drift=drift, zero_share=0.2)
            low, high = _spread(sample_fits(profile, fit_writers(profile), 60, seed), seconds)
            inside.append((low <= true) & (true <= high))
    assert 0.8 <= np.mean(inside) <= 1.0


@pytest.mark.slow
@pytest.mark.parametrize("truth", GUESTS.values(), ids=GUESTS)
def test_the_spread_is_that_of_a_bootstrap(truth: tuple[Truth, ...]) -> None:
    """Compared with fits to new measurements. Ours also have memory that nobody measured."""
    seconds = np.array([1.0, 3.0, 10.0])
    profiles = [profile_of(truth, seed, repeats=2, drift=0.04) for seed in range(16)]
    fits = [fit_writers(profile) for profile in profiles]
    drawn_anew = np.std([fit.distinct_pages(seconds) for fit in fits], axis=0)
    ours = [
        np.std([one.distinct_pages(seconds) for one in sample_fits(profile, fit, 60, 1)], axis=0)
        for profile, fit in zip(profiles[:3], fits, strict=False)
    ]
    ratio = np.mean(ours, axis=0) / drawn_anew
    assert (ratio > 0.5).all()
    assert (ratio < 4).all()


def codes(profile: Profile) -> list[str]:
    return [warning.code for warning in fit_writers(profile).warnings]


def test_a_changing_guest_has_a_warning() -> None:
    calm, busy = profile_of(UNIFORM, 1, repeats=1), profile_of((Truth("random", 65536, 150000),), 1)
    mixed = replace(calm, measurements=(*calm.measurements, *busy.measurements[: len(PERIODS)]))
    assert "speed_unsteady" in codes(mixed)


def test_a_falling_curve_has_a_warning() -> None:
    profile = profile_of(UNIFORM, 1)
    halved = [
        replace(one, dirty_rate=one.dirty_rate // 2) if one.seconds > 20 else one
        for one in profile.measurements
    ]
    assert "curve_falls" in codes(replace(profile, measurements=tuple(halved)))


def test_a_curve_that_still_grows_has_a_warning() -> None:
    (warning,) = fit_writers(profile_of(SLOW, 1, periods=(0.5, 1, 2, 5, 10))).warnings
    assert (warning.code, warning.data["longest_s"]) == ("curve_grows", 10)
    assert warning.data["growth_bytes_per_s"] == pytest.approx(500 * 4096, rel=0.2)


def test_few_dirty_samples_have_a_warning() -> None:
    profile = profile_of((Truth("random", 3000, 30000),), 4, sample_pages=512)
    warnings = {one.code: one.data for one in fit_writers(profile).warnings}
    assert warnings["few_dirty_samples"]["sampled"] == 512
