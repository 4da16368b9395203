"""Advice for tests, without a search."""

from __future__ import annotations

from typing import Any

from gpusim.engine.records import Alternative
from gpusim.explore.bounds import NO_BOUNDS
from gpusim.explore.changes import Setting
from gpusim.explore.goal_search import BetterSettings
from gpusim.explore.setting_limits import Advice, FallbackSync, GuestAdvice, Limit
from tests.predict.predictions import summary

CONVERGES = summary(total_time_s=90.0, max_throttle_percent=50, guest_cpu_lost_percent=12.5)
DOES_NOT = summary("not_converged")


def limit(name: Any, found: str | None, now: str, **fields: Any) -> Limit:
    known: dict[str, Any] = {
        "key": None if name == "dirty_rate" else f"migration.{name}",
        "value": None if found is None else 1.0,
        "also": None,
        "outcome": None if found is None else CONVERGES,
        "first_failing": "130",
        "finished": True,
    }
    return Limit(name=name, found=found, now=now, **(known | fields))


def converging(**fields: Any) -> GuestAdvice:
    known: dict[str, Any] = {
        "now": CONVERGES,
        "limits": (
            limit("bandwidth", "5.25Gbit/s", "10Gbit/s", key="link.bandwidth"),
            limit("dirty_rate", "10x", "1x", first_failing=None),
            limit("downtime_limit", "120", "300", finished=False),
            limit("max_cpu_throttle", "60", "99"),
        ),
        "fallback_sync": FallbackSync(
            is_on=True,
            key="migration.fallback_sync_interval",
            value="never",
            with_it=CONVERGES,
            without_it=DOES_NOT,
        ),
    }
    return GuestAdvice(**(known | fields))


def stalled(**fields: Any) -> GuestAdvice:
    known: dict[str, Any] = {
        "now": DOES_NOT,
        "limits": (
            limit(
                "bandwidth", "14Gbit/s", "10Gbit/s", key="link.bandwidth",
                also=Setting("migration.multifd_channels", "2"),
            ),
            limit("downtime_limit", None, "300", first_failing="30000"),
        ),
        "alternatives": (
            Alternative(
                key="migration.version", value="qemu_9_2", outcome="converges",
                total_time_s=1234.0, max_throttle_percent=0,
            ),
            Alternative(key="migration.auto_converge", value="true", outcome="does_not"),
        ),
    }  # fmt: skip
    return GuestAdvice(**(known | fields))


def advice(median: GuestAdvice | None = None, p95: GuestAdvice | None = None) -> Advice:
    median = median or converging()
    return Advice(median_guest=median, p95_guest=p95 or median)


def better(**fields: Any) -> BetterSettings:
    known: dict[str, Any] = {
        "goal": "fastest",
        "bounds": NO_BOUNDS,
        "now": summary(total_time_s=120.0, max_throttle_percent=40, guest_cpu_lost_percent=9.0),
        "settings": {"cpu_throttle_initial": 50, "cpu_throttle_increment": 25},
        "outcome": CONVERGES,
        "gain": 0.25,
        "runs": 64,
        "finished": True,
    }
    return BetterSettings(**(known | fields))
