"""How a config tracks writes, as numbers: what a sync costs and what it waits for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from gpusim.config.checks import check_choice, check_range, parse_pairs, parse_size, reject
from gpusim.config.schema import MigrationConfig, TrackingConfig, VmConfig
from gpusim.errors import LONGEST_VALUE, one_line
from gpusim.guest.faults import Protection
from gpusim.guest.writer import Writer
from gpusim.layout import CHUNK_PAGES, Layout
from gpusim.qemu.versions import TRACKING_MODES, VERSIONS
from gpusim.text import join_words
from gpusim.units import NS_PER_MS, NS_PER_S, NS_PER_US, format_bytes

MOST_TRACKED_PAGES = 2**24  # if not the target page. Each draw takes 16 bytes for each of them
# Without eager page splitting KVM protects huge pages. The first clears of 96 GiB took 49.6 ms: kvm
# list, 2021-12-13, "Eager Page Splitting for the TDP MMU".
HUGE_PROTECT_NS = 2.0  # per 4 KiB page
WAIT_FOR_VCPUS: dict[str, Literal["before", "after"]] = {"dirty_ring": "before", "tcg": "after"}
# Chance to get the bitmap's mutex at a burst's end, with QEMU 11.1.3: 242 waits took 249 bursts, and
# with multifd 71 waits took 922. Source: docs/explanation/model.md, "The bitmap's mutex".
ONE_THREAD_WINS_PERCENT, MULTIFD_WINS_PERCENT = 97.2, 7.7
LOWEST_WIN_PERCENT = 0.1
HIGHEST_COSTS = {
    "log_sync_ns_per_gib": 1e9,
    "log_sync_us_per_block": 1e6,
    "listeners_ms": 1e6,
    "merge_ns_per_gib": 1e9,
    "misaligned_ms": 1e6,
    "remote_clear_us": 1e6,
    "protect_ns_per_page": 1e4,
    "start_ns_per_page": 1e4,
    "split_ns_per_page": 1e4,
    "first_write_cost_ns": 1e9,
    "first_write_serial_percent": 100,
    "split_write_cost_ns": 1e9,
    "split_write_serial_percent": 100,
}


@dataclass(frozen=True, kw_only=True)
class Tracking:
    """How writes are tracked, and what a sync costs.

    Attributes:
        mode: kvm_manual, kvm_legacy, dirty_ring or tcg.
        lazy: KVM manual protect: a chunk is protected when the sender clears its log.
        initially_set: lazy only: nothing is tracked before a chunk's first clear.
        protection: when pages are protected, and the cost of the guest's first write to one.
        pages_together: target pages of a page that KVM tracks.
        log_sync_ns: the first part of a sync reads the log.
        slots_lock_ns: the time of it in which no chunk can be cleared, with KVM manual protect.
        merge_ns: the second part merges the log. It holds the bitmap's mutex.
        clear_ns, protect_ns, first_protect_ns: time of a remote clear, and of each page that it
            protects again, and for the first time. 0 if not lazy.
        start_ns: time before the first sync to protect every page.
        sync_protect_ns: time to protect a page that the vCPUs wrote, in a sync or by the reaper.
        protects_at_read: reading the log protects the pages in it. If not, then merging does, or the
            chunk's clear.
        waits_for_burst: a fallback sync merges only when the sender's burst has ended.
        mutex_wins: the chance that it gets the mutex then, if the sender goes on at once.
        waits_for_vcpus: a sync waits until every vCPU has answered, before it reads the log (dirty
            ring) or after it merged it (TCG). None: it does not wait. A vCPU that the throttle put to
            sleep answers when it wakes. Source: accel/kvm/kvm-all.c:kvm_dirty_ring_flush,
            kvm_cpu_synchronize_kick_all, and system/physmem.c:tcg_log_global_after_sync.
        recorded_sleeps_ns: (from, until) of recorded sleeps of the vCPUs, all rising. If empty,
            then the throttle's own slices count.
    """

    mode: str
    lazy: bool
    initially_set: bool
    protection: Protection
    pages_together: int
    log_sync_ns: int
    slots_lock_ns: int
    merge_ns: int
    clear_ns: float
    protect_ns: float
    first_protect_ns: float
    start_ns: int
    sync_protect_ns: float
    protects_at_read: bool
    waits_for_burst: bool
    mutex_wins: float
    waits_for_vcpus: Literal["before", "after"] | None
    recorded_sleeps_ns: tuple[tuple[int, int], ...]


def check_tracking(tracking: TrackingConfig, version: str) -> None:
    """Check the mode and the costs.

    Raises:
        ConfigError: the mode is unknown, the QEMU version lacks it, or a cost is out of range.
    """
    check_choice("tracking.mode", tracking.mode, TRACKING_MODES)
    known = VERSIONS[version].tracking
    if tracking.mode not in known:
        hint = f"{version} has only {join_words(known)}. Add tracking={known[0]}"
        reject("tracking.mode", tracking.mode, hint, "not_supported")
    for name, highest in HIGHEST_COSTS.items():
        if (cost := getattr(tracking, name)) is not None:  # only misaligned_ms may be null
            check_range(f"tracking.{name}", cost, 0, highest)
    if tracking.mutex_win_percent is not None:
        check_range(
            "tracking.mutex_win_percent", tracking.mutex_win_percent, LOWEST_WIN_PERCENT, 100
        )


def parse_tracking(
    tracking: TrackingConfig,
    layout: Layout,
    vm: VmConfig,
    migration: MigrationConfig,
    touched_pages: int,
) -> Tracking:
    """Return the numbers of a config that `check_tracking` has checked.

    Args:
        tracking: the keys of the user.
        layout: the RAM blocks.
        vm: has the size of a guest page, and what backs the RAM.
        migration: has the QEMU version, and the number of multifd channels.
        touched_pages: pages that are not zero at the start. KVM has an entry for each of them.

    Raises:
        ConfigError: the recorded sleeps or the tracked page are not usable.
    """
    lazy = tracking.mode == "kvm_manual"
    from_start = not (lazy and tracking.initially_set)
    protects = tracking.mode != "tcg"  # TCG only drops its TLB
    sync_protect_ns = tracking.protect_ns_per_page if protects and not lazy else 0.0
    page_bytes = vm.page_size
    gib = layout.pages * page_bytes / 2**30
    misaligned_ms = tracking.misaligned_ms
    if misaligned_ms is None:
        misaligned_ms = VERSIONS[migration.version].misaligned_ms
    win_percent = tracking.mutex_win_percent
    if win_percent is None:
        win_percent = (
            MULTIFD_WINS_PERCENT if migration.multifd_channels else ONE_THREAD_WINS_PERCENT
        )
    kvm_log_ns = (
        tracking.log_sync_ns_per_gib * gib
        + tracking.log_sync_us_per_block * NS_PER_US * len(layout.blocks)
    )
    together = _parse_page_size(tracking, layout, page_bytes)
    is_huge = vm.backing != "4k" and together == 1  # KVM on POWER cannot split huge pages

    def first_ns(alone_ns: float) -> float:
        """Return the time to protect a page first, from that of a page that KVM maps alone."""
        if not is_huge:
            return alone_ns
        return tracking.split_ns_per_page if tracking.eager_page_split else HUGE_PROTECT_NS

    return Tracking(
        mode=tracking.mode,
        lazy=lazy,
        initially_set=tracking.initially_set,
        protection=Protection(
            cost_ns=tracking.first_write_cost_ns,
            serial_ns=tracking.first_write_cost_ns * tracking.first_write_serial_percent / 100,
            splits=protects and is_huge and not tracking.eager_page_split,
            split_cost_ns=tracking.split_write_cost_ns,
            split_serial_ns=tracking.split_write_cost_ns
            * tracking.split_write_serial_percent
            / 100,
            lazy=lazy,
            from_start=from_start,
            reaped=tracking.mode == "dirty_ring",
            reset_ns=sync_protect_ns,
        ),
        pages_together=together,
        log_sync_ns=round(kvm_log_ns + tracking.listeners_ms * NS_PER_MS),
        slots_lock_ns=round(kvm_log_ns) if lazy else 0,
        merge_ns=round(tracking.merge_ns_per_gib * gib + misaligned_ms * NS_PER_MS),
        clear_ns=tracking.remote_clear_us * NS_PER_US * lazy,
        protect_ns=tracking.protect_ns_per_page * lazy,
        first_protect_ns=first_ns(tracking.protect_ns_per_page) * lazy,
        start_ns=round(touched_pages // together * first_ns(tracking.start_ns_per_page))
        if protects and from_start
        else 0,
        sync_protect_ns=sync_protect_ns,
        protects_at_read=protects and not lazy,
        waits_for_burst=tracking.waits_for_burst,
        mutex_wins=win_percent / 100,
        waits_for_vcpus=WAIT_FOR_VCPUS.get(tracking.mode),
        recorded_sleeps_ns=_parse_sleeps(tracking),
    )


def _parse_page_size(tracking: TrackingConfig, layout: Layout, page_bytes: int) -> int:
    """Return the target pages of a tracked page."""
    key, value = "tracking.page_size", tracking.page_size
    if value is None:
        return 1
    size = parse_size(key, value)
    together = size // page_bytes
    if size % page_bytes or together < 1 or CHUNK_PAGES % together:
        allowed = (
            f"must be a power of two from {format_bytes(page_bytes)} (vm.page_size) to "
            f"{format_bytes(CHUNK_PAGES * page_bytes)}"
        )
        reject(key, value, allowed, "out_of_range")
    if together == 1:
        return 1
    if tracking.mode != "kvm_legacy":
        tracked = (
            "TCG tracks target pages"
            if tracking.mode == "tcg"
            else ("KVM on x86 and ARM splits huge pages and tracks host pages")
        )
        hint = (
            f"{tracked}. Remove it, or set tracking=power_hash (kvm_legacy on POWER with a hash page "
            "table). For host pages of 64 KiB set vm.page_size=65536"
        )
        reject(key, value, hint, "contradiction")
    if any(block % together for block in layout.blocks):
        hint = "every RAM block must consist of whole pages of this size. Change it or vm.memory"
        reject(key, value, hint, "does_not_fit_vm")
    if layout.pages // together > MOST_TRACKED_PAGES:
        allowed = f"the VM may have at most {MOST_TRACKED_PAGES} tracked pages. Raise it"
        reject(key, value, allowed, "out_of_range")
    return together


def check_device_writes(value: object, together: int, writers: Iterable[Writer]) -> None:
    """Refuse device writes beside larger tracked pages: devices log target pages.

    Args:
        value: tracking.page_size as the user set it.
        together: target pages of a tracked page.
        writers: the writers of the guest.

    Raises:
        ConfigError: a writer is not throttled.
    """
    for writer in writers if together > 1 else ():
        if not writer.throttled:
            hint = (
                "devices log target pages, and gpusim tracks all writes alike. Remove it, or the "
                f"writer with throttled=false: {one_line(writer.name, LONGEST_VALUE)}"
            )
            reject("tracking.page_size", value, hint, "contradiction")


def _parse_sleeps(tracking: TrackingConfig) -> tuple[tuple[int, int], ...]:
    key, value = "tracking.recorded_sleeps", tracking.recorded_sleeps
    if value is None:
        return ()
    if tracking.mode not in WAIT_FOR_VCPUS:
        hint = f"only tracking.mode={' or '.join(WAIT_FOR_VCPUS)} uses it. Remove it"
        reject(key, "[...]", hint, "not_used")
    pairs = parse_pairs(key, value, float, float, "[[150.25, 151.24], ...]")
    times_s = np.array([0.0, *(time_s for pair in pairs for time_s in pair)])
    if not np.isfinite(times_s).all() or (np.diff(times_s) < 0).any() or times_s[-1] > 1e8:
        allowed = "must be pairs [asleep from, until] in seconds from 0 to 1e8, all rising"
        reject(key, f"[{len(pairs)} pairs]", allowed, "out_of_range")
    return tuple((round(low * NS_PER_S), round(high * NS_PER_S)) for low, high in pairs)
