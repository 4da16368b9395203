"""The common parts of all pictures: figure, file, headline, legends, labels and time axes.

`picture` opens an empty figure and saves it. A function such as `draw_run` draws into the figure.
Tests can therefore inspect what was drawn.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpusim.errors import require
from gpusim.files import whole_file
from gpusim.results.plots import style
from gpusim.text import format_duration, shorten, time_unit

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Annotation, Text

LINE_CHARACTERS = 145  # what fits on a line below the headline
LOG_RATIO = 12.0  # values further apart than this share no linear axis
LEAST_LOG_S = 1e-4  # a shorter time is no power of ten on an axis, but nearly zero
TITLE_PT, SMALLEST_TITLE_PT, SMALLEST_PT = 18, 11, 9
LEGEND_LINE = 70.0  # pixels of a line of a legend and the space around it
SEPARATOR = "  \u00b7  "
NARROW_LEFT = 0.13  # of the width, before the panels
NARROW_CHARACTERS, MOST_NARROW_ROWS = 56, 6  # below a narrow headline
NARROW_TITLE_PT, NARROW_TITLE_CHARACTERS = 12.5, 38
NARROW_LEGEND_PT = 17.0  # a row of a narrow legend, which stands above its panel
NARROW_COLUMNS = 2  # of a narrow legend, at most
NARROW_LEGEND = 0.03  # of the height: the same above the first panel
CLEARANCE = 5.0  # pixels between a label and a mark
EDGE = 4.0  # pixels between a label and the edge of the picture


def require_matplotlib() -> None:
    """Check that a picture can be drawn, before anything is computed or written.

    Raises:
        ResultsError: matplotlib is not installed.
    """
    require("matplotlib", "plot")


@contextmanager
def blank_figure(*, narrow: bool = False) -> Iterator[Figure]:
    """Open an empty figure of 1200 x 900 pixels in the style of the pictures.

    Args:
        narrow: as high, but less than half as wide, so that its text is readable on a phone.

    Raises:
        ResultsError: matplotlib is not installed.
    """
    require_matplotlib()
    import matplotlib
    from matplotlib.figure import Figure

    from gpusim.results.plots.agg import TextCanvas

    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # a user's matplotlibrc may ask for LaTeX
        matplotlib.rcParams.update(style.RC)
        width_in = style.NARROW_IN if narrow else style.WIDTH_IN
        figure = Figure(figsize=(width_in, style.HEIGHT_IN), dpi=style.DPI)
        TextCanvas(figure)
        yield figure


@contextmanager
def picture(path: Path) -> Iterator[Figure]:
    """Open an empty figure and save it as a PNG when the block ends without an error.

    Raises:
        ResultsError: matplotlib is not installed.
        OSError: the file cannot be written.
    """
    with blank_figure() as figure:
        yield figure
        keep_labels_inside(figure)
        with whole_file(path) as file:
            figure.savefig(file, format="png")


def narrow_png(draw: Callable[[Figure], object]) -> bytes:
    """Return a picture for narrow pages as a PNG.

    Args:
        draw: draws into an empty figure. It asks `is_narrow` how to arrange its panels.

    Raises:
        ResultsError: matplotlib is not installed, or there is nothing to draw.
    """
    with blank_figure(narrow=True) as figure:
        draw(figure)
        keep_labels_inside(figure)
        file = BytesIO()
        figure.savefig(file, format="png", dpi=style.NARROW_DPI)
        return file.getvalue()


def save_pictures(path: Path, draw: Callable[[Figure], object]) -> None:
    """Save a picture and, beside it, the same for narrow pages.

    Args:
        path: of the picture. `narrow_path` tells the path of the other one.
        draw: draws into an empty figure. It asks `is_narrow` how to arrange its panels.

    Raises:
        ResultsError: matplotlib is not installed, or there is nothing to draw.
        OSError: a file cannot be written.
    """
    with picture(path) as figure:
        draw(figure)
    narrow = narrow_png(draw)
    with whole_file(narrow_path(path)) as file:
        file.write(narrow)


def narrow_path(path: Path) -> Path:
    """Return where the narrow variant of a picture is: `plot_narrow.png` beside `plot.png`."""
    return path.with_stem(f"{path.stem}_narrow")


def is_narrow(figure: Any) -> bool:
    """Return whether a figure is one for narrow pages."""
    return bool(figure.get_figwidth() < style.WIDTH_IN)


def from_top(figure: Any, share: float) -> float:
    """Return a place below the top edge as a share of the height.

    Args:
        figure: of any height.
        share: the place in a figure of the usual height.
    """
    return float(1 - (1 - share) * style.HEIGHT_IN / figure.get_figheight())


def left_share(figure: Any, share: float = 0.085) -> float:
    """Return where panels begin: a share of the width of a wide figure, and more of a narrow one."""
    return share if not is_narrow(figure) else NARROW_LEFT


def wrapped(figure: Any, lines: Sequence[str]) -> list[str]:
    """Return the lines below a headline, wrapped at their facts for a narrow figure."""
    if not is_narrow(figure):
        return list(lines)
    rows = [""]
    for line in lines:
        for fact in line.split(SEPARATOR):
            joined = f"{rows[-1]}{SEPARATOR}{fact}"
            if rows[-1] and len(joined) <= NARROW_CHARACTERS:
                rows[-1] = joined
            else:
                rows += textwrap.wrap(fact, NARROW_CHARACTERS)
        rows.append("")
    return [row for row in rows if row][:MOST_NARROW_ROWS]


def keep_labels_inside(figure: Figure) -> None:
    """Move the panels if the labels of their axes leave the picture at the left or the bottom."""
    panels = [panel for panel in figure.axes if panel.get_subplotspec()]
    left = min((box.x0 for panel in panels if (box := panel.yaxis.get_tightbbox())), default=EDGE)
    low = min((box.y0 for panel in panels if (box := panel.xaxis.get_tightbbox())), default=EDGE)
    if min(left, low) < EDGE:
        now, size = figure.subplotpars, figure.bbox
        figure.subplots_adjust(
            left=now.left + max(EDGE - left, 0.0) / size.width,
            bottom=now.bottom + max(EDGE - low, 0.0) / size.height,
        )


def set_log_scale(axis: Any, scale: str = "log", **options: Any) -> None:
    """Make an axis logarithmic, with plain numbers at its ticks.

    Args:
        axis: the xaxis or yaxis of a panel.
        scale: matplotlib's name, "log" or "symlog".
        options: of the scale.
    """
    from matplotlib.ticker import NullFormatter

    set_scale = axis.axes.set_yscale if axis.axis_name == "y" else axis.axes.set_xscale
    set_scale(scale, **options)
    axis.set_major_formatter("{x:g}")  # matplotlib's own writes mathtext
    axis.set_minor_formatter(NullFormatter())


def spans_decades(times_s: Sequence[float]) -> bool:
    """Return whether times need a logarithmic axis."""
    low, high = min(times_s, default=0.0), max(times_s, default=1.0)
    return low >= LEAST_LOG_S and high > LOG_RATIO * low


def panels(figure: Figure, heights: tuple[float, ...], rows: float) -> list[Axes]:
    """Return panels above each other with one time axis, below a headline and `rows` lines."""
    narrow = is_narrow(figure)
    space = {"height_ratios": heights, "hspace": 0.62 if narrow else 0.34}
    axes = figure.subplots(len(heights), 1, sharex=True, gridspec_kw=space)
    top = from_top(figure, style.PANELS_TOP - style.ROW * rows)
    figure.subplots_adjust(
        left=left_share(figure),
        right=0.965,
        top=top - NARROW_LEGEND if narrow else top,
        bottom=0.075,
    )
    return list(axes)


def headline(figure: Figure, title: str, lines: list[str]) -> None:
    """Write a bold title and the lines under it. What is too long becomes smaller, then it is cut."""
    title_pt: float = TITLE_PT
    if is_narrow(figure):
        title, title_pt = "\n".join(_two_rows(title)), NARROW_TITLE_PT
    bold = figure.text(
        0.02, from_top(figure, 0.975), title, fontsize=title_pt, fontweight="bold", va="top"
    )
    rows, high = "\n".join(lines), from_top(figure, 0.926 if is_narrow(figure) else 0.932)
    below = figure.text(
        0.02, high, rows, fontsize=11, color=style.QUIET, va="top", linespacing=1.45
    )
    for text, smallest_pt in ((bold, SMALLEST_TITLE_PT), (below, SMALLEST_PT)):
        fit_text(text, 0.965 * figure.bbox.width, smallest_pt)


def _two_rows(title: str) -> list[str]:
    """Return a title on one or two rows, split where a fact ends if that is possible."""
    first, _, rest = title.partition(SEPARATOR)
    if rest and max(len(first), len(rest)) <= NARROW_TITLE_CHARACTERS:
        return [first, rest]
    return textwrap.wrap(title, max(NARROW_TITLE_CHARACTERS, len(title) // 2 + 8))


def fit_text(text: Text, most: float, smallest_pt: float) -> None:
    """Make a text smaller, and then cut its lines, until it is at most so many pixels wide."""
    from gpusim.results.plots.agg import drawable

    if (ratio := text.get_window_extent().width / most) <= 1:
        return
    text.set_fontsize(max(smallest_pt, float(text.get_fontsize()) / ratio))
    lines = [drawable(line) for line in text.get_text().split("\n")]
    characters = max(map(len, lines))
    while (ratio := text.get_window_extent().width / most) > 1 and characters > 4:
        characters = min(characters - 1, int(characters / ratio))
        text.set_text("\n".join(shorten(line, characters) for line in lines))


def tick_text(text: str, longest: int) -> str:
    """Return a foreign text for a tick, as it is drawn, with its middle cut if it is too long."""
    from gpusim.results.plots.agg import drawable

    text = drawable(text)
    end = longest // 3
    return text if len(text) <= longest else f"{text[: longest - 3 - end]}...{text[-end:]}"


def legend(axes: Axes, columns: int, handles: Sequence[Any] | None = None) -> None:
    """Put a panel's legend to the right of its title, where it hides no data."""
    handles = axes.get_legend_handles_labels()[0] if handles is None else list(handles)
    narrow = is_narrow(axes.figure)
    if handles and narrow:  # a row below the title
        columns = min(columns, NARROW_COLUMNS)
        rows = math.ceil(len(handles) / columns)
        title = axes.set_title(axes.get_title(loc="left"), pad=9 + NARROW_LEGEND_PT * rows)
        fit_text(title, 0.84 * axes.figure.bbox.width, SMALLEST_PT)
    if handles:
        axes.legend(
            handles=handles,
            loc="lower left" if narrow else "lower right",
            bbox_to_anchor=(0.0 if narrow else 1.0, 1.005),
            ncols=columns,
            borderaxespad=0.0,
            borderpad=0.3,
            handlelength=1.6,
            columnspacing=1.6,
        )


def legend_share(figure: Any, count: int) -> float:
    """Return the share of the height that the legend of a narrow figure's first panel takes."""
    if not is_narrow(figure):
        return 0.0
    return NARROW_LEGEND_PT * math.ceil(count / NARROW_COLUMNS) / 72 / float(figure.get_figheight())


def figure_legend(figure: Figure, handles: Sequence[Any], rows: int, width: int = 130) -> float:
    """Put a legend below the headline and its lines.

    Args:
        figure: the figure.
        handles: the lines and marks, with their labels.
        rows: lines of text below the headline.
        width: characters of a row of the legend.

    Returns:
        Where the panels may begin, as a share of the figure's height.
    """
    below = from_top(figure, 0.930 - style.ROW * rows)
    if not handles:
        return below - 0.02
    if is_narrow(figure):
        width = NARROW_CHARACTERS
    longest = max(len(str(handle.get_label())) for handle in handles)
    columns = max(1, min(len(handles), width // (8 + longest)))
    legend = figure.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=(0.012, below),
        ncols=columns,
        columnspacing=2.0,
        labelspacing=0.35,
    )
    for text in legend.get_texts():
        fit_text(text, 0.96 * figure.bbox.width / columns - LEGEND_LINE, SMALLEST_PT)
    high = style.HEIGHT_IN / figure.get_figheight()
    return below - high * (0.03 + 0.026 * math.ceil(len(handles) / columns))


@dataclass(frozen=True, kw_only=True)
class Place:
    """A place where a label can stand.

    Attributes:
        x, y: of the point that it names, in the units of the axes.
        offset: from the point, in typographic points.
        side: the side of the text that is next to the point: "left" or "right".
        background: colour behind the text. None: transparent.
        vertical: vertical alignment of the text.
    """

    x: float
    y: float
    offset: tuple[float, float]
    side: str
    background: str | None = None
    vertical: str = "baseline"


def place_label(
    panel: Axes,
    text: str,
    places: Sequence[Place],
    *,
    taken: list[Any],
    marks: Sequence[tuple[float, float]] = (),
    leader: bool = False,
) -> bool:
    """Write a label at the first place where it fits.

    A label fits if it is inside the panel and covers no other label and no mark.

    Args:
        panel: limits, ticks and position must be final.
        text: the label.
        places: where it can stand, the best place first.
        taken: boxes of earlier labels, in pixels. The box of this label is added.
        marks: pixels that the label must not cover.
        leader: draw a thin line from the label to its point.

    Returns:
        Whether the label was written.
    """
    from matplotlib.text import Text

    arrow = {"arrowstyle": "-", "color": style.GREY, "lw": 0.7, "shrinkA": 1, "shrinkB": 5}
    for place in places:
        background = {"facecolor": place.background, "edgecolor": "none", "pad": 1.5}
        label: Annotation = panel.annotate(
            text,
            (place.x, place.y),
            xytext=place.offset,
            textcoords="offset points",
            ha=place.side,
            va=place.vertical,
            fontsize=9.5,
            color=style.INK,
            zorder=5,
            bbox=background if place.background else None,
            arrowprops=arrow if leader else None,
        )
        label.get_window_extent()  # This moves the text to its place.
        box = Text.get_window_extent(label)  # The text alone, without the leader.
        inside = panel.bbox.contains(box.x0, box.y0) and panel.bbox.contains(box.x1, box.y1)
        if (
            inside
            and not any(box.overlaps(other) for other in taken)
            and not box.padded(CLEARANCE).count_contains(list(marks))
        ):
            taken.append(box)
            return True
        label.remove()
    return False


def set_time_axis(
    axis: Any, times_s: Sequence[float], *, name: str, from_zero: bool = True
) -> None:
    """Set limits, ticks and label of an axis of seconds, logarithmic if the times span decades.

    Args:
        axis: the xaxis or yaxis of a panel.
        times_s: all times that the axis has to show.
        name: of the quantity, without its unit.
        from_zero: begin a linear axis at zero.
    """
    low, high = min(times_s, default=0.0), max(times_s, default=1.0)
    vertical = axis.axis_name == "y"
    set_limits = axis.axes.set_ylim if vertical else axis.axes.set_xlim
    if spans_decades(times_s):
        set_log_scale(axis)
        set_limits(low / 1.4, high * 1.4)
        ticks = style.time_ticks(low / 1.4, high * 1.4)
        axis.set_ticks(ticks, [format_duration(tick) for tick in ticks])
        axis.set_ticks([], minor=True)
        axis.set_label_text(f"{name}, log scale")
        return
    margin = 0.15 * (high - low) or 0.1 * high or 1.0
    bottom, top = (0.0, 1.1 * high or 1.0) if from_zero else (max(low - margin, 0.0), high + margin)
    unit, even = even_ticks(bottom, top)
    axis.set_ticks(list(even), list(even.values()))
    set_limits(bottom, top)
    axis.set_label_text(f"{name} ({unit})")


def even_ticks(low_s: float, high_s: float) -> tuple[str, dict[float, str]]:
    """Return the unit and the ticks, seconds -> text, of a linear axis between two times."""
    from matplotlib.ticker import MaxNLocator

    unit, unit_s = time_unit(high_s)
    found = MaxNLocator(7, steps=[1, 2, 5, 10]).tick_values(low_s / unit_s, high_s / unit_s)
    inside = [float(t) for t in found if low_s <= t * unit_s * (1 + 1e-9) and t * unit_s <= high_s]
    return unit, {tick * unit_s: f"{tick:g}" for tick in inside}


def set_percent_axis(panel: Axes) -> None:
    """Set the vertical axis of a panel to 0 to 100 %."""
    panel.set_ylim(0, 108)
    panel.set_yticks([0, 25, 50, 75, 100])
    panel.set_ylabel("%")
