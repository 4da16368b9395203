"""Errors of a live QEMU: codes, and the table of their texts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from gpusim.errors import CodedError


class LiveError(CodedError):
    """A running QEMU cannot be watched, measured or recorded."""

    exit_code: ClassVar[int] = 1  # the command line was right
    texts: ClassVar[Mapping[str, str]] = {
        "no_greeting": (
            "{address}: no greeting in {timeout_s:g} s. Expected a QMP monitor that nobody else "
            "uses (QEMU serves one client per socket)"
        ),
        "cannot_connect": "{address}: cannot connect ({reason}). Expected a QMP monitor",
        "refused": "{command}: QEMU refused: {reason}",
        "no_answer": "{command}: QEMU did not answer in {timeout_s:g} s",
        "closed": "{command}: QEMU closed the connection",
        "wrong_answer": "{command}: QEMU's answer has another shape than its schema says. {detail}",
        "not_qmp": "{command}: QEMU sent something that is not QMP ({reason})",
        "migration_runs": (
            "a migration is {status}: its throttle decides how much the guest writes now. Measure "
            "before or after it"
        ),
        "migrated_meanwhile": (
            "a migration started while gpusim measured ({status}): its throttle slows the guest, so "
            "the measurement is dropped. Measure before or after it"
        ),
        "stopped_meanwhile": (
            "the VM was stopped while gpusim measured, so the measurement is dropped. Measure again "
            "while it runs"
        ),
        "measurement_runs": "another calc-dirty-rate is running. Try again when it has ended",
        "vm_stopped": "the VM does not run, so it writes nothing. Start it first (cont)",
        "no_ram": '"info ramblock" shows no RAM. Expected its table, got {answer}',
        "wrong_table": (
            '"{command}": line {line} is no row of the table that QEMU prints. Got {answer}'
        ),
        "no_memory_dump": '"xp" does not show memory. Expected its dump, got {answer}',
        "mode_needs_kvm": (
            "--mode {mode}: under TCG QEMU logs no writes for it and counts nothing. Expected "
            "page-sampling"
        ),
        "no_modes": (
            "QEMU {version}: its calc-dirty-rate takes no mode. Expected QEMU 6.2 or newer, or a "
            "recording of an earlier migration as a profile (gpusim-record --qmp)"
        ),
        "no_result": "calc-dirty-rate of {period_s:g} s has no result {late_s:.0f} s after its end",
        "other_measurement": "another client measured in between, in mode {mode}. Try again",
        "no_rate": (
            "calc-dirty-rate of {period_s:g} s failed in QEMU. Perhaps no RAM block is large "
            "enough to be sampled (128 KiB)"
        ),
    }


class NoAnswerError(LiveError):
    """QEMU runs, and did not answer in time."""


class MonitorClosedError(LiveError):
    """QEMU closed the connection: it ended, or was killed."""


class WrongAnswerError(LiveError):
    """QEMU's answer is not QMP, or has another shape than QEMU's schema says."""
