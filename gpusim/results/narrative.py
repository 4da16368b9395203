"""One migration in at most ten short paragraphs, for a reader who does not know QEMU.

`find_steps` selects the facts from the records, as codes and data. `narrate` turns them into text.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

from gpusim.config.link import AUTO, default_non_ram_downtime_ms
from gpusim.config.schema import VmConfig
from gpusim.engine.records import Result, Summary
from gpusim.policies.names import decider_name
from gpusim.results.settings import Settings, final_setting, setting
from gpusim.results.turning_points import has_recovered, lost_links, pass_borders, rises
from gpusim.text import (
    Message,
    capitalized,
    count_noun,
    format_duration,
    format_moment,
    format_number,
    join_words,
    rate_unit,
)
from gpusim.units import format_bytes

MOST_ACTIONS = 6
FEW_PASSES = 6  # With more passes, the text has only the shortest and the longest.
PAGE_BYTES = 4096  # if there is no config
QEMU_TRIGGER_PERCENT = 50  # migration/options.c: throttle_trigger_threshold
SET_PARAMETERS, CANCEL = "qmp_enter_migrate_set_parameters", "qmp_enter_migrate_cancel"
START_POSTCOPY = "qmp_enter_migrate_start_postcopy"
ACTIONS = (SET_PARAMETERS, "vm_state_notify", CANCEL)


def narrate(result: Result, config: Settings | None = None) -> list[str]:
    """Return the paragraphs, in the order in which things happened.

    Args:
        result: the migration.
        config: what was simulated, as nested dicts. None: unknown, and not in the text.
    """
    return [_TEXTS[step.code](step.data) for step in find_steps(result, config)]


def facts(summary: Summary) -> list[str]:
    """Return the main numbers of a run as short phrases, for a picture and its description."""
    found = [f"attempt {summary.attempt}"] if summary.attempt > 1 else []
    if summary.downtime_ms is not None:
        found.append(f"downtime {format_duration(summary.downtime_ms / 1e3)}")
    if summary.postcopy_start_s is not None:
        blackout_s = (summary.postcopy_blackout_ms or 0.0) / 1e3
        found.append(f"guest at the target after {format_duration(blackout_s)}")
        if not has_recovered(summary):
            found.append("not recovered")
        elif summary.postcopy_recovery_s:
            found.append(f"recovered in {format_duration(summary.postcopy_recovery_s)}")
    if summary.paused_s:
        found.append(f"paused for {format_duration(summary.paused_s)}")
    if summary.max_throttle_percent:
        duration = format_duration(summary.time_at_max_throttle_s)
        found.append(f"throttle up to {summary.max_throttle_percent} % (for {duration})")
    if summary.max_throttle_percent or summary.postcopy_stall_vcpu_s:
        found.append(f"guest CPU lost {format_number(summary.guest_cpu_lost_percent)} %")
    if not summary.max_throttle_percent:
        found.append("never throttled")
    if summary.skipped_s:
        found.append(f"{format_duration(summary.skipped_s)} not simulated")
    syncs = count_noun(summary.bitmap_sync_count, "sync")
    if summary.fallback_sync_count:
        syncs += f", {summary.fallback_sync_count} from the fallback timer"
    if summary.dirty_sync_count != summary.bitmap_sync_count:
        syncs += f", {summary.dirty_sync_count} reported"
    return [*found, syncs]


def find_steps(result: Result, config: Settings | None = None) -> list[Message]:
    """Return what is worth telling about a migration, in the order of the text.

    Args:
        result: the migration.
        config: as for `narrate`.
    """
    summary = result.summary
    steps = [_start(result, config), _first_pass(result, config)]
    ends_s = pass_borders(result)[1:-1]
    if len(ends_s) > 1:
        data = {
            "ends_s": ends_s,
            "total_time_s": summary.total_time_s,
            "switched": summary.postcopy_start_s is not None,
        }
        steps.append(Message("later_passes", data))
    steps += _throttle(result, config)
    steps.append(_fallback_syncs(result, config))
    if summary.skipped_s:
        steps.append(Message("skipped", {"skipped_s": summary.skipped_s}))
    if actions := [event for event in result.events if event.event in ACTIONS]:
        steps.append(Message("actions", {"events": actions, "total_time_s": summary.total_time_s}))
    if summary.max_throttle_percent or summary.guest_fault_s or summary.downtime_ms:
        steps.append(Message("guest", {"summary": summary}))
    steps.append(Message("sent", {"summary": summary}))
    if summary.postcopy_start_s is None:
        return [*steps, _end(result, config)]
    steps[-1:-1] = _postcopy(result, config)
    if summary.verdict != "converged":
        steps.append(_end(result, config))
    return steps


def _start(result: Result, config: Settings | None) -> Message:
    summary = result.summary
    return Message(
        "start",
        {
            "attempt": summary.attempt,
            "earlier_reasons": [attempt.result.summary.reason for attempt in result.before],
            "decider": decider_name(summary.qemu_version, summary.policies),
            "vm_bytes": summary.vm_bytes,
            "link": setting(config, "link.bandwidth", "unlimited"),
            "max_bandwidth": setting(config, "migration.max_bandwidth", 0),
            "multifd_channels": setting(config, "migration.multifd_channels", 0),
        },
    )


def _first_pass(result: Result, config: Settings | None) -> Message:
    if len(result.syncs) < 2 or result.summary.first_pass_s is None:
        data: dict[str, Any] = {
            "total_time_s": result.summary.total_time_s,
            "switched_s": result.summary.postcopy_start_s,
        }
        return Message("first_pass_not_ended", data)
    ended_s = result.summary.first_pass_s
    first = next((s for s in result.syncs[1:] if s.time_s >= ended_s), result.syncs[-1])
    page_bytes = setting(config, "vm.page_size", PAGE_BYTES)
    data = {
        "first_pass_s": result.summary.first_pass_s,
        "newly_dirty_bytes": first.newly_dirty_pages * page_bytes,
        "remaining_bytes": first.remaining_bytes,
    }
    return Message("first_pass", data)


def _throttle(result: Result, config: Settings | None) -> list[Message]:
    raised = rises(result)
    rule = (setting(config, "migration.throttle_rule") or {}).get("target")
    trigger = setting(config, "migration.throttle_trigger_threshold", QEMU_TRIGGER_PERCENT)
    if not raised:
        if setting(config, "migration.auto_converge", True) is False:
            return [Message("auto_converge_off")]
        if rule:
            return [Message("rule_never_throttled", {"rule": rule})]
        return [Message("never_throttled", {"trigger_percent": trigger})]
    total_s = result.summary.total_time_s
    first, second = raised[0]
    data: dict[str, Any] = {
        "time_s": second.time_s,
        "total_time_s": total_s,
        "percent": second.cpu_throttle_percentage,
        "rule": rule,
        "trigger_percent": trigger,
        "periods": [sync for sync in (first, second) if sync is not None and sync.period_ms],
    }
    steps = [Message("throttle_start", data)]
    if len(raised) > 1:
        last = raised[-1][1]
        data = {
            "increases": len(raised) - 1,
            "time_s": last.time_s,
            "total_time_s": total_s,
            "percent": last.cpu_throttle_percentage,
            "duration_s": result.summary.time_at_max_throttle_s,
            "rule": rule,
        }
        steps.append(Message("throttle_increases", data))
    return steps


def _fallback_syncs(result: Result, config: Settings | None) -> Message:
    times_s = [sync.time_s for sync in result.syncs if sync.kind == "fallback"]
    if not times_s:
        is_off = setting(config, "migration.fallback_sync_interval") == "never"
        return Message("fallback_timer_off" if is_off else "no_fallback_sync")
    raised = rises(result)
    kinds = [[sync and sync.kind for sync in rise] for rise in raised]
    data = {
        "times_s": times_s,
        "total_time_s": result.summary.total_time_s,
        "syncs": len(result.syncs),
        "increases": len(raised),
        "increases_at_fallback_syncs": sum(last == "fallback" for _, last in kinds),
        # Both periods that led to an increase ended at a fallback sync.
        "only_fallback_syncs": all({*kind} <= {"fallback", None} for kind in kinds),
    }
    return Message("fallback_syncs", data)


def _postcopy(result: Result, config: Settings | None) -> list[Message]:
    """Return the switch to post-copy, and what followed."""
    ordered = [event.time_s for event in result.events if event.event == START_POSTCOPY]
    data = {
        "summary": result.summary,
        "lost_links_s": lost_links(result),
        "ordered_s": ordered[0] if ordered else None,
        "start": setting(config, "migration.start_postcopy", "never"),
        "preempt": setting(config, "migration.postcopy_preempt", False),
        "recovered_percent": setting(config, "postcopy.recovered_percent"),
    }
    return [Message("switch", data), Message("postcopy", data)]


def _end(result: Result, config: Settings | None) -> Message:
    summary = result.summary
    if summary.verdict != "converged":
        stopped = summary.verdict in (None, "cancelled", "aborted")
        return Message("stopped" if stopped else "no_success", {"reason": summary.reason})
    last = next((sync for sync in reversed(result.syncs) if sync.kind != "final"), None)
    data = {
        "total_time_s": summary.total_time_s,
        "downtime_limit_ms": final_setting(result.events, config, "downtime_limit"),
        "threshold_bytes": last.threshold_bytes if last else 0,
        "bandwidth_bytes_per_s": last.bandwidth_bytes_per_s if last else 0.0,
        "downtime_ms": summary.downtime_ms,
        "non_ram_downtime_ms": _non_ram_downtime_ms(config),
        "unlimited_link": setting(config, "link.bandwidth") == "unlimited",
    }
    return Message("converged", data)


def _non_ram_downtime_ms(config: Settings | None) -> float:
    """Return the downtime for all but RAM that was simulated. 0 if it is unknown."""
    stated = setting(config, "link.non_ram_downtime_ms", 0.0)
    if stated != AUTO:
        return float(stated)
    vcpus, devices = setting(config, "vm.vcpus", 1), setting(config, "vm.vfio_devices", 0)
    return default_non_ram_downtime_ms(VmConfig(vcpus=vcpus, vfio_devices=devices))


_Data = Mapping[str, Any]
_TIMER = "QEMU has this timer since 9.2. It triggers a sync if no other sync happens for a while."


def _rate(value: Any) -> str:
    """Return a rate as the user typed it, or with a unit if it is a number."""
    if not isinstance(value, int | float):
        return str(value)
    unit, unit_rate = rate_unit(value)
    return f"{format_number(value / unit_rate)} {unit}"


def _start_text(data: _Data) -> str:
    text = ""
    if data["earlier_reasons"]:
        text = f"This is attempt {data['attempt']} in one QEMU process. Earlier attempts ended: "
        text += f"{join_words(data['earlier_reasons'])}. "
    text += f"{data['decider']} migrates a running VM of {format_bytes(data['vm_bytes'])}"
    if data["link"] != "unlimited":
        text += f" over a link of {_rate(data['link'])}"
    if data["multifd_channels"]:
        text += f" through {count_noun(data['multifd_channels'], 'multifd channel')}"
    if data["max_bandwidth"] not in (0, "unlimited"):
        text += f" at no more than {_rate(data['max_bandwidth'])}"
    return (
        f"{text}. QEMU sends all memory once while the guest keeps writing. Then it sends the pages "
        "that the guest wrote meanwhile, pass after pass. A sync finds out which pages these are."
    )


def _first_pass_text(data: _Data) -> str:
    found = data["newly_dirty_bytes"]
    rewritten = f"{format_bytes(found)} written again" if found else "no page written again"
    return (
        f"The first pass took {format_duration(data['first_pass_s'])}. The sync at its end found "
        f"{rewritten}, which left "
        f"{format_bytes(data['remaining_bytes'])} to send."
    )


def _later_passes_text(data: _Data) -> str:
    ends_s = data["ends_s"]
    times = [format_moment(end_s, data["total_time_s"]) for end_s in ends_s]
    last = (
        f"{'The switch came' if data['switched'] else 'The run ended'} in pass {len(ends_s) + 1}."
    )
    if len(ends_s) == 2:
        return f"Pass 2 ended at {times[1]}. {last}"
    if len(ends_s) <= FEW_PASSES:
        return f"Passes 2 to {len(ends_s)} ended at {join_words(times[1:])}. {last}"
    lengths_s = [end_s - start_s for start_s, end_s in pairwise(ends_s)]
    shortest, longest = format_duration(min(lengths_s)), format_duration(max(lengths_s))
    lengths = f"The shortest took {shortest} and the longest {longest}."
    if shortest == longest:
        lengths = f"Each took {shortest}."
    return f"Passes 2 to {len(ends_s)} ended between {times[1]} and {times[-1]}. {lengths} {last}"


def _never_throttled_text(data: _Data) -> str:
    return (
        "QEMU never throttled the guest. No two periods between syncs dirtied more than "
        f"{data['trigger_percent']} % of the bytes that QEMU sent (throttle_trigger_threshold)."
    )


def _throttle_start_text(data: _Data) -> str:
    at = format_moment(data["time_s"], data["total_time_s"])
    if data["rule"]:
        return (
            f"At {at} the rule {data['rule']} started to throttle the guest by {data['percent']} %."
        )
    return (
        f"At {at} QEMU started to throttle the guest by {data['percent']} %. For the second time, a "
        f"period had dirtied more than {data['trigger_percent']} % of the bytes that QEMU sent "
        f"(throttle_trigger_threshold): {join_words([_period(s) for s in data['periods']])}."
    )


def _period(sync: Any) -> str:
    dirty, sent = sync.bytes_dirty_period or 0, sync.bytes_xfer_period or 0
    share = f" ({format_number(100 * dirty / sent)} %)" if sent else ""
    duration = format_duration(sync.period_ms / 1e3)
    return f"{format_bytes(dirty)} dirtied, {format_bytes(sent)} sent in {duration}{share}"


def _throttle_increases_text(data: _Data) -> str:
    times = "once" if data["increases"] == 1 else f"{data['increases']} times"
    reason = "" if data["rule"] else ", each time after two such periods"
    return (
        f"The throttle increased {times} more{reason}. "
        f"At {format_moment(data['time_s'], data['total_time_s'])} it reached {data['percent']} %, "
        f"for {format_duration(data['duration_s'])}."
    )


def _fallback_syncs_text(data: _Data) -> str:
    times = [format_moment(time_s, data["total_time_s"]) for time_s in data["times_s"]]
    when = f"at {times[0]}" if len(times) == 1 else f"between {times[0]} and {times[-1]}"
    found, increases = data["increases_at_fallback_syncs"], data["increases"]
    many = f"all {increases} throttle increases" if increases > 1 else "the throttle increase"
    if not found:
        effect = "No throttle increase happened at a fallback sync."
    elif found < increases:
        effect = f"{found} of the {increases} throttle increases happened at fallback syncs."
    elif data["only_fallback_syncs"]:
        effect = f"Fallback syncs triggered {many}."
    else:
        effect = f"{capitalized(many)} happened at fallback syncs."
    return (
        f"The fallback timer triggered {len(times)} of the {data['syncs']} syncs, {when}. {effect}"
    )


def _actions_text(data: _Data) -> str:
    sentences = []
    for event in data["events"]:
        values = event.arguments
        if event.event == SET_PARAMETERS:
            done = join_words([f"{key} was set to {values[key]}" for key in values])
        elif event.event == CANCEL:
            done = "the migration was cancelled"
        else:
            done = f"the VM was {'resumed' if values['running'] else 'paused'}"
        sentences.append(f"At {format_moment(event.time_s, data['total_time_s'])} {done}.")
    if len(sentences) > MOST_ACTIONS:
        left_out = len(sentences) - MOST_ACTIONS + 1
        sentences[MOST_ACTIONS - 2 : -1] = [f"{left_out} more actions followed."]
    return " ".join(sentences)


def _guest_text(data: _Data) -> str:
    summary: Summary = data["summary"]
    sentences = []
    if summary.max_throttle_percent:
        lost_s = summary.guest_cpu_lost_s
        throttled_s = max(lost_s - (summary.postcopy_stall_vcpu_s or 0.0), 0.0)
        percent = summary.guest_cpu_lost_percent * throttled_s / lost_s if lost_s else 0.0
        sentences.append(
            "Under the throttle the guest lost "
            f"{format_number(percent)} % of its CPU time "
            f"({format_duration(throttled_s)} of vCPU time). The longest sleep of a "
            f"vCPU was {format_duration(summary.longest_vcpu_stall_ms / 1e3)}."
        )
    if summary.guest_fault_s:
        sentences.append(
            f"First writes to {summary.write_faults:,} protected pages took "
            f"{format_duration(summary.guest_fault_s)} of vCPU time."
        )
    return " ".join(sentences) or "The guest lost no CPU time before QEMU stopped the VM."


def _switch_text(data: _Data) -> str:
    summary: Summary = data["summary"]
    total_s, switched_s = summary.total_time_s, summary.postcopy_start_s or 0.0
    text = f"At {format_moment(switched_s, total_s)} QEMU stopped the VM and switched to post-copy"
    if data["ordered_s"] is not None:
        by = "" if data["start"] == "never" else f" by migration.start_postcopy={data['start']}"
        text += f", as ordered{by} at {format_moment(data['ordered_s'], total_s)}"
    text += f". {format_bytes(summary.postcopy_bytes or 0)} were missing at the target"
    if summary.postcopy_discarded_runs:
        runs = summary.postcopy_discarded_runs
        dropped = "1 run" if runs == 1 else f"{runs:,} runs"
        text += f", which had dropped {dropped} of dirty pages"
    text += "."
    if summary.postcopy_added_pages:
        text += f" {summary.postcopy_added_pages:,} of these pages were clean, because QEMU sends "
        text += "whole host pages."
    if summary.downtime_ms is not None:
        text += f" QEMU reports a downtime of {format_duration(summary.downtime_ms / 1e3)}."
    blackout_s = (summary.postcopy_blackout_ms or 0.0) / 1e3
    return f"{text} The guest ran at the target {format_duration(blackout_s)} after it had stopped."


def _postcopy_text(data: _Data) -> str:
    summary: Summary = data["summary"]
    text = "At the target the guest asked for no page."
    if summary.postcopy_requests:
        pages = (
            "1 page" if summary.postcopy_requests == 1 else f"{summary.postcopy_requests:,} pages"
        )
        channel = " over a channel of their own" if data["preempt"] else ""
        waited = format_duration((summary.postcopy_latency_ms or 0.0) / 1e3)
        text = (
            f"At the target the guest asked for {pages}{channel}, and waited {waited} for each on "
        )
        text += "average."
    if not has_recovered(summary):
        text += " It did not run at its usual speed again."
    elif summary.postcopy_recovery_s:
        share = data["recovered_percent"]
        speed = "its usual speed" if share is None else f"{format_number(share)} % of its speed"
        text += f" It ran at {speed} again after {format_duration(summary.postcopy_recovery_s)}."
    if summary.postcopy_stall_vcpu_s:
        text += (
            f" It lost {format_duration(summary.postcopy_stall_vcpu_s)} of vCPU time to missing "
        )
        text += "pages."
    total_s = summary.total_time_s
    for lost_s, found_s in data["lost_links_s"]:
        text += f" The link was lost at {format_moment(lost_s, total_s)}"
        if found_s < summary.simulated_s:
            text += f" and recovered at {format_moment(found_s, total_s)}"
        text += "."
    took = format_duration(summary.postcopy_time_s or 0.0)
    if summary.verdict != "converged":
        left = format_bytes(summary.remaining_bytes)
        return f"{text} {left} were still missing after {took} of post-copy."
    text += (
        f" The last page arrived at {format_moment(total_s, total_s)}, after {took} of post-copy."
    )
    if not data["lost_links_s"]:
        text += " Until then a lost link would have stopped the guest, and the loss of either host "
        text += "would have lost the VM."
    return text


def _sent_text(data: _Data) -> str:
    summary: Summary = data["summary"]
    times = format_number(summary.transferred_bytes / summary.vm_bytes)
    share = "as much as the VM's size" if times == "1" else f"{times} times the size of the VM"
    zero = f" and {summary.zero_pages:,} zero pages" if summary.zero_pages else ""
    return (
        f"QEMU sent {format_bytes(summary.transferred_bytes)} over the link, {share}: "
        f"{summary.normal_pages:,} pages with content{zero}. "
        f"It had sent {summary.resent_pages:,} of these pages before."
    )


def _converged_text(data: _Data) -> str:
    limit_ms = data["downtime_limit_ms"]
    limit = "the downtime limit" if limit_ms is None else f"the downtime limit of {limit_ms} ms"
    if data["threshold_bytes"]:
        limit += f" ({format_bytes(data['threshold_bytes'])} at "
        limit += f"{_rate(data['bandwidth_bytes_per_s'])}, the bandwidth of the last window)"
    text = (
        f"The migration ended at {format_moment(data['total_time_s'], data['total_time_s'])}. Less "
        f"memory was left than fits {limit}. QEMU stopped the VM and sent the rest"
    )
    if data["downtime_ms"] is None:
        return f"{text}."
    unlimited = " No rate limit slows the rest, and the link is unlimited."
    duration = format_duration(data["downtime_ms"] / 1e3)
    text += f", which took {duration}."
    if data["non_ram_downtime_ms"]:
        rest = format_duration(data["non_ram_downtime_ms"] / 1e3)
        text += f" {rest} of this time are not for RAM (link.non_ram_downtime_ms)."
    return f"{text}{unlimited if data['unlimited_link'] else ''}"


_TEXTS: Mapping[str, Callable[[_Data], str]] = {
    "start": _start_text,
    "first_pass": _first_pass_text,
    "first_pass_not_ended": lambda data: (
        f"The first pass had not ended after {format_duration(data['total_time_s'])}."
        if data["switched_s"] is None
        else f"The first pass had not ended at the switch, after {format_duration(data['switched_s'])}."
    ),
    "later_passes": _later_passes_text,
    "auto_converge_off": lambda _: "QEMU never throttled the guest, because auto-converge is off.",
    "rule_never_throttled": lambda data: f"The rule {data['rule']} never throttled the guest.",
    "never_throttled": _never_throttled_text,
    "throttle_start": _throttle_start_text,
    "throttle_increases": _throttle_increases_text,
    "fallback_syncs": _fallback_syncs_text,
    "no_fallback_sync": lambda _: f"The fallback timer triggered no sync. {_TIMER}",
    "fallback_timer_off": lambda _: f"The fallback timer was off. {_TIMER}",
    "skipped": lambda data: (
        "The migration stalled and waited for its next action. gpusim did not simulate "
        f"{format_duration(data['skipped_s'])} of this, and the times in this list leave them out."
    ),
    "actions": _actions_text,
    "guest": _guest_text,
    "switch": _switch_text,
    "postcopy": _postcopy_text,
    "sent": _sent_text,
    "converged": _converged_text,
    "stopped": lambda data: f"The run was stopped. {capitalized(data['reason'])}.",
    "no_success": lambda data: f"The migration did not succeed. {capitalized(data['reason'])}.",
}
