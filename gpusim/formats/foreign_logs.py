"""Which command reads a file that another reader refuses: a log of virsh, or answers of QEMU."""

from __future__ import annotations

import re
from typing import TypeVar

from gpusim.errors import CodedError

Refused = TypeVar("Refused", bound=CodedError)

_LOGS = (  # what only such a log holds, what it is, and the command for it
    (
        re.compile(r"^[ \t]*Job type:", re.M),
        "output of virsh domjobinfo",
        "gpusim-record --libvirt",
    ),
    (
        re.compile(r"^[ \t]*dirtyrate\.\w", re.M),
        "output of virsh domstats --dirtyrate",
        "gpusim-predict --domstats",
    ),
    (re.compile(r'"total-time"\s*:'), "output of query-migrate", "gpusim-record --answers"),
    (
        re.compile(r"^[ \t]*(?:kubevirt|libvirt)_\w+ *\{|\"resultType\"\s*:", re.M),
        "output of Prometheus",
        "gpusim-predict --fleet",
    ),
    (
        re.compile(r"^name[,;\t] ?memory[,;\t]", re.M | re.I),
        "a table of VMs",
        "gpusim-predict --fleet",
    ),
)


def hint_at_reader(text: str, own_command: str = "") -> str:
    """Return " This is the output of ... Type COMMAND FILE", or "" for a text of another kind.

    Args:
        text: of the file.
        own_command: the command that refuses the file, which is no hint.
    """
    for mark, source, command in _LOGS:
        if command != own_command and mark.search(text):
            return f". This is {source}. Type {command} FILE"
    return ""


def with_hint(error: Refused, text: str, own_command: str) -> Refused:
    """Return the error of a text with too few answers, with a hint if another command reads it."""
    if error.code != "too_few_answers":
        return error
    return type(error)(error.code, **error.data | {"hint": hint_at_reader(text, own_command)})
