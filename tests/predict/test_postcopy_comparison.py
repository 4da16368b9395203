"""Precopy beside post-copy: the settings of each way, what is recommended, and how it reads."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import pytest

from gpusim import MixConfig, VmConfig
from gpusim.config.compose import composed_config
from gpusim.config.scenario import resolve
from gpusim.explore.bounds import Bounds
from gpusim.explore.run_pool import RunPool
from gpusim.predict import advice_text, postcopy_text, prediction_text
from gpusim.predict.bounds_text import kept
from gpusim.predict.commands import HMP, tool_commands
from gpusim.predict.document import document
from gpusim.predict.ensemble import draw_guests, member_config
from gpusim.predict.host_config import host_config
from gpusim.predict.postcopy_comparison import (
    PostcopyComparison,
    _at_once,
    _precopy,
    _recommended,
    _settings,
    _then_postcopy,
    _tool,
    compare_ways,
    ways_to_compare,
)
from gpusim.predict.postcopy_costs import RANGES, drawn
from gpusim.predict.prediction import Prediction
from gpusim.predict.report import introduction_of
from gpusim.predict.strata import Strata
from gpusim.predict.terminal import prediction_lines
from tests.formats.profiles import exact_profile, uniform_pages
from tests.predict import predictions


def compared(prediction: Prediction, most_steps: int = 20_000) -> Prediction:
    with RunPool(0, most_steps=most_steps) as pool:
        ways = ways_to_compare(prediction, RANGES, 1)
        return replace(prediction, ways=compare_ways(ways, prediction.bounds, pool))


def ways_of(prediction: Prediction) -> PostcopyComparison:
    assert prediction.ways is not None
    return prediction.ways


def codes(prediction: Prediction) -> list[str]:
    return [one.code for one in postcopy_text.messages(prediction)]


@cache
def converging() -> Prediction:
    return compared(predictions.prediction())


@cache
def stalled() -> Prediction:
    return compared(predictions.prediction(0, 20))


def test_each_way_has_its_own_risk() -> None:
    """The guest writes 24 MiB, so post-copy at once sends more than twice as much as after a pass."""
    precopy, then, at_once = ways_of(converging()).ways
    assert [one.converging for one in (precopy, then, at_once)] == [5, 5, 5]
    assert precopy.bands["total_time_s"].middle == 111  # of the members, which were simulated
    assert "at_risk_s" not in precopy.bands and "recovery_s" not in precopy.bands
    assert at_once.bands["at_risk_s"].low > 2 * then.bands["at_risk_s"].high
    for way in (then, at_once):
        downtime, blackout = way.bands["downtime_ms"], way.bands["blackout_ms"]
        assert blackout.low >= downtime.low + RANGES["resume_ms"].low
        assert blackout.high / blackout.low > 1.5  # nobody measured when the guest starts


def test_precopy_that_converges_needs_no_risk() -> None:
    assert ways_of(converging()).recommended is None
    assert codes(converging()) == ["postcopy_not_needed", "postcopy_risk", "postcopy_unmeasured"]
    assert postcopy_text.recommended(converging()) == ""


def test_post_copy_is_recommended_with_its_commands_if_precopy_stalls() -> None:
    best = ways_of(stalled()).recommended
    assert best is not None and best.name == "then_postcopy"
    settings = "migration.postcopy_ram=true migration.start_postcopy=1pass"
    assert best.settings == settings
    assert settings in postcopy_text.recommended(stalled())
    commands = advice_text.commands_for(stalled(), None)
    assert commands[HMP].lines[-1] == "migrate_start_postcopy"
    assert "--postcopy-after-precopy" in commands["libvirt"].lines[1]
    assert advice_text.commands_heading(stalled(), None) == "Commands for the switch to post-copy"


def test_a_deadline_recommends_the_way_that_keeps_it() -> None:
    """The members take 101 to 120 s, and post-copy at 200 Mbit/s three seconds and its end."""
    made = compared(replace(predictions.prediction(), bounds=Bounds(total_time_s=60.0)))
    precopy, then, at_once = ways_of(made).ways
    assert (precopy.keeping, then.keeping, at_once.keeping) == (0, 5, 5)
    assert "keeps a total time of 60 s" in postcopy_text.recommended(made)
    never = compared(replace(predictions.prediction(), bounds=Bounds(total_time_s=0.1)))
    assert codes(never)[0] == "postcopy_for_some"
    assert advice_text.commands_heading(never, None) == "Commands for the present settings"


def test_a_way_that_fails_for_a_guest_is_not_recommended() -> None:
    """Precopy keeps the limit for two of five guests. A way with four of five is no answer."""
    ways = list(ways_of(stalled()).ways)
    found = [replace(one, keeping=keeping) for one, keeping in zip(ways, (2, 4, 3), strict=True)]
    assert _recommended(found) is None
    assert _recommended([found[0], found[1], replace(found[2], keeping=5)]) is not None
    assert _recommended([replace(found[0], cut=3), *ways[1:]]) is None


def test_a_run_that_was_cut_shows_nothing() -> None:
    made = compared(predictions.prediction(0, 20), most_steps=0)
    assert [way.cut for way in ways_of(made).ways] == [0, 5, 5]
    assert ways_of(made).recommended is None


@pytest.mark.parametrize(
    ("vfio", "migration", "qemu", "code"),
    [
        (1, {}, None, "postcopy_vfio"),
        (0, {"version": "qemu_9_2", "multifd_channels": 8}, None, "postcopy_multifd"),
        (0, {}, (2, 4, 1), "postcopy_version"),
    ],
)
def test_an_obstacle_is_named_instead(
    vfio: int, migration: dict[str, Any], qemu: Any, code: str
) -> None:
    base = predictions.prediction()
    members = [
        replace(
            one,
            config=replace(
                one.config,
                vm=VmConfig(memory=2**26, vcpus=2, vfio_devices=vfio),
                migration=replace(one.config.migration, **migration),
            ),
        )
        for one in base.members
    ]
    made = compared(replace(base, members=tuple(members), profile=replace(base.profile, qemu=qemu)))
    assert codes(made) == [code]
    assert postcopy_text.rows(made) == [] and ways_of(made).ways == ()
    assert postcopy_text.sentences(made)[0] in " ".join(prediction_lines(made).split())


@pytest.mark.parametrize(
    ("policy", "tool"),
    [
        ("nova", "Nova"),
        ("kubevirt", "KubeVirt"),
        ("kubevirt_stall", "KubeVirt"),
        ("ovirt", "oVirt"),
    ],
)
def test_a_manager_switches_as_its_preset_says(policy: str, tool: str) -> None:
    """The simulated settings are those that the answer names."""
    plain = composed_config([f"policy={policy}"])
    permitted = composed_config([f"policy={policy}_post_copy"])
    assert _then_postcopy(plain).migration == permitted.migration
    assert _then_postcopy(permitted) == permitted
    for config in (plain, permitted):
        for way in (_precopy, _then_postcopy, _at_once):
            resolve(way(config))
        assert not _precopy(config).migration.postcopy_ram
        assert _at_once(config).migration.start_postcopy == "0s"
    assert _tool(plain) == _tool(permitted) == tool
    assert _settings("then_postcopy", plain) == f"policy={policy}_post_copy"
    assert _settings("then_postcopy", permitted) == ""
    at_once = "migration.start_postcopy=0s"
    assert _settings("postcopy_at_once", permitted) == at_once
    channels = " migration.multifd_channels=0" if tool == "KubeVirt" else ""
    expected = f"migration.postcopy_ram=true{channels} {at_once}"
    assert _settings("postcopy_at_once", plain) == expected


def test_a_user_s_own_time_of_the_switch_stays() -> None:
    config = composed_config(
        ["migration.postcopy_ram=true", "migration.start_postcopy=throttle_50"]
    )
    assert _then_postcopy(config) is config
    assert _precopy(config).migration.start_postcopy == "never"


def test_the_table_has_a_row_for_each_quantity() -> None:
    rows = dict(postcopy_text.rows(stalled()))
    assert list(rows) == ["Converges", *(label for label, _ in postcopy_text.LABELS.values())]
    assert [median for median, _ in rows["Converges"]] == ["0 of 5", "5 of 5", "5 of 5"]
    assert rows["A lost link stops it for"][0] == ("", "")
    heads = postcopy_text.heads(ways_of(stalled()))
    assert heads[1:] == ("precopy, auto-converge", "post-copy after 1 pass", "post-copy at once")
    lines = prediction_lines(stalled()).splitlines()
    assert max(map(len, lines)) <= 100
    assert any(line.startswith("Ways to end it") for line in lines)


def test_the_keys_of_the_comparison() -> None:
    found = document(stalled())["postcopy"]
    assert found["recommended"] == "then_postcopy"
    assert set(found["ways"]) == {"precopy", "then_postcopy", "postcopy_at_once"}
    risk = found["ways"]["then_postcopy"]["at_risk_s"]
    assert risk["low"] <= risk["middle"] <= risk["high"]
    assert found["ways"]["precopy"]["at_risk_s"] is None
    assert [one["code"] for one in found["messages"]] == codes(stalled())
    assert document(predictions.prediction())["postcopy"] is None


def test_the_answer_tells_of_the_switch() -> None:
    """The members end after 101 to 120 s, 40 s after the switch."""
    fields = {"reason_code": "postcopy", "postcopy_time_s": 40.0, "first_pass_s": 60.0}
    made = predictions.prediction(members=predictions.members(20, 20, **fields))
    text = prediction_text.switch(made)
    assert "switches to post-copy after 70.5 s" in text.replace("71 s", "70.5 s")
    assert "40 s" in text and text in prediction_text.answer(made)
    assert "post-copy 40 s" in prediction_text.time_parts(made)
    assert prediction_text.switch(predictions.prediction()) == ""


def test_costs_are_drawn_within_their_ranges_and_reads_follow_writes() -> None:
    config = predictions.config()
    for place in (0.0, 0.5, 1.0):
        made = drawn(config, RANGES, lambda _, place=place: place)  # type: ignore[misc]
        for key, one in RANGES.items():
            assert one.low * 0.999 <= getattr(made.postcopy, key) <= one.high * 1.001
        writers = made.workload.writers  # type: ignore[union-attr]
        shares = {one["reads_per_s"] / one["page_writes_per_s"] for one in writers.values()}
        assert max(shares) == pytest.approx(min(shares))
        assert max(shares) == pytest.approx(0.5 * 8**place)
    stated = {key: one for key, one in RANGES.items() if key != "fault_us"}
    assert drawn(config, stated, lambda _: 0.0).postcopy.fault_us == config.postcopy.fault_us


def test_the_page_has_the_comparison_and_the_recommendation() -> None:
    html = introduction_of(stalled(), None, None, b"", b"").html
    for text in (
        "Precopy and post-copy",
        "post-copy after 1 pass",
        "migration.start_postcopy=1pass",
    ):
        assert text in html
    assert (
        "Precopy and post-copy"
        not in introduction_of(predictions.prediction(), None, None, b"", b"").html
    )


@pytest.mark.parametrize(
    ("overrides", "draws"),
    [
        (["policy=nova_post_copy"], True),
        (["migration.postcopy_ram=true", "migration.start_postcopy=1pass"], True),
        (["migration.postcopy_ram=true"], False),  # permitted, and nobody starts it
    ],
)
def test_members_draw_the_costs_if_they_may_switch(overrides: list[str], draws: bool) -> None:
    profile = exact_profile(uniform_pages(2000, 500), 2**26)
    host = host_config(profile, [*overrides, "postcopy.fault_us=60"])
    assert set(host.postcopy_costs) == RANGES.keys() - {"fault_us"}
    _, ((own, one), *_) = draw_guests(profile, 2, 1)
    member = member_config(own, host, one, Strata(seed=1, place=0, count=2), 1)
    assert member.postcopy.fault_us == 60
    assert (member.postcopy.resume_ms != host.config.postcopy.resume_ms) == draws
    assert isinstance(member.workload, MixConfig)
    assert all(("reads_per_s" in writer) == draws for writer in member.workload.writers.values())


def test_the_commands_have_the_timeout_of_the_simulated_kubevirt() -> None:
    config = composed_config(
        [
            "policy=kubevirt_post_copy",
            "migration.manager.args.completion_timeout_per_gib=12",
        ]
    )
    lines = tool_commands(config, 2**33, None)["KubeVirt"].lines
    assert {"  allowPostCopy: true", "  completionTimeoutPerGiB: 12"} <= set(lines)


def test_a_limit_of_the_downtime_counts_what_the_guest_feels() -> None:
    """The source reports 100 ms. The guest stands still for 900 ms, so the margin is -400 ms."""
    fields = {"reason_code": "postcopy", "downtime_ms": 100.0, "postcopy_blackout_ms": 900.0}
    made = predictions.prediction(
        members=predictions.members(20, 20, **fields), bounds=Bounds(downtime_ms=500.0)
    )
    (one,) = kept(made)
    assert (one.keeping, one.median, one.margin) == (0, 900.0, -400.0)
