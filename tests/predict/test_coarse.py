"""Does a coarse answer say no more than one dirty rate allows?"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from gpusim.errors import ConfigError
from gpusim.explore.bounds import Bounds
from gpusim.formats.intake import read_intake
from gpusim.formats.migration_log import COMPLETED, MigrationLog, Progress
from gpusim.formats.status_texts import answers_of_hmp, log_of_answers
from gpusim.predict.coarse import coarse_verdict
from gpusim.predict.coarse_text import answer, facts, why_coarse
from tests.cli.command import REPOSITORY

LOGS = REPOSITORY / "docs" / "logs"
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


def values(found: object) -> dict[str, str]:
    return {one.name: one.settings for one in found.values}  # type: ignore[attr-defined]


def test_a_coarse_no_names_values_to_set() -> None:
    found = coarse_verdict(log(1.2))
    assert values(found) == {
        "throttle": "migration.auto_converge=true",
        "bandwidth": "link.bandwidth=2Gbit/s",  # 1.92, twice the dirty rate
        "downtime_limit": "migration.downtime_limit=10800",  # 1 GiB at 100 MB/s
    }
    assert found.values[0].value == 60  # the guest then dirties 48 % of the link
    text = " ".join(answer(found))
    for shown in ("60 % or more", "2 Gbit/s", "10.8 s", "rough estimate"):
        assert shown in text


def test_each_value_halves_the_passes_or_fits_the_limit() -> None:
    """If the dirty rate follows the throttle and stays, then the values do what they promise."""
    for share in (0.6, 0.95, 1.0, 3.0, 20.0):
        named = {one.name: one.value for one in coarse_verdict(log(share)).values}
        assert share * LINK <= 0.5 * named["bandwidth"] <= 1.1 * share * LINK
        assert named["downtime_limit"] * LINK / 1000 >= GIB
        assert share * (1 - named["throttle"] / 100) <= 0.5
        assert share * (1 - (named["throttle"] - 10) / 100) > 0.5


def test_values_keep_what_the_user_allows() -> None:
    assert "downtime_limit" not in values(coarse_verdict(log(1.2), bounds=Bounds(downtime_ms=1e3)))
    needed = 1.2 * LINK + 8 * GIB / 30  # all memory in 30 s, beside what the guest writes
    for one in coarse_verdict(log(1.2), bounds=Bounds(total_time_s=30.0)).values:
        if one.name == "bandwidth":
            assert needed <= one.value <= 1.1 * needed
    fast = coarse_verdict(log(60.0, limits=((0.0, 20_000),)))
    assert values(fast) == {"bandwidth": "link.bandwidth=96Gbit/s migration.multifd_channels=10"}
    assert coarse_verdict(log(0.3)).values == ()
    assert coarse_verdict(log(None)).values == ()


def test_a_throttle_that_is_on_needs_a_harder_one() -> None:
    report = replace(log(0.9).last, throttle_percent=50)
    found = coarse_verdict(replace(log(0.9), reports=(report,)))
    assert found.values[0].value == 80  # 50 % of the time gives 0.9, so 20 % gives 0.36
    stuck = replace(report, throttle_percent=99)
    found = coarse_verdict(replace(log(0.9), reports=(stuck,)))
    assert "throttle" not in values(found)


def test_qemus_own_estimate_of_the_downtime_counts() -> None:
    report = replace(log(1.2).last, expected_downtime_ms=12_345.0)
    found = coarse_verdict(replace(log(1.2), reports=(report,)))
    assert values(found)["downtime_limit"] == "migration.downtime_limit=12400"


def test_a_completed_migration_beyond_its_limits_names_values() -> None:
    bounds = Bounds(total_time_s=90.0, downtime_ms=300.0)
    found = coarse_verdict(log(0.2, COMPLETED, downtime_ms=600.0), bounds=bounds)
    assert values(found) == {
        "bandwidth": "link.bandwidth=930Mbit/s",  # 20 MB/s and 8 GiB in 90 s
        "downtime_limit": "migration.downtime_limit=150",
    }
    assert "To keep the limits" in " ".join(answer(found))


def postcopy_answer(status: str = "postcopy-active", **changes: object) -> dict[str, object]:
    """Return an answer of query-migrate after the switch. Its dirty rate is that of precopy."""
    ram = {
        "total": 8 * GIB, "transferred": 10 * GIB, "remaining": GIB, "mbps": 800.0, "duplicate": 0,
        "normal": 2_500_000, "dirty-sync-count": 5, "dirty-pages-rate": 23_000,
        "postcopy-requests": 12,
    }  # fmt: skip
    return {"status": status, "total-time": 100_000, "downtime": 40, "ram": ram, **changes}


def test_after_the_switch_to_postcopy_no_dirty_rate_counts() -> None:
    """Its dirty rate is 94 % of the link, which in precopy is a probable no."""
    before = log_of_answers("answers", [postcopy_answer("active", ram=precopy_ram())])
    assert before is not None and coarse_verdict(before).code == "probably_no"
    log = log_of_answers("answers", [postcopy_answer()])
    assert log is not None
    found = coarse_verdict(log, bounds=Bounds(total_time_s=600, downtime_ms=1000))
    assert found.code == "yes" and not found.values
    assert found.left_s == pytest.approx(GIB / 1e8)
    assert [one.code for one in found.bounds] == ["probably_yes", "yes"]
    text = " ".join(answer(found))
    assert text.startswith("Yes: the migration has switched to post-copy")
    assert "Do not cancel" in text and "What may help" not in text
    assert "post-copy" in dict(facts(log)) and "coarse" not in " ".join(why_coarse(found))


def precopy_ram() -> dict[str, object]:
    ram = postcopy_answer()["ram"]
    assert isinstance(ram, dict)
    return {**ram, "postcopy-requests": 0}


@pytest.mark.parametrize("status", ["postcopy-paused", "postcopy-recover"])
def test_a_link_lost_in_postcopy_asks_for_a_resume(status: str) -> None:
    log = log_of_answers("answers", [postcopy_answer(status)])
    assert log is not None
    found = coarse_verdict(log)
    assert (found.code, found.left_s) == ("no", None)
    assert "migrate_recover" in answer(found)[0]


def test_a_migration_that_completed_with_postcopy_says_so() -> None:
    log = log_of_answers("answers", [postcopy_answer("completed")])
    assert log is not None
    assert answer(coarse_verdict(log))[0].startswith("Yes: the migration completed with post-copy")


def test_another_link_asks_for_the_next_migration_not_for_postcopy() -> None:
    log = log_of_answers("answers", [postcopy_answer()])
    assert log is not None
    found = coarse_verdict(log, ["link.bandwidth=10Gbit/s"])
    assert not found.is_in_postcopy and "next migration" in answer(found)[0]


@pytest.mark.parametrize(
    "text",
    [
        "Migration status: postcopy-active\ntotal ram: 8388608 kbytes\ntransferred ram: 9 kbytes\n",
        "Status: postcopy-active\nTransfers: transferred=1 GiB remain=1 GiB\n total=8 GiB\n",
    ],
)
def test_the_human_monitor_shows_the_switch(text: str) -> None:
    log = log_of_answers("hmp", answers_of_hmp(text))
    assert log is None or log.is_in_postcopy


def test_libvirts_requests_for_pages_show_the_switch(tmp_path: Path) -> None:
    text = (LOGS / "domjobinfo.txt").read_text()
    (tmp_path / "a.txt").write_text(text + "Postcopy requests: 7\n")
    found = read_intake(tmp_path / "a.txt").log
    assert found is not None and found.is_in_postcopy
    (tmp_path / "b.txt").write_text(text + "Postcopy requests: 0\n")
    found = read_intake(tmp_path / "b.txt").log
    assert found is not None and not found.is_in_postcopy


def test_a_limit_of_qemu_that_stands_in_the_way_is_raised_too() -> None:
    known = {"max-cpu-throttle": 40, "max-bandwidth": int(LINK)}
    assert values(coarse_verdict(log(1.2, parameters=known))) == {
        "throttle": "migration.auto_converge=true migration.max_cpu_throttle=60",
        "bandwidth": "link.bandwidth=2Gbit/s migration.max_bandwidth=0",
        "downtime_limit": "migration.downtime_limit=10800",
    }


PROXMOX = """\
2026-03-02 22:10:00 starting migration of VM 9001 to node 'px-b' (192.168.7.12)
2026-03-02 22:10:04 migration active, transferred 1.1 GiB of 256.0 GiB VM-state, 1.2 GiB/s
2026-03-02 22:12:04 migration active, transferred 141.0 GiB of 256.0 GiB VM-state, 1.1 GiB/s
2026-03-02 22:13:44 migration active, transferred 255.0 GiB of 256.0 GiB VM-state, 1.1 GiB/s
2026-03-02 22:14:10 migration active, transferred 285.0 GiB of 256.0 GiB VM-state, 1.1 GiB/s, VM dirties lots of memory: 1.3 GiB/s
2026-03-02 22:15:20 migration status error: failed - Unable to write to socket: Connection reset by peer
2026-03-02 22:15:20 ERROR: online migrate failure - aborting
"""


def test_a_proxmox_log_with_few_dirty_rates_is_not_said_to_have_none(tmp_path: Path) -> None:
    path = tmp_path / "task.log"
    path.write_text(PROXMOX)
    intake = read_intake(path)
    assert intake.log is not None
    text = " ".join(answer(coarse_verdict(intake.log)))
    assert "failed after 4.17 min: Unable to write to socket: Connection reset by peer." in text
    assert "1 of the last 4 reports print a dirty rate above the speed" in text
    assert "was below the speed" not in text


NOVA = "[instance: aaaa] Migration running for {} secs, memory 9% remaining (bytes processed={}, remaining={}, total={})\n"


def test_the_first_line_of_nova_knows_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "nova.log"
    lines = [(0, 0, 0, 0), (300, 33 * 10**10, 8 * 10**10, 4 * 10**11)]
    path.write_text("".join(NOVA.format(*line) for line in lines))
    intake = read_intake(path)
    assert intake.log is not None
    assert [one.remaining_bytes for one in intake.log.reports] == [None, 8 * 10**10]
    text = " ".join(answer(coarse_verdict(intake.log)))
    assert "Two lines after the first pass tell a dirty rate" in text


def test_a_stated_link_is_no_faster_than_the_threads_of_a_slow_host() -> None:
    """One thread sends 10 to 26 Gbit/s, so a link of 40 Gbit/s does not make a yes."""
    at_12_gbit = log(15.0)
    found = coarse_verdict(at_12_gbit, ["link=unlimited", "link.bandwidth=40Gbit/s"])
    assert found.code == "unknown"
    assert found.left_s is None
    text = " ".join(answer(found))
    assert "A slow host sends only 1192 MiB/s (10 Gbit/s)" in text
    assert "add migration.multifd_channels=4" in text
    wide = coarse_verdict(at_12_gbit, ["link.bandwidth=40Gbit/s", "migration.multifd_channels=4"])
    assert wide.code == "probably_yes"
    assert "slow host" not in " ".join(answer(wide))
    assert coarse_verdict(log(0.9), ["link=10gbit"]).code == "probably_yes"
    slow = coarse_verdict(log(1.0), ["link=25gbit"])
    fast = coarse_verdict(log(1.0), ["link=25gbit", "migration.multifd_channels=4"])
    assert slow.code == fast.code == "probably_yes"
    assert slow.left_s is not None and fast.left_s is not None
    assert slow.left_s > 2 * fast.left_s
    assert "up to" in " ".join(answer(slow))


@pytest.mark.parametrize("override", ["vm.memory=2GiB", "seed=3", "~link"])
def test_a_setting_that_a_coarse_answer_would_ignore_is_refused(override: str) -> None:
    with pytest.raises(ConfigError):
        coarse_verdict(log(0.4), [override])


def test_a_stated_downtime_limit_counts() -> None:
    """8 GiB over 1.25 GB/s take 6.9 s, and the second pass 0.3 of the time."""
    short = coarse_verdict(log(3.75), ["link=10gbit", "migration.downtime_limit=10"])
    long = coarse_verdict(log(3.75), ["link=10gbit", "migration.downtime_limit=3000"])
    assert long.left_s == pytest.approx(8 * GIB / 1.25e9, rel=0.01)
    assert short.left_s == pytest.approx(8 * GIB / 1.25e9 / 0.7, rel=0.01)
