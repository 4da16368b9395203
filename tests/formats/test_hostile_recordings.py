"""Is a recording with any wrong value refused in one line, or replayed without nonsense?"""

from __future__ import annotations

import itertools
import json
import random
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from gpusim import simulate
from gpusim.config.scenario import resolve
from gpusim.formats import profile_from_recording
from gpusim.formats.quantities import recorded_quantities
from gpusim.formats.recording import Recording
from gpusim.formats.recording_file import load_recording, read_document
from gpusim.validation.replay import predict_config, replay_config
from tests.formats.hostile import VALUES, changed, mutated, outcome, places, recording

KINDS = [pytest.param(known, id="known" if known else "unknown") for known in (True, False)]
MUTATIONS, SLOW_MUTATIONS = 150, 2000


def check(found: Recording) -> None:
    """Assert what every recording that is read must hold."""
    times = [sample.time_s for sample in found.samples]
    assert times == sorted(set(times)) and times[0] >= 0
    assert found.ram_bytes >= 2**20
    rams = [sample.ram for sample in found.samples if sample.ram is not None]
    for before, after in itertools.pairwise(rams):
        assert before.sent_pages <= after.sent_pages
        assert before.transferred_bytes <= after.transferred_bytes
    assert all(ram.remaining_bytes <= found.ram_bytes + 256 * 2**20 for ram in rams)
    assert all(0 <= sample.cpu_throttle_percentage < 100 for sample in found.samples)
    assert found.total_time_s is None or found.total_time_s > 0
    assert found.limit_s > 0


def use(document: Any, *, run: bool) -> None:
    """Do with a document what the commands do."""
    found = read_document(document, "hostile")
    check(found)
    recorded_quantities(found)
    if found.profile is None:
        outcome(partial(profile_from_recording.from_recording, found))
    if run:
        if found.predictable:
            resolve(predict_config(found))
        summary = simulate(replay_config(found)).summary
        assert 0 <= summary.total_time_s <= 2 * found.limit_s + 1e-6
        assert summary.verdict


@pytest.mark.parametrize("known", KINDS)
def test_the_tiny_recording_is_sound(known: bool) -> None:
    document = recording(known=known)
    found = read_document(document, "tiny")
    check(found)
    assert (found.total_time_s, found.completed, found.predictable) == (0.9, True, known)
    run = simulate(replay_config(found)).summary
    assert run.verdict == "converged"
    assert 0.3 < run.total_time_s < 1.5


@pytest.mark.parametrize("known", KINDS)
def test_every_value_of_a_recording_may_be_hostile(known: bool) -> None:
    """Every case is read. Some of the accepted ones are replayed. The slow test replays a third."""
    attack(known, most=2, every=60)


@pytest.mark.slow
@pytest.mark.parametrize("known", KINDS)
def test_accepted_recordings_can_be_replayed(known: bool) -> None:
    attack(known, most=4, every=3)


def attack(known: bool, most: int, every: int) -> None:
    document = recording(known=known)
    accepted = tried = 0
    for place in places(document, most):
        for value in VALUES:
            case = changed(document, place, value)
            tried += 1
            if outcome(partial(use, case, run=False)) == "accepted":
                accepted += 1
                if accepted % every == 0:
                    outcome(partial(use, case, run=True))
    assert tried > 1000
    assert accepted < tried / 3


def attack_texts(folder: Path, first: int, last: int) -> int:
    """Read so many mutated files. Return how many were accepted."""
    texts = [json.dumps(recording(known=known), indent=0) for known in (True, False)]
    accepted = 0
    for seed in range(first, last):
        text = mutated(random.Random(seed), texts[seed % 2])
        path = folder / "x.json"
        path.write_text(text, errors="surrogatepass")
        accepted += outcome(partial(use_file, path)) == "accepted"
    return accepted


def use_file(path: Path) -> None:
    found = load_recording(path)
    check(found)
    recorded_quantities(found)
    if found.profile is None:
        profile_from_recording.from_recording(found)


def test_mutated_recordings(tmp_path: Path) -> None:
    assert 0 < attack_texts(tmp_path, 0, MUTATIONS) < MUTATIONS


@pytest.mark.slow
def test_many_mutated_recordings(tmp_path: Path) -> None:
    assert 0 < attack_texts(tmp_path, MUTATIONS, SLOW_MUTATIONS) < SLOW_MUTATIONS
