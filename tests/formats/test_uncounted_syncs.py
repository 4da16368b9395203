"""Are the syncs found that QEMU 11.1 makes and does not count?

The counts were read by hand from the traces: syncs made, and QEMU's own count.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from gpusim.formats.quantities import recorded_quantities
from gpusim.formats.recording import Recording
from gpusim.formats.recording_file import load_recording
from gpusim.formats.sync_record import find_syncs
from gpusim.validation.shipped import SHIPPED

BY_HAND = {
    "recorder/kvm_uniform.qemu11.a": (14, 10),  # three fallback syncs
    "short/fallback.qemu11.a": (16, 12),  # three
    "short/multifd.qemu11.a": (11, 10),  # none
    "short/tail_slow.qemu11.a": (15, 14),  # none, and a sample between the pages and the count
    "short/postcopy_permitted.qemu11.a": (211, 210),  # a sync on each turn of the loop
}
BETWEEN_SAMPLES_S = 0.25


def recorded(case: str) -> Recording:
    return load_recording(SHIPPED / f"{case}.json.xz")


@pytest.mark.parametrize("case", BY_HAND)
def test_a_recording_has_both_counts(case: str) -> None:
    recording = recorded(case)
    for known in (
        recording,
        replace(recording, events=()),
        replace(recording, events=(), passes_s={}),
    ):
        found = recorded_quantities(known)
        assert (found.syncs_made, found.dirty_sync_count) == BY_HAND[case]


@pytest.mark.parametrize("case", BY_HAND)
def test_without_a_trace_page_counts_show_the_uncounted_syncs(case: str) -> None:
    recording = recorded(case)
    traced = find_syncs(recording)
    sampled = find_syncs(replace(recording, events=(), passes_s={}))
    assert [sync.time_s for sync in sampled] == pytest.approx(
        [sync.time_s for sync in traced], abs=BETWEEN_SAMPLES_S
    )
    assert sum(sync.newly_dirty_pages for sync in sampled) == pytest.approx(
        sum(sync.newly_dirty_pages for sync in traced), rel=0.01
    )


def test_a_sync_between_its_pages_and_its_count_is_one_sync() -> None:
    """QEMU 11.1 counts a sync after it has added the sync's pages. A sample can lie between."""
    whole = replace(recorded("recorder/kvm_uniform.qemu11.a"), events=(), passes_s={})
    place = next(n for n, s in enumerate(whole.samples) if s.ram and s.ram.dirty_sync_count == 3)
    late = whole.samples[place]
    assert late.ram is not None
    early = replace(late, ram=replace(late.ram, dirty_sync_count=2))
    held = replace(whole, samples=(*whole.samples[:place], early, *whole.samples[place + 1 :]))
    assert [s.newly_dirty_pages for s in find_syncs(held)] == [
        s.newly_dirty_pages for s in find_syncs(whole)
    ]


def test_rounded_sizes_are_not_taken_for_syncs() -> None:
    """virsh domjobinfo prints three digits after the point, so page counts jump."""
    whole = replace(recorded("recorder/kvm_uniform.qemu11.a"), events=(), passes_s={})
    step = 2**30 // 1000
    rounded = tuple(
        sample
        if sample.ram is None
        else replace(
            sample,
            ram=replace(
                sample.ram, remaining_bytes=round(sample.ram.remaining_bytes / step) * step
            ),
        )
        for sample in whole.samples
    )
    made = recorded_quantities(replace(whole, samples=rounded)).syncs_made
    assert made == recorded_quantities(whole).syncs_made


def test_without_auto_converge_there_is_no_fallback_sync() -> None:
    whole = replace(recorded("recorder/kvm_uniform.qemu11.a"), events=(), passes_s={})
    found = recorded_quantities(replace(whole, auto_converge=False))
    assert found.syncs_made == found.dirty_sync_count + 1  # the final one


def test_an_older_qemu_counts_every_sync() -> None:
    recording = replace(recorded("recorder/kvm_uniform.qemu10.a"), events=())
    found = recorded_quantities(recording)
    assert found.syncs_made == found.dirty_sync_count
    assert recording.counts_every_sync
    assert not recorded("recorder/kvm_uniform.qemu11.a").counts_every_sync
