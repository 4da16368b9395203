"""Every field of summary.json: its label, unit and meaning, and the tables that show the field.

Tables, pages, pictures, gpusim-collect and the reference of the docs read this registry. It covers
`Summary` and `EvacuationSummary` of gpusim/engine/records.py and what the result files add to them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

from gpusim.text import format_duration, format_number, join_words
from gpusim.units import format_bytes

Unit: TypeAlias = Literal[
    "text", "names", "count", "pages", "bytes", "s", "ms", "vCPU s", "%", "Gbit/s"
]

_GIB = ("GiB", 2.0**30)
_MILLION = ("million", 1e6)


@dataclass(frozen=True)
class SummaryField:
    """One field of summary.json.

    Attributes:
        key: the JSON key.
        unit: of the value. "text" and "names" (a list of text) are no numbers.
        label: a few words, for a head, an axis or a row.
        meaning: a sentence, and a second one for an exception.
        column_unit: the unit that a table of many runs shows, and how many of `unit` make one.
    """

    key: str
    unit: Unit
    label: str
    meaning: str
    column_unit: tuple[str, float] | None = None

    @property
    def is_number(self) -> bool:
        """Return whether the value is a number."""
        return self.unit not in ("text", "names")

    @property
    def heading(self) -> str:
        """Return the head of a column: "Total time (s)", "Sent (GiB)"."""
        return self.axis_label(self._column_unit[0])

    @property
    def column_scale(self) -> float:
        """Return the divisor of the values in a column under `heading`."""
        return self._column_unit[1]

    @property
    def _column_unit(self) -> tuple[str, float]:
        if self.column_unit is not None:
            return self.column_unit
        return _GIB if self.unit == "bytes" else (self.unit, 1.0)

    def axis_label(self, unit: str | None = None) -> str:
        """Return the label with a unit: "Total time (min)".

        Args:
            unit: the unit that the axis has. None: the unit of the value.
        """
        shown = self.unit if unit is None else unit
        return self.label if shown in ("text", "names", "count", "") else f"{self.label} ({shown})"

    def format(self, value: Any) -> str:
        """Return a value as text for people: "20.6 min", "1.5 TiB", "12.3 %", "none" for null."""
        if value is None:
            return "none"
        if self.unit == "names":
            return join_words(list(value)) or "none"
        if self.unit == "text":
            return str(value)
        if self.unit in ("s", "ms"):
            return format_duration(value / 1e3 if self.unit == "ms" else value)
        if self.unit == "vCPU s":
            return f"{format_duration(value)} of vCPU time"
        if self.unit == "bytes":
            return format_bytes(value)
        if self.unit in ("%", "Gbit/s"):
            return f"{format_number(value)} {self.unit}"
        return f"{value:,}" if isinstance(value, int) else format_number(value)


# A table reads best with a line or two for each row.
# fmt: off
_RUN: Sequence[SummaryField] = (
    SummaryField("status", "text", "Status", "How the run ended: ok, failed or incomplete."),
    SummaryField("verdict", "text", "Verdict",
        "How the migration ended. Null if the run has no verdict."),
    SummaryField("reason", "text", "Reason", "The reason of the verdict, as a sentence."),
    SummaryField("reason_code", "text", "Reason code",
        "The reason of the verdict as a stable code, such as throttle_at_maximum."),
    SummaryField("total_time_s", "s", "Total time",
        "Time from the migrate command until the migration completed or was stopped."),
    SummaryField("downtime_ms", "ms", "Downtime",
        "Time for which QEMU stopped the VM. Null if QEMU never did."),
    SummaryField("first_pass_s", "s", "First pass",
        "Time until every page was sent once: at the sync that follows, or when the sender began "
        "again at the first page. Null if that never happened."),
    SummaryField("dirty_sync_count", "count", "Syncs reported",
        "dirty-sync-count as QEMU reports it. Up to QEMU 11.0 it equals bitmap_sync_count. Since "
        "11.1 it is 1 plus the main loop's own syncs, without fallback syncs and the final sync."),
    SummaryField("bitmap_sync_count", "count", "Syncs",
        "Number of dirty bitmap syncs that QEMU made, which are the rows of syncs.csv."),
    SummaryField("fallback_sync_count", "count", "Fallback syncs",
        "Number of syncs that the fallback timer triggered."),
    SummaryField("first_throttle_s", "s", "First throttle",
        "Time at which the throttle first slowed the guest. Null if it never did."),
    SummaryField("max_throttle_percent", "%", "Highest throttle", "The highest throttle reached."),
    SummaryField("time_at_max_throttle_s", "s", "Time at the highest throttle",
        "Time for which the throttle was at its highest value."),
    SummaryField("longest_vcpu_stall_ms", "ms", "Longest vCPU sleep",
        "The longest single sleep of a vCPU under the throttle."),
    SummaryField("transferred_bytes", "bytes", "Sent", "Bytes sent over the link."),
    SummaryField("bottleneck", "text", "Bottleneck",
        "What set the sending rate for most of the sending time, such as one sending thread. Null "
        "if nothing was sent, or if link.recorded gives the rate."),
    SummaryField("bottleneck_code", "text", "Bottleneck code",
        "The bottleneck as a stable code: link, page_cost, queue_cost, zero_page_scan, "
        "remote_clear or max_bandwidth."),
    SummaryField("bottleneck_change", "text", "Change for more of the link",
        "Settings that let the sender use more of the link. Null if the link is the bottleneck, or "
        "if no setting of QEMU changes it."),
    SummaryField("sending_gbit_per_s", "Gbit/s", "Rate while sending",
        "Mean rate over the sending time. The time of syncs and the time without pages to send are "
        "not part of it. The sleep of QEMU's rate limit is."),
    SummaryField("link_gbit_per_s", "Gbit/s", "Link while sending",
        "Mean bandwidth of the link over the sending time. Null if it is unlimited."),
    SummaryField("normal_pages", "pages", "Pages sent as data", "Pages sent with their content."),
    SummaryField("zero_pages", "pages", "Zero pages sent", "Pages sent as a zero marker."),
    SummaryField("resent_pages", "pages", "Pages sent again",
        "Sends of pages beyond each page's first send."),
    SummaryField("remote_clears", "count", "Chunks cleared",
        "Chunks whose dirty log KVM cleared before QEMU sent them, under lazy tracking."),
    SummaryField("remote_clear_s", "s", "Time clearing chunks",
        "Time that the sending thread spent clearing the dirty log of chunks."),
    SummaryField("guest_cpu_lost_s", "vCPU s", "Guest CPU time lost",
        "vCPU time that the throttle took from vCPUs that throttled writers keep busy, and after a "
        "switch to post-copy the waits for missing pages. Without the downtime."),
    SummaryField("guest_cpu_lost_percent", "%", "Guest CPU lost",
        "guest_cpu_lost_s as a share of all vCPUs over the total time without skipped_s."),
    SummaryField("write_faults", "count", "First writes",
        "Expected number of first writes to pages after KVM protected them (under TCG: "
        "trapped).", _MILLION),
    SummaryField("guest_fault_s", "vCPU s", "Time in first writes",
        "vCPU time of the first writes, at tracking.first_write_cost_ns each, and of vCPUs that wait "
        "for each other in them. It is not part of guest_cpu_lost_s."),
    SummaryField("guest_big_lock_s", "vCPU s", "Time blocked by the big lock",
        "vCPU time blocked because a sync or the thread that empties dirty rings held the big "
        "lock, with vm.big_lock_exits_per_s. This time does not slow the writers."),
    SummaryField("paused_s", "s", "Paused",
        "Time for which a schedule or a manager paused the VM, without the downtime."),
    SummaryField("skipped_s", "s", "Not simulated",
        "Time in which the migration stalled and waited for a schedule or a manager, with "
        "limit.skip_waiting. total_time_s counts it. transferred_bytes, the counts and the guest's "
        "losses leave it out."),
    SummaryField("postcopy_start_s", "s", "Switch to post-copy",
        "Time at which the VM stopped for the switch to post-copy. Null, as all post-copy values, if "
        "there was no switch."),
    SummaryField("postcopy_time_s", "s", "Time in post-copy",
        "Time from the switch until the last page had arrived. The guest runs at the target."),
    SummaryField("postcopy_blackout_ms", "ms", "Blackout of the switch",
        "Time for which the guest stood still at the switch: downtime_ms, and the time to load the "
        "devices at the target."),
    SummaryField("postcopy_bytes", "bytes", "Sent in post-copy",
        "Memory that was missing at the target at the switch, with postcopy_added_pages."),
    SummaryField("postcopy_discarded_runs", "count", "Runs dropped",
        "Runs of dirty pages that the target dropped before the switch, which is downtime."),
    SummaryField("postcopy_requests", "count", "Requests",
        "Pages that the guest asked for. The others came in the background."),
    SummaryField("postcopy_latency_ms", "ms", "Latency of requests",
        "Mean time of a request. Null if there was none."),
    SummaryField("postcopy_vcpu_blocktime_ms", "ms", "Blocked per vCPU",
        "Time for which a vCPU was blocked, as the mean of QEMU's postcopy-vcpu-blocktime."),
    SummaryField("postcopy_blocktime_ms", "ms", "All vCPUs blocked",
        "Time for which all vCPUs were blocked at once, QEMU's postcopy-blocktime."),
    SummaryField("postcopy_stall_vcpu_s", "vCPU s", "Time lost to missing pages",
        "vCPU time of work that the guest did not do because pages were missing. It is part of "
        "guest_cpu_lost_s."),
    SummaryField("postcopy_recovery_s", "s", "Time to recover",
        "Time from the guest's start at the target until it ran at postcopy.recovered_percent of its "
        "speed for good."),
    SummaryField("postcopy_added_pages", "pages", "Clean pages sent along",
        "Clean pages that post-copy sends because it sends whole host pages."),
    SummaryField("attempt", "count", "Attempt",
        "Number of the migration in its QEMU process. It is 1 unless attempts are configured."),
    SummaryField("sync_stall_s", "s", "Sender stalled by syncs",
        "Time that the sending thread waited for syncs or for a lock that they held, without the last "
        "sync, which is downtime."),
    SummaryField("main_loop_stall_s", "s", "Main loop stalled",
        "Time that syncs held the big lock, and with dirty rings the thread that empties them. QEMU's "
        "main loop waited."),
    SummaryField("longest_main_loop_stall_ms", "ms", "Longest main loop stall",
        "The longest single hold of the big lock, for which QEMU's main loop waited."),
    SummaryField("remaining_bytes", "bytes", "Left to send",
        "Memory that was still dirty at the end."),
    SummaryField("vm_bytes", "bytes", "VM memory", "RAM of the VM."),
    SummaryField("qemu_version", "text", "QEMU version", "The QEMU version that was simulated."),
    SummaryField("policies", "text", "Policies",
        "The user's rules and manager, which replace the version's. Empty if there are none."),
    SummaryField("tracking", "text", "Dirty tracking", "How KVM or TCG tracked dirty pages."),
    SummaryField("backend", "text", "Backend", "The backend that held the dirty bitmaps."),
    SummaryField("backend_reason", "text", "Backend reason", "Why this backend was used."),
    SummaryField("seed", "count", "Seed", "The seed of the random numbers."),
    SummaryField("simulated_looks", "count", "Bitmap updates",
        "Number of times that gpusim brought the dirty bitmaps up to date."),
    SummaryField("wall_time_s", "s", "Wall time", "Real time that the run took."),
    SummaryField("bitmap_bytes", "bytes", "Bitmap memory", "Memory of the bitmaps."),
    SummaryField("process_peak_rss_bytes", "bytes", "Peak process memory",
        "Highest resident memory of the process so far. In a sweep, earlier runs count too."),
    SummaryField("gpusim_version", "text", "gpusim version", "The version of gpusim."),
    SummaryField("run_hash", "text", "Run hash",
        "Hash of the config, the version and the source. Runs with the same hash have the same "
        "results."),
)

RUN_FIELDS = {field.key: field for field in _RUN}


def _of_evacuation(key: str, meaning: str) -> SummaryField:
    return replace(RUN_FIELDS[key], meaning=meaning)


_EVACUATION: Sequence[SummaryField] = (
    SummaryField("kind", "text", "Kind", 'Always "evacuation".'),
    RUN_FIELDS["status"],
    _of_evacuation("verdict",
        "converged if every guest left the host, else not_converged, cancelled or time_limit. "
        "Null if the run has no verdict."),
    RUN_FIELDS["reason"],
    RUN_FIELDS["reason_code"],
    _of_evacuation("total_time_s", "Time until the last guest left the host or was given up."),
    _of_evacuation("downtime_ms", "The longest downtime of any guest. Null if no guest stopped."),
    _of_evacuation("dirty_sync_count", "Sum of the dirty-sync-count of all guests."),
    _of_evacuation("bitmap_sync_count", "Number of dirty bitmap syncs of all guests."),
    _of_evacuation("fallback_sync_count", "Number of fallback syncs of all guests."),
    _of_evacuation("max_throttle_percent", "The highest throttle of any guest."),
    _of_evacuation("longest_vcpu_stall_ms", "The longest single sleep of any vCPU."),
    _of_evacuation("transferred_bytes", "Bytes that all guests sent over the link."),
    _of_evacuation("bottleneck", "What set the sending rate of the guests for most of their time."),
    *(RUN_FIELDS[key] for key in ("bottleneck_code", "bottleneck_change")),
    _of_evacuation("sending_gbit_per_s",
        "Mean rate of all guests together over their sending time."),
    _of_evacuation("link_gbit_per_s",
        "Mean bandwidth of the whole link. Null if it is unlimited."),
    SummaryField("link_used_percent", "%", "Link used",
        "Bytes of pages, with their headers, as a share of what the link could carry. "
        "Null if the link is unlimited."),
    _of_evacuation("guest_cpu_lost_s", "vCPU time that all guests lost to the throttle, and in post-copy to missing pages."),
    _of_evacuation("guest_cpu_lost_percent",
        "guest_cpu_lost_s as a share of the vCPUs of all guests over the whole evacuation, "
        "guests that wait included."),
    _of_evacuation("write_faults", "Expected number of first writes of all guests."),
    _of_evacuation("guest_fault_s", "vCPU time of the first writes of all guests."),
    _of_evacuation("vm_bytes", "RAM of all guests."),
    SummaryField("guests", "count", "Guests", "Number of guests on the host."),
    SummaryField("left_behind", "names", "Left behind",
        "Names of the guests that did not leave the host."),
    SummaryField("at_a_time", "count", "Guests at a time",
        "Number of guests that migrate at the same time."),
    SummaryField("order", "text", "Order", "The order in which guests start."),
    *(
        RUN_FIELDS[key]
        for key in ("qemu_version", "policies", "tracking", "backend", "backend_reason", "seed")
    ),
    SummaryField("simulated_runs", "count", "Simulated runs",
        "Number of migrations that gpusim simulated to find the order in which they end."),
    RUN_FIELDS["wall_time_s"],
    _of_evacuation("bitmap_bytes", "The largest bitmap memory of any guest."),
    *(RUN_FIELDS[key] for key in ("gpusim_version", "run_hash")),
)

EVACUATION_FIELDS = {field.key: field for field in _EVACUATION}

FAILURE_FIELDS = {
    field.key: field
    for field in (
        RUN_FIELDS["status"],
        SummaryField("error", "text", "Error", "Type and message of the error."),
        SummaryField("error_code", "text", "Error code", "Stable name of a wrong value in the config. null: another error."),
        SummaryField("traceback", "text", "Traceback", "The Python traceback of the error."),
        RUN_FIELDS["gpusim_version"],
    )
}

SUMMARY_FIELDS = FAILURE_FIELDS | EVACUATION_FIELDS | RUN_FIELDS

REPORT_KEYS = (
    "total_time_s", "skipped_s", "downtime_ms", "paused_s", "first_pass_s", "bitmap_sync_count",
    "dirty_sync_count", "max_throttle_percent", "guest_cpu_lost_percent", "write_faults", "longest_vcpu_stall_ms",
    "sync_stall_s", "main_loop_stall_s", "transferred_bytes", "sending_gbit_per_s",
    "remaining_bytes", "postcopy_start_s", "postcopy_blackout_ms", "postcopy_recovery_s",
    "postcopy_stall_vcpu_s", "postcopy_requests", "postcopy_latency_ms", "postcopy_blocktime_ms",
    "postcopy_bytes", "postcopy_discarded_runs",
)
STATISTICS_KEYS = (
    "total_time_s", "downtime_ms", "guest_cpu_lost_s", "guest_cpu_lost_percent", "write_faults",
    "guest_fault_s", "max_throttle_percent", "bitmap_sync_count", "dirty_sync_count",
    "transferred_bytes",
)
RUNS_TABLE_KEYS = (
    "total_time_s", "downtime_ms", "paused_s", "guest_cpu_lost_percent", "guest_cpu_lost_s",
    "write_faults", "guest_fault_s", "max_throttle_percent", "bitmap_sync_count",
    "dirty_sync_count", "transferred_bytes", "sending_gbit_per_s", "remaining_bytes",
    "postcopy_start_s", "postcopy_time_s", "postcopy_blackout_ms", "postcopy_recovery_s",
    "postcopy_stall_vcpu_s", "postcopy_requests", "postcopy_latency_ms",
)
GUEST_KEYS = (
    "total_time_s", "downtime_ms", "max_throttle_percent", "guest_cpu_lost_s",
    "guest_cpu_lost_percent", "write_faults", "guest_fault_s", "transferred_bytes",
    "bitmap_sync_count", "dirty_sync_count", "verdict",
)
# Also of each guest, if one of them switched to post-copy.
GUEST_POSTCOPY_KEYS = (
    "postcopy_start_s", "postcopy_blackout_ms", "postcopy_recovery_s", "postcopy_stall_vcpu_s",
    "postcopy_requests", "postcopy_latency_ms",
)
# These depend on the machine and the installation. A comparison of two sweeps ignores them.
MACHINE_KEYS = (
    "wall_time_s", "process_peak_rss_bytes", "bitmap_bytes", "simulated_looks", "backend",
    "backend_reason", "gpusim_version", "run_hash", "traceback",
)
# fmt: on
NUMBER_KEYS = tuple(key for key, field in RUN_FIELDS.items() if field.is_number and key != "seed")
# These are null in each run without a switch. Tables of many runs have them if some run switched.
POSTCOPY_KEYS = tuple(key for key in NUMBER_KEYS if key.startswith("postcopy_"))

# Where a field is shown, beside the summary.json that holds it.
PLACES = {
    "report.html": REPORT_KEYS,
    "runs.csv": (*NUMBER_KEYS, "status", "verdict", "reason", "bottleneck_code", "error"),
    "statistics.csv": STATISTICS_KEYS,
    "index.html": (*RUNS_TABLE_KEYS, "bottleneck"),
    "evacuation.csv": (*GUEST_KEYS, *GUEST_POSTCOPY_KEYS),
}


def join_labels(keys: Sequence[str]) -> str:
    """Return the labels of fields in one phrase: "Total time and guest CPU lost"."""
    first, *others = (SUMMARY_FIELDS[key].label for key in keys)
    return join_words([first, *(label[:1].lower() + label[1:] for label in others)])


def places(key: str) -> list[str]:
    """Return the files that show a field."""
    return [place for place, keys in PLACES.items() if key in keys]
