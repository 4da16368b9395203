"""The commands that gpusim sends to QEMU's monitor, and the shape of each answer.

`Monitor` sends only the commands of its table. A VM of somebody else gets `QUERIES`, and for a
measurement `MEASURING`. Neither changes a setting. `OWN` is for a QEMU that gpusim started.
Source: QEMU 7.2, 10.0 and 11.1, qapi/migration.json, qapi/machine.json, qapi/machine-target.json,
qapi/misc.json, qapi/run-state.json and qapi/control.json.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, TypeAlias

from gpusim.formats.recording_shape import COUNTERS, KVM_ANSWER, PARAMETERS, SAMPLE, VERSION_ANSWER
from gpusim.shapes import Anything, Flag, Keys, Parsed, Rows, Shape, Text, Whole

Commands: TypeAlias = Mapping[str, Shape]
NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


def _parse_name(text: object) -> str:
    if not (isinstance(text, str) and NAME_PATTERN.fullmatch(text)):
        raise ValueError("this is no name")
    return text


NAME = Parsed(_parse_name, "must be a name of letters, digits, dots, hyphens and underscores")
NOTHING = Keys()
COUNT = Whole(0, 2**60)
MILLISECONDS = Whole(0, 10**12, " ms")
RAM = Keys(  # MigrationStats
    required={key: SAMPLE[key] for key in COUNTERS},
    optional={
        "dirty-pages-rate": COUNT,
        "mbps": SAMPLE["mbps"],
        "pages-per-second": COUNT,
    },
)
MIGRATION = Keys(  # MigrationInfo. A VM that never migrated answers {}.
    optional={
        "status": NAME,
        "total-time": MILLISECONDS,
        "setup-time": MILLISECONDS,
        "downtime": MILLISECONDS,
        "expected-downtime": Whole(0, 2**63 - 1, " ms"),  # 11.1: the highest if the rate is 0
        "cpu-throttle-percentage": SAMPLE["cpu-throttle-percentage"],
        "error-desc": Text(),
        "ram": RAM,
    }
)
DIRTY_RATE = Keys(  # DirtyRateInfo. The rate is in MiB/s, and -1 until a measurement succeeds.
    required={"status": NAME, "calc-time": COUNT},
    optional={"mode": NAME, "dirty-rate": Whole(-1, 2**60, " MiB/s")},
)

QUERIES: Commands = MappingProxyType(
    {
        "qmp_capabilities": NOTHING,
        "query-version": VERSION_ANSWER,
        "query-kvm": KVM_ANSWER,
        "query-status": Keys({"running": Flag()}),
        "query-cpus-fast": Rows(
            Keys({"thread-id": Whole(0, 2**31 - 1)}), "must be a list with a vCPU", 1
        ),
        "query-migrate": MIGRATION,
        "query-migrate-parameters": PARAMETERS,
        "query-migrate-capabilities": Rows(Keys({"capability": NAME, "state": Flag()})),
    }
)
MEASURING: Commands = MappingProxyType(
    {
        **QUERIES,
        "query-dirty-rate": DIRTY_RATE,
        "calc-dirty-rate": NOTHING,
        "human-monitor-command": Text(2**24),
    }
)
OWN: Commands = MappingProxyType(
    {
        **MEASURING,
        "migrate": NOTHING,
        "migrate_cancel": NOTHING,
        "migrate-set-capabilities": NOTHING,
        "migrate-set-parameters": NOTHING,
        "quit": NOTHING,
    }
)
HMP_LINE = re.compile(r"info ramblock|info mtree -f|xp /512gx 0x[0-9a-f]{1,16}")

EVENT = Keys(
    required={
        "event": NAME,
        "timestamp": Keys({"seconds": Whole(0, 2**40), "microseconds": Whole(0, 999_999)}),
    },
    optional={"data": NOTHING},
)
EVENT_DATA: Mapping[str, Keys] = MappingProxyType(
    {  # the events that gpusim reads, and the data that it keeps
        "MIGRATION": Keys({"status": NAME}),
        "MIGRATION_PASS": Keys({"pass": COUNT}),
        "STOP": NOTHING,
        "RESUME": NOTHING,
        "RESET": Keys(optional={"reason": NAME}),
        "SHUTDOWN": Keys(optional={"reason": NAME}),
    }
)
ERROR = Keys({"class": NAME, "desc": Text(2**24)})
GREETING = Keys({"QMP": Keys({"version": NOTHING, "capabilities": Rows(Anything())})})


def require_allowed(commands: Commands, name: str, arguments: Mapping[str, Any] | None) -> None:
    """Check that a command may be sent.

    Raises:
        ValueError: it may not. That is a bug of gpusim, not a user's mistake.
    """
    if name not in commands:
        raise ValueError(f"the command {name} is not in the table of this monitor")
    if name == "human-monitor-command":
        line = (arguments or {}).get("command-line", "")
        if not HMP_LINE.fullmatch(line):
            raise ValueError(f"the line {line!r} is not one that gpusim may send")
