"""Several runs in one picture: what is left to send, the throttle, and what the guest paid.

Owns the picture alone and reads only what write_run left: summary.json and timeline.npz. A run
without an outcome to show is not drawn, and the picture says so.
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np

from gpusim.errors import ResultsError
from gpusim.results.plots import style
from gpusim.results.plots.run import headline, panels, picture
from gpusim.results.run_files import TIMELINE_NPZ, read_summary
from gpusim.results.timeline import FloatArray, Timeline
from gpusim.results.verdicts import describe_outcome
from gpusim.text import decider_name, format_duration, format_number, size_unit, time_unit
from gpusim.units import format_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_FACTS = 4
MAX_TITLE = 66  # characters of names; more would leave the picture


@dataclass(frozen=True, kw_only=True)
class _Run:
    name: str
    summary: dict[str, Any]
    columns: Timeline


def draw(folders: list[Path], path: Path) -> None:
    """Draw the runs of `folders` over one time axis into `path`, a PNG of 1200 x 900 pixels.

    Raises:
        ResultsError: matplotlib is missing, or none of the folders holds a run to draw.
        OSError: the picture cannot be written.
    """
    runs, skipped = _read(folders)
    if not runs:
        raise ResultsError("no run to draw: " + ("; ".join(skipped) or "no folder given"))
    path.parent.mkdir(parents=True, exist_ok=True)
    with picture(path) as figure:
        longest_s = max(1e-3, *(run.summary["total_time_s"] for run in runs))
        unit, unit_s = time_unit(longest_s)
        facts = _facts(runs, skipped)
        axes = panels(figure, (2.8, 2.0, 2.2), len(facts) + len(runs))
        _draw_runs(axes, runs, unit_s)
        axes[-1].set_xlabel(f"Time since the migrate command ({unit})")
        axes[-1].set_xlim(0, longest_s / unit_s)
        headline(figure, _title(runs), facts)
        handles, labels = axes[-1].get_legend_handles_labels()
        top = 0.938 - style.ROW * len(facts)
        figure.legend(
            handles, labels, loc="upper left", bbox_to_anchor=(0.012, top), labelspacing=0.35
        )


def _read(folders: list[Path]) -> tuple[list[_Run], list[str]]:
    """The runs that can be drawn, and a line for each that cannot."""
    found: list[tuple[Path, dict[str, Any], Timeline]] = []
    skipped = []
    for folder in folders:
        try:
            summary = read_summary(folder)
            if summary["status"] == "failed":
                raise ResultsError(summary.get("error", "no reason given"))
            with (folder / TIMELINE_NPZ).open("rb") as file:  # numpy leaves a torn one open
                found.append((folder, summary, dict(np.load(file, allow_pickle=False))))
        except FileNotFoundError:  # of an evacuation only its guests have one
            skipped.append(f"{folder.name}: there is no {TIMELINE_NPZ}")
        except (ResultsError, OSError, ValueError, BadZipFile) as error:
            skipped.append(f"{folder.name}: {error}")
    versions = [
        decider_name(str(summary["qemu_version"]), str(summary.get("policies", "")))
        for _, summary, _ in found
    ]
    folders = [folder for folder, _, _ in found]
    candidates = (
        versions,
        _telling([folder.name for folder in folders]),
        [folder.name for folder in folders],
        [f"{folder.parent.name}/{folder.name}" for folder in folders],  # the same run of two sweeps
    )
    names = next((names for names in candidates if len({*names}) == len(names)), candidates[-1])
    runs = [
        _Run(name=name, summary=summary, columns=columns)
        for name, (_, summary, columns) in zip(names, found, strict=True)
    ]
    return runs, skipped


def _telling(names: list[str]) -> list[str]:
    """The names of a sweep's runs, "memory=1TiB,seed=3", without the parts that all of them have."""
    parts = [name.split(",") for name in names]
    shared = set(parts[0]).intersection(*parts) if parts else set()
    return [",".join(part for part in own if part not in shared) or "," for own in parts]


def _title(runs: list[_Run]) -> str:
    sizes = " and ".join(dict.fromkeys(format_bytes(run.summary["vm_bytes"]) for run in runs))
    names = " against ".join(run.name for run in runs)
    if len(runs) > 2 or len(names) > MAX_TITLE:
        names = f"{len(runs)} runs"
    return f"{names}  \u00b7  {sizes} VM"


def _facts(runs: list[_Run], skipped: list[str]) -> list[str]:
    facts = [_difference(*runs)] if len(runs) == 2 else []
    facts += [textwrap.shorten(f"not drawn: {line}", 140, placeholder=" ...") for line in skipped]
    return [fact for fact in facts if fact][:MAX_FACTS]


def _difference(one: _Run, other: _Run) -> str:
    """What the reader came for, in a sentence, if both runs have an end to compare."""
    if not one.summary["verdict"] == other.summary["verdict"] == "converged":
        return ""
    first, last = sorted((one, other), key=lambda run: float(run.summary["total_time_s"]))
    sooner_s = last.summary["total_time_s"] - first.summary["total_time_s"]
    more_s = first.summary["guest_cpu_lost_s"] - last.summary["guest_cpu_lost_s"]
    if sooner_s == 0:
        return "Both runs end at the same time."
    cost = f"{format_duration(abs(more_s))} {'more' if more_s > 0 else 'less'} vCPU time"
    told = f"{first.name} ends {format_duration(sooner_s)} sooner and takes {cost} from the guest"
    pauses = [run for run in (one, other) if run.summary.get("paused_s")]
    for run in pauses:
        told += f"; {run.name} was paused for {format_duration(run.summary['paused_s'])} besides"
    return f"{told}."


def _label(run: _Run) -> str:
    summary = run.summary
    ended = describe_outcome(summary["status"], summary["verdict"], summary["total_time_s"])
    lost = format_duration(summary["guest_cpu_lost_s"])
    return (
        f"{run.name}: {ended}, guest CPU lost "
        f"{format_number(summary['guest_cpu_lost_percent'])} % ({lost} of vCPU time), "
        f"throttle up to {summary['max_throttle_percent']} %"
    )


def _draw_runs(axes: list[Axes], runs: list[_Run], unit_s: float) -> None:
    throttle = axes[1]
    largest = max(int(run.columns["remaining_bytes"].max()) for run in runs)
    unit, unit_bytes = size_unit(largest)
    held_s = [_held_s(run) for run in runs]
    held_unit, held_unit_s = time_unit(max(float(column.max()) for column in held_s))
    for index, run in enumerate(runs):
        look: dict[str, Any] = {
            "color": style.RUN_COLOURS[index % len(style.RUN_COLOURS)],
            "ls": style.RUN_LINES[index // len(style.RUN_COLOURS) % len(style.RUN_LINES)],
            "lw": 1.5 + 2.0 * (len(runs) - 1 - index) / len(runs),  # later runs lie on earlier ones
        }
        times = run.columns["time_s"] / unit_s
        columns = (
            run.columns["remaining_bytes"] / unit_bytes,
            run.columns["cpu_throttle_percentage"],
            held_s[index] / held_unit_s,
        )
        for panel, column in zip(axes, columns, strict=True):
            drawstyle = "steps-post" if panel is throttle else "default"
            panel.plot(times, column, drawstyle=drawstyle, label=_label(run), **look)
            end = {"marker": "o", "ms": 6.5, "clip_on": False, "color": look["color"]}
            panel.plot(times[-1:], column[-1:], **end)
    paused = any(run.summary.get("paused_s") for run in runs)
    held = (
        "Time each vCPU has been held, pauses too"
        if paused
        else "Time the throttle has held each vCPU"
    )
    titles = ("Left to send", "Throttle", held)
    for panel, title, label in zip(axes, titles, (unit, "%", held_unit), strict=True):
        panel.set_title(title)
        panel.set_ylabel(label)
        panel.set_ylim(bottom=0)
    throttle.set_ylim(0, 108)
    throttle.set_yticks([0, 25, 50, 75, 100])


def _held_s(run: _Run) -> FloatArray:
    """Seconds each vCPU was kept from running so far, without the downtime at the end."""
    time_s, run_s = run.columns["time_s"], run.columns["guest_run_s"]
    stopped_s = run.summary["total_time_s"] - (run.summary["downtime_ms"] or 0.0) / 1e3
    held: FloatArray = np.maximum(np.minimum(time_s, stopped_s) - run_s, 0.0)
    return held
