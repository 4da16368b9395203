"""Errors of the file formats: codes, and one table of texts for each kind of file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from gpusim.errors import CodedError
from gpusim.shapes import ShapeError

IN_FILE = {code: f"{{path}}: {text}" for code, text in ShapeError.texts.items()}


class RecordingError(CodedError, ValueError):
    """A file or folder that holds no usable recording."""

    texts: ClassVar[Mapping[str, str]] = {
        "no_such_path": (
            "{path}: no such file or folder. Expected a recording, or a folder of recordings"
        ),
        "unreadable_path": (
            "{path}: cannot be read ({reason}). Expected a recording, or a folder of recordings"
        ),
        "empty_folder": "{path}: this folder holds no recordings. Expected {suffixes} files",
        "wrong_suffix": (
            "{path}: a recording is not named like this. Expected {suffixes}. gpusim-record "
            "--libvirt makes one from a log of virsh"
        ),
        "unreadable": "{path}: cannot be read ({reason}). Expected a whole {suffix} file",
        "working_set_outside_memory": (
            "{path}: the guest's working set ends at {end_mib} MiB and its memory at {mem_mib} "
            "MiB. Expected base + size <= mem_mib"
        ),
        "foreign_capabilities": (
            "{path}: the migration used {capabilities}, which gpusim does not simulate. Expected "
            "plain precopy. gpusim-predict takes it as a profile"
        ),
        "no_start": '{path}: no event "{event}". Expected the migration from its start',
        "no_clock": (
            "{path}: no active sample has a total-time. Expected QEMU's trace, or query-migrate's "
            "answers"
        ),
        "too_few_samples": (
            "{path}: {samples} samples of an active migration. Expected {least} or more"
        ),
        "no_page_counts": (
            "{path}: normal and duplicate count {pages} pages, and {sent_bytes} bytes were sent. "
            "Expected QEMU's counters of all pages"
        ),
        "failed": "{path}: the migration failed. Expected one that completed or hit its limit",
        "ends_before_sample": (
            "{path}: the migration ended after {end_s:.1f} s, and a sample of {sample_s:.1f} s is "
            "active. Expected the samples and the end of one migration"
        ),
        "ends_after_sample": (
            "{path}: the migration ended after {end_s:.1f} s, and the sample of its end is from "
            "{sample_s:.1f} s. Expected the samples and the end of one migration"
        ),
        "ends_early": "{path}: ends after {end_s:.1f} s. Expected a completion, or {limit_s:g} s",
        **IN_FILE,
        "missing": (
            "{path}: {key} is missing: {allowed}. Is this a recording? If it was cut, copy {key} "
            "from the whole file"
        ),
    }


class VirshLogError(CodedError, ValueError):
    """A log of virsh that holds no usable migration."""

    texts: ClassVar[Mapping[str, str]] = {
        "unreadable": "{path}: cannot be read ({reason}). Expected a log of virsh",
        "too_few_answers": (
            "{path}: {answers} answers of domjobinfo while memory was sent. Expected {least}, each "
            "after a line of `date +%s.%N`{hint}"
        ),
        "no_clock": (
            "{path}: the log has {stamps}, and libvirt's time elapsed is missing or does not rise. "
            "Print `date +%s.%N` before and after each virsh domjobinfo"
        ),
        "bad_answer": "{path}: the answer to {query}: {reason}",
        "no_answer": (
            "{path}: no answer to {query}. Expected the output of virsh qemu-monitor-command, as "
            "docs/how-to/watch-a-migration.md shows"
        ),
        "no_events": "{path}: no line of virsh qemu-monitor-event. Expected its log",
    }


class AnswersError(CodedError, ValueError):
    """A file of query-migrate's answers that holds no usable migration, or a wrong fact about it."""

    texts: ClassVar[Mapping[str, str]] = {
        "unreadable": (
            "{path}: cannot be read ({reason}). Expected JSON with answers to query-migrate, or one "
            "answer per line{hint}"
        ),
        "too_few_answers": (
            "{path}: the last migration has {answers} active answers with total-time and ram. "
            "Expected {least} or more answers to query-migrate{hint}"
        ),
        "unknown_fact": "--fact {key}: there is no such fact. Expected KEY=VALUE with {known}",
        "bad_fact": "--fact {key}={value}: not possible. Expected {expected}",
    }


class ProfileError(CodedError, ValueError):
    """A file that is not a usable profile. The data of each error has the file's `path`."""

    texts: ClassVar[Mapping[str, str]] = {
        "unreadable": "{path}: cannot be read ({reason}). Name the file of {expected}",
        "empty": "{path}: is empty. Make a profile with gpusim-predict --measure --qmp SOCKET",
        "not_parsed": "{path}: is cut off, or is neither JSON nor YAML ({reason}){hint}",
        "not_a_mapping": '{path}: is not a profile. Expected keys such as "memory"{hint}',
        "unknown_capability": (
            "{path}: capabilities: gpusim knows no capability {value}. Remove it if it does not "
            "change how memory is sent"
        ),
        "misspelt_name": "{path}: {key}: QEMU has no {value}. Write {right}",
        **IN_FILE,
        "too_many_utilisations": (
            "{path}: utilisation has {values} values and the VM has {vcpus} vCPUs. "
            "Give at most one value per vCPU"
        ),
        "blocks_differ_from_memory": (
            "{path}: the blocks add up to {blocks} and memory is {memory}. "
            "Give the blocks and the memory of the same VM"
        ),
        "too_few_periods": (
            "{path}: {measurements} measurements have {periods} different periods, and a fit needs "
            "{least}. {advice}"
        ),
        "no_block_sampled": "{path}: QEMU samples no RAM block below 128 KiB, and all are smaller",
        "dirties_more_than_memory": (
            "{path}: {rate:g} MiB/s for {seconds:g} s dirties {dirtied}, and the VM has {memory}. "
            "Give the measurements of this VM in MiB/s"
        ),
        "dirties_zero_pages": (
            "{path}: {rate:g} MiB/s for {seconds:g} s dirties more than the {percent:.0f} % of the "
            "memory that is not zero. Count the zero pages while you measure"
        ),
        "several_vms": (
            "{path}: the log has the VMs {names}. Add --domain NAME, or type gpusim-predict --fleet "
            "for all of them"
        ),
        "no_such_vm": "{path}: no VM {name} among the {vms} of the log. {hint}",
        "no_memory_size": (
            "{path}: the log has no memory size. Add --memory 64GiB, or the output of virsh "
            "dominfo{hint}"
        ),
        "several_modes": "{path}: the log has the modes {modes}. Use one of {allowed}",
        "no_measurement": (
            "{path}: no measurement has ended (dirtyrate.calc_status=2). Run virsh domstats "
            "--dirtyrate after each virsh domdirtyrate-calc has ended{hint}"
        ),
    }


class IntakeError(CodedError, ValueError):
    """A file that is none of those that an operator may hold, or one that tells too little."""

    texts: ClassVar[Mapping[str, str]] = {
        **IN_FILE,
        "unreadable": "{path}: cannot be read ({reason}). Expected {known}",
        "too_large": (
            "{path}: is {reason}. Keep the lines of the migration, for example with "
            "grep -i migration FILE"
        ),
        "empty": "{path}: is empty. Expected {known}",
        "unknown_kind": "{path}: is of no kind that is read. Expected {known}",
        "no_progress": "{path}: {kind} without lines of a migration. Expected {line}",
        "fleet": "{path}: dirty rates of a fleet. Type gpusim-predict --fleet FILE",
        "no_counters": "{path}: {kind}, which lacks counters of pages. Expected {known}",
        "mixed": "{path}: holds {kinds}. Keep the lines of one of them",
        "nothing_told": (
            "{path}: {kind}, and it reports no memory. Expected the lines of a live migration"
        ),
    }
