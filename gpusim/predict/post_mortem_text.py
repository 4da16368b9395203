"""A post-mortem in sentences and cells, for the terminal and the page. It decides nothing."""

from __future__ import annotations

from typing import Any

from gpusim.errors import LONGEST_VALUE, CodedError, one_line
from gpusim.formats.migration_log import COMPLETED
from gpusim.formats.profile_from_recording import LEAST_S
from gpusim.predict import coarse_text
from gpusim.predict.bounds_text import NAMES, bounds_words, shown
from gpusim.predict.coarse import HOVERS
from gpusim.predict.coarse_text import rate
from gpusim.predict.post_mortem import Period, PostMortem, throttle_steps
from gpusim.predict.terminal import wrapped
from gpusim.qemu.names import POSTCOPY
from gpusim.text import (
    capitalized,
    count_noun,
    format_duration,
    format_number,
    join_words,
    text_table,
)
from gpusim.units import format_bytes

PERIODS_HEAD = ("Sync at", "after", "sent", "dirtied", "dirtied/s", "of sent/s", "left", "throttle")
FIRST_ROWS, LAST_ROWS = 4, 6
MOST_STEPS = 10
GAP = "..."
STATES_SETTINGS = ("recording", "guestperf")  # files that hold the capabilities
NO_THROTTLE = ("virt_launcher", "vdsm")  # logs that print none
WELL_USED = 0.9  # of the highest rate


def answer(found: PostMortem) -> list[str]:
    """Return the first lines: yes or no, the limits, the margin and what to change."""
    coarse = found.coarse
    if found.prediction is None or coarse.is_in_postcopy:
        return coarse_text.answer(coarse)
    lines = [coarse_text.answer(coarse)[0]]
    lines += [coarse_text.bound_line(one) for one in coarse.bounds]
    lines += _margin(found)
    return [*lines, *_change(found)]


def _margin(found: PostMortem) -> list[str]:
    """Return how the last passes compare with the link."""
    ratio, link = found.coarse.ratio, found.coarse.link_bytes_per_s
    dirty = found.coarse.dirty_bytes_per_s
    if ratio is None or link is None or dirty is None:
        return []
    text = f"At the end the guest dirtied {rate(dirty)} and the link carried {rate(link)}: "
    return [f"{text}{format_number(100 * ratio)} % of it."]


def _change(found: PostMortem) -> list[str]:
    """Return what would have brought the migration over."""
    change = found.change
    if change is None:
        return [coarse_text.NOTHING] if found.coarse.is_seen else ["No change was searched for."]
    goal = bounds_words(found.goal)
    if change.outcome is None:
        one = join_words([f"{NAMES[name]}: {way}" for name, way in change.for_one.items()])
        text = f"None of {change.tried} single changes keeps {goal}."
        return [f"{text} For one of them alone: {one}." if one else text]
    outcome = change.outcome
    guest = "95th-percentile" if change.for_p95_guest else "median"
    values = [f"it completes in {format_duration(outcome.total_time_s)}"]
    values.append(f"downtime {shown('downtime_ms', outcome.downtime_ms)}")
    if outcome.max_throttle_percent:
        loss = format_number(outcome.guest_cpu_lost_percent)
        values.append(
            f"throttle {outcome.max_throttle_percent} %, {loss} % of the guest's CPU lost"
        )
    verb = "To keep the limits" if found.bounds else "What would have brought it over"
    return [f"{verb}: set {change.settings}. The {guest} guest: {', '.join(values)} (simulated)."]


def happened(found: PostMortem) -> list[tuple[str, str]]:
    """Return what happened, as label and text."""
    rows = coarse_text.facts(found.coarse.log)
    recording = found.intake.recording
    if recording is None:
        return rows
    end = rows.pop()
    steps = throttle_steps(recording)
    if steps:
        texts = [f"{percent} % at {format_duration(at)}" for at, percent in steps]
        if len(texts) > MOST_STEPS:
            texts = [*texts[: MOST_STEPS - 1], GAP, texts[-1]]
        rows = [row for row in rows if row[0] != "highest throttle"]
        rows.append((count_noun(len(steps), "throttle step"), ", ".join(texts)))
    limit = recording.parameters["max-bandwidth"]
    if limit:
        rows.append(("max-bandwidth", rate(limit)))
    return [*rows, end]


def period_rows(found: PostMortem) -> list[tuple[str, ...]]:
    """Return a row for each period between syncs, without the middle of a long list."""
    rows = [_row(one) for one in found.periods]
    left = len(rows) - FIRST_ROWS - LAST_ROWS
    if left <= 1:
        return rows
    gap = (f"{left} more", *[""] * (len(PERIODS_HEAD) - 1))
    return [*rows[:FIRST_ROWS], gap, *rows[-LAST_ROWS:]]


def _row(one: Period) -> tuple[str, ...]:
    seconds = max(one.seconds, 1e-9)
    share = one.dirtied_bytes / one.sent_bytes if one.sent_bytes > 0 else None
    return (
        format_duration(one.ended_s),
        format_duration(one.seconds),
        format_bytes(one.sent_bytes),
        format_bytes(one.dirtied_bytes),
        f"{format_bytes(one.dirtied_bytes / seconds)}/s",
        "" if share is None else f"{format_number(100 * share)} %",
        format_bytes(one.left_bytes),
        f"{one.throttle_percent} %" if one.throttle_percent else "",
    )


def why(found: PostMortem) -> list[str]:
    """Return why the migration did not converge, or took as long as it did."""
    lines = [*_link_use(found), *_passes(found), *_throttled(found), *_model(found)]
    if found.prediction is None:
        lines += coarse_text.why_coarse(found.coarse)
    else:
        notes = found.prediction.profile.notes
        lines += [f"{capitalized(one_line(note, 4 * LONGEST_VALUE))}." for note in notes]
    obstacle = found.intake.obstacle
    if obstacle is not None and found.intake.recording is not None:
        lines.append(
            f"No guest was fitted, so nothing was simulated: {_obstacle(found, obstacle)}."
        )
    return lines


def _obstacle(found: PostMortem, obstacle: CodedError) -> str:
    """Return why no guest fits. What a profile needs is of no use for a migration that is over."""
    recording = found.intake.recording
    if obstacle.code != "too_few_periods" or recording is None:
        return one_line(str(obstacle), 3 * LONGEST_VALUE)
    count = count_noun(obstacle.data["periods"], "period")
    text = f"{count} between syncs can be measured, and a fit needs {obstacle.data['least']}"
    if not recording.counts_every_sync and POSTCOPY in recording.scenario["capabilities"]:
        return f"{text}. QEMU 11.1 with {POSTCOPY} syncs on each turn of its main loop"
    least = format_duration(LEAST_S)
    return f"{text}. A period counts if it lasts {least} and most of what was dirty is sent in it"


def _link_use(found: PostMortem) -> list[str]:
    rates, limit = found.coarse.log.rates, 0
    if found.intake.recording is not None:
        limit = found.intake.recording.parameters["max-bandwidth"]
    if len(rates) < 2:
        return []
    mean, high = sum(rates) / len(rates), max(rates)
    text = f"The link carried {rate(mean)} on average"
    if limit and mean >= WELL_USED * limit:
        return [f"{text}, as much as max-bandwidth allows. A higher max-bandwidth uses more of it."]
    if mean < WELL_USED * high:
        return [f"{text} and up to {rate(high)}. It was not always full."]
    return [f"{text}. It was full."]


def _passes(found: PostMortem) -> list[str]:
    later = [one for one in found.periods[1:] if one.seconds > 0 and one.sent_bytes > 0]
    if not later:
        return []
    least = min(one.left_bytes for one in later)
    ratios = [one.dirtied_bytes / one.sent_bytes for one in later[-LAST_ROWS:]]
    first_s = found.periods[0].ended_s
    rest_s = max((found.coarse.log.seconds or 0.0) - first_s, 0.0)
    first = f"{format_duration(first_s)} until the first sync, {format_duration(rest_s)} after it."
    syncs = count_noun(len(found.periods), "sync")
    text = f"{first} {syncs} found new pages. At least {format_bytes(least)} were left after one."
    mean = sum(ratios) / len(ratios)
    hovered = ": it hovered" if mean >= HOVERS else ""
    return [f"{text} The last ones found {format_number(100 * mean)} % of what was sent{hovered}."]


def _throttled(found: PostMortem) -> list[str]:
    recording = found.intake.recording
    if recording is None:
        return []
    steps = throttle_steps(recording)
    if steps:
        at, percent = steps[-1]
        highest = recording.parameters["max-cpu-throttle"]
        reached = " That is its maximum." if percent >= highest else ""
        return [f"QEMU throttled the guest up to {percent} %, at {format_duration(at)}.{reached}"]
    if found.intake.kind.code in NO_THROTTLE:
        return [
            "The log tells no throttle. If auto-converge was on, then these are the dirty rates of a "
            "guest that was slowed down."
        ]
    on = recording.auto_converge
    if not on and found.intake.kind.code not in STATES_SETTINGS:
        return ["No report shows a throttle. The file does not tell whether auto-converge was on."]
    text = "on, and no throttle was needed" if on else "off, so nothing slowed the guest"
    return [f"Auto-converge was {text}."]


def _model(found: PostMortem) -> list[str]:
    """Return how well the fitted guest reproduces the migration itself."""
    prediction = found.prediction
    if prediction is None or prediction.earlier is None:
        return []
    earlier = prediction.earlier
    band = earlier.total_time_s
    if band is None:
        model = "do not complete"
    else:
        model = f"take {format_duration(band.low)} to {format_duration(band.high)}"
    text = f"The fitted guests, simulated with these settings, {model}."
    if earlier.disagrees:
        text += " That differs from the migration itself, so take the simulated figures as rough."
    return [text]


def title(found: PostMortem) -> str:
    """Return the heading of the page."""
    word = "completed" if found.coarse.log.outcome == COMPLETED else "did not complete"
    return f"{found.intake.path.name}: the migration {word}"


def terminal_text(found: PostMortem) -> str:
    """Return the post-mortem for a terminal of 100 columns, without a final line feed."""
    reasons = why(found)
    parts = [
        wrapped(answer(found), ""),
        ["What happened:", *_pairs(happened(found))],
        ["Why:", *wrapped(reasons, "  ", mark="- ")] if reasons else [],
        _table(found),
    ]
    return "\n\n".join("\n".join(part) for part in parts if part)


def _pairs(rows: list[tuple[str, str]]) -> list[str]:
    width = max(len(label) for label, _ in rows)
    lines: list[str] = []
    for label, text in rows:
        first, *rest = wrapped([f"{label.ljust(width)}  {text}"], "  ")
        lines += [first, *("  " + " " * width + row for row in rest)]
    return lines


def _table(found: PostMortem) -> list[str]:
    rows = period_rows(found)
    if not rows:
        return []
    return text_table([PERIODS_HEAD, *rows], left_columns=()).splitlines()


def post_mortem_document(found: PostMortem) -> dict[str, Any]:
    """Return the post-mortem for JSON."""
    change = found.change
    return {
        "post_mortem": 1,
        "file": str(found.intake.path.name),
        "kind": found.intake.kind.code,
        **coarse_text.coarse_document(found.coarse),
        "coarse": found.prediction is None,
        "answer": answer(found),
        "why": why(found),
        "periods": [vars(one) for one in found.periods],
        "change": None
        if change is None
        else {
            "settings": change.settings,
            "for_one": dict(change.for_one),
            "for_p95_guest": change.for_p95_guest,
            "tried": change.tried,
            "total_time_s": None if change.outcome is None else change.outcome.total_time_s,
            "downtime_ms": None if change.outcome is None else change.outcome.downtime_ms,
        },
    }
