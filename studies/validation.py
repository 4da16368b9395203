"""`python -m studies.validation` computes the tables and figures of docs/validation/ and README.md.

It replaces only what stands between two comments that name a table. `--check` writes nothing and prints what
would change.
"""

from __future__ import annotations

import argparse
import difflib
import itertools
import math
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from gpusim.config.compose import composed_config
from gpusim.config.schema import Config
from gpusim.engine.attempts import simulate
from gpusim.engine.records import Result, Summary
from gpusim.explore.estimate import estimate
from gpusim.explore.workers import map_with_bar
from gpusim.formats.profile import load_profile
from gpusim.formats.quantities import Quantities, recorded_quantities, simulated_quantities
from gpusim.formats.recording import Recording
from gpusim.formats.recording_file import load_recording
from gpusim.predict.ensemble import draw_guests, member_configs
from gpusim.predict.host_config import host_config
from gpusim.published import accuracy, accuracy_text, tables
from gpusim.published.outcomes import Outcome, simulate_tables
from gpusim.validation import first_write
from gpusim.validation import profile_accuracy as profiles
from gpusim.validation.accuracy import (
    BAND_PERCENT,
    Case,
    Mode,
    cpu_bound_figures,
    error_percent,
    is_judged,
    summarize,
)
from gpusim.validation.accuracy_text import (
    PROFILE_HEAD,
    describe_profile_figures,
    describe_summary,
    profile_cells,
)
from gpusim.validation.replay import replay_config
from gpusim.validation.runs import make_runs, plan_runs
from gpusim.validation.shipped import RECORDER, SHIPPED, SHORT, load_recordings
from studies import coverage, stripped
from studies.published import write_markdown
from studies.tables import code, places, table, with_tables
from studies.validation_figures import Point, save_errors, save_replay

SEEDS = 20  # of each prediction
LEAST_REPEATS = 3  # of a scenario, or they have no spread
DRAWN = "tailslow.qemu10.a"  # the replay that is drawn over its recording
CASES_OF_10TB = tuple(itertools.product((5, 25, 90), (4, 8), ("qemu_9_1", "qemu_9_2")))
ESTIMATED = 12  # members of a prediction that are also simulated over bitmaps
SETTINGS_OF_ESTIMATES = (
    ["link=10gbit"],
    ["link=25gbit", "migration.multifd_channels=4"],
    ["link=10gbit", "migration=qemu_8_2"],
)
AWAKE_PERCENT = (20, 30, 40, 50, 60)  # throttles with enough stretches for a median


def main(arguments: Sequence[str] | None = None) -> int:
    """Compute the tables and figures. Return 1 if a check found a difference, else 0."""
    options = _parser().parse_args(arguments)
    names = options.tables or list(TABLES)
    changed = []
    for document in options.documents:
        text = document.read_text()
        chosen = [name for name in places(text) if name in names]
        new = with_tables(text, {name: TABLES[name]() for name in chosen})
        changed += _changed(text, new)
        if not options.check:
            document.write_text(new)
    if not (options.check or options.tables):
        options.figures.mkdir(parents=True, exist_ok=True)
        draw(options.figures)
    print("\n".join(changed) or "nothing changed")
    return 1 if options.check and changed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m studies.validation",
        description=__doc__,
    )
    parser.add_argument(
        "tables",
        nargs="*",
        metavar="TABLE",
        choices=[[], *TABLES],
        help="default: all, and figures",
    )
    parser.add_argument(
        "--check", action="store_true", help="write nothing. The exit code is 1 if a table changed"
    )
    parser.add_argument(
        "--documents",
        nargs="+",
        type=Path,
        default=[*sorted(Path("docs/validation").glob("*.md")), Path("README.md")],
    )
    parser.add_argument("--figures", type=Path, default=Path("docs/figures"))
    return parser


def _changed(old: str, new: str) -> list[str]:
    """Return the removed and the added lines."""
    compared = difflib.unified_diff(old.splitlines(), new.splitlines(), n=0, lineterm="")
    return [line for line in list(compared)[2:] if line[0] in "-+"]


@cache
def recorded(folder: Path, mode: Mode, seeds: int = 1) -> tuple[Case, ...]:
    """Return all recordings of a folder with their runs."""
    return tuple(run_all(load_recordings([folder]), mode, seeds))


def run_all(
    recordings: Sequence[Recording],
    mode: Mode,
    seeds: int,
    first_write_costs_ns: Mapping[str, float] | None = None,
) -> list[Case]:
    """Run each recording and return it with its runs."""
    cases = [
        Case(recording=recording, measured=recorded_quantities(recording))
        for recording in recordings
    ]
    make_runs(cases, plan_runs(cases, [mode], seeds, first_write_costs_ns))
    return cases


def draw(folder: Path) -> None:
    """Draw all figures."""
    save_errors(folder / "validation_errors.png", points())
    recording = load_recording(SHIPPED / f"{DRAWN}.json.xz")
    save_replay(folder / "validation_replay.png", recording, simulate(replay_config(recording)))


def points() -> list[Point]:
    """Return every measured total time that judges, with the simulated one."""
    groups: list[tuple[str, Path, Mode, int]] = [
        ("recordings, replayed", SHIPPED, "replay", 1),
        ("recordings, predicted", SHIPPED, "predict", SEEDS),
        ("of gpusim-record, replayed", RECORDER, "replay", 1),
        ("of gpusim-record, predicted", RECORDER, "predict", SEEDS),
        ("by QEMU 11.1, replayed", SHORT, "replay", 1),
    ]
    return [
        Point(
            group=group,
            measured_s=case.measured.total_time_s,
            simulated_s=_median_s(case, mode),
        )
        for group, folder, mode, seeds in groups
        for case in recorded(folder, mode, seeds)
        if case.measured.total_time_s is not None and is_judged(case, mode)
    ] + [
        Point(group="published", measured_s=one.measured_s, simulated_s=one.simulated_s)
        for one in accuracy.judged_total_times(outcomes())
    ]


def _median_s(case: Case, mode: Mode) -> float:
    """Return the median over seeds. A run that does not converge counts as infinite."""
    return statistics.median(run.total_time_s or math.inf for run in case.runs[mode])


def _time(time_s: float | None) -> str:
    return "did not converge" if time_s is None else f"{time_s:.2f}"


def _error(measured_s: float | None, simulated_s: float | None) -> str:
    error = error_percent(measured_s, simulated_s)
    return "-" if error is None else f"{error:+.2f} %"


def how_close() -> list[str]:
    """Return the errors of the total times of each group."""
    rows = []
    found = points()
    for group in dict.fromkeys(point.group for point in found):
        errors = [abs(point.error_percent) for point in found if point.group == group]
        ninth = float(np.percentile(errors, 90, method="inverted_cdf"))
        figures = [statistics.median(errors), ninth, max(errors)]
        shown = ("never ends" if math.isinf(error) else f"{error:.1f} %" for error in figures)
        rows.append([group, str(len(errors)), *shown])
    head = ["total times", "cases", "median error", "nine in ten within", "largest"]
    return table(head, rows)


def replay_rows(folder: Path, *, reported: bool = False) -> list[str]:
    """Return one row per recording, with the count of syncs that QEMU reports if it is another."""
    rows = []
    for case in recorded(folder, "replay"):
        real, ours = case.measured, case.runs["replay"][0]
        rows.append(
            [
                case.recording.case,
                _time(real.total_time_s),
                _time(ours.total_time_s),
                _error(real.total_time_s, ours.total_time_s),
                f"{real.max_throttle_percent} / {ours.max_throttle_percent}",
                f"{real.syncs_made} / {ours.syncs_made}",
                *([f"{real.dirty_sync_count} / {ours.dirty_sync_count}"] if reported else []),
            ]
        )
    head = ["recording", "QEMU, s", "gpusim, s", "error", "highest throttle", "syncs"]
    return table([*head, *(["reported syncs"] if reported else [])], rows)


def figures_of(folder: Path, mode: Mode, seeds: int = 1) -> list[str]:
    """Return the summary over the recordings of a folder."""
    return code(describe_summary(summarize(recorded(folder, mode, seeds))))


def repeats(folder: Path) -> list[str]:
    """Return the spread of QEMU's own repeats of a scenario beside that of the predictions."""
    groups: dict[str, list[Case]] = {}
    for case in recorded(folder, "predict", SEEDS):
        groups.setdefault(case.recording.case.rsplit(".", maxsplit=1)[0], []).append(case)
    rows = []
    for name, cases in groups.items():
        real = [c.measured.total_time_s for c in cases if c.measured.total_time_s is not None]
        runs = [run.total_time_s for case in cases for run in case.runs["predict"]]
        ours = [time_s for time_s in runs if time_s is not None]
        if len(real) < LEAST_REPEATS or not ours:
            continue
        low_s, middle_s, high_s = (float(np.percentile(ours, share)) for share in BAND_PERCENT)
        rows.append(
            [
                name,
                ", ".join(f"{time_s:.1f}" for time_s in real),
                f"{100 * (max(real) - min(real)) / statistics.mean(real):.0f} %",
                f"{middle_s:.1f} ({low_s:.1f} to {high_s:.1f})",
                f"{100 * (high_s - low_s) / middle_s:.0f} %",
                f"{len(ours)} of {len(runs)}",
            ]
        )
    band = f"predicted, s: median ({BAND_PERCENT[0]} to {BAND_PERCENT[-1]} %)"
    head = ["scenario", "QEMU's repeats, s", "their spread", band, "its width", "that converge"]
    return table(head, rows)


WRONG_RULES: dict[str, dict[str, Any]] = {
    "no auto-converge": {"auto_converge": False},
    "9.1's for all: no fallback sync": {"version": "qemu_9_1"},
    "twice the downtime limit": {"downtime_limit": 2},
    "throttle threshold 75 %": {"throttle_trigger_threshold": 75},
}


def wrong_rules() -> list[str]:
    """Return what a replay shows under wrong rules."""
    recordings = [r for r in load_recordings([SHIPPED]) if r.guest and r.guest.kind == "cpu_bound"]
    configs = [_ruled(r, rules) for rules in WRONG_RULES.values() for r in recordings]
    found = map_with_bar(_quantities, configs)
    groups: dict[str, Sequence[Case]] = {"QEMU's": recorded(SHIPPED, "replay")}
    for name in WRONG_RULES:
        groups[name] = [
            Case(recording=r, measured=recorded_quantities(r), runs={"replay": [next(found)]})
            for r in recordings
        ]
    rows = []
    for name, cases in groups.items():
        figures = cpu_bound_figures(cases, "replay")
        errors = (figures[f"{key}_abs_total_time_error_percent"] for key in ("median", "p90"))
        rows.append(
            [
                name,
                f"{figures['completed_simulated_to']} of {figures['completed']}",
                *("never ends" if error is None else f"{error:.2f} %" for error in errors),
                f"{100 * figures['max_throttle_equal_share']:.0f} %",
            ]
        )
    head = ["rules", "converge", "median error", "nine in ten within", "highest throttle equal"]
    return table(head, rows)


def _ruled(recording: Recording, rules: Mapping[str, Any]) -> Config:
    """Return a replay under other rules. A downtime limit is a multiple of the recorded one."""
    config = replay_config(recording)
    if "downtime_limit" in rules:
        rules = {"downtime_limit": rules["downtime_limit"] * config.migration.downtime_limit}
    return replace(config, migration=replace(config.migration, **rules))


def _quantities(config: Config) -> Quantities:
    return simulated_quantities(simulate(config))


def headline() -> list[str]:
    """Return the lines of README.md about recordings."""
    cases = [*recorded(SHIPPED, "replay"), *recorded(RECORDER, "replay")]
    found = cpu_bound_figures(cases, "replay")
    guessed = cpu_bound_figures(
        [*recorded(SHIPPED, "predict", SEEDS), *recorded(RECORDER, "predict", SEEDS)], "predict"
    )
    median, ninth = (found[f"{name}_abs_total_time_error_percent"] for name in ("median", "p90"))
    return [
        f"- **Replays.** Given the recorded writes, the median error of {found['completed']} total times is "
        f"{median:.2f} %. Nine in ten are within {ninth:.2f} %.",
        f"  {100 * found['max_throttle_equal_share']:.0f} % have the same highest throttle as QEMU 7.2 to 11.1.",
        f"- **Predictions of recordings.** Given the guest's write rate before the migration, the median error is "
        f"{guessed['median_abs_total_time_error_percent']:.0f} %.",
        f"  Nine in ten are within {guessed['p90_abs_total_time_error_percent']:.0f} %. QEMU's own repeats on "
        "these hosts differ by as much.",
    ]


def published_headline() -> list[str]:
    """Return the lines of README.md about published measurements."""
    found = accuracy.summarize(outcomes())["measured"]
    return [
        f"- **Published measurements.** The median error of {found['judged_total_times']} published total times is "
        f"{found['median_abs_error_percent']:.1f} %, the largest {found['largest_abs_error_percent']:.0f} %.",
        f"  {len(found['fitted'])} numbers that the authors do not give are fitted, each to one row, and that row does not "
        f"count. The best published predictor: {accuracy_text.BEST_PUBLISHED}.",
    ]


def profiles_headline() -> list[str]:
    """Return the lines of README.md about predictions from a profile."""
    found, kvm = (
        profiles.profile_figures(from_profiles()),
        profiles.profile_figures(from_kvm_profiles()),
    )
    return [
        f"- **Predictions from calc-dirty-rate alone.** Under TCG {found['within_band']} of {found['completed']} "
        "migrations took a time within the 5 to 95 % band.",
        f"  The median error is {found['median_abs_error_percent']:.1f} %, and {found['verdict_right']} of "
        f"{found['migrations']} verdicts are right. Under nested KVM the band is a third as wide",
        f"  and holds {kvm['within_band']} of {kvm['completed']}. The median error is {kvm['median_abs_error_percent']:.1f} %, and "
        f"{kvm['verdict_right']} of {kvm['migrations']} verdicts are right.",
    ]


SHOWN = (  # a figure of a prediction and its scale to percent
    ("median_abs_total_time_error_percent", 1),
    ("p90_abs_total_time_error_percent", 1),
    ("within_3_percent_share", 100),
    ("max_throttle_equal_share", 100),
)


def first_write_rows() -> list[str]:
    """Return the cost of a first write that fits each half of the scenarios best."""
    recordings = load_recordings([SHIPPED])
    left, right = first_write.halves(recordings)
    rows = []
    for name, half in (("left", left), ("right", right), ("all", left + right)):
        stretches = [first_write.find_stretch(recording) for recording in half]
        cost_ns = first_write.fit(stretches)
        errors = (100 * first_write.error(stretches, cost) for cost in (0, cost_ns))
        rows.append([name, str(len(half)), f"{cost_ns:.0f} ns", *(f"{e:.1f} %" for e in errors)])
    return table(["half", "recordings", "best cost", "error of the counters without", "with"], rows)


def first_write_predictions() -> list[str]:
    """Return predictions of one half with the cost, or the speed, that fits the other half."""
    recordings = load_recordings([SHIPPED])
    costs_ns = first_write.fit_costs(recordings)
    speeds = first_write.cross_fit_speeds(recordings)
    slower = [
        replace(r, page_writes_per_s_before=r.page_writes_per_s_before * speeds[r.case])
        for r in recordings
        if r.page_writes_per_s_before is not None
    ]
    variants: dict[str, tuple[Sequence[Recording], dict[str, float]]] = {
        "nothing": (recordings, {}),
        "the cost that fits the other half": (recordings, costs_ns),
        "the speed that fits the other half": (slower, {}),
        "420 ns": (recordings, dict.fromkeys(costs_ns, 420.0)),
    }
    rows = []
    for name, (given, costs) in variants.items():
        found = cpu_bound_figures(run_all(given, "predict", 1, costs), "predict")
        rows.append([name, *(f"{found[key] * scale:.1f} %" for key, scale in SHOWN)])
    errors = ["median error of total time", "nine in ten within", "within 3 %"]
    return table(["predictions with", *errors, "highest throttle equal"], rows)


def awake_rows() -> list[str]:
    """Return the guest's speed while awake by throttle, relative to the speed before."""
    parts: dict[int, list[float]] = {}
    for recording in load_recordings([SHIPPED]):
        if recording.guest is not None and recording.guest.kind == "cpu_bound":
            for percent, speed in first_write.awake_speeds(recording):
                parts.setdefault(percent, []).append(speed)
    rows = (
        [f"{percent} %", str(len(parts[percent])), f"{statistics.median(parts[percent]):.2f}"]
        for percent in AWAKE_PERCENT
    )
    return table(["throttle", "stretches", "speed awake, median"], rows)


@cache
def without_a_counter() -> dict[str, list[Case]]:
    """Return the recordings replayed with and without the guest's counter."""
    return stripped.replayed()


@cache
def from_profiles() -> tuple[profiles.ProfiledCase, ...]:
    """Return recordings under TCG, predicted from their profile alone."""
    return tuple(profiles.predict_recordings([profiles.PROFILED]))


@cache
def from_kvm_profiles() -> tuple[profiles.ProfiledCase, ...]:
    """Return recordings under KVM, predicted from their profile alone."""
    return tuple(profiles.predict_recordings([profiles.PROFILED_KVM]))


@cache
def outcomes() -> tuple[Outcome, ...]:
    """Return all published tables, simulated."""
    return tuple(simulate_tables([tables.load(name) for name in tables.names()]))


@cache
def the_10tb_case() -> tuple[tuple[list[str], Result], ...]:
    """Return the name cells and the result of each run of the 10 TB case."""
    configs = [
        composed_config(
            [
                "experiment=peter_xu_10tb",
                f"migration={version}",
                f"workload.working_set_percent={percent}",
                f"workload.page_writes_per_s={writes}e6",
            ]
        )
        for percent, writes, version in CASES_OF_10TB
    ]
    names = [
        [f"{percent} %", f"{writes} M", version.removeprefix("qemu_").replace("_", ".")]
        for percent, writes, version in CASES_OF_10TB
    ]
    return tuple(zip(names, map_with_bar(simulate, configs), strict=True))


def rows_of_the_10tb_case() -> list[str]:
    """Return one row per run of the 10 TB case."""
    rows = []
    for names, result in the_10tb_case():
        found = result.summary
        rows.append(
            [
                *names,
                f"{found.verdict}",
                f"{found.total_time_s:.1f}",
                f"{found.first_throttle_s:.1f}",
                f"{found.guest_cpu_lost_s / 3600:.2f} h ({found.guest_cpu_lost_percent:.1f} %)",
                f"{found.dirty_sync_count} ({found.fallback_sync_count})",
            ]
        )
    figures = ["verdict", "total, s", "first throttle, s", "vCPU time lost", "syncs (fallback)"]
    return table(["working set", "writes/s", "QEMU", *figures], rows)


def steps_of_the_10tb_case() -> list[str]:
    """Return the time of each throttle step of the 10 TB case."""
    steps = (20, 30, 40, 50, 60, 70, 80, 90, 99)
    rows = []
    for names, result in the_10tb_case():
        first_s: dict[int, float] = {}
        for sync in result.syncs:
            first_s.setdefault(sync.cpu_throttle_percentage, sync.time_s)
        rows.append(
            [*names, *(f"{first_s[step]:.0f}" if step in first_s else "-" for step in steps)]
        )
    return table(["working set", "writes/s", "QEMU", *(f"{step} %" for step in steps)], rows)


def estimates() -> list[str]:
    """How far the runs of a prediction are from runs over bitmaps of the same members."""
    profile = load_profile(Path("docs/profiles/database.yaml"))
    guests = draw_guests(profile, ESTIMATED, 1)[1]
    rows = []
    for settings in SETTINGS_OF_ESTIMATES:
        configs = member_configs(host_config(profile, settings), guests, 1)
        pairs = list(map_with_bar(both_ways, configs))
        errors = [100 * (found.total_time_s / run.total_time_s - 1) for run, found in pairs]
        medians = [
            statistics.median(one.total_time_s for one in side) for side in zip(*pairs, strict=True)
        ]
        rows.append(
            [
                f"`{' '.join(settings)}`",
                f"{sum(run.verdict == found.verdict for run, found in pairs)} of {len(pairs)}",
                *(f"{median:.0f}" for median in medians),
                f"{statistics.median(map(abs, errors)):.2f} %",
                f"{max(errors, key=abs):+.1f} %",
            ]
        )
    head = ["settings", "same verdict", "median of the runs, s", "of the estimates, s",
            "median error", "largest"]  # fmt: skip
    return table(head, rows)


def both_ways(config: Config) -> tuple[Summary, Summary]:
    """Return the summaries of a run over bitmaps and of its estimate."""
    return simulate(config).summary, estimate(config).summary


TABLES: dict[str, Callable[[], list[str]]] = {
    "how_close": how_close,
    "replay_figures": lambda: figures_of(SHIPPED, "replay"),
    "replay": lambda: replay_rows(SHIPPED),
    "predict": lambda: figures_of(SHIPPED, "predict", SEEDS),
    "wrong_rules": wrong_rules,
    "recorder_figures": lambda: figures_of(RECORDER, "replay"),
    "recorder": lambda: replay_rows(RECORDER),
    "short_figures": lambda: figures_of(SHORT, "replay"),
    "short": lambda: replay_rows(SHORT, reported=True),
    "recorder_predictions": lambda: figures_of(RECORDER, "predict", SEEDS),
    "repeats": lambda: repeats(RECORDER),
    "unknown_guest": lambda: stripped.summary_rows(without_a_counter()),
    "unknown_guests": lambda: stripped.case_rows(without_a_counter()),
    "coverage": lambda: coverage.rows(coverage.run_cases()),
    "first_write": first_write_rows,
    "first_write_predictions": first_write_predictions,
    "awake": awake_rows,
    "profiles": lambda: table(PROFILE_HEAD, map(profile_cells, from_profiles())),
    "profiles_headline": profiles_headline,
    "profiles_figures": lambda: code(describe_profile_figures(from_profiles())),
    "profiles_kvm": lambda: table(PROFILE_HEAD, map(profile_cells, from_kvm_profiles())),
    "profiles_kvm_replay": lambda: figures_of(profiles.PROFILED_KVM, "replay"),
    "profiles_kvm_figures": lambda: code(describe_profile_figures(from_kvm_profiles())),
    "published": lambda: write_markdown(outcomes()).splitlines(),
    "published_headline": published_headline,
    "the_10tb_case": rows_of_the_10tb_case,
    "steps_of_the_10tb_case": steps_of_the_10tb_case,
    "estimates": estimates,
    "headline": headline,
}


if __name__ == "__main__":
    sys.exit(main())
