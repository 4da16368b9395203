"""Does a coarse answer say no more than one dirty rate allows?"""

from __future__ import annotations

import pytest

from gpusim.errors import ConfigError
from gpusim.explore.bounds import Bounds
from gpusim.formats.migration_log import COMPLETED, MigrationLog, Progress
from gpusim.predict.coarse import coarse_verdict
from gpusim.predict.coarse_text import answer, facts, why_coarse

GIB, LINK = 2**30, 1e8


def log(share: float | None, outcome: str = "running", **changes: object) -> MigrationLog:
    """One report of an 8 GiB VM on a link of LINK whose guest dirties a share of it."""
    report = Progress(
        time_s=100.0,
        total_bytes=8 * GIB,
        transferred_bytes=10 * GIB,
        remaining_bytes=GIB,
        bytes_per_s=LINK,
        dirty_bytes_per_s=None if share is None else share * LINK,
        iteration=3,
    )
    return MigrationLog(
        kind="hmp",
        reports=(report,),
        outcome=outcome,
        seconds=100.0,
        **changes,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(
    ("share", "code"),
    [
        (1.5, "no"),
        (1.0, "no"),
        (0.95, "probably_no"),
        (0.7, "unknown"),
        (0.3, "probably_yes"),
        (None, "unknown"),
    ],
)
def test_the_share_of_the_link_decides(share: float | None, code: str) -> None:
    found = coarse_verdict(log(share))
    assert found.code == code
    assert (found.left_s is None) == (share is None or share >= 0.9)
    assert answer(found) and why_coarse(found) and facts(found.log)


def test_time_left_is_the_sum_of_shorter_passes() -> None:
    found = coarse_verdict(log(0.5, limits=((0.0, 1000),)))
    passes, left = [], float(GIB)
    while left > LINK:
        passes.append(left / LINK)
        left /= 2
    assert found.left_s == pytest.approx(sum(passes))


def test_a_completed_migration_is_reported_as_it_was() -> None:
    bounds = Bounds(total_time_s=90.0, downtime_ms=300.0, guest_cpu_lost_percent=5.0)
    found = coarse_verdict(log(2.0, COMPLETED, downtime_ms=120.0), bounds=bounds)
    assert found.code == "yes" and found.is_seen and not why_coarse(found)
    assert [one.code for one in found.bounds] == ["no", "yes", "unknown"]


def test_a_deadline_is_judged_by_the_dirty_rate() -> None:
    bounds = Bounds(total_time_s=1000.0)
    codes = [coarse_verdict(log(share), bounds=bounds).bounds[0].code for share in (1.2, 0.7, 0.3)]
    assert codes == ["no", "unknown", "probably_yes"]
    late = coarse_verdict(log(0.3), bounds=Bounds(total_time_s=100.1))
    assert late.bounds[0].code == "probably_no"


def test_a_stated_link_asks_for_the_next_migration() -> None:
    found = coarse_verdict(log(1.2, COMPLETED), ["link=25gbit"])
    assert found.is_stated and not found.is_seen and found.code == "probably_yes"
    assert found.link_bytes_per_s == 25e9 / 8
    with pytest.raises(ConfigError):
        coarse_verdict(log(1.2), ["link.bandwidth=fast"])
    with pytest.raises(ConfigError):
        coarse_verdict(log(1.2), ["no.such=1"])
