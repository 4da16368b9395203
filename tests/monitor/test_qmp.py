"""Does a connection to QEMU's monitor raise the right error for each failure?"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gpusim.monitor import qmp
from gpusim.monitor.commands import MEASURING, QUERIES
from gpusim.monitor.errors import (
    LiveError,
    MonitorClosedError,
    NoAnswerError,
    WrongAnswerError,
)
from gpusim.monitor.qmp import Monitor

VERSION = {"qemu": {"major": 9, "minor": 2, "micro": 1}, "package": ""}
GREETING = {"QMP": {"version": VERSION, "capabilities": []}}
STAMP = {"seconds": 12, "microseconds": 500_000}
STOP = {"event": "STOP", "timestamp": STAMP}
KVM = {"enabled": False, "present": True}
SILENCE, HANG_UP, HALF = object(), object(), object()
REFUSED = {"class": "GenericError", "desc": "not\nnow"}


def line(message: object) -> bytes:
    return json.dumps(message).encode() + b"\r\n"


def with_server(
    test: Callable[[Monitor], Awaitable[None]],
    kvm: Any = KVM,
    greeting: bytes = line(GREETING),
    before: bytes = b"",
) -> None:
    """Run `test` on a monitor whose other end answers.

    Args:
        kvm: the answer to query-kvm: a value, bytes to send with @ID@ for the id, or SILENCE.
        before: bytes that come before the answer to query-kvm.
    """
    fixed: dict[str, Any] = {"qmp_capabilities": {}, "query-version": VERSION, "query-kvm": kvm}

    async def serve(end: socket.socket) -> None:
        reader, writer = await asyncio.open_connection(sock=end)
        writer.write(greeting)
        try:
            while received := await reader.readline():
                request = json.loads(received)
                command, number = request["execute"], request["id"]
                if command == "query-kvm":
                    writer.write(before)
                answer = fixed.get(command)
                if answer in (HANG_UP, HALF):
                    writer.write(b'{"return": {"stat' * (answer is HALF))
                    return
                if isinstance(answer, bytes):
                    writer.write(answer.replace(b"@ID@", str(number).encode()))
                elif command not in fixed:
                    writer.write(line({"error": REFUSED, "id": number}))
                elif answer is not SILENCE:
                    writer.write(line({"return": answer, "id": number}))
        except ConnectionError:
            pass
        finally:
            writer.close()

    async def both() -> None:
        ours, theirs = socket.socketpair()
        server = asyncio.create_task(serve(theirs))
        connection = Monitor(ours)
        try:
            await test(connection)
        finally:
            connection.close()
            server.cancel()
            await asyncio.gather(server, return_exceptions=True)

    asyncio.run(both())


@pytest.fixture(autouse=True)
def short_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qmp, "CONNECT_TIMEOUT_S", 0.2)


def ask(error: type[LiveError] | None = None, **server: Any) -> tuple[Any, list[Any]]:
    """Ask query-kvm. Return the answer or the error, and the connection's events."""
    found: list[Any] = []

    async def test(connection: Monitor) -> None:
        await connection.connect()
        if error is None:
            found.append(await connection.ask("query-kvm"))
        else:
            with pytest.raises(error) as caught:
                await connection.ask("query-kvm", timeout_s=0.2)
            assert "\n" not in str(caught.value)
            assert len(str(caught.value)) < 1000
            found.append(caught.value)
        found.append((connection.events, connection.bad_events))

    with_server(test, **server)
    return found[0], list(found[1])


def test_version_and_events_with_their_time() -> None:
    answer, (events, bad) = ask(before=line(STOP))
    assert answer == KVM
    assert [(event.time_s, event.name) for event in events] == [(12.5, "STOP")]
    assert bad == 0


def test_a_refusal_and_a_command_after_it() -> None:
    async def test(connection: Monitor) -> None:
        await connection.connect()
        with pytest.raises(LiveError) as refused:
            await connection.ask("query-status")
        assert (refused.value.code, refused.value.data["command"]) == ("refused", "query-status")
        assert "\n" not in str(refused.value)
        assert await connection.ask("query-kvm") == KVM

    with_server(test)


def test_a_silence_is_bounded_and_its_late_answer_is_skipped() -> None:
    late = b'{"return": 5, "id": 3}\r\n' + line({"return": KVM, "id": 4})
    answers = iter([b"", late])

    async def test(connection: Monitor) -> None:
        await connection.connect()
        with pytest.raises(NoAnswerError) as silent:
            await connection.ask("query-kvm", timeout_s=0.05)
        assert silent.value.data == {"command": "query-kvm", "timeout_s": 0.05}
        assert await connection.ask("query-kvm") == KVM

    class Next(bytes):
        def replace(self, *_: object) -> bytes:
            return next(answers)

    with_server(test, kvm=Next())


@pytest.mark.parametrize("end", [HANG_UP, HALF])
def test_a_hang_up(end: object) -> None:
    async def test(connection: Monitor) -> None:
        await connection.connect()
        for command in ("query-kvm", "query-version"):
            with pytest.raises(MonitorClosedError) as closed:
                await connection.ask(command)
            assert closed.value.data == {"command": command}
        assert [event.name for event in connection.events] == ["STOP"]

    with_server(test, kvm=end, before=line(STOP))


@pytest.mark.parametrize(
    ("greeting", "code"),
    [
        (b"HTTP/1.1 400\r\n", "cannot_connect"),
        (b" ", "no_greeting"),
        (line(GREETING)[:30], "no_greeting"),
        (b"{{{{\r\n", "cannot_connect"),
        (b"\xff\xfe\r\n", "cannot_connect"),
        (b"[1]\r\n", "cannot_connect"),
        (line({"hello": 1}), "cannot_connect"),
        (line({"QMP": None}), "cannot_connect"),
        (line({"QMP": {"version": "x", "capabilities": []}}), "cannot_connect"),
        (b'{"QMP":' + b"[" * 100_000 + b"]" * 100_000 + b"}\r\n", "cannot_connect"),
    ],
)
def test_what_is_no_monitor(greeting: bytes, code: str) -> None:
    async def test(connection: Monitor) -> None:
        with pytest.raises(LiveError) as error:
            await connection.connect()
        assert error.value.code == code
        assert "\n" not in str(error.value)

    with_server(test, greeting=greeting)


def test_no_socket(tmp_path: Path) -> None:
    regular = tmp_path / "regular"
    regular.touch()
    for address, reason in (
        (tmp_path / "nowhere", "no such socket"),
        (tmp_path / ("x" * 300), "AF_UNIX path too long"),
        ("a\0b", None),
        (regular, "it is no socket"),
    ):
        with pytest.raises(LiveError) as error:
            asyncio.run(Monitor(str(address)).connect())
        assert error.value.code == "cannot_connect"
        assert reason in (None, error.value.data["reason"])


@pytest.mark.parametrize(
    "answer",
    [
        b"{{{{\r\n",
        b"[]\r\n",
        b"null\r\n",
        b"\xff\xfe\r\n",
        b'{"return": NaN, "id": @ID@}\r\n',
        b'{"return": {}, "id": "wrong"}\r\n',
        b'{"return": {}, "id": 99}\r\n',
        b'{"return": {}, "id": true}\r\n',
        b'{"return": {}}\r\n',
        b'{"id": @ID@}\r\n',
        b'{"return": {}, "error": {}, "id": @ID@}\r\n',
        b'{"error": 5, "id": @ID@}\r\n',
        b'{"error": {"class": "x"}, "id": @ID@}\r\n',
        b'{"return": ' + b"[" * 50_000 + b"]" * 50_000 + b', "id": @ID@}\r\n',
        b'{"return": {"enabled": "' + b"x" * 100_000 + b'"}, "id": @ID@}\r\n',
    ],
)
def test_an_answer_that_is_not_qmp_is_one_line(answer: bytes) -> None:
    ask(WrongAnswerError, kvm=answer)


def test_a_line_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qmp, "LONGEST_LINE", 10_000)
    error, _ = ask(WrongAnswerError, kvm=b"x" * 2_000_000)
    assert error.code == "not_qmp"


def test_a_flood_of_events_is_bounded_in_memory_and_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qmp, "MOST_EVENTS", 10)
    _, (events, bad) = ask(before=line(STOP) * 1000)
    assert (len(events), bad) == (10, 990)


@pytest.mark.timeout(20)
def test_a_flood_without_end_is_interrupted() -> None:
    """The socket is always readable, so only a reader that yields can be cancelled."""

    async def test() -> None:
        connection = Monitor("unused")
        connection._socket = socket.socket()
        lines: Iterator[bytes] = iter(lambda: line(STOP), None)
        loop = asyncio.get_running_loop()

        async def receive(*_: object) -> bytes:
            return next(lines)

        async def send(*_: object) -> None: ...

        loop.sock_recv, loop.sock_sendall = receive, send  # type: ignore[method-assign,assignment]
        with pytest.raises(NoAnswerError):
            await connection.ask("query-kvm", timeout_s=0.05)
        task = asyncio.create_task(connection.ask("query-kvm"))
        loop.call_later(0.02, task.cancel)
        with pytest.raises(asyncio.CancelledError):
            await task
        connection.close()

    asyncio.run(test())


@pytest.mark.parametrize(
    "event",
    [
        {"event": "STOP"},
        {"event": 5, "timestamp": STAMP},
        {"event": "STOP\x1b[2J", "timestamp": STAMP},
        {"event": "STOP", "timestamp": None},
        {"event": "STOP", "timestamp": {}},
        {"event": "STOP", "timestamp": {"seconds": "x", "microseconds": 2}},
        {"event": "STOP", "timestamp": {"seconds": -1, "microseconds": -1}},  # QEMU's clock failed
        {"event": "STOP", "timestamp": STAMP, "data": 5},
        {"event": "MIGRATION", "timestamp": STAMP},
        {"event": "MIGRATION", "timestamp": STAMP, "data": {"status": []}},
        {"event": "MIGRATION_PASS", "timestamp": STAMP, "data": {"pass": True}},
    ],
)
def test_a_damaged_event_is_counted_and_left_out(event: dict[str, Any]) -> None:
    answer, (events, bad) = ask(before=line(event))
    assert (answer, events, bad) == (KVM, [], 1)


def test_an_event_about_something_else_is_not_kept() -> None:
    _, (events, bad) = ask(before=line({"event": "RTC_CHANGE", "timestamp": STAMP}))
    assert (events, bad) == ([], 0)


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        ("migrate", {"uri": "tcp:x"}),
        ("quit", None),
        ("human-monitor-command", {"command-line": "quit"}),
        ("human-monitor-command", {"command-line": "info ramblock\nquit"}),
        ("human-monitor-command", {"command-line": "xp /512gx 0x0; quit"}),
        ("human-monitor-command", None),
    ],
)
def test_a_command_that_changes_something_is_never_sent(
    command: str, arguments: dict[str, Any] | None
) -> None:
    async def test() -> None:
        for commands in (QUERIES, MEASURING):
            with pytest.raises(ValueError, match=r"may send|not in the table"):
                await Monitor("unused", commands).ask(command, arguments)

    asyncio.run(test())
