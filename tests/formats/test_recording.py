"""Does every shipped recording load, and does every broken file say in one line what is wrong?"""

from __future__ import annotations

import copy
import gzip
import json
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gpusim.formats.recording import RecordingError, find_recordings, load_recording
from gpusim.validation.shipped import SHIPPED

SHORT = SHIPPED / "converges.qemu10.a.json.xz"


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    """The shortest recording, as parsed JSON."""
    parsed: dict[str, Any] = json.loads(lzma.decompress(SHORT.read_bytes()))
    return parsed


@pytest.mark.parametrize("path", find_recordings(SHIPPED), ids=lambda path: path.name)
def test_every_shipped_recording_loads(path: Path) -> None:
    recording = load_recording(path)
    assert path.name.startswith(recording.case)
    times = [sample.time_s for sample in recording.samples]
    assert times == sorted(set(times))
    assert times[0] >= 0
    assert recording.completed == (recording.samples[-1].status == "completed")


def test_all_39_recordings_are_shipped() -> None:
    assert len(find_recordings(SHIPPED)) == 39


def test_plain_and_gzip_files_are_read_as_xz_is(tmp_path: Path) -> None:
    raw = lzma.decompress(SHORT.read_bytes())
    (tmp_path / "converges.qemu10.a.json").write_bytes(raw)
    (tmp_path / "converges.qemu10.a.json.gz").write_bytes(gzip.compress(raw))
    shipped = load_recording(SHORT)
    assert [load_recording(path) for path in find_recordings(tmp_path)] == [shipped, shipped]


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("a.json", b"", "not JSON"),
        ("a.json", b'{"scenario": {"mem_mib": 10', "not JSON"),
        ("a.json", b"\xff\xfe\x00", "not JSON"),
        ("a.json", b"[1, 2, 3]", "scenario"),
        ("a.json", b'{"name": "gpusim", "version": 1}', "scenario"),
        ("a.json.xz", b"", "damaged compression"),
        ("a.json.xz", SHORT.read_bytes()[:1000], "damaged compression"),
        ("a.json.xz", b"{}", "damaged compression"),
        ("a.json.gz", b"{}", "cannot be read"),
        ("a.json.gz", gzip.compress(b"{}" * 1000, mtime=0)[:-9], "damaged compression"),
        ("a.txt", b"{}", "expected .json"),
    ],
)
def test_a_broken_file_is_one_line(
    tmp_path: Path, name: str, content: bytes, complaint: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(RecordingError, match=complaint) as caught:
        load_recording(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert str(caught.value).count(str(path)) == 1  # said once, by whom it concerns
    assert "expected" in str(caught.value)
    assert "\n" not in str(caught.value)


def _drop(*keys: str) -> Callable[[dict[str, Any]], None]:
    def damage(document: dict[str, Any]) -> None:
        for key in keys[:-1]:
            document = document[key]
        del document[keys[-1]]

    return damage


def _put(value: object, *keys: str | int) -> Callable[[Any], None]:
    def damage(document: Any) -> None:
        for key in keys[:-1]:
            document = document[key]
        document[keys[-1]] = value

    return damage


def _cut(document: Any) -> None:
    """The end is lost on every way."""
    document["events"].pop()
    document["samples"].pop()


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (_drop("writes_per_s_before"), "writes_per_s_before"),
        (_drop("parameters", "downtime-limit"), "downtime-limit"),
        (_drop("scenario", "guest", "size"), "size"),
        (_put(7, "scenario", "guest", "mode"), "mode"),
        (_put(5000, "scenario", "guest", "size"), "ends behind its memory"),
        (_put(["multifd"], "scenario", "capabilities"), "multifd"),
        (_put([0.1, "no arguments"], "events", 3), r"events\[3\]"),
        (_put([], "events"), "new state setup"),
        (_put([], "samples"), "samples"),
        (_put({"t": "late"}, "samples", 5), r"samples\[5\]"),
        (_put(float("nan"), "samples", 5, "t"), r"samples\[5\]"),
        (_put(0, "samples", 5, "writes"), "counter fell"),
        (_put([0.0, "migrate_set_state", "new state failed"], "events", 4), "failed in QEMU"),
        (_cut, "ends after 11.5 s"),
    ],
)
def test_a_foreign_or_damaged_document_is_refused(
    tmp_path: Path, document: dict[str, Any], damage: Callable[[Any], Any], complaint: str
) -> None:
    broken = copy.deepcopy(document)
    damage(broken)
    path = tmp_path / "broken.json"
    path.write_text(json.dumps(broken))
    with pytest.raises(RecordingError, match=complaint):
        load_recording(path)


def test_a_path_without_recordings_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="no recordings in this folder"):
        find_recordings(tmp_path)
    with pytest.raises(RecordingError, match="no such file"):
        find_recordings(tmp_path / "nowhere")
