"""Is a prediction from a profile judged by the recorded migration alone?"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from gpusim.cli import validate as cli
from gpusim.formats.recording_file import find_recordings, load_recording
from gpusim.validation import profile_accuracy
from gpusim.validation.accuracy_text import describe_profile_figures, profile_cells
from gpusim.validation.errors import ValidationError
from gpusim.validation.profile_accuracy import (
    PROFILED,
    PROFILED_KVM,
    ProfiledCase,
    group_by_accelerator,
    predict_each,
    predict_recordings,
    profile_figures,
)
from gpusim.validation.shipped import RECORDER

pytest.importorskip("scipy")

SHORT = PROFILED / "long_downtime.qemu10.a.json.xz"


@pytest.fixture(scope="module")
def one() -> ProfiledCase:
    (found,) = predict_recordings([SHORT], members=5)
    return found


def late(one: ProfiledCase, total_time_s: float | None) -> ProfiledCase:
    """Return the same prediction beside another total time."""
    return replace(one, recording=replace(one.recording, total_time_s=total_time_s))


def test_the_shipped_recordings_have_a_profile_each() -> None:
    recordings = [load_recording(path) for path in find_recordings(PROFILED)]
    assert len(recordings) == 14
    assert sum(one.completed for one in recordings) == 12
    for recording in recordings:
        assert recording.profile is not None
        assert recording.profile.mode == "page-sampling"
        assert recording.profile.qemu == (10, 0, 2)
        assert recording.profile.memory_bytes >= recording.ram_bytes


def test_those_under_kvm_were_measured_in_both_modes() -> None:
    recordings = [load_recording(path) for path in find_recordings(PROFILED_KVM)]
    modes = Counter(one.profile.mode for one in recordings if one.profile is not None)
    assert modes == {"page-sampling": 9, "dirty-bitmap": 9}
    assert Counter(one.qemu for one in recordings) == {(10, 0): 12, (11, 1): 6}
    assert {one.accelerator for one in recordings} == {"kvm"}
    assert sum(one.completed for one in recordings) == 16


def test_each_accelerator_is_judged_by_itself(one: ProfiledCase) -> None:
    kvm = replace(one, recording=replace(one.recording, accelerator="kvm"))
    assert group_by_accelerator([one, kvm, one]) == {"tcg": [one, one], "kvm": [kvm]}


def test_a_prediction_is_judged(one: ProfiledCase) -> None:
    band = one.band
    assert band is not None
    assert one.is_right
    assert late(one, band.middle).is_within
    assert late(one, band.middle).error_percent == pytest.approx(0)
    assert late(one, 2 * band.high).is_within is False
    assert late(one, None).is_within is None  # QEMU did not converge, and there is no time
    assert not late(one, None).is_right


def test_figures_count_what_rows_say(one: ProfiledCase) -> None:
    band = one.band
    assert band is not None
    found = [late(one, band.middle), late(one, 2 * band.high), late(one, None)]
    got = profile_figures(found)
    assert (got["migrations"], got["completed"]) == (3, 2)
    assert (got["verdict_right"], got["within_band"]) == (2, 1)
    assert [profile_cells(each)[4] for each in found] == ["yes", "no", "-"]
    assert "2 of 3" in describe_profile_figures(found)


@pytest.mark.slow
def test_the_command_prints_and_writes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        profile_accuracy, "predict_each", lambda paths: predict_each(paths, members=2)
    )
    path = tmp_path / "found.json"
    assert cli.main(["profiles", str(SHORT), "--json", str(path)]) == 0
    assert "long_downtime.qemu10.a" in capsys.readouterr().out
    assert json.loads(path.read_text())["summary"]["tcg"]["completed"] == 1


def test_a_recording_without_a_profile_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    path = next(iter(find_recordings(RECORDER)))
    assert cli.main(["profiles", str(path)]) == 2
    error = ValidationError("no_profile", case=load_recording(path).case)
    assert capsys.readouterr().err == f"error: {error}\n"
