"""How the pictures look: colours, fonts, and the units of their axes and sentences.

Owns no data and needs no matplotlib. The colours are Okabe and Ito's, told apart by colour-blind
readers and in grey; whatever they distinguish is also told by a line style, a mark or a word.
"""

from __future__ import annotations

from typing import Any

WIDTH_IN, HEIGHT_IN, DPI = 12.0, 9.0, 100  # 1200 x 900 pixels

INK = "#1a1a1a"
QUIET = "#5f6368"
SHADE = "#eef1f5"
BLUE = "#0072b2"
ORANGE = "#d55e00"
GREEN = "#009e73"
GREY = "#9aa0a6"
RUN_COLOURS = (BLUE, ORANGE, GREEN, "#cc79a7", "#56b4e9", "#e69f00")
RUN_LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)))

RC: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 11,
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
    "agg.path.chunksize": 20_000,  # a long path overflows the rasteriser's cells
}

_TIMES = (("h", 3600.0), ("min", 60.0), ("s", 1.0), ("ms", 1e-3))
SIZES = (("TiB", 2.0**40), ("GiB", 2.0**30), ("MiB", 2.0**20), ("KiB", 2.0**10), ("B", 1.0))
_RATES = (("TB/s", 1e12), ("GB/s", 1e9), ("MB/s", 1e6), ("kB/s", 1e3), ("B/s", 1.0))
_TIME_TICKS_S = (
    *(round(digit * 10.0**power, 6) for power in range(-3, 1) for digit in (1, 2, 5)),
    *(10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 4 * 3600, 8 * 3600, 24 * 3600),
    *(86400.0 * days for days in (2, 5, 10, 20, 50, 100, 200, 500, 1000)),
)

PANELS_TOP = 0.887  # under the bold line, as a share of the figure's height
ROW = 0.0245  # a line of text below it


def _unit(largest: float, units: tuple[tuple[str, float], ...]) -> tuple[str, float]:
    """The largest unit of which there are at least two, so that an axis has readable ticks."""
    return next((unit for unit in units if largest >= 2 * unit[1]), units[-1])


def time_unit(longest_s: float) -> tuple[str, float]:
    """Unit and its seconds for an axis that ends at `longest_s`; seconds from one second on."""
    return _TIMES[2] if 1 <= longest_s < 2 else _unit(longest_s, _TIMES)


def size_unit(largest_bytes: float) -> tuple[str, float]:
    """Unit and its bytes for an axis that ends at `largest_bytes`."""
    return _unit(largest_bytes, SIZES)


def rate_unit(largest_bytes_per_s: float) -> tuple[str, float]:
    """Unit and its bytes a second for an axis that ends at `largest_bytes_per_s`."""
    return _unit(largest_bytes_per_s, _RATES)


def number(value: float) -> str:
    """Three digits that matter, never an exponent: 0.123, 4.57, 89.1, 1234."""
    if value >= 100:
        return f"{value:.0f}"
    text = f"{value:.3g}"
    return f"{value:.3f}".rstrip("0").rstrip(".") if "e" in text else text


def duration(time_s: float, like_s: float | None = None) -> str:
    """A duration for people: 0.05 is "50 ms", 1234 is "20.6 min"; or in the unit of another one."""
    name, seconds = time_unit(time_s if like_s is None else like_s)
    return f"{number(time_s / seconds)} {name}"


def time_ticks(low_s: float, high_s: float, most: int = 8) -> list[float]:
    """Round times between two, for a logarithmic axis: 1 s, 10 s, 1 min, 10 min, 1 h."""
    inside = [tick for tick in _TIME_TICKS_S if low_s <= tick <= high_s]
    step = -(-len(inside) // most) or 1
    return inside[::step]


def moment(time_s: float, total_s: float) -> str:
    """A time of a run for people, in the unit that a picture of the run has: "16.68 min"."""
    name, seconds = time_unit(total_s)
    text = f"{time_s / seconds:.2f}".rstrip("0").rstrip(".")
    return f"{text} {name}"


def decider(version: str, policies: str = "") -> str:
    """The version, and what decides in its place: "QEMU 9.2 with throttle_rule my_rules:MyThrottle"."""
    return f"{qemu(version)} with {policies}" if policies else qemu(version)


def qemu(version: str) -> str:
    """The version as people write it: "qemu_9_2" is "QEMU 9.2", "seed_v2" is "seed v2"."""
    if version.startswith("qemu_"):
        return f"QEMU {version.removeprefix('qemu_').replace('_', '.')}"
    return version.replace("_", " ")
