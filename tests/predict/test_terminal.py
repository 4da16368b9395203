"""Does the text for a terminal fit it, and does it begin with the answer?"""

from __future__ import annotations

import shlex
from dataclasses import replace

import pytest

from gpusim.predict import prediction_text
from gpusim.predict.terminal import WIDTH, prediction_lines
from gpusim.text import Message
from tests.golden import check_golden
from tests.predict import advised, predictions


def test_the_text_of_a_migration_that_converges() -> None:
    text = prediction_lines(predictions.prediction(13, 20), advised.advice(), advised.better())
    check_golden("predict", text + "\n")


def test_the_text_of_a_migration_that_does_not_converge() -> None:
    text = prediction_lines(predictions.prediction(0, 20), advised.advice(advised.stalled()))
    check_golden("predict_stalled", text + "\n")


@pytest.mark.parametrize(("converging", "count"), [(20, 20), (13, 20), (0, 20), (1, 1)])
def test_the_text_fits_a_terminal(converging: int, count: int) -> None:
    note = Message("profile_note", {"note": "long names and words " * 20})
    found = predictions.prediction(converging, count, assumptions=(note,))
    text = prediction_lines(found, advised.advice(), advised.better())
    assert max(map(len, text.splitlines())) <= WIDTH
    assert not text.endswith("\n") and "\n\n\n" not in text


def test_the_answer_comes_first_then_what_to_change_then_warnings() -> None:
    found = predictions.prediction(0, 20)
    blocks = prediction_lines(found, advised.advice(advised.stalled())).split("\n\n")
    assert blocks[1].startswith(prediction_text.title(found))
    assert "link.bandwidth=14Gbit/s" in blocks[2]
    assert blocks[3].startswith("Warnings")


def test_a_command_is_one_line_for_a_shell() -> None:
    text = prediction_lines(predictions.prediction())
    command = text.split("# libvirt\n")[1].split("  # OpenStack")[0]
    lines = command.replace("\\\n", " ").splitlines()
    assert [shlex.split(line)[:2] for line in lines] == [
        ["virsh", "migrate-setmaxdowntime"],
        ["virsh", "migrate"],
    ]


def test_a_guest_that_is_never_throttled() -> None:
    members = tuple(replace(one, throttle_s={}) for one in predictions.members(5, 5))
    assert "QEMU never throttles" in prediction_lines(predictions.prediction(members=members))


def test_an_idle_guest_has_no_table_of_writers() -> None:
    idle = prediction_lines(predictions.prediction(fit=predictions.fit(writers=())))
    assert prediction_text.IDLE in idle and "at random" not in idle
