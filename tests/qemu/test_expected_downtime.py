"""Which expected-downtime does query-migrate show?"""

from __future__ import annotations

from gpusim.qemu.expected_downtime import (
    UNKNOWN_MS,
    ExpectedDowntime,
    ExpectedDowntimeOnDemand,
)
from gpusim.qemu.sync import SyncAccounting
from tests.qemu.parameters import parameters

PAGE, RAM_PAGES = 4096, 1000
LIMITED = parameters(downtime_limit_ms=300)


def after_sync(dirty_pages: int, *, counts_every_sync: bool, kind: str = "exact") -> SyncAccounting:
    """Return the accounting after the setup's sync and one of two seconds later."""
    found = SyncAccounting(PAGE, RAM_PAGES, counts_every_sync=counts_every_sync)
    for now_ms, one in ((0, "setup"), (2000, kind)):
        found.begin(now_ms)
        found.end(now_ms, dirty_pages, 0, dirty_pages, one)
    return found


def test_a_window_replaces_the_value_up_to_11_0() -> None:
    accounting = after_sync(250, counts_every_sync=True)
    rule = ExpectedDowntime(LIMITED)
    assert rule.ms(LIMITED, 1e6, accounting) == 300
    rule.end_window(10_000, 1e6, accounting)  # must send more
    assert rule.ms(LIMITED, 1e6, accounting) == 300
    rule.end_window(10_001, 1e6, accounting)
    assert rule.ms(LIMITED, 2e6, accounting) == 1024  # 250 pages at 1 MB/s


def test_nothing_replaces_it_before_a_period_found_dirty_pages() -> None:
    rule = ExpectedDowntime(LIMITED)
    rule.end_window(10**6, 1e6, SyncAccounting(PAGE, RAM_PAGES))
    assert rule.ms(LIMITED, 1e6, SyncAccounting(PAGE, RAM_PAGES)) == 300


def test_11_1_computes_it_when_asked() -> None:
    rule = ExpectedDowntimeOnDemand(LIMITED)
    accounting = after_sync(250, counts_every_sync=False)
    assert rule.ms(LIMITED, 1e6, accounting) == 1024
    assert rule.ms(LIMITED, 2e6, accounting) == 512
    assert rule.ms(LIMITED, 0.0, accounting) == UNKNOWN_MS


def test_in_the_first_pass_of_11_1_it_is_the_limit_that_holds_now() -> None:
    rule = ExpectedDowntimeOnDemand(LIMITED)
    accounting = after_sync(250, counts_every_sync=False, kind="fallback")
    assert rule.ms(parameters(downtime_limit_ms=700), 1e6, accounting) == 700
