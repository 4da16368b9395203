"""Migrations predicted from a profile alone, and then really made: `gpusim-validate profiles`.

A recording of `gpusim-record --measure` holds what calc-dirty-rate said of the VM before it migrated. The
prediction gets that profile and nothing else of the recording, but for the wire: a local socket.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpusim.files import can_be_written, write_text
from gpusim.formats.recording import Recording, RecordingError, find_recordings, load_recording
from gpusim.predict.ensemble import MEMBERS, predict
from gpusim.predict.host_config import host_config
from gpusim.predict.prediction import Band, Prediction
from gpusim.validation.report import error_percent
from gpusim.validation.shipped import SHIPPED

PROFILED = SHIPPED / "predict"  # under TCG
PROFILED_KVM = SHIPPED / "predict_kvm"
WIRE = ("link=unlimited",)  # what the person who migrates knows of the host


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A recording, and what its profile said of it."""

    recording: Recording
    prediction: Prediction

    @property
    def band(self) -> Band | None:
        """Of total times; None where it is predicted not to converge."""
        return self.prediction.band("total_time_s") if self.prediction.converges else None

    @property
    def right_verdict(self) -> bool:
        return self.prediction.converges == self.recording.completed

    @property
    def within(self) -> bool | None:
        """Whether the measured total time lies in the band; None where there is no such time."""
        if self.recording.total_time_s is None:
            return None
        band = self.band
        return band is not None and band.low <= self.recording.total_time_s <= band.high

    @property
    def error_percent(self) -> float | None:
        """Of the middle value; None where QEMU or the prediction did not converge."""
        band = self.band
        return None if band is None else error_percent(self.recording.total_time_s, band.middle)


def judged(paths: Sequence[Path], members: int = MEMBERS) -> list[Judged]:
    """Every recording of some files and folders with its prediction.

    Raises:
        RecordingError: a file that is none, or without a profile.
    """
    recordings = [load_recording(file) for path in paths for file in find_recordings(path)]
    found = []
    for recording in recordings:
        if recording.profile is None:
            raise RecordingError(
                recording.case, "has no profile; expected one of gpusim-record --measure"
            )
        host = host_config(recording.profile, WIRE)
        prediction = predict(recording.profile, host, members=members)
        found.append(Judged(recording=recording, prediction=prediction))
    return found


def cells(one: Judged) -> list[str]:
    """A row of the table."""
    band, real = one.band, one.recording.total_time_s
    error = one.error_percent
    throttles = one.prediction.band("max_throttle_percent")
    fit = one.prediction.fit
    return [
        one.recording.case,
        ", ".join(
            f"{w.kind} {w.pages / 256:.0f} MiB {w.page_writes_per_s:.0f}/s" for w in fit.writers
        )
        or "idle",
        "no" if real is None else f"{real:.1f}",
        "no" if band is None else f"{band.middle:.1f} ({band.low:.1f} to {band.high:.1f})",
        "-" if one.within is None else "yes" if one.within else "no",
        "-" if error is None else f"{error:+.1f} %",
        f"{100 * one.prediction.probability:.0f} %",
        "-" if throttles is None else f"{throttles.low:.0f} to {throttles.high:.0f}",
    ]


HEAD = (
    "recording",
    "fitted",
    "QEMU, s",
    "predicted, s: median (5 to 95 %)",
    "within",
    "error",
    "converge",
    "highest throttle, %",
)


def figures(found: Sequence[Judged]) -> dict[str, Any]:
    """What all of them amount to."""
    timed = [one for one in found if one.recording.completed]
    errors = [abs(one.error_percent) for one in timed if one.error_percent is not None]
    widths = [(b.high - b.low) / b.middle for one in timed if (b := one.band) is not None]
    return {
        "migrations": len(found),
        "verdict_right": sum(one.right_verdict for one in found),
        "completed": len(timed),
        "within_band": sum(bool(one.within) for one in timed),
        "median_abs_error_percent": statistics.median(errors) if errors else None,
        "largest_abs_error_percent": max(errors, default=None),
        "median_band_width_percent": 100 * statistics.median(widths) if widths else None,
    }


def summary(found: Sequence[Judged]) -> str:
    """The same in words."""
    got = figures(found)
    words = f"verdict right in {got['verdict_right']} of {got['migrations']}"
    if got["median_abs_error_percent"] is None:
        return words
    return (
        f"{words}; total time within the band in {got['within_band']} of {got['completed']}; median error "
        f"{got['median_abs_error_percent']:.1f} %, largest {got['largest_abs_error_percent']:.1f} %; the bands are "
        f"{got['median_band_width_percent']:.0f} % wide in the median"
    )


def by_accelerator(found: Iterable[Judged]) -> dict[str, list[Judged]]:
    """A guest under TCG shares its cores with the migration, one under KVM does not: each is judged by itself."""
    sets: dict[str, list[Judged]] = {}
    for one in found:
        sets.setdefault(one.recording.accelerator, []).append(one)
    return sets


def main(arguments: Sequence[str]) -> int:
    """Run `gpusim-validate profiles`; returns its exit code: 0, or 2 for bad input."""
    options = _parser().parse_args(arguments)
    if options.json is not None and not can_be_written(options.json):
        message = "cannot be written; expected a file in a folder that exists"
        print(f"error: {options.json}: {message}", file=sys.stderr)
        return 2
    try:
        found = judged(options.paths or [PROFILED, PROFILED_KVM])
    except RecordingError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    rows = [list(HEAD), *map(cells, found)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        )
    sets = by_accelerator(found)
    print()
    for accelerator, ones in sets.items():
        print(f"under {accelerator.upper()}: {summary(ones)}")
    if options.json is not None:
        document = {
            "rows": [dict(zip(HEAD, cells(one), strict=True)) for one in found],
            "summary": {accelerator: figures(ones) for accelerator, ones in sets.items()},
        }
        write_text(options.json, json.dumps(document, indent=1, allow_nan=False) + "\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gpusim-validate profiles",
        description="Predict recorded migrations from their profile alone; print both times.",
    )
    parser.add_argument(
        "paths",
        nargs="*",
        type=Path,
        metavar="PATH",
        help="recordings of gpusim-record --measure, or folders; default: the shipped ones",
    )
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write rows and summary to this file, too"
    )
    return parser
