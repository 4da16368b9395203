"""A prediction in sentences and cells, for the terminal, the page and the picture.

Owns the text and which numbers are worth showing. It decides nothing and knows no layout.
"""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

import numpy as np

from gpusim.fit.estimates import Fit, WriterEstimate
from gpusim.formats.profile import Profile
from gpusim.policies.names import decider_name, rule_name
from gpusim.predict.bands import HIGH, LOW, Band, band
from gpusim.predict.bounds_text import bounds_lines, is_sure
from gpusim.predict.messages import text_of
from gpusim.predict.prediction import Prediction
from gpusim.qemu.versions import nearest
from gpusim.results.bottleneck import bottleneck_line, find_bottlenecks
from gpusim.results.summary_fields import RUN_FIELDS
from gpusim.results.verdicts import OUTCOMES
from gpusim.text import (
    SIZES,
    capitalized,
    count_noun,
    format_duration,
    format_number,
    join_words,
    time_unit,
    version_name,
)
from gpusim.units import format_bytes, parse_bytes

MOST_STEPS = 9  # rows of the throttle table. QEMU's own steps from 20 % to 99 % are nine
LEAST_SHARE = 0.1  # percent of the total time. A shorter part of it is not shown
MOST_DIGITS = 5  # of a duration in the unit of a shorter one
FAR = 2.0  # standard deviations. Chance alone puts one measurement in 22 farther off
BAND = f"{LOW}-{HIGH} %"
LARGE_LOSS = 5.0  # percent of the guest's CPU, from which the first lines show the loss
LONG_DOWNTIME_MS = 1000.0  # from which the first lines show the downtime
IDLE = "The guest changed no page, or less than 1 MiB/s."  # QEMU rounds rates to whole MiB/s
QUANTITIES = (
    "total_time_s",
    "first_pass_s",
    "downtime_ms",
    "transferred_bytes",
    "max_throttle_percent",
    "guest_cpu_lost_percent",
    "longest_vcpu_stall_ms",
)
POSTCOPY_QUANTITIES = ("postcopy_blackout_ms", "postcopy_time_s", "postcopy_recovery_s")
ANSWERS = {
    "converges": "Yes: the migration converges",
    "probably_converges": "Probably yes: the migration converges",
    "does_not_converge": "No: the migration does not converge",
    "probably_does_not_converge": "Probably no: the migration does not converge",
    "exceeds_time_limit": "No: the migration does not end",
    "probably_exceeds_time_limit": "Probably no: the migration does not end",
}
HOVERS = (
    "The migration ends about when the guest's load ends. While the load runs, the memory that is "
    "left does not fall."
)
TRUST = "Trust the earlier migration."
DOUBT = "Expect this prediction to be wrong in the same direction."
UNRELIABLE = {  # warnings after which a prediction has no basis
    "measurements_noisy": "the measurements are noisy",
    "speed_unsteady": "the guest's speed differs",
    "curve_falls": "the curve falls",
    "few_dirty_samples": "too few sampled pages were dirty",
}


class Row(NamedTuple):
    """A quantity as three cells: its name, the median, and the band."""

    name: str
    median: str
    band: str


def subject(prediction: Prediction) -> str:
    """Return the VM, its QEMU and the link: "64 GiB VM, 16 vCPUs, QEMU 9.2, 10Gbit/s"."""
    config = prediction.median_member.config
    limits = [
        (config.link.bandwidth, "unlimited", ""),
        (config.migration.max_bandwidth, 0, "max-bandwidth "),
    ]
    rates = [f"{name}{bandwidth(value)}" for value, none, name in limits if value != none]
    memory = format_bytes(parse_bytes(config.vm.memory))
    vcpus = count_noun(config.vm.vcpus, "vCPU")
    return ", ".join([f"{memory} VM", vcpus, _decider(prediction), *(rates or ["unlimited link"])])


def bandwidth(value: float | str) -> str:
    """Return a bandwidth as the user typed it. A bare number becomes bits per second."""
    try:
        bits = 8 * float(value)
    except ValueError:
        return str(value)
    unit, size = ("Gbit/s", 1e9) if bits >= 1e9 else ("Mbit/s", 1e6)
    return f"{format_number(bits / size)}{unit}"


def _decider(prediction: Prediction) -> str:
    """Return the VM's QEMU, and the simulated version if it differs: "QEMU 10.0.2 (rules of 9.2)"."""
    version, own = prediction.median_member.config.migration.version, prediction.profile.qemu
    policies = prediction.median_member.summary.policies
    if own is None or version != nearest(own):
        return decider_name(version, policies)
    name = f"QEMU {'.'.join(map(str, own))}"
    if version != "_".join(map(str, ("qemu", *own[:2]))):
        name = f"{name} (rules of {version_name(version)})"
    return decider_name(name, policies)


def verdict_code(prediction: Prediction) -> str:
    """Return the verdict as a key of ANSWERS."""
    code = "converges"
    if not prediction.converges:
        ended = prediction.median_member.summary.verdict
        code = "exceeds_time_limit" if ended == "time_limit" else "does_not_converge"
    return code if is_sure(prediction.probability) else f"probably_{code}"


def title(prediction: Prediction) -> str:
    """Return the verdict in one line, with the total time and its band."""
    answer = ANSWERS[verdict_code(prediction)]
    summary = prediction.median_member.summary
    if summary.verdict == "time_limit":
        return f"{answer} within {format_duration(summary.total_time_s)}"
    if summary.verdict == "cancelled":
        by = "The schedule"
        if summary.reason_code == "cancelled_by_manager":
            manager = prediction.median_member.config.migration.manager
            assert manager is not None
            by = rule_name(manager.target)
        return f"{answer}. {by} ends it after {format_duration(summary.total_time_s)}"
    if not prediction.converges:
        return answer
    total = prediction.band("total_time_s")
    assert total is not None  # every run has one
    median, band = band_text(total, "s")
    return f"{answer} in {median}" + ("" if band == median else f" ({band})")


def large_loss(prediction: Prediction) -> str:
    """Return a sentence about the CPU time that the guest loses, or "" if the loss is small."""
    lost = prediction.band("guest_cpu_lost_percent")
    if not prediction.converges or lost is None or lost.middle < LARGE_LOSS:
        return ""
    return f"The guest loses {format_number(lost.middle)} % of its CPU time."


def long_downtime(prediction: Prediction) -> str:
    """Return a sentence about the downtime, or "" if the downtime is short."""
    found = prediction.band("downtime_ms")
    if not prediction.converges or found is None or found.middle < LONG_DOWNTIME_MS:
        return ""
    median, band = band_text(found, "ms")
    return f"QEMU stops the VM for {median}" + ("." if band == median else f" ({band}).")


def unreliable(prediction: Prediction) -> str:
    """Return why the profile is not reliable, or "" if no warning says so."""
    codes = [one.code for one in prediction.fit.warnings]
    reasons = [text for code, text in UNRELIABLE.items() if code in codes]
    return f"Unreliable profile: {join_words(reasons)}." if reasons else ""


def headline(prediction: Prediction) -> str:
    """Return the answer in one line: how an earlier migration ended, or else the verdict."""
    earlier = prediction.earlier
    if earlier is None or not earlier.has_same_settings:
        return title(prediction)
    took = format_duration(earlier.outcome.seconds)
    if not earlier.outcome.completed:
        return f"No: with these settings an earlier migration had not ended after {took}"
    return f"Yes: with these settings an earlier migration took {took}"


def _compared(prediction: Prediction) -> list[str]:
    """Return what the model says about an earlier migration."""
    earlier = prediction.earlier
    if earlier is None:
        return []
    took = format_duration(earlier.outcome.seconds)
    end = f"took {took}" if earlier.outcome.completed else f"had not ended after {took}"
    model = "that it does not converge"
    if earlier.total_time_s is not None:
        median, band = band_text(earlier.total_time_s, "s")
        model = f"{median} ({band})"
    if earlier.has_same_settings:
        if not earlier.disagrees:
            return []
        return [f"The model disagrees: it {end}, and the model says {model}. {TRUST}"]
    settings = f"An earlier migration with other settings ({join_words(earlier.differing)}) {end}."
    if earlier.converges is None:
        return [f"{settings} gpusim could not compare the model with it."]
    if not earlier.disagrees:
        return [f"{settings} The model agrees for those settings."]
    return [f"{settings} The model disagrees for those settings: it says {model}. {DOUBT}"]


def answer(prediction: Prediction) -> list[str]:
    """Return the first lines: bounds, the verdict and how probable it is, bottlenecks, costs, a bad profile.

    If an earlier migration had the same settings, then its outcome comes first.
    """
    found = find_bottlenecks([vars(one.summary) for one in prediction.members])
    verdict, earlier = f"{title(prediction)}. {_agreement(prediction)}", prediction.earlier
    first = [verdict, *_compared(prediction)]
    if earlier is not None and earlier.has_same_settings:
        first = [f"{headline(prediction)}.", *_compared(prediction), f"This model: {verdict}"]
    texts = (
        *bounds_lines(prediction),
        *first,
        HOVERS if prediction.ends_with_load else "",
        switch(prediction),
        *(f"{capitalized(bottleneck_line(one, 'migration'))}." for one in found),
        long_downtime(prediction),
        large_loss(prediction),
        unreliable(prediction),
    )
    return [one for one in texts if one]


def reasons(prediction: Prediction) -> list[str]:
    """Return how the median migration ends, and how those with another verdict end."""
    lines = [
        f"Example, the migration with the median total time: {prediction.median_member.summary.reason}."
    ]
    others = [one for one in prediction.members if one.converges != prediction.converges]
    if others:
        ends: Counter[str] = Counter(
            one.summary.verdict or one.summary.status for one in prediction.members
        )
        counts = [f"{ends[end]} {outcome.label}" for end, outcome in OUTCOMES.items() if ends[end]]
        which = f"One of the {len(others)}" if len(others) > 1 else "The other migration"
        lines.append(f"{join_words(counts)}. {which}: {others[0].summary.reason}.")
    return lines


def _agreement(prediction: Prediction) -> str:
    count = len(prediction.members)
    converging = sum(member.converges for member in prediction.members)
    if count == 1:
        return f"The one simulated migration {'converges' if converging else 'does not converge'}."
    if converging == count:
        return f"All {count} simulated migrations converge."
    if not converging:
        return f"None of {count} simulated migrations converges."
    verb = "converges" if converging == 1 else "converge"
    share = format_number(100 * converging / count)
    return f"{converging} of {count} simulated migrations {verb} ({share} %)."


def band_members(prediction: Prediction) -> str:
    """Return which simulated migrations the bands cover, and what their medians are."""
    count, agreeing = len(prediction.members), len(prediction.agreeing())
    if agreeing == count:
        return f"Over all {count} simulated migrations, each figure by itself."
    verb = "converge" if prediction.converges else "do not converge"
    return (
        f"Over the {agreeing} of {count} simulated migrations that {verb}, each figure by itself."
    )


def band_text(band: Band, unit: str) -> tuple[str, str]:
    """Return the median and the ends of a band: ("15.7 min", "15.6 to 15.9 min").

    Durations all have the unit of the shortest, unless that needs more than MOST_DIGITS.

    Args:
        band: the values.
        unit: "s", "ms", "bytes" or "%".
    """
    values = (band.low, band.middle, band.high)
    parts = [_number_and_unit(value, unit) for value in values]
    if unit in ("s", "ms") and band.low > 0:
        same = [_number_and_unit(value, unit, band.low) for value in values]
        if max(len(number) for number, _ in same) <= MOST_DIGITS:
            parts = same
    low, median, high = (" ".join(part) for part in parts)
    if low == high:
        return median, low
    return median, f"{parts[0][0] if parts[0][1] == parts[2][1] else low} to {high}"


def _number_and_unit(value: float, unit: str, like: float | None = None) -> tuple[str, str]:
    if unit == "%":
        return format_number(value), unit
    if unit == "bytes":
        name, size = next((one for one in SIZES if value >= one[1]), SIZES[-1])
        return f"{value / size:.4g}", name
    to_s = 1e-3 if unit == "ms" else 1.0
    name, seconds = time_unit(to_s * (value if like is None else like))
    return format_number(to_s * value / seconds), name


def switch(prediction: Prediction) -> str:
    """Return a sentence about the switch to post-copy, or "" if most migrations end without it."""
    agreeing = [one.summary for one in prediction.agreeing()]
    found = [one for one in agreeing if one.reason_code == "postcopy"]
    if not prediction.converges or 2 * len(found) <= len(agreeing):
        return ""
    after = band([one.total_time_s - (one.postcopy_time_s or 0.0) for one in found])
    risk = band([one.postcopy_time_s or 0.0 for one in found])
    median, edges = band_text(after, "s")
    longest = format_duration(risk.high)
    return (
        f"It switches to post-copy after {median} ({edges}). From then on a lost link stops the guest, "
        f"for up to {longest}."
    )


def rows(prediction: Prediction) -> list[Row]:
    """Return each quantity's median and band, over the members with the prediction's verdict."""
    found = []
    for key in (*QUANTITIES, *POSTCOPY_QUANTITIES):
        field, band = RUN_FIELDS[key], prediction.band(key)
        gave_up = key == "total_time_s" and not prediction.converges
        if band is not None:
            name = "Gave up after" if gave_up else field.label
            found.append(Row(name, *band_text(band, field.unit)))
        elif key == "downtime_ms":
            found.append(Row(field.label, "none", "QEMU never stops the VM"))
    return found


def throttle_rows(prediction: Prediction) -> list[tuple[str, str, str, str]]:
    """Return each throttle step: percent, members that reach it, median time, band of times.

    If there are more than MOST_STEPS, then a row stands for those in between.
    """
    count = len(prediction.members)
    found = []
    for step in prediction.throttle_steps():
        reached = f"{round(step.share * count)} of {count}"
        found.append((f"{step.percent} %", reached, *band_text(step.time_s, "s")))
    if len(found) <= MOST_STEPS:
        return found
    half = MOST_STEPS // 2
    gap = ("...", "", f"{len(found) - 2 * half} more steps", "")
    return [*found[:half], gap, *found[-half:]]


def time_parts(prediction: Prediction) -> str:
    """Return a sentence about the parts of the median migration's time, or "" if it has one part."""
    summary = prediction.median_member.summary
    if summary.first_pass_s is None or not summary.total_time_s:
        return ""
    downtime_s = (summary.downtime_ms or 0.0) / 1e3
    first_s = min(summary.first_pass_s, summary.total_time_s - downtime_s)
    postcopy_s = summary.postcopy_time_s or 0.0
    first_s = min(first_s, summary.total_time_s - downtime_s - postcopy_s)
    later_s = summary.total_time_s - first_s - downtime_s - postcopy_s
    parts = {"first pass": first_s, "later passes": later_s, "post-copy": postcopy_s}
    if summary.downtime_ms is not None:
        parts["downtime"] = downtime_s
    texts = []
    for name, time_s in parts.items():
        percent = 100 * time_s / summary.total_time_s
        if percent >= LEAST_SHARE or name == "downtime":
            share = f" ({percent:.0f} %)" if percent >= 1 else ""
            texts.append(f"{name} {format_duration(time_s)}{share}")
    return f"Time of the example: {', '.join(texts)}."


def writer_rows(fit: Fit, page_bytes: int) -> list[tuple[str, str, str, str]]:
    """Return each fitted writer: pattern, working set, page writes per second, time per page."""
    return [
        (
            "at random" if writer.kind == "random" else "in sequence",
            format_bytes(writer.pages * page_bytes),
            f"{_three_digits(writer.page_writes_per_s)} page writes/s",
            _interval(writer),
        )
        for writer in fit.writers
    ]


def _interval(writer: WriterEstimate) -> str:
    if not writer.rate > 0:
        return "never"
    return f"each page every {format_duration(1 / writer.rate)}"


def _three_digits(value: float) -> str:
    """Return a number with three significant digits and thousands apart: 1,230,000."""
    return f"{float(f'{value:.3g}'):,.0f}" if value >= 100 else format_number(value)


def measured(profile: Profile, fit: Fit) -> list[str]:
    """Return sentences about the measurements and how far the fit is from them."""
    if not profile.measurements:
        return [f"Nothing was measured. Source: {profile.source}."]
    periods_s = profile.periods_s
    lengths = format_duration(periods_s[0])
    if len(periods_s) > 1:
        last = format_duration(periods_s[-1])
        lengths = f"{len(periods_s)} different periods from {lengths} to {last}"
    count = count_noun(len(profile.measurements), "measurement")
    lines = [f"{count} of {lengths}, by {profile.mode}. Source: {profile.source}."]
    residuals = np.abs(fit.residuals)
    if len(residuals):
        most = format_number(float(residuals.max()))
        far = int(np.sum(residuals > FAR))
        lines.append(
            f"The fit is at most {most} standard deviations off. "
            f"Measurements more than {FAR:.0f} off: {far} of {len(residuals)}."
        )
    return lines


def warnings(prediction: Prediction) -> list[str]:
    """Return the warnings about the profile as sentences."""
    return [text_of(one) for one in prediction.fit.warnings]


def assumptions(prediction: Prediction) -> list[str]:
    """Return the assumptions as sentences."""
    return [text_of(one) for one in prediction.assumptions]
