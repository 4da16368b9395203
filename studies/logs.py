"""`python -m studies.logs` writes docs/logs/: simulated migrations in the shape that each tool prints.

No line is from a real host. The texts are those of the tools' source code, which the module that reads
each kind names. Two migrations of an 8 GiB VM on a 1 Gbit/s link are printed: one whose guest dirties
less than the link carries, and one whose guest dirties more.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from gpusim.config.schema import (
    BackendConfig,
    Config,
    LimitConfig,
    LinkConfig,
    MigrationConfig,
    VmConfig,
    WriterConfig,
)
from gpusim.units import GIB, MIB
from tests.formats.answers import answers_of

FOLDER = Path(__file__).parents[1] / "docs" / "logs"
START = datetime(2026, 11, 28, 9, 30, 0, tzinfo=UTC)
UID = "6f1d2a57-0c7e-4e0b-9d3a-51a2b7c9e4f0"
VM = 104
PAGE_BYTES = 4096
CALM, BUSY = 6_000, 60_000  # page writes per second
LIMIT_S = 150
Answer = Mapping[str, Any]


def config(page_writes_per_s: int) -> Config:
    """Return the migration that all files show."""
    return Config(
        vm=VmConfig(memory=8 * GIB, vcpus=4, zero_percent=25),
        workload=WriterConfig(working_set=3 * GIB, page_writes_per_s=page_writes_per_s),
        link=LinkConfig(bandwidth="1Gbit/s"),
        migration=MigrationConfig(max_bandwidth=0, auto_converge=False),
        backend=BackendConfig(name="numpy", threads=1),
        limit=LimitConfig(simulated=f"{LIMIT_S}s"),
        plot=False,
    )


def files() -> Iterator[tuple[str, str]]:
    """Yield the name and the text of each file."""
    _, calm = answers_of(config(CALM), 1.0)
    _, busy = answers_of(config(BUSY), 1.0)
    yield "qmp.log", qmp([*calm[:-1:2], calm[-1]])
    yield "query-migrate.json", json.dumps({"return": busy[119]}, indent=2) + "\n"
    yield "domjobinfo.txt", domjobinfo(busy[119])
    yield "info-migrate.txt", info_migrate(busy[119])
    yield "info-migrate-10.1.txt", info_migrate_10_1(busy[119])
    yield "virt-launcher.log", "".join(virt_launcher(calm[3::4], "Live migration succeeded."))
    yield (
        "virt-launcher-aborted.log",
        "".join(
            virt_launcher(
                busy[3::4],
                "Live migration abort detected with reason: Live migration is not completed after 150 "
                "seconds and has been aborted",
            )
        ),
    )
    yield "vdsm.log", "".join(vdsm(busy[9::10]))
    yield "nova-compute.log", "".join(nova(busy[::30]))
    yield "proxmox-task.log", "".join(proxmox(busy))
    yield "guestperf.json", guestperf(calm)


def ram(answer: Answer) -> Mapping[str, Any]:
    found: Mapping[str, Any] = answer["ram"]
    return found


def qmp(answers: Sequence[Answer]) -> str:
    """Return a QMP log: greeting, answers to other queries, events and answers to query-migrate."""
    rows: list[object] = [
        {"QMP": {"version": {"qemu": {"micro": 2, "minor": 2, "major": 9}, "package": ""}}},
        {"return": {}},
        {"return": {"qemu": {"micro": 2, "minor": 2, "major": 9}, "package": ""}},
        {"return": {"enabled": True, "present": True}},
        {"return": [{"capability": "auto-converge", "state": False}]},
        {"return": {"max-bandwidth": 0, "downtime-limit": 300}},
        {"return": {}},
    ]
    passes = 0
    for answer in answers:
        if (count := ram(answer)["dirty-sync-count"]) > passes:
            passes = count
            seconds = int(START.timestamp()) + answer["total-time"] // 1000
            stamp = {"seconds": seconds, "microseconds": 0}
            rows.append({"timestamp": stamp, "event": "MIGRATION_PASS", "data": {"pass": count}})
        rows.append({"return": answer})
    return "".join(json.dumps(row) + "\n" for row in rows)


def size(value: int) -> str:
    """Return a size as virsh prints it."""
    for unit, bytes_ in (("GiB", GIB), ("MiB", MIB), ("KiB", 1024)):
        if value >= bytes_:
            return f"{value / bytes_:.3f} {unit}"
    return f"{value:.3f} B"


def domjobinfo(answer: Answer) -> str:
    found = ram(answer)
    rows = [
        ("Job type:", "Unbounded"),
        ("Operation:", "Outgoing migration"),
        ("Time elapsed:", f"{answer['total-time']:<12} ms"),
        ("Data processed:", size(found["transferred"])),
        ("Data remaining:", size(found["remaining"])),
        ("Data total:", size(found["total"])),
        ("Memory processed:", size(found["transferred"])),
        ("Memory remaining:", size(found["remaining"])),
        ("Memory total:", size(found["total"])),
        ("Memory bandwidth:", f"{size(round(found['mbps'] * 1e6 / 8))}/s"),
        ("Dirty rate:", f"{found['dirty-pages-rate']:<12} pages/s"),
        ("Page size:", f"{PAGE_BYTES:<12} bytes"),
        ("Iteration:", f"{found['dirty-sync-count']:<12}"),
        ("Postcopy requests:", f"{0:<12}"),
        ("Constant pages:", f"{found['duplicate']:<12}"),
        ("Normal pages:", f"{found['normal']:<12}"),
        ("Normal data:", size(found["normal"] * PAGE_BYTES)),
        ("Expected downtime:", f"{300:<12} ms"),
        ("Setup time:", f"{5:<12} ms"),
    ]
    return "".join(f"{label:<17} {value}\n" for label, value in rows) + "\n"


def info_migrate(answer: Answer) -> str:
    """Return the output of HMP's info migrate up to QEMU 10.0."""
    found = ram(answer)
    return f"""\
globals:
store-global-state: on
only-migratable: off
send-configuration: on
send-section-footer: on
send-switchover-start: on
clear-bitmap-shift: 18
Migration status: {answer["status"]}
total time: {answer["total-time"]} ms
expected downtime: 300 ms
setup: 5 ms
transferred ram: {found["transferred"] >> 10} kbytes
throughput: {found["mbps"]:.2f} mbps
remaining ram: {found["remaining"] >> 10} kbytes
total ram: {found["total"] >> 10} kbytes
duplicate: {found["duplicate"]} pages
normal: {found["normal"]} pages
normal bytes: {found["normal"] * 4} kbytes
dirty sync count: {found["dirty-sync-count"]}
page size: 4 kbytes
multifd bytes: 0 kbytes
pages-per-second: 28000
dirty pages rate: {found["dirty-pages-rate"]} pages
precopy ram: {found["transferred"] >> 10} kbytes
"""


def short_size(value: int) -> str:
    """Return a size as QEMU's size_to_str does, with three digits."""
    for unit, bytes_ in (("GiB", GIB), ("MiB", MIB), ("KiB", 1024)):
        if value >= bytes_:
            return f"{value / bytes_:.3g} {unit}"
    return f"{value} B"


def info_migrate_10_1(answer: Answer) -> str:
    """Return the output of HMP's info migrate -a since QEMU 10.1."""
    found = ram(answer)
    sent = short_size(found["transferred"])
    return f"""\
Status: \t\t{answer["status"]}
Time (ms): \t\ttotal={answer["total-time"]}, setup=5, exp_down=300
RAM info:
  Throughput (Mbps): \t{found["mbps"]:.2f}
  Sizes: \t\tpagesize=4 KiB, total={short_size(found["total"])}
  Transfers: \t\ttransferred={sent}, remain={short_size(found["remaining"])}
    Channels: \t\tprecopy={sent}, multifd=0 B, postcopy=0 B
    Page Types: \tnormal={found["normal"]}, zero={found["duplicate"]}
  Page Rates (pps): \ttransfer=28000, dirty={found["dirty-pages-rate"]}
  Others: \t\tdirty_syncs={found["dirty-sync-count"]}
"""


def virt_launcher(answers: Sequence[Answer], end: str) -> Iterator[str]:
    for answer in answers:
        if answer["status"] != "active":
            continue
        found = ram(answer)
        sent, left, total = (found[key] // MIB for key in ("transferred", "remaining", "total"))
        yield _launcher_line(
            answer["total-time"] / 1000,
            f"Migration info for {UID}: TimeElapsed:{answer['total-time']}ms "
            f"DataProcessed:{sent}MiB DataRemaining:{left}MiB DataTotal:{total}MiB "
            f"MemoryProcessed:{sent}MiB MemoryRemaining:{left}MiB MemoryTotal:{total}MiB "
            f"MemoryBandwidth:{found['mbps']:.0f}Mbps "
            f"DirtyRate:{found['dirty-pages-rate'] * PAGE_BYTES * 8 // 1_000_000}Mbps "
            f"Iteration:{found['dirty-sync-count']} PostcopyRequests:0 "
            f"ConstantPages:{found['duplicate']} NormalPages:{found['normal']} "
            f"NormalData:{found['normal'] * PAGE_BYTES // MIB}MiB ExpectedDowntime:300ms "
            "DiskMbps:0",
        )
    yield _launcher_line(answers[-1]["total-time"] / 1000 + 0.4, end)


def _launcher_line(seconds: float, message: str) -> str:
    stamp = (START + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    line = {
        "component": "virt-launcher",
        "kind": "",
        "level": "info",
        "msg": message,
        "name": "db",
        "namespace": "default",
        "pos": "live-migration-source.go:763",
        "timestamp": stamp,
        "uid": "b1c2d3e4-0000-4000-8000-000000000000",
    }
    return json.dumps(line, separators=(",", ":")) + "\n"


def vdsm(answers: Sequence[Answer]) -> Iterator[str]:
    limits = iter((150, 200, 300, 400, 500))
    iteration = 1

    def line(level: str, thread: str, text: str, seconds: float) -> str:
        at = (START + timedelta(seconds=seconds)).strftime("%Y-%m-%d %H:%M:%S,%f")[:-3]
        return f"{at}+0000 {level} ({thread}) [virt.vm] (vmId='{UID}') {text} (migration:735)\n"

    yield line("DEBUG", "migmon/6f1d2a57", "Setting downtime to 100", 0)
    for answer in answers:
        found, seconds = ram(answer), answer["total-time"] / 1000
        if found["dirty-sync-count"] > iteration:
            iteration = found["dirty-sync-count"]
            limit = next(limits, None)
            text = "Aborting migration" if limit is None else f"Setting downtime to {limit}"
            level = "WARN" if limit is None else "DEBUG"
            yield line(level, "migmon/6f1d2a57", text, seconds)
            if limit is None:
                break
        percent = max(0, 100 - 100 * found["remaining"] // found["total"])
        yield line(
            "INFO",
            "migmon/6f1d2a57",
            f"Migration Progress: {seconds} seconds elapsed, {percent}% of data processed, "
            f"total data: {found['total'] // MIB}MB, "
            f"processed data: {found['transferred'] // MIB}MB, "
            f"remaining data: {found['remaining'] // MIB}MB, "
            f"transfer speed {found['mbps'] * 1e6 / MIB:.0f}Mbps, "
            f"zero pages: {found['duplicate']}MB, compressed: 0MB, "
            f"dirty rate: {found['dirty-pages-rate']}, "
            f"memory iteration: {found['dirty-sync-count']}",
            seconds,
        )
    yield line("ERROR", "migsrc/6f1d2a57", "Failed to migrate", answers[-1]["total-time"] / 1000)


def nova(answers: Sequence[Answer]) -> Iterator[str]:
    def line(level: str, text: str, seconds: float) -> str:
        at = (START + timedelta(seconds=seconds)).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
        return f"{at} 4711 {level} nova.virt.libvirt.driver [-] [instance: {UID}] {text}\n"

    limits = iter(((50, 0), (95, 75), (140, 150)))
    limit = next(limits, None)
    for answer in answers:
        found, seconds = ram(answer), answer["total-time"] // 1000
        while limit is not None and limit[1] <= seconds:
            text = f"Increasing downtime to {limit[0]} ms after {limit[1]} sec elapsed time"
            yield line("INFO", text, limit[1])
            limit = next(limits, None)
        left, total = found["remaining"], found["total"]
        yield line(
            "INFO",
            f"Migration running for {seconds} secs, memory {round(100 * left / total)}% remaining "
            f"(bytes processed={found['transferred']}, remaining={left}, total={total}); "
            "disk 100% remaining (bytes processed=0, remaining=0, total=0).",
            seconds,
        )
    yield line("WARNING", "Migration operation was cancelled", LIMIT_S)


def proxmox(answers: Sequence[Answer]) -> Iterator[str]:
    def line(text: str, seconds: float) -> str:
        return f"{(START + timedelta(seconds=seconds)):%Y-%m-%d %H:%M:%S} {text}\n"

    def bytes_text(value: float) -> str:
        for unit, bytes_ in (("GiB", GIB), ("MiB", MIB), ("KiB", 1024)):
            if value >= bytes_:
                return f"{value / bytes_:.1f} {unit}"
        return f"{value:.1f} B"

    yield line(f"starting migration of VM {VM} to node 'pve2' (10.20.0.12)", -6)
    yield line(f"starting VM {VM} on remote node 'pve2'", -6)
    yield line("start remote tunnel", -2)
    yield line("starting online/live migration on unix:/run/qemu-server/104.migrate", 0)
    yield line("set migration capabilities", 0)
    yield line("migration downtime limit: 100 ms", 0)
    yield line("migration cachesize: 1.0 GiB", 0)
    yield line("set migration parameters", 0)
    yield line("start migrate command to unix:/run/qemu-server/104.migrate", 0)
    limit_ms, rises, left = 100, 0, 0
    for answer in answers:
        found, seconds = ram(answer), answer["total-time"] / 1000
        speed = found["mbps"] * 1e6 / 8
        dirty = found["dirty-pages-rate"] * PAGE_BYTES
        text = (
            f"migration active, transferred {bytes_text(found['transferred'])} of "
            f"{bytes_text(found['total'])} VM-state, {bytes_text(speed)}/s"
        )
        if dirty > speed:
            text += f", VM dirties lots of memory: {bytes_text(dirty)}/s"
        yield line(text, seconds)
        rises += left > 0 and found["remaining"] > left
        left = found["remaining"]
        if rises > 5:
            rises, limit_ms = 0, 2 * limit_ms
            text = f"auto-increased downtime to continue migration: {limit_ms} ms"
            yield line(text, seconds)
    yield line("migration status error: cancelled", LIMIT_S)
    yield line("ERROR: online migrate failure - aborting", LIMIT_S)
    yield line("aborting phase 2 - cleanup resources", LIMIT_S)
    yield line("migrate_cancel", LIMIT_S)
    yield line("ERROR: migration finished with problems (duration 00:02:38)", LIMIT_S + 2)
    yield "TASK ERROR: migration problems\n"


def guestperf(answers: Sequence[Answer]) -> str:
    """Return a report of guestperf: one record per dirty-sync-count, and the last one."""
    history, seen = [], 0
    for answer in answers:
        found = ram(answer)
        if found["dirty-sync-count"] == seen and answer["status"] == "active":
            continue
        seen = found["dirty-sync-count"]
        history.append(
            {
                "status": answer["status"],
                "ram": {
                    "transferred_bytes": found["transferred"],
                    "remaining_bytes": found["remaining"],
                    "total_bytes": found["total"],
                    "duplicate_pages": found["duplicate"],
                    "skipped_pages": 0,
                    "normal_pages": found["normal"],
                    "normal_bytes": found["normal"] * PAGE_BYTES,
                    "dirty_rate_pps": found.get("dirty-pages-rate", 0),
                    "transfer_rate_mbs": found["mbps"],
                    "iterations": seen,
                },
                "now": START.timestamp() + answer["total-time"] / 1000,
                "duration": answer["total-time"],
                "downtime": answer.get("downtime", 0),
                "downtime_expected": 300,
                "setup_time": 5,
                "throttle_pcent": answer.get("cpu-throttle-percentage", 0),
            }
        )
    report = {
        "hardware": {"cpus": 4, "mem": 8},
        "scenario": {
            "name": "calm",
            "downtime": 300,
            "bandwidth": 125000,
            "max_iters": 30,
            "max_time": 300,
            "auto_converge": False,
            "auto_converge_step": 10,
            "compression_xbzrle": False,
            "multifd": False,
            "multifd_channels": 2,
            "post_copy": False,
        },
        "progress_history": history,
        "guest_timings": {"records": []},
        "qemu_timings": {"records": []},
        "vcpu_timings": {"records": []},
        "binary": "/usr/bin/qemu-system-x86_64",
        "dst_host": "localhost",
        "kernel": "/boot/vmlinuz",
        "initrd": "initrd-stress.img",
        "transport": "tcp",
        "sleep": 15,
    }
    return json.dumps(report, indent=1) + "\n"


def main(write: Callable[[Path, str], object] = Path.write_text) -> None:
    """Write all files."""
    FOLDER.mkdir(exist_ok=True)
    for name, text in files():
        write(FOLDER / name, text)


if __name__ == "__main__":
    main()
