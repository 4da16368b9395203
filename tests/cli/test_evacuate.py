"""The command evacuates a host. Hydra places the presets and refuses mistyped keys."""

from __future__ import annotations

import csv
import json

import pytest

from gpusim import ConfigError, HotColdConfig, WorkloadConfig, ZipfConfig
from gpusim.cli.dry_run_text import plan_text
from gpusim.engine.evacuation import Host
from gpusim.explore.dry_run import EvacuationPlan, make_plan
from tests.cli.command import composed, gpusim

SMALL = [  # the experiment's host, a few thousandths of its size
    "evacuation.guests.database.vm.memory=1GiB",
    "evacuation.guests.database.workload.page_writes_per_s=1e4",
    "evacuation.guests.cache.vm.memory=256MiB",
    "evacuation.guests.cache.workload.page_writes_per_s=1e3",
    "evacuation.guests.app.vm.memory=256MiB",
    "evacuation.guests.web.vm.memory=64MiB",
    "evacuation.guests.web.count=2",
    "evacuation.guests.standby.vm.memory=256MiB",
]
STARTED = ["database", "cache", "app", "web-1", "web-2", "standby"]


def test_an_evacuation_leaves_its_files(tmp_path) -> None:
    done = gpusim("experiment=evacuate", *SMALL, cwd=tmp_path)
    (folder,) = tmp_path.glob("outputs/*/*")
    assert {path.name for path in folder.iterdir()} == {
        "config.json",
        "evacuation.csv",
        "evacuation.png",
        "evacuation_narrow.png",
        "gpusim.log",
        "guests",
        "summary.json",
        ".hydra",
    }
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["kind"], summary["verdict"], summary["guests"]) == (
        "evacuation",
        "converged",
        6,
    )
    rows = list(csv.DictReader((folder / "evacuation.csv").read_text().splitlines()))
    assert [row["name"] for row in rows] == STARTED
    assert "error: " not in done.stderr
    assert done.stdout.splitlines()[-1] == str(folder)


def test_presets_are_put_in_place_and_can_be_exchanged() -> None:
    evacuation = composed("experiment=evacuate").evacuation
    assert evacuation is not None
    assert isinstance(evacuation.guests["database"].workload, HotColdConfig)
    assert isinstance(evacuation.guests["cache"].workload, ZipfConfig)
    assert evacuation.guests["database"].vm.memory == "1TiB"
    exchanged = composed(
        "experiment=evacuate",
        "vm@evacuation.guests.database.vm=huge_4tib",
        "workload@evacuation.guests.database.workload=idle",
        "+vm@evacuation.guests.more.vm=small_16gib",
        "+workload@evacuation.guests.more.workload=mix",
        "evacuation.guests.more.count=2",
    )
    host = Host(exchanged)
    assert {"more-1", "more-2"} <= {vm.name for vm in host.vms}
    assert exchanged.evacuation is not None
    assert exchanged.evacuation.guests["database"].vm.memory == "4TiB"
    assert type(exchanged.evacuation.guests["database"].workload) is WorkloadConfig


@pytest.mark.parametrize(
    "override",
    [
        "evacuation.guests.database.vm.memorx=1TiB",
        "evacuation.guests.database.workload.threads=2",  # a key of sequential
        "evacuation.guests.databass.count=2",
        "evacuation.at_a_tim=2",
        "evacuation.at_a_time=two",
        "evacuation.guests.web.count=many",
        "vm@evacuation.guests.database.vm=huge",
    ],
)
def test_typo_does_not_compose(override: str) -> None:
    with pytest.raises(ConfigError) as error:
        composed("experiment=evacuate", override)
    assert error.value.code in ("unknown_key", "unknown_choice", "wrong_type")


@pytest.mark.parametrize(
    "key",
    ["evacuation.guests.web.vm.colour", "evacuation.colour", "evacuation.guests.web.workload.x"],
)
def test_what_nobody_reads_is_refused_however_deep(key: str) -> None:
    with pytest.raises(ConfigError, match=f"^{key} = red: no such key"):
        composed("experiment=evacuate", f"+{key}=red")


def test_what_cannot_be_simulated_is_one_line_and_leaves_nothing(tmp_path) -> None:
    bad = "evacuation.guests.web.workload.working_set_percent=110"
    done = gpusim("experiment=evacuate", bad, cwd=tmp_path, code=2)
    key = "evacuation.guests.web.workload.working_set_percent"
    assert done.stderr.startswith(f"error: {key} = 110")
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_expects_the_whole_evacuation() -> None:
    plan = make_plan(composed("experiment=evacuate", *SMALL))
    assert isinstance(plan, EvacuationPlan)
    assert list(plan.guests) == STARTED
    assert plan.summary.verdict == "converged"
    assert f"as_listed: {', '.join(STARTED)}" in plan_text(plan)


def test_a_sweep_of_an_evacuation_is_reported_and_not_computed_twice(tmp_path) -> None:
    sweep = ["-m", "experiment=evacuate", *SMALL, "plot=false", "evacuation.at_a_time=1,2"]
    sweep.append("hydra.sweep.dir=outputs/mine")
    done = gpusim(*sweep, cwd=tmp_path)
    folders = sorted(tmp_path.glob("outputs/mine/*/"))
    assert [folder.name.split(",")[0] for folder in folders] == ["at_a_time=1", "at_a_time=2"]
    assert "2 runs: 2 converged" in done.stdout
    again = gpusim(*sweep, cwd=tmp_path)
    assert "2 computed earlier" in again.stdout


def test_an_objective_is_a_number_of_an_evacuation(tmp_path) -> None:
    fine = composed("experiment=evacuate", "objective=[link_used_percent,guest_cpu_lost_s]")
    assert fine.objective == ["link_used_percent", "guest_cpu_lost_s"]
    bad = gpusim("experiment=evacuate", "objective=[first_pass_s]", cwd=tmp_path, code=2)
    assert "objective" in bad.stderr


def test_no_guests_is_no_evacuation_unless_one_is_asked_for(tmp_path) -> None:
    assert composed().evacuation is None
    assert composed("experiment=evacuate", "evacuation=null").evacuation is None
    done = gpusim("evacuation.at_a_time=2", cwd=tmp_path, code=2)
    assert done.stderr.startswith("error: evacuation.guests = {}: a host needs a guest")
    one = composed("+vm@evacuation.guests.web.vm=small_16gib", "evacuation.guests.web.count=2")
    assert [vm.name for vm in Host(one).vms] == ["web-1", "web-2"]
