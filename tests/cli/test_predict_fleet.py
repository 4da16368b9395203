"""Does gpusim-predict --fleet answer, write whole files, and refuse what does not fit?"""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from gpusim.cli import predict as cli
from tests.cli.command import REPOSITORY

EXAMPLES = REPOSITORY / "docs/fleet"
LINK = "link=25gbit"


def test_answer_files_and_bad_rows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("fleet.csv").write_text("name,memory,dirty_rate\na,4GiB,10\nb,4GiB,fast\n")
    arguments = [
        "--fleet",
        "fleet.csv",
        LINK,
        "--csv",
        "all.csv",
        "--json",
        "-",
        "--report",
        "page",
    ]
    assert cli.main(arguments) == 0
    shown = capsys.readouterr()
    document = json.loads(shown.out)
    assert [one["vm"] for one in document["vms"]] == ["a"]
    assert [one["place"] for one in document["unusable"]] == ["row 3"]
    assert shown.err.startswith("fleet.csv: row 3: ")
    assert shown.err.splitlines()[1] == "page/fleet.html"
    assert [row["vm"] for row in csv.DictReader(io.StringIO(Path("all.csv").read_text()))] == ["a"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["vm.json"],
        ["--goal", "fastest"],
        ["--measure", "--qmp", "x"],
        ["--domstats", "x"],
        ["--domain", "x"],
        ["--no-advice"],
        ["--explain"],
        ["--effort", "2"],
        ["--csv", "-", "--json", "-"],
        ["--report", "."],
        ["policy=nova"],
        ["link.changes=[[10s,1Gbit/s]]"],
        ["schedule=[{at: 10s, do: pause}]"],
        ["vm.memory=4GiB"],
        ["limit.simulated=1min"],
        ["backend=numpy"],
        ["link=nosuch"],
        ["migration.version=qemu_1_0"],
    ],
)
def test_what_no_fleet_uses_is_one_line(
    arguments: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("fleet.csv").write_text("name,memory,dirty_rate\na,4GiB,10\n")
    assert cli.main(["--fleet", "fleet.csv", *arguments]) == 2
    shown = capsys.readouterr()
    assert not shown.out
    assert shown.err.startswith("error: ")
    assert len(shown.err.splitlines()) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fleet.csv"]


@pytest.mark.parametrize(
    "arguments", [["x.json", "--csv", "a"], ["--measure", "--qmp", "x", "--domain", "a"]]
)
def test_options_of_a_fleet_need_one(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(arguments) == 2
    assert "needs --" in capsys.readouterr().err


def test_sender_without_costs(capsys: pytest.CaptureFixture[str]) -> None:
    path = str(EXAMPLES / "fleet.csv")
    assert cli.main(["--fleet", path, "link=unlimited", "link.page_cost_ns=0"]) == 0
    assert "6 VMs" in capsys.readouterr().out


def test_memory_of_vms_without_one(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "metrics"
    path.write_text('kubevirt_vmi_dirty_rate_bytes_per_second{name="a",namespace="n"} 1048576\n')
    assert cli.main(["--fleet", str(path), LINK]) == 2
    assert "no memory size" in capsys.readouterr().err
    assert cli.main(["--fleet", str(path), LINK, "--memory", "4GiB", "--csv", "-"]) == 0
    (row,) = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert row["memory_bytes"] == str(4 * 2**30)
