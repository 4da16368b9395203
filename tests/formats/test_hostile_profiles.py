"""Is a profile with any wrong value refused in one line, or read as a profile that can be used?"""

from __future__ import annotations

import json
import math
import random
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from gpusim.formats.profile import Profile, load_profile, profile_of
from gpusim.formats.virsh import from_domstats, load_domstats
from gpusim.predict.ensemble import predict
from gpusim.predict.host_config import host_config
from tests.formats.hostile import PROFILE, VALUES, changed, mutated, outcome, places

MUTATIONS, SLOW_MUTATIONS = 150, 2000
MORE: tuple[Any, ...] = (
    {"max-bandwidth": 10**400}, {"downtime-limit": "x"}, {"pc.ram": "64GiB"}, ["auto-converge"], [0.5],
    "dirty-ring", 2**30, 12345, {"sampled": 5, "zero": 9}, [{"capability": "events", "state": "on"}],
)  # fmt: skip
DOMSTATS = "CPU(s):         4\nMax memory:     8388608 KiB\n" + "".join(
    f"Domain: 'web'\n  dirtyrate.calc_status=2\n  dirtyrate.calc_start_time={start}\n"
    f"  dirtyrate.calc_period={seconds}\n  dirtyrate.megabytes_per_second={rate}\n"
    "  dirtyrate.calc_mode=page-sampling\n\n"
    for seconds, rate, start in ((1, 300, 1000), (5, 80, 1010), (10, 45, 1020))
)


def check(profile: Profile) -> None:
    assert 0 < profile.memory_bytes <= 2**50
    assert 0 <= profile.zero_share <= 1
    assert all(math.isfinite(one.dirty_rate) and one.seconds > 0 for one in profile.measurements)
    json.dumps(replace(profile, parameters={}).document(), allow_nan=False)


def use(document: Any, *, run: bool) -> None:
    profile = profile_of(Path("hostile.json"), document)
    check(profile)
    if run:
        predict(profile, host_config(profile), members=2)


def attack(every_host: int, every_run: int) -> None:
    accepted = tried = 0
    typed = PROFILE | {"zero_percent": 5}
    for document in (PROFILE, typed):
        for place in places(document):
            for value in (*VALUES, *MORE):
                case = changed(document, place, value)
                tried += 1
                if outcome(partial(use, case, run=False)) == "accepted":
                    accepted += 1
                    profile = profile_of(Path("x"), case)
                    if accepted % every_host == 0:
                        outcome(partial(host_config, profile))
                    if accepted % every_run == 0:
                        outcome(partial(use, case, run=True))
    assert tried > 1000
    assert accepted < tried / 3


def test_every_value_of_a_profile_may_be_hostile() -> None:
    attack(every_host=400, every_run=10**9)


@pytest.mark.slow
def test_accepted_profiles_can_be_used() -> None:
    attack(every_host=30, every_run=150)


def attack_texts(folder: Path, first: int, last: int) -> int:
    texts = [json.dumps(PROFILE, indent=0), DOMSTATS]
    accepted = 0
    for seed in range(first, last):
        path = folder / "x.json"
        text = mutated(random.Random(seed), texts[seed % 2])
        path.write_text(text, errors="surrogatepass")
        accepted += outcome(partial(use_file, path, is_log=bool(seed % 2))) == "accepted"
    return accepted


def use_file(path: Path, *, is_log: bool) -> None:
    check(load_domstats(path, None, None) if is_log else load_profile(path))


def test_mutated_profiles_and_domstats(tmp_path: Path) -> None:
    assert from_domstats(DOMSTATS, "x").vcpus == 4
    assert 0 < attack_texts(tmp_path, 0, MUTATIONS) < MUTATIONS


@pytest.mark.slow
def test_many_mutated_profiles_and_domstats(tmp_path: Path) -> None:
    assert 0 < attack_texts(tmp_path, MUTATIONS, SLOW_MUTATIONS) < SLOW_MUTATIONS
