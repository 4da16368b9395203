"""Hosts without costs, for the tests of evacuations."""

from __future__ import annotations

from dataclasses import replace

from gpusim import Config, EvacuationConfig, GuestConfig, VmConfig, WorkloadConfig, WriterConfig
from tests.engine.scenarios import config

BANDWIDTH = 1e8  # bytes a second
PAGE_BYTES = 4104  # on the link


def idle(memory: str, count: int = 1) -> GuestConfig:
    return GuestConfig(vm=VmConfig(memory=memory, vcpus=1), workload=WorkloadConfig(), count=count)


def busy(
    memory: str, page_writes_per_s: float, *, share: float = 25, vcpus: int = 2
) -> GuestConfig:
    writer = WriterConfig(working_set_percent=share, page_writes_per_s=page_writes_per_s)
    return GuestConfig(vm=VmConfig(memory=memory, vcpus=vcpus), workload=writer)


def host(
    guests: dict[str, GuestConfig],
    at_a_time: int = 1,
    order: str = "as_listed",
    *,
    changes: list[list[object]] | None = None,
    stop_when_stuck: bool = True,
    **migration: object,
) -> Config:
    """Return a host with a link of 100 MB/s and without costs or max_bandwidth."""
    base = config(bandwidth="100MB/s", **{"max_bandwidth": 0, **migration})  # type: ignore[arg-type]
    return replace(
        base,
        link=replace(base.link, changes=changes),
        limit=replace(base.limit, stop_when_stuck=stop_when_stuck),
        evacuation=EvacuationConfig(guests=guests, at_a_time=at_a_time, order=order),
    )
