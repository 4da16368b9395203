"""Is gpusim's own run found again from query-migrate's answers alone?"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gpusim import WriterConfig, simulate
from gpusim.config.schema import (
    BackendConfig,
    Config,
    HotColdConfig,
    LimitConfig,
    LinkConfig,
    MigrationConfig,
    VmConfig,
)
from gpusim.engine.records import Result
from gpusim.formats import sync_record
from gpusim.formats.quantities import recorded_quantities, simulated_quantities
from gpusim.formats.recording import Recording
from gpusim.formats.recording_file import read_document
from gpusim.formats.recording_from_answers import convert, parse_facts
from gpusim.validation.accuracy import Case, replay_figures
from gpusim.validation.replay import replay_config
from gpusim.validation.runs import make_runs, plan_runs
from tests.formats.answers import Answer, answers_of

GIB = 2**30
MIB = 2**20
WRITTEN = {"working_set": 3 * GIB, "start": 5 * GIB}
UNIFORM = WriterConfig(**WRITTEN, page_writes_per_s=2e4)  # type: ignore[arg-type]


def config(workload: Any, *, auto_converge: bool = False) -> Config:
    """8 GiB, of which 5 GiB are zero, at 128 MiB/s."""
    return Config(
        vm=VmConfig(memory=8 * GIB, vcpus=4, zero_ranges=[[0, 5 * GIB]]),
        workload=workload,
        link=LinkConfig(bandwidth="10Gbit/s"),
        migration=MigrationConfig(max_bandwidth=128 * MIB, auto_converge=auto_converge),
        backend=BackendConfig(threads=1),
        limit=LimitConfig(),
        plot=False,
    )


def recorded(
    folder: Path, config: Config, interval_s: float = 0.2
) -> tuple[Result, list[Answer], Recording]:
    result, answers = answers_of(config, interval_s)
    return result, answers, read_answers(folder, answers, config.migration.auto_converge)


def read_answers(folder: Path, answers: list[Answer], auto_converge: bool = False) -> Recording:
    path = folder / "answers.json"
    path.write_text(json.dumps(answers))
    facts = parse_facts([f"auto-converge={'on' if auto_converge else 'off'}"])
    return read_document(convert(path, facts), "answers")


def test_many_zero_pages_take_their_time(tmp_path: Path) -> None:
    result, _, recording = recorded(tmp_path, config(UNIFORM))
    again = simulate(replay_config(recording))
    assert again.summary.total_time_s == pytest.approx(result.summary.total_time_s, rel=0.01)
    for real, ours in zip(result.syncs[1:5], again.syncs[1:5], strict=True):
        assert ours.time_s == pytest.approx(real.time_s, abs=0.21)
        assert ours.newly_dirty_pages == pytest.approx(real.newly_dirty_pages, rel=0.05)


def test_the_downtime_is_near(tmp_path: Path) -> None:
    result, _, recording = recorded(tmp_path, config(UNIFORM))
    case = Case(recording=recording, measured=recorded_quantities(recording))
    assert case.measured.downtime_ms == pytest.approx(result.summary.downtime_ms, abs=0.6)
    make_runs([case], plan_runs([case], ["replay"], seeds=1))
    (found,) = case.runs["replay"]
    assert found.downtime_ms == pytest.approx(result.summary.downtime_ms, rel=0.3)
    figures = replay_figures([case])
    assert figures["downtime_within_factor_2_share"] == 1.0
    case.runs["replay"] = [replace(found, downtime_ms=0.1)]
    assert replay_figures([case])["downtime_within_factor_2_share"] == 0.0
    case.runs["replay"] = [replace(found, downtime_ms=None)]
    assert replay_figures([case])["downtime_within_factor_2_share"] is None


def test_syncs_that_end_a_period_are_known_to_milliseconds(tmp_path: Path) -> None:
    result, _, recording = recorded(tmp_path, config(UNIFORM), interval_s=0.5)
    found = sync_record.find_syncs(recording)
    assert len(found) == len(result.syncs) - 1
    ended = [
        (sync.time_s, ours.time_s)
        for sync, ours in zip(result.syncs[1:], found, strict=True)
        if sync.period_ms is not None and sync.kind != "final"
    ]
    assert len(ended) >= 5
    for real_s, ours_s in ended[:5]:
        assert ours_s == pytest.approx(real_s, abs=0.003)


def test_zero_pages_that_are_sent_again_take_no_time(tmp_path: Path) -> None:
    """A guest that also rewrites zero pages lasts as long. Each sync finds more pages."""
    result, answers, _ = recorded(tmp_path, config(UNIFORM))
    first_sent = answers[-1]["ram"]["total"] // 4096
    more = 0
    for answer in answers:
        ram = answer["ram"]
        if ram["duplicate"] + ram["normal"] > first_sent:
            more += 500
            ram["duplicate"] += more
    again = simulate(replay_config(read_answers(tmp_path, answers)))
    assert again.summary.total_time_s == pytest.approx(result.summary.total_time_s, rel=0.01)


@pytest.mark.parametrize("interval_s", [0.1, 0.2, 0.5, 1.0])
@pytest.mark.parametrize(
    ("workload", "auto_converge"),
    [
        (UNIFORM, False),
        (WriterConfig(**WRITTEN, page_writes_per_s=2.8e4), False),  # type: ignore[arg-type]
        (WriterConfig(**WRITTEN, page_writes_per_s=4.5e4), True),  # type: ignore[arg-type]
        (
            HotColdConfig(
                **WRITTEN,  # type: ignore[arg-type]
                page_writes_per_s=6e4,
                hot_percent=10,
                hot_writes_percent=80,
            ),
            True,
        ),
    ],
    ids=["converges", "hovers", "throttled", "throttled-hot"],
)
def test_the_interval_of_the_answers_matters_little(
    tmp_path: Path, workload: Any, auto_converge: bool, interval_s: float
) -> None:
    held = config(workload, auto_converge=auto_converge)
    _, _, recording = recorded(tmp_path, held, interval_s)
    real = recorded_quantities(recording)
    ours = simulated_quantities(simulate(replay_config(recording)))
    assert ours.total_time_s == pytest.approx(real.total_time_s, rel=0.02)
    assert abs(ours.max_throttle_percent - real.max_throttle_percent) <= 10
