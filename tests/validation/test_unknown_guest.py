"""Is a recording without guest and counter replayed rightly, by its trace and by its samples?"""

from __future__ import annotations

import itertools
import json
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gpusim import WriterConfig, simulate
from gpusim.cli.validate import main
from gpusim.config.schema import (
    BackendConfig,
    Config,
    HotColdConfig,
    LimitConfig,
    LinkConfig,
    MigrationConfig,
    TrackingConfig,
    VmConfig,
)
from gpusim.engine.records import Result, TimelineSample
from gpusim.formats import sync_record
from gpusim.formats.errors import RecordingError
from gpusim.formats.quantities import recorded_quantities
from gpusim.formats.recording import Recording
from gpusim.formats.recording_file import load_recording, read_document
from gpusim.reading import read_bytes
from gpusim.validation.errors import ValidationError
from gpusim.validation.replay import replay_config
from gpusim.validation.shipped import SHIPPED
from studies.stripped import replayed, stripped, summary_rows
from tests.golden import check_golden

MIB = 2**20
PAGE = 4096


def document(case: str) -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads(read_bytes(SHIPPED / f"{case}.json.xz"))
    return parsed


def unknown(case: str, *, trace: bool) -> Recording:
    return read_document(stripped(document(case), trace=trace), case)


@pytest.mark.parametrize("case", ["uniform-mid.qemu10.a", "hot-small.qemu7.a"])
def test_samples_alone_tell_how_many_pages_became_dirty_as_the_trace_does(case: str) -> None:
    traced, sampled = (
        sync_record.find_syncs(unknown(case, trace=trace)) for trace in (True, False)
    )
    assert len(sampled) == len(traced)
    total = sum(sync.newly_dirty_pages for sync in traced)
    assert abs(sum(sync.newly_dirty_pages for sync in sampled) - total) <= 0.002 * total
    # One sync between two samples: exact, but for the page under way.
    for by_trace, by_samples in list(zip(traced, sampled, strict=True))[:4]:
        assert abs(by_samples.newly_dirty_pages - by_trace.newly_dirty_pages) <= 2
        assert by_samples.time_s == pytest.approx(by_trace.time_s, abs=0.11)


@pytest.mark.parametrize(
    "case",
    ["hot-small.qemu10.a", "uniform-huge.qemu10.a", "uniform-mid.qemu10.b", "seq-mid.qemu10.b"],
)
def test_pages_that_were_sent_before_a_sync_are_those_that_qemu_tells(case: str) -> None:
    """After a sync QEMU traces the remaining memory: all dirty pages minus the sent ones."""
    recording = unknown(case, trace=True)
    first = next(s.ram for s in recording.samples if s.ram is not None)
    there = first.remaining_bytes // PAGE + first.sent_pages
    left = {
        e.time_s: int(e.arguments.split()[3]) // PAGE
        for e in recording.events
        if e.name == "migrate_pending_exact"
    }
    errors = []
    for sync in sync_record.find_syncs(recording):
        there += sync.newly_dirty_pages
        traced = [pages for at_s, pages in left.items() if 0 <= at_s - sync.time_s < 0.01]
        errors += [abs(sync.sent_pages - (there - pages)) for pages in traced]
    window = recording.parameters["max-bandwidth"] / 10 / PAGE
    assert len(errors) >= 5
    assert statistics.median(errors) <= 2  # the page under way
    assert max(errors) < 1.5 * window  # a window that was late


def test_without_a_limit_no_window_is_sent_at_once() -> None:
    recording = unknown("uniform-mid.qemu10.a", trace=True)
    none, high = (
        sync_record.find_syncs(
            replace(recording, parameters={**recording.parameters, "max-bandwidth": limit})
        )
        for limit in (0, 10**15)
    )
    assert none == high


def test_a_period_that_goes_on_is_not_counted_twice() -> None:
    found = sync_record.find_syncs(unknown("uniform-mid.qemu10.a", trace=True))
    # 30.273 s closes a period. The next three syncs report 4990, 8879 and 10972 pages so far.
    assert [s.newly_dirty_pages for s in found if 30.5 < s.time_s < 30.9] == [4990, 3889, 2093]


def test_a_trace_that_lost_its_last_line_leaves_the_end_to_query_migrate() -> None:
    held = document("converges.qemu10.a")
    whole = read_document(held, "whole")
    lost = read_document(held | {"events": held["events"][:-1]}, "lost")
    assert held["events"][-1][2] == "new state completed"
    assert lost.total_time_s == pytest.approx(whole.total_time_s, abs=0.03)
    assert lost.stop_s == whole.stop_s


def test_where_qmp_tells_of_syncs_their_times_are_exact() -> None:
    held = document("uniform-mid.qemu10.a")
    passes = [row[0] for row in held["events"] if row[1] == "migration_bitmap_sync_end"]
    bare = stripped(held, trace=False)
    bare["qmp_events"] = [
        [time_s, "MIGRATION_PASS", {"pass": n}] for n, time_s in enumerate(passes, 1)
    ]
    found = sync_record.find_syncs(read_document(bare, "told"))
    assert [s.time_s for s in found] == pytest.approx(
        [time_s - 0.0003 for time_s in passes[1:]], abs=0.003
    )


def test_what_qemu_did_is_measured_without_a_trace() -> None:
    for case in ("converges.qemu7.a", "uniform-mid.qemu10.a", "max-40.qemu10.a"):
        whole, bare = (
            recorded_quantities(load_recording(SHIPPED / f"{case}.json.xz")),
            recorded_quantities(unknown(case, trace=False)),
        )
        assert bare.converged == whole.converged
        assert bare.dirty_sync_count == whole.dirty_sync_count
        assert bare.max_throttle_percent == whole.max_throttle_percent
        if whole.total_time_s is not None:
            assert bare.total_time_s == pytest.approx(whole.total_time_s, abs=0.02)
        if whole.first_throttle_s is not None:
            assert 0 <= bare.first_throttle_s - whole.first_throttle_s < 0.3  # type: ignore[operator]


def test_zero_pages_behind_the_last_others_end_the_first_pass() -> None:
    at_end, others = sync_record.count_zero_pages(unknown("zero-pages.qemu7.a", trace=False))
    assert at_end == pytest.approx(1520 * 256, rel=0.01)  # [528, 2048) MiB
    assert others == pytest.approx(16 * 256, abs=100)


@pytest.mark.slow
def test_the_record_of_an_unknown_guest_costs_little() -> None:
    names = (
        "converges.qemu10.a",
        "uniform-mid.qemu10.b",
        "hot-small.qemu10.b",
        "zero-pages.qemu7.a",
    )
    cases = replayed([SHIPPED / f"{name}.json.xz" for name in names])
    for source in ("trace", "samples"):
        for case in cases[source]:
            done = case.runs["replay"][0]
            assert done.total_time_s == pytest.approx(case.measured.total_time_s, rel=0.015)
            assert done.max_throttle_percent == case.measured.max_throttle_percent
    assert [row.split(" | ")[0] for row in summary_rows(cases)[2:]] == [
        "| counter",
        "| trace",
        "| samples",
    ]


def simulated_recording(config: Config) -> tuple[Result, dict[str, Any]]:
    """Return a run of gpusim as an attached recorder would sample it every 0.2 s."""
    result = simulate(config)
    vm_pages = result.summary.vm_bytes // 4096
    samples = result.samples

    def row(time_s: float) -> dict[str, Any]:
        before, after = _around(samples, time_s)
        share = (time_s - before.time_s) / max(after.time_s - before.time_s, 1e-9)
        remaining = before.remaining_bytes + share * (
            after.remaining_bytes - before.remaining_bytes
        )
        sent = before.transferred_bytes + share * (
            after.transferred_bytes - before.transferred_bytes
        )
        newly = sum(s.newly_dirty_pages for s in result.syncs if s.time_s <= before.time_s)
        pages = int(remaining) // 4096
        return {
            "t": 100 + time_s,
            "status": "active",
            "transferred": int(sent),
            "remaining": pages * 4096,
            "total": vm_pages * 4096,
            "normal": vm_pages + newly - pages,
            "duplicate": 0,
            "dirty-sync-count": before.dirty_sync_count,
            "total-time": round(1000 * time_s),
        } | (
            {"cpu-throttle-percentage": before.cpu_throttle_percentage}
            if before.cpu_throttle_percentage
            else {}
        )

    end_s = result.summary.total_time_s
    rows = [row(n / 5) for n in range(1, int(5 * end_s))]
    last = rows[-1] | {
        "t": 100 + end_s,
        "status": "completed",
        "remaining": 0,
        "normal": vm_pages + sum(s.newly_dirty_pages for s in result.syncs),
        "transferred": result.summary.transferred_bytes,
        "dirty-sync-count": result.summary.dirty_sync_count,
        "total-time": round(1000 * end_s),
        "downtime": result.summary.downtime_ms,
    }
    migration = config.migration
    return result, {
        "accelerator": "kvm" if config.tracking.mode == "kvm_manual" else "tcg",
        "vcpus": 1,
        "scenario": {"mem_mib": vm_pages // 256, "capabilities": ["auto-converge"]},
        "qemu": {"major": 9, "minor": 2, "micro": 0},
        "parameters": {
            "max-bandwidth": migration.max_bandwidth,
            "downtime-limit": migration.downtime_limit,
            "throttle-trigger-threshold": 50,
            "cpu-throttle-initial": 20,
            "cpu-throttle-increment": 10,
            "cpu-throttle-tailslow": False,
            "max-cpu-throttle": 99,
        },
        "events": [],
        "qmp_events": [
            [100 + s.time_s, "MIGRATION_PASS", {"pass": n}] for n, s in enumerate(result.syncs, 1)
        ],
        "samples": [*rows, last],
    }


def _around(samples: list[TimelineSample], time_s: float) -> tuple[TimelineSample, TimelineSample]:
    return next((a, b) for a, b in itertools.pairwise(samples) if a.time_s <= time_s < b.time_s)


@pytest.mark.parametrize("mode", ["tcg", "kvm_manual"])
def test_a_run_of_our_own_is_found_again_without_its_guest(mode: str) -> None:
    """The found writes explain each sync, also with lazy tracking over several chunks."""
    config = Config(
        vm=VmConfig(memory=4096 * MIB, vcpus=1),
        workload=HotColdConfig(
            working_set=2048 * MIB,
            start=512 * MIB,
            page_writes_per_s=60_000,
            hot_percent=10,
            hot_writes_percent=60,
        ),
        link=LinkConfig(bandwidth="unlimited", page_cost_ns=0.0),
        migration=MigrationConfig(max_bandwidth=200 * MIB),
        tracking=TrackingConfig(mode=mode, first_write_cost_ns=0.0),
        backend=BackendConfig(name="numpy"),
        limit=LimitConfig(),
        plot=False,
    )
    result, held = simulated_recording(config)
    assert len(result.syncs) > 6
    again = simulate(replay_config(read_document(held, mode)))
    assert again.summary.total_time_s == pytest.approx(result.summary.total_time_s, rel=0.02)
    early = [s for s in result.syncs[1:5] if s.kind in {"exact", "fallback"}]
    assert len(early) >= 3
    for real, ours in zip(early, again.syncs[1:5], strict=False):
        assert ours.time_s == pytest.approx(real.time_s, abs=0.25)
        assert ours.newly_dirty_pages == pytest.approx(real.newly_dirty_pages, rel=0.02)


def test_it_is_replayed_alone_and_a_prediction_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "attached.json"
    path.write_text(json.dumps(stripped(document("converges.qemu10.a"), trace=False)))
    out = tmp_path / "out.txt"
    assert main([str(path), "--json", str(out)]) == 0
    found = json.loads(out.read_text())
    assert {row["mode"] for row in found["rows"]} == {"replay"}
    assert found["summary"]["replay"]["syncs"]["completed"] == 1
    check_golden("gpusim-validate-unknown-guest", capsys.readouterr().out)
    assert main([str(path), "--mode", "predict"]) == 2
    error = ValidationError("not_predictable", case="attached")
    assert capsys.readouterr().err == f"error: {error}\n"


def test_one_that_was_cut_counts_up_to_its_end() -> None:
    held = stripped(document("uniform-mid.qemu10.a"), trace=False)
    del held["scenario"]["limit_s"]
    held["samples"] = held["samples"][:101]
    cut = read_document(held, "cut")
    assert not cut.completed
    assert cut.limit_s == cut.samples[-1].time_s
    run = simulate(replay_config(cut)).summary
    assert run.verdict == "time_limit"
    assert run.dirty_sync_count == recorded_quantities(cut).dirty_sync_count


def test_one_that_began_late_still_knows_what_became_dirty() -> None:
    held = stripped(document("uniform-mid.qemu10.b"), trace=False)
    pages = 262273  # of its RAM, small ROM blocks too
    held["samples"] = [row | {"total": pages * 4096} for row in held["samples"][100:]]
    late, whole = read_document(held, "late"), unknown("uniform-mid.qemu10.b", trace=False)
    totals = [sum(s.newly_dirty_pages for s in sync_record.find_syncs(r)) for r in (late, whole)]
    assert totals[0] == pytest.approx(totals[1], abs=3)
    assert late.total_time_s == whole.total_time_s


def test_a_file_without_any_clock_of_qemus_is_refused() -> None:
    held = stripped(document("converges.qemu10.a"), trace=False)
    for row in held["samples"]:
        row.pop("total-time", None)
    with pytest.raises(RecordingError) as caught:
        read_document(held, "clockless")
    assert caught.value.code == "no_clock"


def test_a_writer_covers_all_that_is_not_zero() -> None:
    config = replay_config(unknown("zero-pages.qemu7.a", trace=False))
    assert isinstance(config.workload, WriterConfig)
    assert config.workload.pace == "recorded"
    assert config.vm.zero_ranges is not None
    covered = config.workload.working_set + sum(b - a for a, b in config.vm.zero_ranges)  # type: ignore[operator]
    assert covered == config.vm.memory


def test_one_that_ended_in_its_first_pass_is_replayed() -> None:
    """Without a sync no writes are known, so the replay writes nothing."""
    held = stripped(document("uniform-mid.qemu10.a"), trace=False)
    del held["scenario"]["limit_s"]
    held["samples"] = [row for row in held["samples"] if row["t"] < 3]
    cut = read_document(held, "first pass")
    assert sync_record.find_syncs(cut) == []
    run = simulate(replay_config(cut)).summary
    assert (run.verdict, run.dirty_sync_count) == ("time_limit", 1)


def test_a_throttle_of_the_final_sync_does_not_count_without_a_trace_either() -> None:
    held = stripped(document("converges.qemu10.a"), trace=False)
    last = held["samples"][-1]
    stopped = last | {"t": last["t"] - 0.001, "status": "device", "cpu-throttle-percentage": 20}
    held["samples"].insert(-1, stopped)
    assert recorded_quantities(read_document(held, "late")).max_throttle_percent == 0


def test_syncs_after_the_last_answer_count_if_it_completed() -> None:
    held = stripped(document("converges.qemu10.a"), trace=False)
    held["samples"] = [row for row in held["samples"] if row["status"] == "active"]
    end_s = held["samples"][-1]["t"] + 0.1
    held["qmp_events"] = [
        [end_s, "MIGRATION_PASS", {"pass": 9}],
        [end_s, "MIGRATION", {"status": "completed"}],
    ]
    assert recorded_quantities(read_document(held, "quit")).dirty_sync_count == 9
