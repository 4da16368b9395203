"""Why a run ended: one code and its data for each reason, and the sentence made of them.

Code elsewhere compares codes. Only this module writes the text, and nothing reads it again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from gpusim.text import Message, count_noun, join_words
from gpusim.units import format_bytes


def reason_text(reason: Message) -> str:
    """Return a reason as a clause for people: lower case, without a full stop.

    Raises:
        KeyError: the code is not a reason, or data is missing.
    """
    return _TEXTS[reason.code](reason.data)


def _converged(data: Mapping[str, Any]) -> str:
    percent = data["throttle_percent"]
    passes = count_noun(data["passes"], "pass", "passes")
    text = (
        f"converged after {data['time_s']:.1f} s in {passes}, "
        f"{f'at a throttle of {percent} %' if percent else 'without a throttle'} and "
        f"with a downtime of {data['downtime_ms']:.0f} ms (limit {data['downtime_limit_ms']} ms)"
    )
    pause_s = data["pause_s"]
    return f"{text}, after a pause of {pause_s:.1f} s" if pause_s else text


def _postcopy(data: Mapping[str, Any]) -> str:
    return (
        f"migrated with post-copy in {data['time_s']:.1f} s: the switch came after "
        f"{data['switch_s']:.1f} s with a downtime of {data['downtime_ms']:.0f} ms, and the last "
        f"page arrived {data['postcopy_s']:.1f} s later"
    )


def _link_lost(data: Mapping[str, Any]) -> str:
    return f"the link was lost after {data['time_s']:.1f} s, before post-copy: the VM runs on"


def _postcopy_paused(data: Mapping[str, Any]) -> str:
    return (
        f"the link was lost in post-copy, and nobody recovered it within {data['time_s']:g} s: "
        f"{format_bytes(data['remaining_bytes'])} are missing, and each thread that touches a "
        "missing page waits"
    )


def _stalled(data: Mapping[str, Any]) -> str:
    return (
        f"the remaining memory fell by less than {data['less_than_percent']} % over "
        f"{data['over_s']} s and {data['over_passes']} passes (at best "
        f"{format_bytes(data['smallest_bytes'])} remained, and "
        f"{format_bytes(data['threshold_bytes'])} fit the downtime limit)"
    )


def _throttle_at_maximum(data: Mapping[str, Any]) -> str:
    return f"the throttle is at its maximum of {data['throttle_percent']} %, and {_stalled(data)}"


def _no_throttle_to_raise(data: Mapping[str, Any]) -> str:
    return f"there is no throttle to raise, and {_stalled(data)}"


def _simulated_limit(data: Mapping[str, Any]) -> str:
    return (
        f"still migrating after {data['time_s']:g} s of simulated time, with "
        f"{format_bytes(data['remaining_bytes'])} remaining at a throttle of "
        f"{data['throttle_percent']} % (raise limit.simulated to continue)"
    )


def _wall_limit(data: Mapping[str, Any]) -> str:
    return "the wall-clock limit was reached, so there is no verdict"


def _cancelled_by_schedule(data: Mapping[str, Any]) -> str:
    return f"cancelled after {data['time_s']:.1f} s"


def _cancelled_by_manager(data: Mapping[str, Any]) -> str:
    why = f": {data['why']}" if data["why"] else ""
    return f"{_cancelled_by_schedule(data)} by {data['manager']}{why}"


def _aborted_by_leftover_timer(data: Mapping[str, Any]) -> str:
    return (
        f"{reason_text(data['cancelled'])}, then QEMU aborted {data['later_s']:.1f} s later and "
        "the VM was lost: the sync timer was still armed and asked for a sync without a migration "
        "(assert(ram_state))"
    )


def _all_guests_out(data: Mapping[str, Any]) -> str:
    return (
        f"all {data['guests']} guests, {format_bytes(data['vm_bytes'])}, are out after "
        f"{data['time_s']:.1f} s, {data['at_a_time']} at a time, {data['order']}"
    )


def _guest_left_behind(data: Mapping[str, Any]) -> str:
    guest, reason = data["guest"], reason_text(data["reason"])
    if not data["others"]:
        return f"{guest} stays behind: {reason}"
    return f"{join_words([guest, *data['others']])} stay behind. Guest {guest}: {reason}"


def _guests_at_wall_limit(data: Mapping[str, Any]) -> str:
    return (
        f"the wall-clock limit was reached with {data['out']} of {data['guests']} guests out, "
        "so there is no verdict"
    )


_TEXTS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "converged": _converged,
    "postcopy": _postcopy,
    "postcopy_paused": _postcopy_paused,
    "link_lost": _link_lost,
    "throttle_at_maximum": _throttle_at_maximum,
    "no_throttle_to_raise": _no_throttle_to_raise,
    "simulated_limit": _simulated_limit,
    "wall_limit": _wall_limit,
    "cancelled_by_schedule": _cancelled_by_schedule,
    "cancelled_by_manager": _cancelled_by_manager,
    "aborted_by_leftover_timer": _aborted_by_leftover_timer,
    "all_guests_out": _all_guests_out,
    "guest_left_behind": _guest_left_behind,
    "guests_at_wall_limit": _guests_at_wall_limit,
}
REASON_CODES = tuple(_TEXTS)
