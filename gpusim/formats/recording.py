"""One live migration of a real QEMU, as data.

Owns what a recording holds after it was read and checked (recording_file.py). The file format is
described in gpusim/validation/data/README.md. Times are seconds since QEMU's "new state setup",
the moment from which QEMU counts its own total-time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gpusim.formats.profile import Profile
from gpusim.qemu.versions import VERSIONS, nearest

GUEST_STARTS_MIB = 16  # below it lie the recorded guest's program and its counter, the rest is zero
UNFILLED_END_MIB = 2  # firmware keeps these, and the default of `fill` leaves them zero
SETUP = "new state setup"
VM_STOP = "migration_completion_vm_stop"
UNCOUNTED_NOTE = (
    "from 11.1 on QEMU counts neither fallback syncs nor the final sync: the page counts show them, "
    "and one that found few pages is missed"
)


def counts_every_sync(qemu: Sequence[int]) -> bool:
    """Return whether the dirty-sync-count of a version of QEMU is the number of syncs.

    Args:
        qemu: (major, minor, ...).
    """
    return VERSIONS[nearest(tuple(qemu))].counts_every_sync


@dataclass(frozen=True, kw_only=True)
class RecordedGuest:
    """The bare-metal program that wrote during the recording.

    Attributes:
        base_mib: where the working set starts, MiB.
        size_mib: length of the working set, MiB.
        sequential: whether it writes page by page, round and round. Otherwise it writes at random.
        page_writes_per_s: nominal rate. 0: as fast as the emulator goes. None: `delay` decides.
        delay: busy loops between two writes, or None.
        paced: whether work arrives by the clock and the guest catches up after a throttle.
        hot_mib: the first so many MiB get `hot_percent` of the writes. None: all pages are alike.
        hot_percent: share of the writes that goes to the first `hot_mib`, percent.
        fill_mib: memory from 16 MiB on that is not zero. None: up to 2 MiB before the end.
    """

    base_mib: int
    size_mib: int
    sequential: bool
    page_writes_per_s: float | None
    delay: float | None
    paced: bool
    hot_mib: int | None
    hot_percent: float | None
    fill_mib: int | None

    @property
    def kind(self) -> str:
        """Return `paced`, `full_speed` (no loop between writes) or `cpu_bound`."""
        if self.paced:
            return "paced"
        return "cpu_bound" if self.page_writes_per_s or self.delay else "full_speed"


@dataclass(frozen=True, kw_only=True)
class TraceEvent:
    """One of QEMU's trace events."""

    time_s: float
    name: str
    arguments: str


@dataclass(frozen=True, kw_only=True)
class Ram:
    """The `ram` part of one answer of query-migrate."""

    transferred_bytes: int
    remaining_bytes: int
    sent_pages: int  # normal, xbzrle and zero pages, each as often as it was sent
    zero_pages: int  # how many of `sent_pages` were zero
    dirty_sync_count: int
    dirty_pages_rate: int = 0  # of the last period, pages per second. 0: unknown, or none ended


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One answer of query-migrate, with the guest's own write counter."""

    time_s: float
    status: str
    writes: int | None  # since the guest's boot. None: nobody read its counter
    ram: Ram | None  # None before RAM is set up
    cpu_throttle_percentage: int
    mbps: float  # bandwidth of the last closed window, Mbit/s, 0 before the first window

    @property
    def transferred_bytes(self) -> int | None:
        return None if self.ram is None else self.ram.transferred_bytes


@dataclass(frozen=True, kw_only=True)
class Recording:
    """One migration.

    Attributes:
        case: name of the file, without its suffixes.
        scenario: the settings, as recorded. Repeats of one case have equal scenarios.
        qemu: (major, minor).
        ram_bytes: all memory to send. It includes small ROM blocks if the recording reports them.
        guest: the program that wrote. None: an attached recording of an unknown VM.
        multifd_channels: 0: the capability multifd was off.
        parameters: query-migrate-parameters, under QEMU's names.
        limit_s: when a running migration was cancelled, or when the recording ended.
        page_writes_per_s_before: in the four seconds before the migration. None: unknown.
        flat_out_page_writes_per_s: of a paced guest that is late. None: not measured.
        total_time_s: until QEMU reported completion. None: the migration reached its limit.
        stop_s: when QEMU stopped the VM to switch over. None: QEMU never stopped it.
        downtime_bytes: QEMU's count of the bytes sent while the VM was stopped. None: unknown.
        events: QEMU's trace up to the end of the migration, without the cancel. Empty: no trace.
        passes_s: QEMU's number of a sync -> time of its QMP event MIGRATION_PASS.
        counter: (seconds, writes), far finer than the samples. Empty: no fine counter.
        profile: the answers of calc-dirty-rate from before the migration. None: not measured.
    """

    case: str
    scenario: Mapping[str, Any]
    qemu: tuple[int, int]
    ram_bytes: int
    guest: RecordedGuest | None
    accelerator: str
    vcpus: int
    auto_converge: bool
    multifd_channels: int
    parameters: Mapping[str, Any]
    limit_s: float
    page_writes_per_s_before: float | None
    flat_out_page_writes_per_s: float | None
    total_time_s: float | None
    stop_s: float | None
    downtime_bytes: int | None
    events: tuple[TraceEvent, ...]
    passes_s: Mapping[int, float]
    counter: tuple[tuple[float, int], ...]
    samples: tuple[Sample, ...]
    profile: Profile | None

    @property
    def completed(self) -> bool:
        return self.total_time_s is not None

    @property
    def downtime_s(self) -> float | None:
        """Return the time from the VM's stop to the completion. None: it did not complete."""
        if self.total_time_s is None or self.stop_s is None:
            return None
        return self.total_time_s - self.stop_s

    @property
    def counts_every_sync(self) -> bool:
        """Return whether dirty_sync_count is the number of syncs.

        Otherwise it lacks the fallback syncs and the final sync.
        """
        return counts_every_sync(self.qemu)

    @property
    def predictable(self) -> bool:
        """Return whether the guest and its earlier write rate are known."""
        return self.guest is not None and self.page_writes_per_s_before is not None

    def until_stop(self) -> tuple[TraceEvent, ...]:
        """Return the events before QEMU stopped the VM to switch over, or all if it never did."""
        for place, event in enumerate(self.events):
            if event.name == VM_STOP:
                return self.events[:place]
        return self.events
