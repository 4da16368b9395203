"""Is the file that a killed recorder leaves a whole recording at every moment?"""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import pytest

from gpusim.formats.recording_file import load_recording
from gpusim.record import attached, cut_file
from gpusim.record.cut_file import CutFile
from gpusim.record.messages import note
from tests.monitor.fake_qmp import ACTIVE, COMPLETED, IDLE, event, qmp_server


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Advance the wall clock by 0.2 s per answer, as total-time does."""
    now = [1000.0]

    def tick() -> float:
        now[0] += 0.2 / 3
        return now[0]

    monkeypatch.setattr(attached.time, "time", tick)
    monkeypatch.setattr(attached, "SAMPLE_EVERY_S", 0.0)


def watch(cut: CutFile, progress: Any = lambda _: None) -> dict[str, Any]:
    def events_before(number: int) -> list[dict[str, Any]]:
        if number < 4:
            return []
        return [event("MIGRATION_PASS", 1001.0 + number / 5, **{"pass": number})]

    with qmp_server([IDLE, *ACTIVE, COMPLETED], events_before=events_before) as (server, _):
        return asyncio.run(attached.attach(server, progress, cut=cut))


def test_every_moment_leaves_a_whole_recording(tmp_path: Path) -> None:
    cut, seen = CutFile(tmp_path / "out", "vm"), []

    def progress(_: str) -> None:
        if cut.path is not None:
            recording = load_recording(cut.path)
            assert not recording.completed
            seen.append((len(recording.samples), len(recording.passes_s)))

    document = watch(cut, progress)
    assert [samples for samples, _ in seen] == list(range(3, 13))
    assert seen[-1][1] == 9
    assert cut.path is not None
    assert cut.path.name == "vm.qemu9.cut.a.json"
    left = json.loads(cut.path.read_text())
    assert (left["ended"], left["notes"]) == ("cut", [note("cut")])
    assert len(left["samples"]) == len(document["samples"])
    assert load_recording(cut.path).total_time_s == 2.7
    cut.remove()
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("written", [0, 50])
def test_a_full_disk_keeps_what_is_in_the_file(
    written: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut, calls = CutFile(tmp_path, "vm"), [0]
    write = os.pwrite

    def full(handle: int, content: bytes, place: int) -> int:
        calls[0] += 1
        if calls[0] == 6:
            return write(handle, content[:written], place)
        return write(handle, content, place)

    monkeypatch.setattr(cut_file.os, "pwrite", full)
    document = watch(cut)
    assert document["ended"] == "completed"
    assert document["notes"] == [note("no_cut_file", reason="the disk is full")]
    assert cut.path is not None
    assert len(load_recording(cut.path).samples) == 7


def test_a_folder_that_cannot_be_written_costs_this_file_alone(tmp_path: Path) -> None:
    (tmp_path / "out").touch()
    cut = CutFile(tmp_path / "out", "vm")
    assert watch(cut)["ended"] == "completed"
    assert cut.path is None
    assert cut.failure
    cut.remove()


def test_each_event_is_turned_into_a_row_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, rows = [], attached._event_rows

    def counted(events: Any, start_s: float) -> list[list[Any]]:
        made.append(len(events))
        return rows(events, start_s)

    monkeypatch.setattr(attached, "_event_rows", counted)
    document = watch(CutFile(tmp_path, "vm"))
    assert sum(made) == 2 * len(document["qmp_events"])  # for the cut file, and at the end
