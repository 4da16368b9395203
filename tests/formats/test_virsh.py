"""Does gpusim read a profile from a log of virsh, and refuse an unusable log?"""

from __future__ import annotations

from pathlib import Path

import pytest

from gpusim.formats.errors import ProfileError
from gpusim.formats.virsh import from_domstats, load_domstats

DOMINFO = """Id:             3
Name:           web
CPU(s):         4
Max memory:     8388608 KiB
Used memory:    4194304 KiB
"""


def run(
    seconds: object,
    rate: object,
    *,
    start: int = 1000,
    status: int | str = 2,
    mode: str | None = "page-sampling",
    name: str = "web",
) -> str:
    """Return what domstats --dirtyrate prints for one measurement."""
    lines = [
        f"Domain: '{name}'",
        f"  dirtyrate.calc_status={status}",
        f"  dirtyrate.calc_start_time={start}",
        f"  dirtyrate.calc_period={seconds}",
        f"  dirtyrate.megabytes_per_second={rate}",
    ]
    if mode:
        lines += [f"  dirtyrate.calc_mode={mode}", "  dirtyrate.vcpu.0.megabytes_per_second=1"]
    return "\n".join([*lines, "", ""])


THREE = run(1, 300) + run(5, 80, start=1010) + run(10, 45, start=1020)


def test_a_log_of_virsh_is_a_profile() -> None:
    profile = from_domstats(DOMINFO + THREE, "log")
    assert [(one.seconds, one.dirty_rate, one.at_s) for one in profile.measurements] == [
        (1, 300, 0),
        (5, 80, 10),
        (10, 45, 20),
    ]
    assert (profile.memory_bytes, profile.vcpus, profile.mode) == (2**33, 4, "page-sampling")
    assert profile.sampled == 8 * 512
    assert "'web'" not in profile.source
    assert "web" in profile.source


def test_the_size_comes_from_the_caller_or_from_the_log() -> None:
    balloon = "  balloon.maximum=1048576\n  vcpu.current=2\n"
    assert from_domstats(balloon + THREE, "log").memory_bytes == 2**30
    assert from_domstats(balloon + THREE, "log").vcpus == 2
    cut_off = from_domstats(THREE + balloon + "  vcpu.current=", "log")
    assert (cut_off.memory_bytes, cut_off.vcpus) == (2**30, 1)
    asked = from_domstats(DOMINFO + THREE, "log", 2**34, 8)
    assert (asked.memory_bytes, asked.vcpus) == (2**34, 8)


def test_a_repeated_print_counts_once_and_an_unfinished_measurement_does_not_count() -> None:
    again = run(1, 300, status=1) + THREE + run(10, 45, start=1020) + run(10, 0, status=1)
    assert len(from_domstats(again, "log", 2**33).measurements) == 3


def test_repeats_of_a_period_are_kept() -> None:
    assert len(from_domstats(THREE + run(1, 300, start=1040), "log", 2**33).measurements) == 4


def test_an_old_libvirt_prints_no_mode() -> None:
    old = "".join(run(s, 10, start=s, status="measured", mode=None) for s in (1, 3, 9))
    assert from_domstats(old, "log", 2**33).mode == "page-sampling"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "no_measurement"),
        (run(1, 5, status=1), "no_measurement"),
        (run(1, 5) + run(2, 5, start=3), "too_few_periods"),
        (THREE + run(1, 5, name="db"), "several_vms"),
        (THREE + run(1, 5, start=5, mode="dirty-bitmap"), "several_modes"),
        (THREE + run(0, 5, start=5), "bad_value"),
        (THREE + run(3, "many", start=5), "bad_value"),
    ],
)
def test_an_unusable_log_is_refused(text: str, code: str) -> None:
    with pytest.raises(ProfileError) as caught:
        from_domstats(text, "dir/log", 2**33)
    assert caught.value.code == code
    line = str(caught.value)
    assert line.startswith("dir/log: ") and "\n" not in line


def test_a_log_without_the_vms_size_is_refused(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text(THREE)
    for path, code in ((log, "no_memory_size"), (tmp_path / "none", "unreadable")):
        with pytest.raises(ProfileError) as caught:
            load_domstats(path, None, None)
        assert caught.value.code == code


def test_vcpus_come_from_the_measured_rings_if_nothing_else_has_them() -> None:
    ring = "".join(
        run(seconds, 8, start=1000 + seconds, mode="dirty-ring")
        + "  dirtyrate.vcpu.1.megabytes_per_second=4\n"
        for seconds in (1, 5, 10)
    )
    assert from_domstats(ring, "log", 2**30).vcpus == 2
    assert from_domstats(DOMINFO + ring, "log").vcpus == 4


def test_a_number_of_5000_digits_is_no_size(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text(f"Max memory:     {'9' * 5000} KiB\n")
    with pytest.raises(ProfileError) as caught:
        load_domstats(log, None, None)
    assert caught.value.code == "no_memory_size"
