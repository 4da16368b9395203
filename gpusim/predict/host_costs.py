"""What the sending host costs if nobody stated it: a range and a source for each cost.

Each simulated migration draws its own value. A key of `link` that the user sets is not drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace

from gpusim.config.link import default_non_ram_downtime_ms
from gpusim.config.schema import Config, LinkConfig
from gpusim.text import Message

# How fast one thread recognises zero pages, bytes per second. 4096 bytes in 246 ns are 16.7 GB/s:
# qemu-devel, 2024-12-24, "Add DSA zero page detection doc" (Xeon 8457C). Published migrations of
# idle VMs imply 6.6 to 27 GB/s. Memory that the guest never touched is mapped at its first read, which
# costs more: the hosts of the series behind QEMU's fallback sync did 1.1 and 2.7 GB/s
# (docs/validation/published.md). A virtual host with two busy cores did 0.91 and 0.38 GB/s, in the
# recordings recorder/zero_pages and short/zero_pages (gpusim/validation/data), which judge no prediction.
ZERO_PAGE_SCAN = (0.38e9, 27e9)
# libvirt allocates all pages of hugetlbfs before the guest runs (src/qemu/qemu_command.c:
# qemuBuildMemoryBackendProps), so QEMU's first read maps none.
ALLOCATED_SCAN = (6.6e9, 27e9)
# A thread's time per normal page. 4 KiB in 1260 ns are 26 Gbit/s, the fastest thread seen on a
# loopback. 3277 ns are 10 Gbit/s: "we can not utilise NIC higher than 10 Gbps without multiFD"
# (qemu-devel, 2022-05-11).
PAGE_COST_NS = (1260.0, 3277.0)
# The same with TLS. 6225 ns are 5.27 Gbit/s, one thread of a Xeon Gold 6430 with AES-GCM, and 15770
# ns are 2.08 Gbit/s, the same host with ChaCha20: "TLS live-migration reproduction kit", 2026
# (docs/validation/published.md). Another host reached 300 MB/s: openEuler's QEMU, pull request 38.
TLS_PAGE_COST_NS = (6225.0, 15770.0)
# No source has more than the four VMs behind config/link.py. So the downtime beside RAM is drawn
# from a quarter of what they give to twice as much.
DOWNTIME_FACTOR = (0.25, 2.0)
DRAWN = {  # key of `link` -> code of the assumption
    "zero_page_scan": "zero_page_scan_drawn",
    "page_cost_ns": "page_cost_ns_drawn",
    "non_ram_downtime_ms": "non_ram_downtime_ms_drawn",
}

MEASURED = "zero_page_scan_measured"  # code of the assumption if an earlier migration shows it


@dataclass(frozen=True, kw_only=True)
class Range:
    """The lowest and the highest value that a member may draw.

    Attributes:
        low, high: the values.
        is_measured: an earlier migration of the VM showed them.
    """

    low: float
    high: float
    is_measured: bool = False


def ranges(
    config: Config,
    stated: Collection[str],
    zero_page_speed: tuple[float, float] | None = None,
    *,
    tls: bool = False,
) -> dict[str, Range]:
    """Return the range of each cost that is drawn, by its key of `link`.

    Args:
        config: has the numbers of vCPUs and VFIO devices, and the costs if a preset of the user
            sets them.
        stated: keys such as "link.page_cost_ns" that the user set. They are not drawn.
        zero_page_speed: its bounds in an earlier migration, bytes per second. None: unknown.
        tls: the sending threads encrypt.
    """
    default = LinkConfig()
    is_allocated = config.vm.backing.startswith("hugetlb")
    slowest, fastest = zero_page_speed or (ALLOCATED_SCAN if is_allocated else ZERO_PAGE_SCAN)
    has_speed = zero_page_speed is not None
    middle_ms = default_non_ram_downtime_ms(config.vm)
    found = {
        "zero_page_scan": (slowest, max(slowest, min(fastest, ZERO_PAGE_SCAN[1]))),
        "page_cost_ns": TLS_PAGE_COST_NS if tls else PAGE_COST_NS,
        "non_ram_downtime_ms": tuple(factor * middle_ms for factor in DOWNTIME_FACTOR),
    }
    return {
        key: Range(low=low, high=high, is_measured=key == "zero_page_scan" and has_speed)
        for key, (low, high) in found.items()
        if f"link.{key}" not in stated and getattr(config.link, key) == getattr(default, key)
    }


def drawn(
    link: LinkConfig, costs: Mapping[str, Range], place: Callable[[str], float]
) -> LinkConfig:
    """Return a link with each cost drawn, equally likely in each factor of two.

    Args:
        link: the link.
        costs: the ranges.
        place: returns a number from 0 to 1 for the name of a cost.
    """
    values = {key: one.low * (one.high / one.low) ** place(key) for key, one in costs.items()}
    return replace(link, **values)


def assumptions(costs: Mapping[str, Range]) -> Iterator[Message]:
    """Tell which costs are drawn, and between which values."""
    for key, one in costs.items():
        unit = "_bytes_per_s" if key == "zero_page_scan" else ""
        code = MEASURED if one.is_measured else DRAWN[key]
        yield Message(code, {f"low{unit}": one.low, f"high{unit}": one.high})
