"""The experiments about schedules and attempts do what the documents say."""

from __future__ import annotations

import re

import pytest

from gpusim import simulate
from tests.cli.command import REPOSITORY, composed

DOCUMENT = REPOSITORY / "docs/how-to/change-a-running-migration.md"
TIMER = REPOSITORY / "docs/explanation/fallback-timer.md"


def test_the_zombie_aborts_v3_and_spares_what_was_merged() -> None:
    posted = simulate(composed("experiment=zombie_timer")).summary
    merged = simulate(composed("experiment=zombie_timer", "migration=qemu_9_2")).summary
    assert (posted.qemu_version, posted.verdict) == ("seed_v3", "aborted")
    assert (merged.qemu_version, merged.verdict) == ("qemu_9_2", "cancelled")


@pytest.mark.slow
def test_table_of_second_migrations() -> None:
    rows = []
    for version in ("seed_v3", "seed_v4", "qemu_9_2"):
        runs = [
            simulate(
                composed("experiment=cancel_and_retry", f"migration={version}", f"seed={seed}")
            )
            for seed in range(1, 6)
        ]
        gaps = [
            {
                f"{next(s.time_s for s in run.syncs if s.kind == 'fallback') - run.syncs[1].time_s:.2f}"
                for run in attempt
            }
            for attempt in ([run.before[0].result for run in runs], runs)
        ]
        throttled = [run.summary.first_throttle_s for run in runs]
        totals = [run.summary.total_time_s for run in runs]
        assert [len(found) for found in gaps] == [1, 1]
        first, again = (found.pop() for found in gaps)
        rows.append(
            f"| `{version}` | {first} s | {again} s | {min(throttled):.1f} to {max(throttled):.1f} "
            f"| {min(totals):.1f} to {max(totals):.1f} |"
        )
    text = TIMER.read_text()
    assert not [row for row in rows if row not in text], rows


def test_suspended_by_libvirt() -> None:
    summary = simulate(composed("experiment=virsh_timeout")).summary
    text = " ".join(DOCUMENT.read_text().split())
    assert f"the VM is at the destination after {summary.total_time_s:.0f} s" in text
    assert f"QEMU reports {summary.downtime_ms:.0f} ms of downtime" in text
    assert f"stood still for {summary.paused_s:.0f} s" in text
    assert re.search(r"suspended after 20 min", text)
