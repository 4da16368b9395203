"""Does an attached recorder send only queries, keep what it gets, and note what is missing?"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from gpusim.formats.recording import UNCOUNTED_NOTE
from gpusim.formats.recording_file import read_document
from gpusim.reading import ReadingError
from gpusim.record import attached
from gpusim.record.messages import RecordError, note
from gpusim.validation.replay import replay_config
from tests.monitor.fake_qmp import ACTIVE, COMPLETED, GREETING, IDLE, event, qmp_server


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attached, "SAMPLE_EVERY_S", 0.002)
    monkeypatch.setattr(attached, "TRACE_TIMEOUT_S", 0.2)


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Advance the wall clock by 0.2 s per answer, as total-time does.

    It is read three times each.
    """
    now = [1000.0]

    def tick() -> float:
        now[0] += 0.2 / 3
        return now[0]

    monkeypatch.setattr(attached.time, "time", tick)


def watch(server: socket.socket, **options: Any) -> dict[str, Any]:
    return asyncio.run(attached.attach(server, lambda _: None, **options))


def test_it_only_asks() -> None:
    with qmp_server([IDLE, IDLE, *ACTIVE, COMPLETED]) as (server, commands):
        watch(server)
    assert commands[0] == "qmp_capabilities"  # the protocol's greeting
    assert all(command.startswith("query-") for command in commands[1:])
    assert set(commands[1:]) == {
        "query-version",
        "query-kvm",
        "query-cpus-fast",
        "query-migrate",
        "query-migrate-parameters",
        "query-migrate-capabilities",
    }


def test_a_whole_migration_becomes_a_recording_that_can_be_replayed() -> None:
    with qmp_server([IDLE, *ACTIVE, COMPLETED]) as (server, _):
        document = watch(server)
    assert document["ended"] == "completed"
    assert document["notes"] == []
    assert document["capabilities"] == ["auto-converge", "events"]
    recording = read_document(document, "attached")
    assert (recording.qemu, recording.vcpus, recording.accelerator) == ((9, 2), 2, "tcg")
    assert recording.ram_bytes == 256 * 2**20
    assert recording.guest is None
    assert recording.total_time_s == 2.7
    assert recording.stop_s == pytest.approx(2.68)
    assert replay_config(recording).vm.memory == 256 * 2**20


def test_qemu_11_1_counts_not_each_sync_and_the_note_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(GREETING["QMP"]["version"], "qemu", {"major": 11, "minor": 1, "micro": 3})
    no_rate = [row | {"remaining": 2**20, "expected-downtime": 2**63 - 1} for row in ACTIVE]
    with qmp_server([IDLE, *no_rate, COMPLETED | {"remaining": 0}]) as (server, _):
        document = watch(server)
    assert document["notes"] == [UNCOUNTED_NOTE]
    assert len(document["samples"]) == len(ACTIVE) + 1
    read_document(document, "attached")


def test_one_that_runs_already_is_joined_and_says_so() -> None:
    with qmp_server([*ACTIVE[4:], COMPLETED]) as (server, _):
        document = watch(server)
    assert document["notes"] == [note("joined", late_s=1.0, syncs=1)]
    assert read_document(document, "joined").total_time_s == 2.7


def test_a_migration_before_is_not_taken_for_the_next() -> None:
    with qmp_server([COMPLETED, COMPLETED, *ACTIVE, COMPLETED]) as (server, _):
        document = watch(server)
    assert [row["status"] for row in document["samples"]] == ["active"] * 12 + ["completed"]


def test_events_are_kept_and_their_absence_is_noted() -> None:
    def events_before(number: int) -> list[dict[str, Any]]:
        return [event("MIGRATION_PASS", 1002.0, **{"pass": 2})] if number == 5 else []

    with qmp_server([IDLE, *ACTIVE, COMPLETED], events_before=events_before) as (server, _):
        document = watch(server)
    assert [row[1:] for row in document["qmp_events"]] == [["MIGRATION_PASS", {"pass": 2}]]
    with qmp_server([IDLE, *ACTIVE, COMPLETED], events_on=False) as (server, _):
        assert watch(server)["notes"] == [note("events_off")]


def test_when_qemu_quits_what_was_seen_stays() -> None:
    with qmp_server([IDLE, *ACTIVE], hang_up=True) as (server, _):
        document = watch(server)
    assert document["ended"] == "connection closed"
    assert document["notes"] == [note("closed")]
    recording = read_document(document, "cut")
    assert not recording.completed
    assert recording.limit_s == pytest.approx(ACTIVE[-1]["total-time"] / 1000, abs=0.05)


def test_when_qemu_quits_behind_its_completion_it_completed() -> None:
    def events_before(number: int) -> list[dict[str, Any]]:
        return [event("MIGRATION", 1005.0, status="completed")] if number == len(ACTIVE) else []

    with qmp_server([IDLE, *ACTIVE], hang_up=True, events_before=events_before) as (server, _):
        document = watch(server)
    assert document["notes"] == [note("closed_after_end")]
    assert read_document(document, "quit").completed


def test_a_limit_and_a_cancel_end_a_recording() -> None:
    with qmp_server([IDLE, *ACTIVE]) as (server, _):
        document = watch(server, limit_s=1.0)
    assert (document["ended"], document["samples"][-1]["total-time"]) == ("limit", 1000)
    with qmp_server([IDLE, *ACTIVE, {"status": "cancelled"}]) as (server, _):
        document = watch(server)
    assert document["ended"] == "cancelled"
    assert not read_document(document, "cancelled").completed


def test_ctrl_c_keeps_what_was_seen() -> None:
    async def interrupted(server: socket.socket) -> dict[str, Any]:
        enough = asyncio.Event()
        seen = [0]

        def progress(_: str) -> None:
            seen[0] += 1
            if seen[0] == 6:
                enough.set()

        task = asyncio.create_task(attached.attach(server, progress))
        await enough.wait()
        task.cancel()
        return await task

    with qmp_server([IDLE, *ACTIVE]) as (server, _):
        document = asyncio.run(interrupted(server))
    assert document["ended"] == "interrupted"
    assert not read_document(document, "interrupted").completed


def test_ctrl_c_before_the_begin_leaves_nothing() -> None:
    async def interrupted(server: socket.socket) -> None:
        task = asyncio.create_task(attached.attach(server, lambda _: task.cancel()))
        with contextlib.suppress(asyncio.CancelledError):
            await task
        assert task.cancelled()

    with qmp_server([IDLE]) as (server, _):
        asyncio.run(interrupted(server))


@pytest.mark.parametrize(
    ("answers", "code", "data"),
    [
        ([IDLE], "closed_before_start", {}),
        ([IDLE, *ACTIVE[:2]], "too_few_answers", {"answers": 2}),
        (
            [IDLE, *ACTIVE, {"status": "failed", "error-desc": "no\nroute"}],
            "migration_failed",
            {"reason": "no\nroute"},
        ),
    ],
)
def test_what_is_no_recording_is_one_line(
    answers: list[dict[str, Any]], code: str, data: dict[str, Any]
) -> None:
    with (
        qmp_server(answers, hang_up=True) as (server, _),
        pytest.raises(RecordError) as caught,
    ):
        watch(server)
    assert caught.value.code == code
    assert caught.value.data == caught.value.data | data
    assert "\n" not in str(caught.value)


def trace(start_s: float) -> str:
    """Return the trace of an earlier migration, then of this one."""
    return "\n".join(
        (
            f"17@{start_s - 60:.6f}:migrate_set_state new state setup",
            f"17@{start_s - 50:.6f}:migrate_set_state new state failed",
            "qemu-system-x86_64: a word of its own",
            f"17@{start_s:.6f}:migrate_set_state new state setup",
            f"17@{start_s + 0.01:.6f}:migration_bitmap_sync_start ",
            f"17@{start_s + 0.02:.6f}:migration_bitmap_sync_end dirty_pages 0",
            f"17@{start_s + 2.6:.6f}:migration_bitmap_sync_start ",
            f"17@{start_s + 2.61:.6f}:migration_bitmap_sync_end dirty_pages 100",
            f"17@{start_s + 2.68:.6f}:migration_completion_vm_stop ret 0",
            f"17@{start_s + 2.7:.6f}:migrate_set_state new state completed",
            "",
        )
    )


def seen_start_s() -> float:
    with qmp_server([IDLE, *ACTIVE, COMPLETED]) as (server, _):
        seen = attached.Watched()
        asyncio.run(_only_follow(server, seen))
    return seen.start_s


async def _only_follow(server: socket.socket, seen: attached.Watched) -> None:
    async with attached.Monitor(server) as monitor:
        await attached._wait_for_start(monitor, seen, lambda _: None)
        await attached._follow(monitor, seen, lambda _: None, None)


def test_qemus_trace_is_merged_by_the_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "qemu.log"
    began_s = [0.0]
    begin = attached._wait_for_start

    async def begun(*arguments: Any) -> None:
        await begin(*arguments)
        began_s[0] = attached.time.time()
        log.write_text(trace(began_s[0]))

    log.touch()
    monkeypatch.setattr(attached, "_wait_for_start", begun)
    with qmp_server([IDLE, *ACTIVE, COMPLETED]) as (server, _):
        document = watch(server, trace_log=log)
    assert document["notes"] == []
    assert len(document["events"]) == 7
    assert abs(document["events"][0][0]) < 1
    assert read_document(document, "traced").total_time_s == pytest.approx(2.7)


def test_too_few_answers_are_one_line_with_a_trace_too(tmp_path: Path) -> None:
    log = tmp_path / "qemu.log"
    log.write_text(trace(1000.0))
    quick = {"status": "setup", "total-time": 1}
    with (
        qmp_server([IDLE, quick, COMPLETED]) as (server, _),
        pytest.raises(RecordError) as caught,
    ):
        watch(server, trace_log=log)
    assert (caught.value.code, caught.value.data["answers"]) == ("too_few_answers", 0)


def test_when_qemu_quits_its_trace_says_that_it_completed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "qemu.log"
    log.touch()
    begin = attached._wait_for_start

    async def begun(*arguments: Any) -> None:
        await begin(*arguments)
        log.write_text(trace(attached.time.time()))

    monkeypatch.setattr(attached, "_wait_for_start", begun)
    with qmp_server([IDLE, *ACTIVE], hang_up=True, events_on=False) as (server, _):
        document = watch(server, trace_log=log)
    assert document["notes"][-1] == note("closed_after_end")
    assert "limit_s" not in document["scenario"]
    recording = read_document(document, "quit")
    assert recording.completed
    assert recording.limit_s == pytest.approx(2 * 2.7)


def test_a_log_that_is_lost_meanwhile_costs_the_trace_alone(tmp_path: Path) -> None:
    with qmp_server([IDLE, *ACTIVE, COMPLETED]) as (server, _):
        document = watch(server, trace_log=tmp_path)  # a folder: can be accessed, not read
    assert document["events"] == []
    reason = "not a regular file but a folder"
    assert document["notes"] == [note("lost_trace_log", path=tmp_path, reason=reason)]


def test_a_log_that_is_a_pipe_or_never_ends_costs_the_trace_alone(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with (tmp_path / "sparse").open("wb") as sparse:
        sparse.truncate(2**40)
    for path in (tmp_path / "pipe", tmp_path / "sparse"):
        with pytest.raises(ReadingError):
            attached.read_last_migration(path)


@pytest.mark.parametrize(
    "content", ["", "migrate_set_state new state setup\n", trace(1.7e9), "\x00\xff"]
)
def test_a_log_without_this_migration_is_left_out(tmp_path: Path, content: str) -> None:
    log = tmp_path / "qemu.log"
    log.write_text(content)
    with qmp_server([IDLE, *ACTIVE, COMPLETED]) as (server, _):
        document = watch(server, trace_log=log)
    assert document["events"] == []
    assert document["notes"] == [note("no_trace", path=log)]


def test_a_log_that_is_not_there_is_refused_at_once(tmp_path: Path) -> None:
    with qmp_server([IDLE]) as (server, commands):
        with pytest.raises(RecordError) as caught:
            watch(server, trace_log=tmp_path / "none")
        assert caught.value.code == "unreadable_trace_log"
        assert commands == []


def test_a_migration_too_short_to_be_seen_is_refused() -> None:
    """It started and ended between two answers, so the recorder does not wait for it."""
    gone = {**COMPLETED, "total-time": 32}
    with qmp_server([IDLE, gone]) as (server, _), pytest.raises(RecordError) as caught:
        watch(server)
    assert (caught.value.code, caught.value.data["status"]) == ("too_short", "completed")
