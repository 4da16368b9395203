"""Is the cost of a first write found in counters that contain one, and not in others?"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from gpusim.cli.validate import main
from gpusim.formats.recording import Recording
from gpusim.validation import first_write
from gpusim.validation.replay import samples_before_stop
from gpusim.validation.shipped import SHIPPED, load_recordings

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def recordings() -> list[Recording]:
    return load_recordings([SHIPPED])


def test_a_cost_that_is_there_is_found(recordings: list[Recording]) -> None:
    """The counters are those of a guest with such a cost."""
    for case in ("full-speed-guest.qemu7.a", "seq-mid.qemu10.a", "hot-small.qemu10.b"):
        real = first_write.find_stretch(next(r for r in recordings if r.case == case))
        made = replace(real, writes=round(real.expected_writes(3000)))
        assert first_write.fit([made]) == pytest.approx(3000, abs=20)
        assert first_write.error([made], 3000) < 1e-5


def test_no_cost_is_found_where_the_guest_was_faster(recordings: list[Recording]) -> None:
    real = first_write.find_stretch(recordings[0])
    assert first_write.fit([replace(real, writes=2 * real.writes)]) == 0


def test_a_scenario_is_judged_by_the_others(
    recordings: list[Recording], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All repeats and versions of a scenario are in one half and get the cost of the other."""
    left, right = first_write.halves(recordings)
    names = [{r.case.split(".")[0] for r in half} for half in (left, right)]
    assert not names[0] & names[1]
    assert len(left) + len(right) == sum(r.guest.kind != "paced" for r in recordings)
    monkeypatch.setattr(first_write, "fit", len)  # of a half: its size
    costs = first_write.fit_costs(recordings)
    assert {costs[r.case] for r in left} == {len(right)}
    assert {costs[r.case] for r in right} == {len(left)}
    assert len(left) != len(right)


def test_the_command_says_what_it_fitted(capsys: pytest.CaptureFixture[str]) -> None:
    files = [
        str(SHIPPED / f"{case}.json.xz") for case in ("converges.qemu7.a", "hot-small.qemu7.a")
    ]
    assert main([*files, "--mode", "predict", "--seeds", "1", "--first-write"]) == 0
    lines = [
        line for line in capsys.readouterr().out.splitlines() if line.startswith("first write")
    ]
    assert len(lines) == 2
    assert {line.split(": ")[1] for line in lines} == {"converges.qemu7.a", "hot-small.qemu7.a"}


def test_the_preset_of_tcg_is_read_off_slices(recordings: list[Recording]) -> None:
    """At 99 % a guest without a loop fills 10 ms per second with first writes."""
    recording = next(r for r in recordings if r.case == "full-speed-guest.qemu7.a")
    samples = samples_before_stop(recording)
    top = [sample.time_s for sample in samples if sample.cpu_throttle_percentage == 99]
    syncs = [e.time_s for e in recording.events if e.name == "migration_bitmap_sync_start"]
    edges = [top[0], *(time_s for time_s in syncs if top[0] < time_s < top[-1]), top[-1]]
    counter = np.interp(edges, [s.time_s for s in samples], [float(s.writes) for s in samples])
    pages = recording.guest.size_mib * 256
    first = pages * -np.expm1(-np.diff(counter) / pages)
    writes, awake_s = counter[-1] - counter[0], 0.01 * (top[-1] - top[0])
    assert (len(edges) - 2, round(writes), round(first.sum())) == (32, 471680, 441188)
    cost_ns = 1e9 * (awake_s - writes / recording.page_writes_per_s_before) / first.sum()
    preset = yaml.safe_load((ROOT / "conf" / "tracking" / "tcg.yaml").read_text())
    assert preset["first_write_cost_ns"] == pytest.approx(cost_ns, abs=5)
