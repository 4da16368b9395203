"""`python -m studies.guest_loss FOLDER` compares what a benchmark in a guest lost with gpusim.

A run N of a scenario NAME has three files in FOLDER, as LordWicked/live-migration-thesis-code names
them: NAME.mig-stats-run-N.json has query-migrate's answers, NAME.bench-run-N.csv the operations of
each second, and NAME.events-run-N.csv when the benchmark and the migration began and ended. The
command replays the answers of each run. It prints the tables of docs/validation/guest-loss.md.
"""

from __future__ import annotations

import argparse
import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from statistics import mean, median

from gpusim.engine.attempts import simulate
from gpusim.formats.errors import AnswersError
from gpusim.formats.recording import Recording
from gpusim.formats.recording_file import read_document
from gpusim.formats.recording_from_answers import convert, parse_facts
from gpusim.validation.replay import replay_config
from studies.tables import table

BEFORE_S = 60.0  # of the benchmark before the migration are its speed without one
STATS = re.compile(r"(?P<scenario>.+)\.mig-stats-run-(?P<number>\d+)\.json")


@dataclass(frozen=True, kw_only=True)
class Phase:
    """A part of a migration with one throttle.

    Attributes:
        throttle_percent: 0 before the first throttle.
        seconds: its length.
        speed: operations per second, the median over its seconds. A checkpoint of a database
            slows some seconds to a third, and the median leaves them out. A phase in which no
            second ended has the speed of the phase before.
    """

    throttle_percent: int
    seconds: float
    speed: float


@dataclass(frozen=True, kw_only=True)
class Loss:
    """One run.

    Attributes:
        before: operations per second before the migration.
        phases: of the migration, in order.
        cpu_lost_percent, cpu_lost_s: guest_cpu_lost_percent and guest_cpu_lost_s of the replay.
        vcpus: of the guest.
    """

    scenario: str
    before: float
    phases: tuple[Phase, ...]
    cpu_lost_percent: float
    cpu_lost_s: float
    vcpus: int

    @property
    def seconds(self) -> float:
        """Return the length of the migration."""
        return sum(phase.seconds for phase in self.phases)

    @property
    def unthrottled_percent(self) -> float:
        """Return what the guest lost before the first throttle, percent."""
        return 100 * (1 - self.phases[0].speed / self.before)

    @property
    def throttle_percent(self) -> float:
        """Return what the throttle took, percent of the whole migration."""
        reached = sum(phase.seconds * phase.speed for phase in self.phases)
        return 100 * (1 - reached / self.phases[0].speed / self.seconds)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--fact", action="append", default=[], metavar="KEY=VALUE")
    options = parser.parse_args(arguments)
    losses = list(read_losses(options.folder, options.fact))
    print("\n".join([*scenario_rows(losses), "", *throttle_rows(losses)]))


def read_losses(folder: Path, facts: Sequence[str]) -> Iterator[Loss]:
    """Yield the loss of each precopy run whose guest ran during its migration.

    Args:
        facts: about the migrations that the answers do not have, such as vcpus=4.
    """
    for path in sorted(folder.iterdir()):
        if not (name := STATS.fullmatch(path.name)):
            continue
        run = f"{name['scenario']}.{{}}-run-{name['number']}.csv"
        times_s = _event_times(folder / run.format("events"))
        if "source_stopped" in times_s:
            continue
        try:
            recording = read_document(convert(path, parse_facts(facts)), path.name)
        except AnswersError:  # post-copy
            continue
        yield _loss(name["scenario"], recording, times_s, folder / run.format("bench"))


def _loss(scenario: str, recording: Recording, times_s: Mapping[str, float], bench: Path) -> Loss:
    began_s = times_s["migration_started"] - times_s["benchmark_start"]
    length_s = times_s["migration_end"] - times_s["migration_started"]
    with bench.open() as file:
        speeds = [
            (float(row["elapsed_sec"]) - began_s, float(row["current_ops_per_sec"]))
            for row in csv.DictReader(file)
        ]
    changes = [(0.0, 0)]
    for sample in recording.samples:
        if sample.status == "active" and sample.cpu_throttle_percentage > changes[-1][1]:
            changes.append((sample.time_s, sample.cpu_throttle_percentage))
    ends_s = [*(time_s for time_s, _ in changes[1:]), length_s]
    phases: list[Phase] = []
    for (from_s, percent), until_s in zip(changes, ends_s, strict=True):
        own = [speed for time_s, speed in speeds if from_s < time_s <= until_s]
        speed = median(own) if own else phases[-1].speed
        phases.append(Phase(throttle_percent=percent, seconds=until_s - from_s, speed=speed))
    summary = simulate(replay_config(recording)).summary
    return Loss(
        scenario=scenario,
        before=median(speed for time_s, speed in speeds if -BEFORE_S < time_s <= 0),
        phases=tuple(phases),
        cpu_lost_percent=summary.guest_cpu_lost_percent,
        cpu_lost_s=summary.guest_cpu_lost_s,
        vcpus=recording.vcpus,
    )


def _event_times(path: Path) -> dict[str, float]:
    with path.open() as file:
        return {row["event"]: float(row["t_monotonic"]) for row in csv.DictReader(file)}


def scenario_rows(losses: Sequence[Loss]) -> list[str]:
    """Return a table with one row per scenario: what its runs lost in the mean, and the error."""
    rows = []
    for scenario, group in groupby(losses, key=lambda loss: loss.scenario):
        own = list(group)
        throttled, ours = (
            mean(loss.throttle_percent for loss in own),
            mean(loss.cpu_lost_percent for loss in own),
        )
        throttled_s = mean(loss.throttle_percent / 100 * loss.seconds * loss.vcpus for loss in own)
        ours_s = mean(loss.cpu_lost_s for loss in own)
        rows.append(
            [
                scenario,
                str(len(own)),
                f"{mean(loss.before for loss in own):.0f}",
                _spread([loss.unthrottled_percent for loss in own]),
                f"{throttled:.1f} % / {ours:.1f} %",
                f"{ours - throttled:+.1f}",
                f"{throttled_s:.1f} / {ours_s:.1f}",
            ]
        )
    head = [
        "scenario",
        "runs",
        "operations/s before",
        "lost without a throttle",
        "lost to the throttle, measured / gpusim",
        "error, points",
        "vCPU s, measured / gpusim",
    ]
    return table(head, rows)


def throttle_rows(losses: Sequence[Loss]) -> list[str]:
    """Return a table with one row per throttle: what the benchmark lost while it was on.

    The speed before the first throttle is the reference. gpusim takes the throttle itself.
    """
    found: dict[int, list[float]] = {}
    for loss in losses:
        for phase in loss.phases[1:]:
            lost = 100 * (1 - phase.speed / loss.phases[0].speed)
            found.setdefault(phase.throttle_percent, []).append(lost)
    rows = (
        [f"{percent} %", str(len(own)), _spread(own), f"{percent} %", f"{percent - mean(own):+.0f}"]
        for percent, own in sorted(found.items())
    )
    return table(["throttle", "runs", "measured", "gpusim", "error, points"], rows)


def _spread(percents: Sequence[float]) -> str:
    return f"{mean(percents):.1f} % ({min(percents):.1f} to {max(percents):.1f})"


if __name__ == "__main__":
    main()
