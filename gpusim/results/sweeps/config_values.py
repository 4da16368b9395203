"""The values of config keys, as numbers for an axis and as text for people.

This module owns the labels of config keys. QEMU's versions matter only because each version has its
own interval of fallback syncs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from gpusim.config.plugins import KINDS
from gpusim.errors import one_line
from gpusim.policies.names import title_name
from gpusim.qemu.versions import VERSIONS
from gpusim.results.sweeps.runs import Run
from gpusim.text import format_duration, format_number, rate_unit, version_name
from gpusim.units import NS_PER_S, format_bytes, read_quantity

SEED = "seed"
FALLBACK = "migration.fallback_sync_interval"
VERSION = "migration.version"
POLICIES = tuple(f"migration.{name}" for name in KINDS)
ABSENT = ""  # the value of a key that a run's config does not have
LONGEST_NAME, LONGEST_TEXT = 40, 60  # characters of a key and of a value in pictures and sentences
LEAST, MOST = 1e-12, 1e24  # Other numbers have no place on an axis. Their text has.

# The dimension of numbers without a unit, by the last part of their key.
_DIMENSIONS = {
    **dict.fromkeys(("memory", "working_set", "start", "granule"), "size"),
    **dict.fromkeys(
        ("bandwidth", "max_bandwidth", "avail_switchover_bandwidth", "zero_page_scan"), "rate"
    ),
    **dict.fromkeys(("fallback_sync_interval", "simulated", "wall"), "time"),
}
_NAME_FIRST, _VALUE_FIRST, _VALUE_ONLY = "{name} {value}", "{value} {name}", "{value}"


@dataclass(frozen=True)
class _Label:
    """The name and the unit of a key, and how a phrase joins the name and a value."""

    name: str
    unit: str = ""
    phrase: str = _NAME_FIRST


_LABELS = {
    "vm.memory": _Label("VM memory"),
    "vm.vcpus": _Label("vCPUs", phrase=_VALUE_FIRST),
    "vm.zero_percent": _Label("zero pages", "%"),
    "workload.pattern": _Label("workload", phrase=_VALUE_ONLY),
    "workload.working_set_percent": _Label("working set", "% of RAM"),
    "workload.page_writes_per_s": _Label("page writes per second", phrase=_VALUE_FIRST),
    "link.bandwidth": _Label("link bandwidth"),
    VERSION: _Label("QEMU version", phrase=_VALUE_ONLY),
    "migration.downtime_limit": _Label("downtime limit", "ms"),
    "migration.cpu_throttle_initial": _Label("initial throttle", "%"),
    "migration.cpu_throttle_increment": _Label("throttle increment", "%"),
    "migration.max_cpu_throttle": _Label("maximum throttle", "%"),
    "migration.throttle_trigger_threshold": _Label("trigger threshold", "%"),
    "migration.cpu_throttle_tailslow": _Label("tailslow"),
    "migration.auto_converge": _Label("auto-converge"),
    FALLBACK: _Label("fallback sync"),
    "tracking.mode": _Label("dirty tracking"),
    "evacuation.at_a_time": _Label("guests at a time", phrase=_VALUE_FIRST),
    "evacuation.order": _Label("order"),
}


class Value(NamedTuple):
    """One value of a config key.

    Attributes:
        text: for people.
        number: in bytes, bytes per second, seconds or the unit of the key. None if the value is not
            a number: a pattern, "never", "unlimited" or an absent key.
    """

    text: str
    number: float | None


MISSING = Value("\u2013", None)  # of a key that a run's config does not have


def axis_label(key: str) -> str:
    """Return the label of a config key with its unit: "downtime limit (ms)"."""
    label = _label(key)
    return f"{label.name} ({label.unit})" if label.unit else label.name


def describe_value(key: str, text: str) -> str:
    """Return a value with its name and unit: "working set 20 % of RAM", "8 vCPUs"."""
    label = _label(key)
    return label.phrase.format(name=label.name, value=f"{text} {label.unit}".rstrip())


def _label(key: str) -> _Label:
    return _LABELS.get(key) or _Label(_bounded(_last_part(key).replace("_", " "), LONGEST_NAME))


def _bounded(text: str, longest: int) -> str:
    """Return foreign text on one line. If it is cut, a digest keeps it apart from others."""
    line = one_line(text)
    if len(line) <= longest:
        return line
    digest = hashlib.sha256(text.encode()).hexdigest()[:6]
    return f"{line[: longest - 11]}... ({digest})"


def _last_part(key: str) -> str:
    return key.rpartition(".")[2]


def value_of(run: Run, key: str) -> Value:
    """Return the value of a config key in a run."""
    raw = run.config.get(key, ABSENT)
    if raw is ABSENT:
        return MISSING
    if key == FALLBACK and raw in (None, "never"):
        return _missing_interval(run, raw)
    if key == VERSION:
        return _text_value(version_name(str(raw)))
    if isinstance(raw, bool):
        return Value("on" if raw else "off", None)
    if key in POLICIES:
        return _text_value("none" if raw is None else title_name(str(raw)))
    if raw is None:
        return Value("null", None)
    if isinstance(raw, str) and (quantity := read_quantity(raw)):
        shown = _bounded(quantity.text, LONGEST_TEXT)
        return Value(shown, quantity.number) if _has_place(quantity.number) else _text_value(shown)
    try:
        number = float(raw)
    except (ValueError, TypeError, OverflowError):
        return _text_value(str(raw))
    if not _has_place(number):
        return _text_value(str(raw))
    return Value(format_value(_dimension(key, raw), number), number)


def _text_value(text: str) -> Value:
    return Value(_bounded(text, LONGEST_TEXT), None)


def _has_place(number: float) -> bool:
    return number == 0 or LEAST <= abs(number) <= MOST


def _missing_interval(run: Run, raw: str | None) -> Value:
    """Return what "never" or null means: null is the interval of the QEMU version."""
    if raw == "never":
        return Value("off", None)
    version = str(run.config.get(VERSION, ""))
    name = version_name(version)
    if version not in VERSIONS:
        return _text_value(f"default of {name}")
    interval_ns = VERSIONS[version].fallback_sync_interval_ns
    if interval_ns is None:
        return Value(f"none (default of {name})", None)
    interval_s = interval_ns / NS_PER_S
    return Value(f"{interval_s:g} s (default of {name})", interval_s)


def _dimension(key: str, raw: Any) -> str:
    quantity = read_quantity(raw) if isinstance(raw, str) else None
    return quantity.dimension if quantity else _DIMENSIONS.get(_last_part(key), "plain")


def dimension_of(runs: Iterable[Run], key: str) -> str:
    """Return what the numbers of a key measure: "size", "rate", "time" or "plain"."""
    values = (run.config.get(key) for run in runs)
    return next((_dimension(key, raw) for raw in values if raw is not None), "plain")


def format_value(dimension: str, number: float) -> str:
    """Return a number of a dimension as text for people.

    Args:
        dimension: see `dimension_of`.
        number: in bytes, bytes per second, seconds or, if plain, the unit of the key.
    """
    if dimension == "size":
        return format_bytes(number)
    if dimension == "rate":
        unit, scale = rate_unit(number)
        return f"{format_number(number / scale)} {unit}"
    if dimension == "time":
        return format_duration(number)
    return f"{number:,.6g}" if abs(number) < 1e6 else f"{number / 1e6:,.4g} million"


def sort_values(values: Iterable[Value]) -> list[Value]:
    """Return each value once: numbers by size, then all others in their given order."""
    distinct = list(dict.fromkeys(values))
    numbers = sorted((v for v in distinct if v.number is not None), key=lambda v: v.number or 0.0)
    return numbers + [v for v in distinct if v.number is None]
