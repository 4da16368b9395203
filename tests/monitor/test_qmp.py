"""Does a connection to QEMU's monitor raise the right error for each failure?"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from gpusim.monitor import qmp as monitor
from gpusim.monitor.errors import LiveError, MonitorClosedError, NoAnswerError
from gpusim.monitor.qmp import Monitor

pytest.importorskip("qemu.qmp", reason="gpusim's extra qemu is not installed")
VERSION = {"qemu": {"major": 9, "minor": 2, "micro": 1}, "package": ""}
GREETING = {"QMP": {"version": VERSION, "capabilities": []}}
STOP = {"event": "STOP", "timestamp": {"seconds": 12, "microseconds": 500_000}}
Answer = Callable[[dict], dict | None]


def ordinary(request: dict) -> dict | None:
    """Return QEMU's answer, or None if it does not answer."""
    match request["execute"]:
        case "qmp_capabilities":
            return {"return": {}}
        case "query-version":
            return {"return": VERSION}
        case "silence":
            return None
        case "hang-up":
            raise EOFError
    return {"error": {"class": "GenericError", "desc": "not\nnow"}}


def with_server(test: Callable[[Monitor], Awaitable[None]], greeting: bytes | None = None) -> None:
    """Run `test` on a monitor whose other end sends one event and answers as `ordinary` does."""

    async def serve(end: socket.socket) -> None:
        reader, writer = await asyncio.open_connection(sock=end)

        def say(message: dict) -> None:
            writer.write(json.dumps(message).encode() + b"\n")

        if greeting is None:
            say(GREETING)
        writer.write(greeting or b"")
        try:
            while received := await reader.read(4096):  # one request: a client waits for its answer
                request = json.loads(received)
                if request["execute"] == "query-version":
                    say(STOP)
                answer = ordinary(request)
                if answer is not None:
                    say({**answer, "id": request.get("id")} if "id" in request else answer)
        except EOFError:
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
            await connection.close()
            server.cancel()
            await asyncio.gather(server, return_exceptions=True)

    asyncio.run(both())


@pytest.fixture(autouse=True)
def _short_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitor, "CONNECT_TIMEOUT_S", 0.2)


def test_version_and_events_with_their_time() -> None:
    async def test(connection: Monitor) -> None:
        await connection.connect()
        assert connection.version == (9, 2, 1)
        assert [(event.time_s, event.name) for event in connection.events] == [(12.5, "STOP")]

    with_server(test)


def test_a_refusal_a_silence_and_a_hang_up() -> None:
    async def test(connection: Monitor) -> None:
        await connection.connect()
        with pytest.raises(LiveError) as refused:
            await connection.ask("frobnicate")
        assert (refused.value.code, refused.value.data["command"]) == ("refused", "frobnicate")
        assert str(refused.value) == "frobnicate: QEMU refused: not now"
        with pytest.raises(NoAnswerError) as silent:
            await connection.ask("silence", timeout_s=0.05)
        assert silent.value.data == {"command": "silence", "timeout_s": 0.05}
        for command in ("hang-up", "query-version"):
            with pytest.raises(MonitorClosedError) as closed:
                await connection.ask(command)
            assert closed.value.data == {"command": command}

    with_server(test)


@pytest.mark.parametrize(
    ("greeting", "code"), [(b"HTTP/1.1 400\r\n", "cannot_connect"), (b" ", "no_greeting")]
)
def test_what_is_no_monitor(greeting: bytes, code: str) -> None:
    async def test(connection: Monitor) -> None:
        with pytest.raises(LiveError) as error:
            await connection.connect()
        assert error.value.code == code
        assert "\n" not in str(error.value)

    with_server(test, greeting)


def test_no_socket(tmp_path: Path) -> None:
    with pytest.raises(LiveError) as error:
        asyncio.run(Monitor(str(tmp_path / "nowhere")).connect())
    assert (error.value.code, error.value.data["reason"]) == ("cannot_connect", "no such socket")
