"""What set the sending rate, as one line under a verdict: of one run, or of many.

engine/bottleneck.py decides it. A run that the link itself limits has no line.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from gpusim.errors import one_line
from gpusim.text import Message, count_noun, format_number

LINK = "link"  # the code of a rate that the link itself sets
LONGEST = 120  # characters of a text in a summary.json, which may come from elsewhere


def find_bottlenecks(summaries: Sequence[Mapping[str, Any]]) -> list[Message]:
    """Return the bottlenecks of runs except the link, the most frequent first.

    Args:
        summaries: the contents of summary.json. A run without a bottleneck is counted only.

    Returns:
        Messages with the code "bottleneck". Their data has the ends of the rates, and the change
        that is enough for the run that uses the smallest share of its link.
    """
    codes = Counter(one.get("bottleneck_code") for one in summaries)
    found = []
    for code, count in codes.most_common():
        if code in (None, LINK):
            continue
        runs = [one for one in summaries if one.get("bottleneck_code") == code]
        slowest = min(runs, key=_share)
        data = {
            "code": code,
            "runs": count,
            "of_runs": len(summaries),
            "bottleneck": slowest.get("bottleneck"),
            "change": slowest.get("bottleneck_change"),
            "sending_gbit_per_s": _ends(runs, "sending_gbit_per_s"),
            "link_gbit_per_s": _ends(runs, "link_gbit_per_s"),
        }
        found.append(Message("bottleneck", data))
    return found


def bottleneck_line(found: Message, noun: str = "run") -> str:
    """Return the line of a bottleneck, without a full stop at its end.

    For one run it is "uses 12.7 of 25 Gbit/s: one sending thread. To use more, set ...". For many
    runs it begins with how many of them.

    Args:
        found: of `find_bottlenecks`.
        noun: what the runs are called, in the singular.
    """
    data = found.data
    subject = "uses"
    if data["of_runs"] > 1:
        verb = "uses" if data["runs"] == 1 else "use"
        subject = f"{data['runs']} of {count_noun(data['of_runs'], noun)} {verb}"
    sending, link = data["sending_gbit_per_s"], data["link_gbit_per_s"]
    rates = f"{_span(sending)} of {_span(link)} Gbit/s" if link else f"{_span(sending)} Gbit/s"
    line = f"{subject} {rates}: {one_line(data['bottleneck'] or data['code'], LONGEST)}"
    change = data["change"]
    return f"{line}. To use more, set {one_line(change, LONGEST)}" if change else line


def run_line(summary: Mapping[str, Any]) -> str:
    """Return the line of one run, or "" if the link itself limits it."""
    return "".join(map(bottleneck_line, find_bottlenecks([summary])))


def _share(summary: Mapping[str, Any]) -> float:
    """Return the used share of the link, or for unlimited links a number that rises with the rate."""
    sending = float(summary.get("sending_gbit_per_s") or 0.0)
    link = summary.get("link_gbit_per_s")
    return sending / float(link) if link else sending


def _ends(runs: Sequence[Mapping[str, Any]], key: str) -> tuple[float, float] | None:
    known = [float(one[key]) for one in runs if one.get(key) is not None]
    return (min(known), max(known)) if known else None


def _span(ends: tuple[float, float] | None) -> str:
    if ends is None:
        return "part"
    low, high = map(format_number, ends)
    return low if low == high else f"{low} to {high}"
