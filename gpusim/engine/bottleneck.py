"""What set the rate of a migration while its sender sent, and which setting changes that.

This is the only place that decides it, from the measured sending time. gpusim/results/bottleneck.py
makes the text.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from gpusim.config.scenario import Scenario
from gpusim.qemu.parameters import MOST_MULTIFD_CHANNELS
from gpusim.qemu.versions import VERSIONS, Version
from gpusim.sender.link import UNITS, Bound, Link
from gpusim.sender.tally import Sending
from gpusim.text import count_noun
from gpusim.units import NS_PER_S

GBIT = 1e9 / 8  # bytes


@dataclass(frozen=True, kw_only=True)
class Bottleneck:
    """What set the rate for most of the sending time, under the names that a summary has.

    Attributes:
        bottleneck: the bound as text. None if nothing was sent or the link is recorded.
        bottleneck_code: the bound, or None.
        bottleneck_change: settings that let the sender use more of the link, as a user types them.
            None if the link is the bound, or if no setting of QEMU changes it.
        sending_gbit_per_s: the mean rate over the sending time.
        link_gbit_per_s: the mean bandwidth of the link over that time. None if it is unlimited.
    """

    bottleneck: str | None = None
    bottleneck_code: Bound | None = None
    bottleneck_change: str | None = None
    sending_gbit_per_s: float | None = None
    link_gbit_per_s: float | None = None


def find_bottleneck(sending: Sending, scenario: Scenario) -> Bottleneck:
    """Return what set the rate for most of the sending time.

    The bound is the link, max-bandwidth or the threads, whichever set the rate longest. For the
    threads it is that one of their costs that set the rate longest.

    Args:
        sending: the measured sending time.
        scenario: has the costs of the threads. The bandwidth of its link does not count here.
    """
    total_s = sending.total_s
    if not total_s:
        return Bottleneck()
    bandwidth = sending.capacity_bytes / total_s
    own = {"link": "link", "max_bandwidth": "max_bandwidth"}
    groups: dict[str, float] = {}
    for bound, time_s in sending.time_s.items():
        group = own.get(bound, "threads")
        groups[group] = groups.get(group, 0.0) + time_s
    group = max(groups, key=lambda name: groups[name])
    code: Bound = max(
        (bound for bound in sending.time_s if own.get(bound, "threads") == group),
        key=lambda bound: sending.time_s[bound],
    )
    return Bottleneck(
        bottleneck=_text(code, scenario.link),
        bottleneck_code=code,
        bottleneck_change=_change(code, scenario, bandwidth),
        sending_gbit_per_s=sending.sent_bytes / total_s / GBIT,
        link_gbit_per_s=bandwidth / GBIT if math.isfinite(bandwidth) else None,
    )


def _text(code: Bound, link: Link) -> str:
    channels = link.multifd.channels if link.multifd else 0
    threads = count_noun(channels, "multifd channel") if channels else "one sending thread"
    if code == "page_cost":
        return threads
    if code == "queue_cost":
        return "the migration thread, which queues pages for multifd"
    if code == "zero_page_scan":
        finds = link.multifd is not None and link.multifd.find_zero_pages
        return f"{threads if finds else 'one thread'} scanning for zero pages"
    if code == "remote_clear":
        return "the sending thread, which clears KVM's dirty log"
    return "the link" if code == "link" else "max-bandwidth"


def _change(code: Bound, scenario: Scenario, bandwidth: float) -> str | None:
    """Return the settings that raise the bound, or None."""
    if code == "max_bandwidth":
        return "migration.max_bandwidth=0"
    if code not in ("page_cost", "zero_page_scan"):
        return None
    link, rules, newer = scenario.link, VERSIONS[scenario.version], ""
    has_postcopy = scenario.config.migration.postcopy_ram
    if not _permits_multifd(rules, has_postcopy=has_postcopy):
        newer, rules = next(
            (f"migration.version={name} ", one)
            for name, one in VERSIONS.items()
            if one.released and _permits_multifd(one, has_postcopy=has_postcopy)
        )
    if code == "zero_page_scan" and not rules.channels_find_zero_pages:
        return None
    is_normal = code == "page_cost"
    cost_ns = link.page_cost_ns if is_normal else link.zero_page_ns
    link_ns = link.page_units[0 if is_normal else 1] / UNITS / bandwidth * NS_PER_S
    fastest_ns = max(link_ns, scenario.config.link.queue_cost_ns)
    needed = math.ceil(cost_ns / fastest_ns) if fastest_ns else MOST_MULTIFD_CHANNELS
    channels = min(needed, MOST_MULTIFD_CHANNELS)
    used = link.multifd.channels if link.multifd else 1
    return f"{newer}migration.multifd_channels={channels}" if channels > used else None


def _permits_multifd(rules: Version, *, has_postcopy: bool) -> bool:
    return rules.has_multifd_with_postcopy if has_postcopy else rules.has_multifd
