"""Is a sweep counted before memory is taken for its runs, and refused in one line?"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import pytest
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.utils import create_config_search_path
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from gpusim import ConfigError
from gpusim.config.compose import register
from gpusim.config.presets import conf_folder
from gpusim.config.sweep_values import MOST_RUNS, check_grid, check_values

BASIC = "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"


@pytest.fixture
def loader() -> ConfigLoaderImpl:
    register()
    return ConfigLoaderImpl(create_config_search_path(str(conf_folder())))


def check(
    loader: ConfigLoaderImpl, overrides: Sequence[str], target: str = BASIC, **params: str
) -> None:
    check_values(overrides, loader)
    sweeper = OmegaConf.create({"_target_": target, "params": params})
    check_grid(sweeper, overrides, loader)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ("seed=range(1,1000000000)", "has 999999999 values. A sweep has at most 100000 runs"),
        ("seed=shuffle(range(1,1000000000))", "has 999999999 values"),
        ("seed=range(0,1e12,1)", "has too many values to count"),
        ("seed=range(1,inf)", "has too many values to count"),
        ("link.page_cost_ns=range(1.0,2.0,1e-300)", "has too many values to count"),
        ("seed=range(0,400) vm.vcpus=1,2,3", ""),
        ("seed=range(0,40000) vm.vcpus=1,2,3", "40000 values, which makes 1.2e+05 runs with those"),
        ("seed=range(0,1000000) seed=1,2", ""),  # the last counts
        ("vm.memory=glob(*)", "glob() is for groups of presets, such as vm, and vm.memory is none"),
        ("vm=glob(nosuch*)", "fits no preset. vm has huge_10tb"),
        ("vm=glob(*) +experiment=glob(*,exclude=s*)", ""),
        ("seed=range(1,2,0)", "Write values as KEY=A,B"),
        ("seed=range(1,10,-1)", "Write values as KEY=A,B"),
        ("seed=range(1,nan)", "Write values as KEY=A,B"),
        ("seed=choice(1,null)", "KEY=A,null"),
        ("migration.throttle_rule={target: a:B},null", ""),
    ],
)
def test_a_sweep_is_counted_first(
    loader: ConfigLoaderImpl, overrides: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def listed(*_: Any) -> None:
        pytest.fail("the values are listed before they are counted")

    monkeypatch.setattr("hydra.core.override_parser.types.Override.sweep_iterator", listed)
    typed = re.split(r" (?=[\w.+]+=)", overrides)
    if not expected:
        check(loader, typed)
        return
    with pytest.raises(ConfigError) as caught:
        check(loader, typed)
    assert expected in caught.value.message
    assert typed[0] == f"{caught.value.key}={caught.value.value}"


@pytest.mark.parametrize(
    "values", ["range(3)", "range(7,2,-2)", "range(0,1,0.1)", "sort(3,1,2)", "range(2,9,4)", "5,6"]
)
def test_the_count_is_the_sweepers(loader: ConfigLoaderImpl, values: str) -> None:
    (jobs,) = BasicSweeper.split_arguments(
        OverridesParser.create().parse_overrides([f"seed={values}"]), None
    )
    times = MOST_RUNS // len(jobs)
    check(loader, [f"seed={values}"], **{"vm.vcpus": f"range(0,{times})"})
    with pytest.raises(ConfigError, match="at most"):
        check(loader, [f"seed={values}"], **{"vm.vcpus": f"range(0,{times + 1})"})


def test_a_search_is_no_grid(loader: ConfigLoaderImpl) -> None:
    check(loader, ["seed=range(1,1000000000)"], "hydra_plugins.optuna.OptunaSweeper")
