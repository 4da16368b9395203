"""The folder of `gpusim-predict --report`: the run of the median migration, and the prediction.

Owns the values of the page's template and the order in which the files appear. gpusim/results owns
the folder of a run.
"""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

from gpusim.config.run_hash import run_hash
from gpusim.config.schema import Config
from gpusim.engine.attempts import simulate
from gpusim.engine.records import Result
from gpusim.explore.goal_search import BetterSettings
from gpusim.explore.setting_limits import Advice
from gpusim.files import whole_folder, write_text
from gpusim.predict import advice_text, postcopy_text, prediction_text
from gpusim.predict.bands import HIGH, LOW
from gpusim.predict.document import document
from gpusim.predict.experiment import experiment_yaml
from gpusim.predict.messages import text_of
from gpusim.predict.plot import draw_prediction
from gpusim.predict.prediction import Member, Prediction
from gpusim.results import begin_run, require_matplotlib, write_run
from gpusim.results.html.render import render
from gpusim.results.html.run_page import Introduction
from gpusim.results.run_files import EXPERIMENT, PREDICTION, PREDICTION_PNG, REPORT
from gpusim.version import __version__

TEMPLATES = Path(__file__).with_name("templates")


def write_report(
    prediction: Prediction, advice: Advice | None, better: BetterSettings | None, folder: Path
) -> Path:
    """Write the run of the median migration, with the prediction on top of its page.

    The run, and those at both ends of the band, are simulated again for their timelines.

    Args:
        prediction: to show.
        advice: limits of the settings, if known.
        better: better settings for a goal, if searched.
        folder: made if missing. The files of an earlier run are replaced.

    Returns:
        The path of the page.

    Raises:
        ResultsError: matplotlib is missing. Nothing is written.
        OSError: a file cannot be written. An empty folder is empty again.
    """
    require_matplotlib()
    config = replace(prediction.median_member.config, plot=True)
    result, *edges = [
        simulate(member.config) for member in (prediction.median_member, *_edges(prediction))
    ]
    with whole_folder(folder):
        _write(prediction, advice, better, folder, config, result, edges)
    return folder / REPORT


def _write(
    prediction: Prediction,
    advice: Advice | None,
    better: BetterSettings | None,
    folder: Path,
    config: Config,
    result: Result,
    edges: list[Result],
) -> None:
    begin_run(config, folder)
    numbers = json.dumps(document(prediction, advice, better), indent=2, allow_nan=False)
    write_text(folder / PREDICTION, numbers + "\n")
    experiment = folder / EXPERIMENT
    experiment.parent.mkdir(exist_ok=True)
    write_text(experiment, experiment_yaml(prediction, experiment))
    narrow = draw_prediction(prediction, result, edges, folder / PREDICTION_PNG)
    picture = (folder / PREDICTION_PNG).read_bytes()
    write_run(
        result,
        folder,
        config=asdict(config),
        run_hash=run_hash(config),
        introduction=introduction_of(prediction, advice, better, picture, narrow),
    )


def _edges(prediction: Prediction) -> list[Member]:
    """Return the members at both ends of the band of total times, if the median lies between."""
    members = prediction.agreeing()
    ranks = [round((len(members) + 1) * percent / 100) for percent in (LOW, HIGH)]
    places = [min(max(rank, 1), len(members)) - 1 for rank in ranks]
    median = len(members) // 2
    return [members[place] for place in places if places[0] < median < places[1]]


def introduction_of(
    prediction: Prediction,
    advice: Advice | None,
    better: BetterSettings | None,
    picture: bytes,
    narrow: bytes,
) -> Introduction:
    """Return the part of the page that comes before the median migration.

    Args:
        prediction: to show.
        advice: limits of the settings, if known.
        better: better settings for a goal, if searched.
        picture, narrow: prediction.png, and the same for narrow pages.
    """
    fit, profile = prediction.fit, prediction.profile
    subject = prediction_text.subject(prediction)
    source = f"Predicted by gpusim {__version__} from {profile.source}."
    commands = advice_text.commands_for(prediction, better)
    better_rows = [] if better is None else advice_text.better_rows(prediction, better)
    html = render(
        "prediction.html",
        TEMPLATES,
        answer=prediction_text.answer(prediction),
        reasons=prediction_text.reasons(prediction),
        warnings=prediction_text.warnings(prediction),
        ways_out=None if advice is None else advice_text.ways_out(prediction, advice),
        margin="" if advice is None else advice_text.margin(advice),
        band=prediction_text.BAND,
        band_members=prediction_text.band_members(prediction),
        rows=prediction_text.rows(prediction),
        time_parts=prediction_text.time_parts(prediction),
        throttle_rows=prediction_text.throttle_rows(prediction),
        title=prediction_text.title(prediction),
        picture=picture,
        narrow=narrow,
        writers=prediction_text.writer_rows(fit, profile.page_bytes),
        idle=prediction_text.IDLE,
        measured=prediction_text.measured(profile, fit),
        limits_head=advice_text.LIMITS_HEAD,
        limit_rows=None if advice is None else _limit_rows(advice),
        limit_notes=[] if advice is None else map(text_of, advice_text.limit_notes(advice)),
        ways_head=() if prediction.ways is None else postcopy_text.heads(prediction.ways),
        ways_rows=[
            (label, *(f"{median} ({edges})" if edges else median for median, edges in cells))
            for label, cells in postcopy_text.rows(prediction)
        ],
        ways_texts=postcopy_text.sentences(prediction),
        recommended=postcopy_text.recommended(prediction),
        better_head=better_rows[0] if better_rows else None,
        better_rows=better_rows[1:],
        better_guest="" if better is None else advice_text.better_guest(better),
        better_notes=[] if better is None else [*map(text_of, advice_text.better_notes(better))],
        commands_heading=advice_text.commands_heading(prediction, better),
        commands=[
            (tool, one.lines, [text_of(note) for note in one.notes])
            for tool, one in commands.items()
        ],
        assumptions=prediction_text.assumptions(prediction),
        members=len(prediction.members),
    )
    texts = (f"{subject}.", prediction_text.unreliable(prediction), source)
    subtitle = " ".join(filter(None, texts))
    return Introduction(title=prediction_text.headline(prediction), subtitle=subtitle, html=html)


def _limit_rows(advice: Advice) -> list[tuple[str, ...]]:
    return [
        (
            row.label,
            row.now,
            *(
                f"{cell.value} ({cell.outcome})" if cell.outcome else cell.value
                for cell in (row.median, row.p95)
            ),
        )
        for row in advice_text.limit_rows(advice)
    ]
