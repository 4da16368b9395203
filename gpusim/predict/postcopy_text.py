"""Precopy beside post-copy in rows and sentences, for the terminal, the page and JSON.

Owns the text. postcopy_comparison.py decides what is simulated and recommended.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gpusim.predict.bands import Band
from gpusim.predict.bounds_text import bounds_words
from gpusim.predict.messages import text_of
from gpusim.predict.postcopy_comparison import PostcopyComparison, Way
from gpusim.predict.postcopy_costs import READS_PER_WRITE
from gpusim.predict.prediction import Prediction
from gpusim.predict.prediction_text import band_text
from gpusim.text import Message, format_number, join_words, version_name

HEAD = "Ways to end it"
LABELS = {  # quantity -> label and unit
    "total_time_s": ("Total time", "s"),
    "downtime_ms": ("Downtime, as QEMU reports it", "ms"),
    "blackout_ms": ("The guest stands still for", "ms"),
    "guest_cpu_lost_s": ("The guest loses", "vCPU s"),
    "recovery_s": ("It runs at 90 % again after", "s"),
    "at_risk_s": ("A lost link stops it for", "s"),
}
OBSTACLES = {
    "vfio": "postcopy_vfio",
    "manager": "postcopy_manager",
    "multifd": "postcopy_multifd",
    "version": "postcopy_version",
}
COSTS = {
    "fault_us": "a fault of {low:g} to {high:g} us",
    "request_us": "a request of {low:g} to {high:g} us",
    "discard_us": "dropping a run of pages in {low:g} to {high:g} us",
    "resume_ms": "starting the guest in {low:g} to {high:g} ms",
}


def heads(comparison: PostcopyComparison) -> tuple[str, ...]:
    """Return the head of the table."""
    return (HEAD, *(_head(way) for way in comparison.ways))


def _head(way: Way) -> str:
    if way.name == "precopy":
        return "precopy, auto-converge"
    if way.name == "postcopy_at_once":
        return "post-copy at once"
    if way.tool:
        return f"post-copy by {way.tool}"
    return "post-copy as it is set" if not way.settings else "post-copy after 1 pass"


def rows(prediction: Prediction) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return each row: its label, and for each way the median and the range."""
    comparison = prediction.ways
    if comparison is None or not comparison.ways:
        return []
    counts = [
        (f"{one.converging} of {one.guests}", f"{one.cut} not known" if one.cut else "")
        for one in comparison.ways
    ]
    found = [("Converges", counts)]
    if prediction.bounds:
        kept = [(f"{one.keeping} of {one.guests}", "") for one in comparison.ways]
        found.append(("Within what you allow", kept))
    for quantity, (label, unit) in LABELS.items():
        found.append((label, [_cell(one.bands.get(quantity), unit) for one in comparison.ways]))
    return found


def _cell(band: Band | None, unit: str) -> tuple[str, str]:
    if band is None:
        return "", ""
    if unit != "vCPU s":
        median, edges = band_text(band, unit)
        return (median, edges if edges != median else "")
    low, middle, high = map(format_number, (band.low, band.middle, band.high))
    return f"{middle} {unit}", f"{low} to {high}" if low != high else ""


def recommended(prediction: Prediction) -> str:
    """Return a sentence that recommends post-copy, or ""."""
    found = [one for one in messages(prediction) if one.code == "postcopy_recommended"]
    return text_of(found[0]) if found else ""


def sentences(prediction: Prediction) -> list[str]:
    """Return whether precopy is enough, the risk, and what nobody measured. [] without a comparison."""
    return [text_of(one) for one in messages(prediction) if one.code != "postcopy_recommended"]


def messages(prediction: Prediction) -> list[Message]:
    """Return the same as codes with data."""
    comparison = prediction.ways
    if comparison is None:
        return []
    if comparison.obstacle:
        version = version_name(prediction.median_member.config.migration.version)
        return [Message(OBSTACLES[comparison.obstacle], {"version": version})]
    return [_answer(prediction, comparison), *_risk(comparison), *_unmeasured(comparison)]


def _answer(prediction: Prediction, comparison: PostcopyComparison) -> Message:
    precopy, best = comparison.ways[0], comparison.recommended
    does = "converges"
    if prediction.bounds:
        does = f"keeps {bounds_words(prediction.bounds)}"
    most = max(one.keeping for one in comparison.ways[1:])
    data: dict[str, Any] = {"guests": precopy.guests, "does": does, "precopy": precopy.keeping}
    if best is not None:
        return Message("postcopy_recommended", data | {"settings": best.settings})
    if precopy.cut:
        return Message("postcopy_unknown", data | {"cut": precopy.cut})
    enough = precopy.keeping == precopy.guests
    return Message(
        "postcopy_not_needed" if enough else "postcopy_for_some", data | {"keeping": most}
    )


def _risk(comparison: PostcopyComparison) -> Iterator[Message]:
    """Tell the risk of the recommended way, or else of the switch after precopy."""
    way = comparison.recommended or comparison.ways[1]
    risk = way.bands.get("at_risk_s")
    if risk is not None:
        yield Message("postcopy_risk", {"low_s": risk.low, "high_s": risk.high})


def _unmeasured(comparison: PostcopyComparison) -> Iterator[Message]:
    costs = [COSTS[key].format(low=one.low, high=one.high) for key, one in comparison.drawn.items()]
    reads = f"{READS_PER_WRITE.low:g} to {READS_PER_WRITE.high:g} page reads per write"
    yield Message("postcopy_unmeasured", {"costs": join_words([*costs, reads])})


def ways_document(prediction: Prediction) -> dict[str, Any] | None:
    """Return the comparison for JSON."""
    comparison = prediction.ways
    if comparison is None:
        return None
    best = comparison.recommended
    return {
        "obstacle": comparison.obstacle,
        "ways": {
            way.name: {
                "settings": way.settings,
                "tool": way.tool,
                "guests": way.guests,
                "converging": way.converging,
                "keeping": way.keeping,
                "cut": way.cut,
                **{name: way.bands.get(name) for name in LABELS},
            }
            for way in comparison.ways
        },
        "recommended": None if best is None else best.name,
        "messages": messages(prediction),
        "text": [text_of(one) for one in messages(prediction)],
    }
