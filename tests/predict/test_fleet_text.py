"""Is the answer for a fleet readable at 80 columns, complete as CSV, and safe to type and to open?"""

from __future__ import annotations

import csv
import io
import json
import shlex
import subprocess
from pathlib import Path

import pytest

from gpusim.errors import ConfigError
from gpusim.explore.bounds import Bounds
from gpusim.formats.fleet import DirtyRates, Fault, Fleet, FleetVm
from gpusim.formats.fleet_csv import COLUMNS
from gpusim.formats.fleet_prometheus import KNOWN
from gpusim.predict.fleet import FleetAnswer, answer_fleet
from gpusim.predict.fleet_bounds import ANSWERS, FURTHER
from gpusim.predict.fleet_host import FleetHosts
from gpusim.predict.fleet_page import fleet_html, write_fleet
from gpusim.predict.fleet_text import (
    CSV_HEAD,
    MOST_ROWS,
    REASONS,
    fleet_csv,
    fleet_document,
    measure_lines,
    terminal_lines,
)
from gpusim.units import GIB, MIB
from tests.cli.command import REPOSITORY

HOSTILE = "a'; touch hacked; $(touch hacked) <script>alert(1)</script> =1+1"
BOUNDS = Bounds(total_time_s=3600.0, downtime_ms=2000.0)


def vm(name: str, mib_per_s: float, *, memory: int = 64 * GIB, **given: object) -> FleetVm:
    rates = DirtyRates(seconds=1.0, rates=(mib_per_s * MIB,), mode="page-sampling")
    return FleetVm(name=name, memory_bytes=memory, measured=(rates,), **given)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def answer() -> FleetAnswer:
    quiet = [vm(f"quiet-{n}", 1) for n in range(50)]
    vms = [
        vm(HOSTILE, 30_000, memory=1023 * GIB, namespace="a-namespace-with-a-long-name"),
        vm("x" * 200, 1234, memory=2**50),
        vm("own-link", 900, link=1.25e8),
        FleetVm(name="unmeasured", memory_bytes=GIB),
        *quiet,
    ]
    faults = (Fault(place="row 3", reason="<b>bad</b>"),)
    fleet = Fleet(path=Path("fleet.csv"), kind="CSV", vms=tuple(vms), faults=faults)
    return answer_fleet(fleet, ["link=25gbit"], BOUNDS)


def test_table_fits_80_columns(answer: FleetAnswer) -> None:
    lines = terminal_lines(answer).splitlines()
    table = lines[: lines.index("", 4)]
    assert max(map(len, table)) <= 80
    assert sum(line.startswith("quiet-") for line in lines) <= MOST_ROWS
    assert all(line.isprintable() for line in lines)


def test_the_most_urgent_come_first(answer: FleetAnswer) -> None:
    places = [ANSWERS.index(row.judged.answer) for row in answer.rows]
    assert places == sorted(places)
    shares = [row.link_share for row in answer.rows if row.judged.answer == "surely"]
    assert shares == sorted(shares, reverse=True)


def test_every_reason_has_a_text() -> None:
    assert all(len(short) <= 14 and sentence for short, sentence in REASONS.values())


def test_csv_has_every_vm_and_a_command_for_each_to_measure(answer: FleetAnswer) -> None:
    rows = list(csv.DictReader(io.StringIO(fleet_csv(answer))))
    assert len(rows) == len(answer.rows)
    assert set(rows[0]) == set(CSV_HEAD)
    assert all(bool(row["command"]) == (row["answer"] == FURTHER) for row in rows)
    assert all(row["working_set_bounds"] for row in rows)
    assert not any(cell.startswith("=") for row in rows for cell in row.values())


def test_how_to_describes_every_column_and_option() -> None:
    text = (REPOSITORY / "docs/how-to/triage-a-fleet.md").read_text()
    assert not [name for name in (*CSV_HEAD, *COLUMNS, *KNOWN) if f"`{name}`" not in text]


def test_document_is_json_without_infinity(answer: FleetAnswer) -> None:
    document = json.loads(json.dumps(fleet_document(answer), allow_nan=False))
    assert sum(document["counts"].values()) == len(document["vms"]) == len(answer.rows)


def test_commands_are_what_a_shell_reads(answer: FleetAnswer, tmp_path: Path) -> None:
    """Run them with programs that only print their arguments."""
    names = ("virsh", "kubectl", "gpusim-predict", "sleep")
    stubs = "".join(f'{name}() {{ printf "%s\\n" "{name}" "$@" >&2; }}\n' for name in names)
    for row in answer.rows[:4]:
        lines = measure_lines(answer, row)
        script = stubs.replace("gpusim-predict()", "gpusim_predict()") + "\n".join(
            line.replace("gpusim-predict", "gpusim_predict", 1) for line in lines
        )
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
        assert not (tmp_path / "hacked").exists()
        name = f"{row.vm.namespace}_{row.vm.name}" if row.vm.namespace else row.vm.name
        assert done.stderr.splitlines().count(name) == 1 + 5 * 2
        assert shlex.split(lines[-1])[:2] == ["gpusim-predict", "--domstats"]


def test_own_link_replaces_the_link_of_the_command(answer: FleetAnswer) -> None:
    row = next(row for row in answer.rows if row.vm.name == "own-link")
    last = measure_lines(answer, row)[-1]
    assert "link=25gbit" not in last
    assert "link.bandwidth=125000000B/s" in last
    assert "--deadline 3600s --max-downtime 2000ms" in last


def test_page_escapes_foreign_text_and_is_whole(answer: FleetAnswer, tmp_path: Path) -> None:
    text = fleet_html(answer)
    assert "<script>alert" not in text
    assert "<b>bad" not in text
    page = write_fleet(answer, tmp_path / "new")
    assert page.read_text() == text
    assert {path.name for path in page.parent.iterdir()} == {
        "fleet.html",
        "fleet.csv",
        "fleet.json",
    }


def test_a_full_disk_leaves_no_new_folder(
    answer: FleetAnswer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, text: str) -> None:
        raise OSError("full")

    monkeypatch.setattr("gpusim.predict.fleet_page.write_text", full)
    with pytest.raises(OSError, match="full"):
        write_fleet(answer, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_policy_for_a_fleet_is_refused_as_it_was_typed() -> None:
    with pytest.raises(ConfigError) as caught:
        FleetHosts(["link=25gbit", "policy=nova"])
    assert (caught.value.key, caught.value.value) == ("policy", "nova")
