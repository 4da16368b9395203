"""Does a post-mortem tell what QEMU's counters tell, and find what would have helped?"""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gpusim.explore.bounds import Bounds
from gpusim.explore.run_pool import MOST_STEPS, RunPool
from gpusim.formats.intake import read_intake
from gpusim.formats.recording_file import load_recording
from gpusim.predict.post_mortem import explain, periods_of, throttle_steps
from gpusim.predict.post_mortem_page import write_page
from gpusim.predict.post_mortem_text import (
    FIRST_ROWS,
    LAST_ROWS,
    PERIODS_HEAD,
    period_rows,
    post_mortem_document,
    terminal_text,
)
from gpusim.validation.shipped import SHIPPED
from tests.cli.command import REPOSITORY
from tests.golden import check_golden

LOGS = REPOSITORY / "docs" / "logs"
NO_AUTOCONVERGE = SHIPPED / "no-autoconverge.qemu10.a.json.xz"


def test_periods_balance_with_the_memory() -> None:
    """What is left is all RAM plus what became dirty, without what was sent."""
    recording = load_recording(NO_AUTOCONVERGE)
    dirtied = sent = 0.0
    periods = list(periods_of(recording))
    for one in periods:
        dirtied, sent = dirtied + one.dirtied_bytes, sent + one.sent_bytes
        assert one.left_bytes == pytest.approx(recording.ram_bytes + dirtied - sent, abs=4096)
    assert sum(one.seconds for one in periods) == pytest.approx(periods[-1].ended_s)


def test_throttle_steps_are_the_rises() -> None:
    found = throttle_steps(load_recording(SHIPPED / "paced-high.qemu10.a.json.xz"))
    assert [percent for _, percent in found] == [20, 30, 40, 50, 60, 70, 80, 90, 99]


def test_a_file_without_a_guest_has_a_page_too(tmp_path: Path) -> None:
    found = explain(read_intake(LOGS / "proxmox-task.log"), bounds=Bounds(total_time_s=1800))
    assert found.prediction is None and not found.periods
    text = terminal_text(found)
    assert max(map(len, text.splitlines())) <= 100 and len(text.splitlines()) < 40
    check_golden("explain_proxmox", text + "\n")
    page = write_page(found, tmp_path / "page")
    assert "<script" not in page.read_text()
    numbers = json.loads((page.parent / "post_mortem.json").read_text())
    assert (numbers["code"], numbers["outcome"], numbers["coarse"]) == ("no", "cancelled", True)


def test_the_syncs_of_a_recording_are_explained() -> None:
    """A migration of one pass fits no guest, so nothing is simulated."""
    found = explain(read_intake(SHIPPED / "converges.qemu10.a.json.xz"))
    assert found.prediction is None and found.periods
    check_golden("explain_recording", terminal_text(found) + "\n")


def test_a_line_of_a_log_is_shown_as_text(tmp_path: Path) -> None:
    text = (LOGS / "virt-launcher.log").read_text()
    end = "Live migration failed <b onclick=x>\\u001b[31m"
    (tmp_path / "a.log").write_text(text.replace("Live migration succeeded.", end))
    found = explain(read_intake(tmp_path / "a.log"), search=False)
    page = write_page(found, tmp_path / "page").read_text()
    assert "<b onclick" not in page and "\x1b" not in terminal_text(found)


def test_effort_lengthens_the_runs_of_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    member = SimpleNamespace(config_under_load=None)
    found = SimpleNamespace(median_member=member, p95_member=member)
    steps: list[int] = []

    def pool(*, most_steps: int) -> RunPool:
        steps.append(most_steps)
        return RunPool(most_steps=most_steps)

    def search(*_: Any, pool: RunPool) -> None:
        assert isinstance(pool, RunPool)

    monkeypatch.setattr("gpusim.predict.post_mortem.predict", lambda *_, **__: found)
    monkeypatch.setattr("gpusim.predict.post_mortem.find_change", search)
    monkeypatch.setattr("gpusim.predict.post_mortem.RunPool", pool)
    for effort in (1, 3):
        explain(read_intake(NO_AUTOCONVERGE), effort=effort)
    assert steps == [MOST_STEPS, 3 * MOST_STEPS]


@pytest.mark.slow
def test_the_change_that_would_have_helped_is_simulated(tmp_path: Path) -> None:
    found = explain(read_intake(NO_AUTOCONVERGE), members=2)
    assert found.prediction is not None and not found.prediction.converges
    assert found.change is not None and found.change.outcome is not None
    assert found.change.settings == "migration.auto_converge=true"
    assert found.change.outcome.verdict == "converged"
    rows = period_rows(found)
    assert len(rows) == FIRST_ROWS + 1 + LAST_ROWS
    assert {len(row) for row in rows} == {len(PERIODS_HEAD)}
    document = post_mortem_document(found)
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert write_page(found, tmp_path / "page").is_file()


def test_a_file_without_capabilities_does_not_claim_that_auto_converge_was_off() -> None:
    """No answer of query-migrate tells the capabilities."""
    found = explain(read_intake(LOGS / "query-migrate.json"), search=False, members=2)
    text = terminal_text(found)
    assert "Auto-converge was off" not in text


def test_too_few_periods_give_no_advice_for_a_profile() -> None:
    found = explain(read_intake(SHIPPED / "short" / "postcopy_permitted.qemu11.a.json.xz"))
    reason = terminal_text(found).partition("No guest was fitted")[2]
    assert "0 periods between syncs can be measured" in reason
    assert "Name a" not in reason and "as a profile" not in reason
