"""Several runs in one picture: memory left to send, throttle, and CPU time taken from each vCPU.

The picture needs only summary.json and timeline.npz. It names the runs that it cannot show.
"""

from __future__ import annotations

import io
import re
import textwrap
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile

import numpy as np

from gpusim.errors import one_line
from gpusim.policies.names import decider_name
from gpusim.reading import ReadingError, read_bytes
from gpusim.results.errors import RunsError
from gpusim.results.plots import style
from gpusim.results.plots.canvas import (
    LINE_CHARACTERS,
    SEPARATOR,
    figure_legend,
    headline,
    is_narrow,
    panels,
    picture,
    set_percent_axis,
    wrapped,
)
from gpusim.results.run_files import TIMELINE_NPZ, read_summary
from gpusim.results.summary_fields import RUN_FIELDS
from gpusim.results.timeline import MAX_ROWS, FloatArray, Timeline
from gpusim.results.verdicts import COMPLETED, describe_outcome, outcome_code
from gpusim.shapes import LARGEST
from gpusim.text import (
    count_noun,
    format_duration,
    format_number,
    shorten,
    size_unit,
    time_unit,
)
from gpusim.units import format_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_FACTS = 4
MAX_RUNS = 16  # with a line of the legend each
MAX_TITLE = 66  # characters of names: more would leave the picture
MAX_NAME = 60  # characters
NARROW_ROW = 0.8  # of the legend of a narrow picture, in rows of the headline
NARROW_LABEL, MOST_ROWS = 46, 4  # characters and rows of a label in the narrow legend
USUAL_ROWS = 6  # of the narrow legend. More of them make the picture higher.
COLUMNS = ("time_s", "remaining_bytes", "cpu_throttle_percentage", "guest_run_s")
ENCRYPTED = 1  # a bit of a zip's member
ZIP_ERRORS = (BadZipFile, EOFError, KeyError, NotImplementedError, OSError, zlib.error)
NPY_HEAD_BYTES = 128  # as numpy writes it for one row
NPY_HEAD = re.compile(
    rb"\x93NUMPY\x01\x00..\{'descr': '(?P<type><[if][48])', 'fortran_order': False, "
    rb"'shape': \((?P<rows>[0-9]{1,9}),\), \} *\n",
    re.DOTALL,
)


@dataclass(frozen=True, kw_only=True)
class ComparedRun:
    """A run with its name in the picture, its summary.json and its timeline."""

    name: str
    summary: dict[str, Any]
    columns: Timeline

    @property
    def simulated_s(self) -> float:
        """The end of the run on the clock of its timeline, as `Summary.simulated_s`."""
        return float(self.summary["total_time_s"] - (self.summary.get("skipped_s") or 0.0))


def write_comparison(folders: list[Path], path: Path) -> None:
    """Draw the runs of `folders` into `path`, a PNG of 1200 x 900 pixels.

    Raises:
        ResultsError: matplotlib is missing.
        RunsError: no folder holds a run that can be drawn.
        OSError: the picture cannot be written.
    """
    runs, skipped = read_runs(folders)
    if not runs:
        reasons = [f"{name}: {reason}" for name, reason in skipped] or ["no folder given"]
        raise RunsError("nothing_to_draw", skipped=", ".join(reasons))
    path.parent.mkdir(parents=True, exist_ok=True)
    with picture(path) as figure:
        draw_comparison(figure, runs, skipped)


def read_runs(folders: list[Path]) -> tuple[list[ComparedRun], list[tuple[str, str]]]:
    """Return at most MAX_RUNS runs that can be drawn, and (folder, reason) for all others."""
    found: list[tuple[Path, dict[str, Any], Timeline]] = []
    skipped: list[tuple[str, str]] = []
    for index, folder in enumerate(folders):
        if len(found) == MAX_RUNS:
            more = count_noun(len(folders) - index, "more folder")
            skipped.insert(0, (more, f"a picture shows at most {MAX_RUNS} runs"))
            break
        try:
            summary = read_summary(folder)
            if summary["status"] == "failed":
                raise RunsError("run_failed", error=summary.get("error", "no reason given"))
            found.append((folder, summary, _read_timeline(folder / TIMELINE_NPZ)))
        except (RunsError, ReadingError) as error:
            skipped.append((one_line(folder.name), str(error)))
    versions = [
        decider_name(summary.get("qemu_version") or "QEMU", summary.get("policies") or "")
        for _, summary, _ in found
    ]
    folders = [folder for folder, _, _ in found]
    own_names = [one_line(folder.name) for folder in folders]
    candidates = (
        versions,
        _distinct_parts(own_names),
        own_names,
        [one_line(f"{run.parent.name}/{run.name}") for run in folders],  # one run of two sweeps
    )
    names = next((names for names in candidates if len({*names}) == len(names)), candidates[-1])
    runs = [
        ComparedRun(name=shorten(name, MAX_NAME), summary=summary, columns=columns)
        for name, (_, summary, columns) in zip(names, found, strict=True)
    ]
    return runs, skipped


def _read_timeline(path: Path) -> Timeline:
    """Return the columns of timeline.npz that the picture needs, all of one length.

    Raises:
        RunsError: there is no such file, as in the folder of an evacuation, or it is damaged.
        ReadingError: it cannot be read or is too large.
    """
    try:
        with ZipFile(io.BytesIO(read_bytes(path))) as archive:
            columns = {name: _read_column(archive, name) for name in COLUMNS}
    except ReadingError as error:
        if error.code == "no_such_file":
            raise RunsError("timeline_not_found", name=path.name) from None
        raise
    except (*ZIP_ERRORS, ValueError) as error:
        raise RunsError("timeline_not_readable", reason=error) from None
    if len({len(column) for column in columns.values()}) > 1:
        raise RunsError("timeline_not_readable", reason="columns of different lengths")
    return columns


def _read_column(archive: ZipFile, name: str) -> FloatArray:
    """Return a column. Its size is checked before any memory is taken.

    Raises:
        ValueError: not one row of 1 to MAX_ROWS finite numbers that are not negative.
    """
    member = archive.getinfo(f"{name}.npy")
    if member.compress_type not in (ZIP_STORED, ZIP_DEFLATED) or member.flag_bits & ENCRYPTED:
        raise ValueError(f"{name} is packed in a way that gpusim does not use")
    with archive.open(member) as file:
        head = file.read(NPY_HEAD_BYTES)
        match = NPY_HEAD.fullmatch(head)
        if not match or not 0 < (rows := int(match["rows"])) <= MAX_ROWS:
            raise ValueError(f"{name} is not one row of 1 to {MAX_ROWS} numbers")
        dtype = np.dtype(match["type"].decode())
        content = file.read(rows * dtype.itemsize)
    if len(content) < rows * dtype.itemsize:
        raise ValueError(f"{name} is cut off")
    column: FloatArray = np.frombuffer(content, dtype).astype(np.float64)
    if not ((column >= 0) & (column <= LARGEST)).all():  # not of NaN
        raise ValueError(f"{name} holds a number that is not from 0 to 2^63")
    return column


def _distinct_parts(names: list[str]) -> list[str]:
    """Return names such as "memory=1TiB,seed=3" without the parts that all names have."""
    parts = [name.split(",") for name in names]
    shared = set(parts[0]).intersection(*parts) if parts else set()
    return [",".join(part for part in own if part not in shared) or "," for own in parts]


def draw_comparison(
    figure: Figure, runs: list[ComparedRun], skipped: list[tuple[str, str]]
) -> None:
    """Draw runs over one time axis.

    Args:
        figure: an empty figure.
        runs: at least one.
        skipped: (folder, reason) of each run that is not drawn.
    """
    longest_s = max(1e-3, *(run.simulated_s for run in runs))
    unit, unit_s = time_unit(longest_s)
    facts = [_difference(*runs)] if len(runs) == 2 else []
    lines = [f"not drawn: {name}: {reason}" for name, reason in skipped]
    facts += [textwrap.shorten(line, LINE_CHARACTERS, placeholder=" ...") for line in lines]
    facts = wrapped(figure, [fact for fact in facts if fact][:MAX_FACTS])
    labels = [_label(run) for run in runs]
    rows: float = len(labels)
    if is_narrow(figure):
        labels = [_narrow_label(label) for label in labels]
        rows = NARROW_ROW * sum(label.count("\n") + 1 for label in labels)
        more = max(0.0, rows - USUAL_ROWS) * style.ROW * style.HEIGHT_IN
        figure.set_figheight(style.HEIGHT_IN + more)
    axes = panels(figure, (2.8, 2.0, 2.2), len(facts) + rows + 0.4)
    _draw_runs(axes, runs, labels, unit_s)
    axes[-1].set_xlabel(f"Time since the migrate command ({unit})")
    axes[-1].set_xlim(0, longest_s / unit_s)
    headline(figure, _title(runs), facts)
    figure_legend(figure, axes[-1].get_legend_handles_labels()[0], len(facts), width=0)


def _narrow_label(label: str) -> str:
    """Return a label of the legend in a few rows."""
    rows = textwrap.wrap(label, NARROW_LABEL, max_lines=MOST_ROWS, placeholder=" ...")
    return "\n".join(rows)


def _title(runs: list[ComparedRun]) -> str:
    known = [size for run in runs if (size := run.summary.get("vm_bytes")) is not None]
    sizes = " and ".join(dict.fromkeys(map(format_bytes, known)))
    names = " and ".join(run.name for run in runs)
    if len(runs) > 2 or len(names) > MAX_TITLE:
        names = f"{len(runs)} runs"
    return f"{names}{SEPARATOR}{sizes} VM" if sizes else names


def _difference(one: ComparedRun, other: ComparedRun) -> str:
    """Return the difference of two whole migrations, as sentences."""
    ends = [
        outcome_code(own["status"], own.get("verdict"), own.get("reason_code"))
        for own in (one.summary, other.summary)
    ]
    losses = [run.summary.get("guest_cpu_lost_s") for run in (one, other)]
    if not {*ends} <= {*COMPLETED} or None in losses:
        return ""
    first, last = sorted((one, other), key=lambda run: float(run.summary["total_time_s"]))
    sooner_s = last.summary["total_time_s"] - first.summary["total_time_s"]
    more_s = first.summary["guest_cpu_lost_s"] - last.summary["guest_cpu_lost_s"]
    if sooner_s == 0:
        return "Both runs end at the same time."
    cost = f"{format_duration(abs(more_s))} {'more' if more_s > 0 else 'less'} vCPU time"
    text = f"{first.name} ends {format_duration(sooner_s)} sooner and takes {cost} from the guest."
    for run in (one, other):
        if run.summary.get("paused_s"):
            text += f" {run.name} was paused for {format_duration(run.summary['paused_s'])}."
    return text


def _label(run: ComparedRun) -> str:
    summary = run.summary
    ended = describe_outcome(
        summary["status"],
        summary.get("verdict"),
        summary["total_time_s"],
        summary.get("reason_code"),
    )
    percent, lost_s, throttle_percent = (
        summary.get(key)
        for key in ("guest_cpu_lost_percent", "guest_cpu_lost_s", "max_throttle_percent")
    )
    parts = [ended]
    if percent is not None and lost_s is not None:
        lost = f"guest CPU lost {format_number(percent)} %"
        parts.append(f"{lost} ({format_duration(lost_s)} of vCPU time)")
    if throttle_percent is not None:
        parts.append(f"throttle up to {throttle_percent} %")
    return f"{run.name}: {', '.join(parts)}"


def _draw_runs(axes: list[Axes], runs: list[ComparedRun], labels: list[str], unit_s: float) -> None:
    remaining, throttle, lost = axes
    largest = max(int(run.columns["remaining_bytes"].max()) for run in runs)
    unit, unit_bytes = size_unit(largest)
    lost_s = [_lost_s(run) for run in runs]
    lost_unit, lost_unit_s = time_unit(max(float(column.max()) for column in lost_s))
    for index, (run, text) in enumerate(zip(runs, labels, strict=True)):
        options: dict[str, Any] = {
            "color": style.RUN_COLOURS[index % len(style.RUN_COLOURS)],
            "ls": style.RUN_LINES[index // len(style.RUN_COLOURS) % len(style.RUN_LINES)],
            "lw": 1.5 + 2.0 * (len(runs) - 1 - index) / len(runs),  # Later runs hide earlier runs.
        }
        times = run.columns["time_s"] / unit_s
        columns = (
            run.columns["remaining_bytes"] / unit_bytes,
            run.columns["cpu_throttle_percentage"],
            lost_s[index] / lost_unit_s,
        )
        for panel, column in zip(axes, columns, strict=True):
            drawstyle = "steps-post" if panel is throttle else "default"
            panel.plot(times, column, drawstyle=drawstyle, label=text, **options)
            end = {"marker": "o", "ms": 6.5, "clip_on": False, "color": options["color"]}
            panel.plot(times[-1:], column[-1:], **end)
    paused = any(run.summary.get("paused_s") for run in runs)
    for panel, title, label in (
        (remaining, RUN_FIELDS["remaining_bytes"].label, unit),
        (lost, f"CPU time lost per vCPU{', with pauses' if paused else ''}", lost_unit),
    ):
        panel.set_title(title)
        panel.set_ylabel(label)
        panel.set_ylim(bottom=0)
    throttle.set_title("Throttle")
    set_percent_axis(throttle)


def _lost_s(run: ComparedRun) -> FloatArray:
    """Return the seconds so far in which each vCPU could not run, without the downtime."""
    time_s, run_s = run.columns["time_s"], run.columns["guest_run_s"]
    summary = run.summary
    switched_s = summary.get("postcopy_start_s")
    if switched_s is None:
        stopped_s = run.simulated_s - (summary.get("downtime_ms") or 0.0) / 1e3
        lost: FloatArray = np.maximum(np.minimum(time_s, stopped_s) - run_s, 0.0)
        return lost
    resumed_s = switched_s + (summary.get("postcopy_blackout_ms") or 0.0) / 1e3
    stopped: FloatArray = np.clip(time_s - switched_s, 0.0, resumed_s - switched_s)
    return np.maximum(time_s - stopped - run_s, 0.0)
