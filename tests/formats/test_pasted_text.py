"""Is a log read as its tool wrote it, whatever a terminal, a collector or a copy put around its lines?"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from gpusim.formats.intake import Intake, read_intake
from gpusim.formats.migration_log import MigrationLog
from gpusim.formats.pasted_text import clean
from tests.cli.command import REPOSITORY

FOLDER = REPOSITORY / "docs" / "logs"
LOGS = sorted(path.name for path in FOLDER.iterdir())
ONE_OF_EACH = sorted({*LOGS} - {"info-migrate-10.1.txt", "virt-launcher-aborted.log"})
Change = Callable[[str], str]


def per_line(change: Callable[[int, str], str]) -> Change:
    return lambda text: "\n".join(change(n, line) for n, line in enumerate(text.split("\n")))


AROUND: dict[str, Change] = {
    "journald": per_line(lambda n, line: f"Nov 28 09:30:{n % 60:02} host7 app[4711]: {line}"),
    "syslog": per_line(lambda n, line: f"2026-11-28T09:30:{n % 60:02}.123+00:00 h app[1]: {line}"),
    "kubectl": per_line(lambda n, line: f"2026-11-28T09:30:{n % 60:02}.123456789Z {line}"),
    "kubelet": per_line(lambda n, line: f"2026-11-28T09:30:{n % 60:02}.1+00:00 stdout F {line}"),
    "pods": per_line(lambda n, line: f"[pod/virt-launcher-db-x/compute] {line}"),
    "compose": per_line(lambda n, line: f"app-1  | {line}"),
    "docker": per_line(lambda n, line: json.dumps({"log": line + "\n", "stream": "stdout"})),
    "journal as JSON": per_line(lambda n, line: json.dumps({"MESSAGE": line, "_PID": "1"})),
    "mail": per_line(lambda n, line: f"> {line}"),
    "grep -n": per_line(lambda n, line: f"{n + 1}:{line}"),
    "grep of files": per_line(lambda n, line: f"/var/log/a.log:{line}"),
    "colours": per_line(lambda n, line: f"\x1b[00;36m{line}\x1b[0m" if line else line),
    "coloured words": per_line(
        lambda n, line: " ".join(f"\x1b[32m{word}\x1b[0m" for word in line.split(" "))
    ),
    "rsyslog's colours": per_line(lambda n, line: f"#033[01;31m{line}#033[00m" if line else line),
    "no-break spaces": lambda text: text.replace(" ", "\u00a0"),
    "indented": per_line(lambda n, line: f"    {line}"),
    "a fence": lambda text: f"```\n{text}\n```\n",
    "a prompt": lambda text: f"root@host:~# cat log\n{text}\nroot@host:~# \n",
    "windows": lambda text: text.replace("\n", "\r\n"),
    "zeros of a rotation": lambda text: "\0" * 4096 + text,
    "two layers": per_line(lambda n, line: f"> 2026-11-28T09:30:{n % 60:02}Z {line}"),
}


def told(found: Intake) -> tuple[object, ...]:
    log = found.log
    assert isinstance(log, MigrationLog)
    return found.kind.code, log.reports, log.outcome, log.seconds, log.limits, log.downtime_ms


@pytest.mark.parametrize("around", AROUND)
@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_what_stands_around_a_log_changes_nothing(tmp_path: Path, name: str, around: str) -> None:
    path = tmp_path / "log"
    path.write_text(AROUND[around]((FOLDER / name).read_text()), newline="")
    assert told(read_intake(path)) == told(read_intake(FOLDER / name))


@pytest.mark.parametrize("name", LOGS)
def test_windows_and_latin_bytes_are_read(tmp_path: Path, name: str) -> None:
    text = (FOLDER / name).read_text()
    whole = told(read_intake(FOLDER / name))
    for suffix, content in (
        ("powershell", text.encode("utf-16")),
        ("cut", text.encode("utf-16") + b"x"),
        ("bom", text.encode("utf-8-sig")),
        ("log.gz", gzip.compress(text.encode())),
    ):
        path = tmp_path / f"x.{suffix}"
        path.write_bytes(content)
        assert told(read_intake(path)) == whole, suffix
    path.write_bytes(gzip.compress(b"# caf\xe9\n" + text.encode()))
    assert told(read_intake(path)) == whole


LINES = tuple(name for name in LOGS if name.endswith(".log"))
STAMPED = tuple(name for name in LINES if name != "qmp.log")


def reversed_lines(text: str) -> list[str]:
    return list(reversed(text.splitlines()))


def kibana(lines: list[str]) -> str:
    rows = [
        f'"Nov 28, 2026 @ 09:{59 - n // 60:02}:{59 - n % 60:02}.000","{line.replace(chr(34), chr(34) * 2)}"'
        for n, line in enumerate(lines)
    ]
    return "\n".join(['"@timestamp",message', *rows])


def grafana(lines: list[str]) -> str:
    head = 'Common labels: {"app":"db"}\nLine limit: 1000\n\n'
    stamps = (f"2026-11-28T09:{59 - n // 60:02}:{59 - n % 60:02}.000Z" for n in range(len(lines)))
    return head + "\n".join(f"{one}\t{line}" for one, line in zip(stamps, lines, strict=True))


NEWEST_FIRST: dict[str, Callable[[list[str]], str]] = {
    "lines": "\n".join,
    "Kibana's CSV": kibana,
    "Grafana's text": grafana,
    "Grafana's JSON": lambda lines: json.dumps(
        [{"line": one, "id": "1"} for one in lines], indent=1
    ),
    "Loki": lambda lines: json.dumps(
        {"data": {"resultType": "streams", "result": [{"values": [["1", one] for one in lines]}]}}
    ),
    "Elastic": lambda lines: json.dumps(
        {"hits": {"hits": [{"_source": {"message": one}} for one in lines]}}
    ),
    "journalctl -r": lambda lines: "\n".join(
        f"Nov 28 09:{59 - n // 60:02}:{59 - n % 60:02} host7 app[4711]: {line}"
        for n, line in enumerate(lines)
    ),
    "journalctl -r -o json": lambda lines: "\n".join(json.dumps({"MESSAGE": one}) for one in lines),
    "Proxmox VE's API": lambda lines: json.dumps(
        {"data": [{"n": n, "t": one} for n, one in enumerate(lines)]}
    ),
}


@pytest.mark.parametrize("around", NEWEST_FIRST)
@pytest.mark.parametrize("name", LINES)
def test_a_viewer_may_export_the_newest_line_first(tmp_path: Path, name: str, around: str) -> None:
    path = tmp_path / "log"
    path.write_text(NEWEST_FIRST[around](reversed_lines((FOLDER / name).read_text())))
    assert told(read_intake(path)) == told(read_intake(FOLDER / name))


def test_a_cell_of_csv_keeps_its_lines() -> None:
    assert clean('time,message\n1,"Job type: Unbounded\nTime elapsed: 5 ms"\n') == (
        "Job type: Unbounded\nTime elapsed: 5 ms"
    )


@pytest.mark.parametrize("name", STAMPED)
def test_stamps_tell_the_order_of_few_lines(tmp_path: Path, name: str) -> None:
    path, newest = tmp_path / "log", tmp_path / "newest"
    lines = (FOLDER / name).read_text().splitlines()
    lines = [*lines[:1], *lines[-3:]] if name != "proxmox-task.log" else [*lines[:11], *lines[-3:]]
    path.write_text("\n".join(lines))
    newest.write_text("\n".join(reversed(lines)))
    assert told(read_intake(newest)) == told(read_intake(path))


@pytest.mark.parametrize("name", LOGS)
def test_two_logs_in_the_right_order_stay(name: str) -> None:
    text = (FOLDER / name).read_text()
    assert clean(text + text) == 2 * clean(text)


BACK_TWICE = [*"99", *"88", *"77", *"7" * 200]


@pytest.mark.parametrize(
    "lines",
    [
        [one for n in (9, 8, 7) for one in (f"2026-11-28 09:30:0{n}", "a: 1", "b: 2")],
        [f"2026-11-28 09:30:0{n} line{i}" for i, n in enumerate(BACK_TWICE)]
        + [f"2026-11-28 09:31:{n:02} next{n}" for n in range(60)],
    ],
    ids=["several lines per stamp", "a clock that is set back at first"],
)
def test_lines_stay_in_order(lines: list[str]) -> None:
    kept = [line.split()[-1] for line in clean("\n".join(lines)).split("\n")]
    assert kept == [line.split()[-1] for line in lines]


VDSM = (
    "2026-11-28 09:30:{:02} INFO Migration Progress: {} seconds elapsed, {}% of data processed, total "
    "data: 8192MB, processed data: {}MB, remaining data: {}MB, transfer speed 100MBps, zero pages: "
    "10MB, compressed: 0MB, dirty rate: 5, memory iteration: 2"
)
NOVA = (
    "2026-11-28 09:30:{:02}.123 INFO nova.virt.libvirt.driver Migration running for {} secs, memory "
    "{}% remaining (bytes processed=1000000, remaining=2000000, total=8000000)"
)


@pytest.mark.parametrize(
    "lines",
    [
        [VDSM.format(1, 40, 80, 7000, 1000), VDSM.format(9, 10, 10, 1000, 7000)],
        [NOVA.format(1, 60, 50), NOVA.format(9, 0, 100)],
    ],
    ids=["vdsm", "nova"],
)
def test_two_migrations_of_one_line_stay_in_order(tmp_path: Path, lines: list[str]) -> None:
    path, own = tmp_path / "log", tmp_path / "last"
    path.write_text("\n".join(lines))
    own.write_text(lines[-1])
    log, last = read_intake(path).log, read_intake(own).log
    assert isinstance(log, MigrationLog) and isinstance(last, MigrationLog)
    assert (log.migrations, log.reports) == (2, last.reports)


def test_answers_that_python_printed_are_read(tmp_path: Path) -> None:
    text = (FOLDER / "query-migrate.json").read_text()
    for shown in (repr(json.loads(text)), repr(json.loads(text) | {"blocked": False, "x": None})):
        path = tmp_path / "log"
        path.write_text(shown)
        assert told(read_intake(path)) == told(read_intake(FOLDER / "query-migrate.json"))


OWN = (
    "2026-11-28 09:30:01 migration active, transferred 1.0 GiB of 8.0 GiB VM-state, 1.0 GiB/s",
    "Nov 24 12:42:38 migration status: active (transferred 1, remaining 2), total 3)",
    "2026-11-28 09:30:01.123+0000: event MIGRATION for domain 'vm': {}",
    "name,memory,dirty_rate\nweb,1GiB,3\ndb,1GiB,4",
    "memory: 64GiB\nvcpus: 4\nmode: dirty-bitmap",
    "  dirtyrate.calc_status=2\n  dirtyrate.calc_period=1\n  dirtyrate.megabytes_per_second=4",
    "1700000000.194000006\nJob type: 2\n1700000000.224000216",
)


@pytest.mark.parametrize("text", OWN)
def test_what_a_tool_prints_itself_stays(text: str) -> None:
    assert clean("\n".join([text] * 5)) == "\n".join([text] * 5)
