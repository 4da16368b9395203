"""Are the quantities of a recording right? They were read by hand from five traces."""

from __future__ import annotations

import pytest

from gpusim.formats.quantities import Quantities, recorded_quantities
from gpusim.formats.recording_file import load_recording
from gpusim.validation.shipped import SHIPPED

BY_HAND = {
    # Setup at 0.0003 s, completed at 31.1908 s, first cpu_throttle_set at 18.5404 s.
    "uniform-mid.qemu10.a": Quantities(
        total_time_s=31.1905,
        dirty_sync_count=18,
        syncs_made=18,
        max_throttle_percent=50,
        first_throttle_s=18.5401,
        transferred_bytes=3297831075,
        converged=True,
        downtime_ms=23.9,
    ),
    # 7.2, never throttled. Setup at 0.003 s, completed at 12.5969 s.
    "converges.qemu7.a": Quantities(
        total_time_s=12.5939,
        dirty_sync_count=6,
        syncs_made=6,
        max_throttle_percent=0,
        first_throttle_s=None,
        transferred_bytes=1256745149,
        converged=True,
        downtime_ms=14.9,
    ),
    # 10.0, cancelled at 150 s: the sync after the cancel does not count, the cap of 40 % holds.
    "max-40.qemu10.a": Quantities(
        total_time_s=None,
        dirty_sync_count=25,
        syncs_made=25,
        max_throttle_percent=40,
        first_throttle_s=35.0024,
        transferred_bytes=6249200971,
        converged=False,
    ),
    # 7.2 with tailslow: the trace lacks the percentages, and the samples end at 77 %.
    "tailslow.qemu7.a": Quantities(
        total_time_s=91.0199,
        dirty_sync_count=20,
        syncs_made=20,
        max_throttle_percent=77,
        first_throttle_s=30.1426,
        transferred_bytes=4772652357,
        converged=True,
        downtime_ms=9.6,
    ),
    # 7.2, seven migration_throttle events: 20, 30, ... 80.
    "downtime-50.qemu7.a": Quantities(
        total_time_s=74.8781,
        dirty_sync_count=22,
        syncs_made=22,
        max_throttle_percent=80,
        first_throttle_s=29.4004,
        transferred_bytes=4655293109,
        converged=True,
        downtime_ms=7.3,
    ),
}


@pytest.mark.parametrize("case", BY_HAND)
def test_measured_quantities_are_those_of_the_trace(case: str) -> None:
    recording = load_recording(SHIPPED / f"{case}.json.xz")
    assert recorded_quantities(recording) == BY_HAND[case]


def test_the_increases_of_7_2_agree_with_its_samples() -> None:
    """max-cpu-throttle 40 caps six events. The samples lag and saw no more."""
    recording = load_recording(SHIPPED / "max-40.qemu7.a.json.xz")
    found = recorded_quantities(recording)
    assert found.max_throttle_percent == 40
    assert max(sample.cpu_throttle_percentage for sample in recording.samples) == 40
    assert not found.converged
