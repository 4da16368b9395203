"""What advice says, in sentences and cells: for the terminal's page and the report's alike.

Owns the words; what to try is advise.py's, and what a setting is called elsewhere words.py's.
"""

from __future__ import annotations

from collections.abc import Iterator

from gpusim.predict import story
from gpusim.predict.advise import Advice, FallbackSync, GuestAdvice, Limit
from gpusim.predict.prediction import Prediction
from gpusim.predict.words import Words, in_words
from gpusim.records import Alternative, Summary
from gpusim.results import style

NAMES = {  # of a limit: as it is told, its unit, and what is beyond the last value that was tried
    "bandwidth": ("Smallest bandwidth", "", "or less"),
    "dirty_rate": ("Largest dirty rate", "", "or more"),
    "downtime_limit": ("Smallest downtime limit", " ms", "or less"),
    "max_cpu_throttle": ("Highest throttle needed", " %", ""),
}
LIMITS = ("All others as they are", "now", "middle guest", "heavy guest")  # head of their table
FOOTNOTE = "* Time was up: values nearer to the limit were not tried."


def limit_rows(advice: Advice) -> list[tuple[str, str, str, str]]:
    """How far each setting may go: as it is now, for the middle guest, and for the heavy one."""
    typical = {limit.name: limit for limit in advice.typical.limits}
    heavy = {limit.name: limit for limit in advice.heavy.limits}
    rows = []
    for name, (told, unit, _) in NAMES.items():
        known = typical.get(name) or heavy.get(name)
        if known is not None:
            both = [_cell(guest.get(name)) for guest in (typical, heavy)]
            rows.append((told, known.now + unit, *both))
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
            said.append(
                f"{limit.found}{unit} wants {limit.also}: fewer threads do not send so fast."
            )
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


def words(prediction: Prediction) -> dict[str, Words]:
    """The settings in the words of the tools; none of settings with which it does not converge."""
    total = prediction.band("total_time_s")
    if not prediction.converges or total is None:
        return {}
    return in_words(prediction.middle.config, prediction.profile.memory_bytes, total.high)
