"""The keys of `postcopy` as numbers: what post-copy costs on the hosts."""

from __future__ import annotations

from dataclasses import dataclass

from gpusim.config.checks import check_range, check_whole, parse_size
from gpusim.config.schema import PostcopyConfig
from gpusim.units import NS_PER_MS, NS_PER_US


@dataclass(frozen=True, kw_only=True)
class PostcopyCosts:
    """The costs of post-copy.

    Attributes:
        fault_ns: time of a fault without a queue.
        fault_spread: standard deviation of the logarithm of the times of single faults.
        request_ns: time of QEMU's threads for a request.
        buffer_bytes: bytes on the way from the source's thread to the target, if the link is full.
        waits_behind_zeros: requests that wait behind a buffer of zero pages by chance.
        discard_ns: time to drop a run of pages at the target.
        resume_ns: time until the guest runs at the target, besides the load of its devices.
        vcpus: of the guest.
        threads: threads of the guest that touch memory at the same time.
        blocking_share: share of the faults that stop a vCPU.
        together_share: share of a vCPU's blocked time in which all of them are blocked.
        recovered_share: share of its speed at which the guest counts as recovered.
    """

    fault_ns: float
    fault_spread: float
    request_ns: float
    buffer_bytes: int
    waits_behind_zeros: float
    discard_ns: float
    resume_ns: int
    vcpus: int
    threads: int
    blocking_share: float
    together_share: float
    recovered_share: float


def parse_postcopy(config: PostcopyConfig, vcpus: int) -> PostcopyCosts:
    """Return the costs of post-copy.

    Args:
        config: the keys of `postcopy`.
        vcpus: number of vCPUs.

    Raises:
        ConfigError: a value is out of range.
    """
    check_range("postcopy.fault_us", config.fault_us, 0, 1e7)
    check_range("postcopy.fault_spread", config.fault_spread, 0, 5)
    check_range("postcopy.request_us", config.request_us, 0, 1e7)
    check_range("postcopy.waits_behind_zeros", config.waits_behind_zeros, 0, 1e9)
    check_range("postcopy.resume_ms", config.resume_ms, 0, 1e7)
    check_range("postcopy.together_percent", config.together_percent, 0, 100)
    check_range("postcopy.discard_us", config.discard_us, 0, 1e6)
    check_range("postcopy.blocking_percent", config.blocking_percent, 0, 100)
    check_range("postcopy.recovered_percent", config.recovered_percent, 1, 100)
    if config.threads is not None:
        check_whole("postcopy.threads", config.threads, vcpus, 10**6, ", from vm.vcpus on")
    is_async = config.async_page_faults
    return PostcopyCosts(
        fault_ns=config.fault_us * NS_PER_US,
        fault_spread=config.fault_spread,
        request_ns=config.request_us * NS_PER_US,
        buffer_bytes=parse_size("postcopy.socket_buffers", config.socket_buffers),
        waits_behind_zeros=config.waits_behind_zeros,
        discard_ns=config.discard_us * NS_PER_US,
        resume_ns=round(config.resume_ms * NS_PER_MS),
        vcpus=vcpus,
        threads=config.threads or vcpus if is_async else vcpus,
        blocking_share=config.blocking_percent / 100 if is_async else 1.0,
        together_share=config.together_percent / 100 if vcpus > 1 else 1.0,
        recovered_share=config.recovered_percent / 100,
    )
