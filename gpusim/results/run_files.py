"""The files of a run: their names, their order and their text.

syncs.csv and events.jsonl depend only on config and seed, byte for byte. summary.json is written
last, so a folder with summary.json holds a complete run.
"""

from __future__ import annotations

import json
import math
import shutil
import traceback
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from gpusim.config.run_hash import run_hash as hash_of
from gpusim.config.schema import Config
from gpusim.engine.records import Alternative, Event, PostcopySample, Result, SyncRecord
from gpusim.errors import ConfigError
from gpusim.files import csv_text, remove_leftovers, whole_file, write_text
from gpusim.reading import ReadingError, read_json
from gpusim.results import timeline as grid
from gpusim.results.errors import RunsError
from gpusim.results.guestperf import write_guestperf
from gpusim.results.html.run_page import Introduction, write_report
from gpusim.results.plots.canvas import narrow_png, picture, require_matplotlib
from gpusim.results.plots.run import draw_run
from gpusim.results.settings import Settings, setting
from gpusim.results.summary_shape import find_fault
from gpusim.results.trace import write_trace
from gpusim.version import __version__

CONFIG = "config.json"
SUMMARY = "summary.json"
SYNCS = "syncs.csv"
EVENTS = "events.jsonl"
TIMELINE_CSV = "timeline.csv"
TIMELINE_NPZ = "timeline.npz"
POSTCOPY = "postcopy.csv"
LATENCY = "postcopy-latency.csv"
PLOT = "plot.png"
TRACE = "trace.json.gz"
GUESTPERF = "guestperf.json"
REPORT = "report.html"
PREDICTION = "prediction.json"  # The run is its median member.
PREDICTION_PNG = "prediction.png"
EXPERIMENT = "experiment/fitted.yaml"
ATTEMPTS = "attempts"  # a folder for each attempt before the last

_NUMBERS = (CONFIG, SYNCS, EVENTS, TIMELINE_CSV, TIMELINE_NPZ)
_POSTCOPY = (POSTCOPY, LATENCY)  # only of a run that switched
_PICTURES = (PLOT, TRACE, GUESTPERF, REPORT)
_PREDICTION = (PREDICTION, PREDICTION_PNG, EXPERIMENT)

# Digits after the point. The engine counts in nanoseconds.
_SYNC_DECIMALS = {"time_s": 9, "duration_ms": 6, "bandwidth_bytes_per_s": 3}
_POSTCOPY_DECIMALS = {"time_s": 9, "latency_ms": 6, "guest_speed_percent": 3}


def begin_run(config: Config, folder: Path) -> None:
    """Remove the files of an earlier run and write config.json.

    Args:
        config: the config of the run. config.json holds every key.
        folder: the folder of the run. It is made if missing.

    Raises:
        OSError: a file cannot be written or removed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _clear(folder)
    _write_config(folder, config)


def write_run(
    result: Result,
    folder: Path,
    *,
    plot: bool = True,
    config: Settings | None = None,
    alternatives: Sequence[Alternative] | None = None,
    run_hash: str = "",
    introduction: Introduction | None = None,
) -> None:
    """Write the files of a run, summary.json last.

    Args:
        result: the migration.
        folder: where to write. It is made if missing. Files of an earlier run are replaced.
        plot: also write plot.png, trace.json.gz, guestperf.json and report.html.
        config: what was simulated, for the pictures: dataclasses.asdict of a Config.
        alternatives: changes that might make the migration converge, for report.html. None: gpusim
            did not search for changes.
        run_hash: gpusim.run_hash of the run.
        introduction: the first part of report.html.

    Raises:
        ResultsError: `plot` is set and matplotlib is missing. Nothing is written.
        OSError: a file cannot be written. Then there is no summary.json.
    """
    if plot:
        require_matplotlib()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / SUMMARY).unlink(missing_ok=True)
    columns = grid.timeline(result)
    write_text(folder / SYNCS, _syncs_csv(result.syncs))
    write_text(folder / EVENTS, _events_jsonl(result.events))
    write_text(folder / TIMELINE_CSV, _timeline_csv(columns))
    with whole_file(folder / TIMELINE_NPZ) as file:
        np.savez_compressed(file, allow_pickle=False, **columns)
    for name in _POSTCOPY:
        (folder / name).unlink(missing_ok=True)
    if result.summary.postcopy_start_s is not None:
        write_text(folder / POSTCOPY, _postcopy_csv(result.postcopy))
        write_text(folder / LATENCY, _latency_csv(result.postcopy_latency_counts))
    if plot:
        trigger_percent = setting(config, "migration.throttle_trigger_threshold")
        with picture(folder / PLOT) as figure:
            draw_run(figure, result, trigger_percent=trigger_percent)
        narrow = narrow_png(partial(draw_run, result=result, trigger_percent=trigger_percent))
        write_trace(result, columns, folder / TRACE)
        write_guestperf(result, config, folder / GUESTPERF)
        write_report(  # links to all of the others
            result, config, alternatives, folder, REPORT, introduction, narrow
        )
    for number, attempt in enumerate(result.before, start=1):
        own = folder / ATTEMPTS / str(number)
        begin_run(attempt.config, own)
        settings = asdict(attempt.config)
        write_run(attempt.result, own, plot=plot, config=settings, run_hash=hash_of(attempt.config))
    write_summary(folder, asdict(result.summary) | {"run_hash": run_hash})


def whole_run(
    folder: Path, run_hash: str, *, plot: bool, wanted: Sequence[str] | None = None
) -> dict[str, Any] | None:
    """Return the summary of a complete run, which need not be computed again, or None.

    The run must have ended with status ok and the same hash, and no file may be missing or empty.

    Args:
        folder: of the run.
        run_hash: gpusim.run_hash of the run.
        plot: whether the pictures must exist.
        wanted: file names that must exist, in place of the files of a run.
    """
    try:
        summary = read_summary(folder)
    except RunsError:
        return None
    if (summary["status"], summary.get("run_hash")) != ("ok", run_hash):
        return None
    if wanted is None:
        switched = summary.get("postcopy_start_s") is not None
        wanted = (*_NUMBERS, *(_POSTCOPY if switched else ()), *(_PICTURES if plot else ()))
    paths = [folder / name for name in wanted]
    return summary if all(path.is_file() and path.stat().st_size for path in paths) else None


def write_failure(error: BaseException, folder: Path, config: Config | None = None) -> None:
    """Write summary.json of a run that raised `error`, and config.json if the config is known.

    Files of an earlier run are removed.

    Raises:
        OSError: a file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _clear(folder)
    if config is not None:
        _write_config(folder, config)
    message = " ".join(str(error).split())
    name = type(error).__name__
    summary = {
        "status": "failed",
        "error": f"{name}: {message}" if message else name,
        "error_code": error.code if isinstance(error, ConfigError) else None,
        "traceback": "".join(traceback.format_exception(error)),
        "gpusim_version": __version__,
    }
    write_summary(folder, summary)


def read_summary(folder: Path) -> dict[str, Any]:
    """Return the content of summary.json. `status` always exists, and a failed run has little else.

    Known keys have the type of their field in the registry, or are null or missing.

    Raises:
        RunsError: there is no summary.json, so the run did not finish, or gpusim did not write it, or
            it is damaged.
    """
    path = folder / SUMMARY
    try:
        summary = read_json(path)
    except ReadingError as error:
        if error.code == "no_such_file":
            raise RunsError("summary_not_found", path=path) from None
        raise RunsError("summary_not_readable", path=path, reason=error.reason) from None
    if fault := find_fault(summary):
        raise RunsError(fault.code, path=path, **fault.data)
    assert isinstance(summary, dict)
    return summary


def _clear(folder: Path) -> None:
    for name in (SUMMARY, *_NUMBERS, *_POSTCOPY, *_PICTURES, *_PREDICTION):
        (folder / name).unlink(missing_ok=True)
    remove_folder(folder / ATTEMPTS)
    remove_leftovers(folder)


def remove_folder(folder: Path) -> None:
    """Remove a folder of an earlier run with all that it holds, or whatever else has its name."""
    if folder.is_dir() and not folder.is_symlink():
        shutil.rmtree(folder, ignore_errors=True)
    else:
        folder.unlink(missing_ok=True)  # rmtree would wait for the writer of a pipe


def _write_config(folder: Path, config: Config) -> None:
    write_text(folder / CONFIG, json.dumps(asdict(config), indent=2, default=str) + "\n")


def write_summary(folder: Path, summary: dict[str, Any]) -> None:
    """Write summary.json, which marks the folder as complete."""
    text = json.dumps(summary, indent=2, allow_nan=False, default=_plain, ensure_ascii=False)
    write_text(folder / SUMMARY, text + "\n")


def _syncs_csv(syncs: Iterable[SyncRecord]) -> str:
    names = [field.name for field in fields(SyncRecord)]
    rows = ([getattr(sync, name) for name in names] for sync in syncs)
    return _csv(names, rows, _SYNC_DECIMALS)


def _postcopy_csv(steps: Iterable[PostcopySample]) -> str:
    names = [field.name for field in fields(PostcopySample)]
    rows = ([getattr(step, name) for name in names] for step in steps)
    return _csv(names, rows, _POSTCOPY_DECIMALS)


def _latency_csv(counts: Sequence[int]) -> str:
    """Return a row for each bucket of QEMU's postcopy-latency-dist. The last bucket has no end."""
    ends_us: list[int | None] = [2 ** (bucket + 1) for bucket in range(len(counts) - 1)]
    since_us = [0, *ends_us]
    rows = zip(since_us, [*ends_us, None], counts, strict=True) if counts else ()
    return _csv(["from_us", "to_us", "requests"], rows, {})


def _timeline_csv(columns: grid.Timeline) -> str:
    rows = zip(*(column.tolist() for column in columns.values()), strict=True)
    return _csv(list(columns), rows, grid.DECIMALS)


def _csv(
    names: Sequence[str], rows: Iterable[Sequence[object]], decimals: Mapping[str, int]
) -> str:
    formats = [f".{decimals[name]}f" if name in decimals else "" for name in names]
    cells = (
        [
            "" if cell is None else format(cell, spec)
            for cell, spec in zip(row, formats, strict=True)
        ]
        for row in rows
    )
    return csv_text([names, *cells])


def _events_jsonl(events: Iterable[Event]) -> str:
    return "".join(_event_line(event) for event in events)


def _event_line(event: Event) -> str:
    line = {
        "time_s": round(event.time_s, 9),
        "event": event.event,
        "arguments": {name: _finite(value) for name, value in event.arguments.items()},
    }
    return json.dumps(line, separators=(",", ":"), allow_nan=False, default=_plain) + "\n"


def _finite(value: Any) -> Any:
    """Return None for infinity, which JSON cannot hold: "unlimited" becomes null."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _plain(value: object) -> object:
    """Return the Python number of a numpy number."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"a result cannot hold a {type(value).__name__}: {value!r}")
