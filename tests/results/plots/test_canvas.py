"""Do labels, legends and time axes go where nothing is hidden?"""

from __future__ import annotations

from typing import Any

import pytest

from gpusim.results.plots.canvas import (
    Place,
    blank_figure,
    figure_legend,
    place_label,
    set_time_axis,
)
from tests.results.plots.drawn import assert_ticks_fit_the_label, legend_texts, texts, ticks

RIGHT, LEFT = ({"offset": (9, 7), "side": "left"}, {"offset": (-9, 7), "side": "right"})


def places(x: float, y: float) -> list[Place]:
    sides: list[Any] = [RIGHT, LEFT]
    return [Place(x=x, y=y, **side) for side in sides]


def test_a_label_avoids_other_labels_marks_and_the_edge() -> None:
    with blank_figure() as figure:
        panel = figure.add_subplot(xlim=(0, 10), ylim=(0, 10))
        figure.canvas.draw()
        taken: list[Any] = []
        assert place_label(panel, "first", places(5, 5), taken=taken)
        assert place_label(panel, "second", places(5, 5), taken=taken)
        assert not place_label(panel, "no place is left", places(5, 5), taken=taken)
        assert place_label(panel, "at the edge", places(9.9, 8), taken=taken)
        mark = panel.transData.transform((2.15, 2.2))
        assert place_label(panel, "beside a mark", places(2, 2), taken=taken, marks=[mark])
        found = {label.get_text(): label.get_horizontalalignment() for label in panel.texts}
        assert found == {
            "first": "left",
            "second": "right",
            "at the edge": "right",
            "beside a mark": "right",
        }
        assert len(taken) == len(texts(panel)) == 4


@pytest.mark.parametrize(("count", "rows"), [(0, 0), (3, 1), (20, 4)])
def test_a_legend_takes_as_many_rows_as_it_needs(count: int, rows: int) -> None:
    with blank_figure() as figure:
        panel = figure.add_subplot()
        for number in range(count):
            panel.plot([0], [0], label=f"line number {number:4d}")
        top = figure_legend(figure, panel.get_legend_handles_labels()[0], 1)
        assert len(legend_texts(figure)) == count
        figure.subplots_adjust(top=top)
        figure.canvas.draw()
        if count:
            box = figure.legends[0].get_window_extent()
            assert box.y0 >= panel.get_window_extent().y1
            texts_of_a_column = figure.legends[0].get_texts()[:rows]
            assert len({round(t.get_window_extent().x0) for t in texts_of_a_column}) == 1


def test_a_time_axis_is_linear_or_logarithmic() -> None:
    with blank_figure() as figure:
        panel = figure.add_subplot()
        set_time_axis(panel.yaxis, [60.0, 300.0], name="Total time")
        assert panel.get_ylabel() == "Total time (min)"
        assert panel.get_ylim() == (0, pytest.approx(330))
        assert_ticks_fit_the_label(panel.yaxis)
        set_time_axis(panel.yaxis, [60.0, 300.0], name="Total time", from_zero=False)
        assert panel.get_ylim() == pytest.approx((24, 336))
        set_time_axis(panel.xaxis, [1.0, 3600.0], name="Total time")
        assert panel.get_xlabel() == "Total time, log scale"
        assert panel.get_xscale() == "log"
        assert ticks(panel.xaxis)[60.0] == "60 s"
