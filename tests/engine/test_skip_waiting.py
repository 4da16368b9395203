"""Does a skipped wait lead to the same end as a simulated one, with the time counted?"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from gpusim import Config, ConfigError, EvacuationConfig, GuestConfig, Result, evacuate, simulate
from tests.policies.test_plug_ins import with_policies
from tests.policies.test_runs import busy

NOVA = "gpusim.policies.nova:Nova"


def stalls(schedule: list[dict[str, Any]] = [], **changes: Any) -> Config:  # noqa: B006
    """Return a guest that stalls after a pass of 18 s, with 256 MiB that take 4.5 s to send."""
    base = busy(auto_converge=False, **{"limit_s": 3600, **changes})
    limit = replace(base.limit, stop_when_stuck=True, skip_waiting=True)
    return replace(base, limit=limit, schedule=schedule)


def simulated(config: Config) -> Result:
    return simulate(replace(config, limit=replace(config.limit, skip_waiting=False)))


@pytest.mark.parametrize("action", [{"do": "cancel"}, {"do": "pause"}])
def test_a_wait_for_the_schedule_ends_alike(action: dict[str, Any]) -> None:
    config = stalls([{"at": "400s", **action}])
    skipped, waited = simulate(config).summary, simulated(config).summary
    assert skipped.verdict == waited.verdict
    assert skipped.reason_code == waited.reason_code
    assert skipped.total_time_s == pytest.approx(waited.total_time_s, abs=5)
    assert 200 < skipped.skipped_s < 400
    assert waited.skipped_s == 0
    assert skipped.simulated_looks < waited.simulated_looks / 2


def test_a_managers_steps_come_at_their_times_and_each_is_tried() -> None:
    """Nova's steps for 1 GiB come every 60 s. The first limit with which 4.5 s fit ends it."""
    options = {"downtime": 6000, "downtime_delay": 30, "downtime_steps": 10}
    config = with_policies(stalls(), manager=(NOVA, options))
    skipped, waited = simulate(config), simulated(config)
    assert skipped.summary.verdict == waited.summary.verdict == "converged"
    assert skipped.summary.total_time_s == pytest.approx(waited.summary.total_time_s, abs=6)
    set_ms = [
        e.arguments["downtime_limit"] for e in skipped.events if "downtime_limit" in e.arguments
    ]
    assert set_ms == [
        e.arguments["downtime_limit"] for e in waited.events if "downtime_limit" in e.arguments
    ]


def test_an_abort_after_hours_takes_minutes_to_simulate() -> None:
    """800 s per GiB, at least 2 GiB: 1600.5 s."""
    config = with_policies(stalls(), manager=(NOVA, {"downtime": 100}))
    found = simulate(config)
    assert found.summary.reason_code == "cancelled_by_manager"
    assert found.summary.total_time_s == pytest.approx(1600.5, abs=1)
    assert found.samples[-1].time_s < 700
    assert found.summary.skipped_s + found.samples[-1].time_s == found.summary.total_time_s


def test_the_simulated_limit_counts_skipped_time() -> None:
    config = with_policies(stalls(limit_s=500), manager=(NOVA, {"downtime": 100}))
    found = simulate(config).summary
    assert (found.verdict, found.total_time_s) == ("time_limit", pytest.approx(500, abs=5))


def test_nothing_is_skipped_before_the_link_or_the_guest_changes() -> None:
    """A faster link brings the guest over, so the wait for a cancel is simulated."""
    config = stalls([{"at": "400s", "do": "cancel"}], max_bandwidth=0, bandwidth="60MB/s")
    link = replace(config.link, changes=[["300s", "10Gbit/s"]])
    found = simulate(replace(config, link=link)).summary
    assert (found.verdict, found.skipped_s) == ("converged", 0.0)


def test_a_stall_without_a_later_action_ends_the_run() -> None:
    assert simulate(stalls()).summary.verdict == "not_converged"


def test_an_evacuation_refuses_it() -> None:
    guest = GuestConfig(workload=busy().workload)
    host = replace(stalls(), evacuation=EvacuationConfig(guests={"db": guest}))
    with pytest.raises(ConfigError) as error:
        evacuate(host)
    assert (error.value.key, error.value.code) == ("limit.skip_waiting", "not_supported")
