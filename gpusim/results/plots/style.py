"""Colours, marks, fonts and time ticks of the pictures. This module does not need matplotlib.

The colours are Okabe and Ito's, which colour-blind readers can distinguish. A line style, a mark or
a word always repeats what a colour says.
"""

from __future__ import annotations

from typing import Any

WIDTH_IN, HEIGHT_IN, DPI = 12.0, 9.0, 100  # 1200 x 900 pixels
NARROW_IN, NARROW_DPI = 5.2, 150  # for a page on a phone, where one pixel of CSS is half a point

INK = "#1a1a1a"
QUIET = "#5f6368"
SHADE = "#eef1f5"
BLUE = "#0072b2"
ORANGE = "#d55e00"
GREEN = "#009e73"
GREY = "#9aa0a6"
RUN_COLOURS = (BLUE, ORANGE, GREEN, "#cc79a7", "#56b4e9", "#e69f00")
MARKS = ("o", "s", "^", "D", "v", "P")
RUN_LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)))

RC: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 11,
    "text.parse_math": False,  # "$" in the name of a file is a dollar
    "text.color": INK,
    "axes.edgecolor": "#c4c8cc",
    "axes.labelcolor": QUIET,
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.grid.axis": "y",
    "grid.color": "#dfe3e8",
    "grid.linewidth": 0.8,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "legend.frameon": False,
    "legend.fontsize": 10.5,
    "lines.linewidth": 1.8,
    "figure.dpi": DPI,
    "savefig.dpi": DPI,
    "agg.path.chunksize": 20_000,  # A long path overflows the rasteriser's cells.
}

_TIME_TICKS_S = (
    *(round(digit * 10.0**power, 6) for power in range(-3, 1) for digit in (1, 2, 5)),
    *(10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 4 * 3600, 8 * 3600, 24 * 3600),
    *(86400.0 * digit * 10.0**power for power in range(6) for digit in (2, 5, 10)),
)

LONGEST_TEXT = 400  # characters of a line. A line of 1200 pixels holds 300 of the narrowest.

PANELS_TOP = 0.887  # under the bold line, as a share of the figure's height
ROW = 0.0245  # a line of text below it


def time_ticks(low_s: float, high_s: float, most: int = 8) -> list[float]:
    """Return round times between two, for a logarithmic axis: 1 s, 10 s, 1 min, 10 min, 1 h."""
    inside = [tick for tick in _TIME_TICKS_S if low_s <= tick <= high_s]
    step = -(-len(inside) // most) or 1
    return inside[::step]
