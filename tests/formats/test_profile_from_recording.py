"""Does an earlier migration become the profile of its syncs, and is a short one refused?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gpusim.fit.writers import fit_writers
from gpusim.formats.errors import IntakeError, ProfileError
from gpusim.formats.intake import read_intake
from gpusim.formats.migration_history import SyncHistory, SyncPeriod
from gpusim.formats.profile import Profile, check_plausible
from gpusim.formats.profile_from_recording import (
    find_load_end,
    from_recording,
    zero_page_speed,
)
from gpusim.formats.recording import Recording, Sample
from gpusim.formats.recording_file import load_recording
from gpusim.formats.sync_record import Sync, find_syncs
from gpusim.validation.profile_accuracy import PROFILED
from gpusim.validation.shipped import RECORDER


def recorded(name: str) -> Profile:
    return from_recording(load_recording(RECORDER / f"{name}.json.xz"))


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
    assert profile.history is not None and profile.history.is_throttled
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
    measured = loaded(PROFILED / "never_enough.qemu10.a.json.xz").outcome
    assert measured is not None and not measured.completed


HOVERING = [Sync(time_s=20.0 + n, newly_dirty_pages=9000, sent_pages=0) for n in range(30)]
CALM = [Sync(time_s=50.0 + n, newly_dirty_pages=10, sent_pages=0) for n in range(3)]


def unthrottled(**changes: Any) -> Recording:
    recording = load_recording(RECORDER / "seq_mid.qemu10.a.json.xz")
    samples = tuple(replace(one, cpu_throttle_percentage=0) for one in recording.samples)
    return replace(recording, samples=samples, total_time_s=53.0, **changes)


def test_a_hovering_migration_that_ends_shows_the_end_of_the_load() -> None:
    assert find_load_end(unthrottled(), HOVERING + CALM) == pytest.approx(49, abs=0.1)
    steady = [*HOVERING, *(replace(one, newly_dirty_pages=9000) for one in CALM)]
    assert find_load_end(unthrottled(), steady) is None
    falling = [replace(one, newly_dirty_pages=9000 - 300 * n) for n, one in enumerate(HOVERING)]
    assert find_load_end(unthrottled(), falling) is None
    assert find_load_end(unthrottled(), HOVERING[:5] + CALM) is None


def test_a_throttle_or_a_cancel_is_no_end_of_the_load() -> None:
    throttled = load_recording(RECORDER / "seq_mid.qemu10.a.json.xz")
    assert find_load_end(throttled, HOVERING + CALM) is None
    assert find_load_end(replace(unthrottled(), total_time_s=None), HOVERING + CALM) is None


def test_zero_pages_tell_how_fast_the_host_finds_them() -> None:
    """Its 1.5 GiB of zero pages take part of a second. A sender below its limit was busy with them."""
    recording = load_recording(RECORDER / "zero_pages.qemu10.a.json.xz")
    found = zero_page_speed(recording)
    assert found is not None
    assert 1e8 < found[0] < 2e11
    slow = replace(recording, parameters=dict(recording.parameters) | {"max-bandwidth": 10**13})
    bounds = zero_page_speed(slow)
    assert bounds is not None
    assert bounds[0] == found[0] <= bounds[1] < 2 * found[0]


def test_an_earlier_migration_of_an_idle_guest_is_a_profile() -> None:
    nothing = SyncPeriod(seconds=14.0, pages=0, left=0.0)
    idle = Profile(source="a test", memory_bytes=2**30, history=SyncHistory(periods=(nothing,)))
    check_plausible("a test", idle)
    assert fit_writers(idle).writers == ()
    with pytest.raises(ProfileError):
        check_plausible("a test", replace(idle, history=None))


def loaded(path: Path) -> Profile:
    found = read_intake(path).profile
    assert found is not None
    return found


def test_load_tells_profiles_from_recordings(tmp_path: Path) -> None:
    typed = tmp_path / "vm.json"
    typed.write_text(
        '{"memory": "1GiB", "measurements": [{"seconds": 1, "dirty_rate": 9},'
        ' {"seconds": 2, "dirty_rate": 8}, {"seconds": 5, "dirty_rate": 7}]}'
    )
    assert loaded(typed).memory_bytes == 2**30
    assert loaded(RECORDER / "seq_mid.qemu10.a.json.xz").source.endswith("seq_mid.qemu10.a")
    broken = tmp_path / "cut.json.xz"
    broken.write_bytes((RECORDER / "seq_mid.qemu10.a.json.xz").read_bytes()[:500])
    with pytest.raises(IntakeError) as caught:
        loaded(broken)
    assert (caught.value.code, caught.value.data["path"]) == ("unreadable", broken)


class Counted(tuple[Sample, ...]):
    """Samples that count how often somebody goes through them."""

    passes = 0

    def __iter__(self) -> Iterator[Sample]:
        type(self).passes += 1
        return super().__iter__()


def test_the_samples_are_not_read_again_for_each_sync() -> None:
    """A log of hours has 100,000 samples and a thousand syncs."""
    recording = load_recording(RECORDER / "seq_mid.qemu10.a.json.xz")
    syncs = len(find_syncs(recording))
    Counted.passes = 0
    profile = from_recording(replace(recording, samples=Counted(recording.samples)))
    assert profile == from_recording(recording)
    assert Counted.passes < 12 < syncs
