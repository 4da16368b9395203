"""Does a fine counter replace the samples', and a measured full-speed rate the guess?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gpusim.cli.validate import main
from gpusim.config.schema import WriterConfig
from gpusim.formats.errors import RecordingError
from gpusim.formats.recording import Recording
from gpusim.formats.recording_file import read_document
from gpusim.reading import read_bytes
from gpusim.validation.replay import predict_config, replay_config, replay_source
from gpusim.validation.shipped import SHIPPED, load_recordings
from tests.golden import check_golden


def fine(case: str, **more: Any) -> dict[str, Any]:
    """Return a shipped recording with a linear counter from four seconds before to its end."""
    held: dict[str, Any] = json.loads(read_bytes(SHIPPED / f"{case}.json.xz"))
    last = held["samples"][-1]
    counter = [[-4.0, 1000], [0.5, 5500], [0.5, 5500], [last["t"], 5500 + 100_000]]
    return held | {"counter": counter, "flat_out_writes_per_s": 1.5e6} | more


def writer(recording: Recording, predicted: bool = False) -> WriterConfig:
    config = predict_config(recording) if predicted else replay_config(recording)
    assert isinstance(config.workload, WriterConfig)
    return config.workload


def test_the_fine_counter_is_the_pace() -> None:
    recording = read_document(fine("paced-high.qemu10.a"), "fine")
    assert replay_source(recording) == "counter"
    pairs = writer(recording).recorded
    assert pairs is not None
    assert len(pairs) == 3
    # 5000 writes when it began, by the line from -4 s to 0.5 s. Its clock is that of the trace.
    assert pairs[0] == [0.0, 0.0]
    assert pairs[1] == [pytest.approx(0.5, abs=0.01), pytest.approx(500, abs=10)]


def test_without_one_the_samples_are() -> None:
    recording = read_document(fine("paced-high.qemu10.a", counter=[]), "coarse")
    assert replay_source(recording) == "samples"
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
    ("counter", "code", "key"),
    [
        ([[0.1, 5], [0.2, 4]], "bad_value", "counter[1][1]"),
        ([[0.1, 5], [0.2]], "bad_value", "counter[1]"),
        ([[float("nan"), 5]], "bad_value", "counter[0][0]"),
        (5, "bad_value", "counter"),
    ],
)
def test_a_damaged_counter_is_refused(counter: list[Any], code: str, key: str) -> None:
    with pytest.raises(RecordingError) as caught:
        read_document(fine("converges.qemu10.a", counter=counter), "damaged")
    assert (caught.value.code, caught.value.data["key"]) == (code, key)


def test_only_replays_with_a_fine_counter_are_judged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    held = fine("converges.qemu10.a")
    held["scenario"]["guest"]["paced"] = 1
    held["counter"] = [[row["t"], row["writes"]] for row in held["samples"]]
    for name, counter in (("with", held["counter"]), ("without", [])):
        (tmp_path / f"{name}.json").write_text(json.dumps(held | {"counter": counter}))
    assert len(load_recordings([tmp_path])) == 2
    out = tmp_path / "out.txt"
    assert main([str(tmp_path), "--mode", "replay", "--json", str(out)]) == 0
    replay = json.loads(out.read_text())["summary"]["replay"]
    assert (replay["counter"]["completed"], replay["not_judged"]) == (1, ["without"])
    check_golden("gpusim-validate-replay", capsys.readouterr().out)
