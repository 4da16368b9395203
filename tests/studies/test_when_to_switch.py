"""Are the tables of docs/studies/when-to-switch.md what its two sweeps computed?"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest

from gpusim import simulate
from gpusim.results.sweeps.runs import Run, find_runs
from studies.tables import places
from studies.when_to_switch import HUGE, SMALL, STARTS, tables
from tests.cli.command import REPOSITORY, composed
from tests.docs.test_documents import rows_of
from tests.results.sweep_folders import write

DOCUMENT = REPOSITORY / "docs/studies/when-to-switch.md"
SWITCHED = {
    "postcopy_start_s": 953.2,
    "postcopy_discarded_runs": 74e6,
    "postcopy_blackout_ms": 147_500.0,
    "postcopy_recovery_s": 860.4,
    "postcopy_latency_ms": 0.805,
    "guest_cpu_lost_s": 46_623.0,
}


def runs_in(folder: Path) -> dict[str, list[Run]]:
    """Return a sweep with a run that switches and one that never does, as both sweeps."""
    for start, summary in (("never", {"downtime_ms": 551.0}), ("1pass", SWITCHED)):
        values = {"migration.start_postcopy": start}
        write(
            folder / start, values, total_time_s=1968.0, **{"guest_cpu_lost_s": 4600.0, **summary}
        )
    found = find_runs([folder]).runs
    return {SMALL: list(found), HUGE: list(found)}


def test_a_row_for_each_switch(tmp_path: Path) -> None:
    assert tables(runs_in(tmp_path))[SMALL][2:] == [
        "| even | never | - | 1968 | - | 0.6 | 4600 | - | - |",
        "| even | after one pass | 953 | 1968 | 74.0 | 147.5 | 46623 | 860 | 0.81 |",
    ]


def test_the_document_has_a_place_for_every_table() -> None:
    assert places(DOCUMENT.read_text()) == [SMALL, HUGE]
    assert len(rows_of(str(DOCUMENT), f"<!-- {SMALL} -->")) == 2 * len(STARTS)
    assert len(rows_of(str(DOCUMENT), f"<!-- {HUGE} -->")) == len(STARTS)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sweep", "workload", "start"),
    [
        (SMALL, "uniform", "0s"),
        (SMALL, "hot_cold", "1pass"),
        (HUGE, "uniform", "0s"),
    ],
)
def test_a_row_is_what_is_computed(tmp_path: Path, sweep: str, workload: str, start: str) -> None:
    own = () if sweep == HUGE else ("workload.working_set_percent=20",)
    own = (*own, "workload.page_writes_per_s=8e6")
    config = composed(
        f"sweep={sweep}", f"workload={workload}", *own, f"migration.start_postcopy={start}"
    )
    values = {"workload": asdict(config.workload), "migration.start_postcopy": start}
    write(tmp_path / "run", values)
    (run,) = find_runs([tmp_path]).runs
    run.summary.update(asdict(simulate(config).summary))
    (row,) = tables({SMALL: [run], HUGE: [run]})[sweep][2:]
    assert row in DOCUMENT.read_text()
