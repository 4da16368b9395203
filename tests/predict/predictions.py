"""Predictions for tests, without simulations. The configs are real."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from gpusim.config.schema import Config, LinkConfig, MixConfig, VmConfig, WorkloadConfig
from gpusim.engine.records import Summary
from gpusim.fit.estimates import Fit, WriterEstimate
from gpusim.formats.profile import Measurement, Profile
from gpusim.predict.prediction import Member, Prediction
from gpusim.text import Message
from tests.results.conftest import FakeMigration

MIB = 2**20
FAKE = FakeMigration().run().summary
PERIODS_S = (0.1, 1.0, 10.0)
WRITERS = (
    WriterEstimate(kind="random", pages=2048, page_writes_per_s=20_480),
    WriterEstimate(kind="sequential", pages=4096, page_writes_per_s=409.6),
)
REASONS = {
    "converged": "converged after a while, with a downtime of 120 ms (limit 300 ms)",
    "time_limit": "still migrating after a day of simulated time (raise limit.simulated to continue)",
    "not_converged": "the throttle is at its maximum of 99 %, and the remaining memory stopped falling",
}


def profile(**fields: Any) -> Profile:
    measured = [Measurement(seconds=s, dirty_rate=8.0) for s in PERIODS_S for _ in range(2)]
    known: dict[str, Any] = {
        "source": "calc-dirty-rate of a test",
        "memory_bytes": 64 * MIB,
        "vcpus": 2,
        "measurements": tuple(measured),
    }
    return Profile(**(known | fields))


def fit(writers: Sequence[WriterEstimate] = WRITERS, **fields: Any) -> Fit:
    known: dict[str, Any] = {
        "residuals": np.array([0.5, -0.5, 1.0, -1.0, 2.5, 0.0]),
        "chi_square": 8.75,
        "drift": 0.02,
        "warnings": (Message("dirty_ring_recounts"),),
    }
    return Fit(writers=tuple(writers), **(known | fields))


def config(seed: int = 1, writers: Sequence[WriterEstimate] = WRITERS) -> Config:
    """Return a VM of 64 MiB on a slow link, which migrates in a moment."""
    keys, start = {}, 0
    for number, one in enumerate(writers, start=1):
        keys[f"writer_{number}"] = {
            "pattern": "uniform" if one.kind == "random" else "sequential",
            "start": start,
            "working_set": int(one.pages) * 4096,
            "page_writes_per_s": one.page_writes_per_s,
            **({} if one.kind == "random" else {"threads": 1}),
        }
        start += int(one.pages) * 4096
    return Config(
        vm=VmConfig(memory=64 * MIB, vcpus=2),
        workload=MixConfig(writers=keys) if keys else WorkloadConfig(),
        link=LinkConfig(bandwidth="200Mbit/s"),
        plot=False,
        seed=seed,
    )


def summary(verdict: str = "converged", **fields: Any) -> Summary:
    known: dict[str, Any] = {"reason": REASONS[verdict], "vm_bytes": 64 * MIB, "policies": ""}
    if verdict != "converged":
        known["downtime_ms"] = None
    return replace(FAKE, verdict=verdict, **(known | fields))


def members(converging: int, count: int, **fields: Any) -> tuple[Member, ...]:
    """Return members. The first `converging` end after 101, 102, ... s, the others after 1000, ... s."""
    found = []
    for seed in range(1, count + 1):
        converges = seed <= converging
        total_s = 100.0 + seed if converges else 999.0 + seed - converging
        own = {"total_time_s": total_s, "first_pass_s": 60.0, "seed": seed}
        found.append(
            Member(
                config=config(seed),
                summary=summary("converged" if converges else "not_converged", **(own | fields)),
                throttle_s={20: 70.0 + seed, 30: 80.0 + seed} if seed % 2 else {20: 70.0 + seed},
            )
        )
    return tuple(found)


def prediction(converging: int = 20, count: int = 20, **fields: Any) -> Prediction:
    known: dict[str, Any] = {
        "profile": profile(),
        "fit": fit(),
        "members": members(converging, count),
        "assumptions": (Message("zero_pages_assumed"),),
    }
    return Prediction(**(known | fields))
