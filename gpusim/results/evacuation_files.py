"""The files of an evacuation: summary.json, evacuation.csv, its pictures, and a run per guest."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from gpusim.config.run_hash import run_hash as hash_of
from gpusim.engine.records import EvacuatedGuest, Evacuation
from gpusim.files import csv_text, write_text
from gpusim.results.plots.canvas import narrow_path, require_matplotlib, save_pictures
from gpusim.results.plots.evacuation import draw_evacuation
from gpusim.results.run_files import (
    SUMMARY,
    begin_run,
    remove_folder,
    whole_run,
    write_run,
    write_summary,
)
from gpusim.results.summary_fields import GUEST_KEYS, GUEST_POSTCOPY_KEYS

GUESTS = "guests"
EVACUATION_CSV = "evacuation.csv"
EVACUATION_PNG = "evacuation.png"


def write_evacuation(
    evacuation: Evacuation, folder: Path, *, plot: bool = True, run_hash: str = ""
) -> None:
    """Write the files of an evacuation, summary.json last.

    Args:
        evacuation: the evacuation.
        folder: where to write. It is made if missing. Files of an earlier run are replaced.
        plot: draw evacuation.png and evacuation_narrow.png. The folders of the guests never hold pictures.
        run_hash: gpusim.run_hash of the run.

    Raises:
        ResultsError: `plot` is set and matplotlib is missing. Nothing is written.
        OSError: a file cannot be written. Then there is no summary.json.
    """
    if plot:
        require_matplotlib()
    folder.mkdir(parents=True, exist_ok=True)
    drawn = folder / EVACUATION_PNG
    for path in (folder / SUMMARY, folder / EVACUATION_CSV, drawn, narrow_path(drawn)):
        path.unlink(missing_ok=True)
    remove_folder(folder / GUESTS)
    for guest in evacuation.guests:
        own = folder / GUESTS / guest.name
        begin_run(guest.config, own)
        write_run(guest.result, own, plot=False, run_hash=hash_of(guest.config))
    write_text(folder / EVACUATION_CSV, _csv(evacuation.guests))
    if plot:
        save_pictures(drawn, partial(draw_evacuation, evacuation=evacuation))
    write_summary(folder, asdict(evacuation.summary) | {"run_hash": run_hash})


def whole_evacuation(folder: Path, run_hash: str, *, plot: bool) -> dict[str, Any] | None:
    """Return the summary of a complete evacuation, or None. See `whole_run`."""
    wanted = (EVACUATION_CSV, *([EVACUATION_PNG] if plot else []))
    return whole_run(folder, run_hash, plot=plot, wanted=wanted)


def _csv(guests: list[EvacuatedGuest]) -> str:
    """Return a row for each guest, in the order in which they started."""
    switched = any(guest.result.summary.postcopy_start_s is not None for guest in guests)
    keys = [*GUEST_KEYS, *(GUEST_POSTCOPY_KEYS if switched else ())]
    rows: list[list[object]] = [["name", "vm_bytes", "vcpus", "start_s", "end_s", *keys]]
    for guest in guests:
        summary = guest.result.summary
        own = [
            guest.name,
            summary.vm_bytes,
            guest.vcpus,
            f"{guest.start_s:.9f}",
            f"{guest.end_s:.9f}",
        ]
        rows.append([*own, *(getattr(summary, name) for name in keys)])
    return csv_text(rows)
