"""Does what is advised say what was tried, and no more?"""

from __future__ import annotations

from dataclasses import replace

from gpusim.predict import recommended
from gpusim.predict.page import lines
from tests.predict import advised, predictions


def test_limits_of_the_middle_guest_beside_those_of_the_heavy_one() -> None:
    rows = recommended.limit_rows(advised.advice(advised.converging(), advised.stuck()))
    assert rows == [
        ("Smallest bandwidth", "10Gbit/s", "5.25Gbit/s", "14Gbit/s"),
        ("Largest dirty rate", "1x", "10x or more", ""),
        ("Smallest downtime limit", "300 ms", "120 ms *", "none"),
        ("Highest throttle needed", "99 %", "60 %", ""),
    ]


def test_a_value_that_time_did_not_suffice_for_is_marked() -> None:
    assert recommended.FOOTNOTE in recommended.notes(advised.advice())
    assert recommended.notes(advised.advice(advised.stuck())) == [
        "14Gbit/s wants migration.multifd_channels=2: fewer threads do not send so fast."
    ]
    nothing = advised.advice(advised.GuestAdvice(now=None))
    assert "Time was up before" in " ".join(recommended.notes(nothing))
    assert recommended.limit_rows(nothing) == []


def test_what_converges_beyond_a_limit_is_told() -> None:
    odd = replace(advised.stuck().limits[0], too_hard="13Gbit/s", exceptions=("11Gbit/s",))
    said = recommended.notes(advised.advice(advised.stuck(limits=(odd,))))
    assert "13Gbit/s does not converge, though 11Gbit/s does." in said


def test_ways_out_of_nineteen_in_twenty_else_of_the_middle_one() -> None:
    both = recommended.way_out(advised.advice(advised.stuck()))
    assert both == (
        "What would, for nineteen in twenty, each alone: link.bandwidth=14Gbit/s with "
        "migration.multifd_channels=2 (90 s, throttle 50 %); migration.version=qemu_9_2 "
        "(20.6 min, no throttle)."
    )
    hopeless = advised.stuck(limits=(), ways_out=())
    middle = recommended.way_out(advised.advice(advised.stuck(), hopeless))
    assert middle.startswith("What would, for the middle one, each alone: link.bandwidth=14Gbit/s")
    assert recommended.way_out(advised.advice(hopeless)) == (
        "No single change that was tried makes it converge."
    )
    assert recommended.way_out(advised.advice()) == ""


def test_what_the_fallback_sync_brings() -> None:
    sync = advised.converging().fallback_sync
    assert sync is not None
    assert recommended.fallback_sync(sync) == (
        "With QEMU's fallback sync (as it is): 90 s, throttle 50 %, guest CPU lost 12.5 %; without "
        "it: does not converge."
    )
    assert "changes nothing here" in recommended.fallback_sync(
        replace(sync, without_it=advised.CONVERGES)
    )
    assert recommended.fallback_sync(None) == ""
    assert recommended.fallback_sync(replace(sync, without_it=None)) == ""


def test_the_page_has_all_of_it() -> None:
    text = lines(predictions.prediction(0, 20), advised.advice(advised.stuck()))
    verdict = " ".join(text.split("\n\n")[1].split())
    assert "What would, for nineteen in twenty" in verdict
    assert "  Smallest bandwidth        10Gbit/s   14Gbit/s       14Gbit/s" in text.splitlines()
    assert max(map(len, text.splitlines())) <= 100
