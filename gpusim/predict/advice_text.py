"""What advice says, in sentences and cells: for the terminal's page and the report's alike.

Owns the words; what to try is advise.py's, and what a setting is called elsewhere commands.py's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import yaml

from gpusim.config.schema import Config
from gpusim.engine.records import Alternative, Summary
from gpusim.explore.changes import set_key
from gpusim.explore.goal_search import BetterSettings
from gpusim.explore.setting_limits import Advice, FallbackSync, GuestAdvice, Limit, Name
from gpusim.predict import prediction_text
from gpusim.predict.commands import Words, in_words
from gpusim.predict.prediction import Prediction
from gpusim.text import format_duration

NAMES: dict[
    Name, tuple[str, str, str]
] = {  # of a limit: as it is told, its unit, and what is beyond the last value that was tried
    "bandwidth": ("Smallest bandwidth", "", "or less"),
    "dirty_rate": ("Largest dirty rate", "", "or more"),
    "downtime_limit": ("Smallest downtime limit", " ms", "or less"),
    "max_cpu_throttle": ("Lowest throttle limit that suffices", " %", ""),
}
LIMITS = ("All others as they are", "now", "middle guest", "heavy guest")  # head of their table
GOALS = {"fastest": "Fastest", "least_loss": "Least guest loss"}
SURPRISES = ("cannot set", "Nova raises", "completion_timeout is", "maxDowntimeMs")
SETTABLE = (  # by whoever migrates; not another QEMU, nor a rule that is in none
    "link.bandwidth",
    "migration.auto_converge",
    "migration.downtime_limit",
    "migration.max_bandwidth",
    "migration.max_cpu_throttle",
    "migration.multifd_channels",
)
SET_BY = ("libvirt", "OpenStack Nova", "KubeVirt")
NO_TIMEOUTS = "The tools' words have no timeouts: predict once more with these settings, and they are those of all guests."
FOOTNOTE = "* Time was up: values nearer to the limit were not tried."


def limit_rows(advice: Advice) -> list[tuple[str, str, str, str]]:
    """How far each setting may go: as it is now, for the middle guest, and for the heavy one."""
    typical = {limit.name: limit for limit in advice.median_guest.limits}
    heavy = {limit.name: limit for limit in advice.p95_guest.limits}
    rows = []
    for name, (told, unit, _) in NAMES.items():
        known = typical.get(name) or heavy.get(name)
        if known is not None:
            now = prediction_text.bandwidth(known.now) if name == "bandwidth" else known.now + unit
            middle, most = typical.get(name), heavy.get(name)
            rows.append((told, now, _cell(middle), _cell(most)))
    return rows


def _cell(limit: Limit | None) -> str:
    if limit is None:
        return ""
    _, unit, beyond = NAMES[limit.name]
    if limit.found is None:
        return "none" if limit.finished else "not found yet *"
    found = limit.found + unit
    if limit.first_failing is None and beyond:
        found += f" {beyond}"
    if limit.finished:
        return f"{found} ({outcome(limit.outcome)})" if limit.outcome else found
    if limit.first_failing is None:
        return f"{found} *"
    ends = [limit.first_failing, limit.found]
    if limit.name == "dirty_rate":  # the only one whose larger values are harder
        ends.reverse()
    return f"{' to '.join(ends)}{unit} *"


def notes(advice: Advice) -> list[str]:
    """What the table of limits leaves unsaid."""
    said = []
    for limit in (*advice.median_guest.limits, *advice.p95_guest.limits):
        _, unit, _ = NAMES[limit.name]
        if limit.also:
            why = ": fewer threads do not send so fast" if limit.name == "bandwidth" else ""
            said.append(f"{limit.found}{unit} wants {limit.also}{why}.")
        if limit.exceptions:
            those = ", ".join(value + unit for value in limit.exceptions)
            said.append(f"{limit.first_failing}{unit} does not converge, though {those} does.")
    guests = (advice.median_guest, advice.p95_guest)
    untried = [
        f"{one.key}={one.value}"
        for guest in guests
        for one in guest.alternatives
        if one.outcome == "not_tried"
    ]
    if untried:
        said.append(f"Time was up before {_listed(list(dict.fromkeys(untried)))} had been tried.")
    if not all(limit.finished for guest in guests for limit in guest.limits):
        said.append(FOOTNOTE)
    if any(guest.now is None for guest in guests):
        said.append("Time was up before the guests' migrations had been simulated.")
    return list(dict.fromkeys(said))


class WayOut(NamedTuple):
    """A change that makes it converge.

    Attributes:
        said: the change, and what it comes to.
        lines: what sets it at QEMU's monitor (HMP); none where no parameter does.
        tools: which of the tools can set it; empty where there is nothing to set.
    """

    said: str
    lines: tuple[str, ...]
    tools: str


class WaysOut(NamedTuple):
    """All that were found, and for whom."""

    head: str
    found: tuple[WayOut, ...]


def ways_out(prediction: Prediction, advice: Advice) -> WaysOut | None:
    """What would make it converge; None where the heavy guest does as it is, or nothing was tried."""
    if advice.p95_guest.now is None or advice.p95_guest.now.verdict == "converged":
        return None
    memory_bytes = prediction.profile.memory_bytes
    for guest, name, member in (
        (advice.p95_guest, "heavy", prediction.p95_member),
        (advice.median_guest, "middle", prediction.median_member),
    ):
        found = [
            WayOut(said, *_set_by(member.config, changes, memory_bytes))
            for said, changes in _ways_out(guest)
        ]
        if found:
            head = f"What would make it converge, for the {name} guest, each alone:"
            return WaysOut(head, tuple(found))
    return WaysOut("No single change that was tried makes it converge.", ())


def _ways_out(guest: GuestAdvice) -> Iterator[tuple[str, Sequence[str]]]:
    """Changes with which a guest that does not converge does, what it then comes to, and their keys."""
    if guest.now is None or guest.now.verdict == "converged":
        return
    helpful = [one for one in guest.alternatives if one.outcome == "converges"]
    alone = [f"{one.key}={one.value}" for one in helpful]
    for limit in guest.limits:
        # A limit that works because of what is set with it is that way once more.
        if limit.outcome is not None and limit.also not in alone:
            change = f"{limit.key}={limit.found}" if limit.key else f"a dirty rate of {limit.found}"
            also = f" with {limit.also}" if limit.also else ""
            keys = [f"{limit.key}={limit.found}", limit.also] if limit.key else []
            yield f"{change}{also} ({outcome(limit.outcome)})", [key for key in keys if key]
    for change, one in zip(alone, helpful, strict=True):
        yield f"{change} ({_of(one)})", [change]


def _set_by(
    config: Config, changes: Sequence[str], memory_bytes: int
) -> tuple[tuple[str, ...], str]:
    """HMP's lines that changes to a config alter, and in which tools' words they alter anything."""
    changed = config
    for key, _, value in (change.partition("=") for change in changes):
        if key not in SETTABLE:
            return (), ""
        if key.startswith("migration."):
            changed = set_key(changed, key, yaml.safe_load(value))
    before, after = (in_words(one, memory_bytes, None) for one in (config, changed))
    lines = tuple(
        line for line in after["QEMU, HMP"].lines if line not in before["QEMU, HMP"].lines
    )
    if not lines:
        return (), ""
    able = [tool for tool in SET_BY if after[tool].lines != before[tool].lines]
    unable = [tool for tool in SET_BY if tool not in able]
    told = [f"{_listed(able)} can set it"] if able else []
    told += [f"{_listed(unable)} cannot"] if able and unable else []
    return lines, "; ".join(told or [f"none of {_listed(SET_BY)} can set it"])


def _listed(names: Sequence[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last


def surprises(words: Words) -> list[str]:
    """Of a tool's notes those without which its lines mislead."""
    return [note for note in words.notes if any(part in note for part in SURPRISES)]


def _of(change: Alternative) -> str:
    return _told(change.total_time_s or 0.0, change.max_throttle_percent or 0)


def outcome(summary: Summary) -> str:
    """What a migration comes to, in a few words."""
    if summary.verdict == "time_limit":  # it might have, later
        return f"not over within {format_duration(summary.total_time_s)}"
    if summary.verdict != "converged":
        return "does not converge"
    return _told(summary.total_time_s, summary.max_throttle_percent)


def _told(total_s: float, throttle: int) -> str:
    return f"{format_duration(total_s)}, {f'throttle {throttle} %' if throttle else 'no throttle'}"


def fallback_sync(found: FallbackSync | None) -> str:
    """What the fallback sync brings, in a sentence; empty where it is not asked for or not known."""
    if found is None or found.with_it is None or found.without_it is None:
        return ""
    sides = [_side(side) for side in (found.with_it, found.without_it)]
    there = "as it is" if found.is_on else f"{found.key}={found.value}"
    if sides[0] == sides[1]:
        return f"QEMU's fallback sync changes nothing here: {sides[0]}, with it and without."
    return f"With QEMU's fallback sync ({there}): {sides[0]}; without it: {sides[1]}."


def _side(summary: Summary) -> str:
    lost = f", guest CPU lost {prediction_text.percent(summary.guest_cpu_lost_percent)}"
    return outcome(summary) + (lost if summary.verdict == "converged" else "")


def better_rows(prediction: Prediction, found: BetterSettings) -> list[tuple[str, str, str]]:
    """What serves the goal better, beside what is set, head first; none where nothing does."""
    if found.outcome is None or found.now is None:
        return []
    within = "" if found.deadline_s is None else f" within {format_duration(found.deadline_s)}"
    rows = [(f"{GOALS[found.goal]}{within}", "as set", "better")]
    migration = prediction.median_member.config.migration
    for key, value in found.settings.items():
        rows.append((key, _plain(getattr(migration, key)), _plain(value)))
    for name, field, told in prediction_text.QUANTITIES:
        now, then = (_cell_of(side, field, told) for side in (found.now, found.outcome))
        rows.append((name, now, then))
    return rows


def _cell_of(summary: Summary, field: str, told: Callable[[float], str]) -> str:
    value = getattr(summary, field)
    return "none" if value is None else told(value)


def better_notes(found: BetterSettings) -> list[str]:
    """How much it brings, and how long it was looked for."""
    if found.now is None:
        return ["Time was up before the migration had been simulated as it is set."]
    guest = "heavy guest" if found.for_p95_guest else "middle guest"
    if found.outcome is None:
        said = _nothing_better(found)
    elif found.gain is None:
        late = "" if found.deadline_s is None else ", or not in time"
        said = (
            f"As it is set it does not converge{late}. Best of {found.runs} runs, of the {guest}."
        )
    else:
        of_what = "total time" if found.goal == "fastest" else "guest's loss"
        said = (
            f"{prediction_text.percent(100 * found.gain)} less of the {of_what}, of the {guest}. "
            f"Best of {found.runs} runs."
        )
    return [
        said if found.finished else f"{said} Time was up before all had been tried.",
        *_of_the_heavy(found),
        *([NO_TIMEOUTS] if found.settings else []),
    ]


def _nothing_better(found: BetterSettings) -> str:
    """A goal that is served as it is, or a deadline that nothing keeps."""
    assert found.now is not None
    deadline_s, now = found.deadline_s, found.now
    if deadline_s is None and now.verdict != "converged":
        return f"None of {found.runs} settings makes it converge."
    if deadline_s is None or (now.verdict == "converged" and now.total_time_s <= deadline_s):
        within = "" if deadline_s is None else f" within {format_duration(deadline_s)}"
        return f"{GOALS[found.goal]}{within}: nothing better than what is set in {found.runs} runs."
    first = ""
    if now.first_pass_s is not None and now.first_pass_s >= deadline_s:
        first = f": the first pass alone, which no throttle shortens, takes {format_duration(now.first_pass_s)}"
    return f"None of {found.runs} settings is over within {format_duration(deadline_s)}{first}. As set: {outcome(now)}."


def _of_the_heavy(found: BetterSettings) -> Iterator[str]:
    """What the settings come to for a guest that they were not looked for with."""
    if found.p95_outcome is None or found.p95_now is None:
        return
    late = found.deadline_s is not None and found.p95_outcome.total_time_s > found.deadline_s
    sides = f"{_side(found.p95_outcome)}; as set, {_side(found.p95_now)}."
    if found.p95_outcome.verdict != "converged" or late:
        yield f"Not for the heavy guest{', for which it takes too long' * late}: {sides}"
    else:
        yield f"The heavy guest with it: {sides}"


def _plain(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def words(prediction: Prediction, found: BetterSettings | None) -> dict[str, Words]:
    """The settings in the words of the tools; the better ones where there are, without timeouts then.

    None of settings with which it does not converge. Timeouts are for nineteen in twenty: there is none where
    more do not converge, nor of better settings, as a search for them knows one guest alone.
    """
    config, memory_bytes = prediction.median_member.config, prediction.profile.memory_bytes
    if found is not None and found.settings:
        changes: dict[str, Any] = dict(found.settings)
        config = replace(config, migration=replace(config.migration, **changes))
        return in_words(config, memory_bytes, None)
    total = prediction.band("total_time_s")
    if not prediction.converges or total is None:
        return {}
    heavy = prediction.p95_member  # where some do not converge, the band is of the others alone
    high_s = max(total.high, heavy.summary.total_time_s) if heavy.converges else None
    return in_words(config, memory_bytes, high_s)
