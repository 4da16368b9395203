"""Does the Proxmox manager double the limit as the loop of QemuMigrate.pm does?"""

from __future__ import annotations

from dataclasses import replace
from itertools import count, cycle
from typing import Any

import pytest

from gpusim import ConfigError, simulate
from gpusim.config.compose import composed_config
from gpusim.config.scenario import resolve
from gpusim.policies import Orders
from gpusim.policies.proxmox import Proxmox
from tests.policies.test_others_rules import shown
from tests.policies.test_plug_ins import with_policies
from tests.policies.test_runs import busy

TARGET = "gpusim.policies.proxmox:Proxmox"


def polls(manager: Proxmox, *left: int) -> list[tuple[float, Orders]]:
    """Return (s, orders) of each poll, with this memory left and 100 bytes more sent at each."""
    orders, found = manager.look(shown(0, 1)), []
    for sent, remaining in zip(count(100, 100), left, strict=False):
        assert orders.again_ns is not None
        at_s = orders.again_ns / 1e9
        now = replace(shown(at_s, 9, remaining, why="time"), transferred_bytes=sent)
        orders = manager.look(now)
        found.append((round(at_s, 1), orders))
    return found


def doublings(found: list[tuple[float, Orders]]) -> list[tuple[float, int]]:
    return [(at_s, orders.set["downtime_limit"]) for at_s, orders in found if orders.set]


def test_the_first_limit_is_set_at_once() -> None:
    first = Proxmox().look(shown(0, 1))
    assert first == Orders(set={"downtime_limit": 100}, again_ns=10**9)
    assert Proxmox(0.3).look(shown(0, 1)).set == {}  # QEMU has it already


def test_each_sixth_rise_doubles_the_limit() -> None:
    """5000 and 6000 bytes in turn: a rise every 2 s, from the second poll on."""
    found = polls(
        Proxmox(), *[value for _, value in zip(range(26), cycle((5000, 6000)), strict=False)]
    )
    assert doublings(found) == [(12.0, 200), (24.0, 400)]


def test_nothing_left_counts_as_a_rise_and_nothing_sent_does_not_count() -> None:
    assert doublings(polls(Proxmox(), *[0] * 7)) == [(2.4, 200)]  # 1, 2, 2.1, ... 2.4 s
    manager = Proxmox()
    manager.look(shown(0, 1))
    for at_s in range(1, 30):
        assert not manager.look(shown(at_s, 9, 1000 * at_s, why="time")).set


def test_it_polls_ten_times_as_often_once_less_is_left_than_a_poll_sends() -> None:
    """At the third poll 30 bytes are left, and 200 bytes in 3 polls are 67 a poll."""
    times = [at_s for at_s, _ in polls(Proxmox(), 900, 500, 30, 900, 900)]
    assert times == [1.0, 2.0, 3.0, 3.1, 3.2]


def test_qemus_largest_limit_stays() -> None:
    found = polls(
        Proxmox(1500), *[value for _, value in zip(range(40), cycle((5000, 6000)), strict=False)]
    )
    assert doublings(found) == [(12.0, 2_000_000)]


@pytest.mark.parametrize("value", [0, -1, 2001, "0.1", True, float("nan")])
def test_a_wrong_downtime_is_refused(value: Any) -> None:
    with pytest.raises(ConfigError) as error:
        resolve(with_policies(manager=(TARGET, {"migrate_downtime": value})))
    assert error.value.code == "wrong_arguments"
    assert "migrate_downtime" in str(error.value)


def test_a_guest_that_stalls_gets_a_limit_that_fits() -> None:
    """256 MiB take 4.5 s at 60 MB/s: 100 ms have to double six times."""
    hopeless = busy(auto_converge=False, limit_s=600)
    hopeless = replace(hopeless, limit=replace(hopeless.limit, stop_when_stuck=True))
    found = simulate(with_policies(hopeless, manager=TARGET))
    set_ms = [
        e.arguments["downtime_limit"] for e in found.events if "downtime_limit" in e.arguments
    ]
    assert set_ms == [100, 200, 400, 800, 1600, 3200, 6400]
    assert found.summary.verdict == "converged"


def test_the_preset() -> None:
    migration = composed_config(["policy=proxmox"]).migration
    assert migration.manager is not None
    assert (migration.auto_converge, migration.multifd_channels) == (True, 0)
    assert vars(Proxmox(**migration.manager.args)) == vars(Proxmox())
