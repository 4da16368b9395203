"""The published law of a sync's time: what a window measures that holds one.

The law's own verdict is not the loop's: docs/validation.md has both side by side.
"""

from __future__ import annotations

import pytest

from gpusim.config.backend import choose_backend
from gpusim.config.compose import composed_config
from gpusim.config.scenario import resolve
from gpusim.engine.migration import Migration

LINK_GB_PER_S = 15.0
BURST_MS = 51
WITHIN = 0.01


def windows_below_the_link(sync_ms: float) -> list[float]:
    """What the windows measured that sent less than the link gives, GB/s."""
    config = composed_config(
        [
            "experiment=sync_time_law",
            f"tracking.misaligned_ms={sync_ms}",
            f"workload.page_writes_per_s={2.4e9 / 4096}",
        ]
    )
    scenario = resolve(config)
    migration = Migration(scenario, choose_backend(scenario))
    found, threshold = [], migration.state.sender._threshold

    def watched(bandwidth: float) -> int:
        found.append(bandwidth / 1e9)
        return threshold(bandwidth)

    migration.state.sender._threshold = watched
    migration.run()
    return [sample for sample in found if sample < 0.999 * LINK_GB_PER_S]


@pytest.mark.parametrize("sync_ms", [1, 10, 40, 73, 100, 250])
def test_a_window_that_holds_a_sync_measures_what_the_law_says(sync_ms: float) -> None:
    """B t / (x + t), the law's first case, as x + t > 100: a window ends with a whole burst.

    So t is as many bursts as it takes from a sync at the window's start, or one more if a burst came
    before it.
    """
    bursts = max(1, -(-(100 - sync_ms) // BURST_MS))
    laws = [
        LINK_GB_PER_S * sending_ms / (sync_ms + sending_ms)
        for sending_ms in (BURST_MS * bursts, BURST_MS * (bursts + 1))
    ]
    samples = windows_below_the_link(sync_ms)
    assert samples
    for sample in samples:
        assert any(sample == pytest.approx(law, rel=WITHIN) for law in laws)
