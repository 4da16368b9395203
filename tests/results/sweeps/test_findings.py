"""Do the findings of a sweep have the right codes and numbers, and does each code have a text?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from gpusim.results.sweeps.axes import choose_axes
from gpusim.results.sweeps.ensembles import ensembles
from gpusim.results.sweeps.findings import compute_findings
from gpusim.results.sweeps.runs import find_runs
from gpusim.results.sweeps.sentences import describe_finding
from gpusim.text import Message
from tests.golden import check_golden
from tests.results.sweep_folders import write

TIMER = "migration.fallback_sync_interval"


def findings(folder: Path) -> dict[str, list[Mapping[str, Any]]]:
    """Return code -> data of each finding with the code."""
    runs = find_runs([folder]).runs
    found: dict[str, list[Mapping[str, Any]]] = {}
    for finding in compute_findings(runs, ensembles(runs), choose_axes(runs)):
        assert describe_finding(finding)
        found.setdefault(finding.code, []).append(finding.data)
    return found


def write_links(
    folder: Path, times_s: Mapping[str, tuple[float, float]], converges_from: float = 0.0
) -> None:
    """Write a sweep of the link's bandwidth with two QEMU versions."""
    for bandwidth, pair in times_s.items():
        for version, time_s in zip(("qemu_9_1", "qemu_9_2"), pair, strict=True):
            converges = float(bandwidth.removesuffix("Gbit/s")) >= converges_from
            write(
                folder / f"{version},{bandwidth.replace('/', '')}",
                {"link.bandwidth": bandwidth, "migration.version": version},
                total_time_s=time_s,
                verdict="converged" if converges else "not_converged",
            )


def test_the_value_from_which_each_series_converges(tmp_path: Path) -> None:
    times_s = {
        "5Gbit/s": (900, 800),
        "10Gbit/s": (400, 401),
        "20Gbit/s": (200, 100),
        "40Gbit/s": (80, 60),
    }
    write_links(tmp_path, times_s, converges_from=10)
    found = findings(tmp_path)
    assert found["outcomes"][0]["counts"] == {"converged": 6, "not_converged": 2}
    assert [(one["series"], one["value"]) for one in found["converges_from"]] == [
        ([("migration.version", "QEMU 9.1")], "10 Gbit/s"),
        ([("migration.version", "QEMU 9.2")], "10 Gbit/s"),
    ]
    (fastest,) = found["fastest"]
    assert fastest["total_time_s"] == 60
    assert dict(fastest["settings"])["link.bandwidth"] == "40 Gbit/s"


def test_the_value_up_to_which_two_series_take_the_same_time(tmp_path: Path) -> None:
    write_links(tmp_path, {"5Gbit/s": (900, 901), "10Gbit/s": (400, 300), "20Gbit/s": (200, 100)})
    (found,) = findings(tmp_path)["same_time_up_to"]
    assert (found["value"], found["next"]) == ("5 Gbit/s", "10 Gbit/s")
    assert (found["smallest"], found["largest"]) == pytest.approx((-0.25, -0.5))


def test_the_change_between_two_series(tmp_path: Path) -> None:
    for memory, pair in {"1TiB": (100.0, 150.0), "2TiB": (200.0, 240.0)}.items():
        for timer, time_s in zip(("5s", "never"), pair, strict=True):
            values = {"vm.memory": memory, TIMER: timer}
            write(tmp_path / f"{memory}{timer}", values, total_time_s=time_s)
    found = findings(tmp_path)
    (change,) = found["time_change"]
    assert (change["series"], change["other"]) == ([(TIMER, "5 s")], [(TIMER, "off")])
    assert [change[name] for name in ("lowest", "median", "highest")] == pytest.approx(
        [0.2, 0.35, 0.5]
    )
    assert "fastest" not in found  # nobody chooses the memory of a VM


def test_a_series_that_converges_alone(tmp_path: Path) -> None:
    for memory in ("1TiB", "2TiB", "4TiB"):
        for timer in ("5s", "never"):
            stalls = timer == "never" and memory != "1TiB"
            verdict = "not_converged" if stalls else "converged"
            write(
                tmp_path / f"{memory}{timer}", {"vm.memory": memory, TIMER: timer}, verdict=verdict
            )
    found = findings(tmp_path)
    (alone,) = found["converges_alone"]
    assert (alone["series"], alone["other"]) == ([(TIMER, "5 s")], [(TIMER, "off")])
    assert (alone["values"], alone["compared"]) == (["2 TiB", "4 TiB"], 3)
    (limit,) = found["converges_up_to"]
    assert (limit["series"], limit["value"]) == ([(TIMER, "off")], "1 TiB")


@pytest.mark.parametrize(
    ("limit", "code", "value"),
    [(20, "series_converge_up_to", "20"), (-20, "series_converge_from", "20")],
)
def test_series_that_converge_at_every_value_of_the_axis(
    limit: int, code: str, value: str, tmp_path: Path
) -> None:
    for percent in (10, 20, 40):
        for memory in ("1TiB", "2TiB", "4TiB", "8TiB"):
            converges = percent <= limit if limit > 0 else percent >= -limit
            values = {"vm.memory": memory, "workload.working_set_percent": float(percent)}
            verdict = "converged" if converges else "time_limit"
            write(tmp_path / f"{memory}{percent}", values, verdict=verdict)
    (found,) = findings(tmp_path)[code]
    assert (found["axis"], found["value"]) == ("vm.memory", value)


def test_the_fastest_and_the_cheapest_run(tmp_path: Path) -> None:
    costs = {"1s": (100.0, 90.0), "2s": (100.5, 40.0), "5s": (200.0, 10.0), "10s": (200.0, 10.0)}
    for timer, (time_s, lost_s) in costs.items():
        write(tmp_path / timer, {TIMER: timer}, total_time_s=time_s, guest_cpu_lost_s=lost_s)
    found = findings(tmp_path)
    codes = ("fastest", "cheapest_near_fastest", "cheapest")
    assert [found[code][0]["settings"] for code in codes] == [
        [(TIMER, "1 s")],
        [(TIMER, "2 s")],
        [(TIMER, "5 s")],
    ]
    assert found["cheapest"][0]["same_cost"] == 1


def test_the_fastest_run_can_be_the_cheapest(tmp_path: Path) -> None:
    for timer, time_s in (("1s", 100.0), ("5s", 200.0)):
        write(tmp_path / timer, {TIMER: timer}, total_time_s=time_s, guest_cpu_lost_s=time_s)
    found = findings(tmp_path)
    assert found["fastest_is_cheapest"][0]["same_cost"] == 0
    assert "cheapest" not in found


def test_runs_that_statistics_leave_out(tmp_path: Path) -> None:
    write(tmp_path / "a", {"backend.name": "numpy"})
    write(tmp_path / "b", {"backend.name": "numba"})
    write(tmp_path / "c")
    found = findings(tmp_path)
    assert found["no_config"][0]["runs"] == 1
    assert found["repeated"][0]["runs"] == 1


def test_the_text_of_every_finding() -> None:
    run = {
        "run": "timer=1s",
        "total_time_s": 100.0,
        "guest_cpu_lost_s": 90.0,
        "guest_cpu_lost_percent": 12.0,
        "settings": [(TIMER, "1 s"), ("vm.vcpus", "8")],
    }
    one, other = [("migration.version", "QEMU 9.1")], [("migration.version", "QEMU 9.2")]
    link = {"series": one, "other": other, "key": "link.bandwidth", "value": "5 Gbit/s"}
    working_set = {"key": "workload.working_set_percent", "value": "20", "axis": "vm.memory"}
    loss = {"values": 2, "percent": [7.0, 15.0], "lost_s": [60.0, 120.0]}
    loss |= {"lowest": 1.5, "highest": 3.0}
    check_golden(
        "sweep-findings",
        "".join(
            f"{code}: {describe_finding(Message(code, data))}\n"
            for code, data in (
                ("outcomes", {"runs": 3, "counts": Counter(converged=2, failed=1)}),
                ("fastest", run),
                ("fastest", run | {"settings": [], "guest_cpu_lost_s": 0.0}),
                ("cheapest_near_fastest", run | {"tolerance": 0.01}),
                ("fastest_is_cheapest", run | {"same_cost": 0}),
                ("cheapest", run | {"same_cost": 2}),
                ("converges_from", link),
                ("converges_up_to", link | {"series": []}),
                ("series_converge_up_to", working_set | {"next": "40"}),
                ("series_converge_from", working_set),
                ("no_config", {"runs": 1}),
                ("repeated", {"runs": 2}),
                ("converges_alone", link | {"values": list("abcdef"), "compared": 9}),
                ("same_time_up_to", link | {"next": "9", "smallest": -0.25, "largest": -0.5}),
                ("time_change", link | {"values": 1, "lowest": 0.0, "median": 0, "highest": 0.0}),
                ("time_change", link | {"values": 4, "lowest": -0.1, "median": 0.5, "highest": 2}),
                ("loss_change", loss),
                ("loss_change", loss | {"lowest": None, "highest": None}),
                ("changed_with", {"key": "vm.memory", "others": ["vm.vcpus", "vm.zero_percent"]}),
                ("missing_runs", {"runs": 3, "planned": 8}),
            )
        ),
    )


def test_the_price_of_a_faster_series_is_a_finding(tmp_path: Path) -> None:
    for bandwidth in ("5Gbit/s", "10Gbit/s"):
        for version, time_s, lost_s in (("qemu_9_1", 900, 45.0), ("qemu_9_2", 450, 90.0)):
            write(
                tmp_path / f"{version},{bandwidth.replace('/', '')}",
                {"link.bandwidth": bandwidth, "migration.version": version},
                total_time_s=time_s,
                guest_cpu_lost_s=lost_s,
                guest_cpu_lost_percent=100 * lost_s / time_s,
            )
    (found,) = findings(tmp_path)["loss_change"]
    assert (found["percent"], found["lost_s"]) == ([5.0, 20.0], [45.0, 90.0])
    assert (found["lowest"], found["highest"]) == (2.0, 2.0)


def test_series_with_the_same_loss_have_no_price(tmp_path: Path) -> None:
    write_links(tmp_path, {"5Gbit/s": (900, 800), "10Gbit/s": (400, 300)})
    assert "loss_change" not in findings(tmp_path)


def test_keys_that_presets_change_with_the_axis_are_named(tmp_path: Path) -> None:
    for memory, vcpus in (("1GiB", 4), ("2GiB", 8), ("4GiB", 16)):
        write(tmp_path / memory, {"vm.memory": memory, "vm.vcpus": vcpus, "seed": vcpus})
    (found,) = findings(tmp_path)["changed_with"]
    assert {found["key"], *found["others"]} == {"vm.memory", "vm.vcpus"}


@pytest.mark.parametrize(("planned", "is_told"), [(None, False), (2, False), (5, True)])
def test_missing_runs_are_counted(tmp_path: Path, planned: int | None, is_told: bool) -> None:
    for seed in (1, 2):
        write(tmp_path / str(seed), {"seed": seed})
    runs = find_runs([tmp_path]).runs
    found = compute_findings(runs, ensembles(runs), choose_axes(runs), planned)
    assert ("missing_runs" in {one.code for one in found}) is is_told
