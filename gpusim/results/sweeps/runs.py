"""Which runs lie under a folder: what each has in summary.json and config.json, and nothing more.

Owns the search and what is passed over, with the reason; it knows no quantity and draws nothing. A
run is a folder with summary.json. An evacuation is one run, and so are several attempts: those of its
guests, or the attempts before the last, are not looked for.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, get_args

from gpusim.engine.records import Summary, Verdict
from gpusim.errors import ResultsError
from gpusim.results.run_files import ATTEMPTS, CONFIG, SUMMARY, read_summary

SWEEP = "sweep.json"
GUESTS = "guests"  # of an evacuation: a folder a VM
COLLECTED = {"runs.csv", "index.html"}  # what `gpusim-collect` leaves: no run, and no surprise

_BEGUN = {".hydra", "gpusim.log", CONFIG, "syncs.csv", "events.jsonl", "timeline.csv"}
_STATUSES = ("ok", "failed", "incomplete")
_VERDICTS = (*get_args(Verdict), None)
# float, int | None and so on: the text of a type, as records.py postpones its evaluation
_NUMBER = re.compile(r"(int|float)( \| None)?")
NUMBERS = tuple(
    f.name for f in fields(Summary) if _NUMBER.fullmatch(str(f.type)) and f.name != "seed"
)


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run, finished or failed.

    Attributes:
        name: its folder, relative to the one that was searched, with slashes.
        folder: absolute.
        summary: of summary.json.
        config: of config.json, dotted key -> value, lists as JSON; empty without that file.
    """

    name: str
    folder: Path
    summary: Mapping[str, Any]
    config: Mapping[str, Any]

    @property
    def outcome(self) -> str:
        """The verdict, or why there is none: failed, incomplete."""
        return str(self.summary.get("verdict") or self.summary["status"])

    @property
    def converged(self) -> bool:
        """Whether its total time is that of a whole migration."""
        return self.outcome == "converged"

    def number(self, key: str) -> float | None:
        """A number of the summary; None where it has none."""
        found = self.summary.get(key)
        return None if found is None or isinstance(found, str) else float(found)


@dataclass(frozen=True, kw_only=True)
class Found:
    """Everything a search came upon.

    Attributes:
        runs: in natural order of their names: seed=2 before seed=10.
        passed_over: (folder or file, why), in the same order.
        sweeps: the content of each sweep.json.
    """

    runs: list[Run] = field(default_factory=list)
    passed_over: list[tuple[str, str]] = field(default_factory=list)
    sweeps: list[dict[str, Any]] = field(default_factory=list)


def natural(name: str) -> list[tuple[int, str]]:
    """A key to sort by: digits count as numbers."""
    parts = re.split(r"([0-9]+)", name)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts if part]


def find_runs(folders: Sequence[Path], out: Path | None = None) -> Found:
    """Every run under `folders`, each once.

    Args:
        folders: where to search, at any depth; hidden folders and links are not entered.
        out: a folder that is known to hold other things.

    Returns:
        Names are relative to the folder, or to what several folders have in common.
    """
    roots = list(dict.fromkeys(folder.resolve() for folder in folders))
    out = out and out.resolve()
    base = roots[0] if len(roots) == 1 else Path(os.path.commonpath(roots))
    found = Found()
    barren: set[Path] = set()  # folders in and under which there is nothing of gpusim's
    seen: set[Path] = set()
    for root in roots:
        for folder, names, everything in _walk(root, base, found):
            if folder in seen:
                names.clear()
                continue
            seen.add(folder)
            if _looks_at(folder, everything, base, found) or folder in (root, out):
                barren.difference_update((folder, *folder.parents))
            else:
                barren.add(folder)
    runs = {run.folder for run in found.runs}
    for folder in barren:
        if folder.parent not in barren | runs:  # what else lies in a run's folder is its own
            found.passed_over.append((_name(folder, base), "holds no run of gpusim"))
    found.runs.sort(key=lambda run: natural(run.name))
    found.passed_over.sort(key=lambda line: natural(line[0]))
    return found


def _walk(root: Path, base: Path, found: Found) -> Iterator[tuple[Path, list[str], set[str]]]:
    """Every folder from `root` down, the folders in it that will be entered, and all names in it."""

    def refused(error: OSError) -> None:
        found.passed_over.append((_name(Path(error.filename), base), f"cannot be read: {error}"))

    for path, names, files in os.walk(root, onerror=refused):
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
                reason = "a link to another folder, which is not followed"
                found.passed_over.append((_name(folder / name, base), reason))
        yield folder, names, everything


def _looks_at(folder: Path, names: set[str], base: Path, found: Found) -> bool:
    """Note what `folder`, in which `names` lie, itself is; false where it is nothing of gpusim's."""
    name = _name(folder, base)
    if SWEEP in names:
        sweep = _read_object(folder / SWEEP, found, f"{name}/{SWEEP}")
        found.sweeps.extend([sweep] if sweep else [])
    if SUMMARY in names:
        try:
            summary = _checked(folder)
        except ResultsError as error:
            found.passed_over.append((name, str(error)))
            return True
        config: dict[str, Any] = {}
        if CONFIG in names:
            config = _read_object(folder / CONFIG, found, f"{name}/{CONFIG}") or {}
        run = Run(name=name, folder=folder, summary=summary, config=dict(_flat(config)))
        found.runs.append(run)
        return True
    if _BEGUN & names:
        found.passed_over.append((name, "unfinished: there is no summary.json yet"))
        return True
    return SWEEP in names or names >= COLLECTED


def _checked(folder: Path) -> dict[str, Any]:
    """A summary with which everything that follows can count.

    Raises:
        ResultsError: it is foreign or damaged; without the folder, which the reader is told anyway.
    """
    try:
        summary = read_summary(folder)
    except ResultsError as error:
        raise ResultsError(str(error).replace(f"{folder}{os.sep}", "")) from None
    if summary["status"] not in _STATUSES or summary.get("verdict") not in _VERDICTS:
        said = f"status {summary['status']!r}, verdict {summary.get('verdict')!r}"
        raise ResultsError(f"{SUMMARY}: not a summary of gpusim: {said}")
    needed = ["total_time_s"] if summary["status"] != "failed" else []
    for key in (*NUMBERS, *needed):
        value = summary.get(key)
        if value is None and key not in needed:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or not _finite(value):
            raise ResultsError(f"{SUMMARY}: damaged: {key} = {value!r} is no number")
    return summary


def _finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer of hundreds of digits
        return False


def _read_object(path: Path, found: Found, name: str) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_bytes())
        if isinstance(content, dict):
            return content
        reason = "is no object of keys and values"
    except (OSError, ValueError, RecursionError) as error:
        reason = f"cannot be read: {error}"
    found.passed_over.append((name, f"{reason}; what it says is left out"))
    return None


def _flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        if isinstance(value, dict) and value.keys() == {"target", "args"}:  # a policy is its class
            yield f"{prefix}{key}", value["target"]
            yield from _flat(value["args"], f"{prefix}{key}.args.")
        elif isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            plain = not isinstance(value, dict | list)
            yield f"{prefix}{key}", value if plain else json.dumps(value, ensure_ascii=False)


def _name(folder: Path, base: Path) -> str:
    if folder == base:
        return folder.name or str(folder)
    return folder.relative_to(base).as_posix() if folder.is_relative_to(base) else str(folder)
