"""The text of a log as its tool wrote it, without what a terminal, a collector or a copy put around it.

It removes colours, no-break spaces, and what stands before every line: the stamp of journald or kubectl,
a name of a pod, or the mark of a quoted mail. If the newest line is first, then it turns the order. It does
not know any kind of log.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path

from gpusim.reading import read_text

# ECMA-48 sequences, as bytes or as rsyslog (#033) and cat -v (^[) print them.
ESCAPES = re.compile(
    r"(?:\x1b|#033|\^\[)\[[0-?]{0,40}[ -/]{0,4}[@-~]|\x1b\][^\x07\x1b\n]{0,400}(?:\x07|\x1b\\)"
    r"|\x1b[()][0-9A-B]|[\x00\x07\x08\u200b\ufeff]"
)
ESCAPE_MARKS = ("\x1b", "#033[", "^[[", "\x00", "\x07", "\x08", "\u200b", "\ufeff")
SPACES = str.maketrans({"\u00a0": " ", "\u202f": " ", "\u2007": " "})
_DATE = r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d{1,9})?(?: ?(?:Z|[+-]\d\d:?\d\d))?"
_SYSLOG = r"[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d(?:\.\d{1,9})?"
_UNIT = r"[\w.:-]{1,255} [\w.@/()-]{1,100}(?:\[\d{1,10}\])?: "  # host and program
PREFIXES = tuple(
    re.compile(text, re.ASCII)
    for text in (
        r"[ \t]*(?:> ?)+",  # a quoted mail
        r"\[pod/[\w./-]{1,300}\] ",  # kubectl logs --prefix
        r"[\w.-]{1,100} +\| ",  # docker compose logs
        r"[0-9]{1,9}[:-](?![0-9])[ \t]?",  # grep -n
    )
)
# Some tools begin their own lines with a stamp.
STAMPS = tuple(
    re.compile(text, re.ASCII)
    for text in (
        rf"(?:{_SYSLOG}|{_DATE}) {_UNIT}",  # journald, syslog
        rf"{_DATE} (?:stdout|stderr) [FP] ",  # a file of the kubelet
        rf"\[?(?:{_DATE}|{_SYSLOG})\]?:?[ \t]",  # kubectl logs --timestamps, ts, Grafana
        r"\[?\d\d:\d\d:\d\d(?:\.\d{1,9})?\]?:? ",
    )
)
OWN_STAMP = re.compile(
    rf"^(?:{_DATE}|{_SYSLOG}):? (?:migration |migrate_set_|start|event )", re.M | re.ASCII
)
# The first stamp of a line: year, month, day, time and fraction, as far as the tool prints them.
STAMP = re.compile(
    r"(?P<year>\d{4})-(?P<month>\d\d)-(?P<day>\d\d)[T ](?P<time>\d\d:\d\d:\d\d)(?:[.,](?P<part>\d{1,9}))?"
    r"|(?P<name>[A-Z][a-z]{2}) (?P<date>[ \d]?\d)(?:, (?P<of>\d{4}) @)? "
    r"(?P<clock>\d\d:\d\d:\d\d)(?:\.(?P<digits>\d{1,9}))?",  # syslog, and Kibana with a year
    re.ASCII,
)
MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
NOT_BLANK = re.compile(r"^[^\S\n]*+\S[^\n]*", re.MULTILINE)  # a line
FILE_NAME = re.compile(r"[A-Za-z./~][\w./~@+-]{0,300}:", re.ASCII)  # grep of several files
SHARE = 0.9  # of the lines must begin so
TRIED = 200  # lines that decide first, because a log may be long
MOST_LAYERS = 4
FEWEST_LINES = 3
WRAPPED = ("log", "MESSAGE", "message", "line")  # docker, journalctl -o json, Elastic, Loki
TITLES = ("message", "Line")  # of the column in CSV of Kibana and Grafana
LONGEST_HEADER = 1000  # characters
# One JSON value with all lines: an export of Grafana, an answer of Elastic, Loki or Proxmox VE. Its begin.
EXPORT = re.compile(
    r'\s*[\[{].{0,4000}?"(?:(?:log|MESSAGE|message|line|t)"\s*:|values"\s*:\s*\[\s*\[)\s*"',
    re.DOTALL,
)
PYTHON_TEXT = re.compile(r"'((?:[^'\\\n]|\\.)*+)'")
PYTHON_WORDS = {"True": "true", "False": "false", "None": "null"}


def read_pasted(path: Path | str) -> str:
    """Return the text of a file as its tool wrote it. Bytes that are no UTF-8 become U+FFFD.

    Raises:
        ReadingError: it cannot be read.
    """
    return clean(read_text(path, errors="replace"))


def without_colours(text: str) -> str:
    """Return a text without the sequences of a terminal, and with plain spaces."""
    if any(mark in text for mark in ESCAPE_MARKS):
        text = ESCAPES.sub("", text)
    return text if text.isascii() else text.translate(SPACES)


def clean(text: str) -> str:
    """Return a text without colours and what stands before every line, the oldest line first."""
    text = _oldest_first(_unwrapped(without_colours(text)))
    text = _without_file_name(text)
    for _ in range(MOST_LAYERS):
        patterns = PREFIXES if OWN_STAMP.search(text) else PREFIXES + STAMPS
        found = next((one for one in patterns if _begins_lines(one, text)), None)
        if found is None:
            break
        text = "\n".join(line[_end(found, line) :] for line in text.split("\n"))
    return _as_json(text)


def _end(pattern: re.Pattern[str], line: str) -> int:
    found = pattern.match(line)
    return 0 if found is None else found.end()


def _begins_lines(pattern: re.Pattern[str], text: str) -> bool:
    """Return whether nearly all lines begin so."""
    for most in (TRIED, None):
        found = lines = 0
        for line in _lines(text, most):
            lines += 1
            found += pattern.match(line) is not None
        if lines < FEWEST_LINES or found < SHARE * lines:
            return False
    return True


def _lines(text: str, most: int | None = None) -> Iterator[str]:
    """Yield the lines that are not blank, or the first of them."""
    for found in itertools.islice(NOT_BLANK.finditer(text), most):
        yield found[0]


def _without_file_name(text: str) -> str:
    """Return the text without one file name that begins all lines."""
    lines = list(_lines(text, TRIED))
    if len(lines) < FEWEST_LINES:
        return text
    found = FILE_NAME.match(lines[0])
    if found is None or not all(line.startswith(found[0]) for line in _lines(text)):
        return text
    return "\n".join(line.removeprefix(found[0]) for line in text.split("\n"))


def _oldest_first(text: str) -> str:
    """Return the lines in the order of their stamps: a log viewer may export the newest line first.

    Lines keep their order if fewer than half of them have a stamp, as in output of several lines per answer.
    """
    for most in (TRIED, None):
        stamps = [_stamp(line) for line in _lines(text, most)]
        known = [one for one in stamps if one is not None]
        steps = [(b > a) - (b < a) for a, b in itertools.pairwise(known)]
        if 2 * len(known) < len(stamps) or sum(steps) > 0:
            return text
    if sum(steps) >= -1:  # a clock that is set back, or passes the turn of a year, falls once
        return text
    return "\n".join(reversed(text.split("\n")))


def _stamp(line: str) -> tuple[str, int, int, str, str] | None:
    """Return the parts of a line's first stamp, which compare as its time does. None: it has none."""
    found = STAMP.search(line)
    if found is None:
        return None
    if found["year"]:
        date = found["year"], int(found["month"]), int(found["day"])
        return *date, found["time"], found["part"] or ""
    if found["name"] not in MONTHS:
        return None
    date = found["of"] or "", 1 + MONTHS.index(found["name"]), int(found["date"])
    return *date, found["clock"], found["digits"] or ""


def _unwrapped(text: str) -> str:
    """Return the lines that a collector put into a table or JSON: an object per line, or one value."""
    line = next(_lines(text), "")
    titles = [one.strip(' "') for one in line[:LONGEST_HEADER].split(",")]
    if title := next((one for one in TITLES if one in titles), None):
        return _in_column(text, titles.index(title))
    first = _message(line)
    if first is None:
        return _exported(text)
    found = [_message(line) for line in _lines(text)]
    kept = [one.rstrip("\n") for one in found if one is not None]
    return "\n".join(kept) if len(kept) >= SHARE * len(found) else text


def _message(line: str) -> str | None:
    if not line.lstrip().startswith("{"):
        return None
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    texts = (found.get(key) for key in WRAPPED) if isinstance(found, dict) else ()
    return next((one for one in texts if isinstance(one, str)), None)


def _in_column(text: str, place: int) -> str:
    """Return the cells in a column of CSV, without its header."""
    try:
        rows = list(csv.reader(io.StringIO(text)))[1:]  # a cell may hold several lines
    except csv.Error:
        return text
    return "\n".join(row[place].rstrip("\n") for row in rows if len(row) > place)


def _exported(text: str) -> str:
    """Return the lines in one JSON value. Without any the text stays."""
    if not EXPORT.match(text):
        return text
    try:
        found = list(_texts_in(json.loads(text)))
    except (ValueError, RecursionError):
        return text
    return "\n".join(found) if found else text


def _texts_in(value: object) -> Iterator[str]:
    if isinstance(value, list):
        if len(value) == 2 and all(isinstance(one, str) for one in value) and value[0].isdecimal():
            yield value[1].rstrip("\n")  # Loki: nanoseconds and the line
            return
        for one in value:
            yield from _texts_in(one)
    elif isinstance(value, dict):
        is_numbered = isinstance(value.get("n"), int)  # by Proxmox VE
        keys = ("t",) if is_numbered else WRAPPED
        texts = [one for key in keys if isinstance(one := value.get(key), str)]
        if texts:
            yield texts[0].rstrip("\n")
            return
        for one in value.values():
            yield from _texts_in(one)


def _as_json(text: str) -> str:
    """Return answers that Python printed as JSON."""
    if "'total-time'" not in text or '"total-time"' in text:
        return text
    parts = PYTHON_TEXT.split(text)  # every second part stood between quotes
    for place, part in enumerate(parts):
        if place % 2:
            parts[place] = json.dumps(part)
        else:
            parts[place] = re.sub(
                r"\b(?:True|False|None)\b", lambda found: PYTHON_WORDS[found[0]], part
            )
    return "".join(parts)
