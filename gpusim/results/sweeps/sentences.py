"""The text of the findings of a sweep, and of the reasons why files were skipped."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from gpusim.results.bottleneck import bottleneck_line
from gpusim.results.errors import RunsError
from gpusim.results.sweeps.config_values import axis_label, describe_value
from gpusim.results.sweeps.findings import EQUAL, Settings
from gpusim.results.sweeps.runs import FoundRuns
from gpusim.results.verdicts import describe_counts
from gpusim.text import Message, count_noun, format_duration, format_number, join_words

MOST_VALUES = 4  # in one sentence


def describe_outcomes(outcomes: Message) -> str:
    """Return how many runs ended in which way: "6 runs: 4 converged, 2 failed"."""
    runs = count_noun(outcomes.data["runs"], "run")
    return f"{runs}: {describe_counts(outcomes.data['counts'])}"


def describe_finding(finding: Message) -> str:
    """Return a finding as one or two sentences."""
    return _FINDINGS[finding.code](finding.data)


def describe_skipped(reason: Message) -> str:
    """Return why gpusim-collect skipped a folder or a file."""
    return _REASONS[reason.code].format_map(reason.data)


def no_finished_run(folders: str, found: FoundRuns) -> RunsError:
    """Return the error of folders without a finished run, with the first skipped one."""
    if not found.skipped:
        return RunsError("no_finished_run", folders=folders)
    first = found.skipped[0]
    skipped = f"{first.name}: {describe_skipped(first.reason)}"
    return RunsError("no_finished_run_skipped", folders=folders, skipped=skipped)


_REASONS = {
    "no_run": "holds no run of gpusim",
    "link": "a symbolic link to a folder, which is not followed",
    "unfinished": "unfinished: summary.json is missing",
    "unreadable": "cannot be read: {error}",
    "not_an_object": "is not a JSON object with keys",
    "foreign_summary": "not a summary of gpusim: status {status}, verdict {verdict}",
    "damaged": "damaged: {fault}",
}


def _fastest(data: Mapping[str, Any]) -> str:
    how = "completed, with post-copy," if data.get("outcome") == "postcopy" else "converged"
    return f"The fastest run that {how} took {_time(data)} and cost {_loss(data)}{_with(data)}."


def _postcopy(data: Mapping[str, Any]) -> str:
    which = f"{data['runs']} of {count_noun(data['of_runs'], 'run')}"
    subject = "Its guest" if data["runs"] == 1 else "Their guests"
    facts = {
        "postcopy_blackout_ms": ("stood still for {}", 1e-3),
        "postcopy_recovery_s": ("recovered in {}", 1.0),
        "postcopy_stall_vcpu_s": ("lost {} of vCPU time to missing pages", 1.0),
    }
    parts = []
    for key, (text, scale) in facts.items():
        if key in data["ends"]:
            low, high = (format_duration(scale * end) for end in data["ends"][key])
            parts.append(text.format(low if low == high else f"{low} to {high}"))
    return f"{which} switched to post-copy. {subject} {join_words(parts)}."


def _cheapest_near_fastest(data: Mapping[str, Any]) -> str:
    return (
        f"Among the runs within {100 * data['tolerance']:.0f} % of that time, the cheapest took "
        f"{_time(data)} and cost {_loss(data)}{_with(data)}."
    )


def _fastest_is_cheapest(data: Mapping[str, Any]) -> str:
    return f"The fastest run also cost the guest the least CPU time.{_same_cost(data)}"


def _cheapest(data: Mapping[str, Any]) -> str:
    return f"The cheapest run cost {_loss(data)} and took {_time(data)}{_with(data)}.{_same_cost(data)}"


def _same_cost(data: Mapping[str, Any]) -> str:
    if not data["same_cost"]:
        return ""
    return f" {count_noun(data['same_cost'], 'other run')} took and cost the same."


def _time(data: Mapping[str, Any]) -> str:
    return format_duration(data["total_time_s"])


def _loss(data: Mapping[str, Any]) -> str:
    lost_s, percent = data["guest_cpu_lost_s"], data["guest_cpu_lost_percent"]
    if round(lost_s, 3) == 0:
        return "no vCPU time"
    share = "" if percent is None else f" ({format_number(percent)} %)"
    return f"{format_duration(lost_s)} of vCPU time{share}"


def _with(data: Mapping[str, Any]) -> str:
    return f", with {_settings(data['settings'])}" if data["settings"] else f" ({data['run']})"


def _settings(settings: Settings) -> str:
    return join_words([describe_value(key, text) for key, text in settings])


def _limit(begin: str, limit: str) -> Callable[[Mapping[str, Any]], str]:
    def text(data: Mapping[str, Any]) -> str:
        series = f"With {_settings(data['series'])}, all" if data["series"] else "All"
        return (
            f"{series} runs converge {begin} {describe_value(data['key'], data['value'])}{limit}."
        )

    return text


def _series_converge_up_to(data: Mapping[str, Any]) -> str:
    key = data["key"]
    return (
        f"At every value of {axis_label(data['axis'])}, all runs converge up to "
        f"{describe_value(key, data['value'])}, and not from {describe_value(key, data['next'])} on."
    )


def _series_converge_from(data: Mapping[str, Any]) -> str:
    value = describe_value(data["key"], data["value"])
    return f"At every value of {axis_label(data['axis'])}, all runs converge from {value} on."


def _no_config(data: Mapping[str, Any]) -> str:
    verb = "has" if data["runs"] == 1 else "have"
    return (
        f"{count_noun(data['runs'], 'run')} {verb} no config.json. The table lists every run, but "
        "figures and statistics leave out runs without a config."
    )


def _repeated(data: Mapping[str, Any]) -> str:
    verb = "has" if data["runs"] == 1 else "have"
    return (
        f"{count_noun(data['runs'], 'run')} {verb} the same config and seed as another run. "
        "Statistics and figures count such runs once."
    )


def _converges_alone(data: Mapping[str, Any]) -> str:
    values = data["values"]
    shown = values if len(values) <= MOST_VALUES else [*values[:MOST_VALUES], "others"]
    return (
        f"At {len(values)} of {data['compared']} values of {axis_label(data['key'])}, runs converge "
        f"with {_settings(data['series'])} but not with {_settings(data['other'])}: "
        f"{join_words(shown)}."
    )


def _same_time_up_to(data: Mapping[str, Any]) -> str:
    one, other, key = _settings(data["series"]), _settings(data["other"]), data["key"]
    return (
        f"Up to {describe_value(key, data['value'])}, runs with {one} and with {other} take the same "
        f"time. From {describe_value(key, data['next'])} on, runs with {other} take "
        f"{_span(data['smallest'], data['largest'])}."
    )


def _time_change(data: Mapping[str, Any]) -> str:
    change, span = _change(data["median"]), _span(data["lowest"], data["highest"])
    if change != span:
        change += f" in the median ({span})"
    values = count_noun(data["values"], "value")
    return (
        f"At the {values} of {axis_label(data['key'])} where both converge, runs with "
        f"{_settings(data['other'])} take {change}, compared with {_settings(data['series'])}."
    )


def _loss_change(data: Mapping[str, Any]) -> str:
    (one, other), (one_s, other_s) = data["percent"], data["lost_s"]
    text = (
        f"The guest then loses {format_number(other)} % of its CPU time instead of "
        f"{format_number(one)} % in the median, or {format_duration(other_s)} of vCPU time instead "
        f"of {format_duration(one_s)}"
    )
    low, high = data["lowest"], data["highest"]
    if low is not None and high - low > EQUAL * high:
        text += f": {format_number(low)} to {format_number(high)} times as much"
    return f"{text}."


def _changed_with(data: Mapping[str, Any]) -> str:
    names = [axis_label(key) for key in data["others"]]
    shown = names if len(names) <= MOST_VALUES else [*names[:MOST_VALUES], "others"]
    return f"Not only {axis_label(data['key'])} changes: {join_words(shown)} change with it."


def _change(change: float) -> str:
    if abs(change) < EQUAL:
        return "the same time"
    if change > 1:
        return f"{format_number(1 + change)} times as long"
    return f"{format_number(100 * abs(change))} % {'longer' if change > 0 else 'less time'}"


def _span(one: float, other: float) -> str:
    """Return a range of changes: "25 to 50 % less time", "10 % less time to 3 times as long"."""
    first, last = _change(one), _change(other)
    if first == last:
        return first
    if one * other > 0 and all(abs(change) >= EQUAL and change <= 1 for change in (one, other)):
        return f"{format_number(100 * abs(one))} to {last}"
    return f"{first} to {last}"


_FINDINGS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "postcopy": _postcopy,
    "outcomes": lambda data: describe_outcomes(Message("outcomes", data)) + ".",
    "bottleneck": lambda data: bottleneck_line(Message("bottleneck", data)) + ".",
    "fastest": _fastest,
    "cheapest_near_fastest": _cheapest_near_fastest,
    "fastest_is_cheapest": _fastest_is_cheapest,
    "cheapest": _cheapest,
    "converges_from": _limit("from", " on"),
    "converges_up_to": _limit("up to", ""),
    "series_converge_up_to": _series_converge_up_to,
    "series_converge_from": _series_converge_from,
    "no_config": _no_config,
    "repeated": _repeated,
    "converges_alone": _converges_alone,
    "same_time_up_to": _same_time_up_to,
    "time_change": _time_change,
    "loss_change": _loss_change,
    "changed_with": _changed_with,
    "missing_runs": lambda data: (
        f"Only {data['runs']} of {data['planned']} planned runs are here. The same command computes "
        "the others."
    ),
}
