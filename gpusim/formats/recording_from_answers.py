"""A recording from QEMU's answers to query-migrate, as any monitoring script keeps them.

A script stores answers as they are, within QMP's "return", beside time stamps of its own, as one
JSON value or as one value per line. The answers are found in all these forms by their content.
Their clock is QEMU's own total-time, so the script's time stamps are not needed. Facts that
are missing in the answers are assumed, and a note names them. Source: qapi/migration.json:MigrationInfo.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from gpusim.formats.errors import AnswersError
from gpusim.formats.foreign_logs import hint_at_reader, with_hint
from gpusim.formats.pasted_text import read_pasted
from gpusim.formats.recording import UNCOUNTED_NOTE, counts_every_sync
from gpusim.formats.recording_file import LATER_STAGES, LEAST_SAMPLES, read_document
from gpusim.formats.recording_shape import COUNTERS, PARAMETERS, PERCENT, VCPUS
from gpusim.qemu import names
from gpusim.qemu.version_text import parse_version
from gpusim.reading import ReadingError, find_json, parse_json
from gpusim.shapes import Shape, Whole
from gpusim.units import MIB, parse_bytes_per_s

COMMAND = "gpusim-record --answers"
Answer: TypeAlias = Mapping[str, Any]

# qapi/migration.json:MigrationStatus, but the states before and between migrations.
_STATES = """active cancelled cancelling colo completed device failed failing postcopy-active postcopy-device
    postcopy-paused postcopy-recover postcopy-recover-setup pre-switchover wait-unplug"""
STATES = frozenset(_STATES.split())
ENDS = ("completed", "failed", "cancelling", "cancelled")
TIMES = ("total-time", "setup-time", "downtime", "expected-downtime", "cpu-throttle-percentage")
FEWEST_FALLS = 3  # a file may hold a few migrations with one answer each
SHARE_ABOVE_LIMIT = 1.1  # a window holds its budget and at most one flush more

# Defaults of migration/options.c [7.2 to 11.1].
DEFAULTS: Mapping[str, int | bool] = {
    "max-bandwidth": 128 * MIB,
    "downtime-limit": 300,
    "avail-switchover-bandwidth": 0,
    "throttle-trigger-threshold": 50,
    "cpu-throttle-initial": 20,
    "cpu-throttle-increment": 10,
    "cpu-throttle-tailslow": False,
    "max-cpu-throttle": 99,
}
# Defaults of a migration with multifd. Source: migration/options.c [7.2 to 11.1].
MULTIFD: Mapping[str, int | str] = {"multifd-channels": 2, "multifd-compression": "none"}
# 9.1 removed `skipped` from `ram`, and 11.1 put a `remaining` of all devices beside it.
NEWEST, NEWER, OLDER = (11, 1), (10, 1), (7, 2)
SWITCHES = {"on": True, "true": True, "off": False, "false": False}
FACT_ADVICE = ". State facts with --fact KEY=VALUE"
SWITCHED_NOTE = "the migration switched to post-copy or COLO: the recording ends there"
NO_END_NOTE = "no answer with status completed: the recording ends with its last active answer"


@dataclass(kw_only=True)
class Found:
    """What a file holds.

    Attributes:
        answers: of query-migrate, in the order of the file.
        facts: by the keys of `parse_facts`, from QEMU's answers to other queries.
    """

    answers: list[Answer] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)


def parse_facts(texts: Iterable[str]) -> dict[str, Any]:
    """Return facts about a migration from KEY=VALUE texts.

    Keys are `qemu`, `accelerator`, `vcpus`, QEMU's names of the parameters in DEFAULTS, and QEMU's
    names of capabilities.

    Raises:
        AnswersError: an unknown key, or a value that the key cannot have.
    """
    facts: dict[str, Any] = {}
    for text in texts:
        key, _, value = text.partition("=")
        if key not in _PARSERS:
            raise AnswersError("unknown_fact", key=key, known=", ".join(_PARSERS))
        parse, expected = _PARSERS[key]
        try:
            facts[key] = parse(value)
        except (ValueError, OverflowError, KeyError):
            raise AnswersError("bad_fact", key=key, value=value, expected=expected) from None
    return facts


def convert(path: Path, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the recording that a file of answers holds, as a document.

    If the file holds several migrations, then the last one is taken.

    Args:
        path: of JSON, or of one JSON value per line.
        facts: of `parse_facts`. They win over the file.

    Raises:
        AnswersError: the file cannot be read, or holds no precopy migration.
        RecordingError: an answer has a wrong value.
    """
    try:
        text = read_pasted(path)
    except ReadingError as error:
        raise AnswersError("unreadable", path=path, reason=error.reason, hint="") from None
    try:
        document = document_of(path, read_answers(path, text), facts, advice=FACT_ADVICE)
    except AnswersError as error:
        raise with_hint(error, text, COMMAND) from None
    read_document(document, str(path), replayed=False)
    return document


def document_of(
    path: Path,
    found: Found,
    facts: Mapping[str, Any],
    found_notes: Sequence[str] = (),
    *,
    advice: str = "",
) -> dict[str, Any]:
    """Return the recording that answers describe, as a document that is not checked yet. See `convert`.

    Args:
        path: of the file, for errors.
        found: what the file holds.
        facts: they win over those of the file.
        found_notes: remarks on how the answers were found, for people.
        advice: how to state a fact, for people.

    Raises:
        AnswersError: the answers describe no precopy migration.
    """
    rows = last_migration(found.answers)
    later = (place for place, row in enumerate(rows) if row["status"].startswith(LATER_STAGES))
    precopy = rows[: next(later, len(rows))]
    notes = [SWITCHED_NOTE] if len(precopy) < len(rows) else []
    rows = precopy
    active = _active(rows)
    if len(active) < LEAST_SAMPLES:
        data = {"answers": len(active), "least": LEAST_SAMPLES, "hint": ""}
        raise AnswersError("too_few_answers", path=path, **data)
    used = {"multifd": _is_positive(active[-1]["ram"].get("multifd-bytes"))}
    used["xbzrle"] = any("xbzrle-cache" in row for row in active)
    known = used | found.facts | dict(facts)
    assumable = _assume(active) | dict(MULTIFD if known["multifd"] else {})
    assumed = {key: value for key, value in assumable.items() if key not in known}
    held = assumed | known
    samples = [_sample(row) for row in rows if _has_counters(row) or row["status"] == "failed"]
    completed = samples[-1]["status"] == "completed"
    scenario: dict[str, Any] = {
        "mem_mib": -(-active[0]["ram"]["total"] // MIB),
        "guest": None,
        "capabilities": sorted(key for key in names.CAPABILITIES - {"events"} if held.get(key)),
        "parameters": {},
    }
    if not completed:
        scenario["limit_s"] = active[-1]["total-time"] / 1000
    notes.append(_describe(assumed, advice))
    if not completed:
        notes.append(NO_END_NOTE)
    if not counts_every_sync(held["qemu"]):
        notes.append(UNCOUNTED_NOTE)
    notes += found_notes
    major, minor = held["qemu"]
    return {
        "scenario": scenario,
        "qemu": {"major": major, "minor": minor, "micro": 0},
        "accelerator": held["accelerator"],
        "vcpus": held["vcpus"],
        "capabilities": scenario["capabilities"],
        "parameters": {key: held[key] for key in (*DEFAULTS, *MULTIFD) if key in held},
        "ended": "completed" if completed else "answers ended",
        "notes": notes,
        "events": [],
        "samples": samples,
    }


def read_answers(path: Path, text: str) -> Found:
    """Return the answers in a text, and the facts beside them.

    Args:
        path: of the text's file, for errors.
        text: as its tool wrote it.

    Raises:
        AnswersError: the text holds no JSON.
    """
    found = Found()
    try:
        for value in _values(text):
            _collect(value, found)
    except ReadingError as error:
        hint = hint_at_reader(text, COMMAND)
        raise AnswersError("unreadable", path=path, reason=error.reason, hint=hint) from None
    if _is_newest_first(found.answers):
        found.answers.reverse()
    return found


def _is_newest_first(answers: Sequence[Answer]) -> bool:
    """Return whether a log viewer turned the order: the clock mostly falls."""
    steps = [
        (after["total-time"] > before["total-time"]) - (after["total-time"] < before["total-time"])
        for before, after in itertools.pairwise(answers)
    ]
    return sum(steps) < 0 and steps.count(-1) > FEWEST_FALLS


def _values(text: str) -> Iterator[object]:
    """Yield the value of a JSON text, or all whole values in it. A value that was cut is left out.

    Raises:
        ReadingError: neither the text nor any part of it is JSON.
    """
    try:
        yield parse_json(text)
        return
    except ReadingError as error:
        whole_error = error
    values = _of_each_line(text)
    values = values or [one for one in find_json(text) if isinstance(one, dict | list)]
    if not values:
        raise whole_error
    yield from values


def _of_each_line(text: str) -> list[object]:
    """Return the values of a text with one whole value per line. []: it has other lines, too."""
    try:
        return [parse_json(line) for line in text.split("\n") if not line.isspace() and line]
    except ReadingError:
        return []


def _collect(value: object, found: Found) -> None:
    """Find answers by their content, whatever surrounds them. Events of QMP are no answers."""
    if isinstance(value, list):
        rows = [row for row in value if isinstance(row, dict)]
        if rows and all("capability" in row for row in rows):
            found.facts |= {
                name: bool(row.get("state"))
                for row in rows
                if (name := str(row["capability"])) in names.CAPABILITIES
            }
        elif rows and all("cpu-index" in row for row in rows):
            found.facts["vcpus"] = len(rows)
        else:
            for row in value:
                _collect(row, found)
    elif isinstance(value, dict) and "event" not in value:
        if str(value.get("status")) in STATES and _is_whole(value.get("total-time")):
            found.answers.append(value)
        elif "max-bandwidth" in value:
            found.facts |= {
                key: held for key, held in value.items() if key in (*DEFAULTS, *MULTIFD)
            }
        elif isinstance(value.get("enabled"), bool) and "present" in value:
            found.facts["accelerator"] = "kvm" if value["enabled"] else "tcg"
        elif _is_version(value.get("qemu")):
            found.facts["qemu"] = (value["qemu"]["major"], value["qemu"]["minor"])
        else:
            for held in value.values():
                _collect(held, found)


def _is_whole(value: object) -> bool:
    return type(value) is int and value >= 0


def _is_version(value: object) -> bool:
    return isinstance(value, dict) and all(_is_whole(value.get(key)) for key in ("major", "minor"))


def _has_counters(answer: Answer) -> bool:
    ram = answer.get("ram")
    return isinstance(ram, dict) and all(_is_whole(ram.get(key)) for key in COUNTERS)


def _active(answers: Sequence[Answer]) -> list[Answer]:
    return [row for row in answers if row["status"] == "active" and _has_counters(row)]


def last_migration(answers: Sequence[Answer]) -> list[Answer]:
    """Return the answers of the last migration that has enough of them, up to its end.

    Each migration restarts total-time and follows the end of the one before. The destination of a
    migration has answers of its own.
    """
    migrations: list[list[Answer]] = [[]]
    for answer in answers:
        before = migrations[-1][-1] if migrations[-1] else answer
        is_over = before["status"] in ENDS and answer["status"] not in ENDS
        if is_over or answer["total-time"] < before["total-time"]:
            migrations.append([])
        migrations[-1].append(answer)
    enough = [rows for rows in migrations if len(_active(rows)) >= LEAST_SAMPLES]
    chosen = (enough or migrations)[-1]
    end = next((place for place, row in enumerate(chosen) if row["status"] in ENDS), len(chosen))
    stopped = end < len(chosen) and chosen[end]["status"] not in ("completed", "failed")
    return chosen[: end + (not stopped)]


def _assume(active: Sequence[Answer]) -> dict[str, Any]:
    """Return what a migration most likely had, by its answers and QEMU's defaults."""
    ram = active[-1]["ram"]
    rates = [row["ram"]["mbps"] for row in active if _is_positive(row["ram"].get("mbps"))]
    limit = int(DEFAULTS["max-bandwidth"])
    above = bool(rates) and statistics.median(rates) * 1e6 / 8 > SHARE_ABOVE_LIMIT * limit
    return {
        "qemu": NEWEST if "remaining" in active[-1] else OLDER if "skipped" in ram else NEWER,
        "accelerator": "kvm",
        "vcpus": 1,
        "auto-converge": any(row.get("cpu-throttle-percentage") for row in active),
        **DEFAULTS,
        "max-bandwidth": 0 if above else limit,
    }


def _is_positive(value: object) -> bool:
    return isinstance(value, int | float) and value > 0


def _sample(answer: Answer) -> dict[str, Any]:
    """Return one answer in the form of a recording's samples. The time is in seconds."""
    ram = answer.get("ram")
    counters = ram.items() if isinstance(ram, dict) else ()
    sample = {key: value for key, value in counters if isinstance(value, int | float)}
    sample |= {key: answer[key] for key in TIMES if key in answer}
    xbzrle = answer.get("xbzrle-cache")
    if isinstance(xbzrle, dict) and _is_whole(xbzrle.get("pages")):
        sample["xbzrle-pages"] = xbzrle["pages"]
    return sample | {"t": answer["total-time"] / 1000, "status": answer["status"]}


def _describe(assumed: Mapping[str, Any], advice: str) -> str:
    facts = ", ".join(f"{key}={_text(value)}" for key, value in assumed.items())
    if not facts:
        return "the answers hold all facts"
    return f"assumed, because the file does not hold it: {facts}{advice}"


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return ".".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _rate(text: str) -> int:
    return 0 if text == "unlimited" else int(parse_bytes_per_s(text))


def _whole(shape: Shape) -> Callable[[str], int]:
    assert isinstance(shape, Whole)

    def parse(text: str) -> int:
        if not (text.isascii() and text.isdecimal() and len(text) < 20):
            raise ValueError(text)
        number = int(text)
        if not shape.low <= number <= shape.high:
            raise ValueError(text)
        return number

    return parse


def _accelerator(text: str) -> str:
    return {"kvm": "kvm", "tcg": "tcg"}[text]


RANGES = {**PARAMETERS.required, **PARAMETERS.optional}
_PARSERS: dict[str, tuple[Callable[[str], Any], str]] = {
    "qemu": (lambda text: parse_version(text)[:2], "a version, such as 10.1"),
    "accelerator": (_accelerator, "kvm or tcg"),
    "vcpus": (_whole(VCPUS), "a number of vCPUs"),
    "max-bandwidth": (_rate, "a rate, such as 128MiB/s or 134217728, or 0 for no limit"),
    "downtime-limit": (_whole(RANGES["downtime-limit"]), "milliseconds"),
    "avail-switchover-bandwidth": (_rate, "a rate, such as 1GiB/s, or 0"),
    **dict.fromkeys(
        ("cpu-throttle-initial", "cpu-throttle-increment", "max-cpu-throttle"),
        (_whole(PERCENT), "a percentage"),
    ),
    "throttle-trigger-threshold": (_whole(RANGES["throttle-trigger-threshold"]), "a percentage"),
    "multifd-channels": (_whole(RANGES["multifd-channels"]), "a number of channels"),
    "cpu-throttle-tailslow": (SWITCHES.__getitem__, "on or off"),
    **dict.fromkeys(sorted(names.CAPABILITIES), (SWITCHES.__getitem__, "on or off")),
}
