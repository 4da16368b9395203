"""Do the tables, notes and commands of advice show what was tried, and no more?"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from gpusim.engine.records import Alternative
from gpusim.explore.bounds import NO_BOUNDS, Bounds
from gpusim.explore.changes import Setting
from gpusim.explore.goal_check import GoalCheck
from gpusim.explore.setting_limits import GuestAdvice
from gpusim.predict import advice_text
from gpusim.predict.advice_text import Cell
from gpusim.predict.commands import HMP
from gpusim.predict.messages import outcome_text, text_of
from gpusim.text import Message
from tests.predict import advised, predictions

HOPELESS = advised.stalled(limits=(), alternatives=())
NOTHING: dict[str, Any] = {"settings": {}, "outcome": None, "gain": None}


def codes(messages: list[Message]) -> list[str]:
    return [one.code for one in messages]


def test_limits_of_both_guests_side_by_side() -> None:
    rows = advice_text.limit_rows(advised.advice(advised.converging(), advised.stalled()))
    outcome = "90 s, throttle 50 %"
    assert [tuple(row) for row in rows] == [
        ("Smallest bandwidth", "10Gbit/s", ("5.25Gbit/s", outcome), ("14Gbit/s", outcome)),
        ("Largest dirty rate", "1x", ("10x or more", outcome), ("", "")),
        ("Smallest downtime limit", "300 ms", ("130 to 120 ms *", ""), ("none", "")),
        ("Lowest sufficient throttle limit", "99 %", ("60 %", outcome), ("", "")),
    ]


def test_an_unfinished_limit_has_an_asterisk() -> None:
    none = advised.limit("downtime_limit", None, "300", finished=False)
    between = advised.limit("dirty_rate", "1.2x", "1x", first_failing="2x", finished=False)
    advice = advised.advice(advised.converging(limits=(none, between)))
    cells = [row.median for row in advice_text.limit_rows(advice)]
    assert cells == [Cell("1.2x to 2x *"), Cell("not known *")]
    assert "values_untried" in codes(advice_text.limit_notes(advice))


def test_a_guest_without_advice_has_a_note_and_no_limits() -> None:
    nothing = advised.advice(GuestAdvice(now=None))
    assert codes(advice_text.limit_notes(nothing)) == ["guests_untried"]
    assert advice_text.limit_rows(nothing) == []
    assert advice_text.margin(nothing) == ""


def test_notes_on_limits() -> None:
    (note,) = advice_text.limit_notes(advised.advice(advised.stalled()))
    assert note.code == "channels_needed"
    assert note.data == {"value": "14Gbit/s", "also": "migration.multifd_channels=2"}
    limit = advised.stalled().limits[0]
    odd = replace(limit, first_failing="13Gbit/s", exceptions=("11Gbit/s",))
    notes = advice_text.limit_notes(advised.advice(advised.stalled(limits=(odd,))))
    data = {"value": "13Gbit/s", "others": ("11Gbit/s",)}
    assert Message("limit_has_exceptions", data) in notes
    untried = Alternative(key="migration.auto_converge", value="true", outcome="not_tried")
    notes = advice_text.limit_notes(advised.advice(advised.stalled(alternatives=(untried,))))
    assert Message("changes_untried", {"changes": ("migration.auto_converge=true",)}) in notes


def test_the_margin_is_that_of_the_95th_percentile_guest() -> None:
    text = advice_text.margin(advised.advice(advised.stalled(), advised.converging()))
    for value in ("5.25Gbit/s", "10x", "120 ms", "60 %"):
        assert value in text
    assert advice_text.margin(advised.advice(advised.converging(), advised.stalled())) == ""


def test_changes_for_the_95th_percentile_guest_or_else_for_the_median() -> None:
    prediction = predictions.prediction(0, 20)
    both = advice_text.ways_out(prediction, advised.advice(advised.stalled()))
    assert both is not None and both.guest == advice_text.P95_GUEST
    first, second = both.found
    assert first.change == "link.bandwidth=14Gbit/s with migration.multifd_channels=2"
    assert (first.outcome, second.outcome) == ("90 s, throttle 50 %", "20.6 min, no throttle")
    assert first.lines == (
        "migrate_set_capability multifd on",
        "migrate_set_parameter multifd-channels 2",
    )
    assert first.settable == ("libvirt", "OpenStack Nova")
    assert first.not_settable == ("KubeVirt",)
    assert second.change == "migration.version=qemu_9_2"
    assert (second.lines, second.managers) == ((), "")
    median = advice_text.ways_out(prediction, advised.advice(advised.stalled(), HOPELESS))
    assert median is not None and median.guest == advice_text.MEDIAN_GUEST and median.found
    nothing = advice_text.ways_out(prediction, advised.advice(HOPELESS))
    assert nothing == ("", (), False, 0)
    hard = advised.limit("downtime_limit", None, "300", first_failing="30000")
    tried = advice_text.ways_out(prediction, advised.advice(replace(HOPELESS, limits=(hard,))))
    assert tried is not None and tried.tried and tried.heading != nothing.heading
    assert advice_text.ways_out(prediction, advised.advice()) is None


def test_post_copy_as_a_way_out_says_what_it_costs_the_guest() -> None:
    change = Alternative(
        key="migration.start_postcopy",
        value="1pass",
        also="migration.postcopy_ram=true",
        outcome="converges",
        total_time_s=95.0,
        downtime_ms=30.0,
        max_throttle_percent=0,
        guest_cpu_lost_percent=12.0,
        postcopy_time_s=40.0,
        postcopy_blackout_ms=450.0,
    )
    guest = advised.stalled(limits=(), alternatives=(change,))
    ways = advice_text.ways_out(predictions.prediction(0, 20), advised.advice(guest))
    assert ways is not None
    (way,) = ways.found
    assert way.change == "migration.postcopy_ram=true with migration.start_postcopy=1pass"
    for cost in ("95 s, no throttle", "450 ms", "12 %", "40 s"):
        assert cost in way.outcome
    assert way.lines == ("migrate_set_capability postcopy-ram on", "migrate_start_postcopy")
    assert way.settable == advice_text.MANAGERS


def test_commands_of_a_change() -> None:
    limits = (
        advised.limit("downtime_limit", "900", "300"),
        advised.limit("max_cpu_throttle", "20", "10"),
    )
    guest = advised.stalled(limits=limits, alternatives=())
    ways = advice_text.ways_out(predictions.prediction(0, 20), advised.advice(guest))
    assert ways is not None
    assert [way.lines for way in ways.found] == [
        ("migrate_set_parameter downtime-limit 900",),
        ("migrate_set_parameter max-cpu-throttle 20",),
    ]
    assert [way.settable for way in ways.found] == [("libvirt", "OpenStack Nova"), ()]
    assert ways.found[1].not_settable == advice_text.MANAGERS


@pytest.mark.parametrize(
    ("is_alternative", "change"),
    [
        (True, "migration.auto_converge=true"),
        (False, "migration.max_cpu_throttle=20 with migration.auto_converge=true"),
    ],
)
def test_auto_converge_is_one_change(is_alternative: bool, change: str) -> None:
    on = Setting("migration.auto_converge", "true")
    converges = replace(
        advised.stalled().alternatives[0], key="migration.auto_converge", value="true"
    )
    limits = (advised.limit("max_cpu_throttle", "20", "0", also=on),)
    guest = advised.stalled(limits=limits, alternatives=(converges,) * is_alternative)
    ways = advice_text.ways_out(predictions.prediction(0, 20), advised.advice(guest))
    assert ways is not None and [way.change for way in ways.found] == [change]


def test_the_effect_of_the_fallback_sync() -> None:
    sync = advised.converging().fallback_sync
    assert sync is not None
    (note,) = advice_text.fallback_sync_notes(sync)
    assert note.code == "fallback_sync_effect"
    assert note.data["without_it"] is advised.DOES_NOT
    near = replace(advised.CONVERGES, total_time_s=90.04, dirty_sync_count=1)
    for same in (
        replace(sync, without_it=near),
        replace(sync, with_it=advised.DOES_NOT),
    ):
        assert codes(advice_text.fallback_sync_notes(same)) == ["fallback_sync_without_effect"]
    assert advice_text.fallback_sync_notes(None) == []
    assert advice_text.fallback_sync_notes(replace(sync, without_it=None)) == []


def test_an_outcome_after_the_time_limit() -> None:
    ended = replace(advised.DOES_NOT, verdict="time_limit", total_time_s=86_400.0)
    assert outcome_text(ended) == "does not end within 24 h"
    assert outcome_text(advised.DOES_NOT) == "does not converge"


def test_better_settings_beside_the_present_ones() -> None:
    prediction = predictions.prediction()
    rows = advice_text.better_rows(prediction, advised.better(bounds=Bounds(total_time_s=1200.0)))
    assert rows[:4] == [
        ("Fastest within a total time of 20 min", "now", "better"),
        ("cpu_throttle_initial", "20", "50"),
        ("cpu_throttle_increment", "10", "25"),
        ("Total time", "2 min", "90 s"),
    ]
    gain, without_timeouts = advice_text.better_notes(advised.better())
    assert (gain.code, gain.data["gain_percent"]) == ("goal_gain", 25)
    assert without_timeouts.code == "goal_without_timeouts"
    commands = advice_text.commands_for(prediction, advised.better())
    assert "migrate_set_parameter cpu-throttle-initial 50" in commands[HMP].lines
    assert not any("timeout" in line for line in commands["OpenStack Nova"].lines)
    commands = advice_text.commands_for(predictions.prediction(0, 20), advised.better())
    assert "--auto-converge-initial 50" in commands["libvirt"].lines[1]


def test_a_small_gain_and_a_longer_stall_are_said_with_the_gain() -> None:
    now = replace(advised.CONVERGES, guest_cpu_lost_percent=0.35, longest_vcpu_stall_ms=6.67)
    then = replace(now, guest_cpu_lost_percent=0.098, longest_vcpu_stall_ms=561.0)
    better = advised.better(goal="least_loss", now=now, outcome=then, gain=0.72)
    text = text_of(advice_text.better_notes(better)[0])
    assert "less than 1 percentage point" in text
    assert "6.67 ms to 561 ms" in text
    text = text_of(advice_text.better_notes(advised.better())[0])
    assert "percentage point" not in text and "sleep" not in text


def test_the_price_of_a_gain_and_all_migrations_are_in_the_first_line() -> None:
    now = replace(advised.CONVERGES, guest_cpu_lost_percent=0.131, total_time_s=18.4)
    then = replace(now, guest_cpu_lost_percent=1.04, total_time_s=10.6)
    check = GoalCheck(members=16, keeping_now=16, keeping=15, value_now=13.6, value=10.3)
    better = advised.better(now=now, outcome=then, check=check)
    text = text_of(advice_text.better_notes(better)[0])
    assert "CPU loss grows from 0.131 % to 1.04 %" in text
    assert "15 of 16 simulated migrations converge with them, and 16 now" in text
    assert "10.3 s, and 13.6 s now" in text
    slower = advised.better(goal="least_loss", now=then, outcome=now)
    assert "total time grows from 10.6 s to 18.4 s" in text_of(advice_text.better_notes(slower)[0])


def test_settings_that_do_not_help_all_are_no_advice() -> None:
    check = GoalCheck(members=16, keeping_now=16, keeping=12, value_now=0.4, value=0.5)
    better = advised.better(goal="least_loss", check=check, rejected=True, **NOTHING)
    (note,) = advice_text.better_notes(better)
    assert note.code == "goal_not_for_all" and "12 of 16" in text_of(note)
    assert "0.5 vCPU s, and 0.4 vCPU s now" in text_of(note)


SLOW = replace(advised.CONVERGES, total_time_s=300.0, first_pass_s=200.0)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({**NOTHING, "finished": False}, ["goal_nothing_better", "goal_unfinished"]),
        ({"now": None}, ["goal_unknown"]),
        (
            {"now": advised.DOES_NOT, "gain": None},
            ["goal_makes_converge", "goal_without_timeouts"],
        ),
        (
            {"now": SLOW, "gain": None, "bounds": Bounds(total_time_s=250.0)},
            ["goal_keeps_bounds", "goal_without_timeouts"],
        ),
        ({**NOTHING, "now": advised.DOES_NOT}, ["goal_never_converges"]),
        (
            {**NOTHING, "now": advised.DOES_NOT, "postcopy": advised.CONVERGES},
            ["goal_never_converges", "goal_postcopy"],
        ),
        (
            {**NOTHING, "now": SLOW, "bounds": Bounds(total_time_s=60.0)},
            ["goal_misses_bounds", "goal_first_pass_too_long"],
        ),
        ({**NOTHING, "now": SLOW, "bounds": Bounds(total_time_s=250.0)}, ["goal_misses_bounds"]),
        ({**NOTHING, "now": SLOW, "bounds": Bounds(total_time_s=400.0)}, ["goal_nothing_better"]),
    ],
)
def test_the_result_of_a_search(fields: dict[str, Any], expected: list[str]) -> None:
    better = advised.better(**fields)
    assert codes(advice_text.better_notes(better)) == expected
    if better.outcome is None:
        assert advice_text.better_rows(predictions.prediction(), better) == []


@pytest.mark.parametrize(
    ("outcome", "bounds", "code"),
    [
        (advised.CONVERGES, NO_BOUNDS, "goal_for_p95_guest"),
        (advised.CONVERGES, Bounds(total_time_s=60.0), "goal_fails_p95_guest"),
        (advised.DOES_NOT, NO_BOUNDS, "goal_fails_p95_guest"),
    ],
)
def test_better_settings_are_tried_on_the_95th_percentile_guest(
    outcome: Any, bounds: Bounds, code: str
) -> None:
    better = advised.better(p95_outcome=outcome, p95_now=advised.CONVERGES, bounds=bounds)
    note = advice_text.better_notes(better)[1]
    assert (note.code, note.data["outcome"]) == (code, outcome)


@pytest.mark.parametrize("for_p95_guest", [False, True])
def test_better_settings_name_their_guest(for_p95_guest: bool) -> None:
    better = advised.better(for_p95_guest=for_p95_guest)
    guest = advice_text.P95_GUEST if for_p95_guest else advice_text.MEDIAN_GUEST
    assert advice_text.better_notes(better)[0].data["guest"] == guest


def test_commands_only_if_it_converges_and_timeouts_only_if_19_of_20_do() -> None:
    def has_timeout(converging: int) -> list[bool]:
        commands = advice_text.commands_for(predictions.prediction(converging, 20), None)
        return [any("imeout" in line for line in one.lines) for one in commands.values()]

    assert has_timeout(20) == [False, False, False, True, True]  # Nova and KubeVirt
    assert has_timeout(18) == [False] * 5
    assert has_timeout(0) == []


def test_a_timeout_is_not_shorter_than_19_of_20_migrations() -> None:
    """95 of 100 migrations converge in 101 to 195 s. 5 % of those are a tenth of all."""
    nova = advice_text.commands_for(predictions.prediction(95, 100), None)["OpenStack Nova"]
    line = next(one for one in nova.lines if "completion_timeout" in one)
    assert int(line.split()[-1]) * 2 >= 195  # Nova counts at least 2 GiB


def test_runs_that_were_cut_are_no_changes_that_fail() -> None:
    prediction = predictions.prediction(0, 20)
    nothing = advised.stalled(limits=(), alternatives=())
    for advice, expected in (
        (replace(advised.advice(nothing), cut=3), "stopped 3 runs"),
        (advised.advice(nothing), "no single change that it could try"),
    ):
        ways = advice_text.ways_out(prediction, advice)
        assert ways is not None and expected in ways.heading
