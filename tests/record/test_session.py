"""Does a recording set what QEMU knows, and refuse what it does not? Does the sink read?"""

from __future__ import annotations

import asyncio
import signal
import socket
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any, cast

import pytest

from gpusim.monitor.qmp import Monitor, QmpEvent
from gpusim.record.guest import command_line
from gpusim.record.machine import Machine, Output, start_qemu
from gpusim.record.messages import RecordError
from gpusim.record.scenarios import GuestSettings, Scenario
from gpusim.record.session import (
    Observed,
    _count,
    _follow,
    describe_progress,
    query_migrate,
    set_capabilities,
    set_parameters,
    to_sample,
)
from gpusim.record.sink import open_sink
from tests.record.qemus import QEMUS, need


class FakeMonitor:
    """A QEMU 7.2 with two capabilities and one parameter."""

    version = (7, 2, 22)

    def __init__(self) -> None:
        self.on: set[str] = set()
        self.parameters: dict[str, Any] = {"downtime-limit": 300}

    async def ask(self, command: str, arguments: dict[str, Any] | None = None) -> Any:
        match command, arguments:
            case "query-migrate-capabilities", None:
                names = ("auto-converge", "events")
                return [{"capability": name, "state": name in self.on} for name in names]
            case "migrate-set-capabilities", {"capabilities": rows}:
                self.on |= {row["capability"] for row in rows if row["state"]}
            case "query-migrate-parameters", None:
                return self.parameters
            case "migrate-set-parameters", dict():
                self.parameters |= arguments
        return {}


@pytest.fixture
def qemu() -> Monitor:
    return cast(Monitor, FakeMonitor())


def test_what_is_known_is_set(qemu: Monitor) -> None:
    found = asyncio.run(set_capabilities(qemu, ["auto-converge"]))
    assert found == ["auto-converge", "events"]
    assert asyncio.run(set_parameters(qemu, {"downtime-limit": 50})) == {"downtime-limit": 50}


def test_what_is_not_known_is_named_with_the_version(qemu: Monitor) -> None:
    with pytest.raises(RecordError) as caught:
        asyncio.run(set_capabilities(qemu, ["zero-copy", "auto-converge"]))
    assert caught.value.code == "unknown_names"
    assert caught.value.data == {
        "version": "7.2.22",
        "kind": "capability",
        "names": "zero-copy",
        "known": "auto-converge, events",
    }
    with pytest.raises(RecordError) as caught:
        asyncio.run(set_parameters(qemu, {"b": 1, "a": 2, "downtime-limit": 3}))
    assert (caught.value.data["kind"], caught.value.data["names"]) == ("parameter", "a, b")


def test_a_sample_holds_what_the_format_says() -> None:
    info = {"status": "active", "total-time": 9, "ram": {"transferred": 5, "page-size": 4096}}
    assert to_sample(info, 0.12344, 7) == {
        "t": 0.1234,
        "status": "active",
        "writes": 7,
        "transferred": 5,
        "total-time": 9,
    }
    assert to_sample({}, 1.0, None) == {"t": 1.0, "status": "none"}
    assert describe_progress(info, 3.2) == "active 3 s, 0 MiB to send, 0 syncs, throttle 0 %"


def standing_still(events: list[QmpEvent]) -> Machine:
    """A guest that writes nothing, sampled every six seconds, whose migration ends at the fifth."""
    answers = iter([*[{"status": "active"}] * 4, {"status": "completed"}])
    clock = iter(range(0, 60, 6))

    async def ask(command: str) -> dict[str, str]:
        return next(answers)

    monitor = SimpleNamespace(ask=ask, events=events)
    counter = SimpleNamespace(read=lambda: (next(clock), 7))
    return cast(Machine, SimpleNamespace(monitor=monitor, counter=counter, output=Output()))


def test_a_guest_that_stands_still_has_crashed_unless_qemu_stopped_it() -> None:
    def follow(*events: QmpEvent) -> list[dict[str, Any]]:
        observed = Observed(start_s=0.0)
        machine = standing_still(list(events))
        asyncio.run(
            _follow(machine, Scenario(guest=GuestSettings(size=8)), observed, lambda _: None)
        )
        return observed.samples

    with pytest.raises(RecordError) as caught:
        follow()
    assert (caught.value.code, caught.value.data) == ("guest_stalled", {"stalled_s": 12})
    assert len(follow(QmpEvent(time_s=1.0, name="STOP", data={}))) == 5


def test_a_counter_is_read_at_rising_times() -> None:
    """If the clock is set back, two readings have equal or falling times."""
    times = iter([1.0, 1.2, 1.2, 1.1, 1.3])

    def read() -> tuple[float, int]:
        try:
            return next(times), 5
        except StopIteration:
            raise KeyError from None

    observed = Observed(start_s=1.0)
    machine = cast(Machine, SimpleNamespace(counter=SimpleNamespace(read=read)))
    with pytest.raises(KeyError):
        asyncio.run(_count(machine, observed))
    assert [time_s for time_s, _ in observed.counts] == [0.0, 0.2, 0.3]


def test_the_sink_reads_everything_and_lets_go() -> None:
    with open_sink() as uri:
        host, port = uri.removeprefix("tcp:").split(":")
        address = (host, int(port))
        with socket.create_connection(address, timeout=10) as sender:
            sender.sendall(bytes(2**24))  # far more than buffers hold
    with pytest.raises(OSError, match=r"refused"):
        socket.create_connection(address, timeout=10)


def test_the_sink_reads_connections_at_once_and_ends_the_return_path() -> None:
    """multifd has a connection for each channel, and the first one has the return path."""
    with open_sink(return_path=True) as uri:
        host, port = uri.removeprefix("tcp:").split(":")
        address = (host, int(port))
        with ExitStack() as stack:
            main, channel = (
                stack.enter_context(socket.create_connection(address, timeout=10)) for _ in range(2)
            )
            for sender in (channel, main, channel):
                sender.sendall(bytes(2**24))
            answer = main.recv(8, socket.MSG_WAITALL)
            assert answer == bytes([0, 1, 0, 4, 0, 0, 0, 0])  # MIG_RP_MSG_SHUT, and no error
            channel.shutdown(socket.SHUT_WR)
            assert channel.recv(100) == b""


def test_the_completed_sample_has_its_times() -> None:
    """QEMU 7.2 reports completion before it computes the times."""
    answers = [
        {"status": "completed", "total-time": 0, "downtime": 0},
        {"status": "completed", "total-time": 40029, "downtime": 30},
    ]

    async def ask(command: str) -> dict[str, Any]:
        assert command == "query-migrate"
        return answers.pop(0)

    assert asyncio.run(query_migrate(ask))["downtime"] == 30


@pytest.mark.parametrize(
    "answer",
    [
        {"status": "active", "total-time": 0},
        {"status": "completed"},  # of a VM that was itself migrated to its host, and is idle
    ],
)
def test_an_answer_without_times_is_returned_at_once(answer: dict[str, Any]) -> None:
    answers = [answer]

    async def ask(command: str) -> dict[str, Any]:
        return answers.pop()

    assert asyncio.run(query_migrate(ask)) == answer


@pytest.mark.qemu
def test_qemu_has_ended_when_a_signal_ends_the_wait_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    need(QEMUS[0])
    machines = []

    async def signal_comes(*_: object, **__: object) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)

    async def start_and_end() -> None:
        settings = command_line(GuestSettings(size=16).boot_settings())
        async with start_qemu(
            QEMUS[0], mem_mib=64, settings=settings, accelerator="tcg"
        ) as machine:
            machines.append(machine)
            monkeypatch.setattr(machine.monitor, "ask", signal_comes)

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(start_and_end())
    assert machines[0].process.returncode == -signal.SIGKILL
