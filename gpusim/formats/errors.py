"""Errors of the recording formats: codes, and one table of texts for each kind of file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from gpusim.errors import CodedError


class RecordingError(CodedError, ValueError):
    """A file or folder that holds no usable recording."""

    texts: ClassVar[Mapping[str, str]] = {
        "no_such_path": (
            "{path}: no such file or folder. Expected a recording, or a folder of recordings"
        ),
        "empty_folder": "{path}: this folder holds no recordings. Expected {suffixes} files",
        "wrong_suffix": "{path}: a recording is not named like this. Expected {suffixes}",
        "unreadable": "{path}: cannot be read ({reason}). Expected a whole {suffix} file",
        "damaged_compression": (
            "{path}: damaged compression ({reason}). Expected a whole {suffix} file"
        ),
        "not_json": "{path}: not JSON, or cut off ({reason}). Expected a whole recording",
        "not_an_object": "{path}: {key} is missing or no object. Is this a recording?",
        "not_a_list": "{path}: {key} is missing or no list. Is this a recording?",
        "not_a_text": "{path}: {key} is missing or no text. Is this a recording?",
        "not_a_whole_number": "{path}: {key} is missing or no whole number. Is this a recording?",
        "not_a_number": "{path}: {key} is missing or no number from 0 up. Is this a recording?",
        "not_a_positive_number": (
            "{path}: {key} is missing or no number above 0. Is this a recording?"
        ),
        "too_small": "{path}: {key} is {value}. Expected at least {least}",
        "wrong_event": "{path}: {key} is {value}. Expected [seconds, name, arguments]",
        "wrong_count": "{path}: {key} is {value}. Expected [seconds, writes]",
        "counter_fell": "{path}: {key}: the guest's write counter fell. Expected it to rise",
        "wrong_mode": "{path}: {key} is {value}. Expected 0 (sequential) or 1 (random)",
        "half_hot": "{path}: {key} has only one of hot and hotpct. Expected both, or none",
        "working_set_outside_memory": (
            "{path}: the guest's working set ends at {end_mib} MiB and its memory at {mem_mib} "
            "MiB. Expected base + size <= mem_mib"
        ),
        "wrong_accelerator": "{path}: accelerator is {value}. Expected tcg or kvm",
        "foreign_capabilities": (
            "{path}: the migration used {capabilities}, which gpusim does not simulate. Expected "
            "plain precopy"
        ),
        "no_start": '{path}: no event "{event}". Expected the migration from its start',
        "no_clock": (
            "{path}: no active sample has a total-time. Expected QEMU's trace, or query-migrate's "
            "answers"
        ),
        "too_few_samples": (
            "{path}: {samples} samples of an active migration. Expected {least} or more"
        ),
        "failed": "{path}: the migration failed. Expected one that completed or hit its limit",
        "ends_early": "{path}: ends after {end_s:.1f} s. Expected a completion, or {limit_s:g} s",
    }


class VirshLogError(CodedError, ValueError):
    """A log of virsh that holds no usable migration."""

    texts: ClassVar[Mapping[str, str]] = {
        "unreadable": "{path}: cannot be read ({reason}). Expected a log of virsh",
        "too_few_answers": (
            "{path}: {answers} answers of domjobinfo while memory was sent. Expected {least}, each "
            "after a line of `date +%s.%N`"
        ),
        "no_answer": (
            "{path}: no answer to {query}. Expected the output of virsh qemu-monitor-command, as "
            "docs/how-to/watch-a-migration.md shows"
        ),
        "no_events": "{path}: no line of virsh qemu-monitor-event. Expected its log",
    }
