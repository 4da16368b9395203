"""Is each picture readable with any text and any number, without a warning on the console?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpusim.cli import collect
from gpusim.policies.names import decider_name
from gpusim.results.plots.agg import drawable
from gpusim.results.plots.canvas import (
    blank_figure,
    keep_labels_inside,
    picture,
    set_log_scale,
    set_time_axis,
)
from gpusim.results.plots.compare import draw_comparison, read_runs
from gpusim.results.plots.evacuation import draw_evacuation
from gpusim.results.plots.run import draw_run
from gpusim.results.run_files import write_run
from tests.results.conftest import MakeEvacuation
from tests.results.plots.drawn import figure_of, texts
from tests.results.runs import RUNS
from tests.results.sweep_folders import write

PARTS = (
    *("$x^{$ _a_ \\frac \\$", "\u4e2d\u6587\U0001f9ff", "\x1b[31m\x00\u202e\ufffe"),
    *(
        "\u0645\u0631\u062d\u0628\u0627 \u05e9\u05dc\u05d5\u05dd",
        "a\nb\r\nc",
        "{} {0} %s %",
        "W" * 5000,
    ),
)
TEXTS = {"strange": " ".join(PARTS[:-1]), "long": PARTS[-1]}
every_text = pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)


@contextmanager
def saved(draw: Callable[..., Any], path: Path, *arguments: Any) -> Iterator[Any]:
    """A picture after it was written. It must print nothing, and pytest refuses warnings."""
    with picture(path) as figure:
        draw(figure, *arguments)
    assert path.stat().st_size > 5000
    yield figure


def assert_narrow_readable(draw: Callable[..., Any]) -> bytes:
    """Draw a picture for narrow pages, and return something in its place."""
    with blank_figure(narrow=True) as figure:
        draw(figure)
        keep_labels_inside(figure)
        figure.canvas.draw()
        assert_readable(figure)
    return b"narrow"


def assert_readable(figure: Any) -> None:
    """Check that titles, labels and ticks are inside, and that each panel has data and ticks."""
    width, height = figure.bbox.width, figure.bbox.height
    shown = [*figure.texts, *(text for one in figure.legends for text in one.get_texts())]
    for panel in figure.axes:
        shown += [panel.title, panel._left_title, panel.xaxis.label, panel.yaxis.label]
        for axis, limits in ((panel.xaxis, panel.get_xlim()), (panel.yaxis, panel.get_ylim())):
            low, high = sorted(limits)
            assert np.isfinite(limits).all()
            assert low < high
            assert any(low <= place <= high for place in axis.get_majorticklocs())
    for text in shown:
        if text.get_visible() and text.get_text():
            box = text.get_window_extent()
            assert box.x0 >= -2 and box.x1 <= width + 2, text
            assert box.y0 >= -2 and box.y1 <= height + 2, text


def test_each_character_without_a_glyph_is_an_escape() -> None:
    assert drawable("$x_1^2\\") == "$x_1^2\\"
    assert drawable("\u4e2d\x1b\u00e9\u0434") == "\\u4e2d\\x1b\u00e9\u0434"
    assert drawable("\U0001f9ff\u202e") == "\\U0001f9ff\\u202e"
    assert len(drawable("x" * 10**6)) < 1000


@every_text
def test_the_picture_of_a_run(text: str, tmp_path: Path) -> None:
    made = RUNS["not_converged"]()
    policies = f"throttle_rule my_rules:MyThrottle(text={text}), manager m:{text}"
    summary = replace(made.summary, policies=policies, reason=text * 3, qemu_version=text)
    result = replace(made, summary=summary)
    with saved(draw_run, tmp_path / "plot.png", result) as figure:
        assert_readable(figure)
    assert_narrow_readable(partial(draw_run, result=result))


def test_a_title_names_the_class_of_a_policy(tmp_path: Path) -> None:
    made = RUNS["converged"]()
    policies = "throttle_rule my_rules:MyThrottle(step=<object at 0x7f00>), manager a.b:Outer.Mine"
    summary = replace(made.summary, policies=policies)
    with figure_of(draw_run, replace(made, summary=summary)) as figure:
        title = texts(figure)[0]
    assert "throttle rule MyThrottle and manager Mine" in title
    assert title.endswith(decider_name(summary.qemu_version, policies))
    assert not any(part in title for part in ("my_rules", "a.b", "0x7f00"))


@every_text
def test_the_picture_of_an_evacuation(
    text: str, tmp_path: Path, make_evacuation: MakeEvacuation
) -> None:
    evacuation = make_evacuation([text, "db"], left=(text,), reason=text, order=text)
    with saved(draw_evacuation, tmp_path / "evacuation.png", evacuation) as figure:
        assert_readable(figure)
    assert_narrow_readable(partial(draw_evacuation, evacuation=evacuation))


@every_text
def test_the_picture_of_two_runs(text: str, tmp_path: Path) -> None:
    for number in (1, 2):
        write_run(RUNS["converged"](), tmp_path / str(number), plot=False)
    runs, _ = read_runs([tmp_path / "1", tmp_path / "2"])
    named = [replace(run, name=f"{text}{number}") for number, run in enumerate(runs)]
    assert_narrow_readable(partial(draw_comparison, runs=named, skipped=[(text, text)] * 9))
    with saved(draw_comparison, tmp_path / "diff.png", named, [(text, text)] * 9) as figure:
        assert_readable(figure)


NUMBERS: dict[str, list[Any]] = {
    "huge": [1e308, 1e24, 2, 1e300],
    "tiny": [5e-324, 1e-12, 1e-300, 0],
    "signs": [-1, 0, 1, -1e24],
    "near": [1e15, 1e15 + 2, 1e15 + 4, 1e15 + 6],
    "equal": ["1GiB", "1.0GiB", 2**30, "1024MiB"],
    "decades": [10.0**power for power in range(-12, 25, 2)],
    "many": list(range(-30, 30)),
    "sizes": ["1B", "1e12TiB", "1e300TiB", "0B"],
    "nothing": [None, "", "null", "NaN"],
    "texts": [*PARTS],
    "many texts": [f"{text}{number}" for text in PARTS for number in range(12)],
}
TIMES: dict[str, list[float]] = {
    "plain": [10.0, 20.0, 35.0],
    "zero": [0.0],
    "equal": [7.0],
    "tiny": [5e-324, 1e-9],
    "large": [1e10, 9.9e9],
    "decades": [1e-9, 1.0, 1e10, 0.0],
}


QUICK = (("huge", "decades"), ("texts", "plain"), ("nothing", "zero"))
OTHERS = (*((one, "plain") for one in NUMBERS), *(("signs", one) for one in TIMES))


@pytest.mark.parametrize(
    ("numbers", "times"),
    [*QUICK, *(pytest.param(*pair, marks=pytest.mark.slow) for pair in OTHERS)],
)
def test_the_pictures_of_a_sweep(
    numbers: str,
    times: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    drawn: dict[str, Any] = {}

    @contextmanager
    def kept(path: Path) -> Iterator[Any]:
        with picture(path) as figure:
            yield figure
        drawn[path.name] = figure
        assert_readable(figure)

    monkeypatch.setattr(collect, "picture", kept)
    monkeypatch.setattr(collect, "narrow_png", assert_narrow_readable)
    for index, number in enumerate(NUMBERS[numbers]):
        for limit in (300, 1e9)[: 1 + (len(NUMBERS[numbers]) < 9)]:
            time_s = TIMES[times][index % len(TIMES[times])]
            write(
                tmp_path / f"{index},{limit}",
                {"vm.vcpus": number, "migration.downtime_limit": limit},
                total_time_s=time_s,
                guest_cpu_lost_s=[0.0, 1e-300, 1e13, 5.0][index % 4],
                guest_cpu_lost_percent=[0.0, 1e6, 1e-300][index % 3],
            )
    assert collect.main([str(tmp_path)]) == 0
    assert capfd.readouterr().err == ""
    assert {"sweep.png", "pareto.png"} & drawn.keys()


@pytest.mark.parametrize("times_s", TIMES.values(), ids=TIMES)
def test_a_time_axis_has_ticks_for_any_times(times_s: list[float]) -> None:
    for from_zero in (True, False):
        with blank_figure() as figure:
            panel = figure.add_subplot()
            set_time_axis(panel.yaxis, times_s, name="Total time", from_zero=from_zero)
            figure.canvas.draw()
            low, high = panel.get_ylim()
            names = [text.get_text() for text in panel.yaxis.get_ticklabels()]
            assert sum(low <= place <= high for place in panel.get_yticks()) > 1
            assert len(set(names)) == len(names)
            assert not any("$" in name for name in names)


def test_a_users_matplotlibrc_changes_nothing(tmp_path: Path) -> None:
    import matplotlib

    strange: dict[Any, Any] = {"text.usetex": True, "figure.autolayout": True, "lines.marker": "x"}
    for name, options in (("one", {}), ("other", strange)):
        with matplotlib.rc_context(options), picture(tmp_path / name) as figure:
            draw_run(figure, RUNS["converged"]())
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()


@pytest.mark.parametrize("limits", [(1, 9), (2.5, 3.5), (1e-9, 1e9), (1e20, 1e22)])
def test_a_logarithmic_axis_has_plain_numbers(limits: tuple[float, float]) -> None:
    with blank_figure() as figure:
        panel = figure.add_subplot()
        for axis in (panel.xaxis, panel.yaxis):
            set_log_scale(axis)
        panel.set(xlim=limits, ylim=limits)
        figure.canvas.draw()
        for axis in (panel.xaxis, panel.yaxis):
            for text in (*axis.get_majorticklabels(), *axis.get_minorticklabels()):
                assert float(text.get_text().replace("\u2212", "-") or 1) > 0
