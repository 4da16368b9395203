"""A workload made of writers: the checks of config.py's writers, and what the guest room needs of them."""

from __future__ import annotations

from collections.abc import Mapping

from gpusim.config.checks import (
    LONGEST_COUNT,
    LONGEST_NS,
    check_keys,
    check_range,
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
    WriterConfig,
    ZipfConfig,
)
from gpusim.guest.pace import CpuBound, Pace, Paced, Recorded
from gpusim.guest.pattern import Random, Sequential, hot_cold, uniform, zipf
from gpusim.guest.placement import Placement, contiguous, scattered
from gpusim.guest.writer import Writer
from gpusim.layout import CHUNK_PAGES, Layout
from gpusim.units import NS_PER_S, format_bytes, parse_ns

MAX_GRANULES = 4_000_000  # about 300 bytes of host memory each
MAX_PLACES = 2**26  # 8 bytes each while the granules are drawn


def _pace(key: str, writer: WriterConfig, limit_s: float) -> Pace:
    rate = writer.page_writes_per_s
    check_range(f"{key}.page_writes_per_s", rate, 0, 1e12)
    if rate * limit_s > LONGEST_COUNT:
        message = "times limit.simulated is more than 2^53 page writes; lower one of them"
        reject(f"{key}.page_writes_per_s", rate, message)
    if writer.pace != "paced" and writer.catch_up_page_writes_per_s is not None:
        reject(
            f"{key}.catch_up_page_writes_per_s",
            writer.catch_up_page_writes_per_s,
            "only a writer of pace paced catches up; remove it or set pace=paced",
        )
    if writer.pace != "recorded" and writer.recorded is not None:
        reject(
            f"{key}.recorded",
            "[...]",
            "only used with pace=recorded; remove it or set pace=recorded",
        )
    if writer.pace == "cpu_bound":
        return CpuBound(rate)
    if writer.pace == "paced":
        capacity = writer.catch_up_page_writes_per_s
        if capacity is None:
            reject(
                f"{key}.catch_up_page_writes_per_s",
                None,
                "a paced writer needs it: page writes a second while it has a backlog",
            )
        check_range(f"{key}.catch_up_page_writes_per_s", capacity, max(rate, 1e-9), 1e12)
        return Paced(rate, capacity)
    if writer.pace != "recorded":
        reject(f"{key}.pace", writer.pace, "must be cpu_bound, paced or recorded")
    if writer.windows is not None or not writer.throttled:
        reject(
            f"{key}.pace",
            "recorded",
            "takes neither windows nor throttled=false: the record says it all",
        )
    pairs = parse_pairs(
        f"{key}.recorded", writer.recorded, float, float, "[[0, 0], [0.2, 8768], ...]"
    )
    times, writes = parse_record(f"{key}.recorded", pairs)
    return Recorded(times, writes, rate)


def _working_set(
    key: str, config: WriterConfig, layout: Layout, page_bytes: int
) -> tuple[int, int]:
    """First guest page and number of pages of a contiguous working set."""
    if (config.working_set is None) == (config.working_set_percent is None):
        message = (
            "set either working_set or working_set_percent, and null for the other: "
            f"{key}.working_set_percent=null"
        )
        reject(f"{key}.working_set", config.working_set, message)
    asked: object
    if config.working_set_percent is not None:
        set_key, asked = f"{key}.working_set_percent", config.working_set_percent
        check_range(set_key, config.working_set_percent, 0, 100, " percent of the VM")
        pages = round(layout.pages * config.working_set_percent / 100)
    else:
        set_key, asked = f"{key}.working_set", config.working_set
        pages = parse_page_count(set_key, asked, page_bytes)
    if pages == 0:
        reject(
            set_key, asked, "must hold a page or more; for a guest without writes: workload=idle"
        )
    start = parse_page_count(f"{key}.start", config.start, page_bytes)
    beyond = start + pages - layout.pages
    if beyond > 0:
        reject(
            set_key,
            asked,
            f"the working set ends {format_bytes(beyond * page_bytes)} behind the VM's "
            f"{format_bytes(layout.pages * page_bytes)}; make it smaller, or {key}.start",
        )
    return start, pages


def _placement(
    key: str, config: WriterConfig, layout: Layout, page_bytes: int, seed: int
) -> Placement:
    """Where the working set lies: in one piece, or scattered in granules."""
    start, pages = _working_set(key, config, layout, page_bytes)
    if config.granule is None:
        return contiguous(start, pages)
    granule_key = f"{key}.granule"
    granule = parse_page_count(granule_key, config.granule, page_bytes)
    if start:
        message = f"a scattered working set has none; remove it or {granule_key}"
        reject(f"{key}.start", config.start, message)
    whole_pages = granule * page_bytes == parse_size(granule_key, config.granule)
    if not whole_pages or granule == 0 or CHUNK_PAGES % granule:
        reject(granule_key, config.granule, "must be a power of two of pages, at most 2^18 pages")
    granules = -(-pages // granule)
    if granules > layout.pages // granule:
        message = (
            f"{granules} granules do not fit the VM; use a smaller one or a smaller working set"
        )
        reject(granule_key, config.granule, message)
    if granules > MAX_GRANULES or layout.pages // granule > MAX_PLACES:
        message = (
            f"the VM has {layout.pages // granule} places for {granules} pieces; use a larger one"
        )
        reject(granule_key, config.granule, message)
    return scattered(layout.pages, pages, granule, seed)


def _windows(key: str, config: WriterConfig) -> tuple[tuple[int, int], ...] | None:
    """When the writer is active, ns."""
    if config.windows is None:
        return None
    example = '[["0s", "60s"], ...]'
    pairs = parse_pairs(f"{key}.windows", config.windows, parse_ns, parse_ns, example)
    borders = [int(border) for window in pairs for border in window]
    if not borders or sorted(set(borders)) != borders or borders[-1] > LONGEST_NS:
        message = "must be one or more [from, until], rising and apart"
        reject(f"{key}.windows", config.windows, message)
    return tuple((int(low), int(high)) for low, high in pairs)


def _pattern(key: str, config: WriterConfig, pages: int) -> Random | Sequential:
    """Which pages of its working set the writer writes."""
    if isinstance(config, SequentialConfig):
        check_range(f"{key}.threads", config.threads, 1, min(pages, 65536))
        check_range(f"{key}.first_write", config.first_write, 0, 2**53)
        return Sequential(pages, config.threads, config.first_write)
    if isinstance(config, HotColdConfig):
        check_range(f"{key}.hot_percent", config.hot_percent, 0, 100)
        check_range(f"{key}.hot_writes_percent", config.hot_writes_percent, 0, 100)
        hot = round(pages * config.hot_percent / 100)
        if not 0 < hot < pages:
            message = "must leave a page hot and one cold; for one band use workload=uniform"
            reject(f"{key}.hot_percent", config.hot_percent, message)
        return hot_cold(pages, hot, config.hot_writes_percent / 100)
    if isinstance(config, ZipfConfig):
        check_range(f"{key}.exponent", config.exponent, 0, 10)
        return zipf(pages, config.exponent)
    return uniform(pages)


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
            allowed = "must be uniform, hot_cold, zipf or sequential"
            reject(f"{key}.pattern", pattern, allowed, "unknown_choice")
        check_keys(key, keys, kind, f"a {pattern} writer")
        writers[name] = kind(**keys)
    return writers


def _named(config: Config) -> dict[str, tuple[str, WriterConfig]]:
    """Key in the config -> name and keys of each writer."""
    workload = config.workload
    if isinstance(workload, MixConfig):
        if not workload.writers:
            message = "a mix needs a writer or more; for a guest without writes: workload=idle"
            reject("workload.writers", "{}", message)
        return {
            f"workload.writers.{name}": (name, w) for name, w in _make_writers(workload).items()
        }
    if isinstance(workload, WriterConfig):
        return {"workload": (workload.pattern, workload)}
    return {}


def _vcpus(config: Config, writers: dict[str, tuple[str, WriterConfig]]) -> dict[str, float]:
    """vCPUs that each writer keeps busy: as asked, or an even share of those that are left."""
    asked = {key: w.vcpus for key, (_, w) in writers.items() if w.vcpus is not None}
    for key, vcpus in asked.items():
        check_range(f"{key}.vcpus", vcpus, 0, config.vm.vcpus)
    if sum(asked.values()) > config.vm.vcpus:
        message = (
            f"the writers' vcpus add up to {sum(asked.values()):g}; give the VM more or them fewer"
        )
        reject("vm.vcpus", config.vm.vcpus, message)
    others = [key for key, (_, w) in writers.items() if w.throttled and w.vcpus is None]
    share = (config.vm.vcpus - sum(asked.values())) / max(1, len(others))
    return {**dict.fromkeys(writers, 0.0), **dict.fromkeys(others, share), **asked}


def parse_writers(config: Config, layout: Layout) -> tuple[Writer, ...]:
    """The writers of a config's workload.

    Raises:
        ConfigError: a value out of range, or two that contradict each other.
    """
    named = _named(config)
    for key, (_, writer) in named.items():
        if PATTERNS.get(writer.pattern) is not type(writer):
            message = "follows from the preset and cannot be changed; choose another with workload="
            reject(f"{key}.pattern", writer.pattern, message)
    vcpus = _vcpus(config, named)
    limit_s = parse_duration_ns("limit.simulated", config.limit.simulated) / NS_PER_S
    writers = []
    for key, (name, writer) in named.items():
        placement = _placement(key, writer, layout, config.vm.page_size, config.seed)
        writers.append(
            Writer(
                name=name,
                pattern=_pattern(key, writer, int(placement.own_last[-1])),
                pace=_pace(key, writer, limit_s),
                placement=placement,
                windows=_windows(key, writer),
                throttled=writer.throttled,
                vcpus=vcpus[key],
            )
        )
    return tuple(writers)
