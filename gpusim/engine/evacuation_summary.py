"""The result of an evacuation, made of the results of its guests' migrations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from gpusim.config.schema import EvacuationConfig
from gpusim.engine.bottleneck import GBIT, Bottleneck, find_bottleneck
from gpusim.engine.evacuation_guests import Vm
from gpusim.engine.reasons import reason_text
from gpusim.engine.records import (
    EvacuatedGuest,
    Evacuation,
    EvacuationSummary,
    Status,
    Summary,
    Verdict,
)
from gpusim.engine.shared_link import SharedLink
from gpusim.sender.tally import Sending
from gpusim.text import Message
from gpusim.units import NS_PER_S
from gpusim.version import __version__


def make_evacuation(
    status: Status,
    vms: Sequence[Vm],
    link: SharedLink,
    evacuation: EvacuationConfig,
    seed: int,
    wall_time_s: float,
) -> Evacuation:
    """Return the guests that ended, in the order in which they started, and the summary of all."""
    ended = [vm for vm in vms if vm.end_ns is not None]
    guests = [_make_guest(vm) for vm in ended]
    summaries = [guest.result.summary for guest in guests]
    left_behind = [vm.name for vm in vms if vm.end_ns is None]
    left_behind += [g.name for g in guests if g.result.summary.verdict != "converged"]
    total_ns = max((vm.end_ns or 0 for vm in ended), default=0)
    lost_s = sum(summary.guest_cpu_lost_s for summary in summaries)
    vcpu_s = sum(vm.scenario.vcpus for vm in vms) * total_ns / NS_PER_S
    sent_bytes = sum(summary.transferred_bytes for summary in summaries)
    page_bytes = sum(vm.scenario.link.bytes_of_pages(*_sent_pages(vm)) for vm in ended)
    capacity_bytes = link.capacity_bytes(total_ns)
    reason = _make_reason(status, vms, left_behind, total_ns / NS_PER_S, evacuation)
    first = vms[0]
    summary = EvacuationSummary(
        status=status,
        verdict=_verdict(status, summaries, left_behind),
        reason=reason_text(reason),
        reason_code=reason.code,
        total_time_s=total_ns / NS_PER_S,
        downtime_ms=max(
            (s.downtime_ms for s in summaries if s.downtime_ms is not None), default=None
        ),
        dirty_sync_count=sum(s.dirty_sync_count for s in summaries),
        bitmap_sync_count=sum(s.bitmap_sync_count for s in summaries),
        fallback_sync_count=sum(s.fallback_sync_count for s in summaries),
        max_throttle_percent=max((s.max_throttle_percent for s in summaries), default=0),
        longest_vcpu_stall_ms=max((s.longest_vcpu_stall_ms for s in summaries), default=0.0),
        transferred_bytes=sent_bytes,
        **vars(_find_bottleneck(guests, link, first, total_ns)),
        link_used_percent=100 * page_bytes / capacity_bytes
        if 0 < capacity_bytes < math.inf
        else None,
        guest_cpu_lost_s=lost_s,
        guest_cpu_lost_percent=100 * lost_s / vcpu_s if vcpu_s else 0.0,
        write_faults=sum(s.write_faults for s in summaries),
        guest_fault_s=sum(s.guest_fault_s for s in summaries),
        vm_bytes=sum(vm.scenario.vm_bytes for vm in vms),
        guests=len(vms),
        left_behind=left_behind,
        at_a_time=evacuation.at_a_time,
        order=evacuation.order,
        qemu_version=first.scenario.version,
        policies=first.scenario.policies,
        tracking=first.scenario.tracking.mode,
        backend=first.backend.name,
        backend_reason=first.backend.reason,
        seed=seed,
        simulated_runs=sum(vm.runs for vm in vms),
        wall_time_s=wall_time_s,
        bitmap_bytes=max(vm.scenario.bitmap_bytes for vm in vms),
        gpusim_version=__version__,
    )
    steps = [(at_ns / NS_PER_S, bandwidth) for at_ns, bandwidth in link.bandwidth_steps]
    return Evacuation(summary=summary, guests=guests, link_bandwidth=steps)


def _verdict(
    status: Status, summaries: Sequence[Summary], left_behind: Sequence[str]
) -> Verdict | None:
    """Return the verdict of the whole: the first of these that a guest has."""
    if status != "ok":
        return None
    verdicts = {summary.verdict for summary in summaries}
    if "not_converged" in verdicts:
        return "not_converged"
    if not left_behind:
        return "converged"
    return "cancelled" if "cancelled" in verdicts else "time_limit"


def _make_reason(
    status: Status,
    vms: Sequence[Vm],
    left_behind: Sequence[str],
    total_s: float,
    evacuation: EvacuationConfig,
) -> Message:
    if status == "incomplete":
        out = len(vms) - len(left_behind)
        return Message("guests_at_wall_limit", {"out": out, "guests": len(vms)})
    if not left_behind:
        return Message(
            "all_guests_out",
            {
                "guests": len(vms),
                "vm_bytes": sum(vm.scenario.vm_bytes for vm in vms),
                "time_s": total_s,
                "at_a_time": evacuation.at_a_time,
                "order": evacuation.order,
            },
        )
    first = next(vm for vm in vms if vm.name == left_behind[0])
    return Message(
        "guest_left_behind",
        {"guest": first.name, "others": left_behind[1:], "reason": first.reason},
    )


def _find_bottleneck(
    guests: Sequence[EvacuatedGuest], link: SharedLink, vm: Vm, total_ns: int
) -> Bottleneck:
    """Return what set the rate of most guests, with the rates of the whole link.

    Each guest sends over its share of the link. The shares add up to the link, so the link is used
    as far as the shares are.
    """
    sending = sum((one.result.sending or Sending() for one in guests), Sending())
    found = find_bottleneck(sending, vm.scenario)
    if found.bottleneck_code not in ("link", None):
        found = replace(found, bottleneck=f"{found.bottleneck}, per guest")
    capacity_bytes = link.capacity_bytes(total_ns)
    if not total_ns or found.bottleneck_code is None:
        return found
    if math.isinf(capacity_bytes) or math.isinf(sending.capacity_bytes):
        rate = sending.sent_bytes / total_ns * NS_PER_S
        return replace(found, sending_gbit_per_s=rate / GBIT, link_gbit_per_s=None)
    rate = capacity_bytes / total_ns * NS_PER_S
    used = sending.sent_bytes / sending.capacity_bytes
    return replace(found, sending_gbit_per_s=used * rate / GBIT, link_gbit_per_s=rate / GBIT)


def _sent_pages(vm: Vm) -> tuple[int, int]:
    """Return how many normal and how many zero pages a guest sent."""
    assert vm.result is not None
    return vm.result.summary.normal_pages, vm.result.summary.zero_pages


def _make_guest(vm: Vm) -> EvacuatedGuest:
    assert vm.start_ns is not None and vm.end_ns is not None
    assert vm.link is not None and vm.result is not None
    changes = [[at_ns / NS_PER_S, _share_as_config(share)] for at_ns, share in vm.link.changes]
    link = replace(
        vm.config.link, bandwidth=_share_as_config(vm.link.bandwidth), changes=changes or None
    )
    return EvacuatedGuest(
        name=vm.name,
        config=replace(vm.config, link=link),
        vcpus=vm.scenario.vcpus,
        start_s=vm.start_ns / NS_PER_S,
        end_s=vm.end_ns / NS_PER_S,
        result=vm.result,
    )


def _share_as_config(share: float) -> float | str:
    return "unlimited" if math.isinf(share) else share
