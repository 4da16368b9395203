"""Warnings about the measurements of a profile: what is wrong with them, or what they cannot show.

This module owns the codes and their data. The text is made by the application that shows it.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from gpusim.fit.estimates import Fit
from gpusim.fit.evidence import Evidence, mixture_of
from gpusim.formats.profile import Profile
from gpusim.text import Message

FAR = 4.5  # standard deviations: one measurement in a hundred thousand is farther off
UNSTEADY = 0.15  # of the guest's speed: half as much is normal under TCG on a busy host
LONGER = 1.5  # times: repeats of a period differ by some ms
STEADY = 0.05  # of the guest's speed: a larger drift does not excuse a curve that falls
GROWING = 0.5  # the slope relative to a straight line, from which the curve counts as growing
FEW = 10  # dirty pages in a sample: a third of that is chance
NOISE = 2.0  # chi-square per measurement


def profile_warnings(profile: Profile, evidence: Evidence, fit: Fit) -> tuple[Message, ...]:
    """Return the warnings about a profile and its best fit.

    Codes: measurements_noisy, speed_unsteady, curve_falls, curve_grows, few_dirty_samples,
    dirty_ring_recounts.
    """
    checks = (_noise, _speed, _fall, _growth, _samples, _ring)
    return tuple(one for check in checks for one in check(profile, evidence, fit))


def _noise(profile: Profile, evidence: Evidence, fit: Fit) -> Iterator[Message]:
    """Warn if no mixture of writers explains the measurements."""
    worst = int(np.argmax(np.abs(fit.residuals)))
    off = abs(fit.residuals[worst])
    if off < FAR and fit.chi_square < NOISE * len(fit.residuals):
        return
    expected = evidence.expected(mixture_of(fit.writers), fit.drift)[0][worst]
    data = {
        "chi_square": fit.chi_square,
        "measurements": len(fit.residuals),
        "worst_s": float(evidence.seconds[worst]),
        "off_percent": float(100 * (evidence.middle[worst] / max(expected, 1) - 1)),
        "off_deviations": float(off),
    }
    yield Message("measurements_noisy", data)


def _speed(profile: Profile, evidence: Evidence, fit: Fit) -> Iterator[Message]:
    """Warn if the guest changed its speed between measurements."""
    if fit.drift >= UNSTEADY and fit.writers:
        yield Message("speed_unsteady", {"drift_percent": 100 * fit.drift})


def _fall(profile: Profile, evidence: Evidence, fit: Fit) -> Iterator[Message]:
    """Warn if a longer period has fewer distinct pages, which is impossible for a steady guest."""
    if profile.history is not None:
        return  # its syncs do not see all pages
    drifted = min(fit.drift, STEADY) * evidence.middle
    variance = evidence.sampling_variance(evidence.middle) + drifted**2
    deviation = FAR / np.sqrt(2) * np.sqrt(variance)
    low, high = evidence.low - deviation, evidence.high + deviation
    is_longer = evidence.seconds > LONGER * evidence.seconds[:, None]
    earlier, later = np.nonzero(is_longer & (low[:, None] > high))
    if not len(earlier):
        return
    worst = int(np.argmax(low[earlier] - high[later]))
    data = {}
    for name, place in (("early", earlier[worst]), ("late", later[worst])):
        data[f"{name}_s"] = float(evidence.seconds[place])
        data[f"{name}_bytes"] = int(evidence.middle[place] * profile.page_bytes)
    yield Message("curve_falls", data)


def _growth(profile: Profile, evidence: Evidence, fit: Fit) -> Iterator[Message]:
    """Warn if the longest period was too short to see all pages of a writer."""
    longest_s = float(evidence.seconds.max())
    before, end = fit.distinct_pages(np.array([0.9, 1.0]) * longest_s)
    if end <= 0 or (end - before) / (0.1 * end) < GROWING:
        return
    data = {
        "longest_s": longest_s,
        "growth_bytes_per_s": int((end - before) / (0.1 * longest_s) * profile.page_bytes),
        "most_bytes": int(evidence.most * profile.page_bytes),
    }
    yield Message("curve_grows", data)


def _samples(profile: Profile, evidence: Evidence, fit: Fit) -> Iterator[Message]:
    """Warn if almost no sampled page was dirty."""
    most_dirty = np.max(evidence.middle, where=evidence.low > 0, initial=0.0)
    dirty = float(most_dirty) / evidence.pages_per_sample
    if profile.mode == "page-sampling" and 0 < dirty < FEW:
        yield Message("few_dirty_samples", {"dirty": dirty, "sampled": evidence.sampled})


def _ring(profile: Profile, evidence: Evidence, fit: Fit) -> Iterator[Message]:
    """Warn that a dirty ring counts a page again."""
    if profile.mode == "dirty-ring":
        yield Message("dirty_ring_recounts")
