"""`python -m studies.fallback_interval` makes docs/studies/fallback-interval.md: sweeps, figures, tables.

A sweep computes only what is missing, so running the command again only redraws the figures. Overrides
after the command apply to every sweep: `seed=1` makes a study of one seed.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from gpusim.parent import die_with_me
from gpusim.results.plots.canvas import save_pictures
from gpusim.results.plots.study import NEVER, Line, Quantity, XAxis, draw_study
from gpusim.results.sweeps.config_values import FALLBACK, VERSION
from gpusim.results.sweeps.ensembles import Ensemble, ensembles
from gpusim.results.sweeps.runs import Run, find_runs
from gpusim.text import format_number
from studies.tables import table, with_tables

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WORKLOADS = {
    "study_uniform": "uniform",
    "study_hot_cold": "hot and cold",
    "study_sequential": "sequential",
    "study_paced": "paced",
}
RULES, OPERATOR = "study_rules", "study_4tib"
SWEEPS = (*WORKLOADS, RULES, OPERATOR)
INTERVALS_S = (1, 2, 5, 10, 20, 60)
TRACKING = {"kvm_manual": "lazy", "kvm_legacy": "eager"}
BUSY = "workload.page_writes_per_s"
AUTO_CONVERGE = "migration.auto_converge"
WHAT_IF_RULES = {
    "what_if_first_pass": "first pass",
    "what_if_responsive": "responsive",
    "what_if_over_clean": "over clean",
}

TIME = Quantity(key="total_time_s", label="total time (min)", scale=60.0)
LOST = Quantity(key="guest_cpu_lost_percent", label="guest CPU lost (% of vCPU time)")
DOWNTIME = Quantity(key="downtime_ms", label="downtime (ms)")
AGAINST_NEVER = (
    Quantity(key="total_time_s", label="total time, 1 = without the timer", relative_to=NEVER),
    LOST,
    DOWNTIME,
)
COSTS = (
    Quantity(key="dirty_sync_count", label="dirty syncs"),
    Quantity(key="write_faults", label="first writes (million)", scale=1e6),
    Quantity(key="guest_fault_s", label="vCPU time in first writes (s)"),
    Quantity(key="sync_stall_s", label="sender stalled by syncs (s)"),
    Quantity(key="main_loop_stall_s", label="main loop stalled (s)"),
    Quantity(key="longest_main_loop_stall_ms", label="its longest stall (s)", scale=1e3),
)
NOT_CONVERGED = "no"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is missing of the study, draw its figures and write its tables into the document."""
    parser = parser_of("studies.fallback_interval", __doc__, "docs/studies/fallback-interval.md")
    parser.add_argument("--figures", type=Path, default=Path("docs/figures"))
    options = parser.parse_args(arguments)
    runs = runs_of(SWEEPS, options.runs, options.overrides)
    options.figures.mkdir(parents=True, exist_ok=True)
    draw(runs, options.figures)
    text = options.document.read_text()
    options.document.write_text(with_tables(text, tables(runs)))


def parser_of(module: str, description: str | None, document: str) -> argparse.ArgumentParser:
    """Return the parser of a study's command."""
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=description)
    parser.add_argument("overrides", nargs="*", help="overrides for every sweep, such as seed=1")
    parser.add_argument("--runs", type=Path, default=Path("outputs/multirun"))
    parser.add_argument("--document", type=Path, default=Path(document))
    return parser


def runs_of(
    sweeps: Iterable[str], folder: Path, overrides: Sequence[str]
) -> dict[str, Sequence[Run]]:
    """Return the runs of each sweep, after computing the missing ones."""
    found: dict[str, Sequence[Run]] = {}
    for sweep in sweeps:
        command = [
            sys.executable,
            "-c",
            "from gpusim.cli.app import main; main()",
            f"sweep={sweep}",
            f"hydra.sweep.dir={folder / sweep}",
        ]
        subprocess.run([*command, *overrides], check=True, preexec_fn=die_with_me())
        found[sweep] = find_runs([folder / sweep]).runs
    return found


def interval(group: Ensemble) -> str:
    """Return the fallback sync's interval in seconds, as the axes show it."""
    seconds = group.value(FALLBACK).number
    return NEVER if seconds is None else f"{seconds:g}"


def memory(group: Ensemble) -> str:
    return group.value("vm.memory").text


def rule(group: Ensemble) -> str:
    """Return the version or the what-if rule."""
    version = group.runs[0].config.get(VERSION)
    return WHAT_IF_RULES.get(str(version)) or group.value(VERSION).text


def variant(group: Ensemble) -> str:
    """Return what an operator can choose: no auto-converge, QEMU 9.1 or QEMU 9.2."""
    if group.runs[0].config[AUTO_CONVERGE] is False:
        return "off"
    return "QEMU 9.1" if interval(group) == NEVER else "QEMU 9.2"


def writes(group: Ensemble) -> str:
    """Return millions of page writes per second."""
    return f"{(group.value(BUSY).number or 0.0) / 1e6:g}"


def lines(
    groups: Iterable[Ensemble],
    name: Callable[[Ensemble], str],
    place: Callable[[Ensemble], str],
) -> list[Line]:
    """Return one line per name, in the order of the groups."""
    found: dict[str, dict[str, Ensemble]] = {}
    for group in groups:
        found.setdefault(name(group), {})[place(group)] = group
    return [Line(name=name, points=points) for name, points in found.items()]


def having(runs: Iterable[Run], key: str, value: object) -> list[Ensemble]:
    """Return the ensembles of the runs with that value."""
    return ensembles(run for run in runs if run.config.get(key) == value)


def draw(runs: Mapping[str, Sequence[Run]], folder: Path) -> None:
    """Draw all figures of the study, each with its variant for narrow pages."""
    intervals = XAxis(
        label="interval of the fallback sync (s), log scale",
        places={**{f"{seconds}": float(seconds) for seconds in INTERVALS_S}, NEVER: None},
    )
    for mode, called in TRACKING.items():
        columns = {
            workload: lines(having(runs[sweep], "tracking.mode", mode), memory, interval)
            for sweep, workload in WORKLOADS.items()
        }
        for name, title, quantities in (
            ("study", "Effect of the fallback sync's interval", AGAINST_NEVER),
            ("study_costs", "Cost of the syncs", COSTS),
        ):
            drawing = partial(
                draw_study,
                title=title,
                facts=[f"{called} tracking ({mode}), {_conditions(runs)}"],
                columns=columns,
                quantities=quantities,
                x=intervals,
            )
            save_pictures(folder / f"{name}_{called}.png", drawing)
    save_pictures(folder / "study_rules.png", partial(_draw_rules, runs=runs))
    save_pictures(folder / "study_4tib.png", partial(_draw_operator, runs=runs[OPERATOR]))


def _draw_rules(figure: Figure, runs: Mapping[str, Sequence[Run]]) -> None:
    patterns = dict.fromkeys(str(run.config["workload.pattern"]) for run in runs[RULES])
    rules = dict.fromkeys(rule(group) for group in ensembles(runs[RULES]))
    draw_study(
        figure,
        "What other rules would have done",
        [f"lazy tracking (kvm_manual), {_conditions(runs)}"],
        {
            pattern.replace("_", " and "): lines(
                having(runs[RULES], "workload.pattern", pattern), memory, rule
            )
            for pattern in patterns
        },
        (
            Quantity(key=TIME.key, label="total time, 1 = QEMU 9.2", relative_to="QEMU 9.2"),
            LOST,
            DOWNTIME,
        ),
        XAxis(label="QEMU versions and what-if rules", places=dict.fromkeys(rules)),
    )


def _draw_operator(figure: Figure, runs: Sequence[Run]) -> None:
    busy = dict.fromkeys(writes(group) for group in ensembles(runs))
    draw_study(
        figure,
        "Auto-converge for a VM of 4 TiB",
        ["a fifth of RAM is written, lazy tracking, 100 Gbit/s, a cross did not converge"],
        {"uniform": sorted(lines(ensembles(runs), variant, writes), key=_name)},
        (TIME, LOST, DOWNTIME),
        XAxis(
            label="million page writes per second, log scale",
            places={text: float(text) for text in busy},
        ),
    )


def _conditions(runs: Mapping[str, Sequence[Run]]) -> str:
    seeds = len({run.config["seed"] for run in runs[RULES]})
    of = f"medians and 5 to 95 % of {seeds} seeds" if seeds > 1 else "one seed"
    return f"100 Gbit/s, {of}, a cross did not converge"


def _name(line: Line) -> str:
    return line.name


def tables(runs: Mapping[str, Sequence[Run]]) -> dict[str, list[str]]:
    """Return the lines of each table by its name, as medians over seeds."""
    return {
        "intervals": _interval_table(runs),
        "costs": _cost_table(runs),
        "rules": _rule_table(runs[RULES]),
        "4tib": _operator_table(runs[OPERATOR]),
        "bands": [f"- {sweep}: {_widest_band(found)}" for sweep, found in runs.items()],
    }


def time_and_loss(group: Ensemble | None, decimals: int = 0) -> str:
    """Return total time and guest CPU lost, and how many converged if not all did."""
    if group is None:
        return "-"
    time_s, lost = group.median(TIME.key), group.median(LOST.key)
    if time_s is None or lost is None:
        return NOT_CONVERGED
    share = "" if len(group.converged) == len(group.runs) else f" ({group.share})"
    return f"{time_s:.{decimals}f} s, {lost:.1f} %{share}"


def _interval_table(runs: Mapping[str, Sequence[Run]]) -> list[str]:
    names = [*map(str, INTERVALS_S), NEVER]
    head = ["RAM", "workload", "tracking", *(f"{n} s" for n in names[:-1]), NEVER]
    rows = []
    for sweep, workload in WORKLOADS.items():
        for mode, called in TRACKING.items():
            for line in lines(having(runs[sweep], "tracking.mode", mode), memory, interval):
                cells = [time_and_loss(line.points.get(name)) for name in names]
                rows.append([line.name, workload, called, *cells])
    return table(head, rows)


def _cost_table(runs: Mapping[str, Sequence[Run]]) -> list[str]:
    """Return the costs for the uniform guest."""
    head = ["RAM", "tracking", "interval", *(q.label for q in COSTS)]
    rows = []
    for mode, called in TRACKING.items():
        for line in lines(having(runs["study_uniform"], "tracking.mode", mode), memory, interval):
            for name in ("1", "5", "60", NEVER):
                if name in line.points:
                    numbers = [(q, line.points[name].median(q.key)) for q in COSTS]
                    cells = ["-" if n is None else format_number(n / q.scale) for q, n in numbers]
                    rows.append([line.name, called, name, *cells])
    return table(head, rows)


def _rule_table(runs: Sequence[Run]) -> list[str]:
    names = list(dict.fromkeys(rule(group) for group in ensembles(runs)))
    head = ["RAM", "workload", *names]
    rows = []
    for pattern in dict.fromkeys(str(run.config["workload.pattern"]) for run in runs):
        for line in lines(having(runs, "workload.pattern", pattern), memory, rule):
            cells = [time_and_loss(line.points.get(name)) for name in names]
            rows.append([line.name, pattern.replace("_", " and "), *cells])
    return table(head, rows)


def _operator_table(runs: Sequence[Run]) -> list[str]:
    names = ("off", "QEMU 9.1", "QEMU 9.2")
    head = ["million page writes per second", *(f"auto-converge: {n}" for n in names)]
    rows = []
    for line in lines(ensembles(runs), writes, variant):
        rows.append([line.name, *(time_and_loss(line.points.get(n)) for n in names)])
    return table(head, rows)


def _widest_band(runs: Sequence[Run]) -> str:
    """Return the largest distance of the 5th or 95th percentile over seeds from the median."""
    widest, where = 0.0, "-"
    for group in ensembles(runs):
        quantiles = group.quantiles(TIME.key)
        if quantiles:
            low, middle, high = quantiles
            width = 100 * max(high - middle, middle - low) / middle
            if width > widest:
                widest, where = width, f"{memory(group)}, {interval(group)}, {rule(group)}"
    return f"total time within {widest:.1f} % of the median of its seeds (widest: {where})"


if __name__ == "__main__":
    main()
