"""The recordings that come with gpusim, and reading many recordings at once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gpusim.formats.recording import Recording, RecordingError, find_recordings, load_recording

SHIPPED = Path(__file__).parent / "data"
RECORDER = SHIPPED / "recorder"  # made by gpusim-record


def load_recordings(paths: Sequence[Path]) -> list[Recording]:
    """All recordings that the paths stand for, each file once.

    Raises:
        RecordingError: a path without recordings, a damaged or foreign file, or two of one name.
    """
    files = {file.resolve(): file for path in paths for file in find_recordings(path)}
    recordings: dict[str, Recording] = {}
    for file in files.values():
        recording = load_recording(file)
        if recording.case in recordings:
            raise RecordingError(
                file, f"a second recording named {recording.case}; expected each name once"
            )
        recordings[recording.case] = recording
    return list(recordings.values())
