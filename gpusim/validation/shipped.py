"""The recordings that come with gpusim, and loading many recordings at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from gpusim.errors import CodedError, ConfigError
from gpusim.formats.errors import RecordingError
from gpusim.formats.intake import load_any_recording
from gpusim.formats.recording import Recording
from gpusim.formats.recording_file import find_recordings
from gpusim.validation.errors import ValidationError

SHIPPED = Path(__file__).parent / "data"
RECORDER = SHIPPED / "recorder"  # made by gpusim-record
SHORT = SHIPPED / "short"  # by QEMU 11.1, which makes more syncs than it reports
Used = TypeVar("Used")


@dataclass(frozen=True, kw_only=True)
class NotUsed:
    """A file, or a path without files, that is left out of a validation.

    Attributes:
        name: of the file or path, for people.
        error: why it is left out.
    """

    name: str
    error: CodedError | ConfigError


def load_recordings(paths: Sequence[Path]) -> list[Recording]:
    """Return all recordings that the paths stand for, each file once.

    Raises:
        RecordingError: a path without recordings, or a damaged file.
        ProfileError: a damaged profile in a recording.
        ValidationError: two recordings of one name.
    """
    return [used(found) for found in load_each(paths)]


def load_each(paths: Sequence[Path]) -> Iterator[Recording | NotUsed]:
    """Yield each recording that the paths stand for, or why it is not used. Each file counts once."""
    files: set[Path] = set()
    cases: set[str] = set()
    for path in paths:
        try:
            found = find_recordings(path)
        except RecordingError as error:
            yield NotUsed(name=str(path), error=error)
            continue
        for file in found:
            if file.resolve() in files:
                continue
            files.add(file.resolve())
            try:
                recording = load_any_recording(file)
                if recording.case in cases:
                    raise ValidationError("repeated_name", path=file, case=recording.case)
            except CodedError as error:
                yield NotUsed(name=file.name, error=error)
                continue
            cases.add(recording.case)
            yield recording


def used(found: Used | NotUsed) -> Used:
    """Return what is used, or raise the error of what is not."""
    if isinstance(found, NotUsed):
        raise found.error
    return found
