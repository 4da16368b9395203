"""What advice says, in sentences and cells: for the terminal's page and the report's alike.

Owns the words; what to try is advise.py's, and what a setting is called elsewhere words.py's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from gpusim.predict import story
from gpusim.predict.advise import Advice, FallbackSync, GuestAdvice, Limit, Name
from gpusim.predict.goal import Better
from gpusim.predict.prediction import Prediction
from gpusim.predict.words import Words, in_words
from gpusim.records import Alternative, Summary
from gpusim.results import style

NAMES: dict[
    Name, tuple[str, str, str]
] = {  # of a limit: as it is told, its unit, and what is beyond the last value that was tried
    "bandwidth": ("Smallest bandwidth", "", "or less"),
    "dirty_rate": ("Largest dirty rate", "", "or more"),
    "downtime_limit": ("Smallest downtime limit", " ms", "or less"),
    "max_cpu_throttle": ("Highest throttle needed", " %", ""),
}
LIMITS = ("All others as they are", "now", "middle guest", "heavy guest")  # head of their table
GOALS = {"fastest": "Fastest", "least_loss": "Least guest loss"}
FOOTNOTE = "* Time was up: values nearer to the limit were not tried."


def limit_rows(advice: Advice) -> list[tuple[str, str, str, str]]:
    """How far each setting may go: as it is now, for the middle guest, and for the heavy one."""
    typical = {limit.name: limit for limit in advice.typical.limits}
    heavy = {limit.name: limit for limit in advice.heavy.limits}
    rows = []
    for name, (told, unit, _) in NAMES.items():
        known = typical.get(name) or heavy.get(name)
        if known is not None:
            now, middle, most = known.now + unit, typical.get(name), heavy.get(name)
            rows.append((told, now, _cell(middle), _cell(most)))
    return rows


def _cell(limit: Limit | None) -> str:
    if limit is None:
        return ""
    _, unit, beyond = NAMES[limit.name]
    found = "none" if limit.found is None else limit.found + unit
    if not limit.finished:
        return f"{found} *"
    return (
        f"{found} {beyond}"
        if limit.found is not None and limit.too_hard is None and beyond
        else found
    )


def notes(advice: Advice) -> list[str]:
    """What the table of limits leaves unsaid."""
    said = []
    for limit in (*advice.typical.limits, *advice.heavy.limits):
        _, unit, _ = NAMES[limit.name]
        if limit.also:
            why = ": fewer threads do not send so fast" if limit.name == "bandwidth" else ""
            said.append(f"{limit.found}{unit} wants {limit.also}{why}.")
        if limit.exceptions:
            those = ", ".join(value + unit for value in limit.exceptions)
            said.append(f"{limit.too_hard}{unit} does not converge, though {those} does.")
    guests = (advice.typical, advice.heavy)
    if not all(limit.finished for guest in guests for limit in guest.limits):
        said.append(FOOTNOTE)
    if any(guest.now is None for guest in guests):
        said.append("Time was up before the guests' migrations had been simulated.")
    return list(dict.fromkeys(said))


def way_out(advice: Advice) -> str:
    """What would make the heavy guest converge, in a sentence; empty if it does as it is."""
    if advice.heavy.now is None or advice.heavy.now.verdict == "converged":
        return ""
    found = list(_ways_out(advice.heavy))
    middle = [] if found else list(_ways_out(advice.typical))
    if found:
        return f"What would, for nineteen in twenty, each alone: {'; '.join(found)}."
    if middle:
        return f"What would, for the middle one, each alone: {'; '.join(middle)}."
    return "No single change that was tried makes it converge."


def _ways_out(guest: GuestAdvice) -> Iterator[str]:
    """Changes with which a guest that does not converge does, and what it then comes to."""
    if guest.now is None or guest.now.verdict == "converged":
        return
    for limit in guest.limits:
        if limit.outcome is not None:
            change = f"{limit.key}={limit.found}" if limit.key else f"a dirty rate of {limit.found}"
            also = f" with {limit.also}" if limit.also else ""
            yield f"{change}{also} ({outcome(limit.outcome)})"
    for alternative in guest.ways_out:
        if alternative.outcome == "converges":
            yield f"{alternative.key}={alternative.value} ({_of(alternative)})"


def _of(change: Alternative) -> str:
    return _told(change.total_time_s or 0.0, change.max_throttle_percent or 0)


def outcome(summary: Summary) -> str:
    """What a migration comes to, in a few words."""
    if summary.verdict != "converged":
        return "does not converge"
    return _told(summary.total_time_s, summary.max_throttle_percent)


def _told(total_s: float, throttle: int) -> str:
    return f"{style.duration(total_s)}, {f'throttle {throttle} %' if throttle else 'no throttle'}"


def fallback_sync(found: FallbackSync | None) -> str:
    """What the fallback sync brings, in a sentence; empty where it is not asked for or not known."""
    if found is None or found.with_it is None or found.without_it is None:
        return ""
    sides = [_side(side) for side in (found.with_it, found.without_it)]
    there = "as it is" if found.there else f"{found.key}={found.value}"
    if sides[0] == sides[1]:
        return f"QEMU's fallback sync changes nothing here: {sides[0]}, with it and without."
    return f"With QEMU's fallback sync ({there}): {sides[0]}; without it: {sides[1]}."


def _side(summary: Summary) -> str:
    lost = f", guest CPU lost {story.percent(summary.guest_cpu_lost_percent)}"
    return outcome(summary) + (lost if summary.verdict == "converged" else "")


def better_rows(prediction: Prediction, found: Better) -> list[tuple[str, str, str]]:
    """What serves the goal better, beside what is set, head first; none where nothing does."""
    if found.outcome is None or found.now is None:
        return []
    within = "" if found.deadline_s is None else f" within {style.duration(found.deadline_s)}"
    rows = [(f"{GOALS[found.goal]}{within}", "as set", "better")]
    migration = prediction.middle.config.migration
    for key, value in found.settings.items():
        rows.append((key, _plain(getattr(migration, key)), _plain(value)))
    for name, field, told in story.QUANTITIES:
        now, then = (_cell_of(side, field, told) for side in (found.now, found.outcome))
        rows.append((name, now, then))
    return rows


def _cell_of(summary: Summary, field: str, told: Callable[[float], str]) -> str:
    value = getattr(summary, field)
    return "none" if value is None else told(value)


def better_notes(found: Better) -> list[str]:
    """How much it brings, and how long it was looked for."""
    if found.now is None:
        return ["Time was up before the migration had been simulated as it is set."]
    if found.outcome is None:
        deadline = "" if found.deadline_s is None else f" within {style.duration(found.deadline_s)}"
        said = (
            f"{GOALS[found.goal]}{deadline}: nothing better than what is set in {found.runs} runs."
        )
    elif found.gain is None:
        late = "" if found.deadline_s is None else ", or not in time"
        said = f"As it is set it does not converge{late}. Best of {found.runs} runs."
    else:
        of_what = "total time" if found.goal == "fastest" else "guest's loss"
        said = (
            f"{story.percent(100 * found.gain)} less of the {of_what}, of the middle guest. "
            f"Best of {found.runs} runs."
        )
    return [
        said if found.finished else f"{said} Time was up before all had been tried.",
        *_of_the_heavy(found),
    ]


def _of_the_heavy(found: Better) -> Iterator[str]:
    """What the settings come to for a guest that they were not looked for with."""
    if found.heavy is None or found.heavy_now is None:
        return
    late = found.deadline_s is not None and found.heavy.total_time_s > found.deadline_s
    sides = f"{_side(found.heavy)}; as set, {_side(found.heavy_now)}."
    if found.heavy.verdict != "converged" or late:
        yield f"Not for the heavy guest{', for which it takes too long' * late}: {sides}"
    else:
        yield f"The heavy guest with it: {sides}"


def _plain(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def words(prediction: Prediction, found: Better | None) -> dict[str, Words]:
    """The settings in the words of the tools; the better ones where there are, without timeouts then.

    None of settings with which it does not converge. Timeouts are for nineteen in twenty: there is none where
    more do not converge, nor of better settings, as a search for them knows one guest alone.
    """
    config, memory_bytes = prediction.middle.config, prediction.profile.memory_bytes
    if found is not None and found.settings:
        changes: dict[str, Any] = dict(found.settings)
        config = replace(config, migration=replace(config.migration, **changes))
        return in_words(config, memory_bytes, None)
    total = prediction.band("total_time_s")
    if not prediction.converges or total is None:
        return {}
    return in_words(config, memory_bytes, total.high if prediction.heavy.converges else None)
