"""Does every scenario load, and is a wrong one refused before QEMU starts?"""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import pytest

from gpusim.cli.record import parse_options
from gpusim.errors import ConfigError
from gpusim.record.scenarios import Scenario, list_scenarios, load_scenario, scenario_folder

FILES = sorted(scenario_folder().glob("*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_scenario_loads_and_starts_with_its_command(path: Path) -> None:
    command, purpose, *_ = path.read_text().splitlines()
    program, *arguments = shlex.split(command.removeprefix("# "))
    assert program == "gpusim-record"
    assert parse_options(arguments).scenario == path.stem
    assert purpose.startswith("# ")
    assert isinstance(load_scenario(path.stem), Scenario)


def test_an_override_is_what_counts() -> None:
    scenario = load_scenario("small", ["guest.rate=50", "parameters.downtime-limit=70"])
    assert scenario.guest.rate == 50
    assert scenario.parameters["downtime-limit"] == 70


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("guest: {size: 8, rate: 100}\n")
    assert load_scenario(str(path)).recorded() == {
        "mem_mib": 1024,
        "guest": {"base": 32, "size": 8, "mode": 1, "rate": 100, "paced": 0},
        "capabilities": [],
        "limit_s": 200.0,
        "parameters": {},
    }


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("guest.rte=5", "guest.rte", 5),
        ("gest.rate=5", "gest", "a mapping of 1 keys"),
        ("guest.size=much", "guest.size", '"much"'),
        ("guest=5", "guest", 5),
        ("guest.size=0", "guest.size", 0),
        ("guest.size=400", "guest.size", 400),
        ("guest.base=8", "guest.base", 8),
        ("guest.mode=2", "guest.mode", 2),
        ("guest.delay=10", "guest.rate", 14000),
        ("guest.hot=8", "guest.hot", 8),
        ("guest.rate=-1", "guest.rate", -1),
        ("guest.paced=1 guest.rate=0", "guest.paced", 1),
        ("guest.fill=4000", "guest.fill", 4000),
        ("mem_mib=8000", "mem_mib", 8000),
        ("limit_s=0", "limit_s", 0.0),
        ("accelerator=xen", "accelerator", "xen"),
        ("capabilities=[xbzrle]", "capabilities", "xbzrle"),
        (
            "capabilities=[return-path,switchover-ack]",
            "capabilities",
            "switchover-ack",
        ),
        ("downtime", "KEY=VALUE", "downtime"),
        ("guest.rate=[1", "KEY=VALUE", "guest.rate=[1"),
    ],
)
def test_a_wrong_override_is_refused_in_one_line(override: str, key: str, value: object) -> None:
    with pytest.raises(ConfigError) as error:
        load_scenario("small", override.split())
    assert (error.value.key, error.value.value) == (key, value)
    assert "\n" not in str(error.value)


def test_an_unknown_scenario_names_those_there_are() -> None:
    with pytest.raises(ConfigError) as error:
        load_scenario("smal")
    assert (error.value.key, error.value.value) == ("SCENARIO", "smal")
    assert ", ".join(list_scenarios()) in str(error.value)


def test_a_file_without_a_size(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("guest: {rate: 8}\n")
    with pytest.raises(ConfigError) as error:
        load_scenario(str(path))
    assert (error.value.key, error.value.value) == ("guest.size", "missing")


def test_a_scenario_is_data_and_tells_no_environment_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "hush")
    path = tmp_path / "mine.yaml"
    for text in (
        "accelerator: ${oc.env:SECRET}\nguest: {size: 8, rate: 100}\n",
        "${oc.env:SECRET}",
    ):
        path.write_text(text)
        with pytest.raises(ConfigError) as error:
            load_scenario(str(path))
        assert "hush" not in str(error.value)


def test_a_pipe_is_no_scenario(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    with pytest.raises(ConfigError) as error:
        load_scenario(str(tmp_path / "pipe.yaml"))
    assert error.value.key == "SCENARIO"


def test_a_mapping_is_merged_and_a_list_is_replaced() -> None:
    scenario = load_scenario("small", ["guest={rate: 50}", "capabilities=[]", "limit_s=7"])
    assert (scenario.guest.rate, scenario.guest.size) == (50, load_scenario("small").guest.size)
    assert (scenario.capabilities, scenario.limit_s) == ([], 7.0)


def test_a_file_that_is_no_yaml(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    for text in ("guest: [", "- 5\n", "5\n"):
        path.write_text(text)
        with pytest.raises(ConfigError) as error:
            load_scenario(str(path))
        assert "\n" not in str(error.value)
