"""Does a VM migrate, whatever its working set is? Bounds from one dirty rate over one period.

Let the guest dirty u bytes in a period of T seconds, as measured. Two statements hold for every guest
that goes on like this, and they need no other fact about its writes.

- In each period of T seconds of its own time at least u different bytes were written. The sender
  sends at most B T of them again meanwhile. So at least u - B T bytes differ at any moment. If this
  is more than the downtime limit allows, then QEMU never stops the VM.
- In t seconds at most u bytes are written if t < T, because all of them may be written at once. In
  a longer time it is at most u t / T, without a page that repeats. Nothing is known of what a
  throttle does to these writes: vCPUs may be idle, and devices may write.

The first decides "never", the second "surely". Everything between is "measure further". The first
counts with the fastest host and with each step of QEMU's throttle, the second with the slowest host
and without help from the throttle.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from gpusim.explore.bounds import Bounds
from gpusim.formats.fleet import IN_MIGRATION, DirtyRates, FleetVm
from gpusim.formats.profile import SAMPLES_PER_GIB, pages_sampled
from gpusim.formats.sync_record import WINDOW_S
from gpusim.predict.fleet_host import FleetHost, ThrottleStep
from gpusim.units import GIB, MIB, MOST_VCPUS

Answer: TypeAlias = Literal["never", "measure_further", "surely"]
NEVER: Answer = "never"
FURTHER: Answer = "measure_further"
SURELY: Answer = "surely"
ANSWERS = (NEVER, FURTHER, SURELY)  # in the order in which they need attention
DEFAULT_VCPUS = 1  # if nobody states them. They decide the downtime beside RAM and the loss.
DEVIATIONS = 3.0  # standard deviations of page-sampling's chance
# Slower progress may look like a stall, which ends a run: less than 2 % in ten passes.
LEAST_PROGRESS = 0.9  # what remains after a pass, as a share of what remained before
SLACK = 1.1  # of limits: QEMU compares once per turn, and a sleep ends a little late
LAST_SYNCS = 10  # turns near the end that sync once more
MOST_PASSES = 400  # 0.9^400 of a PiB is less than a byte


@dataclass(frozen=True, kw_only=True)
class Envelope:
    """What the measurements of one period say of the memory that is dirty after a time.

    Attributes:
        seconds: the period.
        least, most: lowest and highest dirty bytes after the period. `most` may be infinite.
        includes_faults: the guest was tracked while it was measured.
    """

    seconds: float
    least: float
    most: float
    includes_faults: bool


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """The answer for one VM.

    Attributes:
        answer: NEVER, FURTHER or SURELY.
        reason: a code, see fleet_text.REASONS.
        rate: the highest dirty rate, bytes per second. None: nobody measured.
        working_set: the fewest and the most bytes that the guest may write again and again.
        least_time_s, most_time_s: of a migration that converges. Infinite: no such bound.
        least_throttle: the throttle that the migration needs at least, percent. None: none helps.
        most_downtime_s: infinite if it is not sure to converge.
        surely_share, never_share: of the measured rates, taken one by one. None: fewer than three.
        quiet_rate: the highest measured rate with which the answer is SURELY. None: none is.
    """

    answer: Answer
    reason: str
    rate: float | None = None
    working_set: tuple[float, float] | None = None
    least_time_s: float = 0.0
    most_time_s: float = math.inf
    least_throttle: int | None = None
    most_downtime_s: float = math.inf
    surely_share: float | None = None
    never_share: float | None = None
    quiet_rate: float | None = None


@dataclass(frozen=True)
class Question:
    """A VM, its host and what the user allows.

    Attributes:
        memory: bytes.
        vcpus: number of vCPUs, or what is assumed.
        most_vcpus: the same, or the most that are possible if nobody knows.
        host, bounds: see `judge`.
    """

    memory: int
    vcpus: int
    most_vcpus: int
    host: FleetHost
    bounds: Bounds


def envelope(found: DirtyRates, memory: int, rates: tuple[float, ...] | None = None) -> Envelope:
    """Return what measurements of one period say.

    Args:
        found: the measurements.
        memory: bytes of the VM.
        rates: those that count. None: all.
    """
    rates = rates or found.rates
    seconds = found.seconds
    low, high = min(rates) * seconds, max(rates) * seconds
    if found.rounded:  # QEMU rounds the dirty MiB down, and then the rate
        high += MIB * (1 + seconds)
    if found.mode == "page-sampling":
        samples = max(1, pages_sampled([memory], SAMPLES_PER_GIB))
        low = memory * _sampled(low / memory, samples)[0]
        high = memory * _sampled(high / memory, samples)[1]
    if found.mode == "dirty-ring":  # a page counts again each time that a ring is emptied
        low = 0.0
    if found.mode == IN_MIGRATION:
        high = math.inf
    return Envelope(
        seconds=seconds,
        least=min(low, memory),
        most=high if math.isinf(high) else min(high, memory),
        includes_faults=found.mode != "page-sampling",
    )


def judge(
    vm: FleetVm, host: FleetHost, bounds: Bounds, memory: int, vcpus: int | None
) -> Judgement:
    """Return the answer for one VM.

    Args:
        vm: has the measurements.
        host: for the VM's link.
        bounds: what the user allows.
        memory: bytes of the VM.
        vcpus: of the VM. None: unknown, and then DEFAULT_VCPUS counts for downtime and loss.
    """
    question = Question(memory, vcpus or DEFAULT_VCPUS, vcpus or MOST_VCPUS, host, bounds)
    if not vm.measured:
        return Judgement(answer=FURTHER, reason="not_measured")
    found = _judged(question, [envelope(one, memory) for one in vm.measured])
    rates = [rate for one in vm.measured for rate in one.rates]
    found = replace(found, rate=max(rates))
    only = vm.measured[0]
    if len(vm.measured) == 1 and len(only.rates) >= 3:
        return _with_shares(question, only, found)
    return found


def _judged(question: Question, envelopes: list[Envelope]) -> Judgement:
    least = max(one.least for one in envelopes)
    working_set = (least, float(question.memory))
    never, least_time_s, step = _never(question, envelopes)
    surely, most_time_s, most_downtime_s = _surely(question, envelopes)
    answer = NEVER if never else FURTHER if surely else SURELY
    if surely in ("hot_set", "rate_may_win") and not all(
        _fits(question.host, one, one.seconds) for one in envelopes
    ):
        surely = "needs_throttle"
    elif surely and any(math.isinf(one.most) for one in envelopes):
        surely = "no_upper_bound"
    return Judgement(
        answer=answer,
        reason=never or surely or "both_bounds",
        working_set=working_set,
        least_time_s=least_time_s,
        most_time_s=most_time_s,
        least_throttle=None if step is None else step.percent,
        most_downtime_s=most_downtime_s,
    )


def _with_shares(question: Question, found: DirtyRates, judged: Judgement) -> Judgement:
    """Add how the answers would be for each measured rate alone. A higher rate is harder."""
    rates = sorted(found.rates)

    def answer(place: int) -> Answer:
        one = envelope(found, question.memory, (rates[place],))
        return _judged(question, [one]).answer

    places = range(len(rates))
    sure = bisect_left(places, True, key=lambda place: answer(place) != SURELY)
    possible = bisect_left(places, True, key=lambda place: answer(place) == NEVER)
    return replace(
        judged,
        surely_share=sure / len(rates),
        never_share=1 - possible / len(rates),
        quiet_rate=rates[sure - 1] if sure else None,
    )


def _never(question: Question, envelopes: list[Envelope]) -> tuple[str, float, ThrottleStep | None]:
    """Return why the migration fails with every working set ("": it need not), and least values.

    Returns:
        The code, the shortest total time in seconds, and the first throttle step that may suffice.
    """
    host, bounds = question.host, question.bounds
    pages = question.memory / host.page_bytes
    written = max(one.least for one in envelopes) / host.page_bytes
    first_pass_s = (pages - written) * min(host.fast_zero_s, host.fast_page_s)
    first_pass_s += written * host.fast_page_s
    step = next((one for one in host.steps if _may_suffice(question, envelopes, one)), None)
    if step is None:
        return "rate", math.inf, None
    low_s, _ = host.non_ram_time_s(question.vcpus)
    time_s = max(first_pass_s, float(step.periods)) + low_s
    deadline_s = bounds.total_time_s
    code = ""
    if deadline_s is not None and time_s > deadline_s:
        code = "deadline"
    elif bounds.downtime_ms is not None and low_s * 1000 > bounds.downtime_ms:
        code = "downtime"
    elif (
        bounds.longest_vcpu_stall_ms is not None
        and step.sleep_s * 1000 > bounds.longest_vcpu_stall_ms
    ):
        code = "stall"
    return code, time_s, step


def _may_suffice(question: Question, envelopes: list[Envelope], step: ThrottleStep) -> bool:
    """Return whether a guest exists that gets over at this throttle."""
    return all(_fits(question.host, one, _longest_s(question, one, step)) for one in envelopes)


def _fits(host: FleetHost, one: Envelope, time_s: float) -> bool:
    """Return whether what the sender leaves of the period's pages may fit the downtime limit."""
    bandwidth = host.fast_bytes_per_s
    threshold = host.limit_s * (host.switchover_bytes_per_s or bandwidth)
    return one.least - bandwidth * time_s <= threshold


def _longest_s(question: Question, one: Envelope, step: ThrottleStep) -> float:
    """Return the longest wall time in which the guest does what it did in the period.

    All its first writes may fall to one vCPU. A page that was sent is protected again, and traps
    once more. If the guest was tracked while it was measured, then the period has its first writes,
    so each took at most the vCPUs' time of the period over their number.
    """
    host = question.host
    running = 1 - step.percent / 100
    pages, write_s = one.least / host.page_bytes, host.first_write_s
    run_s = one.seconds
    if one.includes_faults:
        write_s = min(write_s, question.most_vcpus * one.seconds / max(pages, 1.0))
    else:
        run_s += pages * write_s
    again = write_s / host.fast_page_s / running  # of the wall time
    return (run_s / running + step.sleep_s) / (1 - again) if again < 1 else math.inf


def _surely(question: Question, envelopes: list[Envelope]) -> tuple[str, float, float]:
    """Return why the migration may fail with some working set ("": it cannot), and most values.

    Returns:
        The code, the longest total time and the longest downtime in seconds.
    """
    host, memory = question.host, question.memory
    bandwidth = host.slow_bytes_per_s(memory)
    can_throttle = _can_throttle(question, envelopes, bandwidth)
    late_s = host.steps[-1].sleep_s if can_throttle else 0.0  # delayed writes come in one slice

    def written(time_s: float) -> float:
        return min(memory, *(_most_written(one, time_s + late_s) for one in envelopes))

    passes_s, code = _passes_s(question, written, bandwidth)
    if code:
        return code, math.inf, math.inf
    sync_s = host.sync_time_s(memory, written(1.0))
    _, non_ram_s = host.non_ram_time_s(question.vcpus)
    allowed_s = host.limit_s
    if host.switchover_bytes_per_s:
        allowed_s *= host.switchover_bytes_per_s / bandwidth
    # The last sync adds what was written during the sync before.
    downtime_s = SLACK * allowed_s + non_ram_s + sync_s
    downtime_s += written(sync_s) / bandwidth if sync_s else 0.0
    time_s = sum(passes_s) + 2 * allowed_s + LAST_SYNCS * sync_s + downtime_s
    most = _Most(time_s, downtime_s, can_throttle, _lost_percent(question, passes_s, written))
    return _limit_that_may_break(question, most), time_s, downtime_s


def _passes_s(
    question: Question, written: Callable[[float], float], bandwidth: float
) -> tuple[list[float], str]:
    """Return the longest time of each pass until the rest surely fits, and why it may never fit."""
    host, memory = question.host, question.memory
    pages = memory / host.page_bytes
    time_s = pages * max(host.page_bytes / bandwidth, host.slow_zero_s)
    passes_s, left = [time_s + host.start_s_per_gib * memory / GIB], float(memory)
    for _ in range(MOST_PASSES):
        sync_s = host.sync_time_s(memory, written(passes_s[-1]))
        rest = written(passes_s[-1] + sync_s)
        if rest < _threshold(host, rest, bandwidth, sync_s):
            return passes_s, ""
        if len(passes_s) > 1 and rest > LEAST_PROGRESS * left:
            return passes_s, "hot_set" if rest <= written(0.0) else "rate_may_win"
        left = rest
        passes_s.append(rest / bandwidth + sync_s)
    return passes_s, "rate_may_win"


def _threshold(host: FleetHost, rest: float, bandwidth: float, sync_s: float) -> float:
    """Return the bytes that QEMU lets pass, if a sync fell into the last window."""
    if host.switchover_bytes_per_s:
        return host.switchover_bytes_per_s * host.limit_s
    window_s = max(WINDOW_S, sync_s + rest / bandwidth)
    return bandwidth * host.limit_s * max(0.0, window_s - sync_s) / window_s


def _most_written(one: Envelope, time_s: float) -> float:
    return max(one.most, one.most * time_s / one.seconds)


def _can_throttle(question: Question, envelopes: list[Envelope], bandwidth: float) -> bool:
    """Return whether the throttle may rise, in whatever order pages are written."""
    host = question.host
    if len(host.steps) == 1:
        return False
    dirty = min(question.memory, *(_most_written(one, 1.0) for one in envelopes))
    return host.syncs_early or SLACK * dirty > host.threshold_percent / 100 * bandwidth


def _lost_percent(
    question: Question, passes_s: list[float], written: Callable[[float], float]
) -> float:
    """Return the most vCPU time that first writes take. Each sync protects pages again."""
    host = question.host
    dirty = sum(written(one_s) * (1 + one_s / host.fallback_s) for one_s in passes_s)
    each_s = max(host.first_write_s, question.vcpus * host.first_write_lock_s)
    lost = dirty / host.page_bytes * each_s / (question.vcpus * sum(passes_s))
    return min(100.0, 100 * lost)


@dataclass(frozen=True)
class _Most:
    """The highest values of a migration that converges."""

    time_s: float
    downtime_s: float
    can_throttle: bool
    lost_percent: float


def _limit_that_may_break(question: Question, most: _Most) -> str:
    """Return the code of the first limit of the user that the migration may break, or ""."""
    last = question.host.steps[-1]
    values = {
        "total_time_s": (most.time_s, "deadline_may_break"),
        "downtime_ms": (1000 * most.downtime_s, "downtime_may_break"),
        "longest_vcpu_stall_ms": (
            1000 * SLACK * last.sleep_s * most.can_throttle,
            "stall_may_break",
        ),
        "guest_cpu_lost_percent": (
            most.lost_percent + last.percent * most.can_throttle,
            "loss_may_break",
        ),
    }
    for name, limit in question.bounds.items():
        value, code = values[name]
        if value > limit:
            return code
    return ""


def _sampled(share: float, samples: int) -> tuple[float, float]:
    """Return the lowest and highest share that explains a sampled one (Wilson's interval)."""
    share = min(1.0, share)
    square = DEVIATIONS**2 / samples
    middle = share + square / 2
    half = math.sqrt(square * (share * (1 - share) + square / 4))
    return max(0.0, (middle - half) / (1 + square)), min(1.0, (middle + half) / (1 + square))
