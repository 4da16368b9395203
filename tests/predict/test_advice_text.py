"""Does what is advised say what was tried, and no more?"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from gpusim.engine.records import Alternative
from gpusim.predict import advice_text
from gpusim.predict.document import document
from gpusim.predict.report import foreword_of
from gpusim.predict.terminal import lines
from tests.predict import advised, predictions


def test_limits_of_the_middle_guest_beside_those_of_the_heavy_one() -> None:
    rows = advice_text.limit_rows(advised.advice(advised.converging(), advised.stuck()))
    assert rows == [
        (
            "Smallest bandwidth",
            "10Gbit/s",
            "5.25Gbit/s (90 s, throttle 50 %)",
            "14Gbit/s (90 s, throttle 50 %)",
        ),
        ("Largest dirty rate", "1x", "10x or more (90 s, throttle 50 %)", ""),
        ("Smallest downtime limit", "300 ms", "a little further to 120 ms *", "none"),
        ("Lowest throttle limit that suffices", "99 %", "60 % (90 s, throttle 50 %)", ""),
    ]


def test_a_value_that_time_did_not_suffice_for_is_marked() -> None:
    assert advice_text.FOOTNOTE in advice_text.notes(advised.advice())
    assert advice_text.notes(advised.advice(advised.stuck())) == [
        "14Gbit/s wants migration.multifd_channels=2: fewer threads do not send so fast."
    ]
    nothing = advised.advice(advised.GuestAdvice(now=None))
    assert "Time was up before" in " ".join(advice_text.notes(nothing))
    assert advice_text.limit_rows(nothing) == []


def test_what_converges_beyond_a_limit_is_told() -> None:
    odd = replace(advised.stuck().limits[0], first_failing="13Gbit/s", exceptions=("11Gbit/s",))
    said = advice_text.notes(advised.advice(advised.stuck(limits=(odd,))))
    assert "13Gbit/s does not converge, though 11Gbit/s does." in said


def test_ways_out_of_nineteen_in_twenty_else_of_the_middle_one() -> None:
    stuck = predictions.prediction(0, 20)
    both = advice_text.ways_out(stuck, advised.advice(advised.stuck()))
    assert both is not None
    assert both.head == "What would make it converge, for the heavy guest, each alone:"
    assert [way.said for way in both.found] == [
        "link.bandwidth=14Gbit/s with migration.multifd_channels=2 (90 s, throttle 50 %)",
        "migration.version=qemu_9_2 (20.6 min, no throttle)",
    ]
    assert both.found[0].lines == (
        "migrate_set_capability multifd on", "migrate_set_parameter multifd-channels 2"
    )  # fmt: skip
    assert both.found[0].tools == "libvirt and OpenStack Nova can set it; KubeVirt cannot"
    assert both.found[1][1:] == ((), "")
    hopeless = advised.stuck(limits=(), alternatives=())
    middle = advice_text.ways_out(stuck, advised.advice(advised.stuck(), hopeless))
    assert middle is not None and "for the middle guest" in middle.head and middle.found
    nothing = advice_text.ways_out(stuck, advised.advice(hopeless))
    assert nothing == ("No single change that was tried makes it converge.", ())
    assert advice_text.ways_out(stuck, advised.advice()) is None


def test_a_way_out_in_the_words_of_the_tools() -> None:
    limits = (
        advised.limit("downtime_limit", "900", "300"),
        advised.limit("max_cpu_throttle", "20", "10"),
    )
    guest = advised.stuck(limits=limits, alternatives=())
    ways = advice_text.ways_out(predictions.prediction(0, 20), advised.advice(guest))
    assert ways is not None
    assert [way.lines for way in ways.found] == [
        ("migrate_set_parameter downtime-limit 900",),
        ("migrate_set_parameter max-cpu-throttle 20",),
    ]
    assert [way.tools for way in ways.found] == [
        "libvirt and OpenStack Nova can set it; KubeVirt cannot",
        "none of libvirt, OpenStack Nova and KubeVirt can set it",
    ]


def test_auto_converge_is_told_as_one_way_out() -> None:
    on = "migration.auto_converge=true"
    converges = replace(
        advised.stuck().alternatives[0], key="migration.auto_converge", value="true"
    )
    limits = (advised.limit("max_cpu_throttle", "20", "0", also=on),)
    for ways_out, said in (
        ((converges,), [on]),
        ((), ["migration.max_cpu_throttle=20 with " + on]),
    ):
        guest = advised.stuck(limits=limits, alternatives=ways_out)
        ways = advice_text.ways_out(predictions.prediction(0, 20), advised.advice(guest))
        assert ways is not None and [way.said.split(" (")[0] for way in ways.found] == said


def test_what_is_not_finished_is_no_result() -> None:
    """None is not found yet; else it lies between what was tried."""
    none = advised.limit("downtime_limit", None, "300", finished=False)
    between = advised.limit("dirty_rate", "1.2x", "1x", first_failing="2x", finished=False)
    rows = advice_text.limit_rows(advised.advice(advised.converging(limits=(none, between))))
    assert [row[2] for row in rows] == ["1.2x to 2x *", "not found yet *"]


def test_a_way_out_that_time_did_not_suffice_for_is_told() -> None:
    untried = Alternative(key="migration.auto_converge", value="true", outcome="not_tried")
    notes = advice_text.notes(advised.advice(advised.stuck(alternatives=(untried,))))
    assert "Time was up before migration.auto_converge=true had been tried." in notes


def test_what_the_fallback_sync_brings() -> None:
    sync = advised.converging().fallback_sync
    assert sync is not None
    assert advice_text.fallback_sync(sync) == (
        "With QEMU's fallback sync (as it is): 90 s, throttle 50 %, guest CPU lost 12.5 %; without "
        "it: does not converge."
    )
    assert "changes nothing here" in advice_text.fallback_sync(
        replace(sync, without_it=advised.CONVERGES)
    )
    assert advice_text.fallback_sync(None) == ""
    assert advice_text.fallback_sync(replace(sync, without_it=None)) == ""


def test_the_page_has_all_of_it() -> None:
    text = lines(predictions.prediction(0, 20), advised.advice(advised.stuck()))
    headline = text.split("\n\n")[3].splitlines()
    assert headline[0] == "What would make it converge, for the heavy guest, each alone:"
    assert headline[1].startswith("  - link.bandwidth=14Gbit/s")
    cells = [row.split() for row in text.splitlines()]
    assert ["Smallest", "bandwidth", "10Gbit/s", "14Gbit/s", "14Gbit/s"] in cells
    assert "90 s, throttle 50 %   90 s, throttle 50 %" in text
    assert max(map(len, text.splitlines())) <= 100


def test_better_settings_beside_those_that_are_set() -> None:
    prediction = predictions.prediction()
    rows = advice_text.better_rows(prediction, advised.better(deadline_s=1200.0))
    assert rows[:4] == [
        ("Fastest within 20 min", "as set", "better"),
        ("cpu_throttle_initial", "20", "50"),
        ("cpu_throttle_increment", "10", "25"),
        ("Total time", "2 min", "90 s"),
    ]
    assert advice_text.better_notes(advised.better()) == [
        "25 % less of the total time, of the middle guest. Best of 64 runs.",
        advice_text.NO_TIMEOUTS,
    ]
    words = advice_text.words(prediction, advised.better())
    assert "migrate_set_parameter cpu-throttle-initial 50" in words["QEMU, HMP"].lines
    assert not any("timeout" in line for line in words["OpenStack Nova"].lines)
    stuck = advice_text.words(predictions.prediction(0, 20), advised.better())
    assert "--auto-converge-initial 50" in stuck["libvirt"].lines[1]


def test_what_a_search_did_not_find_is_said() -> None:
    nothing = advised.better(settings={}, outcome=None, gain=None, finished=False)
    assert advice_text.better_rows(predictions.prediction(), nothing) == []
    assert advice_text.better_notes(nothing) == [
        "Fastest: nothing better than what is set in 64 runs. Time was up before all had been tried."
    ]
    hopeless, _ = advice_text.better_notes(advised.better(now=advised.DOES_NOT, gain=None))
    assert hopeless == "As it is set it does not converge. Best of 64 runs, of the middle guest."
    (late,) = advice_text.better_notes(advised.better(now=None))
    assert late.startswith("Time was up")


def test_what_the_time_limit_ended_is_not_said_never_to_converge() -> None:
    ended = replace(advised.DOES_NOT, verdict="time_limit", total_time_s=86_400.0)
    assert advice_text.outcome(ended) == "not over within 24 h"
    assert advice_text.outcome(advised.DOES_NOT) == "does not converge"


def test_settings_with_which_nothing_converges_are_not_said_to_serve() -> None:
    nothing = advised.better(settings={}, outcome=None, gain=None, now=advised.DOES_NOT)
    assert advice_text.better_notes(nothing) == ["None of 64 settings makes it converge."]


def test_a_deadline_that_nothing_keeps_is_not_said_to_be_kept() -> None:
    nothing = {"settings": {}, "outcome": None, "gain": None, "for_p95_guest": True}
    slow = replace(advised.CONVERGES, total_time_s=300.0, first_pass_s=200.0)
    (said,) = advice_text.better_notes(advised.better(**nothing, now=slow, deadline_s=60.0))
    assert said.startswith(
        "None of 64 settings is over within 60 s: the first pass alone, which no"
    )
    assert "As set: 5 min" in said
    (said,) = advice_text.better_notes(advised.better(**nothing, now=slow, deadline_s=250.0))
    assert said.startswith("None of 64 settings is over within 4.17 min. As set")
    (said,) = advice_text.better_notes(advised.better(**nothing, now=slow, deadline_s=400.0))
    assert "nothing better than what is set" in said


@pytest.mark.parametrize(
    ("heavy", "deadline_s", "words"),
    [
        (advised.CONVERGES, None, "The heavy guest with it: 90 s"),
        (advised.CONVERGES, 60.0, "Not for the heavy guest, for which it takes too long: 90 s"),
        (advised.DOES_NOT, None, "Not for the heavy guest: does not converge; as set, 90 s"),
    ],
)
def test_what_was_found_for_one_guest_is_held_against_a_harder_one(
    heavy: Any, deadline_s: float | None, words: str
) -> None:
    found = advised.better(p95_outcome=heavy, p95_now=advised.CONVERGES, deadline_s=deadline_s)
    assert advice_text.better_notes(found)[1].startswith(words)


def test_both_pages_show_better_settings() -> None:
    prediction, advice, better = predictions.prediction(), advised.advice(), advised.better()
    text = lines(prediction, advice, better)
    assert ["cpu_throttle_initial", "20", "50"] in [row.split() for row in text.splitlines()]
    assert "The better settings in the words of the tools" in text
    sections = foreword_of(prediction, advice, better, b"").html
    assert '<th scope="row">cpu_throttle_initial</th><td>20</td><td>50</td>' in sections
    assert (
        "<td>14Gbit/s (90 s, throttle 50 %)</td>"
        in foreword_of(prediction, advised.advice(advised.stuck()), None, b"").html
    )


def test_a_timeout_is_not_shorter_than_what_nineteen_in_twenty_take() -> None:
    """Of 100 the 95 that converge do in 101 to 195 s: 5 % of those are a tenth of all."""
    nova = advice_text.words(predictions.prediction(95, 100), None)["OpenStack Nova"].lines
    timeout = next(int(one.split()[-1]) for one in nova if "completion_timeout" in one)
    assert timeout * 2 >= 195  # Nova's least are 2 GiB


@pytest.mark.parametrize("of_heavy", [False, True])
def test_the_report_says_whose_the_better_settings_are(of_heavy: bool) -> None:
    better = advised.better(deadline_s=200.0, for_p95_guest=of_heavy)
    sections = foreword_of(predictions.prediction(), None, better, b"").html
    assert ("Of the heavy guest." in sections) == of_heavy
    assert ("Of the middle guest." in sections) != of_heavy


def test_advice_comes_back_from_json() -> None:
    found = document(predictions.prediction(), advised.advice(), advised.better())
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["advice"]["typical"]["limits"][0]["found"] == "5.25Gbit/s"
    assert found["better"]["settings"]["cpu_throttle_initial"] == 50
