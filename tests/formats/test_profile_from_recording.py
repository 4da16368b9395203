"""Does an earlier migration become the profile of its syncs, and is a short one refused?"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gpusim.fit.writers import fit_writers
from gpusim.formats.errors import ProfileError, RecordingError
from gpusim.formats.profile import Profile
from gpusim.formats.profile_from_recording import from_recording, load
from gpusim.formats.recording import RecordedGuest
from gpusim.formats.recording_file import load_recording
from gpusim.validation.profile_accuracy import PROFILED
from gpusim.validation.shipped import RECORDER


def recorded(name: str) -> Profile:
    return from_recording(load_recording(RECORDER / f"{name}.json.xz"))


def distinct(guest: RecordedGuest, writes: float) -> float:
    """Return the expected number of distinct pages that so many writes of a guest hit."""
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
def test_periods_have_the_distinct_pages_of_the_counted_writes(name: str) -> None:
    """Each period is within 8 %, and half of them within 3 %.

    Waiting pages are not counted, and the first pass counts other pages of the PC. If a guest has
    hot pages, the pages that wait at the end of a pass are cold, and the correction is too large.
    """
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
    assert max(off) < (0.1 if name.startswith("hot") else 0.08)
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
    fit = fit_writers(recorded(name))
    assert sum(one.pages for one in fit.writers) / 256 == pytest.approx(mib, rel=within)


def test_a_sequential_guest_is_seen_to_be_one() -> None:
    assert [one.kind for one in fit_writers(recorded("seq_mid.qemu10.a")).writers] == ["sequential"]


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
    """At the fallback sync at 30 s, 54000 pages waited, so it found almost none of the writes."""
    ends = [one.at_s + one.seconds for one in recorded("seq_mid.qemu10.a").measurements]  # type: ignore[operator]
    assert not any(29.5 < end < 30.5 for end in ends)


def test_a_migration_of_one_pass_is_refused() -> None:
    with pytest.raises(ProfileError) as caught:
        recorded("paced_high.qemu10.a")
    assert caught.value.code == "too_few_periods"


def test_a_recording_tells_how_its_migration_ended() -> None:
    recording = load_recording(RECORDER / "seq_mid.qemu10.a.json.xz")
    found = recorded("seq_mid.qemu10.a").outcome
    assert found is not None and found.completed
    assert found.seconds == recording.total_time_s
    assert found.max_throttle_percent == max(s.cpu_throttle_percentage for s in recording.samples)
    measured = load(PROFILED / "never_enough.qemu10.a.json.xz").outcome
    assert measured is not None and not measured.completed


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
    with pytest.raises(RecordingError) as caught:
        load(broken)
    assert (caught.value.code, caught.value.data["path"]) == ("unreadable", broken)
