"""What is wrong with a profile's measurements, or not known from them: a line each, for users."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from gpusim.fit.estimates import Fit
from gpusim.fit.evidence import Evidence
from gpusim.formats.profile import Profile
from gpusim.units import format_bytes

FAR = 4.5  # standard deviations; one measurement in a hundred thousand is further off
UNSTEADY = 0.15  # of the guest's speed; half as much is nothing unusual under TCG on a busy host
LONGER = 1.5  # times; repeats of a period differ by some ms
STEADY = 0.05  # of the speed: more than that does not make a curve fall, which is there to be seen
GROWING = 0.5  # slope against a straight line's: so much of what is dirtied is still growing
FEW = 10  # dirty pages in a sample: a third of them is chance
NOISE = 2.0  # chi-square a measurement


def doubts(profile: Profile, seen: Evidence, fit: Fit) -> tuple[str, ...]:
    """Of a profile's best fit."""
    return tuple(
        line
        for of in (_noise, _speed, _fall, _growth, _samples, _ring)
        for line in of(profile, seen, fit)
    )


def _noise(profile: Profile, seen: Evidence, fit: Fit) -> Iterator[str]:
    """Measurements that no mixture of writers explains."""
    worst = int(np.argmax(np.abs(fit.residuals)))
    off = abs(fit.residuals[worst])
    if off < FAR and fit.chi_square < NOISE * len(fit.residuals):
        return
    expected = fit.distinct_pages(seen.seconds)[worst]
    percent = 100 * (seen.middle[worst] / max(expected, 1) - 1)
    yield (
        f"noisy: no mixture of writers gives these measurements (chi-square {fit.chi_square:.0f} "
        f"for {len(fit.residuals)}); that over {seen.seconds[worst]:g} s is furthest off, "
        f"by {percent:+.0f} % or {off:.1f} standard deviations; measure again"
    )


def _speed(profile: Profile, seen: Evidence, fit: Fit) -> Iterator[str]:
    """A guest that did not do the same all the time."""
    if fit.drift >= UNSTEADY and fit.writers:
        yield (
            f"the guest's speed differs by about {100 * fit.drift:.0f} % from measurement to measurement: "
            "it changed while it was measured; measure it while it does what it will do in the migration"
        )


def _fall(profile: Profile, seen: Evidence, fit: Fit) -> Iterator[str]:
    """Fewer distinct pages after more time, which cannot be."""
    drifted = min(fit.drift, STEADY) * seen.middle
    deviation = FAR / np.sqrt(2) * np.sqrt(seen.sampling_variance(seen.middle) + drifted**2)
    low, high = seen.low - deviation, seen.high + deviation
    after = seen.seconds > LONGER * seen.seconds[:, None]
    earlier, later = np.nonzero(after & (low[:, None] > high))
    if not len(earlier):
        return
    worst = int(np.argmax(low[earlier] - high[later]))
    one, other = earlier[worst], later[worst]
    megabytes = [_size(profile, seen.middle[place]) for place in (one, other)]
    yield (
        f"the curve falls: {megabytes[0]} dirty after {seen.seconds[one]:g} s, {megabytes[1]} after "
        f"{seen.seconds[other]:g} s; the guest changed while it was measured"
    )


def _growth(profile: Profile, seen: Evidence, fit: Fit) -> Iterator[str]:
    """Pages that the longest period was too short to see."""
    longest = float(seen.seconds.max())
    ends = fit.distinct_pages(np.array([0.9, 1.0]) * longest)
    if ends[1] <= 0 or (ends[1] - ends[0]) / (0.1 * ends[1]) < GROWING:
        return
    grown = _size(profile, (ends[1] - ends[0]) / (0.1 * longest))
    yield (
        f"what is dirty still grows by {grown} a second after {longest:g} s, the longest period: how far it "
        f"goes is not known, and anything up to {_size(profile, seen.most)}, all that is not zero, is reckoned "
        "with; longer periods tell more"
    )


def _samples(profile: Profile, seen: Evidence, fit: Fit) -> Iterator[str]:
    """A sample in which next to nothing was dirty."""
    found = float(np.max(seen.middle, where=seen.low > 0, initial=0.0)) / seen.least
    if profile.mode == "page-sampling" and 0 < found < FEW:
        yield (
            f"no more than {found:.0f} of {seen.sampled:.0f} sampled pages were dirty: too few to tell a rate "
            "from; sample more pages a GiB, up to 16384, or measure longer"
        )


def _ring(profile: Profile, seen: Evidence, fit: Fit) -> Iterator[str]:
    if profile.mode == "dirty-ring":
        yield (
            "dirty-ring counts a page again each time the ring is emptied, every second or sooner: what is "
            "written less than once a second is not told from what is written often; page-sampling tells more"
        )


def _size(profile: Profile, pages: float) -> str:
    return format_bytes(int(pages * profile.page_bytes))
