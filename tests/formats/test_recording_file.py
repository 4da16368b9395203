"""Does every shipped recording load, and does every broken file raise the right error?"""

from __future__ import annotations

import copy
import gzip
import json
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gpusim.formats.errors import RecordingError
from gpusim.formats.intake import read_intake
from gpusim.formats.recording_file import find_recordings, load_recording
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
    ("name", "content", "code"),
    [
        ("a.json", b"", "unreadable"),
        ("a.json", b'{"scenario": {"mem_mib": 10', "unreadable"),
        ("a.json", b"\xff\xfe\x00", "unreadable"),
        ("a.json", b"[1, 2, 3]", "bad_value"),
        ("a.json", b'{"name": "gpusim", "version": 1}', "missing"),
        ("a.json.xz", b"", "unreadable"),
        ("a.json.xz", SHORT.read_bytes()[:1000], "unreadable"),
        ("a.json.xz", b"{}", "unreadable"),
        ("a.json.gz", b"{}", "unreadable"),
        ("a.json.gz", gzip.compress(b"{}" * 1000, mtime=0)[:-9], "unreadable"),
        ("a.txt", b"{}", "wrong_suffix"),
    ],
)
def test_a_broken_file_is_one_line(tmp_path: Path, name: str, content: bytes, code: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(RecordingError) as caught:
        load_recording(path)
    assert (caught.value.code, caught.value.data["path"]) == (code, path)
    assert str(caught.value).count(str(path)) == 1
    assert "\n" not in str(caught.value)


def _drop(*keys: str | int) -> Callable[[Any], None]:
    def damage(document: Any) -> None:
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


def _multifd_with_zlib(document: Any) -> None:
    document["scenario"]["capabilities"].append("multifd")
    document["parameters"]["multifd-compression"] = "zlib"


def _cut(document: Any) -> None:
    """Lose the end in the trace and in the samples."""
    document["events"].pop()
    document["samples"].pop()


@pytest.mark.parametrize(
    ("damage", "code", "data"),
    [
        (_drop("writes_per_s_before"), "missing", {"key": "writes_per_s_before"}),
        (_drop("parameters", "downtime-limit"), "missing", {"key": "parameters.downtime-limit"}),
        (_drop("scenario", "guest", "size"), "missing", {"key": "scenario.guest.size"}),
        (_put(0, "scenario", "guest", "size"), "bad_value", {"key": "scenario.guest.size"}),
        (_put(7, "scenario", "guest", "mode"), "bad_value", {"value": 7}),
        (_put(8, "scenario", "guest", "hot"), "missing", {"key": "scenario.guest.hotpct"}),
        (
            _put(5000, "scenario", "guest", "size"),
            "working_set_outside_memory",
            {"end_mib": 5032, "mem_mib": 1024},
        ),
        (_put(["xbzrle"], "scenario", "capabilities"), "foreign_capabilities", {}),
        (_multifd_with_zlib, "bad_value", {"key": "parameters.multifd-compression"}),
        (_put("postcopy-active", "samples", 2, "status"), "too_few_samples", {"least": 3}),
        (_put("colo", "samples", 2, "status"), "too_few_samples", {"least": 3}),
        (_put("xen", "accelerator"), "bad_value", {"value": '"xen"'}),
        (_put([0.1, "no arguments"], "events", 3), "bad_value", {"key": "events[3]"}),
        (_put([9e9, "name", ""], "events", 3), "bad_value", {"key": "events[4]"}),
        (
            _put([0.5, "migration_bitmap_sync_end", "many"], "events", 3),
            "bad_value",
            {"key": "events[3][2]"},
        ),
        (_put([], "events"), "no_start", {}),
        (_put([], "samples"), "too_few_samples", {"samples": 0, "least": 3}),
        (_put({"t": "late"}, "samples", 5), "bad_value", {"key": "samples[5].t"}),
        (_put({"t": 1.0}, "samples", 5), "missing", {"key": "samples[5].status"}),
        (_put(1e308, "samples", 5, "t"), "bad_value", {"key": "samples[5].t"}),
        (_put(-5, "samples", 5, "t"), "bad_value", {"key": "samples[5].t"}),
        (_put(9000, "samples", 5, "t"), "bad_value", {"key": "samples[5].t"}),
        (_put(float("nan"), "samples", 5, "t"), "unreadable", {"suffix": ".json"}),
        (_put(0, "samples", 5, "writes"), "bad_value", {"key": "samples[5].writes"}),
        (_put(2**40, "samples", 5, "remaining"), "bad_value", {"key": "samples[5].remaining"}),
        (_put(0, "samples", 5, "transferred"), "bad_value", {"key": "samples[5].transferred"}),
        (
            _put(10**6, "samples", 5, "dirty-sync-count"),
            "bad_value",
            {"key": "samples[5].dirty-sync-count"},
        ),
        (_drop("samples", 5, "normal"), "missing", {"key": "samples[5].normal"}),
        (_put(100, "samples", 5, "cpu-throttle-percentage"), "bad_value", {"value": 100}),
        (_put([[0, 1]], "counter"), "bad_value", {"key": "counter"}),
        (_put([[1, 1], [2, 0]], "counter"), "bad_value", {"key": "counter[1][1]"}),
        (_put([[1, 1], [0, 2]], "counter"), "bad_value", {"key": "counter[1][0]"}),
        (_put([0.0105, "migrate_set_state", "new state failed"], "events", 4), "failed", {}),
        (_cut, "ends_early", {"limit_s": 200.0}),
    ],
)
def test_a_foreign_or_damaged_document_is_refused(
    tmp_path: Path,
    document: dict[str, Any],
    damage: Callable[[Any], Any],
    code: str,
    data: dict[str, Any],
) -> None:
    broken = copy.deepcopy(document)
    damage(broken)
    path = tmp_path / "broken.json"
    path.write_text(json.dumps(broken))
    with pytest.raises(RecordingError) as caught:
        load_recording(path)
    assert caught.value.code == code
    assert caught.value.data == caught.value.data | data
    assert "\n" not in str(caught.value)


def test_a_path_without_recordings_is_refused(tmp_path: Path) -> None:
    long = tmp_path / ("x" * 5000)
    for path, code in (
        (tmp_path, "empty_folder"),
        (tmp_path / "nowhere", "no_such_path"),
        (long, "unreadable_path"),
    ):
        with pytest.raises(RecordingError) as caught:
            find_recordings(path)
        assert caught.value.code == code


def _without(key: str) -> Callable[[dict[str, Any]], Any]:
    return lambda document: document.pop(key)


CUTS: dict[str, Callable[[dict[str, Any]], Any]] = {  # what a hand took out, and a replay needs
    "no events": _without("events"),
    "no start in the trace": lambda d: d.update(events=d["events"][5:]),
    "no speed before": _without("writes_per_s_before"),
    "no counts of writes": lambda d: [row.pop("writes") for row in d["samples"]],
    "no limit": lambda d: d["scenario"].pop("limit_s"),
}


@pytest.mark.parametrize("cut", CUTS.values(), ids=CUTS)
def test_a_cut_recording_shows_its_migration_and_is_no_replay(
    tmp_path: Path, document: dict[str, Any], cut: Callable[[dict[str, Any]], Any]
) -> None:
    path = tmp_path / "cut.json"
    mine = copy.deepcopy(document)
    cut(mine)
    path.write_text(json.dumps(mine))
    found, whole = load_recording(path, replayed=False), load_recording(SHORT, replayed=False)
    assert found.guest is None
    assert found.total_time_s == pytest.approx(whole.total_time_s, abs=0.01)
    assert [one.ram for one in found.samples] == [one.ram for one in whole.samples]
    with pytest.raises(RecordingError):
        load_recording(path)


def test_a_recording_without_its_end_goes_on(tmp_path: Path, document: dict[str, Any]) -> None:
    """The trace says no more than the samples do."""
    path = tmp_path / "cut.json"
    mine = copy.deepcopy(document)
    mine["samples"] = mine["samples"][:40]
    mine["events"] = [one for one in mine["events"] if "completed" not in one[2]]
    path.write_text(json.dumps(mine))
    found = load_recording(path, replayed=False)
    assert not found.completed
    assert found.limit_s == found.samples[-1].time_s >= found.events[-1].time_s
    assert found.guest is not None
    with pytest.raises(RecordingError) as caught:
        load_recording(path)
    assert caught.value.code == "ends_early"


def test_a_recording_without_its_settings_says_which_key_to_copy(
    tmp_path: Path, document: dict[str, Any]
) -> None:
    path = tmp_path / "cut.json"
    path.write_text(json.dumps({key: document[key] for key in document if key != "parameters"}))
    with pytest.raises(RecordingError, match="copy parameters from the whole file"):
        load_recording(path, replayed=False)


def test_a_recording_without_its_scenario_is_still_known(
    tmp_path: Path, document: dict[str, Any]
) -> None:
    path = tmp_path / "cut.json"
    path.write_text(json.dumps({key: document[key] for key in document if key != "scenario"}))
    with pytest.raises(RecordingError, match="scenario is missing"):
        read_intake(path)


def test_bytes_without_pages_are_refused(tmp_path: Path, document: dict[str, Any]) -> None:
    """Otherwise the guest would seem to write nothing."""
    path = tmp_path / "a.json"
    mine = copy.deepcopy(document)
    for row in mine["samples"]:
        if "normal" in row:
            row.update(normal=0, duplicate=0)
    path.write_text(json.dumps(mine))
    with pytest.raises(RecordingError) as caught:
        load_recording(path, replayed=False)
    assert caught.value.code == "no_page_counts"
