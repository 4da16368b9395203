"""Does a run follow a rule for the expected bandwidth?"""

from __future__ import annotations

from typing import Any

import pytest

from gpusim import ConfigError, TrackingConfig, WriterConfig, simulate
from gpusim.config.scenario import resolve
from gpusim.qemu.rules import RuleError, Windows
from tests.engine.scenarios import FREE_LAZY, config
from tests.policies.test_plug_ins import with_policies

OWN = "gpusim.qemu.bandwidth"
HERE = __name__
SLOW_SYNC = TrackingConfig(mode="kvm_legacy", listeners_ms=40.0)
BUSY = WriterConfig(working_set="128MiB", page_writes_per_s=4e4)


class Growing:
    """Raises the estimate with every window, which equal windows must not do."""

    def __init__(self) -> None:
        self._windows = 0

    def end_windows(self, windows: Windows) -> float:
        self._windows += windows.count
        return windows.bandwidth * self._windows


class Broken:
    def end_windows(self, windows: Windows) -> Any:
        return float("nan")


def busy(**changes: Any) -> Any:
    made = {"bandwidth": "200MB/s", "max_bandwidth": 0, "tracking": SLOW_SYNC, **changes}
    return config("1GiB", BUSY, **made)


@pytest.mark.parametrize("tracking", [SLOW_SYNC, FREE_LAZY])
def test_the_last_window_is_qemus_own_estimate(tracking: TrackingConfig) -> None:
    base = busy(tracking=tracking)
    own = simulate(with_policies(base, bandwidth_rule=f"{OWN}:LastWindow"))
    plain = simulate(base)
    assert (own.syncs, own.events) == (plain.syncs, plain.events)


def test_the_threshold_follows_the_rule() -> None:
    """Syncs on every turn lower the bandwidth of each window to 200 MB/s * 51 / (51 + 40)."""
    base = busy(version="qemu_11_1", postcopy_ram=True)
    plain = simulate(base)
    without = simulate(with_policies(base, bandwidth_rule=f"{OWN}:WithoutSyncs"))
    limit_s = base.migration.downtime_limit / 1000
    last, better = plain.syncs[-1], without.syncs[-1]
    assert last.threshold_bytes == pytest.approx(200e6 * 51 / 91 * limit_s, rel=0.03)
    assert better.threshold_bytes == pytest.approx(200e6 * limit_s, rel=0.03)
    assert better.bandwidth_bytes_per_s == pytest.approx(200e6 * 51 / 91, rel=0.03)
    assert len(without.syncs) < len(plain.syncs)


@pytest.mark.parametrize("rule", [f"{HERE}:Growing", f"{HERE}:Broken"])
def test_an_estimate_that_the_contract_does_not_allow_ends_the_run(rule: str) -> None:
    with pytest.raises(RuleError) as caught:
        simulate(with_policies(busy(), bandwidth_rule=rule))
    assert caught.value.code == "rule_answer"


def test_a_rule_that_is_never_asked_is_refused() -> None:
    base = with_policies(
        busy(avail_switchover_bandwidth="1GB/s"), bandwidth_rule=f"{OWN}:MovingAverage"
    )
    with pytest.raises(ConfigError) as caught:
        resolve(base)
    assert (caught.value.key, caught.value.code) == ("migration.bandwidth_rule.target", "not_used")
