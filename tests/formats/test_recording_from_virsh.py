"""Do virsh's logs become the same recording as QEMU's own answers?"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gpusim import simulate
from gpusim.formats import sync_record
from gpusim.formats.errors import RecordingError, VirshLogError
from gpusim.formats.quantities import recorded_quantities
from gpusim.formats.recording import UNCOUNTED_NOTE, Recording
from gpusim.formats.recording_file import read_document
from gpusim.formats.recording_from_virsh import (
    NO_END_NOTE,
    NO_SETUP_NOTE,
    ROUNDED_NOTE,
    STAMPS_NOTE,
    UNPLACED_NOTE,
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
    assert held["notes"] == [STAMPS_NOTE]
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


@pytest.mark.parametrize("raw", [True, False])
def test_syncs_that_qemu_11_1_does_not_count_are_found(tmp_path: Path, raw: bool) -> None:
    """libvirt's iteration is QEMU's count. 14 syncs were made, and QEMU reports 10."""
    held_back = converted(tmp_path, document("recorder/kvm_uniform.qemu11.a"), raw=raw)
    assert UNCOUNTED_NOTE in held_back["notes"]
    found = recorded_quantities(read_document(held_back, "logs"))
    assert (found.syncs_made, found.dirty_sync_count) == (14, 10)


def test_without_events_the_start_is_libvirts_and_the_note_says_so(tmp_path: Path) -> None:
    held = document("uniform-mid.qemu10.a")
    (tmp_path / "jobs.log").write_text(logs(held)[0])
    held_back = convert(tmp_path / "jobs.log", None)
    assert held_back["notes"] == [STAMPS_NOTE, NO_SETUP_NOTE, NO_END_NOTE]
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


STAMP = re.compile(r"^(\d{9,})\.\d+$", re.MULTILINE)
CLOCKS: dict[str, Callable[[str], str]] = {
    "whole seconds": lambda text: STAMP.sub(r"\1", text),
    "a date without %N": lambda text: STAMP.sub(r"\1.N", text),
    "none": lambda text: STAMP.sub("", text),
    "one for all": lambda text: STAMP.sub("1700000000.5", text),
    "only before": lambda text: re.sub(r"\n\n\d{9,}\.\d+$", "\n", text, flags=re.MULTILINE),
    "a clock that was set": lambda text: STAMP.sub(
        lambda found: f"{float(found[0]) + 7200 * (float(found[1]) > 1_700_000_006):.6f}", text
    ),
}


@pytest.mark.parametrize("raw", [True, False])
@pytest.mark.parametrize("clock", CLOCKS)
def test_time_elapsed_is_the_clock_if_the_stamps_are_not_usable(
    tmp_path: Path, clock: str, raw: bool
) -> None:
    held = document(CASE)
    jobs, events = logs(held, raw=raw)
    (tmp_path / "jobs.log").write_text(CLOCKS[clock](jobs))
    (tmp_path / "events.log").write_text(events)
    found = convert(tmp_path / "jobs.log", tmp_path / "events.log")
    assert (found["notes"][0] == STAMPS_NOTE) == (clock == "only before")
    assert UNPLACED_NOTE not in found["notes"]
    recording = read_document(found, "logs")
    real = read_document(held, CASE)
    assert recording.total_time_s == pytest.approx(real.total_time_s, abs=0.01)
    assert recording.samples[-2].time_s == pytest.approx(real.samples[-2].time_s, abs=0.6)
    assert recorded_quantities(recording).dirty_sync_count == (
        recorded_quantities(real).dirty_sync_count
    )


@pytest.mark.parametrize("clock", ["whole seconds", "none"])
def test_without_events_the_time_elapsed_gives_the_length(tmp_path: Path, clock: str) -> None:
    held = document("uniform-mid.qemu10.a")
    (tmp_path / "jobs.log").write_text(CLOCKS[clock](logs(held)[0]))
    recording = read_document(convert(tmp_path / "jobs.log", None), "jobs alone")
    assert recording.limit_s == pytest.approx(held["samples"][-2]["t"] + 0.35, abs=0.01)


def test_events_that_nothing_places_are_left_out(tmp_path: Path) -> None:
    jobs, events = logs(document(CASE))
    (tmp_path / "jobs.log").write_text(CLOCKS["none"](jobs.replace("Job type: 3", "Job type: 4")))
    (tmp_path / "events.log").write_text(events)
    found = convert(tmp_path / "jobs.log", tmp_path / "events.log")
    assert UNPLACED_NOTE in found["notes"]
    assert found["qmp_events"] == []


@pytest.mark.parametrize("clock", CLOCKS)
def test_a_log_without_a_clock_is_refused(tmp_path: Path, clock: str) -> None:
    jobs = logs(document(CASE))[0].replace("time_elapsed", "elapsed")
    (tmp_path / "jobs.log").write_text(CLOCKS[clock](jobs))
    if clock in ("only before", "a clock that was set"):
        return  # nothing contradicts these stamps
    with pytest.raises(VirshLogError) as caught:
        convert(tmp_path / "jobs.log", None)
    assert caught.value.code == "no_clock"


def test_without_stamps_an_attempt_before_is_left_out(tmp_path: Path) -> None:
    held = document(CASE)
    jobs, events = logs(held)
    retried = held | {"samples": held["samples"][10:30]}
    (tmp_path / "jobs.log").write_text(CLOCKS["none"](logs(retried)[0] + jobs))
    (tmp_path / "events.log").write_text(events)
    twice = read_document(convert(tmp_path / "jobs.log", tmp_path / "events.log"), "twice")
    assert len(twice.samples) == pytest.approx(len(held["samples"]), abs=2)


NUMBERS = (
    "1_000",
    "\u0661\u0662",
    "inf",
    "nan",
    "0x10",
    "1e5",
    "9" * 400,
    "-5",
    "1.2.3",
    "5 KB",
    "1,000",
)


@pytest.mark.parametrize("number", NUMBERS)
def test_a_number_that_virsh_does_not_print_is_never_misread(tmp_path: Path, number: str) -> None:
    jobs = re.sub("memory_remaining: .*", f"memory_remaining: {number}", logs(document(CASE))[0])
    (tmp_path / "jobs.log").write_text(jobs)
    with pytest.raises((VirshLogError, RecordingError)) as caught:
        convert(tmp_path / "jobs.log", None)
    assert caught.value.code in ("too_few_answers", "bad_value")


@pytest.mark.parametrize("form", ["crlf", "bom", "utf-16", "empty", "newlines", "gz"])
def test_encodings_and_empty_files(tmp_path: Path, form: str) -> None:
    text = logs(document(CASE))[0]
    forms = {
        "crlf": text.replace("\n", "\r\n").encode(),
        "bom": b"\xef\xbb\xbf" + text.encode(),
        "utf-16": text.encode("utf-16"),
        "empty": b"",
        "newlines": b"\n" * 10**6,
        "gz": gzip.compress(text.encode()),
    }
    path = tmp_path / ("jobs.log.gz" if form == "gz" else "jobs.log")
    path.write_bytes(forms[form])
    if form in ("crlf", "bom", "utf-16", "gz"):
        assert len(convert(path, None)["samples"]) > 10
        return
    with pytest.raises(VirshLogError) as caught:
        convert(path, None)
    assert caught.value.code == "too_few_answers"


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
        (
            lambda text: text.replace('"minor": 0', '"minor": "0"'),
            "bad_answer",
            {"query": "query-version"},
        ),
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
