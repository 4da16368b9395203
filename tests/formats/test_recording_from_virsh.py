"""Do virsh's logs become the same recording as QEMU's own answers?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gpusim import simulate
from gpusim.formats import sync_record
from gpusim.formats.errors import VirshLogError
from gpusim.formats.quantities import recorded_quantities
from gpusim.formats.recording import Recording
from gpusim.formats.recording_file import read_document
from gpusim.formats.recording_from_virsh import (
    NO_END_NOTE,
    NO_SETUP_NOTE,
    ROUNDED_NOTE,
    convert,
)
from gpusim.reading import read_bytes
from gpusim.validation.replay import replay_config
from gpusim.validation.shipped import SHIPPED
from studies.stripped import stripped
from tests.formats.virsh_logs import CASE, logs

EXAMPLE = Path(__file__).parents[2] / "docs" / "libvirt"


def document(case: str) -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads(read_bytes(SHIPPED / f"{case}.json.xz"))
    return parsed


def converted(folder: Path, held: dict[str, Any], **options: bool) -> dict[str, Any]:
    for name, text in zip(("jobs.log", "events.log"), logs(held, **options), strict=True):
        (folder / name).write_text(text)
    return convert(folder / "jobs.log", folder / "events.log")


def seen(recording: Recording) -> list[tuple[float, int]]:
    return [(s.time_s, s.newly_dirty_pages) for s in sync_record.find_syncs(recording)]


def test_the_example_is_one_of_our_recordings_in_virshs_form() -> None:
    for name, text in zip(("jobs.log", "events.log"), logs(document(CASE)), strict=True):
        assert (EXAMPLE / name).read_text() == text


def test_the_example_tells_what_qemu_did() -> None:
    held = convert(EXAMPLE / "jobs.log", EXAMPLE / "events.log")
    assert held["notes"] == []
    recording = read_document(held, "example")
    logged, real = (
        recorded_quantities(recording),
        recorded_quantities(read_document(document(CASE), CASE)),
    )
    assert logged.total_time_s == pytest.approx(real.total_time_s, abs=0.002)
    assert logged.dirty_sync_count == real.dirty_sync_count
    assert logged.transferred_bytes == real.transferred_bytes
    run = simulate(replay_config(recording)).summary
    assert run.total_time_s == pytest.approx(real.total_time_s, rel=0.01)


@pytest.mark.parametrize("stamped", [False, True])
@pytest.mark.parametrize("raw", [True, False])
def test_syncs_are_those_of_the_trace(tmp_path: Path, raw: bool, stamped: bool) -> None:
    """virsh's own stamp is in milliseconds. Its text rounds pages from 1 GiB on."""
    held = document("uniform-mid.qemu10.a")
    held_back = converted(tmp_path, held, raw=raw, stamped=stamped)
    assert (ROUNDED_NOTE in held_back["notes"]) != raw
    ours = seen(read_document(held_back, "logs"))
    real = seen(read_document(stripped(held, trace=True), "trace"))
    assert len(ours) == len(real)
    for (time_s, pages), (real_s, real_pages) in list(zip(ours, real, strict=True))[:4]:
        assert time_s == pytest.approx(real_s, abs=0.002)
        assert pages == pytest.approx(real_pages, abs=3 if raw else 300)
    throttle = recorded_quantities(read_document(held_back, "logs")).max_throttle_percent
    assert throttle == 50


def test_without_events_the_start_is_libvirts_and_the_note_says_so(tmp_path: Path) -> None:
    held = document("uniform-mid.qemu10.a")
    (tmp_path / "jobs.log").write_text(logs(held)[0])
    held_back = convert(tmp_path / "jobs.log", None)
    assert held_back["notes"] == [NO_SETUP_NOTE, NO_END_NOTE]
    recording = read_document(held_back, "jobs alone")
    assert not recording.completed
    # Its elapsed time counts the preparations.
    assert recording.samples[0].time_s == pytest.approx(0.207 + 0.35, abs=0.01)


def test_the_last_of_several_migrations_is_taken(tmp_path: Path) -> None:
    jobs, events = logs(document(CASE))
    earlier = 'event MIGRATION at 1600000000.000001 for domain guest: {"status":"setup"}\n'
    (tmp_path / "jobs.log").write_text(jobs)
    (tmp_path / "events.log").write_text(earlier + events)
    events = convert(tmp_path / "jobs.log", tmp_path / "events.log")["qmp_events"]
    assert events[0][0] == 0


def test_answers_of_an_attempt_before_are_left_out(tmp_path: Path) -> None:
    held = document(CASE)
    jobs, events = logs(held)
    retried = held | {"samples": [row | {"t": row["t"] - 60} for row in held["samples"][:20]]}
    (tmp_path / "jobs.log").write_text(logs(retried)[0] + jobs)
    (tmp_path / "events.log").write_text(events)
    twice = read_document(convert(tmp_path / "jobs.log", tmp_path / "events.log"), "twice")
    once = read_document(convert(EXAMPLE / "jobs.log", EXAMPLE / "events.log"), "once")
    assert twice.samples == once.samples


@pytest.mark.parametrize(
    ("damage", "code", "data"),
    [
        (lambda text: "", "too_few_answers", {"answers": 0}),
        (
            lambda text: text.replace("max-bandwidth", "bandwidth"),
            "no_answer",
            {"query": "query-migrate-parameters"},
        ),
        (lambda text: text.replace('"qemu"', '"kemu"'), "no_answer", {"query": "query-version"}),
        (lambda text: text.replace("memory_iteration", "iteration"), "too_few_answers", {}),
        (lambda text: "\x00\xff" + text[:300], "too_few_answers", {}),
        (lambda text: '{"return": [1]}\n' + text[:300], "too_few_answers", {}),
    ],
)
def test_a_log_that_lacks_something_is_one_line(
    tmp_path: Path, damage: Any, code: str, data: dict[str, Any]
) -> None:
    jobs, _ = logs(document(CASE))
    (tmp_path / "jobs.log").write_text(damage(jobs))
    with pytest.raises(VirshLogError) as caught:
        convert(tmp_path / "jobs.log", None)
    assert caught.value.code == code
    assert caught.value.data == caught.value.data | data
    assert "\n" not in str(caught.value)


def test_a_log_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(VirshLogError) as caught:
        convert(tmp_path / "none.log", None)
    assert caught.value.code == "unreadable"


def test_an_event_that_was_cut_is_passed_over(tmp_path: Path) -> None:
    jobs, events = logs(document(CASE))
    (tmp_path / "jobs.log").write_text(jobs)
    (tmp_path / "events.log").write_text(
        events + "event STOP at 1.5 for domain 'guest': {\"a\":}\n"
    )
    assert convert(tmp_path / "jobs.log", tmp_path / "events.log")["ended"] == "completed"
