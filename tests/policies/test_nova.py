"""Does the Nova manager act as nova.conf, downtime_steps and the monitor's loop say?"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from gpusim import ConfigError, simulate
from gpusim.config.compose import composed_config
from gpusim.config.scenario import resolve
from gpusim.policies import Orders, Shown
from gpusim.policies.nova import Nova
from tests.policies.test_others_rules import shown
from tests.policies.test_plug_ins import with_policies
from tests.policies.test_runs import busy

GIB = 2**30


def at(time_s: float, memory: int = 2 * GIB, **changes: Any) -> Shown:
    """Return a poll of a VM in the middle of a migration."""
    return replace(shown(time_s, 5, why="time"), total_bytes=memory, **changes)


@pytest.mark.parametrize(
    ("memory", "wait_s", "timeout_s"),
    [
        (GIB // 2, 150, 1600),  # less than 2 GiB counts as 2
        (2 * GIB, 150, 1600),
        (15 * GIB // 2, 562, 6000),  # int(75 * 7.5)
        (8 * GIB + 17 * 2**20, 600, 6400),  # with 16 MiB of video memory and 1 MiB of ROMs
        (1024 * GIB, 76_800, 819_200),
    ],
)
def test_times_scale_with_the_memory_of_the_flavour(
    memory: int, wait_s: int, timeout_s: int
) -> None:
    """Each step waits int(75 s * GiB). Nova gives up after int(800 s * GiB)."""
    nova = Nova()
    assert nova.steps(memory) == [(wait_s * n, 50 + 45 * n) for n in range(11)]
    assert nova.timeout_s(memory) == timeout_s


def test_the_limits_are_those_of_novas_own_example() -> None:
    """migration.py:downtime_steps: 10 steps, 30 s, 3 GB and 400 ms give 40, 76, ... 400 ms."""
    steps = Nova(downtime=400, downtime_delay=30).steps(3 * GIB)
    assert [ms for _, ms in steps] == [40, 76, 112, 148, 184, 220, 256, 292, 328, 364, 400]
    assert [s for s, _ in steps] == list(range(0, 901, 90))


def polls(nova: Nova, memory: int = 2 * GIB) -> list[tuple[float, Orders]]:
    """Return (s, orders) of every poll that the manager asks for."""
    orders, found = nova.look(replace(at(0, memory), why="sync")), []
    while orders.again_ns is not None:
        at_s = orders.again_ns / 1e9
        early = nova.look(at(at_s - 0.1, memory))
        assert (early.set, early.do, early.again_ns) == ({}, None, orders.again_ns)
        orders = nova.look(at(at_s, memory))
        found.append((at_s, orders))
    return found


def test_a_step_comes_at_the_first_poll_after_its_time() -> None:
    """The loop polls every 0.5 s and asks whether more time has passed than the step's."""
    found = polls(Nova(), 4 * GIB)
    limits = [(s, one.set["downtime_limit"]) for s, one in found if one.set]
    assert limits == [(0.5 + 300 * n, 50 + 45 * n) for n in range(11)]
    assert found[-1] == (3200.5, Orders(do="cancel", why=found[-1][1].why))
    assert "3200 s" in found[-1][1].why


def test_without_a_timeout_nothing_follows_the_last_step() -> None:
    found = polls(Nova(completion_timeout=0, downtime_steps=3, downtime_delay=3))
    assert [s for s, _ in found] == [0.5, 6.5, 12.5, 18.5]
    assert found[-1][1] == Orders(set={"downtime_limit": 500})


def test_force_complete_pauses_one_turn_of_the_loop_later() -> None:
    nova = Nova(completion_timeout=10, timeout_action="force_complete")
    assert [(s, one.do) for s, one in polls(nova) if s < 100] == [
        (0.5, None),
        (20.5, None),
        (21.0, "pause"),
    ]


def test_force_complete_switches_to_post_copy_one_turn_of_the_loop_later() -> None:
    """run_tasks does it, as it pauses the VM. Afterwards Nova polls no more."""
    nova = Nova(timeout_action="force_complete", permit_post_copy=True)
    assert polls(nova)[-1] == (1601.0, Orders(do="start-postcopy"))
    assert nova.look(at(5000)) == Orders()
    abort = Nova(permit_post_copy=True)
    assert (abort.at_timeout, nova.at_timeout) == ("abort", "post_copy")
    assert polls(abort)[-1][1].do == "cancel"


@pytest.mark.parametrize(
    "wrong",
    [
        {"downtime": 99},
        {"downtime": "500"},
        {"downtime_steps": 2},
        {"downtime_delay": True},
        {"completion_timeout": -1},
        {"completion_timeout": 0.5},
        {"timeout_action": "pause"},
        {"permit_post_copy": "no"},
    ],
)
def test_a_wrong_option_is_refused_by_its_name(wrong: dict[str, Any]) -> None:
    ((name, value),) = wrong.items()
    with pytest.raises(ConfigError) as error:
        resolve(with_policies(manager=("gpusim.policies.nova:Nova", wrong)))
    assert error.value.code == "wrong_arguments"
    assert (error.value.key, error.value.value) == (f"migration.manager.args.{name}", value)


def test_a_run_is_paused_and_converges() -> None:
    options = {"completion_timeout": 10, "timeout_action": "force_complete"}
    hopeless = busy(auto_converge=False)
    found = simulate(with_policies(hopeless, manager=("gpusim.policies.nova:Nova", options)))
    assert found.summary.verdict == "converged"
    pauses = [event.time_s for event in found.events if event.arguments.get("reason") == "paused"]
    assert pauses == [pytest.approx(21.0, abs=0.01)]


def test_a_run_is_aborted_at_its_timeout() -> None:
    options = {"completion_timeout": 10}
    hopeless = busy(auto_converge=False)
    found = simulate(with_policies(hopeless, manager=("gpusim.policies.nova:Nova", options)))
    assert found.summary.reason_code == "cancelled_by_manager"
    assert found.summary.total_time_s == pytest.approx(20.5, abs=0.2)


def test_a_run_ends_in_post_copy_at_its_timeout() -> None:
    options = {"completion_timeout": 10, "timeout_action": "force_complete"}
    options |= {"permit_post_copy": True}
    hopeless = busy(auto_converge=False, postcopy_ram=True)
    found = simulate(with_policies(hopeless, manager=("gpusim.policies.nova:Nova", options)))
    assert (found.summary.verdict, found.summary.reason_code) == ("converged", "postcopy")
    assert found.summary.postcopy_start_s == pytest.approx(21.0, abs=0.2)


def test_the_time_of_the_switch_counts_the_skipped_wait() -> None:
    """The guest stalls, so the 400 s until Nova's timeout of 1 GiB pass at once."""
    options = {"completion_timeout": 200, "timeout_action": "force_complete"}
    options |= {"permit_post_copy": True}
    stalled = busy(auto_converge=False, postcopy_ram=True, limit_s=3600)
    limit = replace(stalled.limit, stop_when_stuck=True, skip_waiting=True)
    made = with_policies(
        replace(stalled, limit=limit), manager=("gpusim.policies.nova:Nova", options)
    )
    summary = simulate(made).summary
    assert summary.skipped_s > 100
    assert summary.postcopy_start_s == pytest.approx(401, abs=0.2)
    assert summary.total_time_s == pytest.approx(401 + 5, abs=5)


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"auto_converge": False}, "migration.postcopy_ram"),
        ({"postcopy_ram": True, "auto_converge": True}, "migration.auto_converge"),
    ],
)
def test_settings_that_nova_would_not_use_are_refused(settings: dict[str, Any], key: str) -> None:
    """A permission without the capability is an error, and so is auto-converge beside it."""
    made = with_policies(
        busy(**settings), manager=("gpusim.policies.nova:Nova", {"permit_post_copy": True})
    )
    with pytest.raises(ConfigError, match="policy=nova_post_copy") as error:
        resolve(made)
    assert (error.value.key, error.value.code) == (key, "contradiction")


def test_the_presets_have_novas_defaults() -> None:
    migration = composed_config(["policy=nova"]).migration
    assert migration.manager is not None
    assert (migration.auto_converge, migration.multifd_channels) == (False, 0)
    assert not migration.postcopy_ram
    assert vars(Nova(**migration.manager.args)) == vars(Nova())
    permitted = composed_config(["policy=nova_post_copy"])
    resolve(permitted)
    assert permitted.migration.manager is not None
    differing = vars(Nova(timeout_action="force_complete", permit_post_copy=True))
    assert vars(Nova(**permitted.migration.manager.args)) == differing


@pytest.mark.parametrize("memory", ["1GiB", "3GiB"])
def test_the_experiment_scales_with_the_vm(memory: str) -> None:
    config = composed_config(["experiment=nova_downtime_steps", f"vm.memory={memory}"])
    assert config.schedule == []
    assert config.vm.memory == memory
    assert config.migration.manager is not None
