"""What happened in one migration, in at most ten sentences for a reader who does not know QEMU.

Owns the wording, and which numbers of the records are worth telling; it decides nothing and knows no
HTML. Rules it explains by what the records say of them, in QEMU's own terms where there are any.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from gpusim.engine.records import Result, Summary, SyncRecord
from gpusim.results.settings import Settings, at_the_end, setting
from gpusim.results.turning_points import rises
from gpusim.text import (
    count_noun,
    decider_name,
    format_duration,
    format_moment,
    format_number,
    rate_unit,
)
from gpusim.units import format_bytes

MOST_DONE = 6  # things done to it that are told one by one
FEW_PASSES = 6  # up to which each one's end is told
PAGE_BYTES = 4096  # where no config says otherwise
QEMUS_TRIGGER_PERCENT = 50  # migration/options.c: throttle_trigger_threshold


def story(result: Result, config: Settings | None = None) -> list[str]:
    """The sentences, in the order in which things happened.

    Args:
        result: the migration.
        config: what was simulated, as nested dicts; None: what it says is left out.
    """
    trigger = setting(config, "migration.throttle_trigger_threshold", QEMUS_TRIGGER_PERCENT)
    lines = [
        _beginning(result, config),
        _first_pass(result, config),
        _later_passes(result),
        _first_rise(result, trigger, config),
        _later_rises(result, config),
        _fallback_syncs(result, config),
        _management(result),
        _guest(result.summary),
        _wire(result.summary),
        *_ending(result, config),
    ]
    return [line for line in lines if line]


def facts(summary: Summary) -> list[str]:
    """Return the main numbers of a run as short phrases, for a picture and its description."""
    found = [f"attempt {summary.attempt}"] if summary.attempt > 1 else []
    if summary.downtime_ms is not None:
        found.append(f"downtime {format_duration(summary.downtime_ms / 1e3)}")
    if summary.paused_s:
        found.append(f"paused for {format_duration(summary.paused_s)}")
    if summary.max_throttle_percent:
        duration = format_duration(summary.time_at_max_throttle_s)
        found.append(f"throttle up to {summary.max_throttle_percent} % (for {duration})")
        found.append(f"guest CPU lost {format_number(summary.guest_cpu_lost_percent)} %")
    else:
        found.append("never throttled")
    syncs = count_noun(summary.dirty_sync_count, "sync")
    if summary.fallback_sync_count:
        syncs += f", {summary.fallback_sync_count} from the fallback timer"
    return [*found, syncs]


def _beginning(result: Result, config: Settings | None) -> str:
    summary = result.summary
    before = ""
    if result.before:
        ends = ", ".join(attempt.result.summary.reason for attempt in result.before)
        before = f"This is attempt {summary.attempt} in one QEMU process; before it: {ends}. "
    link = setting(config, "link.bandwidth", "unlimited")
    limit = setting(config, "migration.max_bandwidth", 0)
    wire = "" if link == "unlimited" else f" over a link of {rate(link)}"
    channels = setting(config, "migration.multifd_channels", 0)
    wire += f" through {channels} multifd channel{'s' * (channels > 1)}" if channels else ""
    wire += "" if limit in (0, "unlimited") else f" at no more than {rate(limit)}"
    return (
        f"{before}{decider_name(summary.qemu_version, summary.policies)} migrates a running VM of {format_bytes(summary.vm_bytes)}"
        f"{wire}. It sends all memory once while the guest goes on writing, then what was written "
        f"meanwhile, pass after pass; in a sync it asks which pages those are."
    )


def rate(value: Any) -> str:
    """A rate as it was set, or with a unit where it was set without one."""
    if not isinstance(value, int | float):
        return str(value)
    unit, unit_rate = rate_unit(value)
    return f"{format_number(value / unit_rate)} {unit}"


def _first_pass(result: Result, config: Settings | None) -> str:
    if len(result.syncs) < 2 or result.summary.first_pass_s is None:
        return f"The first pass had not ended after {format_duration(result.summary.total_time_s)}."
    first = result.syncs[1]
    dirtied = format_bytes(first.newly_dirty_pages * setting(config, "vm.page_size", PAGE_BYTES))
    return (
        f"The first pass took {format_duration(result.summary.first_pass_s)}; the sync at its end "
        f"found {dirtied} written again, and {format_bytes(first.remaining_bytes)} left to send."
    )


def _later_passes(result: Result) -> str:
    ends_s = result.pass_ends_s
    if len(ends_s) < 2:
        return ""
    times = [format_moment(end_s, result.summary.total_time_s) for end_s in ends_s]
    if len(ends_s) <= FEW_PASSES:
        ended = f"Pass 2 ended at {times[1]}"
        if len(ends_s) > 2:
            ended = f"Passes 2 to {len(ends_s)} ended at {_listed(times[1:])}"
        return f"{ended}; in pass {len(ends_s) + 1} the run ended."
    lengths_s = [end_s - start_s for start_s, end_s in pairwise(ends_s)]
    return (
        f"Passes 2 to {len(ends_s)} ended between {times[1]} and {times[-1]}, "
        f"the shortest after {format_duration(min(lengths_s))}, the longest after "
        f"{format_duration(max(lengths_s))}; in pass {len(ends_s) + 1} the run ended."
    )


def _listed(items: Sequence[str]) -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def _first_rise(result: Result, trigger: int, config: Settings | None) -> str:
    raised = rises(result)
    if not raised:
        if setting(config, "migration.auto_converge", True) is False:
            return "The guest was never slowed down: auto-converge is off."
        if rule := setting(config, "migration.throttle_rule"):
            return f"The guest was never slowed down: the rule {rule['target']} saw no reason."
        return (
            f"The guest was never slowed down: no two periods between syncs dirtied more than "
            f"{trigger} % of what they sent, QEMU's throttle_trigger_threshold."
        )
    first, second = raised[0]
    periods = [_period(sync) for sync in (first, second) if sync is not None and sync.period_ms]
    at = format_moment(second.time_s, result.summary.total_time_s)
    if rule := setting(config, "migration.throttle_rule"):
        return (
            f"At {at} the rule {rule['target']}, in the place of QEMU's, began to slow the guest down, by "
            f"a throttle of {second.cpu_throttle_percentage} %."
        )
    return (
        f"At {at} QEMU began to slow the guest down, by a throttle of "
        f"{second.cpu_throttle_percentage} %: for the second time a period had dirtied more than "
        f"{trigger} % of what it sent, QEMU's throttle_trigger_threshold ({'; '.join(periods)})."
    )


def _period(sync: SyncRecord) -> str:
    dirty, sent = sync.bytes_dirty_period or 0, sync.bytes_xfer_period or 0
    share = f", {format_number(100 * dirty / sent)} %" if sent else ""
    seconds = format_duration((sync.period_ms or 0) / 1e3)
    return f"{format_bytes(dirty)} dirtied, {format_bytes(sent)} sent in {seconds}{share}"


def _later_rises(result: Result, config: Settings | None) -> str:
    raised = rises(result)
    if len(raised) < 2:
        return ""
    last = raised[-1][1]
    at = format_moment(last.time_s, result.summary.total_time_s)
    again = "once more" if len(raised) == 2 else f"{len(raised) - 1} more times"
    own_rule = setting(config, "migration.throttle_rule")
    reason = "" if own_rule else ", each time for two such periods"
    return (
        f"The same happened {again}{reason}: the last step, at {at}, "
        f"took the throttle to {last.cpu_throttle_percentage} %, where it stayed for "
        f"{format_duration(result.summary.time_at_max_throttle_s)}."
    )


def _fallback_syncs(result: Result, config: Settings | None) -> str:
    forced = [sync for sync in result.syncs if sync.kind == "fallback"]
    if not forced:
        return _no_fallback_sync(config)
    total_s = result.summary.total_time_s
    raised = rises(result)
    theirs = sum(sync.kind == "fallback" for _, sync in raised)
    alone = all(s is None or s.kind == "fallback" for rise in raised for s in rise)
    if len(forced) == 1:
        when = f"at {format_moment(forced[0].time_s, total_s)}"
    else:
        first, last = (format_moment(forced[end].time_s, total_s) for end in (0, -1))
        when = f"between {first} and {last}"
    if not theirs:
        led_to = "none changed the throttle"
    elif theirs == len(raised):
        steps = "step" if theirs == 1 else f"{theirs} steps"
        led_to = f"the throttle's {steps} came {'of them alone' if alone else 'at them'}"
    else:
        led_to = f"{theirs} of the throttle's {len(raised)} steps came at them"
    return (
        f"{len(forced)} of the {len(result.syncs)} syncs {'was' if len(forced) == 1 else 'were'} added by the fallback timer, {when}, "
        f"where no other had come for a while; {led_to}."
    )


def _no_fallback_sync(config: Settings | None) -> str:
    timer = "which QEMU has since 9.2 and which looks where no other sync has come for a while"
    if setting(config, "migration.fallback_sync_interval") == "never":
        return f"The fallback timer, {timer}, was switched off."
    return f"No sync was added by the fallback timer, {timer}."


def _management(result: Result) -> str:
    """What was done to it while it ran."""
    total_s = result.summary.total_time_s
    done = []
    for event in result.events:
        at, said = format_moment(event.time_s, total_s), event.arguments
        if event.event == "qmp_enter_migrate_set_parameters":
            done.append(f"at {at} {', '.join(f'{key} was set to {said[key]}' for key in said)}")
        elif event.event == "vm_state_notify":
            done.append(f"at {at} the VM was {'resumed' if said['running'] else 'paused'}")
        elif event.event == "qmp_enter_migrate_cancel":
            done.append(f"at {at} it was cancelled")
    if not done:
        return ""
    told = done if len(done) <= MOST_DONE else [*done[: MOST_DONE - 2], "and so on", done[-1]]
    return f"{'; '.join(told)}."[:1].upper() + f"{'; '.join(told)}."[1:]


def _guest(summary: Summary) -> str:
    faults = ""
    if summary.guest_fault_s:
        faults = (
            f"First writes to {summary.write_faults:,} protected pages took it "
            f"{format_number(summary.guest_fault_s)} vCPU seconds."
        )
    if not summary.max_throttle_percent:
        lost_none = "So the guest lost no CPU time before it was stopped."
        return faults or (lost_none if summary.downtime_ms else "")
    throttled = (
        f"Under the throttle the guest lost {format_number(summary.guest_cpu_lost_percent)} % of its "
        f"CPU time ({format_number(summary.guest_cpu_lost_s)} vCPU seconds); the longest time that a "
        f"vCPU slept was {format_duration(summary.longest_vcpu_stall_ms / 1e3)}."
    )
    return f"{throttled} {faults}".strip()


def _wire(summary: Summary) -> str:
    times = summary.transferred_bytes / summary.vm_bytes
    zero = f", {summary.zero_pages:,} pages as zero" if summary.zero_pages else ""
    return (
        f"{format_bytes(summary.transferred_bytes)} went over the wire, {format_number(times)} times "
        f"the size of the VM: {summary.normal_pages:,} pages with content{zero}; "
        f"{summary.resent_pages:,} of them had been sent before."
    )


def _ending(result: Result, config: Settings | None) -> list[str]:
    summary = result.summary
    if summary.verdict != "converged":
        stopped = summary.verdict in (None, "cancelled", "aborted")
        ended = "Then it was stopped" if stopped else "It did not get there"
        return [f"{ended}: {summary.reason.rstrip('.; ')}."]
    last = next((s for s in reversed(result.syncs) if s.kind != "final"), None)
    limit_ms = at_the_end(result.events, config, "downtime_limit")
    allowed = "the downtime limit" if limit_ms is None else f"the downtime limit of {limit_ms} ms"
    fits = ""
    if last is not None and last.threshold_bytes:
        fits = (
            f" ({format_bytes(last.threshold_bytes)} at the {rate(last.bandwidth_bytes_per_s)} "
            f"of the last window)"
        )
    downtime = ""
    if summary.downtime_ms is not None:
        downtime = f", which took {format_duration(summary.downtime_ms / 1e3)}"
        if setting(config, "link.bandwidth") == "unlimited":
            downtime += ", as the rest goes by no rate limit and the link is unlimited"
    return [
        f"It ended at {format_moment(summary.total_time_s, summary.total_time_s)}, as less was left "
        f"than fits {allowed}{fits}: QEMU stopped the VM and sent the rest{downtime}."
    ]
