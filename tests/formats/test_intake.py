"""Is every file that an operator may hold recognised by its content, and read as its tool prints it?"""

from __future__ import annotations

import json
import lzma
import random
import re
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from gpusim import Config, LinkConfig, VmConfig, WriterConfig, reading, simulate
from gpusim.config.schema import MigrationConfig
from gpusim.errors import CodedError
from gpusim.formats import recording_file
from gpusim.formats.errors import IntakeError, RecordingError
from gpusim.formats.intake import Intake, load_any_recording, read_intake
from gpusim.formats.recording import Recording
from gpusim.formats.recording_file import LEAST_SAMPLES, load_recording
from gpusim.formats.sync_record import find_syncs
from gpusim.results.guestperf import guestperf_report
from gpusim.units import GIB, MIB
from studies import logs
from tests.cli.command import REPOSITORY

FOLDER = REPOSITORY / "docs" / "logs"
LINK = 1e9 / 8
RECORDING = REPOSITORY / "gpusim/validation/data/no-autoconverge.qemu10.a.json.xz"
KINDS = {  # file -> kind, and whether a guest can be fitted to it
    "domjobinfo.txt": ("domjobinfo", False),
    "guestperf.json": ("guestperf", True),
    "info-migrate-10.1.txt": ("hmp", False),
    "info-migrate.txt": ("hmp", False),
    "nova-compute.log": ("nova", False),
    "proxmox-task.log": ("proxmox", False),
    "qmp.log": ("answers", True),
    "query-migrate.json": ("answers", False),
    "vdsm.log": ("vdsm", True),
    "virt-launcher-aborted.log": ("virt_launcher", True),
    "virt-launcher.log": ("virt_launcher", False),
}


def taken(folder: Path, text: str, name: str = "file") -> Intake:
    path = folder / name
    path.write_text(text)
    return read_intake(path)


@pytest.mark.parametrize("name", KINDS)
def test_each_example_tells_its_size_and_its_link(name: str) -> None:
    found = read_intake(FOLDER / name)
    kind, has_guest = KINDS[name]
    assert (found.kind.code, found.profile is not None) == (kind, has_guest)
    assert has_guest != (found.obstacle is not None)
    assert found.log is not None
    assert found.log.total_bytes == pytest.approx(8 * GIB, rel=0.002)
    assert max(found.log.rates) == pytest.approx(LINK, rel=0.02)


def test_what_a_file_does_not_hold_is_an_assumption() -> None:
    profile = read_intake(FOLDER / "vdsm.log").profile
    assert profile is not None
    assert profile.parameters["downtime-limit"] == 500  # the last one that vdsm set
    assert any("qemu=10.1" in note and "--fact" not in note for note in profile.notes)


def test_all_examples_are_checked() -> None:
    assert {path.name for path in FOLDER.iterdir()} == set(KINDS)


@pytest.mark.slow
def test_the_examples_are_those_that_the_study_writes() -> None:
    for name, text in logs.files():
        assert (FOLDER / name).read_text() == text, f"{name}: type python -m studies.logs"


def test_one_answer_is_the_same_whoever_prints_it() -> None:
    names = ("domjobinfo.txt", "info-migrate.txt", "info-migrate-10.1.txt", "query-migrate.json")
    found = [read_intake(FOLDER / name).log for name in names]
    for log in found:
        assert log is not None
        assert log.zero_share == pytest.approx(0.25, rel=0.01)
        assert log.dirty_rates[-1] == pytest.approx(126.7e6, rel=0.01)
        assert log.last.remaining_bytes == pytest.approx(1.07 * GIB, rel=0.01)
        assert (log.last.iteration, log.outcome, log.seconds) == (5, "running", 120.0)


def test_zero_pages_of_the_whole_first_pass_count() -> None:
    for name in ("vdsm.log", "virt-launcher-aborted.log", "qmp.log"):
        log = read_intake(FOLDER / name).log
        assert log is not None and log.zero_share == pytest.approx(0.25, abs=0.001), name


def test_a_completed_job_tells_its_end(tmp_path: Path) -> None:
    text = (FOLDER / "domjobinfo.txt").read_text().replace("Unbounded", "Completed")
    log = taken(tmp_path, text.replace("Expected downtime:", "Total downtime:")).log
    assert log is not None and (log.outcome, log.downtime_ms) == ("completed", 300)


def test_managers_tell_their_steps_and_the_end() -> None:
    logs = {name: read_intake(FOLDER / name).log for name in KINDS}
    nova, proxmox, vdsm = (logs[f"{name}.log"] for name in ("nova-compute", "proxmox-task", "vdsm"))
    assert nova is not None and proxmox is not None and vdsm is not None
    assert nova.limits == ((0.0, 50), (75.0, 95))
    assert proxmox.limits == ((0.0, 100), (147.0, 200))
    assert [limit for _, limit in vdsm.limits] == [100, 150, 200, 300, 400, 500]
    assert {one.outcome for one in (nova, proxmox, vdsm)} == {"cancelled"}
    aborted, done = logs["virt-launcher-aborted.log"], logs["virt-launcher.log"]
    assert aborted is not None and done is not None
    assert (aborted.outcome, done.outcome) == ("cancelled", "completed")
    assert "150 seconds" in aborted.reason


def test_old_releases_are_read_as_new_ones(tmp_path: Path) -> None:
    """KubeVirt before 0.59 divides by 8, Proxmox VE up to 6 and Nova up to Queens print other lines."""
    lines = (FOLDER / "virt-launcher.log").read_text()
    old = taken(tmp_path, lines.replace("Bandwidth:1000Mbps", "Bandwidth:15Mbps")).log
    assert old is not None and max(old.rates) == pytest.approx(LINK, rel=0.1)
    log = taken(
        tmp_path,
        "Nov 24 12:42:36 migrate_set_downtime: 0.1\n"
        "Nov 24 12:42:38 migration status: active (transferred 728684636, remaining 5655494656), "
        "total 6451433472)\n"
        "Nov 24 12:42:40 migration status: active (transferred 1465523175, remaining 4865253376), "
        "total 6451433472)\n"
        "Nov 24 12:42:55 migration speed: 323.37 MB/s - downtime 262 ms\n"
        "Nov 24 12:42:58 migration finished successfuly (duration 00:00:39)\nTASK OK\n",
    ).log
    assert log is not None
    assert (log.outcome, log.downtime_ms, log.limits) == ("completed", 262, ((0.0, 100),))
    assert log.rates == [pytest.approx(368.4e6, rel=0.001)]
    nova = (FOLDER / "nova-compute.log").read_text()
    queens = taken(tmp_path, nova.replace("remaining (bytes", "remaining; (bytes")).log
    assert queens is not None and len(queens.reports) == 5
    vdsm = (FOLDER / "vdsm.log").read_text().replace("speed 954Mbps", "speed 119MBps")
    assert max(taken(tmp_path, vdsm).log.rates) == pytest.approx(LINK, rel=0.02)  # type: ignore[union-attr]


def test_the_last_migration_of_a_log_counts(tmp_path: Path) -> None:
    for name in ("nova-compute.log", "proxmox-task.log", "vdsm.log", "virt-launcher.log"):
        text = (FOLDER / name).read_text()
        once, twice = read_intake(FOLDER / name).log, taken(tmp_path, text + text).log
        assert once is not None and twice is not None
        assert (twice.migrations, len(twice.reports)) == (2, len(once.reports)), name
        assert twice.outcome == once.outcome, name


def test_vms_that_migrate_at_the_same_time_are_not_mixed(tmp_path: Path) -> None:
    """oVirt migrates two VMs of a host at once by default, and both are in one vdsm.log."""
    lines = (FOLDER / "vdsm.log").read_text().splitlines()
    other = [
        line.replace("6f1d2a57", "0a0b0c0d").replace("total data: 8192MB", "total data: 16384MB")
        for line in lines
    ]
    other = [
        re.sub(r"Progress: (\d+)", lambda found: f"Progress: 9{found[1]}", line) for line in other
    ]
    both = [line for pair in zip(other, lines, strict=True) for line in pair]
    took = "(vmId='0a0b0c0d-0c7e-4e0b-9d3a-51a2b7c9e4f0') migration took 150 seconds to complete"
    log = taken(tmp_path, "\n".join([*both[:-4], took, *both[-4:]])).log
    alone = read_intake(FOLDER / "vdsm.log").log
    assert log is not None and alone is not None
    assert (log.migrations, log.reports, log.limits) == (2, alone.reports, alone.limits)
    assert (log.outcome, log.seconds) == (alone.outcome, alone.seconds)


def test_a_line_before_the_start_is_no_migration(tmp_path: Path) -> None:
    text = (FOLDER / "proxmox-task.log").read_text()
    log = taken(tmp_path, f"task started by HA resource agent\n{text}").log
    assert log is not None and log.migrations == 1


def test_a_clock_that_is_set_back_tells_no_time(tmp_path: Path) -> None:
    """Proxmox VE prints local time, which repeats an hour at the end of summer time."""
    active = "migration active, transferred {} GiB of 8.0 GiB VM-state, 113.6 MiB/s"
    for before, after, seconds in (
        ("2026-10-25 02:59:50", "2026-10-25 02:00:20", None),
        ("2026-12-31 23:59:50", "2027-01-01 00:00:20", 30),
        ("Dec 31 23:59:50", "Jan  1 00:00:20", 30),
    ):
        lines = [f"{before} start migrate command to unix:/run/qemu-server/104.migrate"]
        lines += [f"{before} {active.format(0.1)}", f"{after} {active.format(3.4)}"]
        log = taken(tmp_path, "\n".join(lines)).log
        assert log is not None and [one.time_s for one in log.reports] == [0, seconds]
        assert log.seconds == seconds


FORMS: dict[str, Callable[[list[Any]], str]] = {
    "a list": json.dumps,
    "lines": lambda rows: "\n".join(map(json.dumps, rows)),
    "a pretty log": lambda rows: "\n".join(json.dumps(row, indent=2) for row in rows),
    "a cut list": lambda rows: json.dumps(rows, indent=1)[:-30],
    "a log with stamps": lambda rows: "\n".join(
        f"2026-11-29 12:00:{place:02d} RECV_REPLY: mon=0x7f reply={json.dumps(row)}"
        for place, row in enumerate(rows)
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_answers_are_found_in_every_form(tmp_path: Path, form: str) -> None:
    rows = [json.loads(line) for line in (FOLDER / "qmp.log").read_text().splitlines()]
    found = taken(tmp_path, FORMS[form](rows))
    assert found.kind.code == "answers" and found.recording is not None
    active = [row for row in rows if row.get("return") and "ram" in row["return"]]
    assert len(found.log.reports) >= len(active) - 1  # type: ignore[union-attr]


def test_random_and_foreign_files_are_one_short_line(tmp_path: Path) -> None:
    draw = random.Random(1)
    files = {
        "empty": b"",
        "spaces": b" \n" * 5000,
        "binary": draw.randbytes(200_000),
        "elf": b"\x7fELF" + bytes(100_000),
        "prose": b"the quick brown fox\n" * 20_000,
        "one line": b"x" * 3_000_000,
        "numbers": b"[1, 2, 3]",
        "json": b'{"a": {"b": 1}}',
        "utf-16": "Job type: Unbounded".encode("utf-16"),
    }
    for name, content in files.items():
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(IntakeError) as caught:
            read_intake(path)
        text = str(caught.value).replace(str(path), "")
        assert len(text) < 400 and "\n" not in text, name


CSV = "name,memory,dirty_rate\na,8GiB,5\n"


def test_dirty_rates_of_a_fleet_name_the_option_that_reads_them(tmp_path: Path) -> None:
    texts = ("# HELP x y\nkubevirt_vmi_x 1\n", '{"data": {"resultType": "vector"}}', CSV)
    for text in texts:
        with pytest.raises(IntakeError) as caught:
            taken(tmp_path, text)
        assert caught.value.code == "fleet"


def test_a_file_of_two_kinds_is_refused(tmp_path: Path) -> None:
    texts = {kind: (FOLDER / name).read_text() for name, (kind, _) in KINDS.items()}
    for one in ("nova", "vdsm", "proxmox", "virt_launcher", "hmp"):
        for other in ("answers", "domjobinfo", "nova"):
            if one != other:
                with pytest.raises(IntakeError) as caught:
                    taken(tmp_path, texts[one] + texts[other])
                assert caught.value.code == "mixed", (one, other)


def test_a_mutated_log_is_read_or_refused(tmp_path: Path) -> None:
    """Cut lines, swapped bytes and lost lines end in a value or in one bounded line."""
    draw = random.Random(7)
    for name in KINDS:
        whole = (FOLDER / name).read_bytes()
        for trial in range(12):
            content = bytearray(whole[: draw.randrange(1, len(whole))])
            for _ in range(draw.randrange(8)):
                content[draw.randrange(len(content))] = draw.choice(b'0129 \n.,:{}[]"-\xff\x00aZ')
            path = tmp_path / f"{trial}{name}"
            path.write_bytes(bytes(content))
            try:
                read_intake(path)
            except CodedError as error:
                assert len(str(error)) < 1200 and "\n" not in str(error)


def test_syncs_at_one_time_are_no_division_by_zero(tmp_path: Path) -> None:
    """A clock that restarts in the middle of a migration places several syncs at its start."""
    text = (FOLDER / "vdsm.log").read_text()
    assert "Progress: 90.0 " in text
    assert taken(tmp_path, text.replace("Progress: 90.0 ", "Progress: 0 ")).log is not None


def test_a_huge_count_of_syncs_is_refused(tmp_path: Path) -> None:
    """The first report may not claim more syncs than its time allows: they would be listed one by one."""
    text = (FOLDER / "vdsm.log").read_text()
    huge = re.sub(r"memory iteration: \d+", f"memory iteration: {10**12}", text)
    found = taken(tmp_path, huge)
    assert found.profile is None and isinstance(found.obstacle, RecordingError)
    assert found.obstacle.data["key"] == "samples[0].dirty-sync-count"


def test_a_huge_log_is_not_quoted(tmp_path: Path) -> None:
    line = (FOLDER / "nova-compute.log").read_text().splitlines()[1]
    log = taken(tmp_path, "\n".join([line] * 20_000)).log
    assert log is not None and len(log.reports) == 20_000
    with pytest.raises(CodedError) as caught:
        taken(tmp_path, "Job type: 7\n" * 20_000)
    assert len(str(caught.value)) < 600


def with_capability(folder: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    document = json.loads(lzma.decompress(RECORDING.read_bytes()))
    change(document)
    path = folder / "changed.json"
    path.write_text(json.dumps(document))
    return path


def test_a_migration_with_xbzrle_is_a_profile_and_no_replay(tmp_path: Path) -> None:
    path = with_capability(tmp_path, lambda held: held["scenario"]["capabilities"].append("xbzrle"))
    assert read_intake(path).profile is not None
    for load in (load_recording, load_any_recording):
        with pytest.raises(RecordingError) as caught:
            load(path)
        assert caught.value.code == "foreign_capabilities"


def test_multifd_with_compression_is_a_profile(tmp_path: Path) -> None:
    def compress(held: dict[str, Any]) -> None:
        held["scenario"]["capabilities"].append("multifd")
        held["parameters"]["multifd-compression"] = "zstd"

    assert read_intake(with_capability(tmp_path, compress)).profile is not None


def test_a_migration_that_went_post_copy_is_a_profile_until_then(tmp_path: Path) -> None:
    def switch(held: dict[str, Any]) -> None:
        for row in held["samples"][-100:]:
            row["status"] = "postcopy-active"

    found = read_intake(with_capability(tmp_path, switch))
    assert found.profile is not None and found.recording is not None
    assert not found.recording.completed
    assert all(one.status == "active" for one in found.recording.samples[1:])


def test_a_failed_migration_is_a_profile_until_then(tmp_path: Path) -> None:
    def fail(held: dict[str, Any]) -> None:
        held["samples"][-1]["status"] = "failed"
        held["events"] = [row for row in held["events"] if "cancel" not in row[2]]
        held["events"].append([held["events"][-1][0], "migrate_set_state", "new state failed"])

    path = with_capability(tmp_path, fail)
    assert read_intake(path).profile is not None
    with pytest.raises(RecordingError) as caught:
        load_any_recording(path)
    assert caught.value.code == "failed"


def printed(recording: Recording, seconds: int) -> str:
    """Print a recording as virt-launcher does every 4 s, or as vdsm does every 10 s."""
    answers: list[dict[str, Any]] = []
    for sample in recording.samples:
        ram = sample.ram
        if ram is None or sample.status != "active" or sample.time_s < seconds * (1 + len(answers)):
            continue
        counters = {
            "total": recording.ram_bytes,
            "transferred": ram.transferred_bytes,
            "remaining": ram.remaining_bytes,
            "normal": ram.sent_pages - ram.zero_pages,
            "duplicate": ram.zero_pages,
            "dirty-sync-count": ram.dirty_sync_count,
            "dirty-pages-rate": ram.dirty_pages_rate,
            "mbps": sample.mbps,
        }
        answer = {"status": "active", "total-time": round(1000 * sample.time_s), "ram": counters}
        answers.append(answer)
    lines = logs.virt_launcher(answers, "") if seconds == 4 else logs.vdsm(answers)
    return "".join(lines)


def check_syncs(folder: Path, recording: Recording, seconds: int, within: float) -> None:
    """Check that a log tells as many newly dirty pages as the recording that it was printed from."""
    found = taken(folder, printed(recording, seconds)).recording
    assert found is not None
    end_s = found.samples[-1].time_s
    exact = [one for one in find_syncs(recording) if one.time_s <= end_s]
    pages = sum(one.newly_dirty_pages for one in exact)
    assert sum(one.newly_dirty_pages for one in find_syncs(found)) == pytest.approx(
        pages, rel=within
    )


@pytest.mark.parametrize("seconds", [4, 10])
def test_a_log_of_a_real_migration_finds_its_dirty_pages(tmp_path: Path, seconds: int) -> None:
    check_syncs(tmp_path, load_recording(RECORDING), seconds, 0.002)


@pytest.mark.slow
def test_logs_of_all_real_migrations_find_their_dirty_pages(tmp_path: Path) -> None:
    for path in sorted(RECORDING.parent.glob("*.xz")):
        recording = load_recording(path)
        if len(printed(recording, 4).splitlines()) > LEAST_SAMPLES:  # the last line tells the end
            check_syncs(tmp_path, recording, 4, 0.02)


def test_a_log_can_be_replayed(tmp_path: Path) -> None:
    found = load_any_recording(FOLDER / "qmp.log")
    assert (found.case, found.ram_bytes, found.completed) == ("qmp", 8 * GIB, True)
    assert load_any_recording(FOLDER / "vdsm.log").ram_bytes == 8192 * MIB
    with pytest.raises(IntakeError) as caught:
        load_any_recording(FOLDER / "nova-compute.log")
    assert caught.value.code == "no_counters"


def test_a_number_that_was_cut_off_is_not_read(tmp_path: Path) -> None:
    text = (FOLDER / "virt-launcher-aborted.log").read_text()
    start = text.rindex("MemoryTotal:8192MiB")
    log = taken(tmp_path, text[: start + len("MemoryTotal:8")]).log
    assert log is not None and (len(log.reports), log.total_bytes) == (36, 8 * GIB)
    text = (FOLDER / "info-migrate-10.1.txt").read_text()
    log = taken(tmp_path, text[: text.index("  Others:")]).log  # without the number of syncs
    assert log is not None and log.zero_share == pytest.approx(0.25, rel=0.01)


def test_a_failure_tells_its_reason(tmp_path: Path) -> None:
    text = (FOLDER / "info-migrate.txt").read_text()
    failed = text.replace("status: active", "status: failed (Unable to write: Broken pipe)")
    log = taken(tmp_path, failed).log
    assert log is not None
    assert (log.outcome, log.reason) == ("failed", "Unable to write: Broken pipe")
    first = (FOLDER / "virt-launcher.log").read_text().splitlines()[0]
    line = (
        '{"level":"error","msg":"Live migration failed.","pos":"a.go:1","reason":"no \\"route\\""}'
    )
    log = taken(tmp_path, f"{first}\n{line}\n").log
    assert log is not None and (log.outcome, log.reason) == ("failed", 'no \\"route\\"')


def test_lines_of_old_vdsm_tell_their_vm(tmp_path: Path) -> None:
    line = (
        "Thread-{}::INFO::2016-10-31 12:00:10,000::migration::500::virt.vm::(monitor) "
        "vmId=`{}`::Migration Progress: {} seconds elapsed, 25% of data processed"
    )
    lines = [line.format(vm, f"a{vm}", seconds) for seconds in (10, 20, 30) for vm in (1, 2)]
    log = taken(tmp_path, "\n".join(lines)).log
    assert log is not None and (len(log.reports), log.migrations) == (3, 2)


def test_pages_that_vdsm_does_not_count_are_no_zero_pages(tmp_path: Path) -> None:
    line = (
        "Migration Progress: 20 seconds elapsed, 44% of data processed, total data: 16384MB, "
        "processed data: 4096MB, remaining data: 8192MB, transfer speed 112MBps, "
        "zero pages: 1048576MB, compressed: 0MB, dirty rate: -1, memory iteration: -1"
    )
    log = taken(tmp_path, line).log
    assert log is not None and log.zero_share == pytest.approx(0.5)


def test_the_first_limit_belongs_to_its_own_migration(tmp_path: Path) -> None:
    text = (FOLDER / "nova-compute.log").read_text()
    log = taken(tmp_path, text + text).log
    assert log is not None and log.limits == ((0.0, 50), (75.0, 95))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"component":"virt-launcher","msg":"Live migration started"}', "Migration info"),
        ("INFO nova.compute.manager [-] Took 3.2 s for pre_live_migration", "Migration running"),
        ("INFO (jsonrpc/1) [virt.vm] (vmId='a') underlying process", "Migration Progress"),
        ("starting VM 104\nTASK ERROR: no such node", "migration active"),
        ('{"return": {"blocked": false}}', "total-time"),
    ],
)
def test_a_log_without_a_migration_says_which_lines_tell_one(
    tmp_path: Path, text: str, expected: str
) -> None:
    with pytest.raises(IntakeError, match=expected) as caught:
        taken(tmp_path, text)
    assert caught.value.code == "no_progress"


def test_the_same_answer_again_is_a_coarse_answer(tmp_path: Path) -> None:
    for name in ("domjobinfo.txt", "info-migrate.txt", "query-migrate.json"):
        found = taken(tmp_path, (FOLDER / name).read_text() * 5)
        assert found.log is not None and found.profile is None, name


def test_a_log_that_is_too_large_says_how_to_cut_it(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("wb") as file:
        file.truncate(2**27)
    with pytest.raises(IntakeError, match="grep") as caught:
        read_intake(path)
    assert caught.value.code == "too_large"


@pytest.mark.parametrize("name", KINDS)
def test_a_log_is_read_and_checked_once(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    calls: list[str] = []

    def count(module: ModuleType, called: str) -> None:
        real = getattr(module, called)

        def counted(*given: Any, **named: Any) -> Any:
            calls.append(called)
            return real(*given, **named)

        monkeypatch.setattr(module, called, counted)

    count(reading, "_read_regular_file")
    count(recording_file, "_read")
    read_intake(FOLDER / name)
    assert calls in (["_read_regular_file"], ["_read_regular_file", "_read"])


def test_a_guestperf_report_of_gpusim_shows_what_its_guest_wrote(tmp_path: Path) -> None:
    """It counts the kinds of pages only at the end. Once its guest was taken as idle."""
    config = Config(
        vm=VmConfig(memory="2GiB", vcpus=2, zero_percent=25.0),
        workload=WriterConfig(working_set="512MiB", page_writes_per_s=4e4),
        link=LinkConfig(bandwidth="1Gbit/s"),
        migration=MigrationConfig(auto_converge=False),
    )
    result = simulate(config)
    path = tmp_path / "guestperf.json"
    path.write_text(json.dumps(guestperf_report(result, asdict(config))))
    found = read_intake(path)
    assert found.recording is not None
    pages = [one.newly_dirty_pages for one in find_syncs(found.recording)]
    written = [sync.newly_dirty_pages for sync in result.syncs[1:]]
    assert sum(pages) == pytest.approx(sum(written), rel=0.05)
    assert max(pages) == pytest.approx(max(written), rel=0.05)
