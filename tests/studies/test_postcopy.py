"""Is docs/validation/post-copy.md what is computed, and does it hold what it claims?"""

from __future__ import annotations

import pytest

from studies.postcopy import (
    FIGURES,
    PUBLISHED,
    SCENARIOS,
    factor,
    facts,
    latency_rows,
    latency_us,
    main,
    scenario_rows,
    simulated,
    target_rows,
)
from studies.tables import places
from tests.cli.command import REPOSITORY

DOCUMENT = REPOSITORY / "docs/validation/post-copy.md"
# What the page says falls short.
SHORT = {
    ("after 25 s", "requests"),
    ("after 25 s", "blocktime"),
    ("at once, 4 clients", "blocktime"),
}


def test_the_document_has_a_place_for_every_table() -> None:
    found = places(DOCUMENT.read_text())
    assert found == ["postgres_postcopy", "postgres_postcopy_targets", "postcopy_latency"]


def test_every_recorded_run_is_in_the_document() -> None:
    text = DOCUMENT.read_text()
    for name, title in SCENARIOS.items():
        for figure in FIGURES:
            own = [run[figure.key] for run in facts()[name]["runs"]]
            cells = " | ".join("-" if x is None else f"{x:.{figure.digits}f}" for x in own)
            assert f"| {title} | {figure.name} | {cells} |" in text


def test_a_factor_has_no_direction() -> None:
    assert factor(2, 3) == factor(3, 2) == 1.5
    assert factor(0, 3) == factor(None, 3) == float("inf")


def test_the_last_scenarios_are_what_is_computed() -> None:
    """After 40 s. The others are slow."""
    found = dict.fromkeys(SCENARIOS, dict.fromkeys((f.key for f in FIGURES), 0.0))
    own = {**found, "40s": simulated("40s")}
    text = DOCUMENT.read_text()
    rows = [row for row in [*scenario_rows(own), *target_rows(own)] if "after 40 s" in row]
    assert [row for row in rows if row not in text] == []


@pytest.mark.slow
def test_all_tables_are_what_is_computed(tmp_path_factory: pytest.TempPathFactory) -> None:
    copy = tmp_path_factory.mktemp("docs") / "post-copy.md"
    copy.write_text(DOCUMENT.read_text())
    main(["--document", str(copy)])
    text = copy.read_text()
    changed = [line for line in text.splitlines() if line not in DOCUMENT.read_text().splitlines()]
    assert text == DOCUMENT.read_text(), "\n".join(changed)
    missed = [line for line in text.splitlines() if line.endswith("| no |")]
    assert len(missed) == len(SHORT)
    assert all(any(a in line and b in line for a, b in SHORT) for line in missed)


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_published_latencies_are_within_a_factor(name: str) -> None:
    found = latency_us(name)
    assert factor(PUBLISHED[name][1], found) < 1.5
    rows = latency_rows({**dict.fromkeys(PUBLISHED, 1.0), name: found})
    assert any(row in DOCUMENT.read_text() for row in rows if f"| {name} |" in row)
