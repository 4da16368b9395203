"""The keys of `workload` as writers: their pace, pattern, place and windows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from gpusim.config.checks import (
    check_choice,
    check_range,
    check_whole,
    parse_duration_ns,
    parse_page_count,
    parse_pairs,
    parse_record,
    parse_size,
    reject,
)
from gpusim.config.schema import (
    PATTERNS,
    Config,
    HotColdConfig,
    MixConfig,
    SequentialConfig,
    WithoutReplacementConfig,
    WriterConfig,
    ZipfConfig,
)
from gpusim.config.types import changed
from gpusim.guest.drift import Drift
from gpusim.guest.pace import CpuBound, Pace, Paced, Recorded
from gpusim.guest.pattern import Random, Sequential, hot_cold, shuffled, uniform, zipf
from gpusim.guest.placement import Placement, contiguous, scattered
from gpusim.guest.rounds import Rounds
from gpusim.guest.windows import OnOff, Windows
from gpusim.guest.writer import Writer
from gpusim.layout import CHUNK_PAGES, IntArray, Layout
from gpusim.stream import Purpose, Stream
from gpusim.units import LONGEST_NS, MOST_COUNT, NS_PER_MS, NS_PER_S, format_bytes, parse_ns
from gpusim.wall_limit import NO_LIMIT, WallLimit

MAX_GRANULES = 4_000_000  # each takes about 300 bytes of host memory
MAX_PLACES = 2**26  # each takes 8 bytes while the granules are drawn
SHORTEST_ON_NS = 10 * NS_PER_MS  # shorter bursts are a rate: a sync sees only their mean
MOST_GROUPS = 64  # of vCPUs. Each is a writer of its own
SHORTEST_DRIFT_NS = 100 * NS_PER_MS
MOST_PLACES_OF_DRIFT = 4096  # each cuts all parts of the working set once
WRITING_PATTERNS = [name for name, kind in PATTERNS.items() if issubclass(kind, WriterConfig)]
MOVING_PATTERNS = {"uniform", "hot_cold", "zipf"}

_Draw: TypeAlias = Callable[[Purpose], Stream]  # of one writer


def _pace(key: str, writer: WriterConfig, limit_s: float) -> Pace:
    rate = writer.page_writes_per_s
    check_range(f"{key}.page_writes_per_s", rate, 0, 1e12)
    if rate * limit_s > MOST_COUNT:
        hint = "times limit.simulated is more than 2^53 page writes. Lower one of them"
        reject(f"{key}.page_writes_per_s", rate, hint, "out_of_range")
    if writer.pace != "paced" and writer.catch_up_page_writes_per_s is not None:
        reject(
            f"{key}.catch_up_page_writes_per_s",
            writer.catch_up_page_writes_per_s,
            "only a writer with pace=paced catches up. Remove it or set pace=paced",
            "not_used",
        )
    if writer.pace != "recorded" and writer.recorded is not None:
        reject(
            f"{key}.recorded",
            "[...]",
            "only a writer with pace=recorded uses it. Remove it or set pace=recorded",
            "not_used",
        )
    if writer.pace == "cpu_bound":
        return CpuBound(rate)
    if writer.pace == "paced":
        capacity = writer.catch_up_page_writes_per_s
        if capacity is None:
            reject(
                f"{key}.catch_up_page_writes_per_s",
                None,
                "a paced writer needs it: page writes per second while it has a backlog",
                "missing",
            )
        check_range(f"{key}.catch_up_page_writes_per_s", capacity, max(rate, 1e-9), 1e12)
        return Paced(rate, capacity)
    if writer.pace != "recorded":
        allowed = "must be cpu_bound, paced or recorded"
        reject(f"{key}.pace", writer.pace, allowed, "unknown_choice")
    if writer.windows is not None or not writer.throttled:
        reject(
            f"{key}.pace",
            "recorded",
            "takes neither windows nor throttled=false. Remove them",
            "contradiction",
        )
    pairs = parse_pairs(
        f"{key}.recorded", writer.recorded, float, float, "[[0, 0], [0.2, 8768], ...]"
    )
    times, writes = parse_record(f"{key}.recorded", pairs)
    return Recorded(times, writes, rate)


def _working_set(
    key: str, config: WriterConfig, layout: Layout, page_bytes: int
) -> tuple[int, int]:
    """Return the first guest page and the number of pages of a contiguous working set."""
    if (config.working_set is None) == (config.working_set_percent is None):
        hint = (
            "set either working_set or working_set_percent. Set the other to null: "
            f"{key}.working_set_percent=null"
        )
        reject(f"{key}.working_set", config.working_set, hint, "contradiction")
    value: object
    if config.working_set_percent is not None:
        set_key, value = f"{key}.working_set_percent", config.working_set_percent
        check_range(set_key, config.working_set_percent, 0, 100, " percent of the VM")
        pages = round(layout.pages * config.working_set_percent / 100)
    else:
        set_key, value = f"{key}.working_set", config.working_set
        pages = parse_page_count(set_key, value, page_bytes)
    if pages == 0:
        hint = "must hold at least one page. For a guest without writes set workload=idle"
        reject(set_key, value, hint, "out_of_range")
    start = parse_page_count(f"{key}.start", config.start, page_bytes)
    beyond = start + pages - layout.pages
    if beyond > 0:
        hint = (
            f"the working set ends {format_bytes(beyond * page_bytes)} after the VM's "
            f"{format_bytes(layout.pages * page_bytes)}. Lower it or {key}.start"
        )
        reject(set_key, value, hint, "does_not_fit_vm")
    return start, pages


class _Set(NamedTuple):
    """A working set without its place.

    Attributes:
        pages: of the set.
        drift: how it moves. None: it stays.
        first, placed: first page and number of pages of the set, or of the range in which it moves.
        granule: pages of a granule, if the set is scattered.
        within: the first page, and the page behind the last, between which it is scattered. None:
            the whole RAM, and first is 0.
    """

    pages: int
    drift: Drift | None
    first: int
    placed: int
    granule: int | None = None
    within: tuple[int, int] | None = None


def _set_of(key: str, config: WriterConfig, layout: Layout, page_bytes: int, draw: _Draw) -> _Set:
    """Return the working set of a writer."""
    start, pages = _working_set(key, config, layout, page_bytes)
    drift = _drift(key, config, layout, page_bytes, start, pages, draw)
    placed = pages if drift is None else drift.range_pages
    range_key = f"{key}.granule_range"
    if config.granule is None:
        if config.granule_range is not None:
            hint = f"needs {key}.granule. Set it, or remove this key"
            reject(range_key, config.granule_range, hint, "not_used")
        first = 0 if drift and config.drift_range is None else start
        return _Set(pages, drift, first, placed)
    granule_key = f"{key}.granule"
    granule = parse_page_count(granule_key, config.granule, page_bytes)
    if start and config.granule_range is None:
        hint = (
            f"a scattered working set needs {range_key} for a start. Set it, or remove the start "
            f"or {granule_key}"
        )
        reject(f"{key}.start", config.start, hint, "contradiction")
    whole_pages = granule * page_bytes == parse_size(granule_key, config.granule)
    if not whole_pages or granule == 0 or CHUNK_PAGES % granule:
        allowed = "must be a power of two of pages, at most 2^18 pages"
        reject(granule_key, config.granule, allowed, "out_of_range")
    granules = -(-placed // granule)
    within = None
    if config.granule_range is not None:
        within = start, start + parse_page_count(range_key, config.granule_range, page_bytes)
        if within[1] > layout.pages:
            hint = f"the range ends after the VM. Lower it or {key}.start"
            reject(range_key, config.granule_range, hint, "does_not_fit_vm")
        if granules > within[1] // granule - -(-start // granule):
            hint = f"{granules} granules do not fit it. Raise it or lower the working set"
            reject(range_key, config.granule_range, hint, "does_not_fit_vm")
    if granules > layout.pages // granule:
        hint = f"{granules} granules do not fit the VM. Lower it or the working set"
        if drift is not None:
            hint = f"{granules} granules do not fit the VM. Lower it or {key}.drift_range"
        reject(granule_key, config.granule, hint, "does_not_fit_vm")
    if granules > MAX_GRANULES or layout.pages // granule > MAX_PLACES:
        hint = f"the VM has {layout.pages // granule} places for {granules} granules. Raise it"
        reject(granule_key, config.granule, hint, "out_of_range")
    return _Set(pages, drift, 0, placed, granule, within)


def _places(
    sets: Sequence[_Set], draws: Sequence[_Draw], layout: Layout, limit: WallLimit
) -> list[Placement]:
    """Return where each working set lies.

    The largest granules are placed first. They leave whole granules of the smaller ones free, so
    sets that fit beside each other share no page.
    """
    places = [contiguous(one.first, one.placed) for one in sets]
    granules = [(one.granule, number) for number, one in enumerate(sets) if one.granule is not None]
    is_free, before = np.ones(1, np.bool_), layout.pages  # all pages are one free granule
    for granule, number in sorted(granules, key=lambda one: -one[0]):
        free = None
        if len(granules) > 1:
            limit.check()
            is_free = np.repeat(is_free, before // granule)
            rest = layout.pages // granule - len(is_free)  # behind the last larger granule
            is_free, before = np.append(is_free, np.ones(rest, np.bool_)), granule
            free = np.flatnonzero(is_free)
        free = _free_within(sets[number], free)
        draw = draws[number](Purpose.PLACEMENT)
        places[number] = scattered(layout.pages, sets[number].placed, granule, draw, free)
        if len(granules) > 1:
            is_free[places[number].guest_first // granule] = False
    return places


def _free_within(one: _Set, free: IntArray | None) -> IntArray | None:
    """Return the granules that a set may have, if they are not all: see `scattered`.

    Those of its range are taken, free or not, if the free ones do not suffice.
    """
    if one.within is None or one.granule is None:
        return free
    first, last = -(-one.within[0] // one.granule), one.within[1] // one.granule
    if free is not None:
        own = free[(first <= free) & (free < last)]
        if len(own) >= -(-one.placed // one.granule):
            return own
    return np.arange(first, last)


def _drift(
    key: str,
    config: WriterConfig,
    layout: Layout,
    page_bytes: int,
    start: int,
    pages: int,
    draw: _Draw,
) -> Drift | None:
    """Return how the working set moves. None: it stays."""
    keys = ("drift_step", "drift_step_percent")
    steps = [name for name in keys if getattr(config, name) is not None]
    if config.drift_period is None:
        unset = {**dict.fromkeys((*keys, "drift_range")), "drift_start_percent": "auto"}
        _refuse_unused(key, config, unset, f"needs {key}.drift_period. Set it, or remove this key")
        return None
    if len(steps) != 1:
        hint = "set one of drift_step and drift_step_percent, and the other to null"
        code = "contradiction" if steps else "missing"
        reject(f"{key}.drift_step", config.drift_step, hint, code)
    if config.pattern not in MOVING_PATTERNS:
        hint = f"only {', '.join(sorted(MOVING_PATTERNS))} move. Remove it"
        reject(f"{key}.drift_period", config.drift_period, hint, "contradiction")
    period_ns = parse_duration_ns(f"{key}.drift_period", config.drift_period)
    if period_ns < SHORTEST_DRIFT_NS:
        hint = "must be at least 100ms. Lower drift_step as well for the same speed"
        reject(f"{key}.drift_period", config.drift_period, hint, "out_of_range")
    range_key, step_key = f"{key}.drift_range", f"{key}.{steps[0]}"
    within = layout.pages
    if config.drift_range is not None:
        within = parse_page_count(range_key, config.drift_range, page_bytes)
        if start + within > layout.pages:
            hint = f"the range ends after the VM. Lower it or {key}.start"
            reject(range_key, config.drift_range, hint, "does_not_fit_vm")
    if config.drift_step_percent is not None:
        check_range(step_key, config.drift_step_percent, 0, 100, " percent of the range")
        step = round(within * config.drift_step_percent / 100)
    else:
        step = parse_page_count(step_key, config.drift_step, page_bytes)
    places = within // step if step else 0
    if not 2 <= places <= MOST_PLACES_OF_DRIFT:
        low, high = (format_bytes(-(-within // n) * page_bytes) for n in (MOST_PLACES_OF_DRIFT, 2))
        allowed = f"must lie between {low} and {high}, which is half of the range"
        reject(step_key, getattr(config, steps[0]), allowed, "out_of_range")
    offset = start if config.drift_range is None else 0
    if max(pages, offset + 1) > step * places:
        hint = (
            f"the range has {format_bytes(step * places * page_bytes)} in whole steps, and the "
            f"working set does not fit. Raise {range_key} or lower {step_key}"
        )
        reject(step_key, getattr(config, steps[0]), hint, "does_not_fit_vm")
    phase = _share_or_drawn(
        f"{key}.drift_start_percent", config.drift_start_percent, draw, Purpose.DRIFT_PHASE
    )
    return Drift(
        period_ns=period_ns,
        first_step_ns=max(1, period_ns - int(phase * period_ns)),
        step_pages=step,
        places=places,
        offset=offset,
    )


def _windows(key: str, config: WriterConfig, draw: _Draw) -> Windows | None:
    """Return when the writer is active. None: always."""
    pairs = _fixed_windows(key, config)
    if config.on_time is None and config.off_time is None:
        unset = {"on_off_lengths": "fixed", "on_off_start_percent": "auto"}
        hint = f"needs {key}.on_time and {key}.off_time. Set them, or remove it"
        _refuse_unused(key, config, unset, hint)
        return None if pairs is None else Windows(pairs)
    lengths = []
    for name in ("on_time", "off_time"):
        value = getattr(config, name)
        if value is None:
            hint = "on_time and off_time go together. Set both, or set both to null"
            reject(f"{key}.{name}", value, hint, "missing")
        lengths.append(parse_duration_ns(f"{key}.{name}", value))
        if lengths[-1] < SHORTEST_ON_NS:
            hint = "must be at least 10ms. For shorter bursts set their mean page_writes_per_s"
            reject(f"{key}.{name}", value, hint, "out_of_range")
    if config.pace == "recorded":
        hint = "a writer with pace=recorded has its own times. Set on_time and off_time to null"
        reject(f"{key}.on_time", config.on_time, hint, "contradiction")
    check_choice(f"{key}.on_off_lengths", config.on_off_lengths, ("fixed", "exponential"))
    phase_key, phase = f"{key}.on_off_start_percent", config.on_off_start_percent
    is_drawn = config.on_off_lengths == "exponential"
    return OnOff(
        lengths[0],
        lengths[1],
        _share_or_drawn(phase_key, phase, draw, Purpose.CYCLE_PHASE),
        stream=draw(Purpose.CYCLE_LENGTHS) if is_drawn else None,
        inside=pairs,
    )


def _refuse_unused(
    key: str, config: WriterConfig, unset: Mapping[str, str | None], hint: str
) -> None:
    """Refuse keys that differ from their unset values, because nothing would read them."""
    for name, value in unset.items():
        if getattr(config, name) != value:
            reject(f"{key}.{name}", getattr(config, name), hint, "not_used")


def _share_or_drawn(key: str, value: int | float | str, draw: _Draw, purpose: Purpose) -> float:
    """Return a percentage as a share from 0 to 1. auto: the seed draws it."""
    if value == "auto":
        return float(draw(purpose).uniform(1)[0])
    if isinstance(value, str):
        reject(key, value, "must be auto or a number from 0 to 100", "wrong_format")
    check_range(key, value, 0, 100)
    return value / 100


def _fixed_windows(key: str, config: WriterConfig) -> tuple[tuple[int, int], ...] | None:
    if config.windows is None:
        return None
    example = '[["0s", "60s"], ...]'
    pairs = parse_pairs(f"{key}.windows", config.windows, parse_ns, parse_ns, example)
    borders = [int(border) for window in pairs for border in window]
    if not borders or sorted(set(borders)) != borders or borders[-1] > LONGEST_NS:
        allowed = "must be one or more [from, until]. All times must rise"
        reject(f"{key}.windows", config.windows, allowed, "out_of_range")
    return tuple((int(low), int(high)) for low, high in pairs)


def _first_write(key: str, value: int | str, pages: int, draw: _Draw) -> int:
    """Return the writes before the migration. auto: the seed draws one of so many positions."""
    if value == "auto":
        return int(draw(Purpose.SWEEP_PHASE).uniform(1)[0] * pages)
    check_whole(f"{key}.first_write", value, 0, MOST_COUNT, ", or auto")
    assert isinstance(value, int)
    return value


def _heat(key: str, config: HotColdConfig | ZipfConfig, pattern: Random, draw: _Draw) -> Random:
    """Return a pattern with its hot pages where the config wants them."""
    check_choice(f"{key}.heat", config.heat, ("by_address", "shuffled"))
    if config.heat == "by_address":
        return pattern
    if config.drift_period is not None:
        hint = "a working set that moves has its heat by_address. Remove it"
        reject(f"{key}.heat", config.heat, hint, "contradiction")
    return shuffled(pattern, draw(Purpose.HEAT))


def _pattern(
    key: str, config: WriterConfig, pages: int, draw: _Draw
) -> Random | Sequential | Rounds:
    if isinstance(config, SequentialConfig):
        check_range(f"{key}.threads", config.threads, 1, min(pages, 65536))
        share = -(-pages // config.threads)
        first_write = _first_write(key, config.first_write, share, draw)
        return Sequential(pages, config.threads, first_write)
    if isinstance(config, WithoutReplacementConfig):
        first_write = _first_write(key, config.first_write, pages, draw)
        return Rounds(pages, first_write, draw(Purpose.ROUNDS))
    if isinstance(config, HotColdConfig):
        check_range(f"{key}.hot_percent", config.hot_percent, 0, 100)
        check_range(f"{key}.hot_writes_percent", config.hot_writes_percent, 0, 100)
        hot = round(pages * config.hot_percent / 100)
        if not 0 < hot < pages:
            hint = "must leave a hot page and a cold page. For one band set workload=uniform"
            reject(f"{key}.hot_percent", config.hot_percent, hint, "out_of_range")
        return _heat(key, config, hot_cold(pages, hot, config.hot_writes_percent / 100), draw)
    if isinstance(config, ZipfConfig):
        check_range(f"{key}.exponent", config.exponent, 0, 10)
        return _heat(key, config, zipf(pages, config.exponent), draw)
    return uniform(pages)


def _memory_rate(key: str, config: WriterConfig) -> float | None:
    """Return the most page writes per second that the memory takes. None: no limit."""
    rate_key, rate = f"{key}.memory_page_writes_per_s", config.memory_page_writes_per_s
    if rate is None:
        return None
    if config.pace == "recorded" or not config.throttled:
        hint = "limits vCPUs, and not device writes or a recorded pace. Remove it"
        reject(rate_key, rate, hint, "contradiction")
    check_range(rate_key, rate, 1e-9, 1e12)
    return rate


def _zeroed_share(key: str, config: WriterConfig, tracked_page: object) -> float:
    """Return the share of the writes that leave their page zero."""
    zeroed_key, percent = f"{key}.zeroed_percent", config.zeroed_percent
    check_range(zeroed_key, percent, 0, 100)
    if percent and tracked_page is not None:
        hint = "counts target pages, and tracking.page_size tracks larger ones. Set one of them to 0 or null"
        reject(zeroed_key, percent, hint, "contradiction")
    return percent / 100


def _groups(key: str, config: WriterConfig) -> list[tuple[float, float]]:
    """Return each group's share of the vCPUs and of the writes. Empty: there are no groups."""
    if config.vcpu_groups is None:
        return []
    groups_key = f"{key}.vcpu_groups"
    groups = parse_pairs(groups_key, config.vcpu_groups, float, float, "[[25, 60], [75, 40]]")
    if not 0 < len(groups) <= MOST_GROUPS:
        allowed = f"must have 1 to {MOST_GROUPS} groups"
        reject(groups_key, f"{len(groups)} groups", allowed, "out_of_range")
    if not all(0 < vcpus <= 100 and 0 <= writes <= 100 for vcpus, writes in groups):
        allowed = "must be percentages from 0 to 100. Each group needs vCPUs above 0"
        reject(groups_key, config.vcpu_groups, allowed, "out_of_range")
    for name, column in (("vCPUs", 0), ("writes", 1)):
        total = sum(group[column] for group in groups)
        if abs(total - 100) > 1e-6:
            hint = f"the percentages of the {name} must add up to 100, not {total:g}"
            reject(groups_key, config.vcpu_groups, hint, "contradiction")
    if not config.throttled or config.pace == "recorded":
        hint = "takes neither throttled=false nor pace=recorded. Remove them"
        reject(groups_key, config.vcpu_groups, hint, "contradiction")
    if isinstance(config, WithoutReplacementConfig):
        hint = "vCPUs that share one order are equally fast. Remove it"
        reject(groups_key, config.vcpu_groups, hint, "contradiction")
    if isinstance(config, SequentialConfig) and len(groups) > config.threads:
        hint = f"each group needs a thread, and {key}.threads is {config.threads}. Raise that"
        reject(groups_key, config.vcpu_groups, hint, "contradiction")
    return [(vcpus / 100, writes / 100) for vcpus, writes in groups]


def _split(writer: Writer, groups: list[tuple[float, float]]) -> list[Writer]:
    """Return a writer for each group of vCPUs. Sequential threads are shared out by the vCPUs."""
    parts = []
    pattern = writer.pattern
    passed, thread = 0.0, 0
    for number, (vcpus_share, share) in enumerate(groups):
        passed += vcpus_share
        memory_rate = writer.memory_rate and writer.memory_rate * share
        part = replace(
            writer,
            name=f"{writer.name}.{number + 1}",
            pace=writer.pace.scaled(share),
            vcpus=writer.vcpus * vcpus_share,
            memory_rate=memory_rate,
            reader=None if number else writer.reader,
        )
        if isinstance(pattern, Sequential):
            after = len(groups) - number - 1  # each of these needs a thread
            next_thread = round(pattern.threads * passed)
            next_thread = min(max(next_thread, thread + 1), pattern.threads - after)
            first, last = pattern.share(thread)[0], pattern.share(next_thread - 1)[1]
            own = Sequential(last - first, next_thread - thread, pattern.first_write)
            part = replace(part, pattern=own, placement=writer.placement.part(first, last))
            thread = next_thread
        parts.append(part)
    return parts


def _make_writers(config: MixConfig) -> dict[str, WriterConfig]:
    """Return the writers of a mix as data classes. A config file holds plain mappings."""
    writers = {}
    for name, keys in config.writers.items():
        key = f"workload.writers.{name}"
        if isinstance(keys, WriterConfig):
            writers[name] = keys
            continue
        if not isinstance(keys, Mapping):
            example = "{pattern: uniform, working_set: 1GiB}"
            allowed = f"must hold the keys of one writer, such as {example}"
            reject(key, keys, allowed, "wrong_type")
        pattern = keys.get("pattern")
        kind = PATTERNS.get(str(pattern))
        if kind is None or not issubclass(kind, WriterConfig):
            allowed = f"must be one of {', '.join(WRITING_PATTERNS)}"
            reject(f"{key}.pattern", pattern, allowed, "unknown_choice")
        writers[name] = changed(kind(), keys, key, f"a {pattern} writer")
    return writers


def _named_writers(config: Config) -> dict[str, tuple[str, WriterConfig]]:
    """Return the name and the keys of each writer, by its key in the config."""
    workload = config.workload
    if isinstance(workload, MixConfig):
        if not workload.writers:
            hint = "a mix needs at least one writer. For a guest without writes set workload=idle"
            reject("workload.writers", "{}", hint, "missing")
        return {
            f"workload.writers.{name}": (name, w) for name, w in _make_writers(workload).items()
        }
    if isinstance(workload, WriterConfig):
        return {"workload": (workload.pattern, workload)}
    return {}


def _vcpus(config: Config, writers: dict[str, tuple[str, WriterConfig]]) -> dict[str, float]:
    """Return the vCPUs that each writer keeps busy: its own key, or an even share of the rest."""
    fixed = {key: w.vcpus for key, (_, w) in writers.items() if w.vcpus is not None}
    for key, vcpus in fixed.items():
        check_range(f"{key}.vcpus", vcpus, 0, config.vm.vcpus)
    if sum(fixed.values()) > config.vm.vcpus:
        hint = f"the writers' vcpus add up to {sum(fixed.values()):g}. Raise it or lower those"
        reject("vm.vcpus", config.vm.vcpus, hint, "contradiction")
    others = [key for key, (_, w) in writers.items() if w.throttled and w.vcpus is None]
    share = (config.vm.vcpus - sum(fixed.values())) / max(1, len(others))
    return {**dict.fromkeys(writers, 0.0), **dict.fromkeys(others, share), **fixed}


def _reads(
    key: str, name: str, config: WriterConfig, layout: Layout, page_bytes: int, limit_s: float
) -> dict[str, Any]:
    """Return how a writer reads, as the keys of a Writer."""
    rate = config.reads_per_s
    if rate is not None:
        check_range(f"{key}.reads_per_s", rate, 0, 1e12)
        if rate * limit_s > MOST_COUNT:
            hint = "times limit.simulated is more than 2^53 page reads. Lower one of them"
            reject(f"{key}.reads_per_s", rate, hint, "out_of_range")
    if config.read_working_set is None:
        if rate is None:
            return {}
        if rate and not config.page_writes_per_s:
            hint = f"a writer without writes needs {key}.read_working_set for its reads"
            reject(f"{key}.reads_per_s", rate, hint, "missing")
        return {"reads_per_write": rate / config.page_writes_per_s if rate else 0.0}
    set_key = f"{key}.read_working_set"
    if rate is None:
        hint = f"needs {key}.reads_per_s, the page reads per second"
        reject(set_key, config.read_working_set, hint, "missing")
    pages = parse_page_count(set_key, config.read_working_set, page_bytes)
    start = parse_page_count(f"{key}.start", config.start, page_bytes)
    if not 0 < pages <= layout.pages - start:
        size = format_bytes((layout.pages - start) * page_bytes)
        hint = f"must hold at least one page and end inside the VM, which is {size} from its start"
        reject(set_key, config.read_working_set, hint, "does_not_fit_vm")
    reader = Writer(
        name=f"{name} reads",
        pattern=uniform(pages),
        pace=CpuBound(rate),
        placement=contiguous(start, pages),
        windows=None,
        throttled=config.throttled,
        vcpus=0.0,
    )
    return {"reads_per_write": 0.0, "reader": reader}


def parse_writers(
    config: Config, layout: Layout, limit: WallLimit = NO_LIMIT
) -> tuple[Writer, ...]:
    """Return the writers of a config's workload.

    Raises:
        ConfigError: a value is out of range, or two values contradict each other.
        WallLimitReachedError: the limit is over.
    """
    named = _named_writers(config)
    for key, (_, writer) in named.items():
        if PATTERNS.get(writer.pattern) is not type(writer):
            hint = "follows from the preset. Choose another preset with workload="
            reject(f"{key}.pattern", writer.pattern, hint, "contradiction")
    vcpus = _vcpus(config, named)
    limit_s = parse_duration_ns("limit.simulated", config.limit.simulated) / NS_PER_S
    draws = [partial(Stream, config.seed, number) for number in range(len(named))]
    sets = list[_Set]()
    for draw, (key, (_, writer)) in zip(draws, named.items(), strict=True):
        if sets:
            limit.check()  # a config with one writer is quick
        sets.append(_set_of(key, writer, layout, config.vm.page_size, draw))
    places = _places(sets, draws, layout, limit)
    writers: list[Writer] = []
    for number, (key, (name, writer)) in enumerate(named.items()):
        if writers:
            limit.check()
        draw, own = draws[number], sets[number]
        made = Writer(
            name=name,
            pattern=_pattern(key, writer, own.pages, draw),
            pace=_pace(key, writer, limit_s),
            placement=places[number],
            windows=_windows(key, writer, draw),
            throttled=writer.throttled,
            vcpus=vcpus[key],
            drift=own.drift,
            memory_rate=_memory_rate(key, writer),
            zeroed_share=_zeroed_share(key, writer, config.tracking.page_size),
            **_reads(key, name, writer, layout, config.vm.page_size, limit_s),
        )
        groups = _groups(key, writer)
        writers += _split(made, groups) if groups else [made]
    return tuple(writers)
