"""Does a recording have a summary of three lines, whether it completed or was cancelled?"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gpusim.reading import read_bytes
from gpusim.record.summary import summarize_attached, summarize_own
from gpusim.validation.shipped import SHIPPED


@pytest.mark.parametrize(
    ("last", "first_line"),
    [
        (
            {"t": 9.9, "status": "completed", "total-time": 9500, "downtime": 24},
            "completed after 9.5 s, downtime 24 ms, 1 sync, highest throttle 30 %",
        ),
        (
            {"t": 60.2, "status": "cancelled"},
            "cancelled after 60.2 s, 1 sync, highest throttle 30 %",
        ),
    ],
)
def test_summary(last: dict, first_line: str, tmp_path: Path) -> None:
    path = tmp_path / "case.qemu9.a.json.xz"
    path.write_bytes(bytes(12_000))
    document = {
        "samples": [{"t": 5.0, "status": "active", "cpu-throttle-percentage": 30}, last],
        "events": [[1.0, "migration_bitmap_sync_end", "dirty_pages 5"]],
        "writes_per_s_before": 1000.4,
        "flat_out_writes_per_s": 2e6,
    }
    assert summarize_own(document, path).splitlines() == [
        first_line,
        "guest: 1000 page writes/s before the migration, 2000000 at full speed",
        f"{path}, 12 kB",
    ]


def test_a_summary_has_both_counts_of_syncs(tmp_path: Path) -> None:
    document = json.loads(read_bytes(SHIPPED / "short" / "fallback.qemu11.a.json.xz"))
    path = tmp_path / "case.json"
    path.write_bytes(b"")
    assert "16 syncs (QEMU reports 12), " in summarize_own(document, path).splitlines()[0]
    document |= {"events": [], "ended": "completed", "notes": []}
    document["scenario"]["guest"] = None
    assert "16 syncs (QEMU reports 12), " in summarize_attached(document, path).splitlines()[0]
