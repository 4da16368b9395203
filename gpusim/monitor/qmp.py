"""A connection to QEMU's monitor (QMP) on which nothing waits for ever.

Owns the protocol's errors, each made one line; it does not know what is asked, or why. The package
qemu.qmp speaks the protocol; it is imported when a connection is made, as only recording needs it.
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

if TYPE_CHECKING:
    from qemu.qmp import QMPClient

CONNECT_TIMEOUT_S = 10.0
ANSWER_TIMEOUT_S = 20.0  # QEMU's main loop may stand still while it syncs a big bitmap
CLOSE_TIMEOUT_S = 2.0


class LiveError(Exception):
    """A recording that cannot go on; the message is one line for the user."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


class NoAnswerError(LiveError):
    """QEMU is there, and did not answer in time."""


class MonitorClosedError(LiveError):
    """QEMU hung up: it ended, or was killed."""


@dataclass(frozen=True, kw_only=True)
class QmpEvent:
    """What QEMU told unasked; `time_s` is the wall clock's (QEMU stamps it)."""

    time_s: float
    name: str
    data: dict[str, Any]


def require_qmp() -> None:
    """Check that qemu.qmp is there, before anything is started.

    Raises:
        LiveError: it is not; says how to install it.
    """
    if not (is_installed("qemu") and is_installed("qemu.qmp")):
        raise LiveError("qemu.qmp is missing: install gpusim's extra: pip install '.[qemu]'")


class Monitor:
    """One connection, made by `async with Monitor(address) as monitor:`.

    Args:
        address: path of a UNIX socket, host and port, or a socket that is connected already.

    Attributes:
        events: what QEMU told unasked so far, oldest first.
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
        """Connect and learn QEMU's version; what `async with` does.

        Raises:
            LiveError: no QMP server there, or none that answers.
        """
        require_qmp()
        from qemu.qmp import ConnectError, QMPClient

        # It logs each failure besides raising it; a user is told once.
        logging.getLogger("qemu.qmp").setLevel(logging.CRITICAL + 1)
        where = self._address if isinstance(self._address, str) else "QEMU's monitor"
        client = QMPClient("gpusim-record")
        try:
            await asyncio.wait_for(client.connect(self._address), CONNECT_TIMEOUT_S)
        except TimeoutError:
            raise LiveError(
                f"{where}: no greeting in {CONNECT_TIMEOUT_S:g} s; expected a QMP monitor that "
                "nobody else is connected to (QEMU serves one client a socket)"
            ) from None
        except ConnectError as error:
            reason = _reason(error.exc)
            raise LiveError(f"{where}: cannot connect ({reason}); expected a QMP monitor") from None
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
        """QEMU's answer to a command.

        Raises:
            MonitorClosedError: QEMU is gone.
            NoAnswerError: QEMU did not answer in time.
            LiveError: QEMU refused, with its reason.
        """
        from qemu.qmp import ExecInterruptedError, ExecuteError, StateError

        if self._client is None:
            raise MonitorClosedError(f"{command}: the connection to QEMU is closed")
        try:
            return await asyncio.wait_for(self._client.execute(command, arguments), timeout_s)
        except TimeoutError:
            raise NoAnswerError(f"{command}: QEMU did not answer in {timeout_s:g} s") from None
        except ExecuteError as error:
            raise LiveError(f"{command}: QEMU refused: {error}") from None
        except (ExecInterruptedError, StateError, EOFError, OSError):
            raise MonitorClosedError(f"{command}: QEMU closed the connection") from None

    async def close(self) -> None:
        """Hang up; QEMU goes on. May be called again."""
        client, self._client = self._client, None
        listening, self._listening = self._listening, None
        if listening is not None:
            listening.cancel()
            with suppress(asyncio.CancelledError):
                await listening
        if client is not None:
            # Whatever ended the connection was told where it was noticed.
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
