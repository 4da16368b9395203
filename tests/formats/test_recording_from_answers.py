"""Do query-migrate's answers become the same recording, however a script keeps them?"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gpusim.cli.record import main
from gpusim.config.schema import (
    BackendConfig,
    Config,
    LimitConfig,
    LinkConfig,
    MigrationConfig,
    VmConfig,
    WriterConfig,
)
from gpusim.formats.errors import AnswersError, RecordingError
from gpusim.formats.quantities import recorded_quantities
from gpusim.formats.recording import UNCOUNTED_NOTE
from gpusim.formats.recording_file import load_recording, read_document
from gpusim.formats.recording_from_answers import NO_END_NOTE, convert, parse_facts
from tests.formats.answers import answers_of

MIB = 2**20
Answers = list[dict[str, Any]]
Wrap = Callable[[Answers], str]


@pytest.fixture(scope="module")
def answers() -> Answers:
    """A migration of 512 MiB at 128 MiB/s, without auto-converge."""
    config = Config(
        vm=VmConfig(memory=512 * MIB, vcpus=2, zero_ranges=[]),
        workload=WriterConfig(working_set=256 * MIB, page_writes_per_s=10_000),
        link=LinkConfig(bandwidth="10Gbit/s"),
        migration=MigrationConfig(max_bandwidth=128 * MIB, auto_converge=False),
        backend=BackendConfig(name="numpy", threads=1),
        limit=LimitConfig(),
        plot=False,
    )
    _, found = answers_of(config)
    assert len(found) > 20
    return found


def converted(folder: Path, text: str, *facts: str) -> dict[str, Any]:
    path = folder / "answers.json"
    path.write_text(text)
    return convert(path, parse_facts(facts))


def stamped(key: str, stamp: Callable[[int], object]) -> Wrap:
    return lambda rows: json.dumps([{key: stamp(row["total-time"]), "info": row} for row in rows])


def keep_samples(rows: Answers) -> str:
    return json.dumps({"samples": rows, "host": "a"})


def keep_lines(rows: Answers) -> str:
    lines = [json.dumps({"return": row, "id": place}) for place, row in enumerate(rows)]
    return "\n".join(["# query-migrate", *lines, '{"return": {"status": "comp'])


FORMS: dict[str, Wrap] = {
    "qmp": lambda rows: json.dumps([{"return": row} for row in rows]),
    "pairs": lambda rows: json.dumps([[row["total-time"] / 1000, row] for row in rows]),
    "samples": keep_samples,
    "lines": keep_lines,
    "seconds": stamped("t", lambda ms: 1.7e9 + ms / 1000),
    "milliseconds": stamped("timestamp", lambda ms: 1_700_000_000_000 + ms),
    "text": stamped("time", lambda ms: f"2026-01-01T00:00:{ms / 1000:06.3f}Z"),
    "flat": lambda rows: json.dumps([{"time": row["total-time"]} | row for row in rows]),
    "idle": lambda rows: json.dumps([{}, {"status": "none"}, *rows, {}, rows[-1]]),
    "foreign": lambda rows: json.dumps([{"status": []}, [{"capability": {}}], "active", *rows]),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_the_same_recording(tmp_path: Path, answers: Answers, form: str) -> None:
    bare = converted(tmp_path, json.dumps(answers))
    assert converted(tmp_path, FORMS[form](answers)) == bare
    recording = read_document(bare, "bare")
    assert recording.completed
    assert recording.total_time_s == answers[-1]["total-time"] / 1000
    assert recorded_quantities(recording).dirty_sync_count == answers[-1]["ram"]["dirty-sync-count"]
    assert len(recording.samples) == len(answers)


def test_what_the_answers_lack_is_assumed_and_named(tmp_path: Path, answers: Answers) -> None:
    held = converted(tmp_path, json.dumps(answers))
    assert (held["accelerator"], held["qemu"]["major"], held["vcpus"]) == ("kvm", 10, 1)
    assert held["scenario"]["capabilities"] == []
    assert held["parameters"]["max-bandwidth"] == 128 * MIB
    assert "max-bandwidth=134217728" in held["notes"][0]
    older = [row | {"ram": row["ram"] | {"skipped": 0}} for row in answers]
    assert converted(tmp_path, json.dumps(older))["qemu"]["major"] == 7
    fast = [row | {"ram": row["ram"] | {"mbps": 9000.0}} for row in answers]
    assert converted(tmp_path, json.dumps(fast))["parameters"]["max-bandwidth"] == 0
    throttled = [row | {"cpu-throttle-percentage": 20} for row in answers]
    assert converted(tmp_path, json.dumps(throttled))["capabilities"] == ["auto-converge"]


def test_an_answer_with_the_memory_of_all_devices_is_of_11_1(
    tmp_path: Path, answers: Answers
) -> None:
    newer = [row | {"remaining": row["ram"]["remaining"]} for row in answers]
    held = converted(tmp_path, json.dumps(newer))
    assert (held["qemu"]["major"], held["qemu"]["minor"]) == (11, 1)
    assert held["notes"][1:] == [UNCOUNTED_NOTE]


def test_multifd_has_its_channels(tmp_path: Path, answers: Answers) -> None:
    used = [row | {"ram": row["ram"] | {"multifd-bytes": 1000}} for row in answers]
    held = converted(tmp_path, json.dumps(used))
    assert "multifd-channels=2" in held["notes"][0]
    assert read_document(held, "assumed").multifd_channels == 2
    stated = converted(tmp_path, json.dumps(used), "multifd-channels=8")
    assert read_document(stated, "stated").multifd_channels == 8
    both = [*used, {"max-bandwidth": 2**27, "multifd-channels": 4, "multifd-compression": "none"}]
    assert read_document(converted(tmp_path, json.dumps(both)), "read").multifd_channels == 4
    packed = converted(tmp_path, json.dumps([*both, both[-1] | {"multifd-compression": "zstd"}]))
    assert read_document(packed, "a profile", replayed=False).multifd_channels == 4
    with pytest.raises(RecordingError) as caught:
        read_document(packed, "no replay")
    assert caught.value.data["key"] == "parameters.multifd-compression"


def test_facts_of_the_user_and_of_the_file_are_taken(tmp_path: Path, answers: Answers) -> None:
    file = {
        "version": {"return": {"qemu": {"major": 9, "minor": 2, "micro": 0}, "package": ""}},
        "kvm": {"return": {"enabled": False, "present": True}},
        "cpus": [{"cpu-index": 0}, {"cpu-index": 1}],
        "capabilities": [{"capability": "auto-converge", "state": True}],
        "parameters": {"max-bandwidth": 64 * MIB, "downtime-limit": 500},
        "answers": answers,
    }
    held = converted(tmp_path, json.dumps(file), "downtime-limit=100", "vcpus=4")
    assert (held["qemu"]["major"], held["accelerator"], held["vcpus"]) == (9, "tcg", 4)
    assert held["capabilities"] == ["auto-converge"]
    assert held["parameters"]["max-bandwidth"] == 64 * MIB
    assert held["parameters"]["downtime-limit"] == 100


def test_the_last_migration_is_taken(tmp_path: Path, answers: Answers) -> None:
    failed = [*answers[:9], answers[9] | {"status": "cancelled"}]
    alone = converted(tmp_path, json.dumps(answers))
    assert converted(tmp_path, json.dumps([*failed, *answers])) == alone
    cut = converted(tmp_path, json.dumps(failed))
    assert cut["notes"][-1] == NO_END_NOTE
    recording = read_document(cut, "cut")
    assert not recording.completed
    assert recording.limit_s == pytest.approx(1.8, abs=0.01)


def with_status(status: str, place: int) -> Wrap:
    return lambda rows: json.dumps([*rows[:place], rows[place] | {"status": status}])


@pytest.mark.parametrize(
    ("damage", "code"),
    [
        (lambda rows: "", "unreadable"),
        (lambda rows: "no answers\nat all", "unreadable"),
        (lambda rows: '[{"status": "active", "total-time": NaN', "unreadable"),
        (lambda rows: "[]", "too_few_answers"),
        (lambda rows: "17", "too_few_answers"),
        (lambda rows: json.dumps(rows[:2]), "too_few_answers"),
        (lambda rows: json.dumps([row | {"total-time": "1"} for row in rows]), "too_few_answers"),
        (lambda rows: json.dumps([row | {"ram": []} for row in rows]), "too_few_answers"),
        (with_status("postcopy-active", 2), "too_few_answers"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, answers: Answers, damage: Wrap, code: str) -> None:
    with pytest.raises(AnswersError) as caught:
        converted(tmp_path, damage(answers))
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"downtime": None}, "bad_value"),
        ({"cpu-throttle-percentage": "20"}, "bad_value"),
    ],
)
def test_a_wrong_answer_is_named(
    tmp_path: Path, answers: Answers, change: dict[str, Any], code: str
) -> None:
    with pytest.raises(RecordingError) as caught:
        converted(tmp_path, json.dumps([*answers[:-1], answers[-1] | change]))
    assert caught.value.code == code


def test_a_failed_migration_ends_at_its_last_active_answer(
    tmp_path: Path, answers: Answers
) -> None:
    failed = json.dumps([*answers[:-1], answers[-1] | {"status": "failed"}])
    held = converted(tmp_path, failed)
    assert not read_document(held, "a profile", replayed=False).completed
    with pytest.raises(RecordingError) as caught:
        read_document(held, "no replay")
    assert caught.value.code == "failed"


@pytest.mark.parametrize(
    ("fact", "code"),
    [
        ("qemu", "bad_fact"),
        ("qemu=new", "bad_fact"),
        ("vcpus=0", "bad_fact"),
        ("vcpus=" + "9" * 5000, "bad_fact"),
        ("max-bandwidth=fast", "bad_fact"),
        ("max-bandwidth=1e999", "bad_fact"),
        ("auto-converge=1", "bad_fact"),
        ("accelerator=hvf", "bad_fact"),
        ("max_bandwidth=0", "unknown_fact"),
        ("", "unknown_fact"),
    ],
)
def test_wrong_facts_are_refused(fact: str, code: str) -> None:
    with pytest.raises(AnswersError) as caught:
        parse_facts([fact])
    assert caught.value.code == code


def test_no_limit_has_two_names() -> None:
    assert parse_facts(["max-bandwidth=unlimited"]) == parse_facts(["max-bandwidth=0"])
    assert parse_facts(["max-bandwidth=128MiB/s"]) == {"max-bandwidth": 128 * MIB}
    assert parse_facts(["qemu=11"]) == {"qemu": (11, 0)}


def test_the_command_writes_a_recording(
    tmp_path: Path, answers: Answers, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "answers.json"
    path.write_text(json.dumps(answers))
    out = tmp_path / "out"
    assert main(["--answers", str(path), "--fact", "qemu=9.2", "--out", str(out)]) == 0
    assert "qemu=" not in capsys.readouterr().out
    recording = load_recording(out / "attached.qemu9.a.json.xz")
    assert recording.qemu == (9, 2)
    assert main(["--answers", str(path), "--libvirt", str(path)]) == 2
    assert main(["--fact", "qemu=9.2"]) == 2
    assert main(["--answers", str(path), "--repeats", "2"]) == 2
