"""Do timers fire when they are due, in one fixed order, and stand still with the VM?"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpusim.engine.clock import Clock, Timer

Log = list[tuple[str, int]]


def logged(clock: Clock, log: Log, name: str, *, priority: int = 0, freezes: bool = False) -> Timer:
    """Return a timer that appends its name and the time to a log when it fires."""
    return clock.timer(lambda: log.append((name, clock.now_ns)), priority=priority, freezes=freezes)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3)), max_size=12), st.integers(0, 6))
def test_due_timers_fire_by_time_then_priority_then_arming(
    armings: list[tuple[int, int]], to_ns: int
) -> None:
    clock, log = Clock(), []
    for number, (at_ns, priority) in enumerate(armings):
        logged(clock, log, str(number), priority=priority).arm(at_ns)
    clock.run_to(to_ns)
    due = sorted((at, priority, n) for n, (at, priority) in enumerate(armings) if at <= to_ns)
    assert log == [(str(n), at) for at, _, n in due]
    assert clock.now_ns == to_ns
    later = [at for at, _ in armings if at > to_ns]
    assert clock.next_ns() == (min(later) if later else None)


def test_equal_timers_fire_in_the_order_of_their_latest_arming() -> None:
    clock, log = Clock(), []
    first, second = logged(clock, log, "first"), logged(clock, log, "second")
    first.arm(5)
    second.arm(5)
    first.arm(5)
    clock.run_to(5)
    assert log == [("second", 5), ("first", 5)]


@pytest.mark.parametrize(("early", "late"), [(3, 9), (9, 3)])
def test_arming_again_replaces_the_earlier_arming(early: int, late: int) -> None:
    clock, log = Clock(), []
    timer = logged(clock, log, "t")
    timer.arm(early)
    timer.arm(late)
    assert clock.next_ns() == timer.at_ns == late
    clock.run_to(20)
    assert log == [("t", late)]


def test_a_timer_fires_once_for_each_arming() -> None:
    clock, log = Clock(), []
    timer = logged(clock, log, "t")
    timer.arm(3)
    clock.run_to(10)
    assert (timer.at_ns, clock.next_ns()) == (None, None)
    timer.arm(12)
    clock.run_to(20)
    assert log == [("t", 3), ("t", 12)]


def test_a_cancelled_timer_does_not_fire_and_can_be_armed_again() -> None:
    clock, log = Clock(), []
    timer = logged(clock, log, "t")
    timer.arm(3)
    timer.cancel()
    assert clock.next_ns() is None
    clock.run_to(5)
    timer.arm(7)
    clock.run_to(9)
    assert log == [("t", 7)]


def test_a_callback_can_cancel_a_timer_due_at_the_same_instant() -> None:
    clock, log = Clock(), []
    victim = logged(clock, log, "victim", priority=1)
    killer = clock.timer(victim.cancel, priority=0, freezes=False)
    victim.arm(4)
    killer.arm(4)
    clock.run_to(10)
    assert log == []


def test_a_timer_armed_in_a_callback_for_that_instant_fires_in_it_by_priority() -> None:
    clock, log = Clock(), []
    urgent = logged(clock, log, "urgent", priority=0)
    waiting = logged(clock, log, "waiting", priority=2)

    def fire() -> None:
        log.append(("arms", clock.now_ns))
        urgent.arm(clock.now_ns)

    clock.timer(fire, priority=1, freezes=False).arm(4)
    waiting.arm(4)
    clock.run_to(4)
    assert log == [("arms", 4), ("urgent", 4), ("waiting", 4)]


def test_a_timer_that_arms_itself_keeps_its_grid() -> None:
    clock, log = Clock(), []

    def tick() -> None:
        log.append(("tick", clock.now_ns))
        timer.arm(clock.now_ns + 5)

    timer = clock.timer(tick, priority=0, freezes=True)
    timer.arm(5)
    clock.run_to(21)
    assert log == [("tick", 5), ("tick", 10), ("tick", 15), ("tick", 20)]


def test_a_timer_armed_for_the_past_fires_at_once_and_time_does_not_go_back() -> None:
    clock, log = Clock(), []
    clock.run_to(10)
    logged(clock, log, "t").arm(3)
    clock.run_to(10)
    assert log == [("t", 10)]


@settings(deadline=None)
@given(st.lists(st.integers(0, 30), max_size=8), st.lists(st.integers(0, 30), max_size=8))
def test_time_never_goes_back(armings: list[int], targets: list[int]) -> None:
    clock, log = Clock(), []
    for at_ns in armings:
        logged(clock, log, "t").arm(at_ns)
    seen = [clock.now_ns]
    for target in targets:
        clock.run_to(target)
        seen.append(clock.now_ns)
    assert seen == sorted(seen)
    assert [at for _, at in log] == sorted(at for at in armings if at <= max(targets, default=-1))


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 40), st.booleans()), max_size=8),
    st.integers(0, 20),
    st.integers(0, 20),
)
def test_edge_case_28_timers_of_virtual_rt_are_later_by_the_pause(
    timers: list[tuple[int, bool]], stop_ns: int, pause_ns: int
) -> None:
    """QEMU_CLOCK_VIRTUAL_RT stands still while the VM is stopped, and REALTIME goes on."""
    clock, log = Clock(), []
    for number, (at_ns, freezes) in enumerate(timers):
        logged(clock, log, str(number), freezes=freezes).arm(at_ns)
    clock.run_to(stop_ns)
    clock.stop_vm()
    clock.run_to(stop_ns + pause_ns)
    clock.start_vm()
    clock.run_to(100)
    expected = [
        (str(number), at_ns + pause_ns if freezes and at_ns > stop_ns else at_ns)
        for number, (at_ns, freezes) in enumerate(timers)
    ]
    assert sorted(log) == sorted(expected)
    assert [at for _, at in log] == sorted(at for _, at in log)


def test_next_ns_skips_frozen_timers_while_the_vm_is_stopped() -> None:
    clock, log = Clock(), []
    logged(clock, log, "frozen", freezes=True).arm(5)
    clock.stop_vm()
    assert clock.next_ns() is None
    logged(clock, log, "goes on").arm(9)
    assert clock.next_ns() == 9
    clock.run_to(8)
    clock.start_vm()
    assert clock.next_ns() == 9
    clock.run_to(20)
    assert log == [("goes on", 9), ("frozen", 13)]


def test_timers_that_stood_still_keep_their_order() -> None:
    clock, log = Clock(), []
    for name, priority in (("a", 1), ("b", 0), ("c", 1)):
        logged(clock, log, name, priority=priority, freezes=True).arm(5)
    clock.stop_vm()
    clock.run_to(2)
    clock.start_vm()
    clock.run_to(7)
    assert log == [("b", 7), ("a", 7), ("c", 7)]


def test_a_timer_armed_while_the_vm_is_stopped_is_late_by_the_rest_of_the_pause_only() -> None:
    """Virtual time is the same at the arming and at the end of the pause."""
    clock, log = Clock(), []
    clock.stop_vm()
    clock.run_to(10)
    logged(clock, log, "t", freezes=True).arm(15)
    clock.run_to(20)
    clock.start_vm()
    clock.run_to(50)
    assert log == [("t", 25)]


def test_stopping_a_stopped_vm_changes_nothing() -> None:
    """A second vm_stop has no effect (system/cpus.c:vm_stop)."""
    clock, log = Clock(), []
    logged(clock, log, "t", freezes=True).arm(5)
    clock.stop_vm()
    clock.run_to(10)
    clock.stop_vm()
    clock.run_to(12)
    clock.start_vm()
    clock.run_to(50)
    assert log == [("t", 17)]


def test_starting_a_running_vm_changes_nothing() -> None:
    clock, log = Clock(), []
    logged(clock, log, "t", freezes=True).arm(5)
    clock.run_to(3)
    clock.start_vm()
    clock.run_to(9)
    assert log == [("t", 5)]
