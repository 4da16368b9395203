"""Does a window with a sync measure the bandwidth of the published law of a sync's time?

The verdicts of the law and of QEMU's loop differ: docs/validation/published.md has both.
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
    """Return the bandwidths below that of the link which windows measured, GB/s."""
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
def test_a_window_with_a_sync_measures_the_bandwidth_of_the_law(sync_ms: float) -> None:
    """The first case of the law holds: B t / (x + t) if x + t > 100. A window ends with a burst.

    So t is the number of bursts that fill the window after a sync at its start. It is one more if
    a burst came before the sync.
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
