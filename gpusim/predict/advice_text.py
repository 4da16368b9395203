"""Advice in sentences, cells and commands, for the terminal and the page.

Owns the text. gpusim/explore decides what to try, commands.py knows the tools.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import yaml

from gpusim.config.schema import Config
from gpusim.engine.records import Alternative, Summary
from gpusim.explore.changes import Setting, override_text, set_key, value_text
from gpusim.explore.goal_check import GoalCheck
from gpusim.explore.goal_search import QUANTITIES as QUANTITIES_OF_GOALS
from gpusim.explore.goal_search import BetterSettings
from gpusim.explore.setting_limits import Advice, FallbackSync, GuestAdvice, Limit
from gpusim.explore.setting_questions import Name
from gpusim.policies.names import KUBEVIRT
from gpusim.predict.bounds_text import NAMES, bounds_words, shown
from gpusim.predict.commands import HMP, LIBVIRT, OPENSTACK, ToolCommands, tool_commands
from gpusim.predict.messages import outcome_text, text_of, time_and_throttle
from gpusim.predict.prediction import Prediction
from gpusim.predict.prediction_text import QUANTITIES, bandwidth
from gpusim.results.summary_fields import RUN_FIELDS
from gpusim.text import Message, count_noun, format_duration, format_number, join_words

MEDIAN_GUEST, P95_GUEST = "median guest", "95th-percentile guest"
LIMITS_HEAD = ("Change only this setting", "now", MEDIAN_GUEST, P95_GUEST)
SMALL_GAIN = 1.0  # percentage points of the guest's CPU time
GOAL_NAMES = {"fastest": "total time", "least_loss": "CPU loss"}
PRICES = {"fastest": "guest_cpu_lost_percent", "least_loss": "total_time_s"}  # what a goal may cost
GOALS = {"fastest": "Fastest", "least_loss": "Least guest loss"}
SETTABLE = (  # with a running VM. Another QEMU version or rule needs another program
    "link.bandwidth",
    "migration.auto_converge",
    "migration.downtime_limit",
    "migration.max_bandwidth",
    "migration.max_cpu_throttle",
    "migration.multifd_channels",
    "migration.postcopy_ram",
    "migration.start_postcopy",
)
BY_USE = (
    "migration.auto_converge",
    "migration.multifd_channels",
    "migration.downtime_limit",
    "migration.max_bandwidth",
    "link.bandwidth",
    "migration.max_cpu_throttle",
    "migration.start_postcopy",
    "migration",
)
MANAGERS = (LIBVIRT, OPENSTACK, KUBEVIRT)


class LimitText(NamedTuple):
    """How a limit is shown: its name in a table and in a sentence, its unit, and an open end."""

    label: str
    margin: str
    unit: str
    open_end: str


LIMITS: dict[Name, LimitText] = {
    "bandwidth": LimitText("Smallest bandwidth", "a bandwidth of", "", "or less"),
    "dirty_rate": LimitText("Largest dirty rate", "a dirty rate of", "", "or more"),
    "downtime_limit": LimitText("Smallest downtime limit", "a downtime limit of", " ms", "or less"),
    "max_cpu_throttle": LimitText(
        "Lowest sufficient throttle limit", "a throttle limit of", " %", ""
    ),
}


class Cell(NamedTuple):
    """A cell of the table of limits: a value, and the outcome with it."""

    value: str
    outcome: str = ""


class LimitRow(NamedTuple):
    """How far one setting may go: as it is now, for the median and the 95th-percentile guest."""

    label: str
    now: str
    median: Cell
    p95: Cell


def limit_rows(advice: Advice) -> list[LimitRow]:
    """Return a row for each limit that one of the guests has."""
    median = {limit.name: limit for limit in advice.median_guest.limits}
    p95 = {limit.name: limit for limit in advice.p95_guest.limits}
    found = []
    for name, text in LIMITS.items():
        limit = median.get(name) or p95.get(name)
        if limit is not None:
            now = bandwidth(limit.now) if name == "bandwidth" else limit.now + text.unit
            found.append(LimitRow(text.label, now, _cell(median.get(name)), _cell(p95.get(name))))
    return found


def _cell(limit: Limit | None) -> Cell:
    """Return a limit as a cell. An asterisk marks a limit with values that cannot be simulated."""
    if limit is None:
        return Cell("")
    text = LIMITS[limit.name]
    if limit.found is None:
        return Cell("none" if limit.finished else "not known *")
    if limit.first_failing is not None and not limit.finished:
        ends = [limit.first_failing, limit.found]
        if limit.name == "dirty_rate":  # its larger values are the harder ones
            ends.reverse()
        return Cell(f"{' to '.join(ends)}{text.unit} *")
    value = limit.found + text.unit
    if limit.first_failing is None and text.open_end:
        value = f"{value} {text.open_end}"
    if not limit.finished:
        return Cell(f"{value} *")
    return Cell(value, outcome_text(limit.outcome) if limit.outcome else "")


def margin(advice: Advice) -> str:
    """Return how much harder the migration may become for the 95th-percentile guest.

    Returns:
        "" if that guest does not converge, or was not simulated.
    """
    guest = advice.p95_guest
    if guest.now is None or guest.now.verdict != "converged":
        return ""
    parts = [
        "no throttle"
        if limit.name == "max_cpu_throttle" and limit.found == "0"
        else f"{LIMITS[limit.name].margin} {limit.found}{LIMITS[limit.name].unit}"
        for limit in guest.limits
        if limit.found is not None and limit.found != limit.now and not limit.also
    ]
    unchanged = "No setting has to change to converge."
    if not parts:
        return unchanged
    margin = f"Margin: the {P95_GUEST} still converges with {join_words(parts, 'or')}."
    return f"{margin} {unchanged}"


def limit_notes(advice: Advice) -> list[Message]:
    """Return what the table of limits does not show."""
    found = []
    for limit in (*advice.median_guest.limits, *advice.p95_guest.limits):
        unit = LIMITS[limit.name].unit
        if limit.also:
            code = "channels_needed" if limit.name == "bandwidth" else "setting_needed"
            also = override_text(limit.also)
            found.append(Message(code, {"value": f"{limit.found}{unit}", "also": also}))
        if limit.exceptions:
            others = tuple(value + unit for value in limit.exceptions)
            data = {"value": f"{limit.first_failing}{unit}", "others": others}
            found.append(Message("limit_has_exceptions", data))
    guests = (advice.median_guest, advice.p95_guest)
    untried = [
        f"{one.key}={one.value}"
        for guest in guests
        for one in guest.alternatives
        if one.outcome == "not_tried"
    ]
    if untried:
        found.append(Message("changes_untried", {"changes": tuple(dict.fromkeys(untried))}))
    if not all(limit.finished for guest in guests for limit in guest.limits):
        found.append(Message("values_untried"))
    if advice.cut:
        found.append(Message("runs_cut", {"runs": advice.cut}))
    if any(guest.now is None for guest in guests):
        found.append(Message("guests_untried"))
    found += fallback_sync_notes(advice.median_guest.fallback_sync)
    return [one for place, one in enumerate(found) if one not in found[:place]]


def fallback_sync_notes(sync: FallbackSync | None) -> list[Message]:
    """Return the effect of QEMU's fallback sync, if both runs are known."""
    if sync is None or sync.with_it is None or sync.without_it is None:
        return []
    if _shown_numbers(sync.with_it) == _shown_numbers(sync.without_it):
        return [Message("fallback_sync_without_effect", {"with_it": sync.with_it})]
    change = "as it is set" if sync.is_on else f"{sync.key}={sync.value}"
    data = {"change": change, "with_it": sync.with_it, "without_it": sync.without_it}
    return [Message("fallback_sync_effect", data)]


def _shown_numbers(summary: Summary) -> tuple[object, ...]:
    """Return the numbers of an outcome, rounded as they are shown."""
    if summary.verdict != "converged":
        return (summary.verdict,)
    numbers = (summary.total_time_s, summary.max_throttle_percent, summary.guest_cpu_lost_percent)
    return tuple(format_number(number) for number in numbers)


@dataclass(frozen=True, kw_only=True)
class WayOut:
    """A change with which a migration converges that does not converge now.

    Attributes:
        change: the overrides for gpusim, or the change in words if there is no key.
        outcome: how the migration then ends.
        lines: commands of QEMU's monitor (HMP), or of the manager if there is one. Empty: no
            parameter makes the change.
        settable, not_settable: managers that can and cannot make the change. Both empty: there is
            no parameter to set.
    """

    change: str
    outcome: str
    lines: tuple[str, ...] = ()
    settable: tuple[str, ...] = ()
    not_settable: tuple[str, ...] = ()

    @property
    def managers(self) -> str:
        """A sentence about the managers, or "" if there is no parameter to set."""
        if not self.settable:
            if len(self.not_settable) == 1:
                return f"{self.not_settable[0]} cannot set it."
            names = join_words(self.not_settable, "or")
            return f"None of {names} can set it." if names else ""
        cannot = f" {join_words(self.not_settable)} cannot." if self.not_settable else ""
        return f"{join_words(self.settable)} can set it.{cannot}"


class WaysOut(NamedTuple):
    """The changes that were found, and the guest for which they are sufficient.

    Attributes:
        guest: MEDIAN_GUEST, P95_GUEST, or "" if no change was found.
        found: each is sufficient without the others, the most used settings first.
        tried: at least one change was simulated.
        cut: how many runs were stopped as too long, so their changes may help all the same.
    """

    guest: str
    found: tuple[WayOut, ...]
    tried: bool = True
    cut: int = 0

    @property
    def heading(self) -> str:
        """A line above the changes."""
        if not self.found and self.cut:
            runs = count_noun(self.cut, "run")
            return (
                f"gpusim found no single change that makes the migration converge, and stopped {runs} "
                "as too long. A higher --effort lets runs take longer."
            )
        if not self.tried:
            return "gpusim knows no single change that it could try."
        if not self.found:
            return "No single change that gpusim tried makes the migration converge."
        return f"One of these changes makes it converge for the {self.guest}:"


def ways_out(prediction: Prediction, advice: Advice) -> WaysOut | None:
    """Return the changes that make the migration converge.

    Returns:
        None if the 95th-percentile guest converges already, or was not simulated.
    """
    now = advice.p95_guest.now
    if now is None or now.verdict == "converged":
        return None
    memory_bytes = prediction.profile.memory_bytes
    for name, guest, member in (
        (P95_GUEST, advice.p95_guest, prediction.p95_member),
        (MEDIAN_GUEST, advice.median_guest, prediction.median_member),
    ):
        found = sorted(_ways_out(guest, member.config, memory_bytes), key=_use)
        if found:
            return WaysOut(name, tuple(found))
    tried = any(map(_tried_any, (advice.p95_guest, advice.median_guest)))
    return WaysOut("", (), tried=tried, cut=advice.cut)


def _use(way: WayOut) -> int:
    """Return the place of a change in the order of use. A change without a key comes last."""
    return next((n for n, key in enumerate(BY_USE) if way.change.startswith(key)), len(BY_USE))


def _tried_any(guest: GuestAdvice) -> bool:
    """Return whether any other value or change was simulated for a guest."""
    values = any(limit.first_failing not in (None, limit.now) for limit in guest.limits)
    return values or any(one.outcome != "not_tried" for one in guest.alternatives)


def _ways_out(guest: GuestAdvice, config: Config, memory_bytes: int) -> Iterator[WayOut]:
    if guest.now is None or guest.now.verdict == "converged":
        return
    helpful = [one for one in guest.alternatives if one.outcome == "converges"]
    alone = [Setting(one.key, one.value) for one in helpful]
    for limit in guest.limits:
        # If `also` is sufficient alone, then the limit repeats that change.
        if limit.outcome is None or limit.also in alone:
            continue
        if limit.key is None:
            yield WayOut(
                change=f"a dirty rate of {limit.found}", outcome=outcome_text(limit.outcome)
            )
            continue
        changes = [Setting(limit.key, str(limit.found)), *([limit.also] if limit.also else [])]
        yield _way_out(changes, outcome_text(limit.outcome), config, memory_bytes)
    for change, one in zip(alone, helpful, strict=True):
        also = [Setting(*one.also.split("="))] if one.also else []
        yield _way_out([*also, change], _outcome(one), config, memory_bytes)


def _outcome(one: Alternative) -> str:
    """Return how a migration with a change ends, and what a switch to post-copy costs the guest."""
    text = time_and_throttle(one.total_time_s or 0.0, one.max_throttle_percent or 0)
    if one.postcopy_time_s is None:
        return text
    stands_still = format_duration((one.postcopy_blackout_ms or 0.0) / 1e3)
    loss = RUN_FIELDS["guest_cpu_lost_percent"].format(one.guest_cpu_lost_percent)
    risk = format_duration(one.postcopy_time_s)
    return (
        f"{text}. The guest stands still for {stands_still} and loses {loss} of its CPU. For {risk} a "
        "lost link stops it"
    )


def _way_out(changes: Sequence[Setting], outcome: str, config: Config, memory_bytes: int) -> WayOut:
    """Return changes with the commands that they alter."""
    text = " with ".join(map(override_text, changes))
    changed = config
    for key, value in changes:
        if key not in SETTABLE:
            return WayOut(change=text, outcome=outcome)
        if key != "link.bandwidth":
            changed = set_key(changed, key, yaml.safe_load(value))
    before, after = (tool_commands(one, memory_bytes, None) for one in (config, changed))
    shown = HMP if HMP in before else next(iter(before))  # the manager's, if there is one
    lines = tuple(line for line in after[shown].lines if line not in before[shown].lines)
    if not lines and (shown == HMP or changed == config):  # a faster link is no parameter
        return WayOut(change=text, outcome=outcome)
    managers = MANAGERS if shown == HMP else (shown,)
    settable = tuple(tool for tool in managers if after[tool].lines != before[tool].lines)
    return WayOut(
        change=text,
        outcome=outcome,
        lines=lines,
        settable=settable,
        not_settable=tuple(tool for tool in managers if tool not in settable),
    )


def better_rows(prediction: Prediction, better: BetterSettings) -> list[tuple[str, str, str]]:
    """Return the better settings and their results beside the present ones, with a head.

    Returns:
        An empty list if no better settings were found.
    """
    if better.outcome is None or better.now is None:
        return []
    within = f" within {bounds_words(better.bounds)}" if better.bounds else ""
    found = [(f"{GOALS[better.goal]}{within}", "now", "better")]
    migration = prediction.median_member.config.migration
    for key, value in better.settings.items():
        found.append((key, value_text(getattr(migration, key)), value_text(value)))
    for key in QUANTITIES:
        field = RUN_FIELDS[key]
        now, then = (field.format(getattr(one, key)) for one in (better.now, better.outcome))
        found.append((field.label, now, then))
    return found


def better_guest(better: BetterSettings) -> str:
    """Return the name of the guest that the search used."""
    return P95_GUEST if better.for_p95_guest else MEDIAN_GUEST


def better_notes(better: BetterSettings) -> list[Message]:
    """Return what the search for better settings found, and how complete it was."""
    if better.now is None:
        return [Message("goal_unknown")]
    found = list(_goal_result(better, better.now))
    if not better.finished:
        found.append(Message("goal_unfinished"))
    if better.p95_outcome is not None and better.p95_now is not None:
        then = better.p95_outcome
        code = "goal_fails_p95_guest" if better.bounds.excess(then) else "goal_for_p95_guest"
        found.append(Message(code, {"outcome": then, "now": better.p95_now}))
    if better.settings:
        found.append(Message("goal_without_timeouts"))
    if better.postcopy is not None:
        found.append(Message("goal_postcopy", {"outcome": better.postcopy}))
    return found


def _goal_result(better: BetterSettings, now: Summary) -> Iterator[Message]:
    bounds, deadline_s = better.bounds, better.bounds.total_time_s
    data: dict[str, Any] = {"guest": better_guest(better), "runs": better.runs}
    if bounds:
        data["bounds"] = bounds_words(bounds)
    if better.outcome is not None:
        if better.gain is not None:
            yield Message("goal_gain", data | _gain(better, now, better.outcome))
        else:
            data["doubt"] = _price(better.goal, now, better.outcome)
            data["all"] = _for_all(better)
            yield Message("goal_keeps_bounds" if bounds else "goal_makes_converge", data)
    elif not bounds and now.verdict != "converged":
        yield Message("goal_never_converges", data)
    elif better.rejected and better.check is not None:
        yield Message("goal_not_for_all", data | _checked(better, better.check))
    elif not bounds.excess(now):
        yield Message("goal_nothing_better", data)
    else:
        yield Message("goal_misses_bounds", {**data, "now": now})
        if (
            now.first_pass_s is not None
            and deadline_s is not None
            and now.first_pass_s >= deadline_s
        ):
            yield Message("goal_first_pass_too_long", {"first_pass_s": now.first_pass_s})


def _gain(better: BetterSettings, now: Summary, then: Summary) -> dict[str, Any]:
    """Return what a goal gains, and what speaks against it: a small gain, or a longer stall."""
    name = QUANTITIES_OF_GOALS[better.goal]
    doubt = ""
    if better.goal == "least_loss":
        lost_now, lost = now.guest_cpu_lost_percent, then.guest_cpu_lost_percent
        if lost_now - lost < SMALL_GAIN:
            doubt = f", which is less than {SMALL_GAIN:g} percentage point of its CPU time"
    return {
        "quantity": GOAL_NAMES[better.goal],
        "before": _goal_value(name, getattr(now, name)),
        "after": _goal_value(name, getattr(then, name)),
        "gain_percent": 100 * (better.gain or 0.0),
        "doubt": doubt + _price(better.goal, now, then),
        "all": _for_all(better),
    }


def _goal_value(name: str, value: float | None) -> str:
    """Return a value of the quantity of a goal."""
    if value is None:
        return "unknown"
    return format_duration(value) if name == "total_time_s" else f"{format_number(value)} vCPU s"


def _checked(better: BetterSettings, check: GoalCheck) -> dict[str, Any]:
    """Return how all simulated migrations end with settings that help one guest."""
    name = QUANTITIES_OF_GOALS[better.goal]
    return {
        "members": check.members,
        "keeping": check.keeping,
        "keeping_now": check.keeping_now,
        "keep": "converge within the limits" if better.bounds else "converge",
        "quantity": GOAL_NAMES[better.goal],
        "value": _goal_value(name, check.value),
        "value_now": _goal_value(name, check.value_now),
    }


def _for_all(better: BetterSettings) -> str:
    """Return what the settings do to all simulated migrations, as a sentence, or ""."""
    if better.check is None:
        return ""
    return " " + text_of(Message("goal_for_all", _checked(better, better.check)))


def _price(goal: str, now: Summary, then: Summary) -> str:
    """Return what grows with the better settings: the sleep of a vCPU, the loss or the time."""
    if now.verdict != "converged":
        return ""
    text = ""
    for name in ("longest_vcpu_stall_ms", PRICES[goal]):
        before, after = (shown(name, getattr(one, name)) for one in (now, then))
        if getattr(then, name) > getattr(now, name) and before != after:
            joint = ". The" if text else ", and the"
            text += f"{joint} {NAMES[name]} grows from {before} to {after}"
    return text


def commands_for(prediction: Prediction, better: BetterSettings | None) -> dict[str, ToolCommands]:
    """Return the commands of each tool for the present settings, or for better ones if found.

    If a switch to post-copy is recommended, then they are for that. There are none for settings with
    which the migration does not converge. Timeouts cover 19 of 20
    migrations. They are left out if more than one in 20 does not converge. They are also left out
    for better settings, because the search for them knows one guest only.
    """
    config, memory_bytes = prediction.median_member.config, prediction.profile.memory_bytes
    if (switching := _recommended(prediction, better)) is not None:
        return tool_commands(switching, memory_bytes, None)
    if better is not None and better.settings:
        changes: dict[str, Any] = dict(better.settings)
        config = replace(config, migration=replace(config.migration, **changes))
        return tool_commands(config, memory_bytes, None)
    total = prediction.band("total_time_s")
    if not prediction.converges or total is None:
        return {}
    p95 = prediction.p95_member  # the band covers only the members that converge
    high_s = max(total.high, p95.summary.total_time_s) if p95.converges else None
    return tool_commands(config, memory_bytes, high_s)


def _recommended(prediction: Prediction, better: BetterSettings | None) -> Config | None:
    """Return the config that switches to post-copy, if that is recommended and nothing better is."""
    ways = prediction.ways
    if ways is None or ways.recommended is None or (better is not None and better.settings):
        return None
    return ways.recommended.config


def commands_heading(prediction: Prediction, better: BetterSettings | None) -> str:
    """Return the heading above the commands."""
    if _recommended(prediction, better) is not None:
        return "Commands for the switch to post-copy"
    which = "better settings" if better is not None and better.settings else "present settings"
    return f"Commands for the {which}"
