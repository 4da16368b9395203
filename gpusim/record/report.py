"""What gpusim-record tells its user: a line of progress on a terminal, a few lines at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tqdm import tqdm

from gpusim.formats.quantities import measured
from gpusim.formats.recording import RecordingError, read_document


@contextmanager
def line() -> Iterator[Callable[[str], None]]:
    """Takes the words of a line that changes in place; nothing where there is no terminal."""
    with tqdm(bar_format="{desc}", leave=False, disable=None) as bar:
        yield bar.set_description_str


def seen(document: dict[str, Any], path: Path) -> str:
    """A recording of somebody else's VM in a few lines.

    Returns:
        How it ended, what is missing, and where the file is.
    """
    last = document["samples"][-1]
    syncs = max(row.get("dirty-sync-count", 0) for row in document["samples"])
    throttle = max(row.get("cpu-throttle-percentage", 0) for row in document["samples"])
    return "\n".join(
        (
            f"{document['ended']} after {last['t']:.1f} s, {syncs} syncs, throttle up to {throttle} %",
            *(f"note: {note}" for note in document["notes"]),
            f"{path}, {path.stat().st_size / 1000:.0f} kB",
        )
    )


def summary(document: dict[str, Any], path: Path) -> str:
    """A recording in three lines.

    Returns:
        How it ended, what the guest did, and where the file is.
    """
    last = document["samples"][-1]
    throttle = _highest_throttle(document)
    syncs = sum(name == "migration_bitmap_sync_end" for _, name, _ in document["events"])
    took_s = (
        last["total-time"] / 1000 if "total-time" in last else last["t"]
    )  # no total if cancelled
    ended = f"{last['status']} after {took_s:.1f} s"
    if "downtime" in last:
        ended += f", downtime {last['downtime']} ms"
    return "\n".join(
        (
            f"{ended}, {syncs} syncs, throttle up to {throttle} %",
            f"guest: {document['writes_per_s_before']:.0f} page writes/s before, "
            f"{document['flat_out_writes_per_s']:.0f} flat out",
            f"{path}, {path.stat().st_size / 1000:.0f} kB",
        )
    )


def _highest_throttle(document: dict[str, Any]) -> int:
    """As gpusim-validate takes it, from the trace; from the samples of a recording too short for that."""
    try:
        return measured(read_document(document, "recording")).max_throttle_percent
    except RecordingError:
        return max(int(row.get("cpu-throttle-percentage", 0)) for row in document["samples"])
