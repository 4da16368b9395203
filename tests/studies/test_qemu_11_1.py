"""Are the tables of docs/studies/qemu-11-1.md what its sweeps computed?"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest

from gpusim import simulate
from gpusim.results.sweeps.runs import Run, find_runs
from studies import qemu_11_1
from studies.qemu_11_1 import COSTS, LARGEST, SWEEPS, largest_runs, main, tables
from studies.tables import with_tables
from tests.cli.command import REPOSITORY, composed
from tests.docs.test_documents import rows_of
from tests.results.sweep_folders import write

DOCUMENT = REPOSITORY / "docs/studies/qemu-11-1.md"
MANAGER = {"target": "gpusim.policies.kubevirt:KubeVirtStall", "args": {}}
VHOST_MS = 3.0
GUEST = ("vm.memory=64GiB", "workload.granule=1GiB")


@pytest.fixture
def runs(tmp_path: Path) -> dict[str, Sequence[Run]]:
    """One size. Only QEMU 11.1 makes more syncs with post-copy permitted."""
    for sweep in SWEEPS:
        for version in ("qemu_11_0", "qemu_11_1", "what_if_11_1_fixed"):
            for permitted in (False, True):
                for listeners_ms in (0.0, VHOST_MS):
                    is_storm = version == "qemu_11_1" and permitted
                    values = {
                        "vm.memory": "1TiB",
                        "migration.version": version,
                        "migration.postcopy_ram": permitted,
                        "migration.manager": MANAGER if "kubevirt" in sweep else None,
                        "tracking.listeners_ms": listeners_ms,
                    }
                    write(
                        tmp_path / sweep / f"{version},{permitted},{listeners_ms}",
                        values,
                        bitmap_sync_count=330 if is_storm else 13 + listeners_ms,
                        verdict="cancelled" if is_storm else "converged",
                    )
    return {sweep: find_runs([tmp_path / sweep]).runs for sweep in SWEEPS} | {LARGEST: []}


def test_a_version_has_two_rows_if_post_copy_changes_its_figures(
    runs: dict[str, Sequence[Run]],
) -> None:
    found = tables(runs)
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in found["default"]]
    assert cells[0] == ["writes", "RAM", "QEMU", *COSTS.values(), "verdict"]
    assert [(qemu, made, cell[-1]) for _, _, qemu, made, *cell in cells[2:]] == [
        ("11.0", "13", "converged"),
        ("11.1", "13", "converged"),
        ("11.1, post-copy", "330", "cancelled"),
        ("11.1 fixed", "13", "converged"),
    ]
    assert found["vhost"][2].startswith("| contiguous | 1 TiB | 11.0 | 16 |")
    assert found["kubevirt"][2].startswith(
        "| stall detection | uniform, contiguous | 1 TiB | 11.0 |"
    )


def test_the_document_has_a_place_for_every_table(runs: dict[str, Sequence[Run]]) -> None:
    with_tables(DOCUMENT.read_text(), tables(runs))


@pytest.mark.slow
def test_a_small_study_from_beginning_to_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The recorded guest has 1 GiB, so its table is the document's."""
    monkeypatch.setattr(qemu_11_1, "largest_runs", partial(largest_runs, "2GiB"))
    document = tmp_path / "study.md"
    document.write_text(DOCUMENT.read_text())
    main(
        [
            "--runs",
            str(tmp_path / "runs"),
            "--document",
            str(document),
            "vm.memory=1GiB",
            "hydra.sweeper.workers=1",
        ]
    )
    for size in ("1 GiB", "2 GiB"):
        assert f"| scattered | {size} | 11.1 fixed |" in document.read_text()
    recorded = rows_of(str(DOCUMENT), "<!-- recorded -->")
    assert rows_of(str(document), "<!-- recorded -->") == recorded


@pytest.mark.slow
@pytest.mark.parametrize(
    ("version", "permitted", "row"),
    [
        ("qemu_11_0", "true", "11.0"),
        ("qemu_11_1", "true", "11.1, post-copy"),
        ("what_if_11_1_fixed", "true", "11.1 fixed"),
    ],
)
def test_what_the_document_says_of_64_gib_is_computed(
    version: str, permitted: str, row: str
) -> None:
    overrides = (f"migration={version}", f"migration.postcopy_ram={permitted}")
    summary = simulate(composed("sweep=qemu_11_1", *overrides, *GUEST)).summary
    rows = {tuple(cells[:3]): cells[3:] for cells in rows_of(str(DOCUMENT), "<!-- default -->")}
    *figures, verdict = rows["scattered", "64 GiB", row]
    assert verdict == summary.verdict
    for key, shown in zip(COSTS, figures, strict=True):
        assert getattr(summary, key) == pytest.approx(float(shown), rel=0.01), key
