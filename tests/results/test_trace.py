"""Can Perfetto read the trace, and does it show the records?

The rules are from the Trace Event Format (Google, 2016), sections "JSON Object Format", "Duration
and Complete Events", "Counter Events", "Instant Events" and "Metadata Events".
"""

from __future__ import annotations

import gzip
import json
from collections import defaultdict
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from gpusim import Config, LinkConfig, TrackingConfig, VmConfig, WriterConfig, simulate
from gpusim.engine.records import Event, Result
from gpusim.results.timeline import timeline
from gpusim.results.trace import trace_events, write_trace
from tests.results.runs import RUNS, fake

ALWAYS = {"M": {"name", "args"}, "X": {"dur"}, "C": {"args"}, "i": {"s"}}
MAY_HAVE = {"ph", "pid", "tid", "ts", "name", "cat", "args", "dur", "s"}
ROUNDING_US = 0.002


def events_of(result: Result) -> list[dict[str, Any]]:
    return trace_events(result, timeline(result))


def slices_of(events: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Slices by the name of their track."""
    tracks = {e["tid"]: e["args"]["name"] for e in events if e["name"] == "thread_name"}
    found = defaultdict(list)
    for event in events:
        if event["ph"] == "X":
            found[tracks[event["tid"]]].append(event)
    return found


def real(**changes: Any) -> Result:
    """A run of the engine: 256 MiB that take a few syncs of every kind."""
    config = Config(
        vm=VmConfig(memory="1GiB", vcpus=2),
        workload=WriterConfig(working_set="512MiB", page_writes_per_s=1e5),
        link=LinkConfig(bandwidth="300Mbit/s"),
        **changes,
    )
    return simulate(config)


REAL = {
    "eager": lambda: real(tracking=TrackingConfig(mode="kvm_legacy", misaligned_ms=5)),
    "syncs that wait for vCPUs": lambda: real(tracking=TrackingConfig(mode="tcg")),
}


@pytest.mark.parametrize("name", [*RUNS, *REAL])
def test_every_run_is_a_valid_trace(name: str) -> None:
    events = events_of({**RUNS, **REAL}[name]())
    json.dumps(events, allow_nan=False)
    for event in events:
        assert set(event) <= MAY_HAVE
        assert {"ph", "pid", "name"} | ALWAYS[event["ph"]] <= set(event)
        if event["ph"] != "M":
            assert isinstance(event["ts"], int | float) and event["ts"] >= 0
        if event["ph"] in "Xi":
            assert "tid" in event
        if event["ph"] == "X":
            assert event["dur"] >= 0
        if event["ph"] == "C":
            assert all(isinstance(value, int | float) for value in event["args"].values())
        if event["ph"] == "i":
            assert event["s"] in ("g", "p", "t")
    assert {e["name"] for e in events if e["ph"] == "M"} == {
        "process_name",
        "thread_name",
        "thread_sort_index",
    }
    times = [event["ts"] for event in events if event["ph"] != "M"]
    assert times == sorted(times)


@pytest.mark.parametrize("name", [*RUNS, *REAL])
def test_slices_of_a_track_do_not_overlap(name: str) -> None:
    for track in slices_of(events_of({**RUNS, **REAL}[name]())).values():
        for one, following in pairwise(track):
            assert one["ts"] + one["dur"] <= following["ts"] + ROUNDING_US


@pytest.mark.parametrize("name", REAL)
def test_tracks_show_the_records(name: str) -> None:
    result = REAL[name]()
    summary, tracks = result.summary, slices_of(events_of(result))
    passes = tracks["passes"]
    assert len(passes) == len(result.pass_ends_s) + 1
    assert sum(slice_["dur"] for slice_ in passes) == pytest.approx(1e6 * summary.total_time_s)
    syncs = sorted(tracks["QEMU's own syncs"] + tracks["fallback syncs"], key=lambda s: s["ts"])
    assert [slice_["args"]["dirty_sync_count"] for slice_ in syncs] == [
        sync.dirty_sync_count for sync in result.syncs
    ]
    assert len(tracks["fallback syncs"]) == summary.fallback_sync_count > 0
    for slice_, sync in zip(syncs, result.syncs, strict=True):
        assert slice_["ts"] == pytest.approx(1e6 * sync.time_s, abs=ROUNDING_US)
        assert slice_["dur"] == pytest.approx(1e3 * sync.duration_ms, abs=ROUNDING_US)
        assert slice_["name"].startswith(sync.kind)
    levels = tracks["throttle"]
    assert levels[-1]["args"]["cpu_throttle_percentage"] == summary.max_throttle_percent
    assert levels[0]["ts"] == pytest.approx(1e6 * (summary.first_throttle_s or 0), rel=0.1)
    (stopped,) = tracks["downtime"]
    assert stopped["dur"] == pytest.approx(1e3 * (summary.downtime_ms or 0), abs=ROUNDING_US)
    assert stopped["ts"] + stopped["dur"] == pytest.approx(1e6 * summary.total_time_s)


def test_counters_hold_the_samples_and_the_rates() -> None:
    result = fake(link_rate=1e8, write_rate=1.5e8)
    counters = defaultdict(list)
    for event in events_of(result):
        if event["ph"] == "C":
            counters[event["name"]].append((event["ts"], event["args"]["value"]))
    remaining = counters["remaining bytes"]
    assert remaining == [(round(1e6 * k.time_s, 3), k.remaining_bytes) for k in result.samples]
    assert max(value for _, value in counters["throttle %"]) == result.summary.max_throttle_percent
    rates = [s.dirty_pages_rate for s in result.syncs if s.dirty_pages_rate is not None]
    assert {value for _, value in counters["dirty pages rate (pages/s)"]} == set(rates)
    assert all(0 <= value <= 100.1 for _, value in counters["guest speed %"])


def test_decisions_are_instants_and_infinity_is_null(result: Result) -> None:
    event = Event(time_s=1.5, event="cpu_throttle_set", arguments={"percent": float("inf")})
    start = Event(time_s=1.0, event="migration_bitmap_sync_start", arguments={})
    (instant,) = [e for e in events_of(replace(result, events=[start, event])) if e["ph"] == "i"]
    assert (instant["name"], instant["ts"]) == ("cpu_throttle_set", 1_500_000)
    assert instant["args"] == {"percent": None}


def test_the_file_is_gzipped_json_without_a_date(result: Result, tmp_path: Path) -> None:
    path = tmp_path / "trace.json.gz"
    write_trace(result, timeline(result), path)
    packed = path.read_bytes()
    assert packed[4:8] == b"\0\0\0\0"
    document = json.loads(gzip.decompress(packed))
    assert document["displayTimeUnit"] in ("ms", "ns")
    assert document["traceEvents"] == events_of(result)
    other = replace(result, summary=replace(result.summary, wall_time_s=99.0, backend="numba"))
    write_trace(other, timeline(other), path)
    assert path.read_bytes() == packed
