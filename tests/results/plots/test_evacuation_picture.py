"""Does the picture of an evacuation show each guest's times, throttle and share of the link?"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gpusim.results.plots.canvas import blank_figure
from gpusim.results.plots.evacuation import BAR, MOST_NAMES, POSTCOPY, draw_evacuation
from gpusim.text import format_duration
from tests.results.conftest import MakeEvacuation
from tests.results.plots.drawn import figure_of, legend_texts, line, texts, ticks, unit_in
from tests.results.runs import switched


@pytest.mark.parametrize("count", [1, 8, 60])
def test_bars_are_the_guests_passes(count: int, make_evacuation: MakeEvacuation) -> None:
    left = ("g0",) if count == 8 else ()
    evacuation = make_evacuation([f"g{number}" for number in range(count)], left=left)
    guests = evacuation.guests
    with figure_of(draw_evacuation, evacuation) as figure:
        bars, link = figure.axes
        unit = unit_in(link.get_xlabel())
        assert link.get_xlim()[1] * unit == pytest.approx(evacuation.summary.total_time_s)
        spans: dict[int, list[tuple[float, float]]] = {}
        for patch in bars.patches:
            if patch.get_fill():
                row = round(patch.get_y() + BAR / 2)
                spans.setdefault(row, []).append((patch.get_x() * unit, patch.get_width() * unit))
        assert len(spans) == count
        for row, guest in enumerate(guests):
            summary = guest.result.summary
            first_s = summary.first_pass_s or summary.total_time_s
            rest_s = guest.end_s - guest.start_s - first_s
            expected = [(guest.start_s, first_s), (guest.start_s + first_s, rest_s)]
            assert np.array(spans[row]) == pytest.approx(np.array(expected))
            assert bars.lines[row].get_xdata()[1] * unit == pytest.approx(guest.start_s)
            throttle = bars.collections[row].get_paths()[0].vertices[:, 1]
            height = (row + BAR / 2 - throttle.min()) / BAR
            assert 100 * height == pytest.approx(summary.max_throttle_percent)
        hatched = [patch for patch in bars.patches if patch.get_hatch()]
        assert len(hatched) == len(left)
        expected_legend = ["waits", "first pass", "later passes", "throttle (full height: 100 %)"]
        assert legend_texts(bars) == expected_legend + ["left behind"] * bool(left)
        named = count <= MOST_NAMES
        assert [*ticks(bars.yaxis).values()] == [guest.name for guest in guests] * named
        labels = texts(bars)
        assert len(labels) == count * named
        for label, guest in zip(labels, guests, strict=False):
            assert label.startswith("1 GiB")
            assert format_duration(guest.result.summary.total_time_s) in label
            assert ("left behind" in label) == (guest.name in left)
        title = texts(figure)[0]
        assert title.startswith("Host not empty" if left else "Host empty in")


def test_a_narrow_picture_has_all_numbers_above_the_bars(make_evacuation: MakeEvacuation) -> None:
    evacuation = make_evacuation([f"guest-{number}" for number in range(12)], left=("guest-3",))
    with blank_figure(narrow=True) as figure:
        draw_evacuation(figure, evacuation)
        figure.canvas.draw()
        bars = figure.axes[0]
        labels = {
            text.get_text().partition(":")[0]: text.get_window_extent() for text in bars.texts
        }
        assert [*labels] == [guest.name for guest in evacuation.guests]
        for patch in bars.patches:
            covered = [n for n, box in labels.items() if box.overlaps(patch.get_window_extent())]
            assert covered == [], (patch, patch.get_window_extent(), labels)
        assert all(box.x1 <= figure.bbox.width for box in labels.values())


def test_the_link_carries_what_the_guests_sent(make_evacuation: MakeEvacuation) -> None:
    evacuation = make_evacuation(["db", "web"])
    with figure_of(draw_evacuation, evacuation) as figure:
        link = figure.axes[1]
        time_unit, rate_unit = unit_in(link.get_xlabel()), unit_in(link.get_ylabel())
        assert len(link.patches) == 2
        for patch, guest in zip(link.patches, evacuation.guests, strict=True):
            top, edges, base = patch.get_data()
            sent = ((top - base) * rate_unit * np.diff(edges) * time_unit).sum()
            assert sent == pytest.approx(guest.result.summary.transferred_bytes, rel=1e-6)
        assert legend_texts(link) == ["link bandwidth"]
        assert line(link, "link bandwidth")[1] * rate_unit == pytest.approx(1e8)


def test_a_link_without_a_limit_has_no_line(make_evacuation: MakeEvacuation) -> None:
    evacuation = make_evacuation(["db"], link_used_percent=None, max_throttle_percent=0)
    unlimited = replace(evacuation, link_bandwidth=[(0.0, float("inf"))])
    with figure_of(draw_evacuation, unlimited) as figure:
        assert legend_texts(figure.axes[1]) == []
        assert "link used" not in texts(figure)[1]


def test_an_evacuation_without_guests_is_a_picture(make_evacuation: MakeEvacuation) -> None:
    evacuation = make_evacuation([])
    summary = replace(evacuation.summary, status="incomplete", verdict=None, guests=4)
    with figure_of(draw_evacuation, replace(evacuation, summary=summary)) as figure:
        assert texts(figure)[0].startswith("Stopped after 0")
        assert not figure.axes[0].patches


def test_a_guest_that_switched_has_a_bar_of_post_copy(make_evacuation: MakeEvacuation) -> None:
    evacuation = make_evacuation(["g0", "g1"])
    guest = evacuation.guests[0]
    result = switched()
    end_s = guest.start_s + result.summary.total_time_s
    guests = [replace(guest, result=result, end_s=end_s), *evacuation.guests[1:]]
    from matplotlib.colors import to_hex

    with figure_of(draw_evacuation, replace(evacuation, guests=guests)) as figure:
        assert "post-copy" in legend_texts(figure.axes[0])
        unit_s = unit_in(figure.axes[1].get_xlabel())
        colour = to_hex(POSTCOPY)
        (bar,) = (b for b in figure.axes[0].patches if to_hex(b.get_facecolor()) == colour)
        switch_s = guest.start_s + (result.summary.postcopy_start_s or 0.0)
        assert bar.get_x() * unit_s == pytest.approx(switch_s)
        assert (bar.get_x() + bar.get_width()) * unit_s == pytest.approx(end_s)
