"""Finds the runs under folders and reads the summary.json and config.json of each run.

A run is a folder with summary.json. An evacuation is one run, and so are several attempts. The
search does not enter the folders of an evacuation's guests and of earlier attempts. Everything that
the search cannot use becomes a `Skipped` with a code.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gpusim.errors import one_line
from gpusim.reading import Limits, ReadingError, read_json
from gpusim.results.run_files import ATTEMPTS, CONFIG, SUMMARY
from gpusim.results.settings import flat_settings
from gpusim.results.summary_shape import find_damage, find_fault
from gpusim.results.sweeps.natural_order import natural
from gpusim.results.verdicts import COMPLETED, outcome_code
from gpusim.shapes import Keys, Text, Whole
from gpusim.text import Message
from gpusim.units import MIB

SWEEP = "sweep.json"
GUESTS = "guests"  # in an evacuation: one folder per VM
COLLECTED = {"runs.csv", "index.html"}  # files of gpusim-collect, which are no run

_BEGUN = {".hydra", "gpusim.log", CONFIG, "syncs.csv", "events.jsonl", "timeline.csv"}
SWEEP_SHAPE = Keys(
    optional={**dict.fromkeys(("question", "command", "x"), Text()), "planned_runs": Whole()}
)
LIMITS = Limits(bytes=16 * MIB, nodes=500_000)  # a config may hold a recorded bandwidth


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
        """The key of OUTCOMES: the verdict, the status of a run without one, or "postcopy"."""
        summary = self.summary
        return outcome_code(summary["status"], summary.get("verdict"), summary.get("reason_code"))

    @property
    def converged(self) -> bool:
        """Whether the total time is the time of a whole migration."""
        return self.outcome in COMPLETED

    def number(self, key: str) -> float | None:
        """Return a number of the summary, or None if the summary does not have it."""
        found = self.summary.get(key)
        return None if found is None else float(found)


@dataclass(frozen=True)
class Skipped:
    """A folder or file that the search could not use, and the reason."""

    name: str
    reason: Message

    @property
    def is_foreign(self) -> bool:
        """Return whether it never was a run, so that nothing is missing."""
        return self.reason.code in ("no_run", "link")


@dataclass(frozen=True, kw_only=True)
class FoundRuns:
    """The result of a search.

    Attributes:
        runs: in natural order of their names: seed=2 before seed=10.
        skipped: in the same order, first what may have been a run.
        sweeps: the content of each sweep.json.
    """

    runs: list[Run] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    sweeps: list[dict[str, Any]] = field(default_factory=list)

    def skip(self, name: str, code: str, **data: Any) -> None:
        """Note a folder or file that cannot be used."""
        self.skipped.append(Skipped(name, Message(code, data)))


def find_runs(folders: Sequence[Path], out: Path | None = None) -> FoundRuns:
    """Find every run under `folders`, each once.

    The names of the runs are relative to the folder, or to the common parent of several folders.

    Args:
        folders: searched at any depth. Hidden folders and symbolic links are not entered.
        out: a folder that may hold other files without being reported.
    """
    roots = list(dict.fromkeys(Path(os.path.realpath(folder)) for folder in folders))
    base = roots[0] if len(roots) == 1 else Path(os.path.commonpath(roots))
    found = FoundRuns()
    known = {
        *roots,
        *([Path(os.path.realpath(out))] if out else []),
    }  # folders that need no run of their own
    empty: set[Path] = set()  # folders without any file of gpusim, at any depth
    seen: set[Path] = set()
    for root in roots:
        for folder, names in _walk(root, base, found, seen):
            if _read_folder(folder, names, base, found) or folder in known:
                empty.difference_update((folder, *folder.parents))
            else:
                empty.add(folder)
    runs = {run.folder for run in found.runs}  # a run may have folders of its own
    for folder in empty:
        if folder.parent not in empty and folder.parent not in runs:
            found.skip(_name(folder, base), "no_run")
    found.runs.sort(key=lambda run: natural(run.name))
    found.skipped.sort(key=lambda one: (one.is_foreign, natural(one.name)))
    return found


def _walk(
    root: Path, base: Path, found: FoundRuns, seen: set[Path]
) -> Iterator[tuple[Path, set[str]]]:
    """Yield each folder from `root` down that was not seen before, and all names in it."""
    waiting = [root]
    while waiting:
        folder = waiting.pop()
        if folder in seen:
            continue
        seen.add(folder)
        try:
            with os.scandir(folder) as entries:
                kinds = {entry.name: _kind(entry) for entry in entries}
        except OSError as error:
            found.skip(_name(folder, base), "unreadable", error=error.strerror)
            continue
        inside_run = not {SUMMARY, *_BEGUN}.isdisjoint(kinds)
        below = sorted(name for name in kinds if kinds[name] and not name.startswith("."))
        if inside_run:
            below = [name for name in below if name not in (GUESTS, ATTEMPTS)]
        for name in below:
            if kinds[name] == "link":
                found.skip(_name(folder / name, base), "link")
        yield folder, set(kinds)
        waiting += [folder / name for name in reversed(below) if kinds[name] == "folder"]


def _kind(entry: os.DirEntry[str]) -> str:
    """Return "folder", "link" for a link to a folder, or "" for all else."""
    try:
        if entry.is_dir(follow_symlinks=False):
            return "folder"
        return "link" if entry.is_symlink() and entry.is_dir() else ""
    except OSError:  # it went away, or it must not be looked at
        return ""


def _read_folder(folder: Path, names: set[str], base: Path, found: FoundRuns) -> bool:
    """Note what `folder` holds. Return False if it holds no file of gpusim."""
    name = _name(folder, base)
    if SWEEP in names:
        sweep = _read(
            folder / SWEEP, found, f"{name}/{SWEEP}", lambda sweep: find_damage(sweep, SWEEP_SHAPE)
        )
        found.sweeps.extend([sweep] if sweep else [])
    if SUMMARY in names:
        summary = _read(folder / SUMMARY, found, f"{name}/{SUMMARY}", find_fault)
        if summary is None:
            return True
        config: dict[str, Any] = {}
        if CONFIG in names:
            config = _read(folder / CONFIG, found, f"{name}/{CONFIG}", lambda _: None) or {}
        run = Run(name=name, folder=folder, summary=summary, config=dict(flat_settings(config)))
        found.runs.append(run)
        return True
    if not _BEGUN.isdisjoint(names):
        found.skip(name, "unfinished")
        return True
    return SWEEP in names or names >= COLLECTED


def _read(
    path: Path, found: FoundRuns, name: str, fault_of: Callable[[dict[str, Any]], Message | None]
) -> dict[str, Any] | None:
    """Return the object in a JSON file. Note why it cannot be used, and return None."""
    try:
        content = read_json(path, LIMITS)
    except ReadingError as error:
        found.skip(name, "unreadable", error=error.reason)
        return None
    if not isinstance(content, dict):
        found.skip(name, "not_an_object")
        return None
    if fault := fault_of(content):
        found.skipped.append(Skipped(name, fault))
        return None
    return content


def _name(folder: Path, base: Path) -> str:
    if folder == base:
        return one_line(folder.name or folder)
    return one_line(folder.relative_to(base).as_posix() if folder.is_relative_to(base) else folder)
