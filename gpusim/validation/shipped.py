"""The recordings that come with gpusim, and loading many recordings at once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gpusim.formats.recording import Recording
from gpusim.formats.recording_file import find_recordings, load_recording
from gpusim.validation.errors import ValidationError

SHIPPED = Path(__file__).parent / "data"
RECORDER = SHIPPED / "recorder"  # made by gpusim-record


def load_recordings(paths: Sequence[Path]) -> list[Recording]:
    """Return all recordings that the paths stand for, each file once.

    Raises:
        RecordingError: a path without recordings, or a damaged file.
        ProfileError: a damaged profile in a recording.
        ValidationError: two recordings of one name.
    """
    files = {file.resolve(): file for path in paths for file in find_recordings(path)}
    recordings: dict[str, Recording] = {}
    for file in files.values():
        recording = load_recording(file)
        if recording.case in recordings:
            raise ValidationError("repeated_name", path=file, case=recording.case)
        recordings[recording.case] = recording
    return list(recordings.values())
