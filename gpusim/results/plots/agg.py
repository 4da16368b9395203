"""A canvas that draws any text: names of files, keys of configs and classes of users.

Each text of a picture passes this renderer, when it is measured and when it is drawn. The font has no
glyph for some characters. The renderer writes them as "\\u4e2d", so that two names stay different.
"""

from __future__ import annotations

from functools import cache, lru_cache
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.font_manager import FontProperties, findfont, get_font

from gpusim.errors import escape
from gpusim.results.plots import style


@cache
def _drawable() -> frozenset[str]:
    """Return the characters that the font has, in normal and in bold."""
    family = style.RC["font.family"]
    fonts = [FontProperties(family=family, weight=weight) for weight in ("normal", "bold")]
    known = [get_font(findfont(font)).get_charmap() for font in fonts]
    codes = set(known[0]).intersection(*known)
    return frozenset(char for code in codes if (char := chr(code)).isprintable())


@lru_cache(maxsize=4096)
def drawable(text: str) -> str:
    """Return a line of text with "\\u4e2d" for each character that the font does not have."""
    if len(text) > style.LONGEST_TEXT:
        text = f"{text[: style.LONGEST_TEXT - 3]}..."
    known = _drawable()
    return "".join(char if char in known else escape(char) for char in text)


class TextRenderer(RendererAgg):
    """Measures and draws any text without a warning."""

    def draw_text(self, gc: Any, x: Any, y: Any, s: str, *more: Any, **options: Any) -> None:
        """Draw a line of text."""
        plain: Any = super()  # matplotlib's renderers have no types
        plain.draw_text(gc, x, y, drawable(s), *more, **options)

    def get_text_width_height_descent(self, s: str, *more: Any, **options: Any) -> Any:
        """Return the size of a line of text in pixels."""
        plain: Any = super()
        return plain.get_text_width_height_descent(drawable(s), *more, **options)


class TextCanvas(FigureCanvasAgg):
    """A canvas whose renderer draws any text."""

    _size: tuple[float, ...] = ()

    def get_renderer(self) -> RendererAgg:
        """Return the renderer for the size of the figure."""
        size = (*self.figure.bbox.size, self.figure.dpi)
        if size != self._size:
            make: Any = TextRenderer
            self.renderer: RendererAgg = make(*size)
            self._size = size
        return self.renderer
