"""A dry run: what a config would need and cost, and what to expect of it, before it is run.

The migration is run over expected counts instead of bitmaps (pages/expected.py), which is quick and
decides as a run does but for chance; some of its looks are then drawn for a moment on the real
backend, over a few chunks, and their time is extrapolated.
"""

from __future__ import annotations

import math
import time
from dataclasses import replace

import numpy as np

from gpusim.config.backend import Backend, choose_backend
from gpusim.config.scenario import Scenario, resolve
from gpusim.config.schema import Config
from gpusim.engine.evacuation import Host
from gpusim.engine.expected_run import expected_run
from gpusim.engine.records import Summary
from gpusim.layout import CHUNK_PAGES, CHUNK_SHIFT
from gpusim.pages import backends
from gpusim.pages.draw import certain_cells
from gpusim.pages.expected import ExpectedKernels
from gpusim.pages.primitives import Kernels, Op, Step
from gpusim.sender.link import Link
from gpusim.units import NS_PER_S, format_bytes

LONGEST_NS = 20 * NS_PER_S  # of looking ahead
ROOM = 2048  # chunks, if the VM has them, that samples are drawn in: more than a cache holds
SAMPLE = {"cupy": 2048}  # chunks drawn of a look; a GPU wants many at a time
SAMPLE_ON_CPU = 128


def plan(config: Config) -> str:
    """What a run would need and cost, as lines for people; checks the config as a run does.

    Raises:
        ConfigError: as `simulate` would.
    """
    if config.evacuation is not None:
        return _plan_evacuation(config)
    scenario = resolve(config)
    backend = choose_backend(scenario)
    layout = scenario.layout
    bitmap_bytes = layout.chunks * CHUNK_PAGES // 8
    kinds = ["dirty"] + ["clear log"] * scenario.tracking.lazy
    kinds += ["zero"] * (scenario.bitmap_bytes // bitmap_bytes - len(kinds))
    bitmaps = ", ".join(f"{kind} {format_bytes(bitmap_bytes)}" for kind in kinds)
    free = backends.free_bytes(backend.name)
    vm_bytes = layout.pages * scenario.page_bytes
    largest = backends.largest_bytes(backend.name, vm_bytes, scenario.bitmap_bytes)
    interval_ns = scenario.parameters.fallback_sync_interval_ns
    summary, wall_s, slow_s = expectation(scenario, backend)
    whole = summary.status == "ok"
    wall = f"{'about' if whole else 'more than'} {_rounded(wall_s)} s, without the picture"
    if slow_s > 1.5 * wall_s:
        wall += f"; up to {_rounded(slow_s)} s where memory is slow to come"
    if scenario.wall_limit_ns is not None and wall_s > scenario.wall_limit_ns / NS_PER_S:
        wall += f"; limit.wall stops it after {scenario.wall_limit_ns / NS_PER_S:g} s"
    lines = {
        "vm": f"{format_bytes(vm_bytes)}, {layout.pages} pages of "
        f"{scenario.page_bytes} bytes in {layout.chunks} chunks",
        "workload": _counted(len(scenario.writers), "writer"),
        **_attempts(config),
        "qemu": f"{scenario.version}, "
        + ("no fallback sync" if interval_ns is None else f"fallback sync {interval_ns / 1e9:g} s"),
        **({"policies": scenario.policies} if scenario.policies else {}),
        "sending": sending(scenario.link),
        "backend": f"{backend.name} ({backend.reason}), {_counted(backend.threads, 'thread')}",
        "bitmaps": f"{format_bytes(scenario.bitmap_bytes)}: {bitmaps}",
        "memory free": f"{format_bytes(free)} ({backends.device_name(backend.name)}), enough "
        f"for a VM of up to {format_bytes(largest)}",
        "expected": f"{'' if whole else 'more than '}{summary.simulated_looks} looks, "
        f"{summary.total_time_s:.0f} s simulated"
        + (f": {(summary.verdict or '').replace('_', ' ')}" if whole else ""),
        "wall time": wall,
    }
    return "\n".join(f"{name:<12} {text}" for name, text in lines.items())


def _attempts(config: Config) -> dict[str, str]:
    if not config.attempts:
        return {}
    return {"attempts": f"{len(config.attempts)}; what follows is of the last, as if it came to it"}


def _plan_evacuation(config: Config) -> str:
    """The same of the evacuation of a host, which is run as a whole over expected counts."""
    host = Host(config)
    ahead = host.over_expected_shares()
    largest = max(host.vms, key=lambda vm: vm.scenario.bitmap_bytes)
    scenario, backend = largest.scenario, largest.backend
    summary = ahead.evacuate().summary
    free = backends.free_bytes(backend.name)
    alone_s: dict[str, float] = {}  # guests that are alike take alike
    wall_s = 0.0
    for vm, expected in zip(host.vms, ahead.vms, strict=True):
        alike = repr((vm.config.vm, vm.config.workload))
        if alike not in alone_s:
            alone_s[alike] = expectation(vm.scenario, vm.backend)[1]
        wall_s += expected.runs * alone_s[alike]
    left = f", {', '.join(summary.left_behind)} left behind" * bool(summary.left_behind)
    lines = {
        "guests": f"{summary.guests}, {format_bytes(summary.vm_bytes)}, "
        f"{min(summary.at_a_time, summary.guests)} at a time",
        "order": f"{summary.order}: {', '.join(vm.name for vm in host.vms)}",
        **({"policies": scenario.policies} if scenario.policies else {}),
        "backend": f"{backend.name} ({backend.reason}), {_counted(backend.threads, 'thread')}",
        "bitmaps": f"{format_bytes(scenario.bitmap_bytes)} at most, those of {largest.name}",
        "memory free": f"{format_bytes(free)} ({backends.device_name(backend.name)})",
        "expected": f"{summary.total_time_s:.0f} s simulated: "
        f"{(summary.verdict or summary.status).replace('_', ' ')}{left}; guest CPU lost "
        f"{summary.guest_cpu_lost_percent:.1f} %, throttle up to {summary.max_throttle_percent} %",
        "wall time": f"about {_rounded(wall_s)} s for {summary.simulated_runs} simulated migrations",
    }
    return "\n".join(f"{name:<12} {text}" for name, text in lines.items())


def sending(link: Link) -> str:
    """How many threads send, and whether they keep up with the wire."""
    channels = link.multifd.channels if link.multifd else 0
    threads = _counted(channels, "multifd channel") if channels else "one thread"
    if link.threads_bandwidth >= link.bandwidth or link.recorded is not None:
        return threads
    text = f"{threads}: {_gigabits(link.threads_bandwidth)} Gbit/s at most"
    if math.isfinite(link.bandwidth):
        text += f" of the link's {_gigabits(link.bandwidth)}; see migration.multifd_channels"
    return text


def _gigabits(bytes_per_s: float) -> str:
    return f"{8 * bytes_per_s / 1e9:.3g}"


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _rounded(seconds: float) -> str:
    """Two figures: an estimate is not better than that."""
    return f"{float(f'{seconds:.2g}'):g}"


def expectation(scenario: Scenario, backend: Backend) -> tuple[Summary, float, float]:
    """What to expect of a run.

    Returns:
        a summary as of a run, without its chance; the wall time in seconds, to within a factor of
        two; the same where the machine has to find the memory first.
    """
    room = min(ROOM, scenario.layout.chunks)
    sample_chunks = min(SAMPLE.get(backend.name, SAMPLE_ON_CPU), room)
    summary, expected = expected_run(scenario, LONGEST_NS, sample_chunks)
    kernels, first_s = _filled(backend, expected, room)
    kernels.close()
    kernels, again_s = _filled(backend, expected, room)
    rest_s = summary.wall_time_s - expected.spent_s + _drawing_s(kernels, expected, room)
    kernels.close()
    times = scenario.layout.chunks / room
    return summary, rest_s + min(first_s, again_s) * times, rest_s + max(first_s, again_s) * times


def _drawing_s(kernels: Kernels, expected: ExpectedKernels, room: int) -> float:
    """How long drawing all looks would take, from samples, and loading the code that does.

    Args:
        kernels: of `room` chunks, in which samples are drawn one behind the other.
    """
    nothing = np.zeros(0, np.int64)
    empty = Step(Op.MERGE, certain_cells(nothing, nothing), nothing)
    _timed(kernels, empty)
    call_s = _timed(kernels, empty)
    looks = list(expected.kept)
    chunk_s: dict[int, list[float]] = {}  # seconds a chunk of each step of a kept look
    spent_s, at = 0.0, 0
    for step in expected.kept.get(0, ()):  # twice: compiled code is loaded at its first use
        spent_s += max(0.0, _timed(kernels, step) - _timed(kernels, step))
    for look in looks:
        chunk_s[look] = []
        for step in expected.kept[look]:
            at = at if at + len(step.chunks) <= room else 0
            one_s = _timed(kernels, _moved(step, at)) - call_s
            chunk_s[look].append(max(0.0, one_s) / max(1, len(step.chunks)))
            at += len(step.chunks)
    for look, chunks in enumerate(expected.chunks_drawn):  # as the next look that was kept
        place = min(int(np.searchsorted(looks, look)), len(looks) - 1)
        spent_s += call_s * len(chunks) + float(np.dot(chunks, chunk_s[looks[place]]))
    return spent_s


def _filled(backend: Backend, expected: ExpectedKernels, chunks: int) -> tuple[Kernels, float]:
    """Bitmaps with every page set, and how many seconds setting them took."""
    kernels = backends.make_kernels(
        backend.name,
        chunks,
        log=expected.log is not None,
        zero=expected.zero is not None,
        threads=backend.threads,
    )
    start = time.perf_counter()
    first = np.arange(chunks) << CHUNK_SHIFT
    for bitmap in (kernels.dirty, kernels.log, kernels.zero):
        if bitmap is not None:
            kernels.fill(bitmap, first, first + CHUNK_PAGES)
    return kernels, time.perf_counter() - start


def _timed(kernels: Kernels, step: Step) -> float:
    start = time.perf_counter()
    kernels.paint([step])
    return time.perf_counter() - start


def _moved(step: Step, chunks: int) -> Step:
    """A step so many chunks further on."""
    cells, pages = step.cells, chunks << CHUNK_SHIFT
    moved = replace(cells, first=cells.first + pages, last=cells.last + pages)
    return Step(step.op, moved, step.chunks + chunks)
