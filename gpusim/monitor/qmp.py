"""A connection to QEMU's monitor (QMP). Every wait has a timeout and ends with its task.

Owns the protocol: one JSON object per line, a greeting, commands with ids, and events in between.
Each answer is checked against the shape of its command (commands.py). It does not know why a command
is sent. Events are read when a command waits for its answer, so no task runs between commands.
Source: QEMU, docs/interop/qmp-spec.rst.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import stat
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from gpusim.monitor.commands import (
    ERROR,
    EVENT,
    EVENT_DATA,
    GREETING,
    QUERIES,
    Commands,
    require_allowed,
)
from gpusim.monitor.errors import LiveError, MonitorClosedError, NoAnswerError, WrongAnswerError
from gpusim.reading import Limits, ReadingError, parse_json
from gpusim.shapes import ShapeError, check

CONNECT_TIMEOUT_S = 10.0
ANSWER_TIMEOUT_S = 20.0  # QEMU's main loop may stop while it syncs a big bitmap
CHUNK_BYTES = 2**16
LONGEST_LINE = 2**24  # bytes. A thousand vCPUs take 300 kB, "info mtree -f" of a big VM 1 MB.
LIMITS = Limits(bytes=LONGEST_LINE, nodes=500_000)
MOST_EVENTS = 100_000  # that are kept. A pass has one event.


@dataclass(frozen=True, kw_only=True)
class QmpEvent:
    """An event that QEMU sent. `time_s` is QEMU's own wall-clock stamp."""

    time_s: float
    name: str
    data: dict[str, Any]


class _NotQmp(Exception):  # noqa: N818 - becomes a LiveError with the command's name
    """A line that is not QMP, with the reason."""


class Monitor:
    """One connection: `async with Monitor(address) as monitor:`.

    Args:
        address: path of a UNIX socket, or a connected socket.
        commands: the table of those that may be sent.

    Attributes:
        events: the known events that QEMU sent so far, oldest first.
        bad_events: how many were left out, because they have no time stamp or another shape, or
            because there are too many.
        version: (major, minor, micro), once connected.
    """

    def __init__(self, address: str | socket.socket, commands: Commands = QUERIES) -> None:
        self.events: list[QmpEvent] = []
        self.bad_events = 0
        self.version = (0, 0, 0)
        self._address, self._commands = address, commands
        self._socket: socket.socket | None = None
        self._received = bytearray()
        self._last_id = 0

    async def __aenter__(self) -> Self:
        await self.connect()
        return self

    async def connect(self) -> None:
        """Connect and ask for QEMU's version, as `async with` does.

        Raises:
            LiveError: no QMP server listens there, or it does not answer.
        """
        where = self._address if isinstance(self._address, str) else "QEMU's monitor"
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                self._socket = await _open(self._address)
                check(await self._read_message(), GREETING)
            await self.ask("qmp_capabilities")
            version = (await self.ask("query-version"))["qemu"]
        except LiveError:
            self.close()
            raise
        except TimeoutError:
            self.close()
            raise LiveError("no_greeting", address=where, timeout_s=CONNECT_TIMEOUT_S) from None
        except (OSError, EOFError, ValueError, ShapeError, _NotQmp) as error:
            self.close()
            raise LiveError("cannot_connect", address=where, reason=_reason(error)) from None
        except BaseException:
            self.close()
            raise
        self.version = (version["major"], version["minor"], version["micro"])

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    async def ask(
        self,
        command: str,
        arguments: dict[str, Any] | None = None,
        timeout_s: float = ANSWER_TIMEOUT_S,
    ) -> Any:
        """Send a command and return QEMU's answer, which has the shape of the command.

        Raises:
            MonitorClosedError: QEMU closed the connection.
            NoAnswerError: QEMU did not answer in time. A later command can still be answered.
            WrongAnswerError: the answer has another shape, or is not QMP.
            LiveError: QEMU refused. The data hold QEMU's reason.
            ValueError: the command is not in this monitor's table.
        """
        require_allowed(self._commands, command, arguments)
        self._last_id += 1
        request: dict[str, Any] = {"execute": command, "id": self._last_id}
        if arguments:
            request["arguments"] = arguments
        try:
            async with asyncio.timeout(timeout_s):
                await self._send(request)
                answer = await self._read_answer(self._last_id)
        except TimeoutError:
            raise NoAnswerError("no_answer", command=command, timeout_s=timeout_s) from None
        except (EOFError, OSError):
            self.close()
            raise MonitorClosedError("closed", command=command) from None
        except _NotQmp as error:
            raise WrongAnswerError("not_qmp", command=command, reason=error) from None
        try:
            if "error" in answer:
                refusal = check(answer["error"], ERROR, "error")
                raise LiveError("refused", command=command, reason=refusal["desc"])
            return _without_nulls(check(answer["return"], self._commands[command]))
        except ShapeError as error:
            raise WrongAnswerError("wrong_answer", command=command, detail=error) from None

    async def read_last_events(self) -> None:
        """Take the events that QEMU sent before it ended. Call it once QEMU has ended."""
        with suppress(TimeoutError, EOFError, OSError, _NotQmp):
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                while self._socket is not None:
                    message = await self._read_message()
                    if "event" in message:
                        self._take_event(message)

    def close(self) -> None:
        """Close the connection. QEMU goes on. A second call does nothing."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    async def _send(self, request: dict[str, Any]) -> None:
        if self._socket is None:
            raise EOFError
        try:
            with suppress(ConnectionError):  # what QEMU sent before it ended can still be read
                line = json.dumps(request).encode() + b"\n"
                await asyncio.get_running_loop().sock_sendall(self._socket, line)
        except BaseException:  # half a command may be sent
            self.close()
            raise

    async def _read_answer(self, number: int) -> dict[str, Any]:
        """Return the answer to a command. Take the events before it, and skip late answers."""
        while True:
            message = await self._read_message()
            if "event" in message:
                self._take_event(message)
                continue
            found = message.get("id")
            if type(found) is not int or not 0 < found <= number:
                raise _NotQmp("an answer without the id of a command")
            if ("return" in message) == ("error" in message):
                raise _NotQmp("an answer with neither or both of return and error")
            if found == number:
                return message

    async def _read_message(self) -> dict[str, Any]:
        while not (line := (await self._read_line()).strip()):
            pass
        try:
            message = parse_json(line, LIMITS)
        except ReadingError as error:
            raise _NotQmp(error.reason) from None
        if not isinstance(message, dict):
            raise _NotQmp("not an object")
        return message

    async def _read_line(self) -> bytes:
        searched = 0
        while (end := self._received.find(b"\n", searched)) < 0:
            searched = len(self._received)
            if searched > LONGEST_LINE:
                self.close()
                raise _NotQmp(f"a line longer than {LONGEST_LINE} bytes")
            await asyncio.sleep(0)  # timeouts and signals come in, also if QEMU never pauses
            if self._socket is None:
                raise EOFError
            chunk = await asyncio.get_running_loop().sock_recv(self._socket, CHUNK_BYTES)
            if not chunk:
                raise EOFError
            self._received += chunk
        line = bytes(self._received[:end])
        del self._received[: end + 1]
        return line

    def _take_event(self, message: dict[str, Any]) -> None:
        try:
            event = check(message, EVENT)
            shape = EVENT_DATA.get(event["event"])
            if shape is None:
                return
            data = check(event["data"] or {}, shape)
        except ShapeError:
            self.bad_events += 1
            return
        if len(self.events) >= MOST_EVENTS:
            self.bad_events += 1
            return
        stamp, keys = event["timestamp"], (*shape.required, *shape.optional)
        self.events.append(
            QmpEvent(
                time_s=stamp["seconds"] + stamp["microseconds"] / 1e6,
                name=event["event"],
                data={key: data[key] for key in keys if data[key] is not None},
            )
        )


async def _open(address: str | socket.socket) -> socket.socket:
    """Return a connected socket that does not block.

    Raises:
        OSError: nothing listens there.
        ValueError: the address is no path.
    """
    if isinstance(address, socket.socket):
        address.setblocking(False)
        return address
    found = socket.socket(socket.AF_UNIX)
    try:
        found.setblocking(False)
        await asyncio.get_running_loop().sock_connect(found, address)
        found.getpeername()  # fails if the server's queue of clients is full
    except ConnectionRefusedError:
        found.close()
        if not stat.S_ISSOCK(os.stat(address).st_mode):
            raise ValueError("it is no socket") from None
        raise
    except BaseException:
        found.close()
        raise
    return found


def _without_nulls(value: Any) -> Any:
    """Return a checked value without the optional keys that are missing."""
    if isinstance(value, dict):
        return {key: _without_nulls(one) for key, one in value.items() if one is not None}
    if isinstance(value, list):
        return [_without_nulls(one) for one in value]
    return value


def _reason(error: BaseException) -> str:
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return "no such socket"
    if isinstance(error, EOFError):
        return "it closed the connection"
    text = getattr(error, "strerror", None) or str(error)
    return text or type(error).__name__
