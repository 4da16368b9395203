"""Does each kind of file become a fleet, and does a bad row cost one line and not the file?"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpusim.formats.errors import ProfileError
from gpusim.formats.fleet import (
    IN_MIGRATION,
    MOST_FAULTS,
    Fleet,
    FleetError,
    fault_lines,
    load_fleet,
)
from gpusim.formats.virsh import load_domstats
from gpusim.units import GIB, MIB
from tests.cli.command import REPOSITORY

EXAMPLES = REPOSITORY / "docs/fleet"
DIRTY = "kubevirt_vmi_dirty_rate_bytes_per_second"
MEMORY = "kubevirt_vmi_memory_domain_bytes"


def fleet_of(tmp_path: Path, text: str, name: str = "fleet") -> Fleet:
    path = tmp_path / name
    path.write_text(text)
    return load_fleet(path)


@pytest.mark.parametrize(
    ("name", "vms", "measured"),
    [
        ("fleet.csv", 6, 6),
        ("domstats.log", 3, 2),
        ("kubevirt.prom", 4, 4),
        ("libvirt-exporter.prom", 2, 0),
        ("vector.json", 2, 2),
        ("matrix.json", 2, 2),
    ],
)
def test_example_is_read_whole(name: str, vms: int, measured: int) -> None:
    fleet = load_fleet(EXAMPLES / name)
    assert (len(fleet.vms), sum(bool(vm.measured) for vm in fleet.vms)) == (vms, measured)
    assert not fleet.faults
    assert all(vm.memory_bytes for vm in fleet.vms)


def test_values_of_each_kind() -> None:
    csv, log, text, matrix = (
        {vm.title: vm for vm in load_fleet(EXAMPLES / name).vms}
        for name in ("fleet.csv", "domstats.log", "kubevirt.prom", "matrix.json")
    )
    analytics = csv["analytics"]
    assert (analytics.memory_bytes, analytics.vcpus, analytics.link) == (512 * GIB, 64, 1.25e9)
    assert analytics.measured[0].rates == (2900 * MIB,)
    assert csv["cache"].measured[0].seconds == 10
    assert (log["web-1"].memory_bytes, log["web-1"].vcpus) == (16 * GIB, 4)
    assert log["web-1"].measured[0].rates == (45 * MIB,)
    assert text["shop/web-1"].vcpus == 2
    assert text["science/moving"].measured[0].mode == IN_MIGRATION
    assert len(matrix["shop/database"].measured[0].rates) == 24


def test_rows_with_one_name_are_measurements_of_one_vm(tmp_path: Path) -> None:
    rows = ("a,1GiB,10,1s", "a,1GiB,20,1s", "a,1GiB,5,10s", "a,2GiB,5,10s")
    fleet = fleet_of(
        tmp_path, "\n".join(["Name;Memory;Dirty rate;Period".replace(";", ","), *rows])
    )
    (vm,) = fleet.vms
    assert [(one.seconds, len(one.rates)) for one in vm.measured] == [(1.0, 2), (10.0, 1)]
    assert [one.place for one in fleet.faults] == ["row 5"]


@pytest.mark.parametrize(
    "row",
    [
        "", "x", "a,1GiB", "a,,5", ",1GiB,5", "a,64,5", "a,1GiB,fast", "a,1GiB,-1", "a,1GiB,nan",
        "a,1GiB,1e400", "a,1GiB,9999999", 'a,1GiB,"5', "a,2PiB,5", "a,1GiB,5,", "a\x02,1GiB,5",
    ],
)  # fmt: skip
def test_bad_row_is_one_line_with_its_number(tmp_path: Path, row: str) -> None:
    fleet = fleet_of(tmp_path, f"name,memory,dirty_rate\ngood,1GiB,5\n{row}\n")
    assert [vm.name for vm in fleet.vms] == ["good"]
    lines = fault_lines(fleet.path, fleet.faults)
    assert len(lines) == bool(row)
    assert all("\n" not in line and line.isprintable() and len(line) < 600 for line in lines)
    if row and row != "a,1GiB,9999999":  # which names the VM
        assert ": row 3: " in lines[0]


@pytest.mark.parametrize(
    "cells", ["61min,,,", "1s,1bit/s,,", "1s,,0,", "1s,,1.5,", "1s,,,sampling", "0,,,"]
)
def test_bad_optional_cell_is_a_fault(tmp_path: Path, cells: str) -> None:
    head = "name,memory,dirty_rate,period,link,vcpus,mode"
    fleet = fleet_of(tmp_path, f"{head}\ngood,1GiB,5,,,,\na,1GiB,5,{cells}\n")
    assert len(fleet.faults) == 1


def test_many_bad_rows_are_counted(tmp_path: Path) -> None:
    rows = ["name,memory,dirty_rate", "good,1GiB,5", *("x" * 10_000 for _ in range(500))]
    fleet = fleet_of(tmp_path, "\n".join(rows))
    lines = fault_lines(fleet.path, fleet.faults)
    assert len(fleet.faults) == 500
    assert len(lines) == MOST_FAULTS + 1
    assert len("".join(lines)) < 5000


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "unknown_kind"),
        ("hello\n", "unknown_kind"),
        ("Job type: Unbounded\n", "unknown_kind"),
        ("name,memory,dirty_rate\n", "no_vm"),
        ("name,memory,rate\na,1GiB,5\n", "columns"),
        ("name,memory,memory,dirty_rate\n", "columns"),
        ("name,memory\na,1GiB\n", "columns"),
        ("{", "not_json"),
        ("{}", "not_an_answer"),
        ("[1]", "not_an_answer"),
        ('{"status": "error", "error": "parse error"}', "query_failed"),
        ('{"data": {"result": [{"metric": {}, "value": 5}]}}', "not_an_answer"),
        ('{"data": {"result": [{"metric": {}, "values": []}]}}', "not_an_answer"),
        ('{"data": {"result": [{"metric": {}, "value": [1, "5"]}]}}', "no_vm"),
        ("# TYPE up gauge\nup 1\n", "no_vm"),
        (f'{DIRTY}{{name="a"}} NaN\n', "no_vm"),
        (f"{DIRTY} 5\n", "no_vm"),
        (f'{DIRTY}{{name="a" 5\n', "no_vm"),
        ("Domain: 'a'\n  dirtyrate.calc_status=2\n", "no_vm"),
    ],
)
def test_file_that_is_no_fleet_is_one_error(tmp_path: Path, text: str, code: str) -> None:
    with pytest.raises(FleetError) as caught:
        fleet_of(tmp_path, text)
    assert caught.value.code == code
    assert str(caught.value).isprintable()


def test_missing_file_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(FleetError) as caught:
        load_fleet(tmp_path / "none")
    assert caught.value.code == "unreadable"


@settings(max_examples=25)
@given(st.text(max_size=200), st.sampled_from(sorted(path.name for path in EXAMPLES.iterdir())))
def test_damaged_example_never_ends_in_a_traceback(
    tmp_path_factory: pytest.TempPathFactory, text: str, name: str
) -> None:
    path = tmp_path_factory.mktemp("fleet") / "file"
    whole = (EXAMPLES / name).read_text()
    path.write_text(whole[: len(whole) // 2] + text + whole[len(whole) // 2 :], errors="replace")
    try:
        fleet = load_fleet(path)
    except FleetError as error:
        assert len(str(error)) < 1000
    else:
        assert fleet.vms


def test_labels_may_hold_anything(tmp_path: Path) -> None:
    labels = r'name="a\"},{b\\",namespace="n",other="x\ny",'
    text = f"{DIRTY}{{{labels}}} 5e7 1764432000123\n{MEMORY}{{{labels}}} 4294967296\n"
    (vm,) = fleet_of(tmp_path, text).vms
    assert vm.name == 'a"},{b\\'
    assert (vm.measured[0].rates, vm.memory_bytes) == ((5e7,), 4 * GIB)


def test_several_answers_stand_one_on_each_line(tmp_path: Path) -> None:
    def answer(metric: str, value: str) -> str:
        row = {"metric": {"__name__": metric, "name": "a"}, "value": [1, value]}
        return json.dumps({"status": "success", "data": {"result": [row]}})

    text = f"{answer(DIRTY, '5')}\n{answer(MEMORY, '1073741824')}\n"
    (vm,) = fleet_of(tmp_path, text).vms
    assert (vm.memory_bytes, vm.measured[0].rates) == (GIB, (5.0,))


def test_vms_with_one_name_on_two_hosts_are_two(tmp_path: Path) -> None:
    metric = "libvirt_domain_info_maximum_memory_bytes"
    lines = [f'{metric}{{domain="a",instance="h{n}"}} 1073741824' for n in (1, 2)]
    assert len(fleet_of(tmp_path, "\n".join(lines)).vms) == 2


def test_one_domain_of_a_log_is_a_profile(tmp_path: Path) -> None:
    runs = [
        f"Domain: '{name}'\n  balloon.maximum=1048576\n  dirtyrate.calc_status=2\n"
        f"  dirtyrate.calc_start_time={100 * s}\n  dirtyrate.calc_period={s}\n"
        f"  dirtyrate.megabytes_per_second={rate}\n"
        for s in (1, 2, 5)
        for name, rate in (("a", 10), ("b", 20))
    ]
    path = tmp_path / "log"
    path.write_text("\n".join(runs))
    profile = load_domstats(path, None, None, "b")
    assert {one.dirty_rate for one in profile.measurements} == {20}
    for name, code in ((None, "several_vms"), ("c", "no_such_vm")):
        with pytest.raises(ProfileError) as caught:
            load_domstats(path, None, None, name)
        assert caught.value.code == code


@pytest.mark.parametrize(
    "text",
    [
        "Name,Memory,Dirty rate\nweb,16GiB,45.5\n",
        "\ufeffName;Memory;Dirty rate\nweb;16 GiB;45,5\n",
        "VM,RAM (GiB),Dirty rate (MiB/s)\nweb,16,45.5\n",
        "domain\tmem\tdirty-rate [MiB/s]\nweb\t16GiB\t45.5\n",
        "name,host,memory,dirty_rate,cluster\nweb,h1,16GiB,45.5,c1\n",
        "\x1b[1mname,memory,dirty_rate\x1b[0m\nweb,16GiB,45.5\n",
    ],
)
def test_tables_of_other_tools_are_read(tmp_path: Path, text: str) -> None:
    fleet = fleet_of(tmp_path, text)
    assert [(vm.name, vm.memory_bytes) for vm in fleet.vms] == [("web", 16 * GIB)]
    assert fleet.vms[0].measured[0].rates == (45.5 * MIB,)
    assert ["host and cluster" in str(one) for one in fleet.faults] == [True] * ("cluster" in text)


def test_a_unit_in_the_header_stays_with_its_column(tmp_path: Path) -> None:
    header = "VM (name);CPU(s);RAM (GiB);Dirty rate (MiB/s)"
    fleet = fleet_of(tmp_path, f"{header}\nweb1,2;4;16;45,5\n")
    assert [(vm.name, vm.vcpus, vm.memory_bytes) for vm in fleet.vms] == [("web1,2", 4, 16 * GIB)]
    assert fleet.vms[0].measured[0].rates == (45.5 * MIB,)
    with pytest.raises(FleetError, match="16,384"):
        fleet_of(tmp_path, "name;memory;dirty_rate\nweb;16,384 GiB;45,5\n")


def test_an_ignored_column_does_not_hide_the_cause(tmp_path: Path) -> None:
    with pytest.raises(FleetError, match="memory"):
        fleet_of(tmp_path, "name,memory,dirty_rate,host\nweb,64,5,h1\n")


def test_a_table_is_no_log_of_grep(tmp_path: Path) -> None:
    """Proxmox VE numbers its VMs."""
    rows = "".join(f"{number}-web,1GiB,3\n" for number in range(100, 130))
    assert fleet_of(tmp_path, f"name,memory,dirty_rate\n{rows}").vms[0].name == "100-web"


@pytest.mark.parametrize(
    "line",
    [
        "{name}{labels} => 47185920 @[1764432000.123]",
        "{name}{labels} 4.718592e7 1764432000.123",
        '{name}{labels} 47185920 # {{trace_id="1"}} 1',
    ],
)
def test_promtool_and_openmetrics_are_prometheus_text(tmp_path: Path, line: str) -> None:
    shown = line.format(name=DIRTY, labels='{name="x", exported_name="a", namespace="b"}')
    vm = fleet_of(tmp_path, f"{shown}\n# EOF\n").vms[0]
    assert (vm.title, vm.measured[0].rates) == ("b/a", (45.0 * MIB,))


def test_indented_answers_of_several_queries_are_read(tmp_path: Path) -> None:
    metrics = ((DIRTY, "47185920"), ("kubevirt_vmi_memory_domain_bytes", "1073741824"))
    answers = [
        {"data": {"result": [{"metric": {"__name__": name, "name": "a"}, "value": [1, value]}]}}
        for name, value in metrics
    ]
    vms = fleet_of(tmp_path, "\n".join(json.dumps(one, indent=2) for one in answers)).vms
    assert [(vm.memory_bytes, len(vm.measured)) for vm in vms] == [(GIB, 1)]
