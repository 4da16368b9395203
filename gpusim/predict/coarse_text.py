"""A coarse verdict in sentences and cells. It decides nothing."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from gpusim.errors import one_line
from gpusim.formats.migration_log import CANCELLED, COMPLETED, FAILED, LAST_REPORTS, MigrationLog
from gpusim.predict.bounds_text import NAMES, shown
from gpusim.predict.coarse import (
    FILLS,
    HOVERS,
    NO,
    PROBABLY_NO,
    PROBABLY_YES,
    UNKNOWN,
    YES,
    Coarse,
    CoarseBound,
)
from gpusim.predict.coarse_values import ONE_THREAD_BYTES_PER_S, SHRINKS, CoarseValue
from gpusim.text import capitalized, count_noun, format_duration, format_number, join_words
from gpusim.units import MIB, format_bytes

ANSWERS = {
    YES: "Yes",
    PROBABLY_YES: "Probably yes",
    UNKNOWN: "Cannot tell",
    PROBABLY_NO: "Probably no",
    NO: "No",
}
ENDED = {CANCELLED: "was cancelled", FAILED: "failed"}
LONGEST_REASON = 160  # characters of a line of somebody else's log
MOST_LIMITS = 6  # steps of the downtime limit in one cell
NOTHING = "Nothing had to change."
RESUME = (
    "The guest waits for pages of the source. To resume, type migrate_recover URI at the target, and "
    "then migrate -r URI at the source (HMP), or virsh migrate --postcopy --postcopy-resume."
)
NO_WAY_BACK = (
    "Nothing has to change. A downtime limit or a throttle has no effect now. Do not cancel, because "
    "neither host holds the whole guest."
)
IN_POSTCOPY = (
    "Since the switch the guest runs at the target and waits for each page that it needs and the source "
    "still holds. The source sends each page once."
)
CHECK = "Shorter periods may dirty more per second, and then more is needed."
MEASURE = (
    "Measure the VM for a simulated answer: gpusim-predict --measure --qmp SOCKET, or virsh "
    "domdirtyrate-calc (docs/how-to/predict-a-migration.md)."
)
WHY_COARSE = {
    "nova": "nova-compute prints no dirty rate: it follows from what remained and what was sent.",
    "proxmox": "Proxmox VE prints a dirty rate only if it is above the speed.",
}
RATE = (
    "One dirty rate of one period does not tell how many pages the guest writes, nor how often. Shorter "
    "periods dirty as much per second or more."
)


def rate(bytes_per_s: float) -> str:
    """Return a rate in MiB/s and Mbit/s: "119 MiB/s (1000 Mbit/s)"."""
    bits = 8 * bytes_per_s
    unit, factor = ("Gbit/s", 1e9) if bits >= 1e9 else ("Mbit/s", 1e6)
    return f"{format_number(bytes_per_s / MIB)} MiB/s ({format_number(bits / factor)} {unit})"


def answer(found: Coarse) -> list[str]:
    """Return the first lines: yes or no, each limit, the margin, what to change."""
    lines = [_first(found), *map(bound_line, found.bounds), *_margin(found), *_threads(found)]
    lines += _change(found)
    return [line for line in lines if line]


def _first(found: Coarse) -> str:
    log, word = found.log, ANSWERS[found.code]
    seconds = "" if log.seconds is None else f" after {format_duration(log.seconds)}"
    if found.is_seen:
        downtime = log.downtime_ms
        way = "" if log.postcopy_s is None else " with post-copy"
        text = f"{word}: the migration completed{way}{seconds}"
        return text + (
            "." if downtime is None else f", with a downtime of {format_duration(downtime / 1e3)}."
        )
    if log.outcome in ENDED and not found.is_stated:
        reason = f": {one_line(log.reason, LONGEST_REASON)}" if log.reason else ""
        return f"No: the migration {ENDED[log.outcome]}{seconds}{reason}."
    if found.is_in_postcopy:
        return _first_in_postcopy(log, word, seconds)
    if found.is_stated:
        assert found.link_bytes_per_s is not None
        subject, where = "the next migration", f" over {rate(found.link_bytes_per_s)}."
    else:
        subject, where = "the migration", f". It was still running{seconds}."
    verb = "converges" if found.code in (YES, PROBABLY_YES) else "does not converge as it is"
    if found.code == UNKNOWN:
        return f"{word} whether {subject} converges{where}"
    return f"{word}: {subject} {verb}{where}"


def _first_in_postcopy(log: MigrationLog, word: str, seconds: str) -> str:
    """Return the first line for a migration that can no longer fail to converge."""
    if log.is_paused:
        return f"{word}: the link was lost in post-copy. The migration is paused{seconds}. {RESUME}"
    return (
        f"{word}: the migration has switched to post-copy, so it ends when the last page is sent. It "
        f"was still running{seconds}."
    )


def bound_line(one: CoarseBound) -> str:
    """Return "Total time at most 30 min: no. 41 min, 11 min more"."""
    text = f"{capitalized(NAMES[one.name])} at most {shown(one.name, one.most)}: "
    text += ANSWERS[one.code].lower()
    if one.value is None:
        return f"{text}." if one.code != UNKNOWN else f"{text} from this file."
    size = "less" if one.value <= one.most else "more"
    return f"{text}. {shown(one.name, one.value)}, {shown(one.name, abs(one.most - one.value))} {size}."


def _margin(found: Coarse) -> Iterator[str]:
    ratio, link, dirty = found.ratio, found.link_bytes_per_s, found.dirty_bytes_per_s
    if found.is_in_postcopy:
        yield from _postcopy_left(found)
        return
    if ratio is None:
        if link is not None and not found.is_seen:
            text = "No report tells the dirty rate after the first pass."
            if found.log.kind == "proxmox":
                text = _unprinted(found.log)
            yield f"The link carried {rate(link)}. {text}"
        return
    assert link is not None and dirty is not None
    text = f"The guest dirtied {rate(dirty)} and the link carries {rate(link)}: "
    text += f"{format_number(100 * ratio)} % of it."
    if found.is_seen:
        yield text
    elif ratio >= HOVERS:
        yield f"{text} So no pass gets shorter than the last one."
    elif ratio > SHRINKS:
        yield f"{text} Passes get shorter, unless shorter periods dirty more per second."
    else:
        yield f"{text} The next pass is shorter by that factor."
    if found.left_s is not None:
        left = format_duration(found.left_s)
        if found.is_stated:
            most = "up to " * found.is_short_of_threads
            yield f"At this dirty rate it takes {most}{left}."
        elif found.log.outcome in ENDED:
            yield f"At this dirty rate it would have taken {left} more."
        else:
            yield f"At this dirty rate it takes {left} more."


def _threads(found: Coarse) -> Iterator[str]:
    """Say that the sender may be slower than a stated link, and what to type."""
    if found.is_short_of_threads:
        link, sender = found.link_bytes_per_s, found.sender_bytes_per_s
        assert link is not None and sender is not None
        channels = math.ceil(FILLS * link / ONE_THREAD_BYTES_PER_S)
        yield (
            f"A slow host sends only {rate(sender)}. If the VM migrates with more channels, add "
            f"migration.multifd_channels={channels}."
        )


def _unprinted(log: MigrationLog) -> str:
    """Return what a log of Proxmox VE tells, which prints no dirty rate below the speed."""
    last = log.reports[-LAST_REPORTS:]
    printed = sum(one.dirty_bytes_per_s is not None for one in last)
    if not printed:
        return "At the end the dirty rate was below the speed, or Proxmox VE would print it."
    return (
        f"{printed} of the last {len(last)} reports print a dirty rate above the speed. That is too few "
        "for an answer."
    )


def _postcopy_left(found: Coarse) -> Iterator[str]:
    left = found.log.last_value("remaining_bytes")
    if left is None:
        return
    text = f"{format_bytes(int(left))} are left"
    if found.left_s is not None and found.link_bytes_per_s is not None:
        text += f". Over {rate(found.link_bytes_per_s)} they take {format_duration(found.left_s)}"
    yield f"{text}."


def _change(found: Coarse) -> Iterator[str]:
    if found.is_in_postcopy:
        if not found.log.is_paused:
            yield NO_WAY_BACK
        return
    values = join_words([_value(one) for one in found.values], "or")
    if found.is_seen:
        broken = any(one.code == NO for one in found.bounds)
        if not broken:
            yield NOTHING
        elif values:
            yield f"To keep the limits, by rough estimate: {values}."
        else:
            yield f"These figures do not tell what would keep the limits. {MEASURE}"
        return
    if values:
        yield f"What may help, by rough estimate: {values}. {CHECK}"
        return
    if found.code == PROBABLY_YES or found.is_short_of_threads:
        return
    if found.ratio is None:
        if found.log.kind == "nova":
            yield "Two lines after the first pass tell a dirty rate. Wait for them."
        elif found.log.kind != "proxmox":
            yield "Report the migration after its first pass, when QEMU knows a dirty rate."
        return
    assert found.dirty_bytes_per_s is not None
    yield f"What may help: a link faster than {rate(found.dirty_bytes_per_s)}. {CHECK}"


def _value(one: CoarseValue) -> str:
    """Return a value to set: "a link of 2.1 Gbit/s or more (link.bandwidth=2.1Gbit/s)"."""
    if one.name == "throttle":
        return f"auto-converge with a throttle of {one.value:.0f} % or more ({one.settings})"
    if one.name == "bandwidth":
        return f"a link of {rate(one.value)} or more ({one.settings})"
    return f"a downtime limit of {format_duration(one.value / 1000)} ({one.settings})"


def why_coarse(found: Coarse) -> list[str]:
    """Return why the verdict is coarse, and how to get a better one. [] if it was seen."""
    if found.is_seen:
        return []
    if found.is_in_postcopy:
        return [IN_POSTCOPY]
    first = "This answer is coarse. " + RATE
    return [first, *filter(None, [WHY_COARSE.get(found.log.kind, "")]), MEASURE]


def facts(log: MigrationLog) -> list[tuple[str, str]]:
    """Return what the reports tell, as label and text."""
    rows: list[tuple[str, str]] = []
    if log.migrations > 1:
        rows.append(("migrations in the file", f"{log.migrations}. The last one counts"))
    if log.total_bytes:
        zero = "" if log.zero_share is None else f", {100 * log.zero_share:.0f} % zero pages"
        rows.append(("memory", f"{format_bytes(log.total_bytes)}{zero}"))
    rows.append(("reports", count_noun(len(log.reports), "report")))
    for label, rates in (("link", log.rates), ("dirty rate", log.dirty_rates)):
        if rates:
            low, high = min(rates), max(rates)
            spread = "" if high <= 1.02 * low else f", from {format_number(low / MIB)}"
            rows.append((label, f"up to {rate(high)}{spread}"))
    remaining = [one.remaining_bytes for one in log.reports if one.remaining_bytes is not None]
    if remaining:
        least = format_bytes(min(remaining))
        rows.append(("remaining", f"{format_bytes(remaining[-1])} at the end, {least} at least"))
    iteration = log.last_value("iteration")
    if iteration is not None:
        rows.append(("iterations (syncs)", f"{iteration:.0f}"))
    if log.postcopy_s is not None:
        rows.append(("post-copy", _switch(log)))
    throttle = max((one.throttle_percent or 0 for one in log.reports), default=0)
    if throttle:
        rows.append(("highest throttle", f"{throttle} %"))
    if log.limits:
        rows.append(("downtime limit", _limits(log)))
    rows.append(("end", _end(log)))
    return rows


def _switch(log: MigrationLog) -> str:
    """Return when the migration switched to post-copy, as far as the reports tell."""
    assert log.postcopy_s is not None
    return (
        f"switched by {format_duration(log.postcopy_s)}, the time of the first report that shows it"
    )


def _limits(log: MigrationLog) -> str:
    steps = [
        f"{limit_ms} ms" + ("" if not time_s else f" at {format_duration(time_s)}")
        for time_s, limit_ms in log.limits
    ]
    left = len(steps) - MOST_LIMITS
    return ", ".join([*steps[: MOST_LIMITS - 1], f"{left} more", steps[-1]] if left > 0 else steps)


def _end(log: MigrationLog) -> str:
    seconds = "" if log.seconds is None else f" after {format_duration(log.seconds)}"
    if log.outcome == COMPLETED:
        downtime = log.downtime_ms
        text = "" if downtime is None else f", downtime {format_duration(downtime / 1e3)}"
        return f"completed{seconds}{text}"
    running = "paused in post-copy" if log.is_paused else "still running"
    word = ENDED.get(log.outcome, running).removeprefix("was ")
    reason = f": {one_line(log.reason, LONGEST_REASON)}" if log.reason else ""
    return f"{word}{seconds}{reason}"


def coarse_document(found: Coarse) -> dict[str, Any]:
    """Return the verdict for JSON."""
    log = found.log
    return {
        "coarse": True,
        "kind": log.kind,
        "code": found.code,
        "outcome": log.outcome,
        "postcopy_s": log.postcopy_s,
        "is_paused": log.is_paused,
        "reason": one_line(log.reason, LONGEST_REASON),
        "seconds": log.seconds,
        "downtime_ms": log.downtime_ms,
        "memory_bytes": log.total_bytes,
        "zero_share": log.zero_share,
        "link_bytes_per_s": found.link_bytes_per_s,
        "dirty_bytes_per_s": found.dirty_bytes_per_s,
        "left_s": found.left_s,
        "downtime_limits": [list(one) for one in log.limits],
        "iteration": log.last_value("iteration"),
        "bounds": [vars(one) for one in found.bounds],
        "values": [vars(one) for one in found.values],
        "answer": answer(found),
        "why_coarse": why_coarse(found),
    }
