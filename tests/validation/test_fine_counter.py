"""Is a fine counter taken instead of the samples', and a measured flat-out rate instead of a guess?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gpusim.cli.validate import main
from gpusim.config.schema import WriterConfig
from gpusim.formats.recording import Recording, RecordingError, read_document, uncompressed
from gpusim.validation.replay import predict_config, replay_config, replayed_from
from gpusim.validation.shipped import SHIPPED, load_recordings


def fine(case: str, **more: Any) -> dict[str, Any]:
    """A shipped recording with a counter that runs straight from four seconds before to its end."""
    held: dict[str, Any] = json.loads(uncompressed(SHIPPED / f"{case}.json.xz"))
    last = held["samples"][-1]
    counter = [[-4.0, 1000], [0.5, 5500], [0.5, 5500], [last["t"], 5500 + 100_000]]
    return held | {"counter": counter, "flat_out_writes_per_s": 1.5e6} | more


def writer(recording: Recording, predicted: bool = False) -> WriterConfig:
    config = predict_config(recording) if predicted else replay_config(recording)
    assert isinstance(config.workload, WriterConfig)
    return config.workload


def test_the_fine_counter_is_the_pace() -> None:
    recording = read_document(fine("paced-high.qemu10.a"), "fine")
    assert replayed_from(recording) == "counter"
    pairs = writer(recording).recorded
    assert pairs is not None
    assert len(pairs) == 3
    # 5000 writes when it began, by the line from -4 s to 0.5 s; its clock is that of the trace.
    assert pairs[0] == [0.0, 0.0]
    assert pairs[1] == [pytest.approx(0.5, abs=0.01), pytest.approx(500, abs=10)]


def test_without_one_the_samples_are() -> None:
    recording = read_document(fine("paced-high.qemu10.a", counter=[]), "coarse")
    assert replayed_from(recording) == "samples"
    pairs = writer(recording).recorded
    assert pairs is not None
    assert len(pairs) > 100


def test_a_late_guest_catches_up_as_fast_as_measured() -> None:
    recording = read_document(fine("paced-high.qemu10.a"), "paced")
    assert writer(recording, predicted=True).catch_up_page_writes_per_s == 1.5e6
    slower = read_document(fine("paced-high.qemu10.a", flat_out_writes_per_s=10.0), "slow")
    paced = writer(slower, predicted=True)
    assert paced.catch_up_page_writes_per_s == paced.page_writes_per_s


@pytest.mark.parametrize(
    ("counter", "complaint"),
    [
        ([[0.1, 5], [0.2, 4]], r"counter\[1\]: the guest's write counter fell"),
        ([[0.1, 5], [0.2]], r"counter\[1\] is \[0.2\]; expected \[seconds, writes\]"),
        ([[float("nan"), 5]], r"counter\[0\]"),
        (5, "the file has no proper 'counter'; expected a list"),  # type: ignore[list-item]
    ],
)
def test_a_damaged_counter_is_refused(counter: list[Any], complaint: str) -> None:
    with pytest.raises(RecordingError, match=complaint):
        read_document(fine("converges.qemu10.a", counter=counter), "damaged")


def test_which_replays_are_judged_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    held = fine("converges.qemu10.a")
    held["scenario"]["guest"]["paced"] = 1
    held["counter"] = [[row["t"], row["writes"]] for row in held["samples"]]
    for name, counter in (("with", held["counter"]), ("without", [])):
        (tmp_path / f"{name}.json").write_text(json.dumps(held | {"counter": counter}))
    assert len(load_recordings([tmp_path])) == 2
    assert main([str(tmp_path), "--mode", "replay"]) == 0
    printed = capsys.readouterr().out
    assert "replay, paced and full-speed guests with a fine counter\ncompleted in QEMU" in printed
    assert printed.rstrip().endswith(
        "replayed, not judged: bursts of these guests fall between the samples of their counter\nwithout"
    )
