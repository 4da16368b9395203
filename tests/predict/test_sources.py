"""Do logs of virsh's and earlier migrations become the profiles that they hold, and bad ones a line?"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gpusim.predict.fit import fitted
from gpusim.predict.profile import Profile, ProfileError
from gpusim.predict.sources import from_domstats, from_recording, load, load_domstats
from gpusim.validation.recording import RECORDER, RecordedGuest, load_recording

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
    """As domstats --dirtyrate prints it."""
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


def test_size_is_taken_as_asked_or_from_domstats_itself() -> None:
    balloon = "  balloon.maximum=1048576\n  vcpu.current=2\n"
    assert from_domstats(balloon + THREE, "log").memory_bytes == 2**30
    assert from_domstats(balloon + THREE, "log").vcpus == 2
    asked = from_domstats(DOMINFO + THREE, "log", 2**34, 8)
    assert (asked.memory_bytes, asked.vcpus) == (2**34, 8)


def test_a_measurement_that_was_printed_again_counts_once_and_one_under_way_not_at_all() -> None:
    again = run(1, 300, status=1) + THREE + run(10, 45, start=1020) + run(10, 0, status=1)
    assert len(from_domstats(again, "log", 2**33).measurements) == 3


def test_repeats_of_a_period_are_kept() -> None:
    assert len(from_domstats(THREE + run(1, 300, start=1040), "log", 2**33).measurements) == 4


def test_an_old_libvirt_tells_no_mode() -> None:
    old = "".join(run(s, 10, start=s, status="measured", mode=None) for s in (1, 3, 9))
    assert from_domstats(old, "log", 2**33).mode == "page-sampling"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no dirtyrate.calc_status=2"),
        (run(1, 5, status=1), "no dirtyrate.calc_status=2"),
        (run(1, 5) + run(2, 5, start=3), "2 different periods"),
        (THREE + run(1, 5, name="db"), "tells of db, web; expected one VM"),
        (THREE + run(1, 5, start=5, mode="dirty-bitmap"), "several modes"),
        (THREE + run(0, 5, start=5), "calc_period is 0; expected a number from 0.05 to 60"),
        (THREE + run(3, "many", start=5), "megabytes_per_second is many"),
    ],
)
def test_a_log_that_tells_nothing_is_refused(text: str, words: str) -> None:
    with pytest.raises(ProfileError, match=words) as caught:
        from_domstats(text, "dir/log", 2**33)
    assert str(caught.value).startswith("dir/log: ")
    assert "\n" not in str(caught.value)


def test_a_log_without_the_vms_size_is_refused(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text(THREE)
    with pytest.raises(ProfileError, match="how large the VM is"):
        load_domstats(log, None, None)
    with pytest.raises(ProfileError, match="cannot be read"):
        load_domstats(tmp_path / "none", None, None)


def recorded(name: str) -> Profile:
    return from_recording(load_recording(RECORDER / f"{name}.json.xz"))


def distinct(guest: RecordedGuest, writes: float) -> float:
    """Pages that so many writes of a guest's hit, in the mean."""
    pages = guest.size_mib * 256
    if guest.sequential:
        return min(writes, pages)
    hot, share = (guest.hot_mib or 0) * 256, (guest.hot_percent or 0) / 100
    bands = [(hot, share), (pages - hot, 1 - share)]
    return sum(size * (1 - np.exp(-writes * part / size)) for size, part in bands if size)


@pytest.mark.parametrize(
    "name",
    ["seq_mid.qemu10.a", "uniform_mid.qemu10.a", "uniform_mid.qemu7.a", "kvm_uniform.qemu10.b",
     "hot_small.qemu10.a", "tail_slow.qemu10.a", "full_speed.qemu10.a"],
)  # fmt: skip
def test_periods_tell_the_distinct_pages_of_the_writes_that_the_guest_counted(name: str) -> None:
    """Each within 8 %, half of them within 3 %: those that wait are not seen, and in the first pass a
    PC's other pages are counted with the guest's."""
    recording = load_recording(RECORDER / f"{name}.json.xz")
    assert recording.guest is not None
    times_s, writes = zip(*recording.counter, strict=True)
    off = []
    for one in from_recording(recording).measurements:
        assert one.at_s is not None
        ends = np.interp([one.at_s, one.at_s + one.seconds], times_s, writes)
        expected = distinct(recording.guest, float(np.diff(ends)[0]))
        off.append(abs(one.dirty_rate * one.seconds * 256 / expected - 1))
    assert len(off) >= 3
    assert max(off) < 0.08
    assert np.median(off) < 0.03 or name.startswith("hot")  # of three


@pytest.mark.parametrize(
    ("name", "mib", "within"),
    [
        ("seq_mid.qemu10.a", 512, 0.05),
        ("uniform_mid.qemu10.a", 512, 0.15),
        ("tail_slow.qemu10.a", 512, 0.05),
        ("kvm_uniform.qemu10.a", 512, 0.2),
        ("zero_pages.qemu10.a", 256, 0.1),
    ],
)
def test_an_earlier_migration_tells_the_size_of_its_guest(
    name: str, mib: int, within: float
) -> None:
    fit = fitted(recorded(name))
    assert sum(one.pages for one in fit.writers) / 256 == pytest.approx(mib, rel=within)


def test_a_sequential_guest_is_seen_to_be_one() -> None:
    assert [one.kind for one in fitted(recorded("seq_mid.qemu10.a")).writers] == ["sequential"]


def test_zero_pages_of_the_first_pass_are_counted() -> None:
    assert recorded("zero_pages.qemu10.a").zero_share == pytest.approx(0.75, abs=0.01)


def test_throttled_periods_say_how_long_vcpus_ran() -> None:
    profile = recorded("seq_mid.qemu10.a")
    assert profile.measurements[0].running == 1
    assert 0.55 < profile.measurements[-1].running < 0.65
    assert any("throttle" in note for note in profile.notes)
    assert profile.qemu is not None
    assert profile.qemu[0] == 10
    assert "auto-converge" in profile.capabilities


def test_syncs_in_the_middle_of_a_pass_end_no_period() -> None:
    """A fallback sync at 30 s, while 54000 pages waited: next to none of those written were found."""
    ends = [one.at_s + one.seconds for one in recorded("seq_mid.qemu10.a").measurements]  # type: ignore[operator]
    assert not any(29.5 < end < 30.5 for end in ends)


def test_a_migration_of_one_pass_is_refused() -> None:
    with pytest.raises(ProfileError, match="expected a migration of three passes"):
        recorded("paced_high.qemu10.a")


def test_load_tells_profiles_from_recordings(tmp_path: Path) -> None:
    typed = tmp_path / "vm.json"
    typed.write_text(
        '{"memory": "1GiB", "measurements": [{"seconds": 1, "dirty_rate": 9},'
        ' {"seconds": 2, "dirty_rate": 8}, {"seconds": 5, "dirty_rate": 7}]}'
    )
    assert load(typed).memory_bytes == 2**30
    assert load(RECORDER / "seq_mid.qemu10.a.json.xz").source.endswith("seq_mid.qemu10.a")
    broken = tmp_path / "cut.json.xz"
    broken.write_bytes((RECORDER / "seq_mid.qemu10.a.json.xz").read_bytes()[:500])
    with pytest.raises(ProfileError, match=r"cut\.json\.xz: .*damaged"):
        load(broken)
