"""The target of a recorded migration: a local listener that reads everything and keeps nothing."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

CHUNK_BYTES = 2**20
JOIN_TIMEOUT_S = 2.0


@contextmanager
def open_sink() -> Iterator[str]:
    """Yield a URI for QEMU's migrate command.

    All connections to it are read until the block ends.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:
        connected: list[socket.socket] = []
        reader = threading.Thread(target=_read, args=(listener, connected), daemon=True)
        reader.start()
        try:
            yield f"tcp:127.0.0.1:{listener.getsockname()[1]}"
        finally:
            for end in (listener, *connected):
                with suppress(OSError):  # a closed socket cannot be shut down
                    end.shutdown(socket.SHUT_RDWR)
            reader.join(JOIN_TIMEOUT_S)


def _read(listener: socket.socket, connected: list[socket.socket]) -> None:
    buffer = bytearray(CHUNK_BYTES)
    with suppress(OSError):  # the listener was shut down
        while True:
            connection, _ = listener.accept()
            connected.append(connection)
            with connection, suppress(OSError):
                while connection.recv_into(buffer):
                    pass
