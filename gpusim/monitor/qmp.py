"""A connection to QEMU's monitor (QMP). Every wait has a timeout.

Owns the errors of the protocol. It does not know which commands are sent, or why. The package
qemu.qmp speaks the protocol. It is imported when a connection is made, because it is optional.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from gpusim.errors import is_installed
from gpusim.monitor.errors import LiveError, MonitorClosedError, NoAnswerError

if TYPE_CHECKING:
    from qemu.qmp import QMPClient

CONNECT_TIMEOUT_S = 10.0
ANSWER_TIMEOUT_S = 20.0  # QEMU's main loop may stop while it syncs a big bitmap
CLOSE_TIMEOUT_S = 2.0


@dataclass(frozen=True, kw_only=True)
class QmpEvent:
    """An event that QEMU sent. `time_s` is QEMU's own wall-clock stamp."""

    time_s: float
    name: str
    data: dict[str, Any]


def require_qmp() -> None:
    """Check that the package qemu.qmp is installed, before anything is started.

    Raises:
        LiveError: it is not installed.
    """
    if not (is_installed("qemu") and is_installed("qemu.qmp")):
        raise LiveError("no_qmp_package")


class Monitor:
    """One connection: `async with Monitor(address) as monitor:`.

    Args:
        address: path of a UNIX socket, host and port, or a connected socket.

    Attributes:
        events: the events that QEMU sent so far, oldest first.
        version: (major, minor, micro), once connected.
    """

    def __init__(self, address: str | tuple[str, int] | socket.socket) -> None:
        self.events: list[QmpEvent] = []
        self.version = (0, 0, 0)
        self._address = address
        self._client: QMPClient | None = None
        self._listening: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await self.connect()
        return self

    async def connect(self) -> None:
        """Connect and ask for QEMU's version, as `async with` does.

        Raises:
            LiveError: no QMP server listens there, or it does not answer.
        """
        require_qmp()
        from qemu.qmp import ConnectError, QMPClient

        # qemu.qmp logs each failure and raises it, too. gpusim shows it once.
        logging.getLogger("qemu.qmp").setLevel(logging.CRITICAL + 1)
        where = self._address if isinstance(self._address, str) else "QEMU's monitor"
        client = QMPClient("gpusim-record")
        try:
            await asyncio.wait_for(client.connect(self._address), CONNECT_TIMEOUT_S)
        except TimeoutError:
            raise LiveError("no_greeting", address=where, timeout_s=CONNECT_TIMEOUT_S) from None
        except ConnectError as error:
            reason = _reason(error.exc)
            raise LiveError("cannot_connect", address=where, reason=reason) from None
        self._client = client
        self._listening = asyncio.create_task(self._listen(client))
        try:
            version = (await self.ask("query-version"))["qemu"]
        except BaseException:
            await self.close()
            raise
        self.version = (version["major"], version["minor"], version["micro"])

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def ask(
        self,
        command: str,
        arguments: dict[str, Any] | None = None,
        timeout_s: float = ANSWER_TIMEOUT_S,
    ) -> Any:
        """Send a command and return QEMU's answer.

        Raises:
            MonitorClosedError: QEMU closed the connection.
            NoAnswerError: QEMU did not answer in time.
            LiveError: QEMU refused. The data hold QEMU's reason.
        """
        from qemu.qmp import ExecInterruptedError, ExecuteError, StateError

        if self._client is None:
            raise MonitorClosedError("closed", command=command)
        try:
            return await asyncio.wait_for(self._client.execute(command, arguments), timeout_s)
        except TimeoutError:
            raise NoAnswerError("no_answer", command=command, timeout_s=timeout_s) from None
        except ExecuteError as error:
            raise LiveError("refused", command=command, reason=error) from None
        except (ExecInterruptedError, StateError, EOFError, OSError):
            raise MonitorClosedError("closed", command=command) from None

    async def close(self) -> None:
        """Close the connection. QEMU goes on. A second call does nothing."""
        client, self._client = self._client, None
        listening, self._listening = self._listening, None
        if listening is not None:
            listening.cancel()
            with suppress(asyncio.CancelledError):
                await listening
        if client is not None:
            # The reason for the end was raised where it was noticed.
            with suppress(Exception):
                await asyncio.wait_for(client.disconnect(), CLOSE_TIMEOUT_S)

    async def _listen(self, client: QMPClient) -> None:
        async for event in client.events:
            stamp = event["timestamp"]
            assert isinstance(stamp, dict)
            data = event.get("data", {})
            self.events.append(
                QmpEvent(
                    time_s=stamp["seconds"] + stamp["microseconds"] / 1e6,
                    name=str(event["event"]),
                    data=data if isinstance(data, dict) else {},
                )
            )


def _reason(error: BaseException) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such socket"
    text = getattr(error, "strerror", None) or str(error)
    return text or type(error).__name__
