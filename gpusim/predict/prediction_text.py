"""What a prediction says, in sentences and cells: for the terminal's page and the report's alike.

Owns the words, and which numbers are worth telling; it decides nothing and knows no layout.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from gpusim.fit.estimates import Fit, WriterEstimate
from gpusim.formats.profile import Profile
from gpusim.predict.messages import text_of
from gpusim.predict.prediction import HIGH, LOW, Band, Member, Prediction
from gpusim.qemu.versions import nearest
from gpusim.results.verdicts import OUTCOMES
from gpusim.text import format_duration, format_number, version_name
from gpusim.units import format_bytes, parse_bytes

SURE = 0.95  # a verdict that fewer members share is a probable one
MOST_STEPS = 9  # of the throttle that are told one by one: 20 % to 99 % in QEMU's own steps
LEAST_SHARE = 0.1  # percent of the total time; less is not worth a word
DIGITS = 5  # and signs of a duration that is told in the unit of a shorter one
UNSEEN = (  # QEMU's rates are whole MiB a second
    "No page was seen to change: the guest writes less than a MiB a second, or nothing."
)
FAR = 2.0  # standard deviations; one measurement in 22 is farther off by chance
BAND = f"{LOW}-{HIGH} %"
PAINFUL = 5.0  # percent of the guest's CPU: a loss that belongs into the headline
BY_HAND = "typed by hand"
UNTRUSTWORTHY = {  # warnings that make a prediction worthless -> the reason in short
    "measurements_noisy": "noisy",
    "speed_unsteady": "the guest's speed differs",
    "curve_falls": "the curve falls",
    "few_dirty_samples": "too few dirty pages sampled",
}


class Row(NamedTuple):
    """A quantity as it is told."""

    name: str
    middle: str
    band: str


def percent(value: float) -> str:
    """As people write it: "12.5 %"."""
    return f"{format_number(value)} %"


def milliseconds(value: float, like: float | None = None) -> str:
    """A duration in ms for people; in the unit of another one, if any."""
    return format_duration(value / 1e3, None if like is None else like / 1e3)


DURATIONS = (format_duration, milliseconds)

QUANTITIES: tuple[tuple[str, str, Callable[[float], str]], ...] = (  # name, field of Summary, words
    ("Total time", "total_time_s", format_duration),
    ("First pass", "first_pass_s", format_duration),
    ("Downtime", "downtime_ms", milliseconds),
    ("Sent over the wire", "transferred_bytes", format_bytes),
    ("Highest throttle", "max_throttle_percent", percent),
    ("Guest CPU lost", "guest_cpu_lost_percent", percent),
    ("Longest sleep of a vCPU", "longest_vcpu_stall_ms", milliseconds),
)


def subject(prediction: Prediction) -> str:
    """What would be migrated, by which QEMU and over which link."""
    config = prediction.median_member.config
    vcpus = f"{config.vm.vcpus} vCPU{'' if config.vm.vcpus == 1 else 's'}"
    limits = [
        (config.link.bandwidth, "unlimited", ""),
        (config.migration.max_bandwidth, 0, "max-bandwidth "),
    ]
    wire = [f"{name}{bandwidth(value)}" for value, none, name in limits if value != none]
    memory = format_bytes(parse_bytes(config.vm.memory))
    return ", ".join([f"{memory} VM", vcpus, _decider(prediction), *(wire or ["unlimited link"])])


def bandwidth(value: float | str) -> str:
    """As it was set, or in bits where that was a bare number, so that a page compares like with like."""
    try:
        bytes_per_s = float(value)
    except ValueError:
        return str(value)
    bits = 8 * bytes_per_s
    unit, size = ("Gbit/s", 1e9) if bits >= 1e9 else ("Mbit/s", 1e6)
    return f"{format_number(bits / size)}{unit}"


def _decider(prediction: Prediction) -> str:
    """The VM's own QEMU, and as which it is simulated where they differ: "QEMU 10.0.2 (decides as 9.2)"."""
    version, own = prediction.median_member.config.migration.version, prediction.profile.qemu
    rules = version_name(version)
    if own is not None and version == nearest(own):
        said = ".".join(map(str, own))
        number = rules.removeprefix("QEMU ")
        same = f"{said}.".startswith(f"{number}.")
        rules = f"QEMU {said}" + ("" if same else f" (decides as {number})")
    policies = prediction.median_member.summary.policies
    return f"{rules} with {policies}" if policies else rules


def title(prediction: Prediction) -> str:
    """The verdict in a few words."""
    if not prediction.converges:
        return _opening(prediction)
    total = prediction.band("total_time_s")
    assert total is not None  # every run has one
    middle, band = _told(total, format_duration)
    told = f"{_opening(prediction)} in {middle}" + ("" if band == middle else f" ({band})")
    lost = prediction.band("guest_cpu_lost_percent")
    if lost is not None and lost.middle >= PAINFUL:
        told += f"; the guest loses {percent(lost.middle)} of its CPU"
    return told


def doubtful(prediction: Prediction) -> str:
    """What makes the prediction untrustworthy, in a few words; empty if nothing does."""
    codes = {warning.code for warning in prediction.fit.warnings}
    found = [short for code, short in UNTRUSTWORTHY.items() if code in codes]
    return f"doubtful profile: {', '.join(found)}" if found else ""


def verdict(prediction: Prediction) -> list[str]:
    """Whether it converges, how probable that is, and why; a sentence each."""
    count = len(prediction.members)
    did = sum(member.converges for member in prediction.members)
    lines = [
        f"{title(prediction)}. {_how_many(did, count)}.",
        f"The middle one: {_reason(prediction.median_member)}.",
    ]
    others = [one for one in prediction.members if one.converges != prediction.converges]
    if others:
        ends: Counter[str] = Counter(
            one.summary.verdict or one.summary.status for one in prediction.members
        )
        told = ", ".join(
            f"{ends[end]} {outcome.label}" for end, outcome in OUTCOMES.items() if ends[end]
        )
        which = f"one of the {len(others)}" if len(others) > 1 else "the other one"
        lines.append(f"{told}; {which}: {_reason(others[0])}.")
    return lines


def _how_many(did: int, count: int) -> str:
    if count == 1:
        return f"The one simulated migration {'converges' if did else 'does not converge'}"
    if did == count:
        return f"All {count} simulated migrations converge"
    if not did:
        return f"None of {count} simulated migrations converges"
    share = percent(100 * did / count)
    return f"{did} of {count} simulated migrations converge{'s' * (did == 1)} ({share})"


def whose(prediction: Prediction) -> str:
    """Over which of the simulated migrations a band is."""
    count, alike = len(prediction.members), len(prediction.agreeing())
    if alike == count:
        return f"all {count} simulated migrations"
    do = "converge" if prediction.converges else "do not converge"
    return f"the {alike} of {count} simulated migrations that {do}"


def _opening(prediction: Prediction) -> str:
    surely = max(prediction.probability, 1 - prediction.probability) >= SURE
    if prediction.converges:
        return "Converges" if surely else "Probably converges"
    middle = prediction.median_member.summary
    said = "does not converge"
    if middle.verdict == "time_limit":  # it might have, later
        said = f"is not over within {format_duration(middle.total_time_s)}"
    return said.capitalize() if surely else f"Probably {said}"


def _reason(member: Member) -> str:
    return member.summary.reason.rstrip(".; ")


def _told(band: Band, words: Callable[..., str]) -> tuple[str, str]:
    """The middle and both ends, with one unit where they have one: "15.7 min", "15.6 to 15.9 min".

    Durations are all told in the unit of the shortest, unless that takes more digits than people read.
    """
    ends = (band.low, band.middle, band.high)
    low, middle, high = map(words, ends)
    if words in DURATIONS and band.low > 0:
        alike = [words(one, band.low) for one in ends]
        if max(len(text.split()[0]) for text in alike) <= DIGITS:
            low, middle, high = alike
    if low == high:
        return middle, low
    number, _, unit = low.partition(" ")
    return middle, f"{number if high.endswith(f' {unit}') else low} to {high}"


def rows(prediction: Prediction) -> list[Row]:
    """Each quantity's middle and band, over the members whose verdict is the prediction's."""
    found = []
    for name, field, words in QUANTITIES:
        band = prediction.band(field)
        given_up = field == "total_time_s" and not prediction.converges
        if band is not None:
            found.append(Row("Given up after" if given_up else name, *_told(band, words)))
        elif field == "downtime_ms":
            found.append(Row(name, "none", "the VM is never stopped"))
    return found


def throttle_rows(prediction: Prediction) -> list[tuple[str, str, Row]]:
    """Percent, how many members come to it, and when; rows in the middle left out if there are many."""
    count = len(prediction.members)
    found = []
    for step in prediction.throttle_steps():
        times = Row("", *_told(step.time_s, format_duration))
        reach = round(step.share * count)
        found.append((f"{step.percent} %", f"{reach} of {count}", times))
    left_out = len(found) - MOST_STEPS
    if left_out > 0:
        half = MOST_STEPS // 2
        gap = ("...", "", Row("", f"{left_out + 1} steps more", ""))
        found = [*found[:half], gap, *found[-half:]]
    return found


def where_the_time_goes(prediction: Prediction) -> str:
    """Of the middle member: its first pass, those after it, and the downtime; empty if there was none."""
    summary = prediction.median_member.summary
    if summary.first_pass_s is None or not summary.total_time_s:
        return ""
    downtime_s = (summary.downtime_ms or 0.0) / 1e3
    first_s = min(summary.first_pass_s, summary.total_time_s - downtime_s)
    parts = {"first pass": first_s, "later passes": summary.total_time_s - first_s - downtime_s}
    if summary.downtime_ms is not None:
        parts["downtime"] = downtime_s
    shares = {name: 100 * time_s / summary.total_time_s for name, time_s in parts.items()}
    told = [
        f"{name} {format_duration(parts[name])}" + (f" ({share:.0f} %)" if share >= 1 else "")
        for name, share in shares.items()
        if share >= LEAST_SHARE or name == "downtime"
    ]
    return ", ".join(told)


def writer_rows(fit: Fit, page_bytes: int) -> list[tuple[str, str, str, str]]:
    """Of each writer that was fitted: how, how much, how fast, and how often to a page."""
    return [
        (
            "at random" if writer.kind == "random" else "in sequence",
            format_bytes(writer.pages * page_bytes),
            f"{_count(writer.page_writes_per_s)} page writes/s",
            _how_often(writer),
        )
        for writer in fit.writers
    ]


def _how_often(writer: WriterEstimate) -> str:
    if not writer.rate > 0:
        return "never"
    return f"each page every {format_duration(1 / writer.rate)}"


def _count(value: float) -> str:
    """Three digits that matter, thousands apart: 1,230,000."""
    return f"{float(f'{value:.3g}'):,.0f}" if value >= 100 else format_number(value)


def measured(profile: Profile, fit: Fit) -> list[str]:
    """What the fit is made of, and how far off it is."""
    if not profile.measurements:
        return [f"Not measured: {profile.source}."]
    periods_s = profile.periods_s
    count = len(profile.measurements)
    lengths = format_duration(periods_s[0])
    if len(periods_s) > 1:
        lengths = f"{len(periods_s)} lengths from {lengths} to {format_duration(periods_s[-1])}"
    lines = [
        f"{count} measurement{'s' * (count > 1)} of {lengths}, by {profile.mode}: {profile.source}."
    ]
    residuals = np.abs(fit.residuals)
    if len(residuals):
        far = int(np.sum(residuals > FAR))
        lines.append(
            f"The fit is {format_number(float(residuals.max()))} standard deviations off at most; "
            f"{far or 'none'} of {len(residuals)} by more than {FAR:.0f}."
            + (f" {_steadiness(profile, fit)}" if fit.writers else "")
        )
    return lines


def _steadiness(profile: Profile, fit: Fit) -> str:
    """How much the guest's speed varies: seen only where a period was measured again."""
    varies = percent(100 * fit.drift)
    if profile.repeated:
        return f"The guest's speed varies by {varies} from one repeat to the next."
    return f"Nothing was measured twice: the guest's speed is taken to vary by {varies}."


def origin(profile: Profile) -> str:
    """Where the profile comes from, as what a prediction is made from."""
    return f"a profile {BY_HAND}" if profile.source == BY_HAND else profile.source


def warnings(prediction: Prediction) -> list[str]:
    """Return the warnings about the profile as sentences."""
    return [text_of(one) for one in prediction.fit.warnings]


def assumptions(prediction: Prediction) -> list[str]:
    """Return the assumptions as sentences."""
    return [text_of(one) for one in prediction.assumptions]
