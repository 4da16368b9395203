"""Does the registry describe every field of summary.json, and no other?"""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from gpusim import Result
from gpusim.engine.records import EvacuationSummary, Summary
from gpusim.results import write_failure, write_run
from gpusim.results.summary_fields import (
    EVACUATION_FIELDS,
    FAILURE_FIELDS,
    PLACES,
    RUN_FIELDS,
    SUMMARY_FIELDS,
    SummaryField,
    places,
)

NUMBERS = (int, float, int | None, float | None)


@pytest.mark.parametrize(
    ("record", "registry"), [(Summary, RUN_FIELDS), (EvacuationSummary, EVACUATION_FIELDS)]
)
def test_every_field_is_described_in_the_order_of_the_record(
    record: type, registry: dict[str, SummaryField]
) -> None:
    assert list(registry) == [field.name for field in fields(record)] + ["run_hash"]
    types = get_type_hints(record)
    for key, field in registry.items():
        assert field.is_number == (types.get(key, str) in NUMBERS), key


def test_the_files_hold_the_described_fields(result: Result, tmp_path: Path) -> None:
    write_run(result, tmp_path / "run", plot=False)
    write_failure(MemoryError("too large"), tmp_path / "failed")
    for name, registry in (("run", RUN_FIELDS), ("failed", FAILURE_FIELDS)):
        assert list(json.loads((tmp_path / name / "summary.json").read_text())) == list(registry)


@pytest.mark.parametrize("field", SUMMARY_FIELDS.values(), ids=lambda field: field.key)
def test_a_field_has_a_label_a_meaning_and_the_unit_of_its_key(field: SummaryField) -> None:
    assert field.label[0].isupper() or field.label.startswith(("gpusim", "vCPU"))
    assert len(field.label) <= 30
    assert field.meaning.endswith(".")
    assert ";" not in field.meaning
    for suffix, units in (
        ("_s", {"s", "vCPU s", "Gbit/s"}),
        ("_gbit_per_s", {"Gbit/s"}),
        ("_ms", {"ms"}),
        ("_percent", {"%"}),
        ("_bytes", {"bytes"}),
        ("_pages", {"pages"}),
    ):
        assert field.key.endswith(suffix) == (field.unit in units)


def test_labels_differ() -> None:
    labels = [field.label for field in SUMMARY_FIELDS.values()]
    assert len({*labels}) == len(labels)


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("total_time_s", 1234.0, "20.6 min"),
        ("downtime_ms", 120.5, "120 ms"),
        ("downtime_ms", None, "none"),
        ("guest_cpu_lost_s", 90.0, "90 s of vCPU time"),
        ("guest_cpu_lost_percent", 12.34, "12.3 %"),
        ("transferred_bytes", 2**40, "1 TiB"),
        ("write_faults", 1234567, "1,234,567"),
        ("left_behind", ["db", "web"], "db and web"),
        ("left_behind", [], "none"),
        ("verdict", "converged", "converged"),
    ],
)
def test_values_for_people(key: str, value: Any, text: str) -> None:
    assert SUMMARY_FIELDS[key].format(value) == text


def test_heads_of_columns_name_the_unit_they_show() -> None:
    headings = {key: (f.heading, f.column_scale) for key, f in RUN_FIELDS.items()}
    assert headings["total_time_s"] == ("Total time (s)", 1.0)
    assert headings["transferred_bytes"] == ("Sent (GiB)", 2.0**30)
    assert headings["write_faults"] == ("First writes (million)", 1e6)
    assert headings["bitmap_sync_count"] == ("Syncs", 1.0)
    assert RUN_FIELDS["total_time_s"].axis_label("min") == "Total time (min)"


def test_places_name_known_fields() -> None:
    for keys in PLACES.values():
        assert {*keys} <= {*SUMMARY_FIELDS}
    assert places("status") == ["runs.csv"]
    assert places("paused_s") == ["report.html", "runs.csv", "index.html"]
