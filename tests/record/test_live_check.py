"""Does gpusim decide as the installed QEMUs do?

Records conf_record/small with every QEMU that is installed, half a minute each.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from gpusim.cli import record as cli
from gpusim.engine.attempts import simulate
from gpusim.formats.quantities import recorded_quantities, simulated_quantities
from gpusim.formats.recording_file import load_recording
from gpusim.validation.replay import predict_config, replay_config
from tests.record.qemus import every_qemu, need, need_since

REPLAY_PERCENT = 3.0
STEP_PERCENT = 10  # cpu-throttle-increment
# A prediction knows neither how the guest's rate changes during migration nor the link's stalls.
# Repeats of one scenario differ by a quarter to a half on a busy host. The test can still fail. A
# guess that knows no dirty pages, one pass over the RAM, is less than a third of the time. Without
# the throttle the migration has no end.
PREDICT_FACTOR = 2.0


@pytest.mark.qemu
@pytest.mark.slow
@every_qemu
def test_small_migration_is_replayed_and_predicted(qemu: str, tmp_path: Path) -> None:
    need(qemu)
    assert cli.main(["small", "--qemu", qemu, "--out", str(tmp_path)]) == 0
    (path,) = tmp_path.iterdir()
    recording = load_recording(path)
    truth = recorded_quantities(recording)
    assert truth.total_time_s is not None
    assert truth.max_throttle_percent >= 20, "nothing was throttled: a check of nothing"

    config = replay_config(recording)
    recorded = config.workload.recorded
    assert recorded[-1][1] == pytest.approx(
        recording.samples[-1].writes
        - recording.samples[0].writes
        + recording.page_writes_per_s_before * recording.samples[0].time_s,
        rel=1e-3,
    )
    replayed = simulated_quantities(simulate(config))
    assert replayed.total_time_s == pytest.approx(truth.total_time_s, rel=REPLAY_PERCENT / 100)
    assert abs(replayed.max_throttle_percent - truth.max_throttle_percent) <= STEP_PERCENT

    predicted = simulated_quantities(simulate(predict_config(recording)))
    assert predicted.total_time_s is not None
    assert 1 / PREDICT_FACTOR < predicted.total_time_s / truth.total_time_s < PREDICT_FACTOR


@pytest.mark.qemu
@pytest.mark.slow
@pytest.mark.parametrize(
    "capabilities", ["auto-converge", "auto-converge,postcopy-ram", "auto-converge,multifd"]
)
def test_qemu_11_1_makes_more_syncs_than_it_reports(capabilities: str, tmp_path: Path) -> None:
    """With post-copy permitted it syncs on each turn of its loop, from the first pass on."""
    qemu = need_since(11, 1)
    changes = [f"capabilities=[{capabilities}]", "parameters.downtime-limit=300"]
    assert cli.main(["small", *changes, "--qemu", qemu, "--out", str(tmp_path)]) == 0
    (path,) = tmp_path.iterdir()
    recording = load_recording(path)
    found = recorded_quantities(recording)
    assert found.converged
    assert found.syncs_made > found.dirty_sync_count
    assert (found.dirty_sync_count > 50) == ("postcopy-ram" in capabilities)
    assert len(recording.passes_s) == found.dirty_sync_count - 1
    without_trace = replace(recording, events=(), passes_s={})
    assert recorded_quantities(without_trace).syncs_made == pytest.approx(found.syncs_made, abs=1)
