"""A run's folder whose run is the middle one of a prediction, and whose page tells the prediction first.

Owns the prediction's sections of report.html and the order in which the folder is filled; what the
folder of a run holds is results/files.py's.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from html import escape
from pathlib import Path

from gpusim.config.run_hash import run_hash
from gpusim.engine.attempts import simulate
from gpusim.explore.goal_search import BetterSettings
from gpusim.explore.setting_limits import Advice
from gpusim.files import write_text
from gpusim.predict import advice_text, prediction_text
from gpusim.predict.commands import Words
from gpusim.predict.document import document
from gpusim.predict.experiment import experiment_yaml
from gpusim.predict.plot import draw_prediction
from gpusim.predict.prediction import HIGH, LOW, Member, Prediction
from gpusim.predict.terminal import WARNINGS
from gpusim.results import begin_run, require_matplotlib, write_run
from gpusim.results.html.run_page import Introduction
from gpusim.results.run_files import EXPERIMENT, PREDICTION, PREDICTION_PNG, REPORT
from gpusim.version import __version__


def write_report(
    prediction: Prediction, advice: Advice | None, better: BetterSettings | None, folder: Path
) -> Path:
    """Write the folder of the middle member's run, with the prediction: the summary last of all.

    Its run, and those at both ends of the band, are simulated once more, for their timelines.

    Args:
        prediction: to tell.
        advice, better: see page.lines.
        folder: made if missing; what an earlier run left there is replaced.

    Returns:
        The page.

    Raises:
        ResultsError: matplotlib is missing; nothing is written.
        OSError: a file cannot be written; summary.json is then not there.
    """
    require_matplotlib()
    config = replace(prediction.median_member.config, plot=True)
    result, *edges = [
        simulate(member.config) for member in (prediction.median_member, *_edges(prediction))
    ]
    begin_run(config, folder)
    numbers = json.dumps(document(prediction, advice, better), indent=2, allow_nan=False)
    write_text(folder / PREDICTION, numbers + "\n")
    experiment = folder / EXPERIMENT
    experiment.parent.mkdir(exist_ok=True)
    write_text(experiment, experiment_yaml(prediction, experiment))
    draw_prediction(prediction, result, edges, folder / PREDICTION_PNG)
    picture = (folder / PREDICTION_PNG).read_bytes()
    write_run(
        result,
        folder,
        config=asdict(config),
        run_hash=run_hash(config),
        introduction=foreword_of(prediction, advice, better, picture),
    )
    return folder / REPORT


def _edges(prediction: Prediction) -> list[Member]:
    """The members at the ends of the band of total times, where they are others than the middle one."""
    members = prediction.agreeing()
    ranks = [round((len(members) + 1) * percent / 100) for percent in (LOW, HIGH)]  # as of a band
    places = [min(max(rank, 1), len(members)) - 1 for rank in ranks]
    middle = len(members) // 2
    return [members[place] for place in places if places[0] < middle < places[1]]


def foreword_of(
    prediction: Prediction, advice: Advice | None, better: BetterSettings | None, picture: bytes
) -> Introduction:
    """The prediction as the page of its middle run begins with it; `picture` is prediction.png."""
    count = len(prediction.members)
    told = f"{prediction_text.subject(prediction)}: predicted by gpusim {__version__} from {prediction_text.origin(prediction.profile)}."
    sections = [
        section("prediction", "Prediction", _verdict(prediction, advice)),
        section("ensemble", "The prediction in one picture", _figure(prediction, picture)),
        section("guest", "The guest that fits", _guest(prediction)),
        *_advice(advice),
        *_better(prediction, better),
        *_words(advice_text.words(prediction, better), better),
        section("assumptions", "Assumed", _bullets(prediction_text.assumptions(prediction))),
        section(
            "middle",
            "The middle one",
            _paragraphs(
                [
                    f"All that follows is of one of the {count} simulated migrations: the one in the middle."
                ]
            ),
        ),
    ]
    doubtful = prediction_text.doubtful(prediction)
    title = prediction_text.title(prediction) + (f" ({doubtful})" if doubtful else "")
    return Introduction(title=title, subtitle=told, html="".join(sections))


def _verdict(prediction: Prediction, advice: Advice | None) -> str:
    warnings = prediction_text.warnings(prediction)
    said_first = _paragraphs(prediction_text.verdict(prediction))
    said_first += _paragraphs([f"{WARNINGS}:"] if warnings else []) + _bullets(warnings)
    bands = table(
        ("Quantity", "Middle", prediction_text.BAND),
        prediction_text.rows(prediction),
        f"Over {prediction_text.whose(prediction)}.",
    )
    where = prediction_text.where_the_time_goes(prediction)
    said = [f"The middle one's time: {where}."] if where else []
    ways = _ways_out(prediction, advice) if advice is not None else ""
    return said_first + ways + bands + _paragraphs(said) + _throttle(prediction)


def _ways_out(prediction: Prediction, advice: Advice) -> str:
    ways = advice_text.ways_out(prediction, advice)
    if ways is None:
        return ""
    items = "".join(
        f"<li>{escape(way.said)}"
        + "".join(f"<br><code>{escape(line)}</code>" for line in way.lines)
        + (f"<br>{escape(way.tools)}" if way.tools else "")
        + "</li>\n"
        for way in ways.found
    )
    return _paragraphs([ways.head]) + (f"<ul>\n{items}</ul>\n" if items else "")


def _throttle(prediction: Prediction) -> str:
    steps = prediction_text.throttle_rows(prediction)
    if not steps:
        return _paragraphs(["The guest is never throttled."])
    rows = [(percent, many, row.middle, row.band) for percent, many, row in steps]
    head = ("Throttle", "Migrations", "First set at", prediction_text.BAND)
    return table(head, rows, "When each step of the throttle comes.")


def _figure(prediction: Prediction, picture: bytes) -> str:
    data = base64.b64encode(picture).decode()
    text = (
        "Four panels: what is left to send over time in a short, the middle and a long migration; what "
        "became dirty while the guest was measured, and what the fitted guest dirties; when each step of "
        f"the throttle comes; how the total times lie. {prediction_text.title(prediction)}."
    )
    return (
        '<figure>\n<img width="1200" height="900" '
        f'alt="{escape(text)}" src="data:image/png;base64,{data}">\n'
        "<figcaption>Shaded: where a migration lies nine times in ten. Bars at what was "
        "measured: its error of sampling, rounding and the guest's drift, nine in ten too. "
        f'<a href="{PREDICTION_PNG}">The picture in full size</a></figcaption>\n</figure>\n'
    )


def _guest(prediction: Prediction) -> str:
    fit, profile = prediction.fit, prediction.profile
    writers = prediction_text.writer_rows(fit, profile.page_bytes)
    said = prediction_text.measured(profile, fit)
    if not writers:
        return _paragraphs([prediction_text.UNSEEN, *said])
    head = ("Writes", "Pages", "Page writes", "So often")
    return table(head, writers, "What writes as the profile says.") + _paragraphs(said)


def _advice(advice: Advice | None) -> list[str]:
    if advice is None:
        return []
    limits = table(
        advice_text.LIMITS,
        advice_text.limit_rows(advice),
        "How far each setting may go before it does not converge.",
    )
    said = [
        *advice_text.notes(advice),
        advice_text.fallback_sync(advice.median_guest.fallback_sync),
    ]
    return [section("advice", "Advice", limits + _paragraphs(said))]


def _better(prediction: Prediction, better: BetterSettings | None) -> list[str]:
    if better is None:
        return []
    rows = advice_text.better_rows(prediction, better)
    whose = "Of the heavy guest." if better.for_p95_guest else "Of the middle guest."
    found = table(rows[0], rows[1:], whose) if rows else ""
    body = found + _paragraphs(advice_text.better_notes(better))
    return [section("better", "Better settings", body)]


def _words(tools: Mapping[str, Words], better: BetterSettings | None) -> list[str]:
    """Each tool behind a click: nobody uses all of them."""
    parts = [
        f"<details>\n<summary>{escape(tool)}</summary>\n<pre><code>"
        + escape("\n".join(words.lines))
        + f"</code></pre>\n{_bullets(words.notes)}</details>\n"
        for tool, words in tools.items()
    ]
    which = "The better settings in" if better is not None and better.settings else "In"
    return [section("words", f"{which} the words of the tools", "".join(parts))] if parts else []


def section(name: str, title: str, body: str) -> str:
    return (
        f'<section aria-labelledby="{name}">\n<h2 id="{name}">{escape(title)}</h2>\n'
        f"{body}</section>\n"
    )


def _paragraphs(said: Iterable[str]) -> str:
    """Those that say anything."""
    return "".join(f"<p>{escape(one)}</p>\n" for one in said if one)


def _bullets(said: Sequence[str]) -> str:
    if not said:
        return ""
    return "<ul>\n" + "".join(f"<li>{escape(one)}</li>\n" for one in said) + "</ul>\n"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], caption: str) -> str:
    """A table whose rows' first cell is their name."""
    names = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    body = "".join(
        f'<tr><th scope="row">{escape(name)}</th>'
        + "".join(f"<td>{escape(cell)}</td>" for cell in cells)
        + "</tr>\n"
        for name, *cells in rows
    )
    return (
        f"<table>\n<caption>{escape(caption)}</caption>\n<thead>\n<tr>{names}</tr>\n</thead>\n"
        f"<tbody>\n{body}</tbody>\n</table>\n"
    )
