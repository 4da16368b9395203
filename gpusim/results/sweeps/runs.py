"""Finds the runs under folders and reads the summary.json and config.json of each run.

A run is a folder with summary.json. An evacuation is one run, and so are several attempts. The
search does not enter the folders of an evacuation's guests and of earlier attempts. Everything that
the search cannot use becomes a `Skipped` with a code.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from gpusim.engine.records import Verdict
from gpusim.errors import one_line
from gpusim.reading import ReadingError, read_json
from gpusim.results.run_files import ATTEMPTS, CONFIG, SUMMARY
from gpusim.results.settings import flat_settings
from gpusim.results.summary_fields import NUMBER_KEYS
from gpusim.results.verdicts import outcome_code
from gpusim.text import Message

SWEEP = "sweep.json"
GUESTS = "guests"  # in an evacuation: one folder per VM
COLLECTED = {"runs.csv", "index.html"}  # files of gpusim-collect, which are no run

_BEGUN = {".hydra", "gpusim.log", CONFIG, "syncs.csv", "events.jsonl", "timeline.csv"}
_STATUSES = ("ok", "failed", "incomplete")
_VERDICTS = (*get_args(Verdict), None)


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run, finished or failed.

    Attributes:
        name: the folder of the run, relative to the folder of the search, with slashes.
        folder: the absolute folder.
        summary: the content of summary.json.
        config: the content of config.json as dotted key -> value, with lists as JSON. Empty if the
            file is missing.
    """

    name: str
    folder: Path
    summary: Mapping[str, Any]
    config: Mapping[str, Any]

    @property
    def outcome(self) -> str:
        """The verdict, or the status of a run without a verdict: failed or incomplete."""
        return outcome_code(self.summary["status"], self.summary.get("verdict"))

    @property
    def converged(self) -> bool:
        """Whether the total time is the time of a whole migration."""
        return self.outcome == "converged"

    def number(self, key: str) -> float | None:
        """Return a number of the summary, or None if the summary does not have it."""
        found = self.summary.get(key)
        return None if found is None or isinstance(found, str) else float(found)


@dataclass(frozen=True)
class Skipped:
    """A folder or file that the search could not use, and the reason."""

    name: str
    reason: Message


@dataclass(frozen=True, kw_only=True)
class FoundRuns:
    """The result of a search.

    Attributes:
        runs: in natural order of their names: seed=2 before seed=10.
        skipped: in the same order.
        sweeps: the content of each sweep.json.
    """

    runs: list[Run] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    sweeps: list[dict[str, Any]] = field(default_factory=list)

    def skip(self, name: str, code: str, **data: Any) -> None:
        """Note a folder or file that cannot be used."""
        self.skipped.append(Skipped(name, Message(code, data)))


def natural(name: str) -> list[tuple[int, str]]:
    """Return a sort key that treats digits as numbers."""
    parts = re.split(r"([0-9]+)", name)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts if part]


def find_runs(folders: Sequence[Path], out: Path | None = None) -> FoundRuns:
    """Find every run under `folders`, each once.

    The names of the runs are relative to the folder, or to the common parent of several folders.

    Args:
        folders: searched at any depth. Hidden folders and symbolic links are not entered.
        out: a folder that may hold other files without being reported.
    """
    roots = list(dict.fromkeys(folder.resolve() for folder in folders))
    out = out and out.resolve()
    base = roots[0] if len(roots) == 1 else Path(os.path.commonpath(roots))
    found = FoundRuns()
    empty: set[Path] = set()  # folders without any file of gpusim, at any depth
    seen: set[Path] = set()
    for root in roots:
        for folder, names, everything in _walk(root, base, found):
            if folder in seen:
                names.clear()
                continue
            seen.add(folder)
            if _read_folder(folder, everything, base, found) or folder in (root, out):
                empty.difference_update((folder, *folder.parents))
            else:
                empty.add(folder)
    runs = {run.folder for run in found.runs}
    for folder in empty:
        if folder.parent not in empty | runs:  # a run may have folders of its own
            found.skip(_name(folder, base), "no_run")
    found.runs.sort(key=lambda run: natural(run.name))
    found.skipped.sort(key=lambda one: natural(one.name))
    return found


def _walk(root: Path, base: Path, found: FoundRuns) -> Iterator[tuple[Path, list[str], set[str]]]:
    """Yield each folder from `root` down, its folders that will be entered, and all its names."""

    def skip_unreadable(error: OSError) -> None:
        found.skip(_name(Path(error.filename), base), "unreadable", error=str(error))

    for path, names, files in os.walk(root, onerror=skip_unreadable):
        folder = Path(path)
        everything = {*files, *names}
        inside_run = bool({SUMMARY, *_BEGUN} & everything)
        names[:] = sorted(
            name
            for name in names
            if not name.startswith(".") and not (inside_run and name in (GUESTS, ATTEMPTS))
        )
        for name in names:
            if (folder / name).is_symlink():
                found.skip(_name(folder / name, base), "link")
        yield folder, names, everything


def _read_folder(folder: Path, names: set[str], base: Path, found: FoundRuns) -> bool:
    """Note what `folder` holds. Return False if it holds no file of gpusim."""
    name = _name(folder, base)
    if SWEEP in names:
        sweep = _read_object(folder / SWEEP, found, f"{name}/{SWEEP}")
        found.sweeps.extend([sweep] if sweep else [])
    if SUMMARY in names:
        summary = _read_object(folder / SUMMARY, found, f"{name}/{SUMMARY}")
        error = None if summary is None else _summary_error(summary)
        if error:
            found.skipped.append(Skipped(f"{name}/{SUMMARY}", error))
        if summary is None or error:
            return True
        config: dict[str, Any] = {}
        if CONFIG in names:
            config = _read_object(folder / CONFIG, found, f"{name}/{CONFIG}") or {}
        run = Run(name=name, folder=folder, summary=summary, config=dict(flat_settings(config)))
        found.runs.append(run)
        return True
    if _BEGUN & names:
        found.skip(name, "unfinished")
        return True
    return SWEEP in names or names >= COLLECTED


def _summary_error(summary: Mapping[str, Any]) -> Message | None:
    """Return why a summary is foreign or damaged. None if it is neither."""
    status, verdict = summary.get("status"), summary.get("verdict")
    if status not in _STATUSES or verdict not in _VERDICTS:
        return Message("foreign_summary", {"status": status, "verdict": verdict})
    needed = ["total_time_s"] if status != "failed" else []
    for key in (*NUMBER_KEYS, *needed):
        value = summary.get(key)
        if value is None and key not in needed:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or not _is_finite(value):
            return Message("damaged_summary", {"key": key, "value": value})
    return None


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer with hundreds of digits
        return False


def _read_object(path: Path, found: FoundRuns, name: str) -> dict[str, Any] | None:
    try:
        content = read_json(path)
    except ReadingError as error:
        found.skip(name, "unreadable", error=error.reason)
        return None
    if not isinstance(content, dict):
        found.skip(name, "not_an_object")
        return None
    return content


def _name(folder: Path, base: Path) -> str:
    if folder == base:
        return one_line(folder.name or folder)
    return one_line(folder.relative_to(base).as_posix() if folder.is_relative_to(base) else folder)
