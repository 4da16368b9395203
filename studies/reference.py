"""`python -m studies.reference` writes docs/reference/ from the code. `--check` only compares.

The sources are the docstrings of gpusim/config/schema.py, the registries of gpusim/results, the record
classes, the files of conf/ and the parsers of the commands.
"""

from __future__ import annotations

import argparse
import inspect
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from typing import Any

from gpusim.config import schema
from gpusim.config.presets import conf_folder
from gpusim.engine.records import PostcopySample, SyncRecord
from gpusim.results.html.run_page import SIBLINGS
from gpusim.results.summary_fields import EVACUATION_FIELDS, RUN_FIELDS, SummaryField, places
from gpusim.results.verdicts import OUTCOMES
from studies.tables import table

FOLDER = Path("docs/reference")
NOTE = "<!-- Written by `python -m studies.reference`. Do not edit. -->"
GROUPS = (
    ("vm", schema.VmConfig),
    ("link", schema.LinkConfig),
    ("migration", schema.MigrationConfig),
    ("tracking", schema.TrackingConfig),
    ("postcopy", schema.PostcopyConfig),
    ("backend", schema.BackendConfig),
    ("limit", schema.LimitConfig),
    ("evacuation", schema.EvacuationConfig),
)
PRESET_GROUPS = (
    *("vm", "workload", "link", "migration", "policy", "tracking", "backend"),
    *("experiment", "sweep", "hydra/launcher", "hydra/sweeper"),
)
COMMANDS = ("predict", "collect", "validate", "record")
EXIT_CODES = (  # code, gpusim, the other five
    ("0", "the runs were computed, with any verdict", "done"),
    (
        "1",
        "the results cannot be written (full disk), or memory ran out",
        "the same. gpusim-record and gpusim-predict: a running VM could not be watched. gpusim-validate: some recordings "
        "are not used",
    ),
    (
        "2",
        "the input is wrong, or a folder cannot be written. Nothing is written, except the summary of a run whose rule failed.",
        "the same",
    ),
    ("3", "some runs of a sweep failed. The others have their results.", "-"),
    ("70", "an internal error of gpusim", "the same"),
    ("129, 130, 143", "ended by SIGHUP, SIGINT (Ctrl-C), SIGTERM", "the same"),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write or compare the pages. Return 1 if a compared page differs, else 0."""
    parser = argparse.ArgumentParser(prog="python -m studies.reference", description=__doc__)
    parser.add_argument(
        "--check", action="store_true", help="write nothing. The exit code is 1 if a page differs"
    )
    parser.add_argument("--folder", type=Path, default=FOLDER)
    options = parser.parse_args(arguments)
    differing = []
    for name, write in PAGES.items():
        path = options.folder / name
        text = "\n".join(write()).rstrip() + "\n"
        if not path.is_file() or path.read_text() != text:
            differing.append(str(path))
            if not options.check:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
    print("\n".join(differing) or "nothing changed")
    return int(options.check and bool(differing))


def attributes(kind: type) -> dict[str, str]:
    """Return the description of each attribute that a class's own docstring lists."""
    text = inspect.cleandoc(kind.__doc__ or "")
    _, _, listed = text.partition("Attributes:\n")
    found: dict[str, str] = {}
    names: list[str] = []
    for line in listed.splitlines():
        if match := re.match(r"    (\w+(?:, \w+)*): (.*)", line):
            names = match[1].split(", ")
            found |= dict.fromkeys(names, match[2])
        elif line.strip() and names:
            found |= {name: f"{found[name]} {line.strip()}" for name in names}
        elif not line.strip():
            names = []
    return found


def summary_of(kind: type) -> str:
    """Return the text of a class's docstring before its attributes, as one line."""
    text = inspect.cleandoc(kind.__doc__ or "").partition("Attributes:\n")[0]
    return " ".join(text.split())


def _default(one: Field[Any]) -> str:
    if one.default is not MISSING:
        value = one.default
    elif one.default_factory is not MISSING:
        value = one.default_factory()
    if value is None:
        return "`null`"
    if is_dataclass(value) or value in ([], {}):
        return "none"
    return f"`{str(value).lower()}`" if isinstance(value, bool) else f"`{value}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _keys(prefix: str, kind: type, *, without: Sequence[str] = ()) -> list[str]:
    described: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        described |= attributes(base)
    rows = [
        (f"`{prefix}{one.name}`", _default(one), _cell(described.get(one.name, summary_of(kind))))
        for one in fields(kind)
        if one.name not in without
    ]
    return table(["key", "default", "meaning"], rows)


def configuration() -> Iterator[str]:
    """Yield the page of every configuration key."""
    yield from ["# Configuration keys", "", NOTE, ""]
    yield "`GROUP=NAME` takes a [preset](presets.md), `GROUP.KEY=VALUE` sets one key."
    yield "Sizes, rates and times are written with units: `4TiB`, `10Gbit/s`, `20min`."
    yield "Keys that name a unit, or that are numbers in QEMU (`downtime_limit`, in ms), are plain numbers."
    yield "`gpusim --cfg job` prints all keys with their present values."
    yield from ["", "## Top level", ""]
    names = [name for name, _ in GROUPS] + ["workload"]
    yield from _keys("", schema.Config, without=names)
    yield from [
        "",
        "## workload",
        "",
        "A writer of any pattern but `idle` and `mix` has these keys:",
        "",
    ]
    yield from _keys("workload.", schema.WriterConfig)
    for pattern, kind in schema.PATTERNS.items():
        inherited = {one.name for one in fields(schema.WriterConfig)}
        own = [one.name for one in fields(kind) if one.name not in inherited]
        yield from ["", f"### {pattern}", "", summary_of(kind)]
        if own:
            yield ""
            yield from _keys("workload.", kind, without=sorted(inherited))
    for name, group in GROUPS:
        yield from ["", f"## {name}", "", summary_of(group), ""]
        yield from _keys(f"{name}.", group)
        if name == "migration":
            yield from ["", "### Rules and managers", "", summary_of(schema.PolicyConfig), ""]
            yield from _keys("migration.RULE.", schema.PolicyConfig)
        if name == "evacuation":
            yield from ["", "### Guests of an evacuation", "", summary_of(schema.GuestConfig), ""]
            yield from _keys("evacuation.guests.NAME.", schema.GuestConfig)
    yield from ["", "## attempts", "", summary_of(schema.AttemptConfig), ""]
    yield from _keys("attempts[N].", schema.AttemptConfig)


def presets() -> Iterator[str]:
    """Yield the page of every preset."""
    yield from ["# Presets", "", NOTE, ""]
    yield "A preset is a file of `conf/GROUP/`. `gpusim GROUP=NAME` takes it."
    yield "To use presets of your own in a folder `mine/GROUP/`, add `--config-dir mine`."
    for group in PRESET_GROUPS:
        rows = [
            (f"`{path.stem}`", _cell(_comment(path.read_text())))
            for path in sorted((conf_folder() / group).glob("*.yaml"))
        ]
        yield from ["", f"## {group}", ""]
        yield from table(["preset", "what it is"], rows)


def _comment(text: str) -> str:
    """Return the comment at the top of a preset as one line: what it is, without its command."""
    lines = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        comment = line.removeprefix("#").strip()
        if not comment.startswith(("@package", "gpusim ")):
            lines.append(comment)
    if not lines:
        lines = [part.strip() for part in re.findall(r"#\s*(.+)", text)[:1]]
    return " ".join(lines) or " ".join(text.split())


def _field_rows(found: Sequence[SummaryField]) -> list[tuple[str, str, str, str]]:
    units = {"text": "", "names": "list", "count": ""}
    return [
        (f"`{f.key}`", units.get(f.unit, f.unit), _cell(f.meaning), ", ".join(places(f.key)))
        for f in found
    ]


def summary() -> Iterator[str]:
    """Yield the page of summary.json."""
    yield from ["# summary.json", "", NOTE, ""]
    yield "A run that has a `summary.json` is complete. `status` is about the run, `verdict` about the migration."
    yield ""
    outcomes = [(f"`{key}`", _cell(one.meaning)) for key, one in OUTCOMES.items()]
    yield from table(["status or verdict", "meaning"], outcomes)
    yield from ["", "## Keys", ""]
    yield from table(["key", "unit", "meaning", "also in"], _field_rows([*RUN_FIELDS.values()]))
    yield from [
        "",
        "QEMU compares the downtime limit with an estimate. The final sync, and what the guest",
    ]
    yield "writes after the decision, come on top. So `downtime_ms` may exceed `migration.downtime_limit`."
    yield from ["", "## Evacuations", ""]
    yield from table(
        ["key", "unit", "meaning", "also in"], _field_rows([*EVACUATION_FIELDS.values()])
    )


def files() -> Iterator[str]:
    """Yield the page of the files of a run."""
    yield from ["# Files of a run", "", NOTE, ""]
    yield "A run writes a folder `outputs/DATE/TIME/`. A sweep writes `outputs/multirun/DATE_TIME/`, or the folder"
    yield "that `hydra.sweep.dir=` names, with one folder per run. Files appear complete or not at all."
    yield ""
    rows = [(f"`{name}`", _cell(meaning)) for name, meaning in SIBLINGS.items()]
    rows.append(("`.hydra/`", "the configuration as Hydra composed it, and the overrides"))
    yield from table(["file", "content"], rows)
    yield from [
        "",
        "`plot=false` leaves out the pictures, `report.html`, the trace and `guestperf.json`.",
    ]
    yield from ["", "## syncs.csv", "", summary_of(SyncRecord), ""]
    described = attributes(SyncRecord)
    yield from table(
        ["column", "meaning"],
        [(f"`{one.name}`", _cell(described.get(one.name, ""))) for one in fields(SyncRecord)],
    )
    described = attributes(PostcopySample)
    yield from ["", "## postcopy.csv", "", "Only a run that switched to post-copy has this file."]
    yield from [summary_of(PostcopySample), ""]
    yield from table(
        ["column", "meaning"],
        [(f"`{one.name}`", _cell(described.get(one.name, ""))) for one in fields(PostcopySample)],
    )
    yield from ["", "## postcopy-latency.csv", ""]
    yield "Only a run that switched to post-copy has this file. It has a row for each of QEMU's 24 buckets"
    yield "(postcopy-latency-dist), from `from_us` to `to_us` microseconds, with the number of `requests`."
    yield "The last bucket has no end."


def commands() -> Iterator[str]:
    """Yield the page of the commands."""
    yield from ["# Commands", "", NOTE, ""]
    yield "Every command takes `--help` and `--version`."
    yield from ["", "## gpusim", "", "```"]
    yield "gpusim [GROUP=NAME | GROUP.KEY=VALUE ...]       simulate one migration"
    yield "gpusim -m [KEY=VALUE,VALUE,... ...]             simulate a sweep"
    yield "gpusim --cfg job [...]                          print the configuration"
    yield "gpusim --config-dir FOLDER [...]                add a folder with presets of your own"
    yield "gpusim --shell-completion install=bash          print the code for completion on Tab"
    yield "gpusim --json [...]                             print summary.json of each run on one line"
    yield "gpusim --quiet [...]                            print only the folder. No log, no progress bar"
    yield "gpusim --help                                   list groups and presets"
    yield from ["```", ""]
    yield "The result goes to standard output, and the log to standard error. In a sweep the result is the"
    yield "list of its runs. With `--json` each line has `folder` and the keys of summary.json."
    yield ""
    yield "An error is one line on standard error: `error: KEY = VALUE: what is allowed`. With the"
    yield "environment variable `GPUSIM_TRACEBACK=1` the traceback comes before it. A closed pipe"
    yield "(`| head`) is no error. A second signal ends a command at once."
    yield ""
    yield from table(["exit code", "gpusim", "the other commands"], EXIT_CODES)
    for name in (*COMMANDS, "bench"):
        yield from ["", f"## gpusim-{name}", "", "```", *_help(name), "```"]
    yield from [
        "",
        "## gpusim-validate published",
        "",
        "```",
        *_help("validate", "published"),
        "```",
    ]
    yield from ["", "## gpusim-validate profiles", "", "```", *_help("validate", "profiles"), "```"]


def _help(name: str, *more: str) -> list[str]:
    module = f"gpusim.cli.{name}" if name != "bench" else "gpusim.bench"
    environment = os.environ | {"COLUMNS": "100"}
    command = [sys.executable, "-m", module, *more, "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return done.stdout.rstrip().splitlines()


PAGES: dict[str, Callable[[], Iterator[str]]] = {
    "configuration.md": configuration,
    "presets.md": presets,
    "summary.md": summary,
    "files.md": files,
    "commands.md": commands,
}


if __name__ == "__main__":
    sys.exit(main())
