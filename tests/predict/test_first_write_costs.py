"""Are the costs of first writes drawn unless they are stated, and stay the hosts possible?"""

from __future__ import annotations

import pytest

from gpusim.config.schema import Config, TrackingConfig
from gpusim.predict import first_write_costs

COST, SHARE = "first_write_cost_ns", "first_write_serial_percent"


def test_one_place_between_two_hosts_gives_both_keys() -> None:
    costs = first_write_costs.ranges(Config(), ())
    assert set(costs) == {COST, SHARE}
    found = [
        first_write_costs.drawn(TrackingConfig(), costs, lambda _, n=n: (n + 0.5) / 300)
        for n in range(300)
    ]
    pairs = sorted((one.first_write_cost_ns, one.first_write_serial_percent) for one in found)
    assert pairs == sorted(pairs, key=lambda pair: pair[1])
    assert 224 < pairs[0][0] < 230
    assert 1700 < pairs[-1][0] < 1766
    assert 2.5 < pairs[0][1] < 2.6
    assert 66 < pairs[-1][1] < 69
    codes = [message.code for message in first_write_costs.assumptions(costs)]
    assert codes == [f"{COST}_drawn", f"{SHARE}_drawn"]


@pytest.mark.parametrize(
    ("tracking", "stated", "expected"),
    [
        (TrackingConfig(), {f"tracking.{COST}"}, {SHARE}),
        (TrackingConfig(), {f"tracking.{SHARE}"}, {COST}),
        (TrackingConfig(first_write_cost_ns=300), {"tracking"}, {SHARE}),
        (TrackingConfig(mode="tcg"), set(), set()),
        (TrackingConfig(mode="kvm_legacy"), {"tracking"}, {COST, SHARE}),
    ],
)
def test_what_is_stated_is_not_drawn(
    tracking: TrackingConfig, stated: set[str], expected: set[str]
) -> None:
    costs = first_write_costs.ranges(Config(tracking=tracking), stated)
    assert set(costs) == expected
    one = first_write_costs.drawn(tracking, costs, lambda _: 0.5)
    for key in {COST, SHARE} - expected:
        assert getattr(one, key) == getattr(tracking, key)
