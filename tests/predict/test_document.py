"""Does the JSON hold every number, code and text of a prediction?"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpusim.predict.document import BANDS, document
from gpusim.predict.messages import text_of
from gpusim.predict.prediction import MODEL_ERROR
from tests.predict import advised, predictions

DOCUMENTED = Path(__file__).parents[2] / "docs/how-to/predict-a-migration.md"


def test_the_document_comes_back_from_json() -> None:
    found = document(predictions.prediction(13, 20), advised.advice(), advised.better())
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert (found["converges"], found["probability"]) == (True, 0.65)
    assert found["code"] == "probably_converges"
    edges = {"low": 101.0 * (1 - MODEL_ERROR), "middle": 107.0, "high": 113.0 * (1 + MODEL_ERROR)}
    assert found["total_time_s"] == pytest.approx(edges)
    assert [one["converges"] for one in found["members"]] == [True] * 13 + [False] * 7
    assert found["throttle"][1]["percent"] == 30 and found["throttle"][1]["share"] == 0.5
    assert found["members"][0]["throttle_s"] == {"20": 71.0, "30": 81.0}
    assert found["advice"]["typical"]["limits"][0]["found"] == "5.25Gbit/s"
    assert found["better"]["settings"]["cpu_throttle_initial"] == 50


def test_the_keys_of_advice_and_of_better_settings_stay() -> None:
    """Programs read them. The code may use other names."""
    found = document(predictions.prediction(), advised.advice(), advised.better())
    advice, better = found["advice"], found["better"]
    assert list(advice) == ["typical", "heavy", "cut"]
    assert list(advice["heavy"]) == ["now", "limits", "fallback_sync", "ways_out"]
    assert " ".join(advice["heavy"]["limits"][0]) == (
        "name key now found value also outcome too_hard finished exceptions"
    )
    stalled = document(predictions.prediction(), advised.advice(advised.stalled()))["advice"]
    limits = stalled["typical"]["limits"]
    assert [limit["also"] for limit in limits] == ["migration.multifd_channels=2", ""]
    assert " ".join(advice["heavy"]["fallback_sync"]) == "there key value with_it without_it"
    assert " ".join(better) == (
        "goal bounds now settings outcome gain runs finished of_heavy heavy_now heavy check "
        "rejected postcopy"
    )


def test_messages_have_codes_and_texts() -> None:
    prediction = predictions.prediction()
    found = document(prediction)
    messages = [*prediction.fit.warnings, *prediction.assumptions]
    assert found["doubts_and_assumptions"] == [text_of(one) for one in messages]
    codes = [one["code"] for one in (*found["warnings"], *found["assumptions"])]
    assert codes == [one.code for one in messages]
    for commands in found["in_words"].values():
        assert len(commands["codes"]) == len(commands["notes"])


def test_a_number_that_is_not_finite_is_null() -> None:
    odd = predictions.fit(residuals=np.array([math.nan, math.inf]), chi_square=math.inf)
    found: dict[str, Any] = document(predictions.prediction(0, 20, fit=odd))
    json.dumps(found, allow_nan=False)
    assert found["guest"]["residuals_in_deviations"] == [None, None]
    assert found["downtime_ms"] is None


def test_an_idle_guest_has_no_writers() -> None:
    idle = predictions.prediction(fit=predictions.fit(writers=()))
    assert document(idle)["guest"]["writers"] == []


def test_every_key_is_documented() -> None:
    text = DOCUMENTED.read_text()
    found = document(predictions.prediction())
    wanted = {*found, *BANDS, *found["vm"], *found["guest"], *found["guest"]["writers"][0]}
    wanted |= {*found["members"][0], *found["throttle"][0]}
    assert not [key for key in wanted if f"`{key}`" not in text]
