"""A recording as virsh would print it: the logs that formats/recording_from_virsh.py reads.

docs/libvirt/ holds the output of `logs` for converges.qemu10.a. The numbers are those of a real
QEMU. The form follows libvirt's source. No libvirt was running.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

BEGAN_S = 1_700_000_000.0  # wall clock of the migrate command
LIBVIRT_S = 0.35  # of libvirt's own preparations, which its elapsed time counts
ANSWER_S = 0.03  # of one call of virsh
CASE = "converges.qemu10.a"
UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def logs(document: dict[str, Any], *, raw: bool = True, stamped: bool = False) -> tuple[str, str]:
    """Return the log of jobs and the log of events.

    Args:
        raw: domjobinfo was given --rawstats.
        stamped: qemu-monitor-event was given --timestamp.
    """
    lines = [json.dumps({"return": answer, "id": "libvirt-1"}) for answer in _answers(document)]
    total = (document["scenario"]["mem_mib"] * 256 + 129) * 4096  # with its small ROM blocks
    for row in document["samples"]:
        if "transferred" in row:
            done = row["status"] == "completed"
            at = BEGAN_S + row["t"]
            job = _raw(row, total, done) if raw else _words(row, total, done)
            lines += [f"{at - ANSWER_S / 2:.9f}", *job, "", f"{at + ANSWER_S / 2:.9f}"]
    events = [_event(at, name, data, stamped) for at, name, data in _qmp_events(document)]
    return "\n".join([*lines, ""]), "\n".join([*events, f"events received: {len(events)}", ""])


def _answers(document: dict[str, Any]) -> list[Any]:
    on = [*document["scenario"]["capabilities"], "events"]
    names = sorted({*on, "multifd", "xbzrle"})
    return [
        {"qemu": document["qemu"], "package": "Debian"},
        {"enabled": False, "present": True},
        [{"cpu-index": 0, "qom-path": "/machine/unattached/device[0]"}],
        [{"capability": name, "state": name in on} for name in names],
        document["parameters"],
    ]


def _raw(row: dict[str, Any], total: int, done: bool) -> list[str]:
    fields = {
        "operation": "Outgoing migration",
        "time_elapsed": row["total-time"] + round(1000 * LIBVIRT_S),
        "memory_total": total,
        "memory_processed": row["transferred"],
        "memory_remaining": row["remaining"],
        "memory_bps": round(row["mbps"] * 1e6 / 8),
        "memory_dirty_rate": row["dirty-pages-rate"],
        "memory_iteration": row["dirty-sync-count"],
        "memory_page_size": 4096,
        "memory_constant": row["duplicate"],
        "memory_normal": row["normal"],
        "memory_normal_bytes": row["normal"] * 4096,
        "downtime": row["downtime"] if done else row["expected-downtime"],
        "setup_time": row["setup-time"],
    }
    if "cpu-throttle-percentage" in row:
        fields["auto_converge_throttle"] = row["cpu-throttle-percentage"]
    return [
        f"Job type: {3 if done else 2}",
        "",
        *(f"{key}: {held}" for key, held in fields.items()),
    ]


def _words(row: dict[str, Any], total: int, done: bool) -> list[str]:
    fields = {
        "Job type:": "Completed" if done else "Unbounded",
        "Time elapsed:": f"{row['total-time'] + round(1000 * LIBVIRT_S):<12} ms",
        "Data processed:": _size(row["transferred"]),
        "Data remaining:": _size(row["remaining"]),
        "Data total:": _size(total),
        "Memory processed:": _size(row["transferred"]),
        "Memory remaining:": _size(row["remaining"]),
        "Memory total:": _size(total),
        "Memory bandwidth:": f"{_size(round(row['mbps'] * 1e6 / 8))}/s",
        "Dirty rate:": f"{row['dirty-pages-rate']:<12} pages/s",
        "Iteration:": f"{row['dirty-sync-count']:<12}",
        "Constant pages:": f"{row['duplicate']:<12}",
        "Normal pages:": f"{row['normal']:<12}",
        "Normal data:": _size(row["normal"] * 4096),
        ("Total" if done else "Expected") + " downtime:": (
            f"{row['downtime'] if done else row['expected-downtime']:<12} ms"
        ),
        "Setup time:": f"{row['setup-time']:<12} ms",
    }
    if "cpu-throttle-percentage" in row:
        fields["Auto converge throttle:"] = f"{row['cpu-throttle-percentage']:<13}"
    return [f"{name:<17} {held:<12}" for name, held in fields.items()]


def _size(number: float) -> str:
    unit = 0
    while number >= 1024:
        number, unit = number / 1024, unit + 1
    return f"{number:.3f} {UNITS[unit]}"


def _qmp_events(document: dict[str, Any]) -> list[tuple[float, str, dict[str, Any]]]:
    """Return the events that QMP sent, or would send, from the trace of the recording."""
    if document["qemu"]["major"] >= 11:  # it sends no event for some syncs
        return [(at, name, data) for at, name, data in document["qmp_events"]]
    found: list[tuple[float, str, dict[str, Any]]] = []
    passes = 0
    for at, name, arguments in document["events"]:
        if name == "migrate_set_state":
            found.append((at, "MIGRATION", {"status": arguments.removeprefix("new state ")}))
        elif name == "migration_bitmap_sync_end":
            passes += 1
            found.append((at, "MIGRATION_PASS", {"pass": passes}))
        elif name == "migration_completion_vm_stop":
            found.append((at, "STOP", {}))
    return found


def _event(at: float, name: str, data: dict[str, Any], stamped: bool) -> str:
    details = json.dumps(data, separators=(",", ":")) if data else "<null>"
    if stamped:
        clock = datetime.fromtimestamp(BEGAN_S + at, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
        return f"{clock}+0000: event {name} for domain 'guest': {details}"
    return f"event {name} at {BEGAN_S + at:.6f} for domain 'guest': {details}"
