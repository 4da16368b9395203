"""Are the verdict, the bands and the tables of a prediction those of its members?"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from gpusim.fit.writers import fit_writers
from gpusim.formats.profile import Measurement
from gpusim.predict import prediction_text
from gpusim.predict.bands import Band
from gpusim.predict.prediction import Prediction
from tests.predict import predictions


@pytest.mark.parametrize(
    ("converging", "count", "code", "times"),
    [
        (20, 20, "converges", "110 s (100 to 121 s)"),
        (19, 20, "converges", "110 s (99.9 to 120 s)"),
        (13, 20, "probably_converges", "107 s (99.9 to 114 s)"),
        (1, 1, "converges", "101 s (99.9 to 102 s)"),
        (10, 20, "probably_does_not_converge", ""),
        (1, 20, "does_not_converge", ""),
        (0, 20, "does_not_converge", ""),
        (0, 1, "does_not_converge", ""),
    ],
)
def test_the_verdict_and_its_time(converging: int, count: int, code: str, times: str) -> None:
    found = predictions.prediction(converging, count)
    assert prediction_text.verdict_code(found) == code
    answer = prediction_text.ANSWERS[code]
    assert prediction_text.title(found) == (f"{answer} in {times}" if times else answer)


@pytest.mark.parametrize(
    ("converging", "count", "numbers"),
    [(20, 20, "All 20"), (13, 20, "13 of 20"), (1, 20, "1 of 20"), (0, 20, "None of 20")],
)
def test_the_answer_counts_the_members(converging: int, count: int, numbers: str) -> None:
    assert numbers in prediction_text.answer(predictions.prediction(converging, count))[0]


def test_only_a_large_loss_is_in_the_answer() -> None:
    for percent, shown in ((4.9, False), (46.0, True)):
        members = predictions.members(1, 1, guest_cpu_lost_percent=percent)
        loss = prediction_text.large_loss(predictions.prediction(members=members))
        assert bool(loss) == shown == ("46 %" in loss)


def test_only_a_long_downtime_is_in_the_answer() -> None:
    for downtime_ms, shown in ((999.0, False), (53_300.0, True)):
        members = predictions.members(3, 3, downtime_ms=downtime_ms)
        found = predictions.prediction(members=members)
        text = prediction_text.long_downtime(found)
        assert bool(text) == shown == ("53.3 s" in text)
        assert not text or text in prediction_text.answer(found)
    stalled = predictions.members(0, 3, downtime_ms=53_300.0)
    assert prediction_text.long_downtime(predictions.prediction(members=stalled)) == ""


def test_a_time_limit_is_not_a_failure_to_converge() -> None:
    late = [
        replace(one, summary=replace(one.summary, verdict="time_limit", total_time_s=86400.0))
        for one in predictions.members(0, 5)
    ]
    for members, code in (
        (late, "exceeds_time_limit"),
        ([*predictions.members(2, 2), *late], "probably_exceeds_time_limit"),
    ):
        found = predictions.prediction(members=tuple(members))
        assert prediction_text.verdict_code(found) == code
        assert prediction_text.title(found).endswith("within 24 h")


@pytest.mark.parametrize(
    ("qemu", "name"),
    [
        (None, "QEMU 9.2"),
        ((10, 0, 2), "QEMU 10.0.2 (rules of QEMU 9.2)"),
        ((9, 2, 1), "QEMU 9.2.1"),
        ((7, 2, 0), "QEMU 9.2"),  # the config has another version
    ],
)
def test_the_subject_names_the_qemu_that_decides(qemu: Any, name: str) -> None:
    profile = predictions.profile(qemu=qemu)
    subject = prediction_text.subject(predictions.prediction(profile=profile))
    assert f", {name}, " in subject


def test_bandwidths_have_bits_unless_the_user_typed_a_unit() -> None:
    values = (62_914_560, "62914560", 1.25e9, "25Gbit/s")
    texts = [prediction_text.bandwidth(value) for value in values]
    assert texts == ["503Mbit/s", "503Mbit/s", "10Gbit/s", "25Gbit/s"]


def test_reasons_of_the_median_and_of_another_verdict() -> None:
    median, others = prediction_text.reasons(predictions.prediction(13, 20))
    assert predictions.REASONS["converged"] in median
    assert "13 converged and 7 did not converge" in others
    assert predictions.REASONS["not_converged"] in others
    assert len(prediction_text.reasons(predictions.prediction())) == 1


def cells(prediction: Prediction) -> dict[str, tuple[str, str]]:
    return {name: (median, band) for name, median, band in prediction_text.rows(prediction)}


def test_bands_cover_the_members_with_the_verdict() -> None:
    found = predictions.prediction(11, 20)
    rows = cells(found)
    assert rows["Total time"] == ("106 s", "99.9 to 112 s")
    assert rows["Downtime"] == ("120 ms", "120 ms")
    assert rows["First pass"] == ("60 s", "60 s")
    assert "11 of 20" in prediction_text.band_members(found)


def test_a_migration_that_gave_up_has_no_downtime() -> None:
    rows = cells(predictions.prediction(0, 20))
    assert rows["Downtime"][0] == "none"
    assert rows["Gave up after"][0] == "16.8 min"
    assert "Total time" not in rows


@pytest.mark.parametrize(
    ("values", "unit", "texts"),
    [
        ((119.0, 121.0, 123.0), "s", ("121 s", "119 to 123 s")),
        ((936.0, 945.0, 954.0), "s", ("15.8 min", "15.6 to 15.9 min")),
        ((0.5, 20.0, 3000.0), "s", ("20 s", "500 ms to 50 min")),
        ((5.0, 5.0, 5.0), "s", ("5 s", "5 s")),
        ((0.0, 0.0, 0.2), "s", ("0 ms", "0 to 200 ms")),
        ((120.0, 1500.0, 3000.0), "ms", ("1500 ms", "120 to 3000 ms")),
        ((2.0**20, 2.0**29, 2.0**31), "bytes", ("512 MiB", "1 MiB to 2 GiB")),
        ((0.0, 12.5, 20.0), "%", ("12.5 %", "0 to 20 %")),
    ],
)
def test_a_band_has_one_unit_if_it_fits(
    values: tuple[float, float, float], unit: str, texts: tuple[str, str]
) -> None:
    low, middle, high = values
    assert prediction_text.band_text(Band(low=low, middle=middle, high=high), unit) == texts


def test_throttle_steps() -> None:
    rows = prediction_text.throttle_rows(predictions.prediction())
    assert rows[0] == ("20 %", "20 of 20", "80.5 s", "71 to 90 s")
    assert rows[1][:2] == ("30 %", "10 of 20")


def test_many_throttle_steps_are_cut_in_the_middle() -> None:
    steps = {percent: 60.0 + percent for percent in range(20, 100)}
    members = tuple(replace(one, throttle_s=steps) for one in predictions.members(5, 5))
    rows = prediction_text.throttle_rows(predictions.prediction(members=members))
    percents = [row[0] for row in rows]
    assert percents == ["20 %", "21 %", "22 %", "23 %", "...", "96 %", "97 %", "98 %", "99 %"]
    assert rows[4][2] == "72 more steps"


def test_parts_of_the_time_add_up() -> None:
    text = prediction_text.time_parts(predictions.prediction())
    assert "first pass 60 s (54 %), later passes 50.9 s (46 %), downtime 120 ms" in text
    members = predictions.members(5, 5, first_pass_s=None)
    assert prediction_text.time_parts(predictions.prediction(members=members)) == ""


def test_writers_of_the_fit() -> None:
    random, sequential = prediction_text.writer_rows(predictions.fit(), 4096)
    assert random == ("at random", "8 MiB", "20,500 page writes/s", "each page every 100 ms")
    assert (sequential[0], sequential[3]) == ("in sequence", "each page every 10 s")


def test_the_measurements_and_the_fit() -> None:
    measured, fitted = prediction_text.measured(predictions.profile(), predictions.fit())
    assert "6 measurements of 3 different periods from 100 ms to 10 s" in measured
    assert "2.5 standard deviations" in fitted and "1 of 6" in fitted


@pytest.mark.parametrize(
    ("rates", "code"), [((400, 500, 20), "curve_falls"), ((8, 8, 8), "curve_grows")]
)
def test_only_some_warnings_make_a_profile_unreliable(rates: tuple[int, ...], code: str) -> None:
    periods_s = (0.1, 1.0, 10.0)
    rows = zip(periods_s, rates, strict=True)
    measured = tuple(Measurement(seconds=s, dirty_rate=rate) for s, rate in rows)
    profile = predictions.profile(measurements=measured, memory_bytes=2**30)
    found = predictions.prediction(profile=profile, fit=fit_writers(profile))
    assert code in [one.code for one in found.fit.warnings]
    text = prediction_text.unreliable(found)
    assert bool(text) == (code in prediction_text.UNRELIABLE)
    assert prediction_text.UNRELIABLE.get(code, "") in text


def test_the_answer_tells_how_many_members_the_threads_limit() -> None:
    rates = {"sending_gbit_per_s": 12.7, "link_gbit_per_s": 25.0, "bottleneck": "one thread"}
    slow = predictions.members(3, 3, bottleneck_code="page_cost", **rates)
    fast = predictions.members(1, 1, bottleneck_code="link", **rates)
    found = predictions.prediction(members=[*slow, *fast])
    assert prediction_text.answer(found)[1].startswith("3 of 4 migrations use 12.7 of 25 Gbit/s:")
    answer = prediction_text.answer(predictions.prediction(members=fast))
    assert not [line for line in answer if "Gbit/s" in line]
