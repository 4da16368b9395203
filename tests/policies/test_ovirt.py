"""Does the oVirt manager execute a policy's actions as vdsm's monitor does?"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from gpusim import ConfigError, simulate
from gpusim.config.compose import composed_config
from gpusim.config.scenario import resolve
from gpusim.policies import Orders
from gpusim.policies.ovirt import OVirt
from tests.policies.test_others_rules import shown
from tests.policies.test_plug_ins import with_policies
from tests.policies.test_runs import busy

TARGET = "gpusim.policies.ovirt:OVirt"


def actions(manager: OVirt, *left: int) -> list[tuple[int, Any]]:
    """Return (iterations begun, limit or action) of each poll that orders something."""
    orders, found, begun = manager.look(shown(0, 1)), [], 0
    assert orders == Orders(set={"downtime_limit": 100}, again_ns=10 * 10**9)
    for place, remaining in enumerate(left):
        assert orders.again_ns is not None
        begun += place > 0 and remaining > left[place - 1]
        orders = manager.look(shown(orders.again_ns / 1e9, 9, remaining, why="time"))
        if orders.set or orders.do:
            found.append((begun, orders.set.get("downtime_limit") or orders.do))
        if orders.do:
            break
    return found


RISING = [(2, 150), (3, 200), (4, 300), (5, 400), (7, 500)]
UP_AND_DOWN = [800, 900] * 20  # an iteration begins at every second poll


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("minimal_downtime", [*RISING, (8, "cancel")]),
        ("suspend_workload", [*RISING, (8, 5000), (9, "cancel")]),
        ("post_copy", [(2, 150), (3, 200), (4, "start-postcopy")]),
    ],
)
def test_an_action_waits_for_more_iterations_than_its_number(
    policy: str, expected: list[tuple[int, Any]]
) -> None:
    """The numbers are 1, 2, 3, 4 and 6, and none for the last items."""
    assert actions(OVirt(policy), *UP_AND_DOWN) == expected


def test_falling_memory_begins_no_iteration() -> None:
    assert actions(OVirt(), *range(9000, 1000, -100)) == []


def test_syncs_between_two_polls_change_nothing() -> None:
    manager = OVirt(monitor_interval=5)
    manager.look(shown(0, 1))
    assert manager.look(shown(3, 2)) == Orders(again_ns=5 * 10**9)


@pytest.mark.parametrize(
    "wrong",
    [
        {"migration_policy": "legacy"},
        {"migration_policy": 3},
        {"monitor_interval": 0},
        {"monitor_interval": 1.5},
    ],
)
def test_a_wrong_argument_is_refused(wrong: dict[str, Any]) -> None:
    ((name, value),) = wrong.items()
    with pytest.raises(ConfigError) as error:
        resolve(with_policies(manager=(TARGET, wrong)))
    assert error.value.code == "wrong_arguments"
    assert (error.value.key, error.value.value) == (f"migration.manager.args.{name}", value)


def test_a_guest_that_stalls_is_aborted() -> None:
    """256 MiB take 4.5 s at 60 MB/s, and oVirt allows 500 ms at most."""
    hopeless = busy(auto_converge=False, limit_s=3600)
    hopeless = replace(hopeless, limit=replace(hopeless.limit, stop_when_stuck=True))
    found = simulate(with_policies(hopeless, manager=(TARGET, {"monitor_interval": 1})))
    limits = [
        e.arguments["downtime_limit"] for e in found.events if "downtime_limit" in e.arguments
    ]
    assert limits == [100, 150, 200, 300, 400, 500]
    assert found.summary.reason_code == "cancelled_by_manager"


def test_a_guest_that_stalls_ends_in_post_copy() -> None:
    stalled = busy(auto_converge=False, postcopy_ram=True, limit_s=3600)
    options = {"monitor_interval": 1, "migration_policy": "post_copy"}
    found = simulate(with_policies(stalled, manager=(TARGET, options)))
    assert found.summary.reason_code == "postcopy"
    assert found.summary.total_time_s < 60


def test_the_policy_with_post_copy_needs_the_capability() -> None:
    made = with_policies(busy(), manager=(TARGET, {"migration_policy": "post_copy"}))
    with pytest.raises(ConfigError, match="policy=ovirt_post_copy") as error:
        resolve(made)
    assert error.value.key == "migration.postcopy_ram"
    resolve(composed_config(["policy=ovirt_post_copy"]))


def test_the_preset() -> None:
    migration = composed_config(["policy=ovirt"]).migration
    assert migration.manager is not None
    assert (migration.auto_converge, migration.multifd_channels) == (True, 0)
    assert vars(OVirt(**migration.manager.args)) == vars(OVirt())
