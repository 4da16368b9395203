"""What kind of file an operator holds, by its content. It reads no values.

The marks are what only such a file prints. Their sources are named in the module that reads the kind.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from gpusim.formats.errors import IntakeError
from gpusim.formats.fleet_csv import has_header
from gpusim.formats.pasted_text import read_pasted
from gpusim.reading import ReadingError
from gpusim.text import join_words


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes:
        code: a stable name.
        name: what the file is, for people.
        mark: what only such a file holds.
        words: a text with the mark has one of them. They are found faster in a long text.
    """

    code: str
    name: str
    mark: re.Pattern[str]
    words: tuple[str, ...]

    def fits(self, text: str) -> bool:
        """Return whether a text holds the mark."""
        return any(word in text for word in self.words) and self.mark.search(text) is not None


def _kind(code: str, name: str, mark: str, *words: str) -> Kind:
    return Kind(code, name, re.compile(mark, re.MULTILINE | re.ASCII), words)


PROFILE = _kind(
    "profile",
    "a profile",
    r'^[ \t]*(?:memory|measurements|vcpus)[ \t]*:|"(?:memory|measurements)"[ \t\n]*:',
    "memory",
    "measurements",
    "vcpus",
)
# Logs of one line or block per progress report. One file holds one of them.
LOGS = (
    _kind(
        "virt_launcher",
        "a log of KubeVirt's virt-launcher",
        r"Migration info for [\w-]{0,80}: ?TimeElapsed:",
        "Migration info for ",
    ),
    _kind(
        "vdsm",
        "a log of oVirt's vdsm",
        r"Migration Progress: [0-9.]{1,20} seconds elapsed",
        "Migration Progress: ",
    ),
    _kind(
        "nova",
        "a log of nova-compute",
        r"Migration running for [0-9]{1,12} secs",
        "Migration running for ",
    ),
    _kind(
        "proxmox",
        "a migration task log of Proxmox VE",
        r"migration active, transferred |migration status: active \(transferred "
        r"|starting migration of VM [0-9]{1,12} to node ",
        "migration ",
    ),
    _kind(
        "domstats", "output of virsh domstats --dirtyrate", r"^[ \t]*dirtyrate\.\w", "dirtyrate."
    ),
    _kind("domjobinfo", "output of virsh domjobinfo", r"^[ \t]*Job type:", "Job type:"),
    _kind(
        "hmp",
        "output of QEMU's info migrate",
        r"^[ \t]*(?:Migration status: |transferred ram: |Transfers:[ \t]*transferred=)",
        "Migration status: ",
        "transferred ram: ",
        "Transfers:",
    ),
)
# One JSON value, or several of them. The first kind that fits counts.
DOCUMENTS = (
    _kind(
        "guestperf",
        "a report of QEMU's guestperf",
        r'"progress_history"[ \t\n]*:',
        '"progress_history"',
    ),
    _kind(
        "recording",
        "a recording of gpusim-record",
        r'"(?:scenario|writes_per_s_before|qmp_events)"[ \t\n]*:',  # keys may be cut out of it
        '"scenario"',
        '"writes_per_s_before"',
        '"qmp_events"',
    ),
    PROFILE,
    _kind("answers", "answers of query-migrate", r'"total-time"[ \t\n]*:', '"total-time"'),
)
# Text or JSON of Prometheus, which gpusim-predict --fleet reads. Source: formats/fleet.py.
METRICS = re.compile(
    r'^[ \t]*(?:# (?:HELP|TYPE) \w|(?:kubevirt|libvirt)_[\w:]{1,80} *[{0-9])|"resultType"[ \t\n]*:',
    re.MULTILINE | re.ASCII,
)
# Logs of the same tools, and what a line of a migration looks like in them.
TOOLS = (
    (
        re.compile(r'"component":"virt-launcher"'),
        "a log of KubeVirt's virt-launcher",
        "Migration info for UID: TimeElapsed:4000ms ... (in the pod that the VM leaves)",
    ),
    (
        re.compile(r"\bnova\.(?:compute|virt)\b"),
        "a log of nova-compute",
        "Migration running for 31 secs, memory 50% remaining ... (on the host that the VM leaves)",
    ),
    (
        re.compile(r"\[virt\.vm\]|::vm\.Vm::|::virt\.vm::"),
        "a log of oVirt's vdsm",
        "Migration Progress: 10 seconds elapsed ... (on the host that the VM leaves)",
    ),
    (
        re.compile(r"^TASK (?:OK|ERROR)", re.MULTILINE),
        "a task log of Proxmox VE",
        "migration active, transferred 1.0 GiB of 8.0 GiB VM-state, 119.2 MiB/s",
    ),
    (
        re.compile(
            r'\A[{\s]*"return"\s*:\s*\{\s*(?:"blocked"\s*:\s*false|"status"\s*:\s*"none")?\s*\}'
        ),
        "an answer of query-migrate",
        '"status": "active", "total-time": 120000 ... (while the VM migrates, or after it)',
    ),
)
BESIDE = {"domjobinfo": ("answers", "recording")}  # a log of virsh begins with answers of QEMU
READ = (
    "a profile, a recording, answers of query-migrate, virsh domjobinfo or domstats --dirtyrate, "
    "info migrate, a guestperf report, or a log of virt-launcher, vdsm, nova-compute or Proxmox VE"
)


def find_kind(path: Path, text: str) -> Kind:
    """Return what kind of file a text is from.

    Args:
        path: for errors.
        text: of the file.

    Raises:
        IntakeError: it is none of the kinds, or two of them.
    """
    if not text.strip():
        raise IntakeError("empty", path=path, known=READ)
    logs = [one for one in LOGS if one.fits(text)]
    document = next((one for one in DOCUMENTS if one.fits(text)), None)
    # Lines of a log may begin with a word that is a key of a profile.
    if (
        logs
        and document not in (None, PROFILE)
        and document.code not in BESIDE.get(logs[0].code, ())
    ):
        logs.append(document)
    if len(logs) > 1:
        raise IntakeError("mixed", path=path, kinds=join_words([one.name for one in logs]))
    found = logs[0] if logs else document
    if found is None and (METRICS.search(text) or has_header(text)):
        raise IntakeError("fleet", path=path)
    if found is None:
        for mark, name, line in TOOLS:
            if mark.search(text):
                raise IntakeError("no_progress", path=path, kind=name, line=line)
        raise IntakeError("unknown_kind", path=path, known=READ)
    return found


def read_log(path: Path) -> str:
    """Return the text of a file, without what stands around the lines of a log.

    Raises:
        IntakeError: it cannot be read.
    """
    try:
        return read_pasted(path)
    except ReadingError as error:
        code = "too_large" if error.code.startswith("too_large") else "unreadable"
        raise IntakeError(code, path=path, reason=error.reason, known=READ) from None
