"""The target of a recorded migration: a local listener that reads everything and keeps nothing."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

CHUNK_BYTES = 2**20
JOIN_TIMEOUT_S = 2.0
# With a return path QEMU ends a migration only after its target has sent MIG_RP_MSG_SHUT, which may
# come at any time: type 1, length 4, value 0.
# Source: migration/migration.c:source_return_path_thread and close_return_path_on_source [11.1].
SHUT = struct.pack(">HHI", 1, 4, 0)


@contextmanager
def open_sink(*, return_path: bool = False) -> Iterator[str]:
    """Yield a URI for QEMU's migrate command.

    All connections to it are read until the block ends.

    Args:
        return_path: QEMU opens a return path and waits for an answer on its first connection.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:
        connected: list[socket.socket] = []
        accepting = threading.Thread(
            target=_accept, args=(listener, connected, SHUT if return_path else b""), daemon=True
        )
        accepting.start()
        try:
            yield f"tcp:127.0.0.1:{listener.getsockname()[1]}"
        finally:
            for end in (listener, *connected):
                with suppress(OSError):  # a closed socket cannot be shut down
                    end.shutdown(socket.SHUT_RDWR)
            accepting.join(JOIN_TIMEOUT_S)


def _accept(listener: socket.socket, connected: list[socket.socket], answer: bytes) -> None:
    """Read each connection in a thread of its own: multifd has one for each channel."""
    readers = []
    with suppress(OSError):  # the listener was shut down
        while True:
            connection, _ = listener.accept()
            connected.append(connection)
            reader = threading.Thread(target=_read, args=(connection, answer), daemon=True)
            reader.start()
            readers.append(reader)
            answer = b""
    for reader in readers:
        reader.join(JOIN_TIMEOUT_S)


def _read(connection: socket.socket, answer: bytes) -> None:
    buffer = bytearray(CHUNK_BYTES)
    with connection, suppress(OSError):
        connection.sendall(answer)
        while connection.recv_into(buffer):
            pass
