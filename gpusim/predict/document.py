"""A prediction as JSON: the keys of `--json` and of prediction.json. docs/how-to/predict-a-migration.md describes them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np

from gpusim.explore.goal_search import BetterSettings
from gpusim.explore.setting_limits import Advice
from gpusim.fit.estimates import Fit
from gpusim.formats.profile import Profile
from gpusim.predict import advice_text, prediction_text
from gpusim.predict.bounds_text import bounds_document
from gpusim.predict.commands import ToolCommands
from gpusim.predict.earlier_migration import EarlierMigration
from gpusim.predict.messages import text_of
from gpusim.predict.postcopy_text import ways_document
from gpusim.predict.prediction import Member, Prediction
from gpusim.results.bottleneck import find_bottlenecks
from gpusim.version import __version__

FORMAT = 1
BANDS = (  # fields of Summary, with the same keys
    "total_time_s",
    "first_pass_s",
    "downtime_ms",
    "transferred_bytes",
    "max_throttle_percent",
    "time_at_max_throttle_s",
    "guest_cpu_lost_percent",
    "guest_cpu_lost_s",
    "longest_vcpu_stall_ms",
    "dirty_sync_count",
    "bitmap_sync_count",
    "fallback_sync_count",
    "postcopy_start_s",
    "postcopy_time_s",
    "postcopy_blackout_ms",
    "postcopy_stall_vcpu_s",
    "postcopy_recovery_s",
)
BOTTLENECK = ("bottleneck_code", "bottleneck_change", "sending_gbit_per_s", "link_gbit_per_s")


def document(
    prediction: Prediction, advice: Advice | None = None, better: BetterSettings | None = None
) -> dict[str, Any]:
    """Return a prediction as plain values for JSON. A number that is not finite becomes None."""
    fit, profile = prediction.fit, prediction.profile
    commands = advice_text.commands_for(prediction, better)
    found: dict[str, Any] = {
        "prediction": FORMAT,
        "gpusim_version": __version__,
        "converges": prediction.converges,
        "probability": prediction.probability,
        "code": prediction_text.verdict_code(prediction),
        "verdict": [*prediction_text.answer(prediction), *prediction_text.reasons(prediction)],
        "members": [_member(one) for one in prediction.members],
        **{name: prediction.band(name) for name in BANDS},
        "throttle": prediction.throttle_steps(),
        "bottlenecks": [
            one.data for one in find_bottlenecks([vars(one.summary) for one in prediction.members])
        ],
        "bounds": bounds_document(prediction),
        "change_within": prediction.change_within,
        "postcopy": ways_document(prediction),
        "earlier": _earlier(prediction.earlier),
        "ends_with_load": prediction.ends_with_load,
        "vm": _vm(profile),
        "guest": _guest(fit, profile),
        "doubts_and_assumptions": [
            *prediction_text.warnings(prediction),
            *prediction_text.assumptions(prediction),
        ],
        "warnings": fit.warnings,
        "assumptions": prediction.assumptions,
        "config": prediction.median_member.config,
        "in_words": {tool: _commands(one) for tool, one in commands.items()},
        "advice": advice,
        "better": better,
    }
    plain: dict[str, Any] = _plain(found)
    return plain


def _commands(commands: ToolCommands) -> dict[str, Any]:
    return {
        "lines": commands.lines,
        "notes": [text_of(one) for one in commands.notes],
        "codes": [one.code for one in commands.notes],
    }


def _member(member: Member) -> dict[str, Any]:
    summary = member.summary
    return {
        "seed": member.config.seed,
        "converges": member.converges,
        "verdict": summary.verdict,
        "reason": summary.reason,
        "reason_code": summary.reason_code,
        **{name: getattr(summary, name) for name in (*BANDS, *BOTTLENECK)},
        "throttle_s": {str(percent): time_s for percent, time_s in member.throttle_s.items()},
    }


def _earlier(earlier: EarlierMigration | None) -> dict[str, Any] | None:
    if earlier is None:
        return None
    return {
        "completed": earlier.outcome.completed,
        "total_time_s": earlier.outcome.seconds,
        "max_throttle_percent": earlier.outcome.max_throttle_percent,
        "same_settings": earlier.has_same_settings,
        "differing": earlier.differing,
        "model_converges": earlier.converges,
        "model_total_time_s": earlier.total_time_s,
        "model_disagrees": earlier.disagrees,
    }


def _vm(profile: Profile) -> dict[str, Any]:
    return {
        "source": profile.source,
        "memory_bytes": profile.memory_bytes,
        "page_bytes": profile.page_bytes,
        "vcpus": profile.vcpus,
        "zero_share": profile.zero_share,
    }


def _guest(fit: Fit, profile: Profile) -> dict[str, Any]:
    return {
        "writers": [
            {
                "kind": writer.kind,
                "bytes": round(writer.pages * profile.page_bytes),
                "page_writes_per_s": writer.page_writes_per_s,
                "writes_per_s_to_each_page": writer.rate,
            }
            for writer in fit.writers
        ],
        "residuals_in_deviations": fit.residuals,
        "chi_square": fit.chi_square,
        "speed_drift_share": fit.drift,
    }


def _plain(value: Any) -> Any:
    """Return data classes as mappings and arrays as lists. JSON has no NaN and no infinity."""
    if is_dataclass(value) and not isinstance(value, type):
        return {
            field.metadata.get("json", field.name): _plain(
                field.metadata.get("as_json", _unchanged)(getattr(value, field.name))
            )
            for field in fields(value)
        }
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _unchanged(value: Any) -> Any:
    return value
