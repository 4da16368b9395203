"""The recording so far of a migration that is being watched, as a file that is always complete.

If the recorder is killed, then NAME.qemuMAJOR.cut.a.json stays and holds every sample that the
recorder saw. Each addition overwrites the bytes that close the document, in one write. Otherwise the
file is removed, after the ordinary file was written.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from gpusim.files import alone_in, whole_file
from gpusim.record.files import free_path
from gpusim.record.messages import CannotWriteError

MOST_EVENTS = 2000  # in this file. They are written again with each sample.


class CutFile:
    """A file in a folder, which need not exist yet.

    Attributes:
        path: of the file, once it exists.
        failure: why the file is missing or ends early. Empty: it is as it should be.
        samples: how many samples were added, in the file or not.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.path: Path | None = None
        self.failure = ""
        self.samples = 0
        self._folder, self._name = folder, name
        self._handle = -1
        self._end, self._tail = 0, b""
        self._events: list[bytes] = []

    def begin(self, document: dict[str, Any]) -> None:
        """Create the file. The document has no samples and no `qmp_events`."""
        head = _json(document).removesuffix(b"}") + b',"samples":['
        self._tail = _tail([])
        stem = f"{self._name}.qemu{document['qemu']['major']}.cut"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with alone_in(self._folder):
                path = free_path(self._folder, stem, ".json")
                with whole_file(path) as file:
                    file.write(head + self._tail)
            self.path = path
            self._handle = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        except (OSError, CannotWriteError) as error:
            self.failure = str(error)
        self._end = len(head)

    def add(self, samples: list[dict[str, Any]], events: list[list[Any]]) -> None:
        """Add new samples and new events. A full disk leaves the file as it was."""
        rows = [_json(sample) for sample in samples]
        content = b",".join([b"", *rows] if self.samples else rows)
        self.samples += len(samples)
        if self.failure:
            return
        tail = self._tail
        if new := events[: MOST_EVENTS - len(self._events)]:
            self._events += map(_json, new)
            tail = _tail(self._events)
        try:
            if os.pwrite(self._handle, content + tail, self._end) < len(content + tail):
                raise OSError("the disk is full")
        except OSError as error:
            self.failure = str(error)
            with suppress(OSError):
                os.pwrite(self._handle, self._tail, self._end)
                os.ftruncate(self._handle, self._end + len(self._tail))
            return
        self._end, self._tail = self._end + len(content), tail

    def remove(self) -> None:
        """Remove the file, if there is one."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1
        if self.path is not None:
            self.path.unlink(missing_ok=True)
            self.path = None


def _tail(events: list[bytes]) -> bytes:
    return b'],"qmp_events":[' + b",".join(events) + b"]}"


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()
