"""When does a sync close a period, and what does the period count?"""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from gpusim.qemu.sync import Period, SyncAccounting

PAGE = 4096
RAM_PAGES = 1000


def after_setup(now_ms: int = 0) -> SyncAccounting:
    """Return the accounting after a first sync that took no time."""
    accounting = SyncAccounting(PAGE, RAM_PAGES)
    accounting.begin(now_ms)
    assert accounting.end(now_ms, 0, 0, RAM_PAGES, "exact") is None
    return accounting


def sync(
    accounting: SyncAccounting, now_ms: int, new: int, sent: int, *, lasts_ms: int = 0
) -> Period | None:
    accounting.begin(now_ms)
    return accounting.end(now_ms + lasts_ms, new, sent, RAM_PAGES, "exact")


def test_a_period_is_longer_than_1000_ms() -> None:
    assert sync(after_setup(7), 1007, 3, 5000) is None
    assert sync(after_setup(7), 1008, 3, 5000) == Period(
        length_ms=1001,
        dirty_bytes=3 * PAGE,
        xfer_bytes=5000,
        dirty_pages_rate=2,
        clean_bytes=PAGE,
        ram_bytes=RAM_PAGES * PAGE,
    )


def test_every_sync_counts_whether_it_closes_a_period_or_not() -> None:
    accounting = SyncAccounting(PAGE, RAM_PAGES)
    for number, now_ms in enumerate((0, 10, 20, 2000, 2010), start=1):
        accounting.begin(now_ms)
        assert accounting.dirty_sync_count == number  # QEMU counts a sync before its work
        accounting.end(now_ms, 1, 0, RAM_PAGES, "exact")


def test_the_duration_of_a_sync_belongs_to_the_period() -> None:
    period = sync(after_setup(), 990, 3, 5000, lasts_ms=11)
    assert period is not None
    assert period.length_ms == 1001


def test_the_first_sync_sets_the_time_before_its_own_work() -> None:
    accounting = SyncAccounting(PAGE, RAM_PAGES)
    accounting.begin(500)
    assert accounting.end(1500, 0, 0, RAM_PAGES, "exact") is None
    assert sync(accounting, 1501, 1, 9) is not None


def test_a_first_sync_longer_than_a_second_closes_a_period_with_nothing_dirty() -> None:
    accounting = SyncAccounting(PAGE, RAM_PAGES)
    accounting.begin(500)
    assert accounting.end(1501, 0, 0, RAM_PAGES, "exact") == Period(
        length_ms=1001,
        dirty_bytes=0,
        xfer_bytes=0,
        dirty_pages_rate=0,
        clean_bytes=0,
        ram_bytes=RAM_PAGES * PAGE,
    )


def test_a_second_sync_does_not_start_the_period_anew_even_if_the_first_was_at_zero() -> None:
    accounting = after_setup(0)
    assert sync(accounting, 600, 1, 10) is None
    assert sync(accounting, 1001, 1, 20) is not None


def test_rates_are_truncated() -> None:
    period = sync(after_setup(), 1999, 1, 7)
    assert period is not None
    assert period.dirty_pages_rate == 0  # 1000 / 1999
    period = sync(after_setup(), 1001, 10**6, 7)
    assert period is not None
    assert period.dirty_pages_rate == 999_000  # 999 000.999


def test_transferred_bytes_count_from_the_last_close_not_from_the_last_sync() -> None:
    accounting = after_setup()
    sync(accounting, 2000, 1, 1000)
    sync(accounting, 2500, 1, 1700)
    period = sync(accounting, 4000, 1, 1900)
    assert period is not None
    assert (period.xfer_bytes, period.length_ms) == (900, 2000)


def test_edge_case_05_rapid_syncs_are_one_period_and_so_is_a_long_pass() -> None:
    rapid = after_setup()
    closed = [sync(rapid, now_ms, 2, 100 * now_ms) for now_ms in range(5, 1005, 5)]
    assert closed == [None] * 200
    assert sync(rapid, 1005, 2, 100_500) == Period(
        length_ms=1005,
        dirty_bytes=402 * PAGE,
        xfer_bytes=100_500,
        dirty_pages_rate=400,
        clean_bytes=PAGE,
        ram_bytes=RAM_PAGES * PAGE,
    )
    assert sync(after_setup(), 60_000, 402, 100_500) == Period(
        length_ms=60_000,
        dirty_bytes=402 * PAGE,
        xfer_bytes=100_500,
        dirty_pages_rate=6,
        clean_bytes=201 * PAGE,
        ram_bytes=RAM_PAGES * PAGE,
    )


def test_edge_case_27_the_dirty_count_is_the_total_of_the_period() -> None:
    """migration_bitmap_sync_end traces num_dirty_pages_period, the total of the period."""
    accounting = after_setup()
    sync(accounting, 300, 5, 0)
    sync(accounting, 600, 7, 0)
    assert accounting.num_dirty_pages_period == 12
    sync(accounting, 1500, 2, 0)
    assert accounting.num_dirty_pages_period == 0


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 1500), st.integers(0, 300), st.integers(0, 10**6), st.integers(0, 10**9)
        ),
        max_size=30,
    )
)
def test_nothing_is_lost_and_nothing_counted_twice(syncs: list[tuple[int, int, int, int]]) -> None:
    """Periods add up to all syncs before the last close, in time, pages and bytes."""
    accounting, now_ms, sent = after_setup(), 0, 0
    totals, open_pages, last_close = [0, 0, 0], 0, (0, 0)
    for gap_ms, lasts_ms, new, bytes_ in syncs:
        now_ms, sent, open_pages = now_ms + gap_ms, sent + bytes_, open_pages + new
        period = sync(accounting, now_ms, new, sent, lasts_ms=lasts_ms)
        now_ms += lasts_ms
        assert (period is not None) == (now_ms - last_close[0] > 1000)
        if period is None:
            assert accounting.num_dirty_pages_period == open_pages
            continue
        assert period.dirty_bytes == open_pages * PAGE
        assert period.dirty_pages_rate == open_pages * 1000 // period.length_ms
        totals = [
            totals[0] + period.length_ms,
            totals[1] + open_pages,
            totals[2] + period.xfer_bytes,
        ]
        open_pages, last_close = 0, (now_ms, sent)
    assert (totals[0], totals[2]) == last_close
    assert totals[1] + open_pages == sum(new for _, _, new, _ in syncs)


def test_clean_bytes_are_the_mean_of_a_periods_ends() -> None:
    """300 of 1000 pages are clean at its start, and 500 before the sync that dirties 100."""
    accounting = after_setup()
    accounting.begin(2000)
    accounting.end(2000, 0, 0, 700, "exact")
    accounting.begin(2500)
    accounting.end(2500, 40, 0, 650, "exact")  # closes no period, so the ends of the period stay
    accounting.begin(4000)
    period = accounting.end(4000, 100, 0, 600, "exact")
    assert period is not None
    assert (period.clean_bytes, period.ram_bytes) == (400 * PAGE, 1000 * PAGE)


def test_the_open_period_began_when_the_last_one_closed() -> None:
    accounting = after_setup(100)
    assert accounting.period_ms(600) == 500
    sync(accounting, 1000, 1, 1)
    assert accounting.period_ms(1500) == 1400
    sync(accounting, 2000, 1, 1)
    assert accounting.period_ms(2500) == 500


def test_since_11_1_only_exact_syncs_count_and_only_when_they_end() -> None:
    accounting = SyncAccounting(PAGE, RAM_PAGES, counts_every_sync=False)
    counts = []
    for kind in ("setup", "exact", "fallback", "fallback", "exact", "final"):
        accounting.begin(0)
        counts.append(accounting.dirty_sync_count)
        accounting.end(0, 0, 0, RAM_PAGES, kind)
    assert counts == [1, 1, 2, 2, 2, 3]
    assert (accounting.dirty_sync_count, accounting.bitmap_sync_count) == (3, 6)
