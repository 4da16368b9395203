"""The content of a figure as numbers and text for assertions."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from gpusim.results.plots.canvas import blank_figure

TIMES = {"ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0}
SIZES = {"B": 1.0, "KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30, "TiB": 2.0**40}
RATES = {"B/s": 1.0, "kB/s": 1e3, "MB/s": 1e6, "GB/s": 1e9, "TB/s": 1e12}
UNITS = TIMES | SIZES | RATES


@contextmanager
def figure_of(draw: Any, *arguments: Any, **options: Any) -> Iterator[Any]:
    """A figure that a function has drawn into, rendered once."""
    with blank_figure() as figure:
        draw(figure, *arguments, **options)
        figure.canvas.draw()
        yield figure


def png_size(path: Path) -> tuple[int, int]:
    head = path.read_bytes()[:24]
    assert head.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", head[16:24])
    return width, height


def unit_in(label: str) -> float:
    """The unit that an axis label names: alone, in brackets, or before ", log scale"."""
    found = re.fullmatch(r"(?:.*\()?([A-Za-z/]+)\)?(?:, log scale)?", label)
    assert found, label
    return UNITS[found[1]]


def lines(panel: Any) -> dict[str, list[Any]]:
    """Lines with data by their label. Lines without a label are under ""."""
    found: dict[str, list[Any]] = {}
    for line in panel.lines:
        if len(line.get_xdata()):
            label = str(line.get_label())
            found.setdefault("" if label.startswith("_") else label, []).append(line)
    return found


def line(panel: Any, label: str = "") -> tuple[Any, Any]:
    """Coordinates of the only line with a label."""
    (found,) = lines(panel)[label]
    return np.asarray(found.get_xdata(), float), np.asarray(found.get_ydata(), float)


def legend_texts(owner: Any) -> list[str]:
    """Texts of the legend of a panel or of all legends of a figure."""
    legends = owner.legends if hasattr(owner, "legends") else [owner.get_legend()]
    return [text.get_text() for legend in legends if legend for text in legend.get_texts()]


def texts(owner: Any) -> list[str]:
    return [text.get_text() for text in owner.texts]


def ticks(axis: Any) -> dict[float, str]:
    """Major ticks: place -> text."""
    names = [text.get_text() for text in axis.get_ticklabels()]
    return dict(zip(map(float, axis.get_ticklocs()), names, strict=True))


def assert_ticks_fit_the_label(axis: Any) -> None:
    """On an axis of seconds, each tick's text in the label's unit is its place."""
    unit = unit_in(axis.get_label_text())
    assert len(ticks(axis)) > 1
    for place, text in ticks(axis).items():
        assert abs(float(text) * unit - place) <= 1e-6 * max(abs(place), 1.0)
