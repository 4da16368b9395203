"""The lines that announce a measurement: what will be measured, and what it costs the guest."""

from __future__ import annotations

from gpusim.config.schema import TrackingConfig
from gpusim.formats.profile import pages_sampled
from gpusim.monitor.dirty_rate import ZERO_PAGES, Plan, Vm
from gpusim.monitor.hmp import PAGE_BYTES
from gpusim.text import count_noun
from gpusim.units import GIB, format_bytes


def describe_plan(vm: Vm, plan: Plan) -> list[str]:
    """Return the lines to show before a measurement starts."""
    lengths = sorted(set(plan.periods_s))
    periods = f"{len(plan.periods_s)} of {' '.join(f'{one:g}' for one in lengths)} s"
    version = ".".join(map(str, vm.version))
    vcpus = count_noun(len(vm.threads), "vCPU")
    rows = {
        "vm": f"{format_bytes(vm.memory_bytes)}, {vcpus}, QEMU {version}, {vm.accelerator}",
        "periods": f"{periods}, {sum(plan.periods_s):.0f} s in total",
        "mode": f"{plan.mode}: {_describe_cost(vm, plan)}",
        "zero pages": f"{ZERO_PAGES} random pages are read through the monitor to count zero pages"
        if vm.ranges
        else "not counted: this monitor does not say where RAM lies",
    }
    return [f"{name:<12}{text}" for name, text in rows.items()]


def _describe_cost(vm: Vm, plan: Plan) -> str:
    if plan.mode == "page-sampling":
        assert plan.sample_pages is not None
        pages = pages_sampled(vm.blocks.values(), plan.sample_pages)
        return (
            f"QEMU reads and hashes {pages} pages ({format_bytes(pages * PAGE_BYTES)}) at the "
            "start and at the end of each period, in its own thread. The guest is not slowed"
        )
    if plan.mode == "dirty-ring":
        return (
            "QEMU counts the entries of each vCPU's ring: the first write to a page costs the "
            "guest a fault, and a vCPU waits while QEMU empties its full ring"
        )
    costs = TrackingConfig()
    pages, gib = vm.memory_bytes // PAGE_BYTES, vm.memory_bytes / GIB
    protect_s = pages * costs.split_ns_per_page / 1e9
    sync_s = gib * (costs.log_sync_ns_per_gib + costs.merge_ns_per_gib) / 1e9
    return (
        f"in every period KVM write-protects {pages} pages (up to {protect_s:.2g} s, vCPUs wait "
        "for parts of it). The first write to a page costs a fault (up to "
        f"{costs.first_write_cost_ns:g} ns). QEMU reads the log twice ({sync_s:.2g} s under its "
        "big lock). Huge pages are split meanwhile"
    )
