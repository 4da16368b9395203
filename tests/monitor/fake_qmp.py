"""A QMP server that plays a migration and keeps every command that it gets."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

GREETING = {
    "QMP": {
        "version": {"qemu": {"major": 9, "minor": 2, "micro": 1}, "package": ""},
        "capabilities": ["oob"],
    }
}
PARAMETERS = {
    "max-bandwidth": 104857600,
    "downtime-limit": 300,
    "avail-switchover-bandwidth": 0,
    "throttle-trigger-threshold": 50,
    "cpu-throttle-initial": 20,
    "cpu-throttle-increment": 10,
    "cpu-throttle-tailslow": False,
    "max-cpu-throttle": 99,
}
PAGES = 65536
RAMBLOCK = """\
              Block Name    PSize              Offset               Used              Total                HVA  RO
                  pc.ram    4 KiB  0x0000000000000000 0x0000000040000000 0x0000000040000000 0x00007f5e4bfff000  rw
   /objects/mem two         2 MiB  0x0000000040000000 0x0000000000200000 0x0000000000200000 0x00007f5ea1c00000  rw
                 pc.bios    4 KiB  0x0000000080000000 0x0000000000040000 0x0000000000040000 0x00007f5ea2200000  ro
"""
MTREE = """\
FlatView #0
 AS "I/O", root: io
 Root memory region: io
  0000000000000000-0000000000000fff (prio 0, ram): not.this

FlatView #1
 AS "memory", root: system
 AS "cpu-memory-0", root: system
 Root memory region: system
  0000000000000000-00000000000bffff (prio 0, ram): pc.ram KVM
  00000000000c0000-00000000000fffff (prio 0, rom): pc.ram @00000000000c0000
  0000000000100000-000000003fffffff (prio 0, ram): pc.ram @0000000000100000
  00000000fec00000-00000000fec00fff (prio 0, i/o): ioapic

FlatView #2
 AS "piix3-ide", root: bus master container
 Root memory region: (none)
  No rendered FlatView

"""


def page_dump(address: int, last_word: int = 0) -> str:
    """Return a page as "xp /512gx" shows it: zero, except for its last word."""
    words = [0] * 511 + [last_word]
    return "".join(
        f"{address + 8 * place:016x}: 0x{words[place]:016x} 0x{words[place + 1]:016x}\r\n"
        for place in range(0, 512, 2)
    )


def active(ms: int, *, sent: int, remaining: int, syncs: int, **more: Any) -> dict[str, Any]:
    """Return an answer of query-migrate for a VM of 256 MiB."""
    ram = {
        "transferred": sent * 4104,
        "remaining": remaining * 4096,
        "total": PAGES * 4096,
        "duplicate": 0,
        "normal": sent,
        "dirty-pages-rate": 0,
        "dirty-sync-count": syncs,
        "mbps": 840.0,
        "pages-per-second": 25600,
    }
    return {"status": "active", "total-time": ms, "setup-time": 3, "ram": ram} | more


IDLE: dict[str, Any] = {}
ACTIVE = [active(200 * n, sent=5000 * n, remaining=PAGES - 5000 * n, syncs=1) for n in range(1, 13)]
COMPLETED = active(2700, sent=PAGES + 100, remaining=0, syncs=3, downtime=20) | {
    "status": "completed"
}
EVENT = dict[str, Any]


def _requests(connection: socket.socket) -> Iterator[dict[str, Any]]:
    """Yield JSON objects as they arrive. No line ends separate them."""
    waiting = ""
    while received := connection.recv(4096):
        waiting += received.decode()
        while waiting:
            try:
                request, end = json.JSONDecoder().raw_decode(waiting)
            except ValueError:  # the rest is on its way
                break
            waiting = waiting[end:].lstrip()
            yield request


@contextmanager
def qmp_server(
    answers: list[dict[str, Any]],
    *,
    events_on: bool = True,
    hang_up: bool = False,
    events_before: Callable[[int], list[EVENT]] = lambda _: [],
) -> Iterator[tuple[socket.socket, list[str]]]:
    """Yield a connected socket for the recorder, and the list of received commands.

    Args:
        answers: of query-migrate, one after the other. The last one repeats.
        hang_up: whether the connection ends after the last answer.
        events_before: events to send before the answer of that number.
    """
    ours, theirs = socket.socketpair()
    commands: list[str] = []

    def serve() -> None:
        migrate = 0
        with theirs, suppress(OSError):

            def send(message: dict[str, Any]) -> None:
                theirs.sendall(json.dumps(message).encode() + b"\r\n")

            send(GREETING)
            for request in _requests(theirs):
                command = request["execute"]
                commands.append(command)
                answer: Any = FIXED.get(command, {})
                if command == "query-migrate-capabilities":
                    answer = [
                        {"capability": "auto-converge", "state": True},
                        {"capability": "events", "state": events_on},
                        {"capability": "multifd", "state": False},
                    ]
                if command == "query-migrate":
                    if hang_up and migrate >= len(answers):
                        return
                    for event in events_before(migrate):
                        send(event)
                    answer = answers[min(migrate, len(answers) - 1)]
                    migrate += 1
                send({"return": answer, "id": request.get("id")})

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield ours, commands
    finally:
        ours.close()
        thread.join(5)


FIXED: dict[str, Any] = {
    "query-version": GREETING["QMP"]["version"],
    "query-kvm": {"enabled": False, "present": True},
    "query-cpus-fast": [{"cpu-index": 0, "thread-id": 7}, {"cpu-index": 1, "thread-id": 8}],
    "query-migrate-parameters": PARAMETERS,
}


def event(name: str, at_s: float, **data: Any) -> EVENT:
    """Return an event as QEMU sends it."""
    seconds = int(at_s)
    stamp = {"seconds": seconds, "microseconds": round(1e6 * (at_s - seconds))}
    return {"event": name, "data": data, "timestamp": stamp}
