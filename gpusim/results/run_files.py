"""The files of a run: config.json, summary.json, syncs.csv, events.jsonl, the timeline, the pictures.

Owns their names, their order and their text. syncs.csv and events.jsonl depend on config and seed
alone, byte for byte. summary.json comes last: where it is, the run is whole.
"""

from __future__ import annotations

import json
import math
import shutil
import traceback
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np

from gpusim.config.run_hash import run_hash as hash_of
from gpusim.config.schema import Config
from gpusim.engine.records import Alternative, Event, Result, SyncRecord
from gpusim.errors import ResultsError
from gpusim.files import remove_leftovers, whole_file, write_text
from gpusim.results import timeline as grid
from gpusim.results.guestperf import write_guestperf
from gpusim.results.html.run_page import Introduction, write_report
from gpusim.results.plots.canvas import picture, require_matplotlib
from gpusim.results.plots.run import draw_run
from gpusim.results.settings import Settings, setting
from gpusim.results.trace import write_trace
from gpusim.version import __version__

CONFIG = "config.json"
SUMMARY = "summary.json"
SYNCS = "syncs.csv"
EVENTS = "events.jsonl"
TIMELINE_CSV = "timeline.csv"
TIMELINE_NPZ = "timeline.npz"
PLOT = "plot.png"
TRACE = "trace.json.gz"
GUESTPERF = "guestperf.json"
REPORT = "report.html"
PREDICTION = "prediction.json"  # of what the run is the middle one of
PREDICTION_PNG = "prediction.png"
EXPERIMENT = "experiment/fitted.yaml"
ATTEMPTS = "attempts"  # a folder each, of those before the last

_NUMBERS = (CONFIG, SYNCS, EVENTS, TIMELINE_CSV, TIMELINE_NPZ)
_PICTURES = (PLOT, TRACE, GUESTPERF, REPORT)
_PREDICTION = (PREDICTION, PREDICTION_PNG, EXPERIMENT)

# digits after the point: the engine counts in nanoseconds
_SYNC_DECIMALS = {"time_s": 9, "duration_ms": 6, "bandwidth_bytes_per_s": 3}


def begin_run(config: Config, folder: Path) -> None:
    """Leave nothing of an earlier run that could be taken for this one's, and say what this one is.

    Args:
        config: of the run; config.json holds it, with every key.
        folder: of the run; made if missing.

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
    """Write everything a run leaves, summary.json last.

    Args:
        result: the migration.
        folder: where to write; made if missing. What an earlier run left there is replaced.
        plot: write the pictures of the run too: plot.png, trace.json.gz, guestperf.json, report.html.
        config: what was simulated, for the pictures: dataclasses.asdict of a Config.
        alternatives: what would have made it converge, for report.html; None: nobody asked.
        run_hash: of the run, gpusim.run_hash.
        introduction: the first part of report.html.

    Raises:
        ResultsError: a plot is asked for and matplotlib is missing; nothing is written.
        OSError: a file cannot be written; summary.json is then not there.
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
    if plot:
        trigger_percent = setting(config, "migration.throttle_trigger_threshold")
        with picture(folder / PLOT) as figure:
            draw_run(figure, result, trigger_percent=trigger_percent)
        write_trace(result, columns, folder / TRACE)
        write_guestperf(result, config, folder / GUESTPERF)
        write_report(  # links to all of the others
            result, config, alternatives, folder, REPORT, introduction
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
    """The summary of a run that is done and need not be computed again; None if there is none.

    It has the same hash, was neither stopped nor failed, and all of its files are there and not
    empty, the pictures too where they are wanted; or those files that are `wanted`.
    """
    try:
        summary = read_summary(folder)
    except ResultsError:
        return None
    if (summary["status"], summary.get("run_hash")) != ("ok", run_hash):
        return None
    if wanted is None:
        wanted = _NUMBERS + (_PICTURES if plot else ())
    paths = [folder / name for name in wanted]
    return summary if all(path.is_file() and path.stat().st_size for path in paths) else None


def write_failure(error: BaseException, folder: Path, config: Config | None = None) -> None:
    """Write the summary.json of a run that raised `error`, and its config.json if that is known.

    What an earlier run left there is removed.

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
        "traceback": "".join(traceback.format_exception(error)),
        "gpusim_version": __version__,
    }
    write_summary(folder, summary)


def read_summary(folder: Path) -> dict[str, Any]:
    """What summary.json of `folder` says; `status` is always there, the rest if it is not failed.

    Raises:
        ResultsError: there is none, so the run did not finish, or it is not one of gpusim's.
    """
    path = folder / SUMMARY
    try:
        summary = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise ResultsError(f"{path}: not there, so this folder holds no finished run") from None
    except (OSError, ValueError) as error:
        raise ResultsError(f"{path}: cannot be read: {error}") from error
    if not isinstance(summary, dict) or "status" not in summary:
        raise ResultsError(f"{path}: not a summary of gpusim: it has no status")
    return summary


def _clear(folder: Path) -> None:
    for name in (SUMMARY, *_NUMBERS, *_PICTURES, *_PREDICTION):
        (folder / name).unlink(missing_ok=True)
    shutil.rmtree(folder / ATTEMPTS, ignore_errors=True)
    remove_leftovers(folder)


def _write_config(folder: Path, config: Config) -> None:
    write_text(folder / CONFIG, json.dumps(asdict(config), indent=2, default=str) + "\n")


def write_summary(folder: Path, summary: dict[str, Any]) -> None:
    """Write summary.json, which says that the folder is whole."""
    text = json.dumps(summary, indent=2, allow_nan=False, default=_plain, ensure_ascii=False)
    write_text(folder / SUMMARY, text + "\n")


def _syncs_csv(syncs: Iterable[SyncRecord]) -> str:
    names = [field.name for field in fields(SyncRecord)]
    rows = ([getattr(sync, name) for name in names] for sync in syncs)
    return _csv(names, rows, _SYNC_DECIMALS)


def _timeline_csv(columns: grid.Timeline) -> str:
    rows = zip(*(column.tolist() for column in columns.values()), strict=True)
    return _csv(list(columns), rows, grid.DECIMALS)


def _csv(
    names: Sequence[str], rows: Iterable[Sequence[object]], decimals: Mapping[str, int]
) -> str:
    formats = [f".{decimals[name]}f" if name in decimals else "" for name in names]
    lines = [",".join(names)]
    for row in rows:
        cells = zip(row, formats, strict=True)
        lines.append(",".join("" if cell is None else format(cell, spec) for cell, spec in cells))
    return "\n".join(lines) + "\n"


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
    """JSON knows no infinity: an argument without a bound ("unlimited") becomes null."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _plain(value: object) -> object:
    """The Python number behind one of numpy's."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} has no place in a result: {value!r}")
