"""Does a measurement send only its commands, parse QEMU's answers, and refuse a useless run?"""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import pytest

from gpusim.formats.profile import load_profile, profile_of
from gpusim.monitor import dirty_rate as measure
from gpusim.monitor.dirty_rate import (
    NO_THREADS_NOTE,
    Vm,
    inspect_vm,
    measure_dirty_rate,
    plan_measurements,
)
from gpusim.monitor.errors import LiveError
from gpusim.monitor.plan_text import describe_plan
from gpusim.monitor.qmp import QmpEvent
from gpusim.record.guest import command_line
from gpusim.record.machine import start_qemu
from tests.golden import check_golden
from tests.monitor.fake_qmp import MTREE, PARAMETERS, RAMBLOCK, page_dump
from tests.record.qemus import every_qemu, need

GIB = 2**30


class FakeMonitor:
    """A monitor of a VM that dirties 100 MiB/s, up to 400 MiB. It keeps the commands in `asked`."""

    def __init__(self, version: tuple[int, int, int] = (10, 0, 2), **answers: Any) -> None:
        self.version = version
        self.events: list[QmpEvent] = []
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self._answers: dict[str, Any] = {
            "query-migrate": {},
            "query-status": {"running": True},
            "query-cpus-fast": [{"thread-id": 2**30}, {"thread-id": 2**30 + 1}],
            "query-migrate-capabilities": [
                {"capability": "auto-converge", "state": True},
                {"capability": "multifd", "state": False},
            ],
            "query-kvm": {"enabled": False},
            "query-migrate-parameters": PARAMETERS,
            "query-dirty-rate": {"status": "unstarted"},
            **answers,
        }

    async def ask(
        self, command: str, arguments: dict[str, Any] | None = None, timeout_s: float = 1
    ) -> Any:
        self.asked.append((command, arguments or {}))
        if command == "human-monitor-command":
            assert arguments is not None
            line = arguments["command-line"]
            if line.startswith("xp "):
                address = int(line.split()[-1], 16)
                return page_dump(address, last_word=int(address % 8192 == 0))
            return {"info ramblock": RAMBLOCK, "info mtree -f": MTREE}[line]
        if command == "calc-dirty-rate":
            assert arguments is not None
            self._answers["query-dirty-rate"] = {
                "status": "measured",
                "mode": arguments["mode"],
                "dirty-rate": min(100, 400_000 // arguments["calc-time"]),
                "calc-time": arguments["calc-time"],
            }
            return {}
        return self._answers[command]


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    async def at_once(_: float) -> None:
        return None

    monkeypatch.setattr(measure.asyncio, "sleep", at_once)


def vm_of(**changes: Any) -> Vm:
    return Vm(
        **{
            "version": (10, 0, 2),
            "accelerator": "kvm",
            "blocks": {"pc.ram": 64 * GIB},
            "ranges": ((0, 64 * GIB),),
            "threads": (1, 2),
            "parameters": {},
            "capabilities": (),
            **changes,
        }
    )


def test_what_the_monitor_tells() -> None:
    vm = asyncio.run(inspect_vm(FakeMonitor()))  # type: ignore[arg-type]
    assert vm.blocks == {"pc.ram": GIB, "/objects/mem two": 2 * 2**20, "pc.bios": 2**18}
    assert vm.ranges == ((0, 0xC0000), (0x100000, GIB))
    assert (vm.accelerator, vm.capabilities) == ("tcg", ("auto-converge",))


def test_it_queries_and_measures_and_sets_nothing() -> None:
    monitor = FakeMonitor()

    async def run() -> Any:
        vm = await inspect_vm(monitor)  # type: ignore[arg-type]
        plan = plan_measurements(vm, "page-sampling", quick=False)
        return plan, await measure_dirty_rate(monitor, vm, plan, lambda _: None)  # type: ignore[arg-type]

    plan, profile = asyncio.run(run())
    others = {command for command, _ in monitor.asked if not command.startswith("query-")}
    assert others == {"calc-dirty-rate", "human-monitor-command"}
    hmp = {a["command-line"].split()[0] for c, a in monitor.asked if c == "human-monitor-command"}
    assert hmp == {"info", "xp"}
    assert [one.seconds for one in profile.measurements] == list(plan.periods_s)
    assert {one.dirty_rate for one in profile.measurements} == {100, 80, 40, 20, 13, 6}
    assert profile.zero_sampled == 1000
    assert 400 < profile.zero_found < 600  # every other page of the fake is zero
    assert profile.utilisation == ()
    assert NO_THREADS_NOTE in profile.notes  # there are no such threads
    assert profile_of(Path("x"), profile.document()).document() == profile.document()


@pytest.mark.parametrize("mode", ["dirty-bitmap", "dirty-ring"])
def test_under_tcg_pages_are_sampled_or_nothing_is_counted(mode: str) -> None:
    with pytest.raises(LiveError) as caught:
        plan_measurements(vm_of(accelerator="tcg"), mode, quick=True)
    assert (caught.value.code, caught.value.data) == ("mode_needs_kvm", {"mode": mode})


@pytest.mark.parametrize(
    ("memory", "per_gib"),
    [(GIB // 4, 16384), (GIB, 16384), (4 * GIB, 16384), (64 * GIB, 1024), (10240 * GIB, 128)],
)
def test_small_guests_take_the_maximum_sample(memory: int, per_gib: int) -> None:
    plan = plan_measurements(vm_of(blocks={"pc.ram": memory}), "page-sampling", quick=True)
    assert plan.sample_pages == per_gib


def test_before_8_2_periods_are_whole_seconds() -> None:
    old = plan_measurements(vm_of(version=(8, 1, 3)), "dirty-bitmap", quick=False)
    assert not old.milliseconds
    assert all(one == int(one) for one in old.periods_s)
    new = plan_measurements(vm_of(version=(8, 2, 0)), "dirty-bitmap", quick=False)
    assert min(new.periods_s) == 0.1
    assert max(new.periods_s) == 60


def test_before_6_2_there_are_no_modes() -> None:
    with pytest.raises(LiveError) as caught:
        plan_measurements(vm_of(version=(6, 1, 0)), "page-sampling", quick=True)
    assert (caught.value.code, caught.value.data) == ("no_modes", {"version": "6.1.0"})


def test_quick_is_under_a_minute_and_full_under_three() -> None:
    quick, full = (plan_measurements(vm_of(), "dirty-bitmap", quick=one) for one in (True, False))
    assert max(quick.periods_s) == 10
    assert sum(quick.periods_s) < 60
    assert sum(full.periods_s) < 180


def test_the_plan_names_its_cost() -> None:
    vm = vm_of(blocks={"pc.ram": 1024 * GIB})
    lines = [
        line
        for mode in ("page-sampling", "dirty-bitmap", "dirty-ring")
        for line in describe_plan(vm, plan_measurements(vm, mode, quick=True))
    ]
    assert "131072" in lines[2]  # sampled pages
    assert "268435456" in lines[6]  # write-protected pages
    check_golden("measurement-plan", "\n".join(lines) + "\n")


@pytest.mark.parametrize(
    ("answers", "code"),
    [
        ({"query-migrate": {"status": "active"}}, "migration_runs"),
        ({"query-dirty-rate": {"status": "measuring"}}, "measurement_runs"),
        ({"query-status": {"running": False}}, "vm_stopped"),
    ],
)
def test_a_vm_that_cannot_be_measured_now_is_refused(answers: dict[str, Any], code: str) -> None:
    with pytest.raises(LiveError) as caught:
        asyncio.run(inspect_vm(FakeMonitor(**answers)))  # type: ignore[arg-type]
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("answers", "event", "code"),
    [
        ({"query-migrate": {"status": "active"}}, None, "migrated_meanwhile"),
        ({"query-migrate": {"status": "completed"}}, None, "migrated_meanwhile"),
        ({}, "MIGRATION", "migrated_meanwhile"),  # it started and was cancelled in one period
        ({"query-status": {"running": False}}, None, "stopped_meanwhile"),
        ({}, "STOP", "stopped_meanwhile"),  # it was paused and resumed in one period
    ],
)
def test_a_migration_or_pause_meanwhile_ends_the_measurement(
    answers: dict[str, Any], event: str | None, code: str
) -> None:
    """Its rate would be that of a throttled or paused guest."""
    monitor = FakeMonitor()

    def show(line: str) -> None:
        if line.startswith("measuring 0.5 s"):
            monitor._answers |= answers
            if event is not None:
                monitor.events.append(QmpEvent(time_s=1.0, name=event, data={}))

    async def run() -> None:
        vm = await inspect_vm(monitor)  # type: ignore[arg-type]
        plan = plan_measurements(vm, "page-sampling", quick=True)
        await measure_dirty_rate(monitor, vm, plan, show)  # type: ignore[arg-type]

    with pytest.raises(LiveError) as caught:
        asyncio.run(run())
    assert caught.value.code == code
    assert sum(command == "calc-dirty-rate" for command, _ in monitor.asked) == 3


@pytest.mark.parametrize(
    "changes", [{"calc-time": 1}, {"calc-time": 10**6}, {"mode": "dirty-ring"}]
)
def test_the_measurement_of_another_client_is_refused(changes: dict[str, Any]) -> None:
    class Other(FakeMonitor):
        async def ask(
            self, command: str, arguments: dict[str, Any] | None = None, timeout_s: float = 1
        ) -> Any:
            answer = await super().ask(command, arguments, timeout_s)
            return answer | changes if command == "query-dirty-rate" else answer

    vm = vm_of()
    plan = plan_measurements(vm, "page-sampling", quick=True)
    with pytest.raises(LiveError) as caught:
        asyncio.run(measure_dirty_rate(Other(), vm, plan, lambda _: None))  # type: ignore[arg-type]
    assert caught.value.code == "other_measurement"


def test_a_measurement_that_failed_is_no_rate() -> None:
    """QEMU's rate is -1 until a measurement succeeds."""

    class Failing(FakeMonitor):
        async def ask(
            self, command: str, arguments: dict[str, Any] | None = None, timeout_s: float = 1
        ) -> Any:
            answer = await super().ask(command, arguments, timeout_s)
            return answer | {"dirty-rate": -1} if command == "query-dirty-rate" else answer

    vm = vm_of()
    plan = plan_measurements(vm, "page-sampling", quick=True)
    with pytest.raises(LiveError) as caught:
        asyncio.run(measure_dirty_rate(Failing(), vm, plan, lambda _: None))  # type: ignore[arg-type]
    assert (caught.value.code, caught.value.data) == ("no_rate", {"period_s": 0.1})


@pytest.mark.parametrize(
    ("files", "seconds"),
    [
        ({"schedstat": "3000000000 2000000000 17\n"}, 5.0),  # 3 s on a core, 2 s waiting for one
        ({"schedstat": "0 0 0\n"}, 4.0),  # a kernel that does not count
        ({}, 4.0),  # nor has the file
    ],
)
def test_a_vcpu_that_waits_for_a_core_is_not_idle(
    files: dict[str, str], seconds: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Source: proc_pid_stat(5). utime and stime are fields 14 and 15, in ticks."""
    ticks = os.sysconf("SC_CLK_TCK")
    fields = ["S", *["1"] * 10, str(3 * ticks), str(ticks), *["1"] * 30]
    (tmp_path / "7").mkdir()
    (tmp_path / "7/stat").write_text(f"7 (CPU 0/TCG) {' '.join(fields)}\n")
    for name, text in files.items():
        (tmp_path / "7" / name).write_text(text)
    monkeypatch.setattr(measure, "PROC", tmp_path)
    assert measure._busy_s(vm_of(threads=(7,))) == {7: seconds}
    assert measure._busy_s(vm_of(threads=(7, 8))) == {}


@pytest.mark.qemu
@pytest.mark.slow
@every_qemu
def test_a_real_guest_is_measured(
    qemu: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A guest that writes 64 MiB at random dirties these and no other pages."""
    need(qemu)
    monkeypatch.undo()  # time passes here
    monkeypatch.setattr(measure, "QUICK_S", (1.0, 2.0, 3.0))
    settings = command_line({"size": 64, "rate": 40_000, "fill": 100})

    async def run() -> Any:
        async with start_qemu(qemu, mem_mib=256, settings=settings, accelerator="tcg") as machine:
            while not any("READY" in line for line in machine.output.serial):
                await asyncio.sleep(0.05)
            vm = await inspect_vm(machine.monitor)
            plan = plan_measurements(vm, "page-sampling", quick=True)
            return await measure_dirty_rate(machine.monitor, vm, plan, lambda _: None)

    profile = asyncio.run(run())
    longest = profile.measurements[-1]
    # 256 MiB in 4096 samples: a pool of 64 MiB is 1024 of them, known to 3 %. QEMU rounds 3 s down
    # to 3 MiB.
    assert 0.85 * 64 < longest.dirty_rate * longest.seconds < 1.1 * 64
    assert 0.52 < profile.zero_share < 0.7  # 100 of 256 MiB are filled
    assert profile.utilisation[0] > 0.8
    path = tmp_path / "vm.json"
    path.write_text(json.dumps(profile.document()))
    assert load_profile(path).measurements == profile.measurements
