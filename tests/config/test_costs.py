"""Which costs of a host are left out?"""

from __future__ import annotations

from dataclasses import replace

from gpusim import Config
from gpusim.config.compose import composed_config
from gpusim.config.costs import zero_costs, zero_costs_text


def test_the_default_host_has_all_costs() -> None:
    assert (zero_costs(Config()), zero_costs_text(Config())) == ([], "")


def test_each_cost_of_zero_is_named() -> None:
    config = Config()
    config = replace(config, link=replace(config.link, page_cost_ns=0.0))
    assert zero_costs(config) == ["link.page_cost_ns"]
    assert "link.page_cost_ns" in zero_costs_text(config)


def test_the_vm_of_the_proposal_has_no_costs() -> None:
    assert len(zero_costs(composed_config(["experiment=peter_xu_10tb"]))) == 5
