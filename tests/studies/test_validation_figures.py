"""Are the figures of docs/validation/ pictures of what they are given?"""

from __future__ import annotations

from pathlib import Path

import pytest

from gpusim import simulate
from gpusim.formats.recording_file import load_recording
from gpusim.validation.replay import replay_config
from gpusim.validation.shipped import SHIPPED
from studies.validation_figures import Point, period_counts, save_errors, save_replay
from tests.results.plots.drawn import png_size


def test_errors_are_drawn_the_farthest_too(tmp_path: Path) -> None:
    points = [
        Point(group="replayed", measured_s=10.0, simulated_s=10.1),
        Point(group="replayed", measured_s=600.0, simulated_s=590.0),
        Point(group="predicted", measured_s=50.0, simulated_s=120.0),  # beyond the axis of errors
    ]
    assert points[0].error_percent == pytest.approx(1.0)
    save_errors(tmp_path / "errors.png", points)
    assert png_size(tmp_path / "errors.png") == (1200, 900)
    assert png_size(tmp_path / "errors_narrow.png")[0] == 780


def test_a_replay_is_drawn_over_its_recording(tmp_path: Path) -> None:
    """Both sides count a period's pages as QEMU's trace event does: the first sync's all are the same."""
    recording = load_recording(SHIPPED / "converges.qemu10.a.json.xz")
    result = simulate(replay_config(recording))
    save_replay(tmp_path / "replay.png", recording, result)
    assert png_size(tmp_path / "replay.png") == (1200, 900)
    assert png_size(tmp_path / "replay_narrow.png")[0] == 780
    counts = [
        int(event.arguments.split()[-1])
        for event in recording.events
        if event.name == "migration_bitmap_sync_end"
    ]
    ours = [pages for _, pages in period_counts(result)]
    assert ours[:3] == pytest.approx(counts[:3], rel=0.02)
