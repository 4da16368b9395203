"""Predictions from a profile alone, compared with the recorded migrations that followed.

A recording of `gpusim-record --measure` holds the answers of calc-dirty-rate from before its
migration. The prediction gets this profile and knows the link, a local socket. It gets nothing else
of the recording.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpusim.errors import ConfigError
from gpusim.formats.errors import ProfileError
from gpusim.formats.recording import Recording
from gpusim.predict.bands import Band
from gpusim.predict.ensemble import MEMBERS, predict
from gpusim.predict.host_config import host_config
from gpusim.predict.prediction import Prediction
from gpusim.validation.accuracy import error_percent
from gpusim.validation.errors import ValidationError
from gpusim.validation.shipped import SHIPPED, NotUsed, load_each, used

PROFILED = SHIPPED / "predict"  # recorded under TCG
PROFILED_KVM = SHIPPED / "predict_kvm"
LINK = ("link=unlimited",)  # the person who migrates knows the link


@dataclass(frozen=True, kw_only=True)
class ProfiledCase:
    """A recording, and the prediction from its profile."""

    recording: Recording
    prediction: Prediction

    @property
    def band(self) -> Band | None:
        """Return the band of total times, or None if the prediction does not converge."""
        return self.prediction.band("total_time_s") if self.prediction.converges else None

    @property
    def is_right(self) -> bool:
        """Return whether QEMU and the prediction agree about convergence."""
        return self.prediction.converges == self.recording.completed

    @property
    def is_within(self) -> bool | None:
        """Return whether the measured total time lies in the band, or None without such a time."""
        if self.recording.total_time_s is None:
            return None
        band = self.band
        return band is not None and band.holds(self.recording.total_time_s)

    @property
    def error_percent(self) -> float | None:
        """Return the error of the median, or None if QEMU or the prediction did not converge."""
        band = self.band
        return None if band is None else error_percent(self.recording.total_time_s, band.middle)


def predict_recordings(paths: Sequence[Path], members: int = MEMBERS) -> list[ProfiledCase]:
    """Predict every recording of some files and folders from its profile.

    Raises:
        RecordingError: a path that holds no recording.
        ProfileError: a damaged profile.
        ValidationError: a recording without a profile.
        ConfigError: a profile that cannot be simulated.
    """
    return [used(found) for found in predict_each(paths, members)]


def predict_each(paths: Sequence[Path], members: int = MEMBERS) -> Iterator[ProfiledCase | NotUsed]:
    """Yield the prediction of each recording from its profile, or why it is not used."""
    for recording in load_each(paths):
        if isinstance(recording, NotUsed):
            yield recording
            continue
        try:
            if recording.profile is None:
                raise ValidationError("no_profile", case=recording.case)
            host = host_config(recording.profile, LINK)
            prediction = predict(recording.profile, host, members=members)
        except (ProfileError, ValidationError, ConfigError) as error:
            yield NotUsed(name=recording.case, error=error)
        else:
            yield ProfiledCase(recording=recording, prediction=prediction)


def profile_figures(cases: Sequence[ProfiledCase]) -> dict[str, Any]:
    """Return the figures over all cases, under the keys of --json."""
    timed = [case for case in cases if case.recording.completed]
    errors = [abs(case.error_percent) for case in timed if case.error_percent is not None]
    widths = [b.relative_width for case in timed if (b := case.band) is not None]
    return {
        "migrations": len(cases),
        "verdict_right": sum(case.is_right for case in cases),
        "completed": len(timed),
        "within_band": sum(bool(case.is_within) for case in timed),
        "median_abs_error_percent": statistics.median(errors) if errors else None,
        "largest_abs_error_percent": max(errors, default=None),
        "median_band_width_percent": 100 * statistics.median(widths) if widths else None,
    }


def group_by_accelerator(cases: Iterable[ProfiledCase]) -> dict[str, list[ProfiledCase]]:
    """Return the cases by accelerator.

    Under TCG, unlike KVM, the guest and QEMU share their cores.
    """
    groups: dict[str, list[ProfiledCase]] = {}
    for case in cases:
        groups.setdefault(case.recording.accelerator, []).append(case)
    return groups
