"""Does the study of a guest's loss read a benchmark beside query-migrate's answers?"""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from gpusim.config.schema import (
    BackendConfig,
    Config,
    LinkConfig,
    MigrationConfig,
    VmConfig,
    WriterConfig,
)
from gpusim.engine.records import Summary
from studies.guest_loss import Loss, Phase, main, read_losses, scenario_rows, throttle_rows
from tests.formats.answers import answers_of

MIB = 2**20
BEFORE, UNTHROTTLED, PER_PERCENT = 1000.0, 900.0, 6.0  # operations per second of the benchmark
STARTED_S, CLOCK_S = 100.0, 5000.0  # the benchmark's age at the migration, and the host's clock
CHECKPOINT_S = 101.0  # a second in which the database writes a checkpoint
FACTS = ["vcpus=2", "accelerator=kvm", "qemu=9.2"]


def write_csv(path: Path, head: list[str], rows: list[list[Any]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([head, *rows])


def write_run(folder: Path, name: str, answers: list[dict[str, Any]], **events: float) -> None:
    """Write a run whose benchmark is slowed by PER_PERCENT for each percent of throttle."""
    end_s = answers[-1]["total-time"] / 1000
    (folder / f"{name}.mig-stats-run-1.json").write_text(
        json.dumps([{"t_monotonic": 0.0, "query_migrate": answer} for answer in answers])
    )
    times_s = {
        "benchmark_start": CLOCK_S,
        "migration_started": CLOCK_S + STARTED_S,
        "migration_end": CLOCK_S + STARTED_S + end_s,
        **events,
    }
    write_csv(
        folder / f"{name}.events-run-1.csv",
        ["t_monotonic", "event"],
        [[time_s, event] for event, time_s in times_s.items()],
    )
    seconds: list[list[Any]] = []
    for second in range(1, round(STARTED_S + end_s) + 1):
        since_ms = 1000 * (second - STARTED_S)
        throttle = max(
            (x.get("cpu-throttle-percentage", 0) for x in answers if x["total-time"] <= since_ms),
            default=0,
        )
        speed = UNTHROTTLED - PER_PERCENT * throttle if since_ms > 0 else BEFORE
        seconds.append([second, 100.0 if second == CHECKPOINT_S else speed])
    write_csv(folder / f"{name}.bench-run-1.csv", ["elapsed_sec", "current_ops_per_sec"], seconds)


@pytest.fixture(scope="module")
def run() -> tuple[Summary, list[dict[str, Any]]]:
    """A migration of 512 MiB at 32 MiB/s that needs several throttles."""
    config = Config(
        vm=VmConfig(memory=512 * MIB, vcpus=2, zero_ranges=[]),
        workload=WriterConfig(working_set=128 * MIB, page_writes_per_s=9_500),
        link=LinkConfig(bandwidth="10Gbit/s"),
        migration=MigrationConfig(max_bandwidth=32 * MIB),
        backend=BackendConfig(name="numpy", threads=1),
        plot=False,
    )
    result, answers = answers_of(config)
    assert result.summary.max_throttle_percent >= 40
    return result.summary, answers


def test_the_speed_at_each_throttle_is_found(
    tmp_path: Path, run: tuple[Summary, list[dict[str, Any]]]
) -> None:
    summary, answers = run
    write_run(tmp_path, "load", answers)
    (loss,) = read_losses(tmp_path, FACTS)
    assert (loss.scenario, loss.before, loss.vcpus) == ("load", BEFORE, 2)
    assert loss.phases[0].speed == UNTHROTTLED
    assert loss.unthrottled_percent == pytest.approx(10)
    assert [phase.throttle_percent for phase in loss.phases][:3] == [0, 20, 30]
    *whole, last = loss.phases
    for phase in whole:
        assert phase.speed == UNTHROTTLED - PER_PERCENT * phase.throttle_percent
    assert last.seconds < 1  # no second of the benchmark ended in it
    assert last.speed == whole[-1].speed
    assert loss.seconds == pytest.approx(summary.total_time_s, abs=0.01)
    assert loss.cpu_lost_percent == pytest.approx(summary.guest_cpu_lost_percent, rel=0.1)


def test_runs_that_stand_still_or_are_post_copy_are_left_out(
    tmp_path: Path, run: tuple[Summary, list[dict[str, Any]]]
) -> None:
    _, answers = run
    write_run(tmp_path, "stopped", answers, source_stopped=CLOCK_S)
    post_copy = [answer | {"status": "postcopy-active"} for answer in answers]
    write_run(tmp_path, "post_copy", post_copy)
    assert list(read_losses(tmp_path, FACTS)) == []


def a_loss(scenario: str, *phases: tuple[int, float, float]) -> Loss:
    return Loss(
        scenario=scenario,
        before=1000.0,
        phases=tuple(
            Phase(throttle_percent=percent, seconds=seconds, speed=speed)
            for percent, seconds, speed in phases
        ),
        cpu_lost_percent=5.0,
        cpu_lost_s=4.0,
        vcpus=4,
    )


def test_tables_have_means_and_errors() -> None:
    losses = [
        a_loss("a", (0, 15.0, 900.0), (20, 5.0, 810.0)),
        a_loss("a", (0, 15.0, 1000.0), (20, 5.0, 800.0)),
        a_loss("b", (0, 10.0, 1000.0)),
    ]
    assert [loss.throttle_percent for loss in losses] == pytest.approx([2.5, 5.0, 0.0])
    scenarios = [line.strip("| ").split(" | ") for line in scenario_rows(losses)[2:]]
    assert scenarios[0][:2] == ["a", "2"]
    assert scenarios[0][4:] == ["3.8 % / 5.0 %", "+1.2", "3.0 / 4.0"]
    assert scenarios[1][4:] == ["0.0 % / 5.0 %", "+5.0", "0.0 / 4.0"]
    (throttle,) = (line.strip("| ").split(" | ") for line in throttle_rows(losses)[2:])
    assert throttle == ["20 %", "2", "15.0 % (10.0 to 20.0)", "20 %", "+5"]


def test_command_prints_both_tables(
    tmp_path: Path,
    run: tuple[Summary, list[dict[str, Any]]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_run(tmp_path, "load", run[1])
    main([str(tmp_path), *(text for fact in FACTS for text in ("--fact", fact))])
    first, second = capsys.readouterr().out.split("\n\n")
    assert first.splitlines()[2].startswith("| load | 1 | 1000 |")
    assert second.splitlines()[2].startswith("| 20 % | 1 |")
