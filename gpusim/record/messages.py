"""Errors and notes of the recorder: codes, and the tables of their texts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from gpusim.errors import CodedError
from gpusim.monitor.errors import LiveError


class CannotWriteError(CodedError):
    """The file of a recording cannot appear in the chosen folder."""

    texts: ClassVar[Mapping[str, str]] = {
        "no_folder": (
            "{folder}: cannot be written. Expected a folder, or a place where one can be made"
        ),
        "no_letter": "{folder}: {stem}.a to .z exist. Move some of them, or choose another --out",
    }


class RecordError(LiveError):
    """There is no recording of a live migration."""

    texts: ClassVar[Mapping[str, str]] = {
        "no_program": (
            "{name}: no such program. Install Debian's qemu-system-x86, or name a program with "
            "--qemu"
        ),
        "cannot_start": "{name}: cannot be started ({reason})",
        "does_not_start": "QEMU does not start: {reason}{qemu_line}",
        "no_compiler": (
            "{program} is missing, which builds the guest. Install gcc and binutils for x86"
        ),
        "cannot_build": "the guest cannot be built: {reason}. Expected gcc and ld for x86, 32 bits",
        "no_guest_memory": "the guest's memory cannot be seen. QEMU has probably ended",
        "no_ready": "the guest did not print READY in {timeout_s:g} s{qemu_line}",
        "unknown_names": "QEMU {version} has no {kind} {names}. It has {known}",
        "qemu_closed": "no recording: QEMU closed its monitor",
        "guest_crashed": "no recording: the guest crashed and reset the machine",
        "qemu_killed": "no recording: QEMU was killed by signal {signal}{qemu_line}",
        "qemu_ended": "no recording: QEMU ended with exit code {exit_code}{qemu_line}",
        "migration_failed": "no recording: the migration failed: {reason}{qemu_line}",
        "guest_stalled": "the guest stopped writing {stalled_s:.0f} s ago. It has probably crashed",
        "no_cancel": "QEMU did not cancel the migration in {timeout_s:g} s",
        "no_trace": (
            'QEMU traced no "{event}". Expected a QEMU with the trace backend log, as in Debian'
        ),
        "unreadable_trace_log": (
            "{path}: cannot be read. Expected the file that QEMU traces into (-D)"
        ),
        "closed_before_start": (
            "no recording: the connection closed before a migration began ({reason})"
        ),
        "too_short": (
            "no recording: a migration started and ended within {every_s:g} s, between two answers "
            "({status}). Give the next one less bandwidth"
        ),
        "too_few_answers": (
            "no recording: {answers} answers while the migration was active. Expected {least} or "
            "more, one every {every_s:g} s"
        ),
    }


NOTES = {
    "kvm_tracking": (
        "the monitor does not report how KVM tracks: QEMU's default, manual protect, is assumed"
    ),
    "joined": (
        "joined {late_s:.1f} s after the start: the {syncs} earlier syncs and the throttle are "
        "known only in sum, and are spread evenly"
    ),
    "lost_trace_log": "{path} cannot be read ({reason}): the trace is left out",
    "no_trace": (
        "{path} holds no trace of this migration, so the trace is left out. Expected lines such as "
        "pid@seconds:event or DATETZ event (-msg timestamp=on), with migrate_set_state"
    ),
    "no_traced_syncs": "{path} holds no migration_bitmap_sync_*: the trace is left out",
    "cut": "the recorder was killed: the recording ends with its last sample",
    "no_cut_file": "there was no file that a killed recorder leaves ({reason})",
    "wrong_answers": "{count} answers of query-migrate were refused or damaged, and are left out",
    "bad_events": "{count} of QEMU's events were damaged or too many, and are left out",
    "events_off": (
        "the capability events is off: without a trace, a sync is known only to lie between two "
        "samples"
    ),
    "closed_after_end": (
        "QEMU closed the connection after it had reported completion: the last bytes are missing"
    ),
    "closed": (
        "QEMU closed the connection, completed or not: the recording ends with its last answer"
    ),
    "ended_early": "{ended}: the recording ends with the last answer of an active migration",
}


def note(code: str, **data: Any) -> str:
    """Return a line for the `notes` of a recording: what is missing, and what that costs."""
    return NOTES[code].format_map(data)


def qemu_line(complaints: list[str]) -> str:
    """Return QEMU's last complaint as the end of a sentence, or nothing."""
    return f". QEMU's last line: {complaints[-1]}" if complaints else ""
