"""Reports of QEMU's guestperf, and of gpusim: answers of query-migrate under other names.

A report has one record per dirty-sync-count, and the settings of its scenario. Source: QEMU's
tests/migration-stress/guestperf (until 9.2 tests/migration/guestperf): progress.py, scenario.py,
hardware.py, and engine.py:_migrate_progress for the units.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gpusim.formats.errors import IntakeError
from gpusim.formats.recording_from_answers import Found
from gpusim.formats.recording_shape import PERCENT, VCPUS
from gpusim.formats.sync_record import normal_pages
from gpusim.qemu.parameters import MOST_DOWNTIME_LIMIT_MS, MOST_MULTIFD_CHANNELS
from gpusim.reading import ReadingError, find_json, parse_json
from gpusim.shapes import Anything, Flag, Keys, Number, Rows, ShapeError, Text, Whole, check
from gpusim.units import MIB

UNLIMITED_MIB_PER_S = 125_000  # scenario.py: "effectively unlimited"
REPORT = "progress_history"
EXPECTED = "a whole report of guestperf"
RAM = {  # guestperf's name -> query-migrate's
    "transferred_bytes": "transferred",
    "remaining_bytes": "remaining",
    "total_bytes": "total",
    "duplicate_pages": "duplicate",
    "normal_pages": "normal",
    "dirty_rate_pps": "dirty-pages-rate",
    "iterations": "dirty-sync-count",
}
SHAPE = Keys(
    required={
        "progress_history": Rows(
            Keys(
                required={
                    "status": Text(),
                    "ram": Keys(
                        required=dict.fromkeys(RAM, Whole()),
                        optional={"transfer_rate_mbs": Number(0, 1e9, " Mbit/s")},
                        defaults={"transfer_rate_mbs": 0.0},
                    ),
                    "duration": Number(0, 1e12, " ms"),
                },
                optional={
                    "downtime": Number(0, 1e12, " ms"),
                    "throttle_pcent": Whole(0, 99, " %"),
                },
                defaults={"downtime": 0, "throttle_pcent": 0},
            )
        ),
    },
    optional={
        "hardware": Keys(
            optional={"cpus": VCPUS},
        ),
        "scenario": Keys(
            optional={
                "downtime": Whole(0, MOST_DOWNTIME_LIMIT_MS, " ms"),
                "bandwidth": Number(0, 1e9, " MiB/s"),
                "auto_converge": Flag(),
                "auto_converge_step": PERCENT,
                "compression_xbzrle": Flag(),
                "multifd": Flag(),
                "multifd_channels": Whole(1, MOST_MULTIFD_CHANNELS),
                "post_copy": Flag(),
            },
        ),
        "binary": Anything(),
    },
    allowed="must be a report of guestperf",
)


def read_guestperf(path: Path, text: str) -> Found:
    """Return the records of a report as answers, and its settings as facts.

    Args:
        path: of the report, for errors.
        text: of the report.

    Raises:
        IntakeError: it is cut off.
        ShapeError: a value is wrong.
    """
    try:
        document = check(_report(text), SHAPE)
    except ReadingError as error:
        raise IntakeError("unreadable", path=path, reason=error.reason, known=EXPECTED) from None
    except ShapeError as error:
        raise IntakeError(error.code, path=path, **error.data) from None
    answers = [_answer(row) for row in document["progress_history"]]
    _count_pages(answers)
    return Found(
        answers=list(answers),
        facts=_facts(document.get("scenario") or {}, document.get("hardware") or {}),
    )


def _report(text: str) -> object:
    """Return the document in a text. If other text surrounds it, then the last report counts.

    Raises:
        ReadingError: there is no whole one.
    """
    try:
        return parse_json(text)
    except ReadingError as error:
        found = [one for one in find_json(text) if isinstance(one, dict) and REPORT in one]
        if not found:
            raise error from None
        return found[-1]


def _answer(row: Mapping[str, Any]) -> dict[str, Any]:
    ram = {name: row["ram"][key] for key, name in RAM.items()}
    found = {
        "status": row["status"],
        "total-time": round(row["duration"]),
        "ram": ram | {"mbps": row["ram"]["transfer_rate_mbs"]},
    }
    if row["status"] == "completed":
        found["downtime"] = round(row["downtime"])
    if row["throttle_pcent"]:
        found["cpu-throttle-percentage"] = row["throttle_pcent"]
    return found


def _count_pages(answers: Sequence[dict[str, Any]]) -> None:
    """Set the pages of records that lack them. gpusim's own reports know them only at the end.

    Nearly all zero pages are passed over before the second sync.
    """
    for answer in answers:
        ram = answer["ram"]
        if ram["transferred"] and not (ram["normal"] or ram["duplicate"]):
            zero = answers[-1]["ram"]["duplicate"] if ram["dirty-sync-count"] > 1 else 0
            ram |= {"duplicate": zero, "normal": normal_pages(ram["transferred"], zero)}


def _facts(scenario: Mapping[str, Any], hardware: Mapping[str, Any]) -> dict[str, Any]:
    names = {
        "downtime": "downtime-limit",
        "auto_converge": "auto-converge",
        "auto_converge_step": "cpu-throttle-increment",
        "compression_xbzrle": "xbzrle",
        "multifd": "multifd",
        "multifd_channels": "multifd-channels",
        "post_copy": "postcopy-ram",
    }
    facts = {name: scenario[key] for key, name in names.items() if scenario.get(key) is not None}
    rate = scenario.get("bandwidth")
    if rate is not None:
        facts["max-bandwidth"] = 0 if rate >= UNLIMITED_MIB_PER_S else round(rate * MIB)
    if hardware.get("cpus"):
        facts["vcpus"] = hardware["cpus"]
    return facts
