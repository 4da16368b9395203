"""report.html: one run on one page that needs nothing else, for a reader who does not know QEMU.

Owns the page: its order, its words around the story, and its look. It shows what story.py tells and
what alternatives it is given, and decides nothing. No script, no network: the picture is in the page.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from gpusim.config.plugins import KINDS
from gpusim.engine.records import Alternative, Result, Summary
from gpusim.files import write_text
from gpusim.results.narrative import story
from gpusim.results.plots.run import facts, verdict_sentence
from gpusim.results.settings import Settings, at_the_end
from gpusim.text import decider_name, format_duration, format_number
from gpusim.units import format_bytes

SIBLINGS = {
    "summary.json": "the outcome in numbers",
    "config.json": "what was simulated",
    "syncs.csv": "a row a dirty sync, in QEMU's terms",
    "events.jsonl": "every decision, named as QEMU's trace event of it",
    "timeline.csv": "state over time",
    "timeline.npz": "the same for NumPy",
    "plot.png": "the picture",
    "prediction.json": "the prediction in numbers",
    "prediction.png": "the prediction's picture",
    "experiment/fitted.yaml": "this run as an experiment, for gpusim --config-dir",
    "trace.json.gz": "the run on tracks, for ui.perfetto.dev",
    "guestperf.json": "the run as QEMU's guestperf-plot reads it",
    "gpusim.log": "the log",
}
POLICIES = tuple(f"migration.{name}" for name in KINDS)
MAIN_SETTINGS = (
    "vm.memory",
    "vm.vcpus",
    "workload.pattern",
    "workload.working_set",
    "workload.working_set_percent",
    "workload.page_writes_per_s",
    "workload.writers",
    "link.bandwidth",
    "migration.version",
    "migration.auto_converge",
    "migration.max_bandwidth",
    "migration.downtime_limit",
    "migration.max_cpu_throttle",
    "migration.fallback_sync_interval",
    *POLICIES,
    "tracking.mode",
)
WHY = {
    "migration.auto_converge": "QEMU may slow the guest down",
    "migration.version": "a QEMU with the fallback timer",
    "migration.fallback_sync_interval": "the fallback timer is on",
    "migration.max_cpu_throttle": "the throttle may rise further",
    "link.bandwidth": "a faster link",
    "migration.max_bandwidth": "QEMU may use more of the link",
    "migration.downtime_limit": "the guest may stand still for longer, in ms",
    **dict.fromkeys(POLICIES, "QEMU's own rule in its place"),
    "migration.manager": "nobody beside QEMU",
}
LONGEST_VALUE = 120  # characters of a setting; a recorded pace has thousands

CSS = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1rem 3rem; max-width: 62rem; background: #fff;
  color: #1a1a1a; font: 1rem/1.55 system-ui, "DejaVu Sans", Arial, sans-serif; }
header { border-left: .5rem solid #d55e00; padding-left: 1rem; }
header.converged { border-color: #007a5a; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0; }
h2 { font-size: 1.2rem; margin: 2.2rem 0 .6rem; }
p { margin: .4rem 0; max-width: 46rem; }
a { color: #0b57a4; }
a:focus-visible, summary:focus-visible { outline: 3px solid #0b57a4; outline-offset: 2px; }
ol { padding-left: 1.6rem; max-width: 46rem; }
li { margin: .45rem 0; overflow-wrap: break-word; }
figure { margin: 0; }
figure img { display: block; width: 100%; height: auto; }
figcaption, .quiet { color: #555a60; font-size: .92rem; }
table { border-collapse: collapse; width: 100%; }
caption { text-align: left; color: #555a60; font-size: .92rem; padding-bottom: .4rem; }
th, td { text-align: left; vertical-align: top; padding: .35rem .9rem .35rem 0;
  border-bottom: 1px solid #dfe3e8; overflow-wrap: anywhere; }
thead th { border-bottom: 2px solid #8b9096; overflow-wrap: normal; }
tbody th { font-weight: 400; }
tbody td { font-variant-numeric: tabular-nums; }
.pairs th { width: 45%; }
.pairs td { font-weight: 600; }
.settings td { font-weight: 400; }
.changes { table-layout: fixed; }
.changes th:first-child { width: 44%; }
code { font-family: "DejaVu Sans Mono", ui-monospace, monospace; font-size: .88em;
  overflow-wrap: anywhere; }
pre { white-space: pre-wrap; margin: .4rem 0; }
details { margin-top: .8rem; }
summary { cursor: pointer; padding: .2rem 0; }
@media (min-width: 48rem) {
  .columns { columns: 2; column-gap: 3rem; }
  .columns tr { break-inside: avoid; }
}
@media (max-width: 34rem) {
  body { padding-top: 1rem; }
  h1 { font-size: 1.5rem; }
  th, td { padding-right: .5rem; font-size: .92rem; }
  .changes th, .changes td { font-size: .82rem; padding-right: .3rem; }
  .changes thead th { font-size: .75rem; }
  .changes th:first-child { width: 32%; }
}
@media print {
  body { max-width: none; padding: 0; font-size: 10.5pt; }
  a { color: inherit; }
  figure, tr, li { break-inside: avoid; }
  h2 { break-after: avoid; }
}
"""


@dataclass(frozen=True, kw_only=True)
class Foreword:
    """What stands on the page before the run itself, where it is one of many.

    Attributes:
        title, told: the page's title and the line under it, as text.
        sections: HTML.
    """

    title: str
    told: str
    sections: tuple[str, ...]


def write_report(
    result: Result,
    config: Settings | None,
    alternatives: Sequence[Alternative] | None,
    folder: Path,
    name: str,
    foreword: Foreword | None = None,
) -> None:
    """Write the page of a run whose other files are in `folder` already.

    Args:
        result: the migration.
        config: what was simulated; None: not known, and not shown.
        alternatives: what would have made it converge; None: nobody asked.
        folder: of the run; its plot.png becomes part of the page.
        name: of the page.
        foreword: None: the run stands alone.

    Raises:
        OSError: the picture cannot be read or the page not be written.
    """
    picture = (folder / "plot.png").read_bytes()
    last = "summary.json"  # written after all others
    siblings = [name for name in SIBLINGS if name == last or (folder / name).is_file()]
    page = report_page(result, config, alternatives, picture, siblings, foreword)
    write_text(folder / name, page)


def report_page(
    result: Result,
    config: Settings | None,
    alternatives: Sequence[Alternative] | None,
    picture: bytes,
    siblings: Iterable[str],
    foreword: Foreword | None = None,
) -> str:
    """The page as HTML; see write_report."""
    summary = result.summary
    outcome = verdict_sentence(summary.status, summary.verdict, summary.total_time_s)
    vm = f"{format_bytes(summary.vm_bytes)} VM, {decider_name(summary.qemu_version, summary.policies)}"
    told = f"{vm}: a live migration, simulated by gpusim {summary.gpusim_version}."
    if foreword is not None:
        outcome, told = foreword.title, foreword.told
    sections = [
        *(foreword.sections if foreword else ()),
        section("figures", "Key figures", _key_figures(result, config)),
        section("picture", "The run in one picture", _figure(result, picture)),
        section("story", "What happened", listed(story(result, config))),
    ]
    if summary.verdict == "converged":
        alternatives = None  # it needs none
    if alternatives is not None:
        title = "What would have made it converge"
        sections.append(section("alternatives", title, _alternatives(alternatives)))
    if config is not None:
        sections.append(section("configuration", "What was simulated", _settings(config)))
    kind = "converged" if summary.verdict == "converged" else "other"
    return (
        "<!DOCTYPE html>\n"
        '<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(outcome)} \u00b7 {escape(vm)} \u00b7 gpusim</title>\n"
        '<link rel="icon" href="data:,">\n'  # or a browser asks a server for one
        f"<style>{CSS}</style>\n</head>\n<body>\n"
        f'<header class="{kind}">\n<h1>{escape(outcome)}</h1>\n'
        f"<p>{escape(told)}</p>\n{_way_out(alternatives)}</header>\n"
        f"<main>\n{''.join(sections)}</main>\n{_files(siblings)}</body>\n</html>\n"
    )


def _way_out(alternatives: Sequence[Alternative] | None) -> str:
    """The first change that helps, for who reads no further."""
    helping = [change for change in alternatives or () if change.outcome == "converges"]
    if not helping:
        return ""
    others = len(helping) - 1
    more = {0: "", 1: ", or with another change"}.get(others, f", or with {others} other changes")
    link = '<a href="#alternatives">what to expect then</a>'
    return f"<p>It would have converged with {_code(helping[0])}{more}: {link}.</p>\n"


def section(name: str, title: str, body: str) -> str:
    return (
        f'<section aria-labelledby="{name}">\n<h2 id="{name}">{escape(title)}</h2>\n'
        f"{body}</section>\n"
    )


def listed(lines: Iterable[str]) -> str:
    return "<ol>\n" + "".join(f"<li>{escape(line)}</li>\n" for line in lines) + "</ol>\n"


def pairs(rows: Iterable[tuple[str, str]], caption: str, classes: str = "") -> str:
    """A table of two columns; what each row is called is its header."""
    body = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{escape(value)}</td></tr>\n'
        for name, value in rows
    )
    hidden = f"<caption>{escape(caption)}</caption>\n"
    return f'<table class="pairs {classes}">\n{hidden}<tbody>\n{body}</tbody>\n</table>\n'


def _key_figures(result: Result, config: Settings | None) -> str:
    summary = result.summary
    total_s, percent = summary.total_time_s, summary.max_throttle_percent
    limit_ms = at_the_end(result.events, config, "downtime_limit")
    allowed = "" if limit_ms is None else f" (limit {limit_ms} ms)"
    rows = [("Total time", format_duration(total_s))]
    if summary.downtime_ms is None:
        rows.append(("Downtime", f"none: the VM was never stopped{allowed}"))
    else:
        rows.append(("Downtime", f"{format_duration(summary.downtime_ms / 1e3)}{allowed}"))
    if summary.paused_s:
        rows.append(("Paused", format_duration(summary.paused_s)))
    rows += [
        ("Passes over memory", str(len(result.pass_ends_s) + 1)),
        ("Syncs", _syncs(summary)),
        ("Highest throttle", _throttle(summary) if percent else "never throttled"),
        ("Guest CPU lost", f"{format_number(summary.guest_cpu_lost_percent)} %"),
        ("First writes to protected pages", _first_writes(summary)),
        ("Longest sleep of a vCPU", format_duration(summary.longest_vcpu_stall_ms / 1e3)),
        ("Sender held up by syncs", format_duration(summary.sync_stall_s)),
        ("Main loop held up by syncs", _main_loop(summary)),
        ("Sent over the wire", _sent(summary)),
        ("Left to send at the end", format_bytes(summary.remaining_bytes)),
    ]
    return pairs(rows, "Times are simulated time.")


def _syncs(summary: Summary) -> str:
    forced = summary.fallback_sync_count
    by_timer = f"{forced} of them" if forced else "none"
    return f"{summary.dirty_sync_count}, {by_timer} by the fallback timer"


def _first_writes(summary: Summary) -> str:
    cost = f"{format_number(summary.guest_fault_s)} vCPU s" if summary.guest_fault_s else "no time"
    return f"{summary.write_faults:,}, which took {cost}"


def _main_loop(summary: Summary) -> str:
    longest = format_duration(summary.longest_main_loop_stall_ms / 1e3)
    return f"{format_duration(summary.main_loop_stall_s)}, {longest} at most at a time"


def _throttle(summary: Summary) -> str:
    at_top = format_duration(summary.time_at_max_throttle_s)
    return f"{summary.max_throttle_percent} %, for {at_top}"


def _sent(summary: Summary) -> str:
    times = format_number(summary.transferred_bytes / summary.vm_bytes)
    return f"{format_bytes(summary.transferred_bytes)}, {times} times the VM"


def _figure(result: Result, picture: bytes) -> str:
    data = base64.b64encode(picture).decode()
    told = ", ".join(facts(result.summary))
    text = (
        "Three panels over time: what is left to send, with passes shaded and syncs as ticks; the "
        "throttle and the guest's speed; bytes newly dirty against bytes sent a second. "
        f"{verdict_sentence(result.summary.status, result.summary.verdict, result.summary.total_time_s)}: "
        f"{told}."
    )
    return (
        '<figure>\n<img width="1200" height="900" '
        f'alt="{escape(text)}" src="data:image/png;base64,{data}">\n'
        "<figcaption>Shaded: every other pass. The guest is slowed down where it dirties memory too "
        'fast for what is sent. <a href="plot.png">The picture in full size</a></figcaption>\n'
        "</figure>\n"
    )


def _alternatives(alternatives: Sequence[Alternative]) -> str:
    """A table of what helps, and a sentence each for the rest."""
    helping = [change for change in alternatives if change.outcome == "converges"]
    lines = []
    if helping:
        lines.append(
            "<p>Each change alone would have done it. Each was simulated, over expected counts "
            "instead of bitmaps. Of a few values (a link 1.5, 2, 3, 5, 10, 20 or 40 times as fast, a "
            "downtime limit up to 100 times as long and 30 s) the smallest that converges is given, "
            "unless it says that smaller ones were not tried.</p>\n"
        )
        lines.append(_helping(helping))
    else:
        lines.append("<p>None of the single changes that were simulated.</p>\n")
    for outcome, begin in (
        ("does_not", "Not enough, alone"),
        ("not_tried", "Not simulated to the end, as it takes too long"),
    ):
        others = [_code(change) for change in alternatives if change.outcome == outcome]
        if others:
            lines.append(f"<p>{begin}: {'; '.join(others)}.</p>\n")
    return "".join(lines)


def _code(change: Alternative) -> str:
    why = WHY.get(change.key)
    text = f"<code>{escape(change.key)}={escape(change.value)}</code>"
    return f"{text} ({escape(why)})" if why else text


def _helping(helping: Sequence[Alternative]) -> str:
    rows = []
    for change in helping:
        cells = (
            format_duration(change.total_time_s or 0.0),
            format_duration((change.downtime_ms or 0.0) / 1e3),
            f"{change.max_throttle_percent} %",
            f"{format_number(change.guest_cpu_lost_percent or 0.0)} %",
        )
        data = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
        untried = "" if change.smallest else "; smaller ones not tried: it takes too long"
        rows.append(f'<tr><th scope="row">{_code(change)}{untried}</th>{data}</tr>\n')
    names = ("Change", "Total time", "Down\u00adtime", "Throttle up to", "Guest CPU lost")
    head = "".join(f'<th scope="col">{name}</th>' for name in names)
    return (
        '<table class="changes">\n<caption>With one change, what to expect</caption>\n'
        f"<thead>\n<tr>{head}</tr>\n</thead>\n<tbody>\n{''.join(rows)}</tbody>\n</table>\n"
    )


def _settings(config: Settings) -> str:
    """The main settings, and all of them behind a click."""
    every = dict(_flat(config))
    main = [
        (key, value)
        for wanted in MAIN_SETTINGS
        for key, value in every.items()
        if key == wanted or key.startswith(f"{wanted}.")
    ]
    return (
        pairs(
            main,
            "Keys as in gpusim/config/schema.py; those that are null are left out.",
            "settings",
        )
        + "<details>\n<summary>All settings</summary>\n"
        + pairs(every.items(), "All settings that are not null.", "settings")
        + "</details>\n"
    )


def _flat(settings: Settings, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Dotted keys and their values, those that are null left out."""
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        elif value is not None:
            yield prefix + name, _short(value)


def _short(value: Any) -> str:
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]} ..."


def _files(siblings: Iterable[str]) -> str:
    items = "".join(
        f'<li><a href="{escape(name)}">{escape(name)}</a>: {escape(SIBLINGS[name])}</li>\n'
        for name in siblings
    )
    return (
        '<footer>\n<nav aria-labelledby="files">\n<h2 id="files">Files of this run</h2>\n'
        f"<ul>\n{items}</ul>\n</nav>\n</footer>\n"
    )
