"""The tables and texts of gpusim-validate, including predictions from profiles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from gpusim.text import count_noun, text_table
from gpusim.validation.accuracy import BAND_PERCENT, CLOSE_PERCENT
from gpusim.validation.errors import UNPREDICTABLE
from gpusim.validation.profile_accuracy import ProfiledCase, profile_figures
from gpusim.validation.shipped import NotUsed

GROUPS = {
    "cpu_bound": "CPU-bound guests",
    "counter": "paced and full-speed guests with a fine counter",
    "syncs": "unknown guests, from the page counts of the syncs",
}
PROFILE_HEAD = (
    "recording",
    "fitted",
    "QEMU, s",
    "predicted, s: median (5 to 95 %)",
    "within",
    "error",
    "converge",
    "highest throttle, %",
)


LeftOut: TypeAlias = Sequence[tuple[int, NotUsed]]  # how many used recordings come before it


def describe_left_out(left_out: LeftOut) -> str:
    """Return which files are not used, and why, one a line."""
    lines = [f"{one.name}: {one.error}" for _, one in left_out]
    return "\n".join([f"not used: {count_noun(len(lines), 'file')}", *lines])


def _insert(table: str, left_out: LeftOut, starts: Sequence[int]) -> str:
    """Return a table with a line for each file that is not used, in the order of the files.

    Args:
        table: with one line for its head.
        left_out: the files.
        starts: row of the first line of each used recording.
    """
    lines = table.splitlines()
    for place, one in reversed(left_out):
        at = 1 + starts[place] if place < len(starts) else len(lines)
        lines.insert(at, f"{one.name}  not used: {one.error}")
    return "\n".join(lines)


def rows_table(rows: Sequence[Mapping[str, Any]], left_out: LeftOut = ()) -> str:
    """Return the rows of a validation as a table, with the files that are not used."""
    cells = [["case", "mode", "quantity", "measured", "simulated", "error %"]]
    for row in rows:
        error = row["error_percent"]
        cells.append(
            [
                row["case"],
                row["mode"],
                row["quantity"],
                _format_value(row["measured"]),
                _format_value(row["simulated"]),
                "-" if error is None else f"{error:+.2f}",
            ]
        )
    names = [row["case"] for row in rows]
    starts = [n for n, name in enumerate(names) if n == 0 or name != names[n - 1]]
    return _insert(text_table(cells, left_columns=(0, 1, 2)), left_out, starts)


def _format_value(value: float | None) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def describe_summary(summary: Mapping[str, Any]) -> str:
    """Return the summary of a validation as text."""
    parts = [
        _figures_text(f"{mode}, {title}", summary[mode][group])
        for mode in summary
        for group, title in GROUPS.items()
        if group in summary[mode] and _count_cases(summary[mode][group])
    ]
    not_judged = summary.get("replay", {}).get("not_judged", [])
    if not_judged:
        parts.append(
            "replayed, not judged: the bursts of these guests fall between two samples of their "
            "counter\n" + ", ".join(not_judged)
        )
    if "predict" in summary:
        parts.append(_ensembles_text(summary["predict"]["ensembles"]))
        if summary["predict"]["repeats"]:
            parts.append(_repeats_text(summary["predict"]["repeats"]))
    return "\n\n".join(parts)


def describe_unpredictable(cases: Sequence[str]) -> str:
    """Return which recordings were only replayed, and why."""
    return f"only replayed, because {UNPREDICTABLE}: {', '.join(cases)}"


def describe_first_write_costs(costs_ns: Mapping[str, float]) -> str:
    """Return a line per fitted cost of a first write, with the cases that it was used for."""
    return "\n".join(
        f"first write {cost_ns:.0f} ns, fitted to the other recordings: "
        + ", ".join(case for case, cost in costs_ns.items() if cost == cost_ns)
        for cost_ns in sorted(set(costs_ns.values()))
    )


def _count_cases(figures: Mapping[str, Any]) -> int:
    return int(figures["completed"] + figures["not_converged"])


def _figures_text(title: str, figures: Mapping[str, Any]) -> str:
    def percent(key: str, scale: float = 1) -> str:
        return "-" if figures[key] is None else f"{figures[key] * scale:.2f} %"

    gap = _format_value(figures["largest_throttle_difference_steps"])
    stalled = f"{figures['not_converged_simulated_not_to']} of {figures['not_converged']}"
    of_completed = [
        ["completed in QEMU", str(figures["completed"])],
        ["  of them completed in gpusim", str(figures["completed_simulated_to"])],
        ["median |total time error|", percent("median_abs_total_time_error_percent")],
        ["nine in ten within", percent("p90_abs_total_time_error_percent")],
        [f"within {CLOSE_PERCENT:g} %", percent("within_3_percent_share", 100)],
        ["highest throttle equal", percent("max_throttle_equal_share", 100)],
        ["highest throttle, largest gap", f"{gap} steps"],
    ]
    if figures["downtime_within_factor_2_share"] is not None:
        near = percent("downtime_within_factor_2_share", 100)
        of_completed.append(["downtime within factor 2", near])
    of_others = [["not converged in QEMU or gpusim", stalled]]
    of_all = [
        ["syncs made equal", percent("syncs_made_equal_share", 100)],
        ["QEMU's count of syncs equal", percent("dirty_sync_count_equal_share", 100)],
    ]
    cells = of_completed * bool(figures["completed"]) + of_others * bool(figures["not_converged"])
    cells += of_all
    return f"{title}\n{text_table(cells)}"


def _ensembles_text(ensembles: Sequence[Mapping[str, Any]]) -> str:
    cells = [
        ["case", "guest", "QEMU converged", "seeds that do", "QEMU s", "5 %", "median", "95 %"]
    ]
    for row in ensembles:
        share = f"{round(row['converged_share'] * row['seeds'])} of {row['seeds']}"
        times = (
            row["measured_total_time_s"],
            *(row[f"total_time_p{percent}_s"] for percent in BAND_PERCENT),
        )
        cells.append(
            [
                row["case"],
                row["guest"],
                _format_value(row["measured_converged"]),
                share,
                *map(_format_value, times),
            ]
        )
    return "predict, all seeds: total times in seconds\n" + text_table(cells, left_columns=(0, 1))


def _repeats_text(repeats: Sequence[Mapping[str, Any]]) -> str:
    cells = [["repeats", "QEMU's total times, s", "spread %"]]
    for row in repeats:
        times = " ".join(f"{time_s:.2f}" for time_s in row["measured_total_time_s"])
        cells.append([", ".join(row["cases"]), times, f"{row['spread_percent']:.1f}"])
    return "QEMU's own spread between repeats\n" + text_table(cells, left_columns=(0, 1))


def profile_cells(case: ProfiledCase) -> list[str]:
    """Return the cells under PROFILE_HEAD for one recording that was predicted from its profile."""
    band, real_s = case.band, case.recording.total_time_s
    error = case.error_percent
    throttles = case.prediction.band("max_throttle_percent")
    writers = ", ".join(
        f"{writer.kind} {writer.pages / 256:.0f} MiB {writer.page_writes_per_s:.0f}/s"
        for writer in case.prediction.fit.writers
    )
    return [
        case.recording.case,
        writers or "idle",
        "no" if real_s is None else f"{real_s:.1f}",
        "no" if band is None else f"{band.middle:.1f} ({band.low:.1f} to {band.high:.1f})",
        "-" if case.is_within is None else "yes" if case.is_within else "no",
        "-" if error is None else f"{error:+.1f} %",
        f"{100 * case.prediction.probability:.0f} %",
        "-" if throttles is None else f"{throttles.low:.0f} to {throttles.high:.0f}",
    ]


def profile_table(cases: Sequence[ProfiledCase], left_out: LeftOut = ()) -> str:
    """Return the recordings that were predicted from their profiles as a table."""
    rows = [PROFILE_HEAD, *map(profile_cells, cases)]
    table = text_table(rows, left_columns=range(len(PROFILE_HEAD)))
    return _insert(table, left_out, range(len(cases)))


def describe_profile_figures(cases: Sequence[ProfiledCase]) -> str:
    """Return the figures over these recordings as text."""
    figures = profile_figures(cases)
    text = f"verdict right in {figures['verdict_right']} of {figures['migrations']}"
    if figures["median_abs_error_percent"] is None:
        return text
    return (
        f"{text}, total time within the band in {figures['within_band']} of "
        f"{figures['completed']}, median error {figures['median_abs_error_percent']:.1f} %, "
        f"largest {figures['largest_abs_error_percent']:.1f} %, median width of the bands "
        f"{figures['median_band_width_percent']:.0f} %"
    )
