"""Are QEMU's trace events found among its other lines?"""

from __future__ import annotations

import pytest

from gpusim.record.trace_log import TraceLine, parse_trace_line


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            "4711@1795688650.522936:migration_bitmap_sync_end dirty_pages 5",
            TraceLine(
                time_s=1795688650.522936,
                name="migration_bitmap_sync_end",
                arguments="dirty_pages 5",
            ),
        ),
        (
            "4711@12.000001:migration_throttle ",
            TraceLine(time_s=12.000001, name="migration_throttle", arguments=""),
        ),
        (
            "migrate_set_state new state setup",
            TraceLine(time_s=99.0, name="migrate_set_state", arguments="new state setup"),
        ),
        (
            "2026-11-28T22:16:33.664345Z migration_bitmap_sync_end dirty_pages 5",
            TraceLine(
                time_s=1795904193.664345,
                name="migration_bitmap_sync_end",
                arguments="dirty_pages 5",
            ),
        ),
        (
            "2026-11-28T22:16:33.000001Z migration_throttle ",
            TraceLine(time_s=1795904193.000001, name="migration_throttle", arguments=""),
        ),
        (
            "2026-11-28T22:16:33.664345Z qemu_savevm_query_pending exact=1, final=0, precopy=8",
            TraceLine(
                time_s=1795904193.664345,
                name="qemu_savevm_query_pending",
                arguments="exact=1, final=0, precopy=8",
            ),
        ),
        ("qemu_savevm_query_pending exact=0, final=0, precopy=8", None),
        ("2026-13-28T22:16:33.664345Z migration_throttle ", None),
        ("2026-11-28T22:16:61.664345Z migration_throttle ", None),
        ("2026-11-28T22:16:33Z migration_throttle ", None),
        ("2026-11-28T22:16:33.664345Z migration_bitmap_clear_dirty rb pc.ram", None),
        ("2026-11-28T22:16:33.664345Z qemu-system-x86_64: warning: trace event 'x'", None),
        ("4711@12.000001:vm_state_notify running 1", None),
        ("qemu-system-x86_64: warning: trace event 'cpu_throttle_set' does not exist", None),
        (f"4711@{'9' * 400}.0:migration_throttle ", None),
        ("", None),
    ],
)
def test_line(line: str, expected: TraceLine | None) -> None:
    assert parse_trace_line(line, arrival_s=99.0) == expected
