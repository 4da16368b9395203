"""Does the page say what the numbers say, and does the document hold them all?"""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpusim.fit.writers import fit_writers
from gpusim.formats.profile import Measurement
from gpusim.predict import prediction_text
from gpusim.predict.document import BANDS, document
from gpusim.predict.messages import text_of
from gpusim.predict.prediction import Band, Prediction, band
from gpusim.predict.terminal import WIDTH, lines
from gpusim.text import Message, format_duration
from tests.predict import predictions

DOCUMENTED = Path(__file__).parents[2] / "docs/how-to/predict-a-migration.md"


def rows(prediction: Prediction) -> dict[str, list[str]]:
    """The cells of the page's tables by the first of their row."""
    found = [re.split(r" {3,}", row.strip()) for row in lines(prediction).splitlines()]
    return {cells[0]: cells[1:] for cells in found}


@pytest.mark.parametrize(
    ("did", "count", "said"),
    [
        (20, 20, "Converges in 110 s (101 to 120 s). All 20 simulated migrations converge."),
        (
            19,
            20,
            "Converges in 110 s (101 to 119 s). 19 of 20 simulated migrations converge (95 %).",
        ),
        (
            13,
            20,
            "Probably converges in 107 s (101 to 113 s). 13 of 20 simulated migrations converge (65 %).",
        ),
        (10, 20, "Probably does not converge. 10 of 20 simulated migrations converge (50 %)."),
        (1, 20, "Does not converge. 1 of 20 simulated migrations converges (5 %)."),
        (0, 20, "Does not converge. None of 20 simulated migrations converges."),
        (1, 1, "Converges in 101 s. The one simulated migration converges."),
        (0, 1, "Does not converge. The one simulated migration does not converge."),
    ],
)
def test_the_verdict_and_how_probable_it_is(did: int, count: int, said: str) -> None:
    painless = predictions.members(did, count, guest_cpu_lost_percent=4.9)
    told = lines(predictions.prediction(members=painless)).split("\n\n")[1]
    assert " ".join(told.split()).startswith(said)


def test_the_headline_tells_what_the_guest_loses() -> None:
    found = predictions.prediction(members=predictions.members(1, 1, guest_cpu_lost_percent=46.0))
    assert prediction_text.title(found) == "Converges in 101 s; the guest loses 46 % of its CPU"


def test_what_is_only_too_slow_is_not_said_not_to_converge() -> None:
    late = [
        replace(one, summary=replace(one.summary, verdict="time_limit", total_time_s=86400.0))
        for one in predictions.members(0, 5)
    ]
    assert (
        prediction_text.title(predictions.prediction(members=tuple(late)))
        == "Is not over within 24 h"
    )
    some = (*predictions.members(2, 2), *late)
    assert (
        prediction_text.title(predictions.prediction(members=some))
        == "Probably is not over within 24 h"
    )


def test_which_qemu_decides() -> None:
    def first(**fields: Any) -> str:
        known = predictions.profile(**fields)
        return prediction_text.subject(predictions.prediction(profile=known)).split(", ")[2]

    assert first() == "QEMU 9.2"
    assert first(qemu=(10, 0, 2)) == "QEMU 10.0.2 (decides as 9.2)"
    assert first(qemu=(9, 2, 1)) == "QEMU 9.2.1"
    assert first(qemu=(7, 2, 0)) == "QEMU 9.2"  # another one is asked for


def test_bandwidths_are_told_in_bits_unless_typed_otherwise() -> None:
    said = [
        prediction_text.bandwidth(value) for value in (62_914_560, "62914560", 1.25e9, "25Gbit/s")
    ]
    assert said == ["503Mbit/s", "503Mbit/s", "10Gbit/s", "25Gbit/s"]


def test_how_steady_a_guest_is_takes_a_repeat_to_see() -> None:
    repeated, fit = predictions.profile(), predictions.fit()
    assert "from one repeat to the next" in " ".join(prediction_text.measured(repeated, fit))
    once = predictions.profile(measurements=repeated.measurements[::2])
    assert "Nothing was measured twice" in " ".join(prediction_text.measured(once, fit))


def test_reasons_of_the_middle_one_and_of_those_that_end_otherwise() -> None:
    mixed = " ".join(lines(predictions.prediction(13, 20)).split())
    assert f"The middle one: {predictions.REASONS['converged']}." in mixed
    assert "13 converged, 7 did not converge; one of the 7: the throttle is at its maximum" in mixed
    assert "one of the" not in lines(predictions.prediction())


def test_numbers_are_those_of_the_members_that_end_so() -> None:
    told = rows(predictions.prediction(11, 20))
    assert told["Total time"] == ["106 s", "101 to 111 s"]
    assert told["Downtime"] == ["120 ms", "120 ms"]
    assert told["First pass"] == ["60 s", "60 s"]
    assert "Over the 11 of 20 simulated migrations that converge." in lines(
        predictions.prediction(11, 20)
    )


def test_a_migration_that_is_given_up_has_no_downtime() -> None:
    told = rows(predictions.prediction(0, 20))
    assert told["Downtime"] == ["none", "the VM is never stopped"]
    assert told["Given up after"][0] == "16.8 min"
    assert "Total time" not in told


def test_when_each_step_of_the_throttle_comes() -> None:
    told = rows(predictions.prediction())
    assert told["20 %"] == ["20 of 20", "80.5 s", "71 to 90 s"]
    assert told["30 %"][0] == "10 of 20"


def test_a_long_staircase_is_cut_short() -> None:
    steps = {percent: 60.0 + percent for percent in range(20, 100)}
    members = [replace(one, throttle_s=steps) for one in predictions.members(5, 5)]
    text = lines(predictions.prediction(members=tuple(members)))
    assert len(re.findall(r"^  \d\d %   ", text, re.MULTILINE)) == 8
    assert "72 steps more" in text and "\n  20 %" in text and "\n  99 %" in text


def test_never_throttled_and_no_first_pass_on_its_own() -> None:
    members = predictions.members(5, 5, first_pass_s=None)
    told = lines(
        predictions.prediction(members=tuple(replace(one, throttle_s={}) for one in members))
    )
    assert "Throttle: never." in told
    assert "First pass" not in told and "The middle one's time" not in told


def test_where_the_time_goes_adds_up() -> None:
    found = re.search(r"The middle one's time: (.*)\.", lines(predictions.prediction()))
    assert (
        found and found[1] == "first pass 60 s (54 %), later passes 50.9 s (46 %), downtime 120 ms"
    )


def test_the_guest_that_was_fitted() -> None:
    told = rows(predictions.prediction())
    assert told["at random"] == [
        "8 MiB", "20,500 page writes/s", "each page every 100 ms"
    ]  # fmt: skip
    assert told["in sequence"][-1] == "each page every 10 s"
    text = " ".join(lines(predictions.prediction()).split())
    assert "6 measurements of 3 lengths from 100 ms to 10 s, by dirty-bitmap" in text
    assert "2.5 standard deviations off at most; 1 of 6 by more than 2" in text


def test_an_idle_guest_writes_nothing() -> None:
    idle = predictions.prediction(fit=predictions.fit(writers=()))
    told = lines(idle)
    assert (
        "No page was seen to change: the guest writes less than a MiB a second, or nothing." in told
    )
    assert "The guest's speed varies" not in told
    assert document(idle)["guest"]["writers"] == []


def test_the_document_has_doubts_before_assumptions() -> None:
    found = predictions.prediction()
    texts = document(found)["doubts_and_assumptions"]
    assert texts == [*map(text_of, found.fit.warnings), text_of(found.assumptions[0])]


@pytest.mark.parametrize(
    ("rates", "short"),
    [
        ((400, 500, 20), "the curve falls"),
        ((8, 8, 8), ""),
    ],
)
def test_an_untrustworthy_profile_is_named_so(rates: tuple[float, ...], short: str) -> None:
    """The codes are those of a real fit."""
    periods = ((0.1, 1.0, 10.0), rates)
    measured = tuple(Measurement(seconds=s, dirty_rate=r) for s, r in zip(*periods, strict=True))
    profile = predictions.profile(measurements=measured, memory_bytes=2**30)
    told = prediction_text.doubtful(
        predictions.prediction(profile=profile, fit=fit_writers(profile))
    )
    assert short in told and bool(told) == bool(short)


@pytest.mark.parametrize(("did", "count"), [(20, 20), (13, 20), (0, 20), (1, 1)])
def test_it_fits_a_terminal(did: int, count: int) -> None:
    long = Message("profile_note", {"note": "nobody knows what " * 20})
    text = lines(predictions.prediction(did, count, assumptions=(long,)))
    assert max(map(len, text.splitlines())) <= WIDTH
    assert len(text.split("In the words of the tools")[0].splitlines()) < 50
    assert not text.endswith("\n") and "\n\n\n" not in text


def test_the_document_comes_back_from_json() -> None:
    found = document(predictions.prediction(13, 20))
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert (found["converges"], found["probability"]) == (True, 0.65)
    assert found["total_time_s"] == {"low": 101.0, "middle": 107.0, "high": 113.0}
    assert [one["converges"] for one in found["members"]] == [True] * 13 + [False] * 7
    assert found["throttle"][1]["percent"] == 30 and found["throttle"][1]["share"] == 0.5
    assert found["members"][0]["throttle_s"] == {"20": 71.0, "30": 81.0}


def test_what_is_no_number_is_null() -> None:
    odd = predictions.fit(residuals=np.array([math.nan, math.inf]), chi_square=math.inf)
    found: dict[str, Any] = document(predictions.prediction(0, 20, fit=odd))
    json.dumps(found, allow_nan=False)
    assert found["guest"]["residuals_in_deviations"] == [None, None]
    assert found["downtime_ms"] is None


def test_every_key_is_documented() -> None:
    text = DOCUMENTED.read_text()
    found = document(predictions.prediction())
    wanted = {*found, *BANDS, *found["vm"], *found["guest"], *found["guest"]["writers"][0]}
    wanted |= {*found["members"][0], *found["throttle"][0]}
    assert not [key for key in wanted if f"`{key}`" not in text]


def test_the_settings_in_the_words_of_tools_where_they_do() -> None:
    text = lines(predictions.prediction())
    words = text.split("In the words of the tools")[1]
    assert "migrate_set_parameter downtime-limit 300" in words
    command = words.split("# libvirt\n")[1].split("# OpenStack")[0]
    shell = command.replace("\\\n", " ").splitlines()
    assert [line.split()[:2] for line in shell if line.strip()] == [
        ["virsh", "migrate-setmaxdowntime"],
        ["virsh", "migrate"],
    ]
    assert "completion_timeout" in words
    probable = lines(predictions.prediction(18, 20))  # no time is enough for nineteen in twenty
    assert "migrate_set_parameter downtime-limit 300" in probable
    assert "completion_timeout" not in probable and "completionTimeout" not in probable
    assert "In the words" not in lines(predictions.prediction(0, 20))
    assert document(predictions.prediction(0, 20))["in_words"] == {}


def test_a_band_holds_a_further_one_nine_times_in_ten() -> None:
    """Of uniform numbers, as its width says: 32 of them, many times."""
    draw = np.random.default_rng(1)
    bands = [band(list(draw.random(32))) for _ in range(4000)]
    assert np.mean([one.high - one.low for one in bands]) == pytest.approx(0.9, abs=0.005)
    assert band([3.0, 1.0]) == Band(low=1.0, middle=2.0, high=3.0)


def test_nineteen_in_twenty_are_no_harder_than_the_heavy_one() -> None:
    """Of 32, 30 are too few, and 31 enough."""
    assert not predictions.prediction(30, 32).p95_member.converges
    assert predictions.prediction(31, 32).p95_member.converges


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ((119.0, 121.0, 123.0), ("121 s", "119 to 123 s")),
        ((936.0, 945.0, 954.0), ("15.8 min", "15.6 to 15.9 min")),
        ((0.5, 20.0, 3000.0), ("20 s", "500 ms to 50 min")),
        ((5.0, 5.0, 5.0), ("5 s", "5 s")),
        ((0.0, 0.0, 0.2), ("0 ms", "0 to 200 ms")),
    ],
)
def test_a_band_of_durations_has_one_unit(
    values: tuple[float, float, float], told: tuple[str, str]
) -> None:
    assert (
        prediction_text._told(
            Band(low=values[0], middle=values[1], high=values[2]), format_duration
        )
        == told
    )
