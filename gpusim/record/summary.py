"""The lines that gpusim-record prints about a recording that it wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gpusim.formats.errors import ProfileError, RecordingError
from gpusim.formats.quantities import Quantities, recorded_quantities
from gpusim.formats.recording_file import read_document
from gpusim.text import count_noun


def summarize_attached(document: dict[str, Any], path: Path) -> str:
    """Return a recording of another program's VM in a few lines: end, notes and file."""
    last = document["samples"][-1]
    return "\n".join(
        (
            f"{document['ended']} after {last['t']:.1f} s, {_describe_syncs(document)}, highest "
            f"throttle {_sampled_throttle(document)} %",
            *(f"note: {note}" for note in document["notes"]),
            _describe_file(path),
        )
    )


def summarize_own(document: dict[str, Any], path: Path) -> str:
    """Return a recording of the recorder's own QEMU in three lines: end, guest and file."""
    last = document["samples"][-1]
    # A cancelled migration has no total time.
    took_s = last["total-time"] / 1000 if "total-time" in last else last["t"]
    ended = f"{last['status']} after {took_s:.1f} s"
    if "downtime" in last:
        ended += f", downtime {last['downtime']} ms"
    return "\n".join(
        (
            f"{ended}, {_describe_syncs(document)}, highest throttle "
            f"{_highest_throttle(document)} %",
            f"guest: {document['writes_per_s_before']:.0f} page writes/s before the migration, "
            f"{document['flat_out_writes_per_s']:.0f} at full speed",
            _describe_file(path),
        )
    )


def _describe_syncs(document: dict[str, Any]) -> str:
    """Return the number of syncs, and QEMU's own count if it is another."""
    found = _quantities(document)
    if found is None:
        traced = sum(name == "migration_bitmap_sync_end" for _, name, _ in document["events"])
        sampled = max(row.get("dirty-sync-count", 0) for row in document["samples"])
        return count_noun(traced or sampled, "sync")
    made = count_noun(found.syncs_made, "sync")
    if found.syncs_made == found.dirty_sync_count:
        return made
    return f"{made} (QEMU reports {found.dirty_sync_count})"


def _describe_file(path: Path) -> str:
    return f"{path}, {path.stat().st_size / 1000:.0f} kB"


def _highest_throttle(document: dict[str, Any]) -> int:
    """Return the highest throttle as gpusim-validate does, or else the sampled one."""
    found = _quantities(document)
    return _sampled_throttle(document) if found is None else found.max_throttle_percent


def _quantities(document: dict[str, Any]) -> Quantities | None:
    try:
        return recorded_quantities(read_document(document, "recording"))
    except (RecordingError, ProfileError):
        return None


def _sampled_throttle(document: dict[str, Any]) -> int:
    return max(int(row.get("cpu-throttle-percentage", 0)) for row in document["samples"])
