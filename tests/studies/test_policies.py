"""Are the tables of docs/studies/policies.md what its two sweeps computed?"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gpusim import simulate
from gpusim.results.sweeps.runs import Run, find_runs
from studies.policies import main, tables
from studies.tables import with_tables
from tests.cli.command import REPOSITORY, composed
from tests.docs.test_documents import rows_of
from tests.results.sweep_folders import write

DOCUMENT = REPOSITORY / "docs/studies/policies.md"
GUEST = {"vm.memory": "1TiB", "workload.page_writes_per_s": 8e6}


@pytest.fixture
def runs(tmp_path: Path) -> dict[str, list[Run]]:
    """One guest, two seeds. The detector cancels the second: 9.1 below 20 s, 9.2 at 40 s."""
    for version, up_to_s in (("qemu_9_1", 20), ("qemu_9_2", 41)):
        for seed in (1, 2):
            same = {**GUEST, "migration.version": version, "seed": seed}
            for name, rule in (("none", None), ("responsive", {"target": "a:B", "args": {}})):
                folder = tmp_path / f"responsive/{name},{version},{seed}"
                values = {**same, "migration.throttle_rule": rule}
                write(folder, values, total_time_s=50 + seed / 5, guest_cpu_lost_percent=12.5)
            for timeout_s in (11, 20, 40, 100000):
                args = {"stall_progress_timeout": timeout_s}
                values = {**same, "migration.manager": {"target": "a:KubeVirtStall", "args": args}}
                cancelled = seed == 2 and timeout_s < up_to_s
                verdict = "cancelled" if cancelled else "converged"
                folder = tmp_path / f"stall_timeout/{version},{timeout_s},{seed}"
                write(folder, values, verdict=verdict)
    return {name: find_runs([tmp_path / name]).runs for name in ("responsive", "stall_timeout")}


def test_tables(runs: dict[str, list[Run]]) -> None:
    found = tables(runs)
    own = "| guest | RAM | QEMU 9.1, its own | QEMU 9.1, responsive | QEMU 9.2, its own |"
    assert found["responsive"][0] == f"{own} QEMU 9.2, responsive |"
    assert found["responsive"][2] == "| uniform | 1 TiB |" + 4 * " 50.3 s, 12.5 % |"
    assert found["responsive"][-1] == "Seeds agree to 0.2 s."
    assert found["cancelled"][0] == "| cancelled | 11 s | 20 s | 40 s |"
    assert found["cancelled"][2:] == [
        "| QEMU 9.1 | 1 of 2 | 0 of 2 | 0 of 2 |",
        "| QEMU 9.2 | 1 of 2 | 1 of 2 | 1 of 2 |",
        "",
        "If the detector never cancels, 4 of 4 converge.",
    ]
    assert found["safe"][2:] == ["| uniform | 8 | 20 s | above 40 s |"]


def test_the_document_has_a_place_for_every_table(runs: dict[str, list[Run]]) -> None:
    with_tables(DOCUMENT.read_text(), tables(runs))


@pytest.mark.slow
def test_what_the_document_says_of_64_gib_is_computed(tmp_path: Path) -> None:
    """With one seed: at this size they agree."""
    document = tmp_path / "policies.md"
    document.write_text(DOCUMENT.read_text())
    main(
        [
            "--runs",
            str(tmp_path / "runs"),
            "--document",
            str(document),
            "vm.memory=64GiB",
            "seed=1",
            "hydra.sweeper.workers=1",
        ]
    )
    computed = rows_of(str(document), "<!-- safe -->")
    assert computed == [row[:4] for row in rows_of(str(DOCUMENT), "<!-- safe -->")]
    assert "| sequential | 64 GiB |" in document.read_text()


@pytest.mark.slow
@pytest.mark.parametrize(("policy", "column", "seed"), [("none", 4, 2), ("responsive", 5, 3)])
def test_what_the_document_says_of_the_responsive_throttle_is_computed(
    policy: str, column: int, seed: int
) -> None:
    """For the guest that it helps most, and the seed that is the median."""
    said = ("sweep=responsive", f"policy={policy}", "migration=qemu_9_2", "workload=hot_cold")
    summary = simulate(composed(*said, "vm.memory=4TiB", f"seed={seed}")).summary
    cells = {tuple(row[:2]): row for row in rows_of(str(DOCUMENT), "<!-- responsive -->")}
    shown = cells["hot and cold", "4 TiB"][column]
    time_s, lost_percent = map(float, re.findall(r"[0-9.]+", shown))
    assert summary.total_time_s == pytest.approx(time_s, abs=0.15)
    assert summary.guest_cpu_lost_percent == pytest.approx(lost_percent, abs=0.06)
