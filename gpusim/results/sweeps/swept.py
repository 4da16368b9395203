"""What was varied between runs: values as numbers and as people write them, and which is the axis.

Owns the reading of config values for tables and figures. It knows units through units.py, and of
QEMU's versions only which fallback sync comes with them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from gpusim.config.plugins import KINDS
from gpusim.qemu.versions import VERSIONS
from gpusim.results.sweeps.runs import Run
from gpusim.text import format_duration, format_number, rate_unit, version_name
from gpusim.units import NS_PER_S, format_bytes, parse_bytes, parse_bytes_per_s, parse_ns

SEED = "seed"
FALLBACK = "migration.fallback_sync_interval"
VERSION = "migration.version"
POLICIES = tuple(f"migration.{name}" for name in KINDS)
ABSENT = ""  # a key that this run's config does not have

_NO_INPUT = (
    "backend.",
    "plot",
    "dry_run",
    "objective",
    "limit.wall",
)  # none of them changes a result

# bare numbers of these keys have a unit too
_KINDS = {
    "size": ("memory", "working_set", "start", "granule"),
    "rate": ("bandwidth", "max_bandwidth", "avail_switchover_bandwidth", "zero_page_scan"),
    "time": ("fallback_sync_interval", "simulated", "wall"),
}
_NAMES = {
    "vm.memory": "VM memory",
    "vm.vcpus": "vCPUs",
    "vm.zero_percent": "zero pages (%)",
    "workload.pattern": "workload",
    "workload.working_set_percent": "working set (% of RAM)",
    "workload.page_writes_per_s": "page writes a second",
    "link.bandwidth": "link bandwidth",
    "migration.version": "QEMU version",
    "migration.downtime_limit": "downtime limit (ms)",
    "migration.cpu_throttle_initial": "initial throttle (%)",
    "migration.cpu_throttle_increment": "throttle increment (%)",
    "migration.max_cpu_throttle": "maximum throttle (%)",
    "migration.throttle_trigger_threshold": "trigger threshold (%)",
    "migration.cpu_throttle_tailslow": "tailslow",
    "migration.auto_converge": "auto-converge",
    FALLBACK: "fallback sync",
    "tracking.mode": "dirty tracking",
    "evacuation.at_a_time": "guests at a time",
    "evacuation.order": "order",
}
_COUNTED = ("vCPUs", "page writes a second", "guests at a time")  # said after their number


class Value(NamedTuple):
    """One value of a key: for people, and in bytes, bytes a second, seconds or as it is.

    `number` is None for what is none: a pattern, "never", "unlimited", an absent key.
    """

    text: str
    number: float | None


def varying(runs: Iterable[Run]) -> list[str]:
    """Config keys that differ among the runs that have a config, in the config's order."""
    configs = [run.config for run in runs if run.config]
    keys = dict.fromkeys(key for config in configs for key in config)
    return [
        key
        for key in keys
        if not is_no_input(key)
        and len({_identity(config.get(key, ABSENT)) for config in configs}) > 1
    ]


def is_no_input(key: str) -> bool:
    """Whether a key of the config changes no result."""
    return key.startswith(_NO_INPUT[0]) or key in _NO_INPUT


def _identity(value: Any) -> tuple[bool, Any]:
    return isinstance(value, bool), value  # True == 1, but a flag is no number


def label(key: str) -> str:
    """What people call a key."""
    return _NAMES.get(key) or key.rsplit(".", maxsplit=1)[-1].replace("_", " ")


def named(key: str, text: str) -> str:
    """A value with its name and unit, for legends and sentences: "working set 20 % of RAM"."""
    if key in (VERSION, "workload.pattern"):
        return text
    if key == "evacuation.at_a_time":
        return f"{text} at a time"
    name, _, unit = label(key).rstrip(")").partition(" (")
    if name in _COUNTED:
        return f"{text} {name}"
    return f"{name} {text} {unit}".rstrip()


def value(run: Run, key: str) -> Value:
    """The value of `key` in a run."""
    raw = run.config.get(key, ABSENT)
    if raw is ABSENT:
        return Value("\u2013", None)
    if key == FALLBACK and raw in (None, "never"):
        return _no_interval(run, raw)
    if key == VERSION:
        return Value(version_name(str(raw)), None)
    if isinstance(raw, bool):
        return Value("on" if raw else "off", None)
    if key in POLICIES:
        return Value("none" if raw is None else str(raw).rpartition(":")[2], None)
    if raw is None:
        return Value("null", None)
    kind = _kind(key, raw)
    number = _PARSERS[kind](raw)
    if number is None or not math.isfinite(number):
        return Value(str(raw), None)
    if isinstance(raw, str):
        return Value(re.sub(r"(?<=[0-9])(?=[A-Za-z])", " ", raw.strip(), count=1), number)
    return Value(quantity(kind, number), number)


def _no_interval(run: Run, raw: str | None) -> Value:
    """null is what the version does, "never" is off."""
    if raw == "never":
        return Value("off", None)
    version = str(run.config.get(VERSION, ""))
    if version not in VERSIONS:
        return Value(f"{version_name(version)}'s own", None)
    interval_ns = VERSIONS[version].fallback_sync_interval_ns
    if interval_ns is None:
        return Value(f"none ({version_name(version)}'s own)", None)
    interval_s = interval_ns / NS_PER_S
    return Value(f"{interval_s:g} s ({version_name(version)}'s own)", interval_s)


def _parsed(parse: Callable[[Any], float], scale: float = 1.0) -> Callable[[Any], float | None]:
    def number(raw: Any) -> float | None:
        try:
            return parse(raw) / scale
        except (ValueError, TypeError, OverflowError):
            return None

    return number


_PARSERS: dict[str, Callable[[Any], float | None]] = {
    "size": _parsed(parse_bytes),
    "rate": _parsed(parse_bytes_per_s),
    "time": _parsed(parse_ns, NS_PER_S),
    "plain": _parsed(float),
}


def _kind(key: str, raw: Any) -> str:
    """Of a known key, or by the unit of a string."""
    last = key.rsplit(".", maxsplit=1)[-1]
    kind = next((kind for kind, keys in _KINDS.items() if last in keys), "plain")
    if kind == "plain" and isinstance(raw, str) and re.match(r"\s*[0-9.]+\s*[A-Za-z]", raw):
        kind = next((k for k, parse in _PARSERS.items() if parse(raw) is not None), "plain")
    return kind


def kind_of(runs: Iterable[Run], key: str) -> str:
    """What the numbers of a key are: size (bytes), rate (bytes a second), time (s) or plain."""
    return next(
        (_kind(key, run.config[key]) for run in runs if run.config.get(key) is not None), "plain"
    )


def quantity(kind: str, number: float) -> str:
    """A number of that kind for people."""
    if kind == "size":
        return format_bytes(number)
    if kind == "rate":
        unit, scale = rate_unit(number)
        return f"{format_number(number / scale)} {unit}"
    if kind == "time":
        return format_duration(number)
    return f"{number:,.6g}" if abs(number) < 1e6 else f"{number / 1e6:,.4g} million"


def order(values: Iterable[Value]) -> list[Value]:
    """Each value once: numbers by size, then the rest as it came."""
    distinct = list(dict.fromkeys(values))
    numbers = sorted((v for v in distinct if v.number is not None), key=lambda v: v.number or 0.0)
    return numbers + [v for v in distinct if v.number is None]


@dataclass(frozen=True, kw_only=True)
class Axes:
    """How a sweep is drawn.

    Attributes:
        x: the key along the axis; None: nothing but the seed differs.
        numeric: every value of x is a number.
        series: the keys whose values make lines of their own; those that follow from x and from
            each other are left out.
    """

    x: str | None
    numeric: bool
    series: list[str]


def choose_axes(runs: Sequence[Run], wanted: str | None = None) -> Axes:
    """The axis asked for, else the numeric key with the most values, else the key with the most.

    Args:
        runs: those that have a config count.
        wanted: key of the axis, of sweep.json; ignored where it does not vary.
    """
    runs = [run for run in runs if run.config]
    keys = [key for key in varying(runs) if key != SEED]
    columns = {key: [value(run, key) for run in runs] for key in keys}
    keys = [key for key in keys if len(set(columns[key])) > 1]
    if not keys:
        return Axes(x=None, numeric=False, series=[])
    counts = {key: len(set(columns[key])) for key in keys}
    numeric = [key for key in keys if all(v.number is not None for v in columns[key])]
    x = wanted if wanted in keys else max(numeric or keys, key=lambda key: counts[key])
    series: list[str] = []
    left = [key for key in keys if key != x]
    # of values that were sampled each is there once, and all seems to follow from it
    series += [key for key in left if x in numeric and key in numeric and _wanders(columns, x, key)]
    while left := [key for key in left if not _follows(columns, [x, *series], key)]:
        series.append(max(left, key=lambda key: counts[key]))
    return Axes(x=x, numeric=x in numeric, series=sorted(series, key=keys.index))


def _wanders(columns: dict[str, list[Value]], x: str, key: str) -> bool:
    """Whether a number that follows from x goes up and down with it, as nothing that belongs to it."""
    if not _follows(columns, [x], key):
        return False
    pairs = zip(columns[x], columns[key], strict=True)
    numbers = [
        other for _, other in sorted((one.number or 0.0, to.number or 0.0) for one, to in pairs)
    ]
    return numbers not in (sorted(numbers), sorted(numbers, reverse=True))


def _follows(columns: dict[str, list[Value]], causes: list[str], key: str) -> bool:
    """Whether the causes' values determine that of `key`."""
    known: dict[tuple[Value, ...], Value] = {}
    for *cause, effect in zip(*(columns[name] for name in (*causes, key)), strict=True):
        if known.setdefault(tuple(cause), effect) != effect:
            return False
    return True
